//! `host/docs` is the contract. These tests compare it with the code: a route, a code, a setting, an event or a field that is
//! added without its documentation fails here, and so does an example that the daemon would not accept.
//!
//! Rendered parts are written anew by `AGENTRY_RENDER=1 cargo test -p agentry --test docs`.

#![allow(clippy::unwrap_used)] // a test reports by panicking

mod commands;
mod examples;
mod fields;
mod links;
mod literals;
mod metrics;
mod page;
mod settings;
mod tables;
