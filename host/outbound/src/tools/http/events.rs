//! Streams of events: the one that a request is answered with, and the one for what a server says unasked.

use super::client::{Client, Headers, Listening};
use super::fault::{Failure, Fault};
use super::read::{Chunks, Form, form, take};
use super::sse::{Event, Parser};
use crate::tools::intake;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, Method, header};
use rmcp::transport::streamable_http_client::SseError;
use serde_json::{Map, Value};
use sse_stream::Sse;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often a stream that broke is taken up again.
pub(super) const RESUMES: usize = 5;
/// How long to wait before, if the server does not say, and at most.
const RESUME_DELAY: Duration = Duration::from_secs(1);
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(8);
/// How long the rest of a stream is read after the answer, so that the connection can be used again.
const DRAIN: Duration = Duration::from_millis(100);
/// How long an answer may take that comes over the other stream, after its own ended without it: some servers send it there.
const ELSEWHERE: Duration = Duration::from_secs(2);
/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(20);

/// Where to take up a stream that broke, and when.
struct Place {
    last: Option<String>,
    delay: Duration,
}

/// Reads events to the answer; `None`: it came over the other stream. A stream that breaks is taken up again if the server gave it
/// an id.
pub(super) async fn answer(
    client: &Client,
    mut body: Chunks,
    id: &Value,
    session: Option<&str>,
    headers: &Headers,
) -> Result<Option<Map<String, Value>>, Failure> {
    let mut place = Place { last: None, delay: RESUME_DELAY };
    for resumed in 0..=RESUMES {
        let mut parser = Parser::new(client.most);
        while let Some(Ok(chunk)) = body.next().await {
            parser.push(&chunk).map_err(|_| Fault::too_large(client.most))?;
            if let Some(members) = found(client, &mut parser, id, &mut place).await? {
                tokio::spawn(tokio::time::timeout(DRAIN, async move { while body.next().await.is_some() {} }));
                return Ok(Some(members));
            }
        }
        parser.finish();
        if let Some(members) = found(client, &mut parser, id, &mut place).await? {
            return Ok(Some(members));
        }
        let may_resume = resumed < RESUMES && !client.link.is_stateless();
        let Some(last) = place.last.as_deref().filter(|_| may_resume) else { break };
        tokio::time::sleep(place.delay).await;
        match get(client, session, Some(last), headers).await? {
            Some(response) => body = response.bytes_stream().boxed(),
            None => break,
        }
    }
    match client.listening.load(Ordering::Acquire) > 0 && came_elsewhere(client, id).await {
        true => Ok(None),
        false => Err(Fault::unanswered("it ended the stream before it answered")),
    }
}

async fn came_elsewhere(client: &Client, id: &Value) -> bool {
    let until = tokio::time::Instant::now() + ELSEWHERE;
    while tokio::time::Instant::now() < until {
        if !client.link.awaits(id) {
            return true;
        }
        tokio::time::sleep(LOOK).await;
    }
    false
}

/// The answer among the events that are whole.
async fn found(
    client: &Client,
    parser: &mut Parser,
    id: &Value,
    place: &mut Place,
) -> Result<Option<Map<String, Value>>, Failure> {
    while let Some(event) = parser.next() {
        if let Some(retry) = event.retry {
            place.delay = Duration::from_millis(retry).min(LONGEST_DELAY);
        }
        if event.id.is_some() {
            place.last.clone_from(&event.id);
        }
        if event.name.as_deref() == Some("endpoint") {
            return Err(Fault::unanswered(
                "it answered with an event of HTTP+SSE, the transport of revision 2024-11-05",
            ));
        }
        let Some(value) = value(client, &event) else { continue };
        if let Some(members) = take(client, value, id).await {
            return Ok(Some(members));
        }
    }
    Ok(None)
}

/// An event's data, whatever the event is called. One without data only keeps the stream open.
pub(super) fn value(client: &Client, event: &Event) -> Option<Value> {
    let data = event.data.as_deref().filter(|data| !data.trim_ascii().is_empty())?;
    let value = intake::read(&client.link, data);
    if value.is_none() && event.name.as_deref().is_none_or(|name| name == "message") {
        client.link.garbled(data.len());
    }
    value
}

/// Opens a stream of events with a GET; `None`: the server has none.
pub(super) async fn get(
    client: &Client,
    session: Option<&str>,
    last: Option<&str>,
    headers: &Headers,
) -> Result<Option<reqwest::Response>, Failure> {
    let mut headers = client.headers(session, headers)?;
    headers.remove(header::CONTENT_TYPE);
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    if let Some(last) = last.and_then(|last| HeaderValue::from_str(last).ok()) {
        headers.insert("last-event-id", last);
    }
    let response = client.send(Method::GET, &client.url, &headers, None).await?;
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_stream = response.status().is_success() && form(kind) == Form::Events;
    Ok(is_stream.then_some(response))
}

/// The stream of what the server says unasked. rmcp only needs to know where to go on when it breaks: its messages go to the session.
pub(super) async fn listen(
    client: &Client,
    session: Option<&str>,
    last: Option<&str>,
    headers: &Headers,
) -> Result<Option<impl Stream<Item = Result<Sse, SseError>> + Send + use<>>, Failure> {
    let Some(response) = get(client, session, last, headers).await? else { return Ok(None) };
    let body: Chunks = response.bytes_stream().boxed();
    let parts = (body, Parser::new(client.most), client.clone(), Listening::new(&client.listening));
    Ok(Some(futures_util::stream::unfold(parts, |(mut body, mut parser, client, listening)| async move {
        loop {
            while let Some(event) = parser.next() {
                if let Some(value) = value(&client, &event) {
                    for message in intake::messages(&client.link, value) {
                        let _ = client.others.send(message).await; // the session may have ended
                    }
                }
                if event.id.is_some() || event.retry.is_some() {
                    let place = Sse { event: None, data: None, id: event.id, retry: event.retry };
                    return Some((Ok(place), (body, parser, client, listening)));
                }
            }
            let chunk = body.next().await?.ok()?;
            parser.push(&chunk).ok()?;
        }
    })))
}
