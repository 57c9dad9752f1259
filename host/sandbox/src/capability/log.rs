//! `wasi:logging`: lines into the attempt's log. Always linked.

use super::bindings::wasi::logging::logging;
use crate::instance::State;
use crate::streams::{Level, lock};

impl logging::Host for State {
    fn log(&mut self, level: logging::Level, context: String, message: String) {
        lock(&self.shared.log).add_guests(level.into(), context, message);
    }
}

impl From<logging::Level> for Level {
    fn from(level: logging::Level) -> Level {
        match level {
            logging::Level::Trace => Level::Trace,
            logging::Level::Debug => Level::Debug,
            logging::Level::Info => Level::Info,
            logging::Level::Warn => Level::Warn,
            logging::Level::Error => Level::Error,
            logging::Level::Critical => Level::Critical,
        }
    }
}
