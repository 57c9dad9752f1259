//! Black box: the real binary against real services, driven from outside. The harness is the library of this package.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod bad_messages;
mod bench;
mod brakes;
mod broker_faults;
mod capabilities;
mod chaos;
mod command_line;
mod crash_matrix;
mod database_faults;
mod doctor;
mod documentation;
mod duplicates;
mod explain;
mod failures;
mod hosts;
mod isolation;
mod memory;
mod metrics;
mod operators;
mod outages;
mod path;
mod peers;
mod plugins;
mod poolers;
mod producers;
mod reading;
mod relayed;
mod restarts;
mod returned;
mod sharing;
mod shipping;
mod sockets;
mod start_up;
mod terminal;
mod tokens;
mod unknown_plugins;
mod upgrade;
