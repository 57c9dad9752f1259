//! Between the typed function and the component model. Public for the macro only.

use crate::{Failure, Task};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;

pub use imports::*;

/// What [`call`] is given and gives back, in the wire's words.
#[cfg(target_family = "wasm")]
mod imports {
    pub mod bindings {
        #![allow(missing_docs, unsafe_code)] // generated
        wit_bindgen::generate!({
            path: "../../../wit",
            world: "plugin",
            pub_export_macro: true,
            generate_all,
        });
    }
    pub use bindings::agentry::plugin::context::{labels, plugin_name, plugin_version, remaining_ms};
    pub use bindings::agentry::plugin::types as wire;
    pub use bindings::export;
    pub use bindings::exports::agentry::plugin::handler::Guest;
    pub use bindings::wasi::logging::logging::{Level, log};
    pub use wire::{Failure as WireFailure, Task as WireTask};
}

/// The same outside a component: `cargo test` runs a plugin's function natively, with its log on standard error.
#[cfg(not(target_family = "wasm"))]
mod imports {
    #[derive(Clone, Copy, Debug)]
    #[allow(missing_docs)]
    pub enum Level {
        Trace,
        Debug,
        Info,
        Warn,
        Error,
        Critical,
    }
    pub fn log(level: Level, logger: &str, message: &str) {
        eprintln!("{level:?} {logger} {message}");
    }
    pub fn remaining_ms() -> u32 {
        u32::MAX
    }
    pub fn plugin_name() -> String {
        env!("CARGO_PKG_NAME").into()
    }
    pub fn plugin_version() -> String {
        env!("CARGO_PKG_VERSION").into()
    }
    pub fn labels() -> Vec<(String, String)> {
        Vec::new()
    }
}

/// Read the input, call, write the output.
pub fn run<I, O>(
    task: &Task,
    input: &str,
    handle: impl FnOnce(&Task, I) -> Result<O, Failure>,
) -> Result<String, Failure>
where
    I: DeserializeOwned,
    O: Serialize,
{
    let deserializer = &mut serde_json::Deserializer::from_str(input);
    let input: I = serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let pointer = pointer(error.path());
        let failure = Failure::invalid_input(error.into_inner().to_string());
        if pointer.is_empty() { failure } else { failure.with_pointer(pointer) }
    })?;
    let output = handle(task, input)?;
    serde_json::to_string(&output).map_err(|e| Failure::permanent(format!("the output cannot be written as JSON: {e}")))
}

/// A path of serde's as a JSON Pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// What the macro's export calls.
#[cfg(target_family = "wasm")]
pub fn call<I, O>(task: WireTask, handle: impl FnOnce(&Task, I) -> Result<O, Failure>) -> Result<String, WireFailure>
where
    I: DeserializeOwned,
    O: Serialize,
{
    let WireTask { id, attempt, max_attempts, input } = task;
    run(&Task { id, attempt, max_attempts }, &input, handle).map_err(|failure| match failure {
        Failure::Retry { message, code, details, after } => {
            WireFailure::Retry(wire::Retry { message, code, details, after_ms: after.map(millis) })
        }
        Failure::Permanent { message, code, details } => {
            WireFailure::Permanent(wire::Permanent { message, code, details })
        }
        Failure::InvalidInput { message, pointer } => {
            WireFailure::InvalidInput(wire::InvalidInput { message, pointer })
        }
        Failure::Snooze { message, after } => WireFailure::Snooze(wire::Snooze { message, after_ms: millis(after) }),
    })
}

#[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Input {
        documents: Vec<Document>,
    }
    #[derive(serde::Deserialize)]
    struct Document {
        url: String,
    }

    fn task() -> Task {
        Task { id: "00000000-0000-0000-0000-000000000000".into(), attempt: 1, max_attempts: 3 }
    }

    #[test]
    fn an_input_that_does_not_fit_says_where() {
        let handle = |_: &Task, input: Input| Ok(input.documents.into_iter().map(|d| d.url).collect::<Vec<_>>());
        assert_eq!(run(&task(), r#"{"documents":[{"url":"a"}]}"#, handle).unwrap(), r#"["a"]"#);
        let failure = run(&task(), r#"{"documents":[{"url":"a"},{"url":7}]}"#, handle).unwrap_err();
        let Failure::InvalidInput { message, pointer } = failure else { panic!("{failure:?}") };
        assert_eq!(pointer.as_deref(), Some("/documents/1/url"));
        assert!(message.contains("expected a string"), "{message}");
    }

    #[test]
    fn any_error_may_be_returned_and_is_retried() {
        let handle = |_: &Task, text: String| Ok(text.parse::<u32>()?);
        assert_eq!(run(&task(), "\"17\"", handle).unwrap(), "17");
        assert!(matches!(run(&task(), "\"x\"", handle), Err(Failure::Retry { .. })));
    }
}
