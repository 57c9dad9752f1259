//! Language models, by grant: `llm = ["default"]`.
//!
//! The host has the keys, knows the providers and tries again what may be tried again; a plugin knows the operator's name for a
//! model. An answer is whole, or an error: one that is cut, blocked or not of the form that was asked for is never a reply.
//!
//! ```no_run
//! # use agentry_sdk::{Failure, llm, serde_json::json};
//! #[derive(serde::Deserialize)]
//! struct Mood {
//!     mood: String,
//! }
//!
//! fn mood(text: &str) -> Result<String, Failure> {
//!     let schema = json!({
//!         "type": "object", "required": ["mood"], "additionalProperties": false,
//!         "properties": {"mood": {"enum": ["good", "bad"]}},
//!     });
//!     let request = llm::Request::new("default")
//!         .system("You tell the mood of a text.")
//!         .user(text)
//!         .temperature(0.0)
//!         .json_schema("mood", &schema);
//!     Ok(llm::json::<Mood>(&request)?.value.mood)
//! }
//! ```

mod error;
#[cfg(target_family = "wasm")]
mod inside;

pub use error::Error;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// What holds for the whole conversation.
    System(String),
    /// What the user said.
    User(String),
    /// What the model said before.
    Assistant(Assistant),
    /// What came of a tool call that the model asked for.
    Tool(ToolResult),
}

/// What a model said: text, calls of tools, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assistant {
    /// `None` where there is none.
    pub text: Option<String>,
    /// In the order in which the model asked for them.
    pub tool_calls: Vec<ToolCall>,
}

/// A call of a tool that the model asks for. It is the plugin that calls it, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// Names the call, for the result.
    pub id: String,
    /// The tool's name, as it was offered; or one that the model made up.
    pub name: String,
    /// A JSON object as text. It always parses; it is not checked against the tool's schema.
    pub arguments: String,
    /// What the provider wants back with this call: keep it.
    pub opaque: Option<String>,
}

impl ToolCall {
    /// The result of this call, for the conversation.
    #[must_use]
    pub fn result(&self, content: impl Into<String>, failed: bool) -> Message {
        Message::Tool(ToolResult { id: self.id.clone(), name: self.name.clone(), content: content.into(), failed })
    }
}

/// What came of a tool call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolResult {
    /// The call's id.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// Text for the model; JSON is text.
    pub content: String,
    /// The tool failed; `content` says how.
    pub failed: bool,
}

/// A tool that the model may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// 1 to 64 letters, digits, `_` and `-`.
    pub name: String,
    /// For the model.
    pub description: String,
    /// A JSON Schema of type `object`, as text.
    pub parameters: String,
}

impl Tool {
    /// A tool with the JSON Schema of its arguments.
    pub fn new(name: impl Into<String>, description: impl Into<String>, parameters: &Value) -> Tool {
        Tool { name: name.into(), description: description.into(), parameters: parameters.to_string() }
    }
}

/// Whether the model may, must or must not ask for tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// It may.
    Auto,
    /// It must not.
    None,
    /// It must ask for at least one.
    Required,
    /// It must ask for this one.
    Named(String),
}

/// What form the text has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseFormat {
    /// Any.
    Text,
    /// JSON; the host checks that it parses.
    Json,
    /// JSON that fits a schema; the host checks that it does.
    JsonSchema {
        /// 1 to 64 letters, digits, `_` and `-`.
        name: String,
        /// JSON text.
        schema: String,
    },
}

/// What is asked. Where an option is `None` the provider's default holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The operator's name for a model, such as `default`.
    pub model: String,
    /// At least one.
    pub messages: Vec<Message>,
    /// What the model may ask for.
    pub tools: Vec<Tool>,
    /// Only with tools.
    pub tool_choice: Option<ToolChoice>,
    /// `None`: any text.
    pub response_format: Option<ResponseFormat>,
    /// From 0.
    pub temperature: Option<f32>,
    /// The longest answer, in tokens. A longer one is [`Error::Truncated`].
    pub max_tokens: Option<u32>,
    /// At most 4 texts that end the answer.
    pub stop: Vec<String>,
    /// The same seed may give the same answer, where the provider knows seeds.
    pub seed: Option<u32>,
}

impl Request {
    /// A request to a model, still without a message.
    pub fn new(model: impl Into<String>) -> Request {
        Request { model: model.into(), ..Request::default() }
    }

    /// With one more message.
    #[must_use]
    pub fn message(mut self, message: Message) -> Request {
        self.messages.push(message);
        self
    }

    /// With what holds for the whole conversation.
    #[must_use]
    pub fn system(self, text: impl Into<String>) -> Request {
        self.message(Message::System(text.into()))
    }

    /// With what the user says.
    #[must_use]
    pub fn user(self, text: impl Into<String>) -> Request {
        self.message(Message::User(text.into()))
    }

    /// With one more tool that the model may ask for.
    #[must_use]
    pub fn tool(mut self, tool: Tool) -> Request {
        self.tools.push(tool);
        self
    }

    /// With whether it may, must or must not ask for tools.
    #[must_use]
    pub fn tool_choice(mut self, choice: ToolChoice) -> Request {
        self.tool_choice = Some(choice);
        self
    }

    /// For an answer in JSON.
    #[must_use]
    pub fn json(mut self) -> Request {
        self.response_format = Some(ResponseFormat::Json);
        self
    }

    /// For an answer in JSON that fits a schema.
    #[must_use]
    pub fn json_schema(mut self, name: impl Into<String>, schema: &Value) -> Request {
        self.response_format = Some(ResponseFormat::JsonSchema { name: name.into(), schema: schema.to_string() });
        self
    }

    /// With a temperature, from 0.
    #[must_use]
    pub fn temperature(mut self, temperature: f32) -> Request {
        self.temperature = Some(temperature);
        self
    }

    /// With the longest answer, in tokens.
    #[must_use]
    pub fn max_tokens(mut self, tokens: u32) -> Request {
        self.max_tokens = Some(tokens);
        self
    }

    /// With one more text that ends the answer; at most 4.
    #[must_use]
    pub fn stop(mut self, text: impl Into<String>) -> Request {
        self.stop.push(text.into());
        self
    }

    /// With a seed.
    #[must_use]
    pub fn seed(mut self, seed: u32) -> Request {
        self.seed = Some(seed);
        self
    }
}

/// What came back. It is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What the model said.
    pub message: Assistant,
    /// The model asks for tools; otherwise the answer is complete.
    pub wants_tools: bool,
    /// The provider's name for the model that answered.
    pub model: String,
    /// What it cost.
    pub usage: Usage,
}

impl Reply {
    /// What it said; empty where it said nothing.
    #[must_use]
    pub fn text(&self) -> &str {
        self.message.text.as_deref().unwrap_or_default()
    }

    /// What it said, as JSON of a type.
    ///
    /// # Errors
    /// [`Error::Unparsable`] with what does not fit and where.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let mut deserializer = serde_json::Deserializer::from_str(self.text());
        serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|error| error.to_string())
            .and_then(|value| deserializer.end().map(|()| value).map_err(|error| error.to_string()))
            .map_err(|reason| {
                Error::Unparsable(format!("the model's answer is not the JSON that was asked for: {reason}"))
            })
    }
}

/// Tokens, as the provider counted them; 0 where it did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the request.
    pub input_tokens: u32,
    /// Of the answer.
    pub output_tokens: u32,
}

/// An answer as a type, with what it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// The provider's name for the model that answered.
    pub model: String,
    /// What it cost.
    pub usage: Usage,
}

/// Asks a model and waits for the whole answer.
///
/// # Errors
/// See [`Error`].
pub fn chat(request: &Request) -> Result<Reply, Error> {
    #[cfg(target_family = "wasm")]
    return inside::chat(request);
    #[cfg(not(target_family = "wasm"))]
    {
        let _ = request;
        Err(Error::Outside)
    }
}

/// Asks a model for JSON of a type. Without a format in the request any JSON is asked for; better say a schema.
///
/// # Errors
/// See [`Error`]; [`Error::Unparsable`] for JSON that is not of the type.
pub fn json<T: DeserializeOwned>(request: &Request) -> Result<Answer<T>, Error> {
    let reply = match request.response_format {
        Some(_) => chat(request)?,
        None => chat(&request.clone().json())?,
    };
    Ok(Answer { value: reply.json()?, model: reply.model, usage: reply.usage })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(text: &str) -> Reply {
        Reply {
            message: Assistant { text: Some(text.into()), tool_calls: Vec::new() },
            wants_tools: false,
            model: "m-1".into(),
            usage: Usage::default(),
        }
    }

    #[test]
    fn a_request_is_what_was_put_together() {
        let request = Request::new("default")
            .system("s")
            .user("u")
            .tool(Tool::new("add", "Adds.", &json!({"type": "object"})))
            .tool_choice(ToolChoice::Required)
            .json_schema("sum", &json!({"type": "number"}))
            .temperature(0.5)
            .max_tokens(7)
            .stop("\n")
            .seed(3);
        let schema = ResponseFormat::JsonSchema { name: "sum".into(), schema: r#"{"type":"number"}"#.into() };
        assert_eq!(
            request,
            Request {
                model: "default".into(),
                messages: vec![Message::System("s".into()), Message::User("u".into())],
                tools: vec![Tool {
                    name: "add".into(),
                    description: "Adds.".into(),
                    parameters: r#"{"type":"object"}"#.into()
                }],
                tool_choice: Some(ToolChoice::Required),
                response_format: Some(schema),
                temperature: Some(0.5),
                max_tokens: Some(7),
                stop: vec!["\n".into()],
                seed: Some(3),
            }
        );
    }

    #[test]
    fn an_answer_that_is_not_of_the_type_is_unparsable() {
        assert_eq!(said("[1, 2]").json(), Ok(vec![1, 2]));
        for wrong in ["", "one", "[1, \"2\"]", "[1] and more"] {
            let error = said(wrong).json::<Vec<u32>>().unwrap_err();
            assert!(matches!(&error, Error::Unparsable(reason) if reason.contains("asked for")), "{wrong}: {error:?}");
        }
    }

    #[test]
    fn the_result_of_a_call_names_the_call() {
        let call = ToolCall { id: "c1".into(), name: "add".into(), arguments: "{}".into(), opaque: Some("o".into()) };
        let result = ToolResult { id: "c1".into(), name: "add".into(), content: "3".into(), failed: false };
        assert_eq!(call.result("3", false), Message::Tool(result));
    }

    #[test]
    fn outside_a_component_there_is_no_model() {
        let request = Request::new("default").user("hello");
        assert_eq!(chat(&request), Err(Error::Outside));
        assert_eq!(json::<u32>(&request), Err(Error::Outside));
    }
}
