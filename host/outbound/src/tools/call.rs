//! One call of one tool: refused, or sent once, and its answer measured and checked.

use super::catalogue::Entry;
use super::connection::{Connection, Live, bound};
use super::{Content, Output, ToolError, content, http, intake};
use crate::schema::apart;
use agentry_defence::Defence;
use rmcp::model::{CallToolRequestParams, CallToolResponse, CallToolResult};
use rmcp::service::ServiceError;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Calls a tool that is granted and known, if the arguments fit. Never twice. Dropped, it is cancelled: rmcp tells the server.
pub(super) async fn call(
    connection: &Arc<Connection>,
    live: &Live,
    entry: &Arc<Entry>,
    arguments: &str,
    until: Instant,
) -> Result<Output, ToolError> {
    let server = connection.server();
    let (until, limit) = bound(until, if Defence::ToolTime.stands() { server.call } else { Duration::MAX });
    let late = |sent| ToolError::TimedOut { server: server.name.clone(), limit, sent };
    if limit.is_zero() {
        return Err(late(false));
    }
    let fit = {
        let (connection, entry, text) = (connection.clone(), entry.clone(), arguments.to_owned());
        apart(move || entry.arguments(&text, &connection.server().redactor))
    };
    let fit = tokio::time::timeout_at(until, fit).await.map_err(|_| late(false))?;
    let arguments = fit.map_err(|reason| connection.unavailable(&reason))??;
    let request = CallToolRequestParams::new(entry.tool.name.clone()).with_arguments(arguments);
    let asked = tokio::select! {
        biased;
        asked = tokio::time::timeout_at(until, live.peer.call_tool_once(request)) => asked,
        () = live.link.ended() => return Err(connection.broken(live)),
    };
    match asked.map_err(|_| late(true))? {
        Ok(CallToolResponse::Complete(result)) => {
            let output = output(connection, entry, result);
            tokio::time::timeout_at(until, output).await.map_err(|_| late(true))?
        }
        Ok(_) => Err(made(connection, entry, "its answer is none of the protocol")),
        Err(error) => Err(failure(connection, live, entry, error)),
    }
}

/// What a tool gave, if it is not too much and is what was promised.
async fn output(connection: &Arc<Connection>, entry: &Arc<Entry>, result: CallToolResult) -> Result<Output, ToolError> {
    let server = connection.server();
    let result = result.meta.and_then(|mut meta| meta.0.remove(intake::RESULT)).unwrap_or_default();
    let read = content::read(result).map_err(|reason| made(connection, entry, &reason))?;
    let (output, structured) = (read.output, read.structured);
    if output_bytes(&output) > server.output_bytes && Defence::ToolOutput.stands() {
        return Err(too_large(connection, entry));
    }
    if !entry.promises() {
        return Ok(output);
    }
    let (entry, server) = (entry.clone(), server.clone());
    let checked = apart(move || entry.check(structured.as_ref(), &output, &server.redactor).map(|()| output));
    checked.await.map_err(|reason| connection.unavailable(&reason))?
}

/// The error of a call whose result is of no use. It is not the error of one that was not made.
fn made(connection: &Connection, entry: &Entry, reason: &str) -> ToolError {
    ToolError::Failed {
        server: entry.tool.server.clone(),
        tool: entry.tool.name.clone(),
        reason: connection.server().redactor.reason(&format!("the call was made, but {reason}")),
    }
}

fn output_bytes(output: &Output) -> u64 {
    let content = output.content.iter().map(|content| match content {
        Content::Text(text) | Content::Other(text) => text.len() as u64,
    });
    content.sum::<u64>() + output.structured.as_ref().map_or(0, |text| text.len() as u64)
}

fn too_large(connection: &Connection, entry: &Entry) -> ToolError {
    let limit = connection.server().output_bytes;
    ToolError::TooLarge { server: entry.tool.server.clone(), tool: entry.tool.name.clone(), limit }
}

/// What an error of a call means, and whether the session outlives it.
fn failure(connection: &Connection, live: &Live, entry: &Entry, error: ServiceError) -> ToolError {
    match error {
        ServiceError::McpError(error) => ToolError::Failed {
            server: entry.tool.server.clone(),
            tool: entry.tool.name.clone(),
            reason: connection.server().redactor.reason(&format!("{}: {}", error.code.0, error.message)),
        },
        ServiceError::UnexpectedResponse => made(connection, entry, "its answer is none of the protocol"),
        ServiceError::TransportSend(error) => {
            let mut words = http::words(&*error.error);
            if let Some(http::Failure::SessionExpired) = error.error.downcast_ref::<http::Failure>() {
                words = format!("{words}: {}", live.link.explanation());
            }
            match error.error.downcast_ref::<http::Failure>() {
                Some(http::Failure::Client(fault)) if fault.is_too_large => return too_large(connection, entry),
                // Overloaded or failing for once; its session need not be lost.
                Some(http::Failure::Client(fault)) if !fault.ends_session => {}
                _ => live.link.end(&words),
            }
            connection.unavailable(&words)
        }
        ServiceError::TransportClosed => connection.broken(live),
        other => connection.unavailable(&other.to_string()),
    }
}
