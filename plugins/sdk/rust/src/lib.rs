//! Write an Agentry plugin in a dozen lines.
//!
//! ```no_run
//! use agentry_sdk::{Failure, Task, plugin, serde};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(crate = "agentry_sdk::serde")]
//! struct Input { text: String }
//!
//! fn handle(_task: &Task, input: Input) -> Result<usize, Failure> {
//!     Ok(input.text.split_whitespace().count())
//! }
//!
//! plugin!(handle);
//! # fn main() {}
//! ```
//!
//! A task is completed when, and only when, the function returns `Ok`. A panic is recorded as `trap` with its message, and
//! retried. Every attempt runs in a fresh instance: nothing left in memory survives it.

mod failure;
#[doc(hidden)]
pub mod glue;

pub use failure::Failure;
pub use {serde, serde_json};

/// One attempt at one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// A UUID, the same on every attempt: the right idempotency key for effects outside.
    pub id: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The last attempt there will be.
    pub max_attempts: u32,
}

/// Lines of the task's log. They are bounded, and shown by `agentry task logs`.
pub mod log {
    pub use crate::glue::Level;

    /// Log a line under a logger's name.
    pub fn log(level: Level, logger: &str, message: &str) {
        crate::glue::log(level, logger, message);
    }
    /// For whoever looks for a defect.
    pub fn debug(message: &str) {
        log(Level::Debug, "", message);
    }
    /// What happened.
    pub fn info(message: &str) {
        log(Level::Info, "", message);
    }
    /// What may become a problem.
    pub fn warn(message: &str) {
        log(Level::Warn, "", message);
    }
    /// What is one.
    pub fn error(message: &str) {
        log(Level::Error, "", message);
    }
}

/// What a plugin may ask about the attempt that it is in.
pub mod context {
    use std::time::Duration;

    /// Time until the host ends this attempt. There is no other warning.
    pub fn remaining() -> Duration {
        Duration::from_millis(crate::glue::remaining_ms().into())
    }
    /// The name under which this component is installed.
    pub fn plugin_name() -> String {
        crate::glue::plugin_name()
    }
    /// The version under which it is installed.
    pub fn plugin_version() -> String {
        crate::glue::plugin_version()
    }
    /// The labels the task was submitted with, sorted by key. They come from outside: treat them like the input.
    pub fn labels() -> Vec<(String, String)> {
        crate::glue::labels()
    }
}

/// Make a function `fn(&Task, Input) -> Result<Output, Failure>` the plugin: `Input` is read from the task's JSON (what does
/// not fit is the failure `invalid_input`, with where and why), `Output` is written as JSON.
#[macro_export]
macro_rules! plugin {
    ($handle:path) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Plugin;
            impl $crate::glue::Guest for Plugin {
                fn handle(task: $crate::glue::WireTask) -> Result<String, $crate::glue::WireFailure> {
                    $crate::glue::call(task, $handle)
                }
            }
    $crate::glue::export!(Plugin with_types_in $crate::glue::bindings);
        };
    };
}
