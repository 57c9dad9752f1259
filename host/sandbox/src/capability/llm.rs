//! `agentry:llm`: chats with models that were granted, by the operator's names for them.

mod body;

pub(super) use body::Json;

use agentry_defence::Defence;
use agentry_outbound::llm::{self as outside, ChatError, ChatFailure, ChatReply, ChatTrace};
use serde_json::{Value, json};

use super::bindings::capabilities::llm::chat;
use crate::access::{BudgetError, Spending};
use crate::calls::{Calls, Over};
use crate::instance::State;
use crate::streams::lock;

/// The capability's name in `plugin.toml`.
const NAME: &str = "llm";

impl chat::Host for State {
    async fn chat(&mut self, request: chat::Request) -> wasmtime::Result<Result<chat::Reply, chat::Error>> {
        Ok(self.ask(request).await)
    }
}

impl State {
    async fn ask(&mut self, request: chat::Request) -> Result<chat::Reply, chat::Error> {
        let model = request.model.clone();
        let granted =
            self.access.models.contains(&model) || self.access.models.contains("*") || !Defence::ModelGrant.stands();
        let Some(llm) = self.access.llm.clone().filter(|_| granted) else {
            let words = format!(
                "the model {model:?} is not granted; ask for it in plugin.toml under [capabilities]: llm = [{model:?}]"
            );
            return Err(chat::Error::Denied(self.refused(NAME, "chat", &model, words)));
        };
        let request = to_outside(request);
        let estimate = llm.estimate(&request);
        if let Err(why) = self.may_ask(estimate).await {
            self.allowance.refused(NAME, "chat", &model, &why);
            return Err(match why {
                BudgetError::Exhausted(words) => chat::Error::BudgetExceeded(words),
                BudgetError::Unavailable(words) => chat::Error::Unavailable(words),
            });
        }
        let begun = Calls::begin(&self.allowance.calls, NAME, "chat", &model);
        if let Some(to) = begun.request_body() {
            body::request(&request, to);
        }
        let answer = llm.chat(&request, self.shared.end).await;
        let trace = match &answer {
            Ok(ChatReply { trace, .. }) | Err(ChatFailure { trace, .. }) => trace,
        };
        let tokens = u64::from(trace.tokens.input) + u64::from(trace.tokens.output);
        let mut detail = detail(trace);
        if let Err(failure) = &answer {
            detail["reason"] = Value::String(failure.error.to_string());
        }
        let result = answer.as_ref().map_or_else(|failure| word(&failure.error), |_| "ok");
        if let Some(to) = begun.response_body() {
            body::response(&answer, result, to);
        }
        begun.over(Over { result, request_bytes: trace.request_bytes, response_bytes: trace.response_bytes, detail });
        lock(&self.allowance.calls).llm_tokens += tokens;
        self.allowance.correct(Spending::LlmTokens, estimate, tokens).await;
        answer.map(from_outside).map_err(|ChatFailure { error, usage, .. }| refusal(error, usage))
    }

    /// Whether a request that may cost so many tokens is within what this run, this task and this plugin may spend.
    async fn may_ask(&mut self, estimate: u64) -> Result<(), BudgetError> {
        let used = lock(&self.allowance.calls).llm_tokens;
        if used + estimate > self.llm_tokens && Defence::LlmTokens.stands() {
            return Err(BudgetError::Exhausted(format!(
                "llm_tokens = {} is used up ({used} used, and this request may take {estimate} more)",
                self.llm_tokens
            )));
        }
        self.counts.llm_requests.one()?;
        let amounts = [(Spending::LlmRequests, 1), (Spending::LlmTokens, estimate)];
        self.allowance.take(&amounts).await
    }
}

/// Details of a call for its record. Its tokens are those that are booked.
fn detail(trace: &ChatTrace) -> Value {
    let tokens = &trace.tokens;
    let mut detail = json!({
        "provider": trace.provider, "model": trace.model, "tries": trace.tries, "request_id": trace.request_id,
        "input_tokens": tokens.input, "output_tokens": tokens.output,
    });
    if tokens.is_estimated {
        detail["estimated"] = true.into();
    }
    let parts = [
        ("cached_tokens", tokens.cached),
        ("cache_write_tokens", tokens.cache_written),
        ("reasoning_tokens", tokens.reasoning),
    ];
    for (name, count) in parts.into_iter().filter_map(|(name, count)| Some((name, count?))) {
        detail[name] = count.into();
    }
    if let Some(address) = &trace.address {
        detail["address"] = address.as_str().into();
    }
    detail
}

/// The stable word of a record.
fn word(error: &ChatError) -> &'static str {
    match error {
        ChatError::UnknownModel { .. } | ChatError::InvalidRequest { .. } => "invalid_request",
        ChatError::TooLong { .. } => "too_long",
        ChatError::RateLimited { .. } => "rate_limited",
        ChatError::Unavailable { .. } => "unavailable",
        ChatError::TimedOut { .. } => "timed_out",
        ChatError::Truncated { .. } => "truncated",
        ChatError::Blocked { .. } => "blocked",
        ChatError::Unparsable { .. } => "unparsable",
    }
}

fn refusal(error: ChatError, usage: outside::TokenUsage) -> chat::Error {
    let words = error.to_string();
    match error {
        ChatError::UnknownModel { .. } | ChatError::InvalidRequest { .. } => chat::Error::InvalidRequest(words),
        ChatError::TooLong { .. } => chat::Error::TooLong(words),
        ChatError::RateLimited { after, .. } => chat::Error::RateLimited(chat::RateLimited {
            message: words,
            retry_after_ms: after.map(|after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX)),
        }),
        ChatError::Unavailable { .. } => chat::Error::Unavailable(words),
        ChatError::TimedOut { .. } => chat::Error::TimedOut(words),
        ChatError::Truncated { text } => {
            let usage = chat::Usage { input_tokens: usage.input, output_tokens: usage.output };
            chat::Error::Truncated(chat::Partial { text, usage })
        }
        ChatError::Blocked { .. } => chat::Error::Blocked(words),
        ChatError::Unparsable { .. } => chat::Error::Unparsable(words),
    }
}

fn to_outside(request: chat::Request) -> outside::ChatRequest {
    let format = match request.response_format {
        None | Some(chat::ResponseFormat::Text) => outside::ResponseFormat::Text,
        Some(chat::ResponseFormat::Json) => outside::ResponseFormat::Json,
        Some(chat::ResponseFormat::JsonSchema(chat::JsonSchema { name, schema })) => {
            outside::ResponseFormat::JsonSchema { name, schema }
        }
    };
    outside::ChatRequest {
        model: request.model,
        messages: request.messages.into_iter().map(message).collect(),
        tools: request
            .tools
            .into_iter()
            .map(|chat::Tool { name, description, parameters }| outside::Tool { name, description, parameters })
            .collect(),
        tool_choice: request.tool_choice.map(|choice| match choice {
            chat::ToolChoice::Auto => outside::ToolChoice::Auto,
            chat::ToolChoice::None => outside::ToolChoice::None,
            chat::ToolChoice::Required => outside::ToolChoice::Required,
            chat::ToolChoice::Named(name) => outside::ToolChoice::Named(name),
        }),
        response_format: format,
        temperature: request.temperature,
        max_tokens: request.max_tokens,
        stop: request.stop,
        seed: request.seed,
    }
}

fn message(message: chat::Message) -> outside::Message {
    match message {
        chat::Message::System(text) => outside::Message::System(text),
        chat::Message::User(text) => outside::Message::User(text),
        chat::Message::Assistant(chat::Assistant { text, tool_calls }) => {
            let call =
                |chat::ToolCall { id, name, arguments, opaque }| outside::ToolCall { id, name, arguments, opaque };
            let tool_calls = tool_calls.into_iter().map(call).collect();
            outside::Message::Assistant(outside::Assistant { text, tool_calls })
        }
        chat::Message::Tool(chat::ToolResult { id, name, content, failed }) => {
            outside::Message::Tool(outside::ToolResult { id, name, content, failed })
        }
    }
}

fn from_outside(reply: ChatReply) -> chat::Reply {
    let call = |outside::ToolCall { id, name, arguments, opaque }| chat::ToolCall { id, name, arguments, opaque };
    chat::Reply {
        message: chat::Assistant {
            text: reply.message.text,
            tool_calls: reply.message.tool_calls.into_iter().map(call).collect(),
        },
        wants_tools: reply.wants_tools,
        model: reply.trace.model,
        usage: chat::Usage { input_tokens: reply.usage.input, output_tokens: reply.usage.output },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentry_outbound::llm::Tokens;

    #[test]
    fn record_has_the_booked_tokens_and_what_is_known_of_them() {
        let trace = ChatTrace { provider: "lab".into(), model: "m-1".into(), tries: 1, ..ChatTrace::default() };
        let plain = json!({"provider": "lab", "model": "m-1", "tries": 1, "request_id": null,
            "input_tokens": 0, "output_tokens": 0});
        assert_eq!(detail(&trace), plain);
        let tokens = Tokens {
            input: 20,
            output: 6,
            is_estimated: true,
            cached: Some(7),
            cache_written: Some(0),
            reasoning: Some(5),
        };
        let shown = detail(&ChatTrace { tokens, address: Some("http://lab/v1".into()), ..trace });
        assert_eq!(
            (&shown["input_tokens"], &shown["output_tokens"], &shown["estimated"]),
            (&json!(20), &json!(6), &json!(true))
        );
        assert_eq!((&shown["cached_tokens"], &shown["cache_write_tokens"]), (&json!(7), &json!(0)));
        assert_eq!((&shown["reasoning_tokens"], &shown["address"]), (&json!(5), &json!("http://lab/v1")));
    }
}
