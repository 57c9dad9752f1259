//! `agentry:tools`: tools of Model Context Protocol servers, as far as they were granted.

use agentry_outbound::tools::{Content, Output, Tool, ToolError};
use serde::Serialize;
use serde_json::{Value, json};

use super::bindings::capabilities::tools::tools;
use super::llm::Json;
use crate::access::{BudgetError, Spending};
use crate::bodies::Copied;
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
        if let Some(to) = begun.request_body() {
            to.pass(arguments.as_bytes());
        }
        let answer = session.call(server, name, arguments, self.shared.end).await;
        if let Err(ToolError::Denied { .. }) = answer {
            if begun.denied() {
                self.remark(denied.to_string());
            }
            return Err(tools::Error::Denied(denied.to_string()));
        }
        let result = match &answer {
            Ok(output) if output.failed => "tool_failed",
            Ok(_) => "ok",
            Err(error) => word(error),
        };
        if let Some(to) = begun.response_body() {
            record(&answer, result, to);
        }
        begun.over(Over {
            result,
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

/// Writes what the guest is answered, as JSON; `code` is the stable word of an error.
fn record(answer: &Result<Output, ToolError>, code: &str, to: Copied) {
    #[derive(Serialize)]
    struct Answer<'a> {
        content: Vec<Piece<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        structured: Option<Json<'a>>,
        failed: bool,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Piece<'a> {
        Text(&'a str),
        Other(Json<'a>),
    }
    fn piece(content: &Content) -> Piece<'_> {
        match content {
            Content::Text(text) => Piece::Text(text),
            Content::Other(block) => Piece::Other(Json::of(block)),
        }
    }
    // Neither the copy nor texts can fail.
    let _ = match answer {
        Ok(Output { content, structured, failed }) => serde_json::to_writer(
            to,
            &Answer {
                content: content.iter().map(piece).collect(),
                structured: structured.as_deref().map(Json::of),
                failed: *failed,
            },
        ),
        Err(error) => serde_json::to_writer(to, &json!({"error": {"code": code, "message": error.to_string()}})),
    };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bodies::{Bodies, Copies};

    #[test]
    fn an_output_is_recorded_in_its_pieces_and_an_error_with_its_words() {
        let written = |answer: Result<Output, ToolError>, code: &str| -> Value {
            let all = Bodies { tools: true, body_bytes: 999, run_bytes: 999, ..Bodies::default() };
            let copied = Copies::new(all).of(NAME).unwrap();
            record(&answer, code, copied.clone());
            serde_json::from_slice(&copied.take().unwrap().bytes).unwrap()
        };
        let content = vec![Content::Text("a".into()), Content::Other("{\"type\": \"image\"}".into())];
        let output = Output { content, structured: Some("[1]".into()), failed: true };
        let expected =
            json!({"content": [{"text": "a"}, {"other": {"type": "image"}}], "structured": [1], "failed": true});
        assert_eq!(written(Ok(output), "tool_failed"), expected);
        let error = ToolError::Unknown { server: "s".into(), tool: "t".into() };
        let expected = json!({"error": {"code": "unknown", "message": "there is no tool s.t"}});
        assert_eq!(written(Err(error), "unknown"), expected);
    }
}
