//! One request and its response: time-outs at every stage, a body that is counted, and nothing of a key in what is told.

use super::answer::{Place, error, told, unparsable};
use super::body;
use super::deadlines::{Deadlines, PLACE};
use super::provider::Provider;
use super::retry::{self, Setback};
use super::shape::{Class, Fault};
use super::types::{ChatError, ChatTrace};
use crate::proxy;
use agentry_defence::Defence;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use reqwest::Response;
use serde_json::Value;
use std::error::Error;
use url::Url;

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// The most values in an answer: each takes many times the bytes that it is written with, and none that is meant has so many.
const MAX_VALUES: usize = 1_000_000;
/// How much of an error's body is read, in bytes.
const MAX_ERROR: usize = 64 * 1024;

/// Sends a question once; answers the body of a success.
pub(super) async fn once(
    provider: &Provider,
    place: &Place<'_>,
    (url, headers, body): (&Url, &HeaderMap, &Bytes),
    mut deadlines: Deadlines,
    trace: &mut ChatTrace,
) -> Result<Value, Setback> {
    let free = deadlines.bound(None, provider.places.acquire()).await;
    // The semaphore is never closed, so this place is always held.
    let _held = free.map_err(|error| Setback::last(waiting(error)))?;
    deadlines.total =
        Defence::LlmTotalTime.stands().then(|| (tokio::time::Instant::now() + provider.total, provider.total));
    trace.tries += 1;
    trace.response_bytes = 0;
    let request = provider.client.post(url.clone()).headers(headers.clone()).body(body.clone());
    let head = deadlines
        .bound(Some(("response", provider.first_byte)).filter(|_| Defence::LlmFirstByteTime.stands()), request.send())
        .await;
    let response = match head {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(Setback::passing(broken(provider, &error))),
        // After the task's own end there is no time for another try, and none is made.
        Err(error) => return Err(Setback::passing(error)),
    };
    let id = response.headers().get(provider.shape.request_id_header()).and_then(|id| id.to_str().ok());
    trace.request_id = id.map(|id| told(&provider.redactor.text(id)));
    if response.status().is_success() {
        let setback = if Defence::LlmAskedOnce.stands() { Setback::last } else { Setback::passing };
        answer(provider, place, response, &deadlines, trace).await.map_err(setback)
    } else {
        Err(refusal(provider, place, response, &deadlines, trace).await)
    }
}

/// The time-out of a request that was not sent.
fn waiting(error: ChatError) -> ChatError {
    match error {
        ChatError::TimedOut { limit, .. } => ChatError::TimedOut { stage: PLACE, limit },
        other => other,
    }
}

/// The body of a success. It has begun, so nothing after this is tried again.
async fn answer(
    provider: &Provider,
    place: &Place<'_>,
    response: Response,
    deadlines: &Deadlines,
    trace: &mut ChatTrace,
) -> Result<Value, ChatError> {
    trace.answered = true;
    let url = response.url().clone();
    let status = response.status();
    let shown = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.map(|value| format!(", {name} {}", told(&provider.redactor.text(value)))).unwrap_or_default()
    };
    let told_of = format!("status {}{}{}", status.as_u16(), shown("content-type"), shown("content-encoding"));
    let most = if Defence::LlmAnswer.stands() { MAX_ANSWER } else { usize::MAX - 1 };
    let encoding = encoding(&response);
    let body = read(provider, response, most, deadlines, trace).await?;
    let body = body::plain(&body, &encoding, most).map_err(|why| unparsable(format!("{why} ({told_of})")))?;
    if body.len() > MAX_ANSWER && Defence::LlmAnswer.stands() {
        return Err(unparsable(format!("it is longer than {MAX_ANSWER} bytes")));
    }
    if body::is_empty(&body) {
        return Err(unparsable(format!("it is empty ({told_of})")));
    }
    // Those in texts are counted as well; a text has few.
    let values = body.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if values > MAX_VALUES && Defence::LlmValues.stands() {
        return Err(unparsable(format!("it has more than {MAX_VALUES} values")));
    }
    let mut value = match body::json(&body) {
        Ok(value) => value,
        Err(_) if body::is_page(&body) => {
            // A page costs no tokens: it is no answer of the provider's.
            trace.answered = false;
            trace.address = Some(shown_address(provider, &url));
            return Err(unparsable(format!("it is an HTML page and no JSON ({told_of}): {}", place.remedy())));
        }
        Err(error) => return Err(unparsable(format!("it is no JSON ({told_of}, {} bytes): {error}", body.len()))),
    };
    provider.redactor.json(&mut value);
    Ok(value)
}

/// What another status means. Its body is read for the words; the status counts, whatever becomes of the body.
async fn refusal(
    provider: &Provider,
    place: &Place<'_>,
    response: Response,
    deadlines: &Deadlines,
    trace: &mut ChatTrace,
) -> Setback {
    let status = response.status();
    let headers: HeaderMap = response.headers().clone();
    if status.is_redirection() || status.is_informational() {
        let location = headers.get(http::header::LOCATION).and_then(|to| to.to_str().ok());
        let to =
            location.map(|to| format!(", which leads to {}", told(&provider.redactor.text(to)))).unwrap_or_default();
        trace.address = Some(format!("{}{to}", shown_address(provider, response.url())));
        let reason = format!("it answered {}, and redirects are not followed: {}", status.as_u16(), place.remedy());
        return Setback::last(ChatError::Unavailable { reason });
    }
    let url = response.url().clone();
    // Only a proxy says so (RFC 9110, section 15.5.8).
    if status == http::StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        let reason = format!("the proxy of llm.providers.{}.proxy wants other credentials (407)", place.provider);
        return Setback::last(ChatError::Unavailable { reason });
    }
    let most = if Defence::LlmError.stands() { MAX_ERROR } else { usize::MAX - 1 };
    let encoding = encoding(&response);
    let body = read(provider, response, most, deadlines, trace).await.unwrap_or_default();
    let body = body::plain(&body, &encoding, most).unwrap_or_default();
    let is_page = body::is_page(&body);
    let mut body = body::json(&body).unwrap_or(Value::Null);
    provider.redactor.json(&mut body);
    let mut fault = provider.shape.fault(status.as_u16(), &body);
    if fault.words.is_empty() {
        fault.words = format!("status {}", status.as_u16());
    }
    if fault.class == Class::Address || (is_page && fault.class == Class::Key) {
        trace.address = Some(shown_address(provider, &url));
    }
    // A provider refuses a key in JSON. A page comes from what stands before it, or at another address.
    if is_page && fault.class == Class::Key {
        let reason = format!(
            "it answered {} with an HTML page: {}; or see llm.providers.{}.key",
            status.as_u16(),
            place.remedy(),
            place.provider
        );
        return Setback::last(ChatError::Unavailable { reason });
    }
    let after = retry::after(&headers).or(fault.after);
    let may_retry = retry::said(&headers).unwrap_or(true) && is_passing(status.as_u16(), &fault);
    Setback { error: error(&fault, after, place), may_retry, after }
}

/// How a body is compressed, as its server says.
fn encoding(response: &Response) -> String {
    let value = response.headers().get(http::header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// 408, 409, 429 and 5xx pass, unless the provider says that it is about something else, such as money.
fn is_passing(status: u16, fault: &Fault) -> bool {
    matches!(status, 408 | 409 | 429 | 500..) && matches!(fault.class, Class::Rate | Class::Down)
}

/// A body, read to its end or one byte beyond the limit.
async fn read(
    provider: &Provider,
    mut response: Response,
    limit: usize,
    deadlines: &Deadlines,
    trace: &mut ChatTrace,
) -> Result<BytesMut, ChatError> {
    let mut body = BytesMut::new();
    while body.len() <= limit {
        let chunk = deadlines
            .bound(Some(("further bytes", provider.idle)).filter(|_| Defence::LlmIdleTime.stands()), response.chunk())
            .await?;
        match chunk {
            Ok(Some(chunk)) => {
                let room = (limit + 1).saturating_sub(body.len());
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                trace.response_bytes += chunk.len() as u64;
            }
            Ok(None) => break,
            Err(error) => {
                let reason =
                    format!("the connection broke after {} bytes of the answer: {}", body.len(), cause(&error));
                return Err(ChatError::Unavailable { reason });
            }
        }
    }
    Ok(body)
}

/// Where a request went, for the operator alone; without the query, which may have a key.
fn shown_address(provider: &Provider, url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    provider.redactor.text(url.as_str())
}

/// Why there is no response.
pub(super) fn broken(provider: &Provider, error: &reqwest::Error) -> ChatError {
    if error.is_timeout() && error.is_connect() {
        let stage = if provider.proxy.is_some() { "connection through its proxy" } else { "connection" };
        return ChatError::TimedOut { stage, limit: provider.connect };
    }
    if provider.proxy.is_some() {
        // In plain text every connection is one to the proxy.
        let plain = || format!("it cannot be connected to: {}", cause(error));
        let why =
            proxy::failure(error).or_else(|| (error.is_connect() && provider.root.scheme() == "http").then(plain));
        if let Some(why) = why {
            let why = provider.redactor.text(&why);
            return ChatError::Unavailable {
                reason: format!("the proxy of llm.providers.{}.proxy: {why}", provider.name),
            };
        }
    }
    let what = if error.is_connect() { "it cannot be connected to" } else { "the connection broke before the answer" };
    ChatError::Unavailable { reason: format!("{what}: {}", provider.redactor.text(&cause(error))) }
}

/// The innermost cause, which is the one that says something, and has no address in it.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if cause.is::<reqwest::Error>() { "no cause is known".to_owned() } else { cause.to_string() }
}
