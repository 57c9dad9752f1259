//! What is asked and answered, in no provider's shape.

use crate::Secret;
use std::collections::BTreeMap;
use std::time::Duration;

/// `[llm]`.
#[derive(Clone, Debug, Default)]
pub struct LlmSettings {
    /// `[llm.providers.NAME]`.
    pub providers: BTreeMap<String, ProviderSettings>,
    /// `[llm.models.ALIAS]`.
    pub models: BTreeMap<String, ModelSettings>,
}

/// Whose API it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// Chat Completions, as OpenAI, OpenRouter, vLLM, llama.cpp and Ollama serve it.
    OpenAi,
    /// OpenAI's Responses, without its state.
    OpenAiResponses,
    /// Anthropic's Messages.
    Anthropic,
    /// Google's `generateContent`.
    Gemini,
}

/// `[llm.providers.NAME]`.
#[derive(Clone, Debug)]
pub struct ProviderSettings {
    /// Whose API it speaks.
    pub kind: ProviderKind,
    /// The API's root: `https://api.openai.com/v1`, `https://api.anthropic.com/v1`,
    /// `https://generativelanguage.googleapis.com/v1beta`. Plain http leads only to what is local: an address that is not global,
    /// or a name that public DNS does not have (`localhost`, `ollama`, `gpu.local`, `llm.internal`).
    pub url: url::Url,
    /// The key. api.openai.com, openrouter.ai, and Anthropic's and Google's APIs want one unless they are local, or a header
    /// carries it.
    pub key: Option<Secret>,
    /// Headers in addition; `anthropic-version` holds instead of the host's own. Their values are taken for secrets, except those of headers that everybody may know, such as `X-Title`.
    pub headers: BTreeMap<String, Secret>,
    /// The proxy that all requests go through; `None`: they go directly.
    pub proxy: Option<crate::Proxy>,
    /// Certificate authorities in addition to the system's: a PEM file.
    pub ca_file: Option<std::path::PathBuf>,
    /// To a connection, TLS included.
    pub connect: Duration,
    /// From the request, the connection included, to the response's head: how long the model may think.
    pub first_byte: Duration,
    /// Between two pieces of the response.
    pub idle: Duration,
    /// One request as a whole; none of the three above may be longer.
    pub total: Duration,
    /// Further tries after the first, at most 20.
    pub retries: u32,
    /// Most requests at once, over all plugins, 1 to 10,000; further ones wait.
    pub concurrency: u32,
}

/// `[llm.models.ALIAS]`.
#[derive(Clone, Debug)]
pub struct ModelSettings {
    /// A name of [`LlmSettings::providers`].
    pub provider: String,
    /// The provider's name for the model.
    pub model: String,
    /// The longest answer that may be asked for, in tokens; what holds where a request does not say.
    pub max_output_tokens: u32,
}

/// The settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the texts say they are")]
pub enum LlmSettingsError {
    #[error("llm.models.{model}.provider is {provider:?}, and there is no such provider; configured are {}", known.join(", "))]
    UnknownProvider { model: String, provider: String, known: Vec<String> },
    #[error("llm.providers.{provider}.key is missing; write it like \"${{OPENAI_API_KEY}}\" or \"${{file:PATH}}\"")]
    MissingKey { provider: String },
    #[error("llm.providers.{provider}.{key}: {reason}")]
    Invalid { provider: String, key: &'static str, reason: String },
    #[error("llm.models.{model}.{key}: {reason}")]
    InvalidModel { model: String, key: &'static str, reason: String },
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// What holds for the whole conversation.
    System(String),
    /// What the user said.
    User(String),
    /// What the model said before.
    Assistant(Assistant),
    /// What came of a tool call.
    Tool(ToolResult),
}

/// What a model said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assistant {
    /// Its words.
    pub text: Option<String>,
    /// The tools it asks for.
    pub tool_calls: Vec<ToolCall>,
}

/// A call that a model asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// Names the call.
    pub id: String,
    /// The tool.
    pub name: String,
    /// A JSON object as text.
    pub arguments: String,
    /// Data that the provider wants back with it.
    pub opaque: Option<String>,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResult {
    /// The call.
    pub id: String,
    /// The tool.
    pub name: String,
    /// For the model.
    pub content: String,
    /// It failed.
    pub failed: bool,
}

/// A tool on offer.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// For the model.
    pub description: String,
    /// A JSON Schema as text.
    pub parameters: String,
}

/// Whether the model may, must or must not ask for tools.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ToolChoice {
    /// It may.
    #[default]
    Auto,
    /// It must not.
    None,
    /// It must.
    Required,
    /// It must ask for this one.
    Named(String),
}

/// What form the text has.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ResponseFormat {
    /// Any.
    #[default]
    Text,
    /// JSON.
    Json,
    /// JSON of a schema.
    JsonSchema {
        /// Names the schema.
        name: String,
        /// JSON text.
        schema: String,
    },
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatRequest {
    /// The operator's name for the model.
    pub model: String,
    /// The conversation.
    pub messages: Vec<Message>,
    /// Tools on offer.
    pub tools: Vec<Tool>,
    /// Whether they are to be used.
    pub tool_choice: Option<ToolChoice>,
    /// What form the text has.
    pub response_format: ResponseFormat,
    /// From 0.
    pub temperature: Option<f32>,
    /// The longest answer; cut to the model's `max_output_tokens`.
    pub max_tokens: Option<u32>,
    /// What ends the answer.
    pub stop: Vec<String>,
    /// Left out where the provider knows none.
    pub seed: Option<u32>,
}

/// Tokens as the provider counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenUsage {
    /// Of the request.
    pub input: u32,
    /// Of the answer.
    pub output: u32,
}

/// Tokens as a budget books them, and what a record of the call says of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the request, those from a cache and for a cache included: the provider's number, or the estimate.
    pub input: u32,
    /// Of the answer, thoughts included: the provider's number, or the longest answer that was allowed.
    pub output: u32,
    /// The provider did not count one of the two, so that the estimate holds for it.
    pub is_estimated: bool,
    /// Those of `input` that came from the provider's cache.
    pub cached: Option<u32>,
    /// Those of `input` that were written into the provider's cache.
    pub cache_written: Option<u32>,
    /// Those of `output` that were thoughts.
    pub reasoning: Option<u32>,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatReply {
    /// What the model said.
    pub message: Assistant,
    /// It asks for tools.
    pub wants_tools: bool,
    /// Its tokens.
    pub usage: TokenUsage,
    /// What a record of the call says.
    pub trace: ChatTrace,
}

/// What a record of a call says of it, whether it ended well or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatTrace {
    /// The operator's name for the provider.
    pub provider: String,
    /// The provider's name for the model that answered, or was asked.
    pub model: String,
    /// Requests sent, 1 if none was tried again.
    pub tries: u32,
    /// The provider's name for the request, if it gave one.
    pub request_id: Option<String>,
    /// Bytes of the last request's body.
    pub request_bytes: u64,
    /// Bytes of the last response's body.
    pub response_bytes: u64,
    /// A success began to arrive, so that the provider counts tokens, whatever became of the answer.
    pub answered: bool,
    /// Booked tokens.
    pub tokens: Tokens,
    /// Where the last request went, without its query, if the address may be wrong. For the operator: a guest never sees it.
    pub address: Option<String>,
}

/// Why there is no answer, and what a record of the call says.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatFailure {
    /// Why.
    pub error: ChatError,
    /// Tokens that were used all the same.
    pub usage: TokenUsage,
    /// What a record says.
    pub trace: ChatTrace,
}

impl ChatFailure {
    /// Before anything was sent.
    pub fn new(error: ChatError) -> ChatFailure {
        ChatFailure { error, usage: TokenUsage::default(), trace: ChatTrace::default() }
    }
}

/// Why there is no answer. The words may be the provider's; they hold no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the texts say they are")]
pub enum ChatError {
    #[error("there is no model {model:?}; configured are {}", known.join(", "))]
    UnknownModel { model: String, known: Vec<String> },
    #[error("the request is not valid: {reason}")]
    InvalidRequest { reason: String },
    #[error("the conversation is longer than the model takes: {reason}")]
    TooLong { reason: String },
    #[error("the provider asks for less: {reason}")]
    RateLimited { reason: String, after: Option<Duration> },
    #[error("the provider is not available: {reason}")]
    Unavailable { reason: String },
    #[error("no {stage} from the provider within {limit:?}")]
    TimedOut { stage: &'static str, limit: Duration },
    #[error("the answer was cut by length")]
    Truncated { text: String },
    #[error("the provider refused: {reason}")]
    Blocked { reason: String },
    #[error("what came back is no answer: {reason}")]
    Unparsable { reason: String },
}
