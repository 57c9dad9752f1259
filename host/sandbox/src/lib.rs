//! Runs one WebAssembly component, once, within limits.
//!
//! The only crate that knows wasmtime, and the seam at which everything that a guest can reach is limited, counted and
//! refused. It knows nothing of tasks, queues or SQL. Its `README.md` is the threat model: what is defended, how, and by
//! which test.
//!
//! ```text
//! Sandbox::new ─▶ Sandbox::load ─▶ Plugin::run ─▶ Ran { outcome, usage, logs }
//!  engine, pool     inspect, check,   fresh store, guest,
//!                   compile, link     dropped
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics is a test that failed"))]

mod access;
mod bodies;
mod budget;
mod cache;
mod calls;
mod capability;
mod compiler;
mod engine;
mod failure;
mod inspect;
mod instance;
mod json;
mod limits;
mod outcome;
mod plugin;
mod run;
mod streams;
mod ticker;
mod turns;
mod watch;

pub use access::{Access, Buckets, BudgetError, Budgets, Memories, Remembered, Spending, StoreError};
pub use bodies::{Bodies, Body};
pub use budget::{MemoryBudget, NoMemory, Reservation};
pub use cache::CacheError;
pub use calls::Call;
pub use compiler::{Compiler, serve as compile};
pub use engine::{EngineError, Sandbox, SandboxConfig, open_pagemap};
pub use failure::{Fault, FaultKind};
pub use limits::Limits;
pub use outcome::Outcome;
pub use plugin::{Grants, LoadError, Plugin, digest};
pub use run::{Invocation, Ran, Usage};
pub use streams::{Level, LogLine, LogSink, Stream};
pub use turns::{Guests, Turn, Turns};
