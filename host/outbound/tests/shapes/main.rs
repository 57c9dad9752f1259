//! Chats with the providers' own SDKs, which play their servers (`tests/e2e/peers/shapes`): they refuse what they would not send
//! themselves, and answer what they can read. `cargo xtask test` installs them, pinned.

#![allow(clippy::unwrap_used, reason = "a test that panics is a test that failed")]

mod corpus;
mod peers;
#[allow(dead_code, reason = "of the tests with scripts only the conversations are used here")]
#[path = "../llm/server.rs"]
mod server;
#[allow(dead_code, reason = "as above")]
#[path = "../llm/site.rs"]
mod site;
