//! One request and its response: time-outs at every stage, a body that is counted, and nothing of a key in what is told.

use super::answer::{Place, error, told, unparsable};
use super::deadlines::{Deadlines, PLACE};
use super::provider::Provider;
use super::retry::{self, Setback};
use super::shape::{Class, Fault};
use super::types::{ChatError, ChatTrace};
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
        answer(provider, response, &deadlines, trace).await.map_err(setback)
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
    response: Response,
    deadlines: &Deadlines,
    trace: &mut ChatTrace,
) -> Result<Value, ChatError> {
    let status = response.status();
    let shown = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.map(|value| format!(", {name} {}", provider.redactor.text(&told(value)))).unwrap_or_default()
    };
    let told_of = format!("status {}{}{}", status.as_u16(), shown("content-type"), shown("content-encoding"));
    let most = if Defence::LlmAnswer.stands() { MAX_ANSWER } else { usize::MAX - 1 };
    let body = read(provider, response, most, deadlines, trace).await?;
    if body.len() > MAX_ANSWER && Defence::LlmAnswer.stands() {
        return Err(unparsable(format!("it is longer than {MAX_ANSWER} bytes")));
    }
    if body.is_empty() {
        return Err(unparsable(format!("it is empty ({told_of})")));
    }
    // Those in texts are counted as well; a text has few.
    let values = body.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if values > MAX_VALUES && Defence::LlmValues.stands() {
        return Err(unparsable(format!("it has more than {MAX_VALUES} values")));
    }
    let mut value = serde_json::from_slice(&body)
        .map_err(|error| unparsable(format!("it is no JSON ({told_of}, {} bytes): {error}", body.len())))?;
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
        let reason = format!(
            "it answered {} and leads elsewhere, where nobody follows; see llm.providers.{}.url",
            status.as_u16(),
            place.provider
        );
        return Setback::last(ChatError::Unavailable { reason });
    }
    let most = if Defence::LlmError.stands() { MAX_ERROR } else { usize::MAX - 1 };
    let body = read(provider, response, most, deadlines, trace).await.unwrap_or_default();
    let mut body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    provider.redactor.json(&mut body);
    let mut fault = provider.shape.fault(status.as_u16(), &body);
    if fault.words.is_empty() {
        fault.words = format!("status {}", status.as_u16());
    }
    let after = retry::after(&headers).or(fault.after);
    let may_retry = retry::said(&headers).unwrap_or(true) && is_passing(status.as_u16(), &fault);
    Setback { error: error(&fault, after, place), may_retry, after }
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

/// Why there is no response.
fn broken(provider: &Provider, error: &reqwest::Error) -> ChatError {
    if error.is_timeout() && error.is_connect() {
        return ChatError::TimedOut { stage: "connection", limit: provider.connect };
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
