//! Hostile guests, messages and files against the real binary. The harness and the cases are the library of this package.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod attacks;
mod bomb;
mod files;
mod granted;
mod messages;
mod must_show;
mod scenes;
mod streams;
mod without;
