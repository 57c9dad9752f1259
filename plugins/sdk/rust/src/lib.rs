#![doc = include_str!("../README.md")]

pub mod config;
pub mod context;
mod failure;
#[doc(hidden)]
pub mod glue;
pub mod http;
pub mod json;
pub mod keyvalue;
pub mod llm;
pub mod log;
pub mod memory;
pub mod tools;

pub use failure::Failure;
pub use {serde, serde_json};

/// One attempt at one task. Whatever else there is to know about it, [`context`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// A UUID in lower-case text, the same on every attempt: the right idempotency key for effects outside.
    pub id: String,
    /// Which attempt this is, from 1. A snooze and a run lost with its host do not count, so that the same number may be
    /// seen more than once.
    pub attempt: u32,
    /// The last attempt there will be.
    pub max_attempts: u32,
}

impl Task {
    /// Whether [`Failure::retry`] would end the task, because this is its last attempt.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        self.attempt >= self.max_attempts
    }
}

/// The first and only attempt at a task with the nil UUID, for a plugin's own tests.
impl Default for Task {
    fn default() -> Task {
        Task { id: "00000000-0000-0000-0000-000000000000".into(), attempt: 1, max_attempts: 1 }
    }
}

/// Makes a function the plugin. Once in a crate.
///
/// - `plugin!(handle)` takes a `fn(&Task, Input) -> Result<Output, Failure>`: `Input` is any type that serde reads,
///   `Output` any that it writes. What does not fit `Input` ends as the failure `invalid_input`, with where and why; the
///   function is not called.
/// - `plugin!(raw handle)` takes a `fn(&Task, &str) -> Result<String, Failure>`, from JSON text to JSON text, for a plugin
///   with a JSON library of its own. [`json`] has what the first form does.
///
/// Outside a component nothing is exported and the types are checked all the same, so that a plugin's crate can be
/// checked and tested natively.
#[macro_export]
macro_rules! plugin {
    (raw $handle:path) => {
        $crate::__plugin!(|task, input| $handle(task, input));
    };
    ($handle:path) => {
        $crate::__plugin!(|task, input| $crate::json::write(&$handle(task, $crate::json::read(input)?)?));
    };
}

/// What both forms of [`plugin!`] come to.
#[doc(hidden)]
#[macro_export]
macro_rules! __plugin {
    ($run:expr) => {
        const _: () = {
            const RUN: $crate::glue::Run = $run;

            #[cfg(target_family = "wasm")]
            struct Plugin;
            #[cfg(target_family = "wasm")]
            impl $crate::glue::Guest for Plugin {
                fn handle(
                    task: $crate::glue::wire::Task,
                ) -> ::core::result::Result<::std::string::String, $crate::glue::wire::Failure> {
                    $crate::glue::call(task, RUN)
                }
            }
            #[cfg(target_family = "wasm")]
    $crate::glue::export!(Plugin with_types_in $crate::glue::bindings);

            #[cfg(not(target_family = "wasm"))]
            let _ = RUN;
        };
    };
}
