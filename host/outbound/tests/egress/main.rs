//! The way out against servers that mean no good: real sockets on loopback, real TLS, a name server of our own.
//!
//! Loopback is what a plugin may not reach, so each test opens as much of it as it needs (`house::open`), and those about addresses
//! open none, or one address of several.

#![allow(clippy::unwrap_used, reason = "a test that panics is a test that failed")]

mod addresses;
#[path = "../llm/connect.rs"]
mod connect;
mod connections;
mod hostile;
mod house;
mod http2;
mod names;
mod proxies;
mod requests;
mod secrets;
mod slow;
mod tls;
