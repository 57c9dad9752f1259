//! What stands outside and is reached by grant: scripted servers on real sockets, and the guest that reaches for them.
//!
//! ```text
//! Server   HTTP: a play for each request; records what it heard, counts connections and those that went away
//!   └─▶ llm    the same, in the shape of OpenAI's chat completions
//! mcp      a tool server of the Model Context Protocol, in Python, over standard streams
//! reach    the guest `reach`, its tasks, and what the operator grants it
//! ```

pub mod llm;
pub mod mcp;
pub mod reach;
pub mod server;

pub use server::{Play, Request, Server};
