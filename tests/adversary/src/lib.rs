//! Hostile guests, messages and files against the real binary, and the judge that looks from outside.
//!
//! ```text
//! cases ─▶ Case ─▶ install ─▶ Stage ─▶ Seen ─▶ oracle ─▶ violations ─▶ Table
//!                               │
//!                 process · vigil · neighbour      what the system, a watchman and another plugin notice
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a harness: whatever is not as it must be fails the test that uses it"
)]

pub mod canary;
pub mod case;
pub mod cases;
// Written once, for the tests within the sandbox and for these from outside. It is text, and no code of the host's.
#[path = "../../../host/sandbox/tests/sandbox/guest.rs"]
pub mod guest;
pub mod install;
pub mod neighbour;
pub mod oracle;
pub mod outside;
pub mod process;
pub mod stage;
pub mod table;
pub mod vigil;

pub use case::{Case, Component, Expect};
pub use stage::{Seen, Stage};
pub use table::Table;

/// How much longer than promised anything may take on this machine: `AGENTRY_TEST_PATIENCE`.
pub fn patience() -> f64 {
    (e2e::patience().as_secs_f64() / 60.0).max(1.0)
}

/// Held for writing by whoever measures how long others take, and for reading by every other test: what runs beside a
/// measurement is measured as well.
pub static MACHINE: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// Whether what takes long is asked for as well.
pub fn full() -> bool {
    std::env::var_os("AGENTRY_TEST_FULL").is_some()
}
