//! Parts of the bare loop and of the tools that `cargo xtask bench` runs. Links no host code.

#![allow(missing_docs, reason = "generated bindings are public within the crate")]

pub mod broker;
pub mod database;
pub mod guest;
pub mod slow_server;

use anyhow::Context;

/// The input of every task: what the plugin `word-count` takes.
pub const INPUT: &str = r#"{"text":"the quick brown fox jumps over the lazy dog"}"#;

/// A variable of the environment. Addresses may hold passwords, and arguments are visible to every user of the machine.
pub fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("failed to read the variable {name}"))
}
