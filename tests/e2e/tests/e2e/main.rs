//! Black box: the real binary against real services, driven from outside. The harness is the library of this package.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod bad_messages;
mod command_line;
mod duplicates;
mod failures;
mod outages;
mod path;
mod plugins;
mod reading;
mod restarts;
mod sharing;
mod start_up;
mod unknown_plugins;
