//! HTTP+SSE, the transport of revision 2024-11-05: one stream of events for all answers, and an address for requests that the server
//! names in its first event.

use super::client::{Client, joined};
use super::events;
use super::fault::{Failure, Fault, UNKNOWN};
use super::read::{self, Reply};
use super::sse::Parser;
use crate::tools::intake;
use crate::tools::link::key;
use futures_util::StreamExt;
use http::Method;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use url::Url;

/// How long a server has to name its address for requests.
const ENDPOINT: Duration = Duration::from_secs(3);

type Waiting = Arc<Mutex<BTreeMap<String, oneshot::Sender<Map<String, Value>>>>>;

/// A session over the old transport.
pub(super) struct Old {
    endpoint: Url,
    waiting: Waiting,
}

/// A place in the waiting list, for as long as a request is under way.
struct Place<'a> {
    waiting: &'a Waiting,
    key: String,
}

impl Old {
    /// Opens the stream, if the server speaks this transport.
    pub(super) async fn find(client: &Client) -> Result<Option<Old>, Failure> {
        let Ok(found) = tokio::time::timeout(ENDPOINT, Old::open(client)).await else { return Ok(None) };
        match found {
            // A server of another kind need not answer a GET at all.
            Err(_) => Ok(None),
            Ok(None) => Ok(None),
            Ok(Some((old, endpoint))) if endpoint.origin() != client.url.origin() => {
                drop(old);
                let place = client.link.redactor().reason(&endpoint.origin().ascii_serialization());
                Err(Fault::fatal(format!(
                    "it speaks HTTP+SSE (revision 2024-11-05) and wants requests at {place}, which is another origin than url's"
                )))
            }
            Ok(Some((old, _))) => {
                tracing::info!("a tool server speaks HTTP+SSE, the transport of revision 2024-11-05");
                Ok(Some(old))
            }
        }
    }

    async fn open(client: &Client) -> Result<Option<(Old, Url)>, Failure> {
        let Some(response) = events::get(client, None, None, &HashMap::new()).await? else { return Ok(None) };
        // A redirect may have led there.
        let base = response.url().clone();
        let mut body = response.bytes_stream().boxed();
        let mut parser = Parser::new(client.most);
        let endpoint = loop {
            let Some(event) = parser.next() else {
                let Some(Ok(chunk)) = body.next().await else { return Ok(None) };
                parser.push(&chunk).map_err(|_| Fault::too_large(client.most))?;
                continue;
            };
            if event.name.as_deref() == Some("endpoint") {
                break event.data.unwrap_or_default();
            }
        };
        let endpoint = String::from_utf8_lossy(&endpoint).into_owned();
        let Some(endpoint) = joined(&base, endpoint.trim()) else { return Ok(None) };
        let waiting = Waiting::default();
        let (answers, client) = (waiting.clone(), client.clone());
        tokio::spawn(async move {
            let reading = async {
                loop {
                    while let Some(event) = parser.next() {
                        if let Some(value) = events::value(&client, &event) {
                            deliver(&client, &answers, value).await;
                        }
                    }
                    let Some(Ok(chunk)) = body.next().await else { return };
                    if parser.push(&chunk).is_err() {
                        return client.link.end(&format!("it sent a message of more than {} bytes", client.most));
                    }
                }
            };
            tokio::select! {
                () = reading => {}
                () = client.link.ended() => {}
            }
            client.link.end("it ended its stream");
            answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        Ok(Some((Old { endpoint: endpoint.clone(), waiting }, endpoint)))
    }

    /// Posts a message; its answer comes over the stream.
    pub(super) async fn post(&self, client: &Client, message: &Value) -> Result<reqwest::Response, Failure> {
        let headers = client.headers(None, &HashMap::new())?;
        client.send(Method::POST, &self.endpoint, &headers, Some(message.to_string().as_bytes())).await
    }

    /// Posts a request and waits for its answer.
    pub(super) async fn ask(&self, client: &Client, message: &Value, id: &Value) -> Result<Reply, Failure> {
        let place = Place { waiting: &self.waiting, key: key(id).unwrap_or_default() };
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(place.key.clone(), sender);
        let response = self.post(client, message).await?;
        let status = response.status();
        if !status.is_success() {
            return read::reply(client, response, id, None, &HashMap::new()).await;
        }
        let none = HashMap::new();
        // Some servers answer in the body as well, or only there.
        let body = read::reply(client, response, id, None, &none);
        let members = tokio::select! {
            answer = answer => answer.map_err(|_| Fault::fatal(format!("it ended its stream before it answered; {UNKNOWN}")))?,
            Ok(Reply::Answer { members, .. }) = body => members,
        };
        Ok(Reply::Answer { members, status, session: None })
    }
}

/// Gives answers to those who wait for them, and other messages to the session.
async fn deliver(client: &Client, waiting: &Waiting, value: Value) {
    let batch = match value {
        Value::Array(batch) => batch,
        one => vec![one],
    };
    for value in batch {
        let receiver = value.get("method").is_none().then(|| receiver(waiting, value.get("id"))).flatten();
        match (receiver, value) {
            (Some(receiver), Value::Object(members)) => {
                let _ = receiver.send(members); // the caller may have given up
            }
            (_, other) => {
                for message in intake::messages(&client.link, other) {
                    let _ = client.others.send(message).await; // the session may have ended
                }
            }
        }
    }
}

/// The caller that waits for an answer: with its id, or alone if the answer has none.
fn receiver(waiting: &Waiting, id: Option<&Value>) -> Option<oneshot::Sender<Map<String, Value>>> {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    match id.and_then(key) {
        Some(key) => waiting.remove(&key),
        None if waiting.len() == 1 => waiting.pop_first().map(|(_, receiver)| receiver),
        None => None,
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
