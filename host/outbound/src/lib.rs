//! What the host does outside on a guest's behalf: HTTP requests, chats with language models, calls of MCP tools.
//!
//! Knows neither WebAssembly nor tasks nor SQL. The sandbox asks for what a guest was granted, and nobody else may; every way
//! out of the host that a guest can take leads through here.
//!
//! ```text
//! egress   Egress ─▶ Client (one per plugin) ─▶ resolve once, global addresses only, deadlines, caps ─▶ reqwest
//! llm      Llm ─▶ model alias ─▶ provider (OpenAI, Anthropic, Gemini shapes) ─▶ reqwest
//! tools    Tools ─▶ Session (one per plugin and server) ─▶ rmcp over stdio or HTTP
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics is a test that failed"))]

pub mod egress;
pub mod llm;
pub mod pattern;
mod proxy;
mod schema;
mod secret;
mod tls;
pub mod tools;

pub use proxy::{Proxy, unused as unused_proxy};
pub use secret::Secret;
pub use tls::system as system_tls;
