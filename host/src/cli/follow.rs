//! `--follow`: a task's events or log lines as they come, until it has ended.

use super::client::{Client, encode, refused};
use super::{Failed, output};
use futures_util::StreamExt;
use serde_json::Value;
use sse_stream::SseStream;
use std::time::Duration;

/// Between a stream that broke and the next.
const PAUSE: Duration = Duration::from_secs(1);

/// Prints what comes, each row as `show` makes it or as a line of JSON. A stream that breaks is begun again behind the last row, so that
/// none is missing or comes twice.
pub async fn run(
    client: &Client,
    id: &str,
    part: &str,
    json: bool,
    show: impl Fn(&Value) -> String,
) -> Result<(), Failed> {
    let path = format!("/v1/tasks/{}/{part}", encode(id));
    let (mut last, mut begun): (Option<String>, bool) = (None, false);
    loop {
        let broke = match client.stream(&path, last.as_deref()).await {
            // Nothing follows: it has ended.
            Ok(Ok(None)) => return Ok(()),
            Ok(Ok(Some(response))) => {
                begun = true;
                let mut events = std::pin::pin!(SseStream::from_bytes_stream(response.bytes_stream()));
                loop {
                    match events.next().await {
                        Some(Ok(event)) => {
                            let Some(data) = event.data else { continue };
                            last = event.id.or(last);
                            let shown = match json {
                                true => data + "\n",
                                false => show(&serde_json::from_str(&data).unwrap_or(Value::Null)),
                            };
                            if !output::written(&shown)? {
                                return Ok(());
                            }
                        }
                        // The daemon ends a stream after the last row, and when it shuts down: the next answer tells which it was.
                        None => break None,
                        Some(Err(error)) => break Some(error.to_string()),
                    }
                }
            }
            Ok(Err(answer)) if answer.status.is_server_error() && begun => Some(answer.detail),
            Ok(Err(answer)) => return Err(refused(answer)),
            Err(failed) if failed.is_unreachable() && begun => Some(failed.message),
            Err(failed) => return Err(failed),
        };
        if let Some(why) = broke {
            output::say(&format!("agentry: the stream broke: {}; going on", super::escape::line(&why)));
            tokio::time::sleep(PAUSE).await;
        }
    }
}
