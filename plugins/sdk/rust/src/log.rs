//! Lines of the task's log.
//!
//! Stored with the attempt and shown by `agentry task logs`. Bounded: what is too much is cut, and the log says so. A
//! line cannot be taken back, and stands there also when the attempt fails: no secrets.
//!
//! ```
//! # use agentry_sdk::log;
//! # let (done, all) = (1, 2);
//! log::info("fetching the index");
//! log::debug(format_args!("{done} of {all} done"));
//! ```

use std::fmt::Display;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// For whoever looks for a defect.
    Debug,
    /// What happened.
    Info,
    /// What may become a problem.
    Warn,
    /// What is one.
    Error,
    /// What concerns more than this task.
    Critical,
}

/// Logs a line under a logger's name, such as the part of the plugin that it comes from.
pub fn log(level: Level, logger: &str, message: impl Display) {
    crate::glue::log(level, logger, &message.to_string());
}

/// Logs a line at [`Level::Trace`].
pub fn trace(message: impl Display) {
    log(Level::Trace, "", message);
}

/// Logs a line at [`Level::Debug`].
pub fn debug(message: impl Display) {
    log(Level::Debug, "", message);
}

/// Logs a line at [`Level::Info`].
pub fn info(message: impl Display) {
    log(Level::Info, "", message);
}

/// Logs a line at [`Level::Warn`].
pub fn warn(message: impl Display) {
    log(Level::Warn, "", message);
}

/// Logs a line at [`Level::Error`].
pub fn error(message: impl Display) {
    log(Level::Error, "", message);
}

/// Logs a line at [`Level::Critical`].
pub fn critical(message: impl Display) {
    log(Level::Critical, "", message);
}
