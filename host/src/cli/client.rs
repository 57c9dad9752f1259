//! The command line as a client of the daemon.

use super::address::{address, is_loopback};
use super::{Failed, Server};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;

/// Beginning of the error for an address at which nothing listens.
pub const ABSENT: &str = "no daemon answers at";

/// Longer than any answer takes that is not waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// More than any daemon allows in a body: `api.body_mib` is at most 1,024.
const OVERSIZED: u64 = 1 << 31;
/// The smallest `api.body_mib`: a body up to this size never exceeds it.
pub const LEAST_BODY: u64 = 1 << 20;
/// How long a daemon may take to reject it.
const PROBE: Duration = Duration::from_secs(5);

/// A daemon's API.
pub struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
    patience: Duration,
    /// The option that sets the patience; empty: none does.
    option: &'static str,
}

/// An answer that is not a success.
#[derive(Debug)]
pub struct Refused {
    /// The HTTP status.
    pub status: StatusCode,
    /// What was wrong.
    pub detail: String,
}

impl Client {
    /// A client of `--server`.
    pub fn new(server: &Server) -> Result<Client, Failed> {
        let address = address(&server.server)?;
        let token = token(std::env::var_os("AGENTRY_TOKEN").unwrap_or_default())?;
        if token.is_some() && address.starts_with("http://") && !is_loopback(&address) {
            super::output::say(&format!("warning: AGENTRY_TOKEN is sent to {address} without encryption"));
        }
        // As every other client of this program, and not the verifier that reqwest would choose.
        let tls =
            url::Url::parse(&address).map_err(|e| e.to_string()).and_then(|url| agentry_outbound::system_tls(&url));
        let tls = tls.map_err(|reason| Failed::usage(format!("{address}: {reason}")))?;
        // No proxy variables: what is asked is where the answer comes from.
        // No redirects: a request that was meant for this address is not repeated at another.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_backend_preconfigured(tls)
            .connect_timeout(Duration::from_secs(5))
            .build();
        Ok(Client {
            http: http.map_err(|e| Failed::usage(format!("failed to make an HTTP client: {e}")))?,
            server: address,
            token,
            patience: PATIENCE,
            option: "",
        })
    }

    /// The same with another time for each response, which an option of the command sets.
    #[must_use]
    pub fn patient(self, patience: Duration, option: &'static str) -> Client {
        Client { patience, option, ..self }
    }

    /// The daemon's address, with its scheme.
    pub fn address(&self) -> &str {
        &self.server
    }

    /// How long one response may take.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The largest body in bytes that the daemon reads (`api.body_mib`). Announces a larger one and sends nothing of it; `None`
    /// if the daemon does not report its limit.
    pub async fn body_limit(&self) -> Option<u64> {
        let never = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
        let mut request = self
            .http
            .post(format!("{}/v1/tasks/batch", self.server))
            .timeout(PROBE.min(self.patience))
            .header("content-type", "application/json")
            .header("content-length", OVERSIZED)
            .body(reqwest::Body::wrap_stream(never));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.ok()?;
        read(&response.text().await.ok()?, LEVELS)["limit_bytes"].as_u64()
    }

    /// Ask; a refusal is an error with exit code 2.
    pub async fn get(&self, path: &str) -> Result<Value, Failed> {
        self.ask(Method::GET, path, None, self.patience).await?.map_err(refused)
    }

    /// Ask for a response that holds a list of this name, as every daemon's does.
    pub async fn page(&self, path: &str, list: &str) -> Result<Value, Failed> {
        let answer = self.get(path).await?;
        match answer[list].is_array() {
            true => Ok(answer),
            false => Err(self.without(list)),
        }
    }

    /// Send a body.
    pub async fn post(&self, path: &str, body: String) -> Result<Value, Failed> {
        self.ask(Method::POST, path, Some(body), self.patience).await?.map_err(refused)
    }

    /// Take something away.
    pub async fn delete(&self, path: &str) -> Result<Value, Failed> {
        self.ask(Method::DELETE, path, None, self.patience).await?.map_err(refused)
    }

    /// The answer, or the refusal.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        patience: Duration,
    ) -> Result<Result<Value, Refused>, Failed> {
        let (status, text) = self.exchange(method, path, body, patience).await?;
        let value = read(&text, LEVELS);
        if status.is_success() {
            return match value.is_object() {
                true => Ok(Ok(value)),
                false => Err(self.stranger("its response is not a JSON object")),
            };
        }
        // A proxy may return a server error of its own for a daemon that does not respond.
        if !status.is_server_error() && !value["code"].is_string() {
            return Err(self.stranger(&format!("it returned {status} without an error of the API")));
        }
        let word = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let detail = [word("detail"), word("title"), status.to_string()].into_iter().find(|t| !t.is_empty());
        Ok(Err(Refused { status, detail: detail.unwrap_or_default() }))
    }

    /// The answer of `/readyz`, whether the daemon is ready or not.
    pub async fn readiness(&self, patience: Duration) -> Result<Value, Failed> {
        let (status, text) = self.exchange(Method::GET, "/readyz", None, patience).await?;
        let answer = read(&text, LEVELS);
        match answer["ready"].is_boolean() {
            true => Ok(answer),
            false => Err(self.stranger(&format!("/readyz returned {status} without its state"))),
        }
    }

    /// An answer that is not JSON.
    pub async fn text(&self, path: &str) -> Result<String, Failed> {
        let (status, text) = self.exchange(Method::GET, path, None, self.patience).await?;
        match status.is_success() {
            true => Ok(text),
            false => Err(refused(Refused { status, detail: format!("{path}: {status}") })),
        }
    }

    /// A task's output as it was stored, byte for byte: reading it into a value would sort keys and round numbers.
    pub async fn output(&self, id: &str) -> Result<String, Failed> {
        #[derive(serde::Deserialize)]
        struct Task<'a> {
            #[serde(borrow)]
            output: Option<&'a RawValue>,
        }
        let path = format!("/v1/tasks/{}", encode(id));
        let (_, text) = self.exchange(Method::GET, &path, None, self.patience).await?;
        let task: Task<'_> = serde_json::from_str(&text)
            .map_err(|e| Failed::unreachable(format!("the daemon's answer cannot be read: {e}")))?;
        Ok(task.output.map_or("null", RawValue::get).to_owned())
    }

    /// A response that is a stream of events, behind the one with this id; `None`: nothing follows it.
    pub async fn stream(
        &self,
        path: &str,
        last: Option<&str>,
    ) -> Result<Result<Option<reqwest::Response>, Refused>, Failed> {
        // Without a time-out: a task may take days. A daemon that is gone closes the connection.
        let mut request = self.http.get(format!("{}{path}", self.server)).header("accept", "text/event-stream");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(self.unreachable(&error, 0, self.patience).await),
        };
        let status = response.status();
        if status == StatusCode::NO_CONTENT {
            return Ok(Ok(None));
        }
        if status.is_success() {
            let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            return match kind.starts_with("text/event-stream") {
                true => Ok(Ok(Some(response))),
                false => Err(self.stranger("its response is no stream of events")),
            };
        }
        let value = read(&response.text().await.unwrap_or_default(), LEVELS);
        let detail = value["detail"].as_str().map_or_else(|| status.to_string(), str::to_owned);
        Ok(Err(Refused { status, detail }))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        patience: Duration,
    ) -> Result<(StatusCode, String), Failed> {
        let mut request = self.http.request(method, format!("{}{path}", self.server)).timeout(patience);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let sent = body.as_ref().map_or(0, String::len);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let exchanged = async {
            let response = request.send().await?;
            let status = response.status();
            Ok::<_, reqwest::Error>((status, response.text().await?))
        };
        match exchanged.await {
            Ok(exchanged) => Ok(exchanged),
            Err(error) => Err(self.unreachable(&error, sent as u64, patience).await),
        }
    }

    /// The error for a server whose response no daemon would give.
    pub fn stranger(&self, why: &str) -> Failed {
        Failed::unreachable(format!(
            "this does not look like an Agentry daemon at {}: {why}; check --server or AGENTRY_SERVER, and any proxy on the way",
            self.server
        ))
    }

    /// The error for a response without a field that every daemon's has.
    pub fn without(&self, field: &str) -> Failed {
        self.stranger(&format!("its response has no `{field}`"))
    }

    /// No connection, no response in time, and a connection that ended are different problems.
    async fn unreachable(&self, error: &reqwest::Error, sent: u64, patience: Duration) -> Failed {
        let (server, cause) = (&self.server, cause(error));
        if error.is_connect() {
            return Failed::unreachable(match tls_problem(&cause) {
                Some(hint) => format!("the TLS connection to {server} failed: {cause}; {hint}"),
                None => format!(
                    "{ABSENT} {server}: {cause}; start one with `agentry up`, or name it with --server or AGENTRY_SERVER"
                ),
            });
        }
        if error.is_timeout() {
            let option = if self.option.is_empty() { String::new() } else { format!(" ({})", self.option) };
            let seconds = patience.as_secs_f64();
            return Failed::unreachable(format!(
                "no response from the daemon at {server} within {seconds} s{option}; see its log"
            ));
        }
        if cause.contains("invalid HTTP version") && server.starts_with("http://") {
            return Failed::unreachable(format!(
                "{server} does not answer in HTTP; if it has TLS, name it with https://"
            ));
        }
        // A daemon that ended and one that rejected a large body look alike here.
        let probe = self.http.get(format!("{server}/healthz")).timeout(PROBE.min(patience)).send().await;
        let hint = if probe.is_err_and(|error| error.is_connect()) {
            "the daemon has ended: nothing listens there now; see its log".to_owned()
        } else if sent > LEAST_BODY {
            format!(
                "{sent} bytes were sent; if they exceed api.body_mib, send less in one request or raise it, and else see the \
                 daemon's log"
            )
        } else {
            "see its log".to_owned()
        };
        Failed::unreachable(format!("the connection to the daemon at {server} ended: {cause}; {hint}"))
    }
}

/// A remedy for a failed TLS handshake; `None` if the cause is another.
fn tls_problem(cause: &str) -> Option<&'static str> {
    let of = |text: &str| cause.contains(text);
    Some(if of("InvalidContentType") {
        "if it has no TLS, name it with http://"
    } else if of("CaUsedAsEndEntity") {
        "its certificate is an authority's: make it with basicConstraints = critical,CA:FALSE"
    } else if of("UnsupportedCertVersion") {
        "its certificate is not of X.509 version 3: make it with extensions, among them subjectAltName"
    } else if of("UnknownIssuer") {
        "name a PEM file with the certificate of its authority in SSL_CERT_FILE, which must exist"
    } else if of("certificate") {
        "see what api.tls_cert of the daemon needs in the README, under TLS"
    } else {
        return None;
    })
}

/// How deep in an answer a task's input or output may stand: `{tasks: [{input}]}`.
const LEVELS: u8 = 3;

/// An answer, whatever inputs and outputs are in it. They are JSON by its grammar, which allows what no value can hold (`1e999`,
/// half of a surrogate pair, 200 brackets): such a one becomes its text, and the rest is read all the same.
fn read(text: &str, levels: u8) -> Value {
    if let Ok(value) = serde_json::from_str(text) {
        return value;
    }
    if levels > 0 {
        if let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text) {
            return members.into_iter().map(|(key, member)| (key, read(member.get(), levels - 1))).collect();
        }
        if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(text) {
            return items.into_iter().map(|item| read(item.get(), levels - 1)).collect();
        }
    }
    serde_json::from_str::<&RawValue>(text).map_or(Value::Null, |raw| raw.get().into())
}

/// A refusal as the end of a command: what the daemon cannot do now is 3, what it never does is 2.
pub fn refused(refused: Refused) -> Failed {
    let detail = super::escape::line(&refused.detail);
    match refused.status.is_server_error() {
        true => Failed::unreachable(detail),
        false => Failed::usage(detail),
    }
}

/// The token, without space around it: a file that it was read from may end with a newline.
fn token(variable: std::ffi::OsString) -> Result<Option<String>, Failed> {
    let text = variable.into_string().map_err(|_| Failed::usage("AGENTRY_TOKEN is not UTF-8; set it to one token"))?;
    let token = text.trim();
    if token.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Failed::usage(
            "AGENTRY_TOKEN holds space or a control character between others; set it to one token",
        ));
    }
    Ok(Some(token.to_owned()).filter(|token| !token.is_empty()))
}

/// The innermost reason, which is the one that helps.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// A word as a part of a path or query.
pub fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The rows of an answer.
pub fn rows<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
