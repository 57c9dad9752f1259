//! The command line as a client of the daemon.

use super::{Failed, Server};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longer than any answer takes that is not waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon's API.
pub struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
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
        let address = server.server.trim_end_matches('/').to_owned();
        if !address.starts_with("http://") && !address.starts_with("https://") {
            return Err(Failed::usage(format!("--server is {address:?}; it takes http://HOST:PORT")));
        }
        // No proxy variables: what is asked is where the answer comes from.
        let http = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(5)).build();
        Ok(Client {
            http: http.map_err(|e| Failed::usage(format!("failed to make an HTTP client: {e}")))?,
            server: address,
            token: std::env::var("AGENTRY_TOKEN").ok().filter(|t| !t.is_empty()),
        })
    }

    /// Ask; a refusal is an error with exit code 2.
    pub async fn get(&self, path: &str) -> Result<Value, Failed> {
        self.ask(Method::GET, path, None, PATIENCE).await?.map_err(refused)
    }

    /// Send a body.
    pub async fn post(&self, path: &str, body: String) -> Result<Value, Failed> {
        self.ask(Method::POST, path, Some(body), PATIENCE).await?.map_err(refused)
    }

    /// Take something away.
    pub async fn delete(&self, path: &str) -> Result<Value, Failed> {
        self.ask(Method::DELETE, path, None, PATIENCE).await?.map_err(refused)
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
        let (status, text) = self.exchange(Method::GET, path, None, PATIENCE).await?;
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
        let (_, text) = self.exchange(Method::GET, &path, None, PATIENCE).await?;
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
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let unreachable = |error: reqwest::Error| {
            let hint = "start one with `agentry up`, or name it with --server or AGENTRY_SERVER";
            Failed::unreachable(format!("no daemon answers at {}: {}; {hint}", self.server, cause(&error)))
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        Ok((status, text))
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
