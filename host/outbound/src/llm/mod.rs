//! Chats with language models, by the operator's names for them.
//!
//! ```text
//! prompt     a request, checked            (schema, beside this module: what an answer has to fit)
//! shape      what differs by provider:     openai, responses, anthropic, gemini
//! provider   ask, and ask again            retry, deadlines, exchange (one request)
//! body       bytes of a response, to JSON
//! answer     an answer, or why it is none   calls, finish, form, tokens: what servers write, and what is read
//! wire       what a call carries for its provider
//! ```

mod answer;
mod anthropic;
mod body;
mod calls;
mod deadlines;
mod exchange;
mod finish;
mod form;
mod gemini;
mod listing;
mod openai;
mod prompt;
mod provider;
mod responses;
mod retry;
mod settings;
mod shape;
#[cfg(test)]
mod tests;
mod tokens;
mod types;
mod wire;

pub use types::*;

use crate::schema;
use deadlines::Deadlines;
use prompt::{Format, Prompt};
use provider::Provider;
use shape::{Class, Ending};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokens::Counted;
use tokio::time::Instant;

/// Bytes of a text that are counted as one token. English has about four, other languages and code have fewer: an estimate
/// for a budget is rather too high.
const BYTES_PER_TOKEN: u64 = 3;

/// Every model that the operator offers. Cheap to clone.
#[derive(Clone)]
pub struct Llm {
    providers: Arc<BTreeMap<String, Provider>>,
    models: Arc<BTreeMap<String, ModelSettings>>,
}

impl std::fmt::Debug for Llm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Llm").field("models", &self.models).finish_non_exhaustive()
    }
}

impl Llm {
    /// Checks the settings and sets the clients up; connects nowhere.
    ///
    /// # Errors
    /// A model whose provider is unknown, with the names of those that are; a provider that wants a key and has none;
    /// time-outs that contradict each other; an address, header or certificate file that cannot be used.
    pub fn new(settings: LlmSettings) -> Result<Llm, LlmSettingsError> {
        settings::check(&settings)?;
        let provider =
            |(name, provider): (&String, &ProviderSettings)| Ok((name.clone(), Provider::new(name, provider)?));
        let providers =
            settings.providers.iter().map(provider).collect::<Result<BTreeMap<_, _>, LlmSettingsError>>()?;
        Ok(Llm { providers: providers.into(), models: settings.models.into() })
    }

    /// The names that plugins may be granted.
    pub fn models(&self) -> Vec<String> {
        self.models.keys().cloned().collect()
    }

    /// The most tokens that a request may cost, for a budget: its input estimated from its length, and its longest answer.
    pub fn estimate(&self, request: &ChatRequest) -> u64 {
        let (input, answer) = estimated(request, self.models.get(&request.model));
        input.saturating_add(answer.into())
    }

    /// Asks, and waits for the whole answer; tries again what may be tried again before `until`. Dropping the future ends it.
    ///
    /// # Errors
    /// See [`ChatError`]; never an answer that is not whole.
    pub async fn chat(&self, request: &ChatRequest, until: Instant) -> Result<ChatReply, ChatFailure> {
        let found = self.models.get(&request.model);
        let Some((model, provider)) = found.and_then(|model| Some((model, self.providers.get(&model.provider)?)))
        else {
            let (model, known) = (request.model.clone(), self.models());
            return Err(ChatFailure::new(ChatError::UnknownModel { model, known }));
        };
        let mut trace =
            ChatTrace { provider: provider.name.clone(), model: model.model.clone(), ..ChatTrace::default() };
        let mut read = Read::default();
        let outcome = converse(provider, model, request, until, (&mut trace, &mut read)).await;
        let usage = read.counted.usage();
        trace.tokens = if trace.answered && !read.is_fault {
            let (input, output) = estimated(request, Some(model));
            let input = u32::try_from(input).unwrap_or(u32::MAX);
            read.counted.booked((input, output), read.has_content || outcome.is_ok())
        } else {
            read.counted.exact()
        };
        match outcome {
            Ok(message) => Ok(ChatReply { wants_tools: !message.tool_calls.is_empty(), message, usage, trace }),
            Err(error) => Err(ChatFailure { error, usage, trace }),
        }
    }
}

/// Contents of an answer, valid or not.
#[derive(Default)]
struct Read {
    counted: Counted,
    /// It has text or calls.
    has_content: bool,
    /// It is an error, for which no provider counts tokens.
    is_fault: bool,
}

async fn converse(
    provider: &Provider,
    model: &ModelSettings,
    request: &ChatRequest,
    until: Instant,
    (trace, read): (&mut ChatTrace, &mut Read),
) -> Result<Assistant, ChatError> {
    let deadlines = Deadlines { began: Instant::now(), until, total: None };
    let schema = match &request.response_format {
        ResponseFormat::JsonSchema { schema, .. } => {
            let text = schema.clone();
            let compiled = schema::apart(move || schema::compile(&text));
            Some(deadlines.bound(None, compiled).await?.and_then(|compiled| compiled))
        }
        ResponseFormat::Text | ResponseFormat::Json => None,
    };
    let prompt = Prompt::check(request, model, schema, provider.shape.tag())?;
    if let Some(reason) = provider.shape.cannot(&prompt) {
        return Err(ChatError::InvalidRequest { reason: reason.into() });
    }
    let reading = provider.ask(&request.model, &prompt, until, trace).await?;
    *read = Read {
        counted: reading.counted,
        has_content: !(reading.text.is_empty() && reading.calls.is_empty()),
        is_fault: matches!(reading.ending, Ending::Fault(_)),
    };
    trace.model = reading.model.as_deref().map_or_else(|| model.model.clone(), answer::told);
    trace.request_id = trace.request_id.take().or_else(|| reading.id.as_deref().map(answer::told));
    let asked = provider.asked(&prompt);
    let place = provider.place(&request.model, &prompt, &asked);
    if matches!(&reading.ending, Ending::Fault(fault) if fault.class == Class::Address) {
        trace.address = Some(provider.address(&prompt));
    }
    let mut said = answer::of(reading, &prompt, &place)?;
    if let Format::Schema { name, schema } = &prompt.format {
        let (name, schema) = (name.to_string(), schema.clone());
        let check = move || form::check(&mut said, &Format::Schema { name: &name, schema }).map(|()| said);
        return deadlines.bound(None, schema::apart(check)).await?.map_err(answer::unparsable)?;
    }
    form::check(&mut said, &prompt.format)?;
    Ok(said)
}

/// The tokens of a request and of its longest answer.
fn estimated(request: &ChatRequest, model: Option<&ModelSettings>) -> (u64, u32) {
    let answer = match model.map(|model| model.max_output_tokens) {
        Some(most) => request.max_tokens.unwrap_or(most).min(most),
        None => request.max_tokens.unwrap_or(0),
    };
    (bytes(request).div_ceil(BYTES_PER_TOKEN), answer)
}

/// All that the model reads, in bytes.
fn bytes(request: &ChatRequest) -> u64 {
    let messages = request.messages.iter().map(|message| match message {
        Message::System(text) | Message::User(text) => text.len(),
        Message::Assistant(said) => {
            let call =
                |call: &ToolCall| call.name.len() + call.arguments.len() + call.opaque.as_ref().map_or(0, String::len);
            said.text.as_ref().map_or(0, String::len) + said.tool_calls.iter().map(call).sum::<usize>()
        }
        Message::Tool(result) => result.name.len() + result.content.len(),
    });
    let tools = request.tools.iter().map(|tool| tool.name.len() + tool.description.len() + tool.parameters.len());
    let format = match &request.response_format {
        ResponseFormat::JsonSchema { name, schema } => name.len() + schema.len(),
        ResponseFormat::Text | ResponseFormat::Json => 0,
    };
    messages.chain(tools).chain([format]).map(|length| length as u64).sum()
}
