//! `agentry:tools`: tools of Model Context Protocol servers, as far as they were granted.

use agentry_outbound::tools::{Content, Output, Tool, ToolError};
use serde_json::{Value, json};

use super::bindings::capabilities::tools::tools;
use crate::access::{BudgetError, Spending};
use crate::calls::{Calls, Over};
use crate::instance::State;

/// The capability's name in `plugin.toml`.
const NAME: &str = "tools";

impl tools::Host for State {
    async fn list_tools(&mut self) -> wasmtime::Result<Result<Vec<tools::Tool>, tools::Error>> {
        Ok(self.tools_there_are().await)
    }

    async fn call(
        &mut self,
        server: String,
        name: String,
        arguments: String,
    ) -> wasmtime::Result<Result<tools::Output, tools::Error>> {
        Ok(self.use_tool(&server, &name, &arguments).await)
    }
}

impl State {
    async fn tools_there_are(&mut self) -> Result<Vec<tools::Tool>, tools::Error> {
        // Nothing was granted, and that is what there is.
        let Some(session) = self.access.tools.clone() else { return Ok(Vec::new()) };
        if let Err(why) = self.counts.tool_calls.one() {
            return Err(self.spent("list", "", why));
        }
        let begun = Calls::begin(&self.allowance.calls, NAME, "list", "");
        let answer = session.list(self.shared.end).await;
        let size = |tool: &Tool| tool.name.len() + tool.description.len() + tool.input_schema.len();
        begun.over(Over {
            result: answer.as_ref().map_or_else(word, |_| "ok"),
            response_bytes: answer.as_ref().map_or(0, |tools| tools.iter().map(size).sum::<usize>() as u64),
            detail: reason(&answer),
            ..Over::default()
        });
        let tool =
            |Tool { server, name, description, input_schema }| tools::Tool { server, name, description, input_schema };
        answer.map(|listed| listed.into_iter().map(tool).collect()).map_err(refusal)
    }

    async fn use_tool(&mut self, server: &str, name: &str, arguments: &str) -> Result<tools::Output, tools::Error> {
        let target = format!("{server}.{name}");
        let denied = ToolError::Denied { server: server.to_owned(), tool: name.to_owned() };
        let Some(session) = self.access.tools.clone() else {
            return Err(tools::Error::Denied(self.refused(NAME, "call", &target, denied.to_string())));
        };
        if let Err(why) = self.may_use_tool().await {
            return Err(self.spent("call", &target, why));
        }
        let begun = Calls::begin(&self.allowance.calls, NAME, "call", &target);
        let answer = session.call(server, name, arguments, self.shared.end).await;
        if let Err(ToolError::Denied { .. }) = answer {
            if begun.denied() {
                self.remark(denied.to_string());
            }
            return Err(tools::Error::Denied(denied.to_string()));
        }
        begun.over(Over {
            result: match &answer {
                Ok(output) if output.failed => "tool_failed",
                Ok(_) => "ok",
                Err(error) => word(error),
            },
            request_bytes: arguments.len() as u64,
            response_bytes: answer.as_ref().map_or(0, size),
            detail: reason(&answer),
        });
        answer.map(from_outside).map_err(refusal)
    }

    async fn may_use_tool(&mut self) -> Result<(), BudgetError> {
        self.counts.tool_calls.one()?;
        self.allowance.take(&[(Spending::ToolCalls, 1)]).await
    }

    fn spent(&self, operation: &str, target: &str, why: BudgetError) -> tools::Error {
        self.allowance.refused(NAME, operation, target, &why);
        match why {
            BudgetError::Exhausted(words) => tools::Error::BudgetExceeded(words),
            BudgetError::Unavailable(words) => tools::Error::Unavailable(words),
        }
    }
}

fn reason<T>(answer: &Result<T, ToolError>) -> Value {
    answer.as_ref().map_or_else(|error| json!({ "reason": error.to_string() }), |_| Value::Null)
}

fn size(output: &Output) -> u64 {
    let content = output.content.iter().map(|content| match content {
        Content::Text(text) | Content::Other(text) => text.len(),
    });
    (content.sum::<usize>() + output.structured.as_ref().map_or(0, String::len)) as u64
}

/// The stable word of a record.
fn word(error: &ToolError) -> &'static str {
    match error {
        ToolError::Denied { .. } => "denied",
        ToolError::Unknown { .. } => "unknown",
        ToolError::InvalidArguments { .. } => "invalid_arguments",
        ToolError::TimedOut { .. } => "timed_out",
        ToolError::Unavailable { .. } => "unavailable",
        ToolError::Failed { .. } => "failed",
        ToolError::TooLarge { .. } => "too_large",
    }
}

fn refusal(error: ToolError) -> tools::Error {
    let words = error.to_string();
    match error {
        ToolError::Denied { .. } => tools::Error::Denied(words),
        ToolError::Unknown { .. } => tools::Error::Unknown(words),
        ToolError::InvalidArguments { .. } => tools::Error::InvalidArguments(words),
        ToolError::TimedOut { .. } => tools::Error::TimedOut(words),
        ToolError::Unavailable { .. } => tools::Error::Unavailable(words),
        ToolError::Failed { .. } => tools::Error::Failed(words),
        ToolError::TooLarge { .. } => tools::Error::TooLarge(words),
    }
}

fn from_outside(output: Output) -> tools::Output {
    let content = |content| match content {
        Content::Text(text) => tools::Content::Text(text),
        Content::Other(block) => tools::Content::Other(block),
    };
    tools::Output {
        content: output.content.into_iter().map(content).collect(),
        structured: output.structured,
        failed: output.failed,
    }
}
