//! A request that was checked. What is wrong is said here, by name, and not by a provider in its own words.

use super::types::{
    Assistant, ChatError, ChatRequest, Message, ModelSettings, ResponseFormat, Tool, ToolCall, ToolChoice, ToolResult,
};
use super::wire::{self, Given};
use crate::schema::Schema;
use agentry_defence::Defence;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// The most texts that may end an answer; what the narrowest provider takes.
const MAX_STOPS: usize = 4;

/// A request that was checked, with its JSON parsed.
pub(super) struct Prompt<'a> {
    /// The provider's name for the model.
    pub model: &'a str,
    /// The longest answer in tokens, within the operator's.
    pub max_tokens: u32,
    pub turns: Vec<Turn<'a>>,
    pub tools: Vec<Offer<'a>>,
    /// `None` where no tools are on offer.
    pub choice: Option<&'a ToolChoice>,
    pub format: Format<'a>,
    pub temperature: Option<f32>,
    pub stop: &'a [String],
    pub seed: Option<u32>,
}

/// One message.
pub(super) enum Turn<'a> {
    System(&'a str),
    User(&'a str),
    Assistant { text: Option<&'a str>, calls: Vec<Past<'a>> },
    Tool { result: &'a ToolResult, id: Id<'a> },
}

/// A call's id, for its provider.
#[derive(Clone)]
pub(super) struct Id<'a> {
    /// As the provider gave it, where it gave one.
    pub text: Cow<'a, str>,
    /// The provider gave none, or the same one to another call of the message.
    pub is_made: bool,
}

/// A call of the past.
pub(super) struct Past<'a> {
    pub call: &'a ToolCall,
    pub id: Id<'a>,
    /// Data that the provider wants back with it.
    pub carried: Option<&'a str>,
    pub arguments: Map<String, Value>,
}

/// A tool on offer.
pub(super) struct Offer<'a> {
    pub tool: &'a Tool,
    pub parameters: Value,
}

/// What form the text has to have.
pub(super) enum Format<'a> {
    Text,
    Json,
    Schema { name: &'a str, schema: Schema },
}

impl<'a> Prompt<'a> {
    /// Checks a request. `schema` is the one of its response format, read apart: see [`crate::schema`]. `tag` names the kind of
    /// provider that is asked.
    pub fn check(
        request: &'a ChatRequest,
        model: &'a ModelSettings,
        schema: Option<Result<Schema, String>>,
        tag: &str,
    ) -> Result<Prompt<'a>, ChatError> {
        let tools = request.tools.iter().map(offer).collect::<Result<Vec<_>, _>>()?;
        distinct(&tools)?;
        check_options(request)?;
        Ok(Prompt {
            model: &model.model,
            max_tokens: match (request.max_tokens, Defence::LlmMaxTokens.stands()) {
                (Some(asked), true) => asked.min(model.max_output_tokens),
                (asked, _) => asked.unwrap_or(model.max_output_tokens),
            },
            turns: turns(&request.messages, tag)?,
            choice: choice(request)?,
            tools,
            format: format(&request.response_format, schema)?,
            temperature: request.temperature,
            stop: &request.stop,
            seed: request.seed,
        })
    }

    /// What holds for the whole conversation, in the order in which it was said.
    pub fn system(&self) -> Vec<&'a str> {
        let system = |turn: &Turn<'a>| if let Turn::System(text) = turn { Some(*text) } else { None };
        self.turns.iter().filter_map(system).collect()
    }

    /// The calls that were made so far.
    pub fn calls(&self) -> impl Iterator<Item = &ToolCall> {
        let calls = self.turns.iter().filter_map(|turn| match turn {
            Turn::Assistant { calls, .. } => Some(calls),
            _ => None,
        });
        calls.flatten().map(|past| past.call)
    }
}

fn invalid(reason: impl Into<String>) -> ChatError {
    ChatError::InvalidRequest { reason: reason.into() }
}

/// 1 to 64 letters, digits, `_` and `-`: what every provider takes as a name.
fn check_name(what: &str, name: &str) -> Result<(), ChatError> {
    let fits = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if fits { Ok(()) } else { Err(invalid(format!("{what} {name:?} is not 1 to 64 letters, digits, _ and -"))) }
}

fn check_options(request: &ChatRequest) -> Result<(), ChatError> {
    if request.temperature.is_some_and(|t| !t.is_finite() || t < 0.0) {
        return Err(invalid(format!("temperature is {:?}; it is a number from 0", request.temperature.unwrap_or(0.0))));
    }
    if request.max_tokens == Some(0) {
        return Err(invalid("max-tokens is 0; leave it out, or ask for at least 1"));
    }
    if request.stop.len() > MAX_STOPS {
        return Err(invalid(format!("stop has {} texts; at most {MAX_STOPS} are allowed", request.stop.len())));
    }
    if request.stop.iter().any(String::is_empty) {
        return Err(invalid("stop has an empty text, which would end every answer"));
    }
    Ok(())
}

fn offer(tool: &Tool) -> Result<Offer<'_>, ChatError> {
    check_name("the tool's name", &tool.name)?;
    let parameters: Value = serde_json::from_str(&tool.parameters)
        .map_err(|error| invalid(format!("the parameters of tool {:?} are no JSON: {error}", tool.name)))?;
    let of_type = &parameters["type"];
    if !parameters.is_object() || !(of_type.is_null() || of_type == "object") {
        return Err(invalid(format!("the parameters of tool {:?} are no JSON Schema of type object", tool.name)));
    }
    Ok(Offer { tool, parameters })
}

fn distinct(tools: &[Offer<'_>]) -> Result<(), ChatError> {
    let twice = |(n, offer): &(usize, &Offer<'_>)| tools[..*n].iter().any(|o| o.tool.name == offer.tool.name);
    match tools.iter().enumerate().find(twice) {
        Some((_, offer)) => Err(invalid(format!("there are two tools {:?}", offer.tool.name))),
        None => Ok(()),
    }
}

fn choice(request: &ChatRequest) -> Result<Option<&ToolChoice>, ChatError> {
    let offered = |name: &String| request.tools.iter().any(|tool| tool.name == *name);
    match &request.tool_choice {
        Some(ToolChoice::Required) if request.tools.is_empty() => {
            Err(invalid("tool-choice is required, and there are no tools"))
        }
        Some(ToolChoice::Named(name)) if !offered(name) => {
            let names = request.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>().join(", ");
            Err(invalid(format!("tool-choice names the tool {name:?}; on offer: {names}")))
        }
        _ if request.tools.is_empty() => Ok(None),
        choice => Ok(choice.as_ref()),
    }
}

fn format(format: &ResponseFormat, schema: Option<Result<Schema, String>>) -> Result<Format<'_>, ChatError> {
    Ok(match format {
        ResponseFormat::Text => Format::Text,
        ResponseFormat::Json => Format::Json,
        ResponseFormat::JsonSchema { name, .. } => {
            check_name("the schema's name", name)?;
            let schema = schema.unwrap_or_else(|| Err("was not read".into()));
            let schema = schema.map_err(|why| invalid(format!("the schema {name:?} {why}")))?;
            Format::Schema { name, schema }
        }
    })
}

fn turns<'a>(messages: &'a [Message], tag: &str) -> Result<Vec<Turn<'a>>, ChatError> {
    if messages.iter().all(|message| matches!(message, Message::System(_))) {
        return Err(invalid("messages are empty, or nothing but system messages; at least one other is wanted"));
    }
    let mut called = BTreeMap::new();
    messages.iter().enumerate().map(|(n, message)| turn((n, message), &mut called, tag)).collect()
}

/// The calls so far: the tool's name and the provider's id, by the guest's.
type Called<'a> = BTreeMap<&'a str, (&'a str, Id<'a>)>;

/// One message; `called` has the calls before it.
fn turn<'a>((n, message): (usize, &'a Message), called: &mut Called<'a>, tag: &str) -> Result<Turn<'a>, ChatError> {
    Ok(match message {
        Message::System(text) => Turn::System(text),
        Message::User(text) => Turn::User(text),
        Message::Assistant(said) => assistant((n, said), called, tag)?,
        Message::Tool(result) => match called.get(result.id.as_str()) {
            Some((name, id)) if *name == result.name => Turn::Tool { result, id: id.clone() },
            Some((name, _)) => {
                let (id, other) = (&result.id, &result.name);
                return Err(invalid(format!(
                    "messages[{n}] has the result of {other:?} for the call {id:?} of {name:?}"
                )));
            }
            None => {
                return Err(invalid(format!(
                    "messages[{n}] has the result of call {:?}, which nobody made",
                    result.id
                )));
            }
        },
    })
}

fn assistant<'a>((n, said): (usize, &'a Assistant), called: &mut Called<'a>, tag: &str) -> Result<Turn<'a>, ChatError> {
    let text = said.text.as_deref().filter(|text| !text.is_empty());
    if text.is_none() && said.tool_calls.is_empty() {
        return Err(invalid(format!("messages[{n}], of the assistant, has neither text nor tool calls")));
    }
    let mut calls = Vec::with_capacity(said.tool_calls.len());
    // Within one message each id stands for one call, also where the provider gave it twice.
    let mut taken: BTreeSet<Cow<'_, str>> = said.tool_calls.iter().map(|call| call.id.as_str().into()).collect();
    for call in &said.tool_calls {
        check_name(&format!("messages[{n}] calls a tool; its name"), &call.name)?;
        if call.id.is_empty() {
            return Err(invalid(format!("messages[{n}] has a call of {:?} without an id", call.name)));
        }
        let arguments = serde_json::from_str(&call.arguments)
            .map_err(|error| invalid(format!("the arguments of call {:?} are no JSON object: {error}", call.id)))?;
        let (given, carried) = wire::unpack(tag, call.opaque.as_deref());
        let own = Cow::Borrowed(call.id.as_str());
        let id = match given {
            Given::Same => Id { text: own, is_made: false },
            Given::Other(id) if taken.insert(Cow::Owned(id.clone())) => Id { text: Cow::Owned(id), is_made: false },
            Given::Other(_) | Given::Made => Id { text: own, is_made: true },
        };
        called.insert(&call.id, (&call.name, id.clone()));
        calls.push(Past { call, id, carried, arguments });
    }
    Ok(Turn::Assistant { text, calls })
}

impl Format<'_> {
    /// What the model is told of the form, where the provider does not see to it itself.
    pub fn instruction(&self, native: bool) -> Option<String> {
        const ONLY: &str = "Answer with JSON alone: no other words, and no code fence around it.";
        match self {
            _ if native => None,
            Format::Text => None,
            Format::Json => Some(ONLY.into()),
            Format::Schema { schema, .. } => Some(format!("{ONLY} It has to fit this JSON Schema:\n{}", schema.source)),
        }
    }
}
