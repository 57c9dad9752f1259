//! The command line as a client of the daemon.

use super::{Failed, Server};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longer than any answer takes that is not waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// More than any daemon allows in a body: `api.body_mib` is at most 1,024.
const OVERSIZED: u64 = 1 << 31;
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
        // No proxy variables: what is asked is where the answer comes from.
        // No redirects: a request that was meant for this address is not repeated at another.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .build();
        Ok(Client {
            http: http.map_err(|e| Failed::usage(format!("failed to make an HTTP client: {e}")))?,
            server: address,
            token: std::env::var("AGENTRY_TOKEN").ok().filter(|t| !t.is_empty()),
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
            return Ok(Ok(value));
        }
        let word = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let detail = [word("detail"), word("title"), status.to_string()].into_iter().find(|t| !t.is_empty());
        Ok(Err(Refused { status, detail: detail.unwrap_or_default() }))
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
        let unreachable = |error: reqwest::Error| self.unreachable(&error, sent, patience);
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        Ok((status, text))
    }

    /// No connection, no response in time, and a connection that ended are different problems.
    fn unreachable(&self, error: &reqwest::Error, sent: usize, patience: Duration) -> Failed {
        let (server, cause) = (&self.server, cause(error));
        if error.is_connect() {
            let hint = if cause.contains("certificate") {
                "if its authority is your own, name its PEM file in SSL_CERT_FILE"
            } else {
                "start one with `agentry up`, or name it with --server or AGENTRY_SERVER"
            };
            return Failed::unreachable(format!("no daemon answers at {server}: {cause}; {hint}"));
        }
        if error.is_timeout() {
            let option = if self.option.is_empty() { String::new() } else { format!(" ({})", self.option) };
            let seconds = patience.as_secs_f64();
            return Failed::unreachable(format!(
                "no response from the daemon at {server} within {seconds} s{option}; see its log"
            ));
        }
        let hint = match sent {
            0 => "see its log".to_owned(),
            sent => format!(
                "{sent} bytes were sent; if they exceed api.body_mib, send less in one request or raise it, and else see the \
                 daemon's log"
            ),
        };
        Failed::unreachable(format!("the connection to the daemon at {server} ended: {cause}; {hint}"))
    }
}

/// An address with its scheme. `HOST:PORT` means `http://HOST:PORT`.
fn address(text: &str) -> Result<String, Failed> {
    let invalid = |problem: &str| {
        let (text, takes) = (super::escape::line(text), "http://HOST:PORT, https://HOST:PORT or HOST:PORT");
        Failed::usage(format!("--server is \"{text}\": {problem}; expected {takes}"))
    };
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if let Some((_, host)) = authority.rsplit_once('@') {
        // It would be shown wherever the address is, and may be a password.
        let host = super::escape::line(host);
        return Err(Failed::usage(format!(
            "--server (or AGENTRY_SERVER) holds a user or a password before @{host}; the API takes neither: set AGENTRY_TOKEN, and \
             give the address alone"
        )));
    }
    let rest = rest.trim_end_matches('/');
    match scheme {
        "http" | "https" => {}
        "" => {
            let port = rest.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(1..))) {
                return Err(invalid("the port is missing or invalid"));
            }
        }
        other => return Err(invalid(&format!("the scheme {} is not supported", super::escape::line(other)))),
    }
    let address = format!("{}://{rest}", if scheme.is_empty() { "http" } else { scheme });
    match url::Url::parse(&address) {
        Ok(url) if scheme.is_empty() && !matches!(url.path(), "" | "/") => Err(invalid("the scheme is missing")),
        Ok(_) => Ok(address),
        Err(error) => Err(invalid(&error.to_string())),
    }
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
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_address_without_a_scheme_is_http() {
        let same = ["http://127.0.0.1:7070", "https://box", "http://[::1]:1", "http://box/agentry"];
        for text in same {
            assert_eq!(address(text).unwrap(), text);
        }
        assert_eq!(address("http://box:1//").unwrap(), "http://box:1");
        for (text, expected) in [("localhost:8080", "http://localhost:8080"), ("[::1]:7070/", "http://[::1]:7070")] {
            assert_eq!(address(text).unwrap(), expected);
        }
        let problems = [
            ("localhost", "port"),
            ("", "port"),
            ("box:99999", "port"),
            ("box:0", "port"),
            ("::x", "port"),
            ("ftp://box:1", "the scheme ftp is not supported"),
            ("box/a:1", "the scheme is missing"),
            ("a b:1", "domain name"),
            ("http://", "host"),
        ];
        for (text, problem) in problems {
            let error = address(text).unwrap_err();
            assert!(error.code == 2 && error.message.contains(problem), "{text}: {error:?}");
            assert!(error.message.contains("http://HOST:PORT"), "{error:?}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_rejected_and_not_shown() {
        for text in ["http://u:SECRET@box:1", "u:SECRET@box:1", "https://SECRET@box:99999/", "ftp://u:SE@CRET@box"] {
            let error = address(text).unwrap_err();
            assert!(error.code == 2 && error.message.contains("AGENTRY_TOKEN"), "{error:?}");
            assert!(!error.message.contains("SECRET") && !error.message.contains("CRET@"), "{error:?}");
        }
        assert_eq!(address("http://box/a@b").unwrap(), "http://box/a@b");
    }

    /// A server that accepts a connection, reads a little and does `then` with it.
    async fn server(then: impl FnOnce(tokio::net::TcpStream) + Send + 'static) -> Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server { server: listener.local_addr().unwrap().to_string(), json: false };
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut some = [0; 1_024];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut some).await;
            then(stream);
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::new(&server).unwrap()
    }

    #[tokio::test]
    async fn a_daemon_that_sends_no_response_is_given_up_after_the_patience() {
        let (keep, held) = tokio::sync::oneshot::channel();
        let client =
            server(move |stream| drop(keep.send(stream))).await.patient(Duration::from_millis(200), "--patience");
        let error = client.get("/healthz").await.unwrap_err();
        assert_eq!(error.code, 3);
        assert!(error.message.contains("within 0.2 s (--patience)"), "{error:?}");
        assert!(!error.message.contains("no daemon"), "{error:?}");
        drop(held);
    }

    #[tokio::test]
    async fn a_connection_that_ends_while_a_body_is_sent_is_not_called_a_missing_daemon() {
        let client = server(drop).await;
        let error = client.post("/v1/tasks/batch", "x".repeat(8 << 20)).await.unwrap_err();
        assert!(error.message.contains("8388608 bytes") && error.message.contains("api.body_mib"), "{error:?}");
        assert!(!error.message.contains("no daemon"), "{error:?}");
    }

    #[test]
    fn an_answer_is_read_whatever_its_tasks_hold() {
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        for odd in ["1e999", r#""\ud800""#, &deep] {
            let task = format!(r#"{{"id":"a","state":"completed","output":{odd},"attempt":1}}"#);
            let read = read(&format!(r#"{{"tasks":[{task},{{"id":"b"}}],"next_cursor":null}}"#), LEVELS);
            let expected = json!({"id": "a", "state": "completed", "output": odd, "attempt": 1});
            assert_eq!(read, json!({"tasks": [expected, {"id": "b"}], "next_cursor": null}));
        }
        assert_eq!(read("<html>", LEVELS), Value::Null);
    }
}
