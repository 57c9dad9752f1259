//! Chats with language models, by the operator's names for them.
//!
//! ```text
//! prompt     a request, checked            (schema, beside this module: what an answer has to fit)
//! shape      what differs by provider:     openai, anthropic, gemini
//! provider   ask, and ask again            retry, deadlines, exchange (one request)
//! answer     an answer, or why it is none
//! ```

mod answer;
mod anthropic;
mod deadlines;
mod exchange;
mod gemini;
mod openai;
mod prompt;
mod provider;
mod retry;
mod settings;
mod shape;
#[cfg(test)]
mod tests;
mod types;

pub use types::*;

use crate::schema;
use answer::Place;
use deadlines::Deadlines;
use prompt::{Format, Prompt};
use provider::Provider;
use std::collections::BTreeMap;
use std::sync::Arc;
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
        let most = self.models.get(&request.model).map_or(u32::MAX, |model| model.max_output_tokens);
        let answer = match self.models.get(&request.model) {
            Some(_) => request.max_tokens.unwrap_or(most).min(most),
            None => request.max_tokens.unwrap_or(0),
        };
        bytes(request).div_ceil(BYTES_PER_TOKEN).saturating_add(answer.into())
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
        let mut usage = TokenUsage::default();
        match converse(provider, model, request, until, (&mut trace, &mut usage)).await {
            Ok(message) => Ok(ChatReply { wants_tools: !message.tool_calls.is_empty(), message, usage, trace }),
            Err(error) => Err(ChatFailure { error, usage, trace }),
        }
    }
}

async fn converse(
    provider: &Provider,
    model: &ModelSettings,
    request: &ChatRequest,
    until: Instant,
    (trace, usage): (&mut ChatTrace, &mut TokenUsage),
) -> Result<Assistant, ChatError> {
    let deadlines = Deadlines { began: Instant::now(), until, total: None };
    let schema = match &request.response_format {
        ResponseFormat::JsonSchema { schema, .. } => {
            let text = schema.clone();
            let read = schema::apart(move || schema::compile(&text));
            Some(deadlines.bound(None, read).await?.and_then(|read| read))
        }
        ResponseFormat::Text | ResponseFormat::Json => None,
    };
    let prompt = Prompt::check(request, model, schema)?;
    let reading = provider.ask(&request.model, &prompt, until, trace).await?;
    *usage = reading.usage;
    trace.model = reading.model.as_deref().map_or_else(|| model.model.clone(), answer::told);
    trace.request_id = trace.request_id.take().or_else(|| reading.id.as_deref().map(answer::told));
    let place = Place { provider: &provider.name, alias: &request.model, model: &model.model };
    let said = answer::of(reading, &prompt, &place)?;
    if let Format::Schema { name, schema } = &prompt.format {
        let (name, schema, copy) = (name.to_string(), schema.clone(), said.clone());
        let check = move || answer::check_form(&copy, &Format::Schema { name: &name, schema });
        deadlines.bound(None, schema::apart(check)).await?.map_err(answer::unparsable)??;
    } else {
        answer::check_form(&said, &prompt.format)?;
    }
    Ok(said)
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
