//! Between the plugin's function and the component model: the generated bindings, or outside a component what stands
//! in for them. Public for the macro only.

use crate::log::Level;
use crate::{Failure, Task};

/// A plugin, from the input's text to the output's.
pub type Run = fn(&Task, &str) -> Result<String, Failure>;

#[cfg(target_family = "wasm")]
pub use inside::{Guest, bindings, call, export, wire};

#[cfg(target_family = "wasm")]
pub(crate) use inside::{labels, log, plugin_name, plugin_version, remaining_ms};

#[cfg(not(target_family = "wasm"))]
pub(crate) use outside::{labels, log, plugin_name, plugin_version, remaining_ms};

/// Within a component.
#[cfg(target_family = "wasm")]
mod inside {
    use super::{Failure, Level, Run, Task};
    use std::time::Duration;

    #[allow(missing_docs, unsafe_code, reason = "generated from wit/, which holds the documentation")]
    pub mod bindings {
        // The larger world, for every plugin: of what a component does not use nothing is imported.
        wit_bindgen::generate!({
            path: "../../../wit",
            world: "agent",
            pub_export_macro: true,
            generate_all,
        });
    }

    pub use bindings::agentry::plugin::types as wire;
    pub use bindings::export;
    pub use bindings::exports::agentry::plugin::handler::Guest;

    pub(crate) use bindings::agentry::plugin::context::{labels, plugin_name, plugin_version, remaining_ms};
    use bindings::wasi::logging::logging;

    pub(crate) fn log(level: Level, logger: &str, message: &str) {
        let level = match level {
            Level::Trace => logging::Level::Trace,
            Level::Debug => logging::Level::Debug,
            Level::Info => logging::Level::Info,
            Level::Warn => logging::Level::Warn,
            Level::Error => logging::Level::Error,
            Level::Critical => logging::Level::Critical,
        };
        logging::log(level, logger, message);
    }

    /// What the export calls.
    pub fn call(task: wire::Task, run: Run) -> Result<String, wire::Failure> {
        let wire::Task { id, attempt, max_attempts, input } = task;
        run(&Task { id, attempt, max_attempts }, &input).map_err(|failure| match failure {
            Failure::Retry { message, code, details, after } => {
                wire::Failure::Retry(wire::Retry { message, code, details, after_ms: after.map(millis) })
            }
            Failure::Permanent { message, code, details } => {
                wire::Failure::Permanent(wire::Permanent { message, code, details })
            }
            Failure::InvalidInput { message, pointer } => {
                wire::Failure::InvalidInput(wire::InvalidInput { message, pointer })
            }
            Failure::Snooze { message, after } => {
                wire::Failure::Snooze(wire::Snooze { message, after_ms: millis(after) })
            }
        })
    }

    /// Rounded up, so that nothing is tried before its time; as much as fits.
    fn millis(duration: Duration) -> u32 {
        u32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
    }
}

/// Outside a component, where a plugin's own tests run: the log goes to standard error, and there is all the time in the
/// world.
#[cfg(not(target_family = "wasm"))]
mod outside {
    use super::Level;

    pub(crate) fn log(level: Level, logger: &str, message: &str) {
        let separator = if logger.is_empty() { "" } else { ": " };
        eprintln!("{level:?} {logger}{separator}{message}");
    }

    pub(crate) fn remaining_ms() -> u32 {
        u32::MAX
    }

    pub(crate) fn plugin_name() -> String {
        "native".into()
    }

    pub(crate) fn plugin_version() -> String {
        "0.0.0".into()
    }

    pub(crate) fn labels() -> Vec<(String, String)> {
        Vec::new()
    }
}
