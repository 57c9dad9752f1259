//! Agentry runs agents that teams ship as WebAssembly components: tasks come from RabbitMQ, each runs in a fresh sandbox,
//! and every step of its life is recorded in Postgres. `host/README.md` is the map.

pub mod api;
pub mod brakes;
pub mod broker;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod db;
pub mod doctor;
pub mod explain;
#[cfg(feature = "failpoints")]
pub mod failpoints;
pub mod maintenance;
pub mod metrics;
pub mod registry;
pub mod shutdown;
#[cfg(test)]
mod simulation;
pub mod task;
pub mod telemetry;
pub mod worker;
