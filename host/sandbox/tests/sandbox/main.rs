//! Components that mean well and components that do not, against the whole sandbox.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod budget;
mod caching;
mod fuzz;
mod guest;
mod held;
mod house;
mod inert;
mod limits;
mod loading;
mod logs;
mod runs;
mod sections;
mod traps;
mod waiting;
