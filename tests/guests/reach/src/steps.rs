//! What a test may ask for.

use agentry_sdk::serde_json::Value;
use std::collections::BTreeMap;

/// One call of a capability: the key names it, the value has its parameters.
#[derive(Clone, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Make a request and give back status, headers and body.
    Http {
        method: Option<String>,
        url: String,
        #[serde(default)]
        headers: BTreeMap<String, String>,
        body: Option<String>,
    },
    /// The same with an authority that the SDK would refuse before the host saw it. Gives back the status.
    RawHttp { tls: Option<bool>, authority: String, path: Option<String> },
    /// Begin so many requests at once, keep them for a while and read nothing.
    Hold { authority: String, path: String, count: usize, ms: u64 },
    /// Ask a model and give back its text and what it cost. The text has to fit `schema`, if there is one.
    Chat { model: String, prompt: String, max_tokens: Option<u32>, schema: Option<Value> },
    /// Which tools there are.
    Tools {},
    /// Call a tool and give back its text.
    Call { server: String, tool: String, arguments: Option<Value> },
    /// Set a key of a bucket (`cache`).
    Set { bucket: Option<String>, key: String, value: String },
    /// The value of a key.
    Get { bucket: Option<String>, key: String },
    /// How many of so many keys have a value, asked in one call.
    GetMany { bucket: Option<String>, keys: usize },
    /// Add to a number (1).
    Increment { bucket: Option<String>, key: String, delta: Option<u64> },
    /// Remember a text (in `notes`).
    Remember { memory: Option<String>, text: String },
    /// The texts that fit a query.
    Search { memory: Option<String>, query: String },
    /// The value of a setting.
    Config(String),
    /// The text of a file.
    Read(String),
    /// The names in a folder.
    ListDir(String),
    /// Write a file.
    Write(String),
    /// Wait.
    SleepMs(u64),
    /// Milliseconds until the host ends the attempt.
    RemainingMs {},
    /// Fail with `retry` before this attempt.
    RetryUntilAttempt(u32),
    /// Log what the earlier steps gave, on the log and on both streams.
    Tell {},
    /// Take a step so many times, and give back how often it went well.
    Repeat { times: u32, step: Box<Step> },
    /// An error of this step is the task's failure.
    Must(Box<Step>),
}
