//! From what a provider says to an answer, or to why it is none. An answer that is not whole is never an answer.

use super::calls;
use super::prompt::Prompt;
use super::shape::{Class, Ending, Fault, Reading};
use super::types::{Assistant, ChatError};
use std::time::Duration;

/// What is told of a provider's words, in characters: a reason is read, not studied.
const TOLD: usize = 500;

/// Where an error is, for whoever can mend it.
pub(super) struct Place<'a> {
    /// The operator's name for the provider.
    pub provider: &'a str,
    /// The operator's name for the model.
    pub alias: &'a str,
    /// The provider's name for the model.
    pub model: &'a str,
    /// Names the kind of provider, and whether it must not see ids that the host made.
    pub tag: (&'static str, bool),
    /// The method and the path that were asked for.
    pub asked: &'a str,
    /// An example of the address that the settings take.
    pub example: &'static str,
}

impl Place<'_> {
    /// The remedy where nothing at an address speaks the provider's API.
    pub fn remedy(&self) -> String {
        let Place { provider, asked, example, .. } = self;
        format!(
            "{asked} was tried; check llm.providers.{provider}.url, which takes the API's root, with its version, such as {example}"
        )
    }
}

/// The model's answer, or the reason why it is invalid. Its form is not checked yet: see [`super::form`].
pub(super) fn of(reading: Reading, prompt: &Prompt<'_>, place: &Place<'_>) -> Result<Assistant, ChatError> {
    match reading.ending {
        Ending::Fault(fault) => return Err(error(&fault, fault.after, place)),
        Ending::Refused(reason) => return Err(ChatError::Blocked { reason: told(&reason) }),
        Ending::Cut => return Err(ChatError::Truncated { text: reading.text }),
        // An answer of as many tokens as were allowed ends where they did.
        Ending::Unsaid if reading.counted.output.is_some_and(|output| output >= prompt.max_tokens) => {
            return Err(ChatError::Truncated { text: reading.text });
        }
        Ending::Broken(reason) => return Err(unparsable(told(&reason))),
        Ending::Whole | Ending::Unsaid => {}
    }
    let tool_calls = calls::read(reading.calls, prompt, place.tag)?;
    if reading.text.trim().is_empty() && tool_calls.is_empty() {
        let mut reason = "it has neither text nor tool calls".to_owned();
        for note in &reading.notes {
            reason = format!("{reason}; {}", told(note));
        }
        return Err(unparsable(reason));
    }
    Ok(Assistant { text: Some(reading.text).filter(|text| !text.is_empty()), tool_calls })
}

/// An error of the provider's, in the words of this crate.
pub(super) fn error(fault: &Fault, after: Option<Duration>, place: &Place<'_>) -> ChatError {
    let Place { provider, alias, model, .. } = place;
    let words = told(&fault.words);
    let said = if words.is_empty() { String::new() } else { format!(": {words}") };
    match fault.class {
        Class::Invalid => ChatError::InvalidRequest { reason: format!("the provider refuses it{said}") },
        Class::TooLong => ChatError::TooLong { reason: format!("the provider refuses it{said}") },
        Class::Refused => ChatError::Blocked { reason: format!("the request{said}") },
        // Their words for this often have a part of the key.
        Class::Key => ChatError::Unavailable {
            reason: format!("it refused the operator's key, or what the key may do; see llm.providers.{provider}.key"),
        },
        Class::Quota => ChatError::Unavailable {
            reason: format!("the operator's account with llm.providers.{provider} is used up or not set up{said}"),
        },
        Class::Model => ChatError::Unavailable {
            reason: format!("it has no model {model:?} at this address; see llm.models.{alias}.model{said}"),
        },
        Class::Address => {
            // A router has no words of its own; an API may mean the model.
            let is_bare = words.is_empty() || words.starts_with("status ");
            let or = if is_bare { String::new() } else { format!(", and llm.models.{alias}.model") };
            ChatError::Unavailable { reason: format!("nothing is served there: {}{or}{said}", place.remedy()) }
        }
        Class::Rate => {
            let reason = if words.is_empty() { "too many requests".to_owned() } else { words };
            ChatError::RateLimited { reason, after }
        }
        Class::Down => ChatError::Unavailable {
            reason: if words.is_empty() { "it failed".to_owned() } else { format!("it failed{said}") },
        },
    }
}

pub(super) fn unparsable(reason: impl Into<String>) -> ChatError {
    ChatError::Unparsable { reason: reason.into() }
}

/// A provider's words, cut.
pub(super) fn told(words: &str) -> String {
    let words = words.trim();
    match words.char_indices().nth(TOLD) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words.to_owned(),
    }
}
