//! Chats with scripted servers over real sockets: what each provider is asked, what comes of each of its answers, and of each
//! way not to answer.

#![allow(clippy::unwrap_used, reason = "a test that panics is a test that failed")]

mod addresses;
mod anthropic;
mod connect;
mod faults;
mod forms;
mod gemini;
mod http2;
mod ids;
mod openai;
mod proxies;
mod responses;
mod retries;
mod round_trip;
mod secrets;
mod server;
mod site;
mod tls;
