//! What a test may ask for.

use agentry_sdk::serde_json::Value;

/// The input: `do` names the behaviour in snake case, its parameters stand beside it.
#[derive(serde::Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Asked {
    /// Give back the value.
    Echo { value: Value },
    /// Sleep so many milliseconds, then succeed.
    Sleep { ms: u64 },
    /// Compute for so many turns of a loop; without a number, for ever.
    Spin { turns: Option<u64> },
    /// Fail so that it is tried again, always.
    FailRetry { message: Option<String>, code: Option<String>, details: Option<Value>, after_ms: Option<u64> },
    /// Fail for good.
    FailPermanent { message: Option<String>, code: Option<String>, details: Option<Value> },
    /// Find fault with the input.
    InvalidInput { message: Option<String>, pointer: Option<String> },
    /// Ask to be run again after so many milliseconds; always, or until the clock has reached a time. (A snooze uses up
    /// no attempt, so the attempt cannot say when to end.)
    Snooze { ms: u64, until_unix_ms: Option<u64> },
    /// Fail with `retry` before this attempt, then succeed.
    FailUntilAttempt { n: u32 },
    /// Log so many lines of so many bytes, besides the first.
    Log { lines: u32, bytes: usize },
    /// Write so many lines (1) to standard output.
    Stdout { text: String, lines: Option<u32> },
    /// Write so many lines (1) to standard error.
    Stderr { text: String, lines: Option<u32> },
    /// Call `exit`.
    Exit { code: i32 },
    /// Panic with a message.
    Panic { message: String },
    /// Return a text of so many KiB.
    BigOutput { kib: usize },
    /// Return this instead of JSON.
    NotJson { text: Option<String> },
    /// Return what the plugin sees of its attempt.
    Context {},
    /// Allocate and touch so many MiB, hold them for so many milliseconds (none), then succeed.
    Allocate { mib: usize, hold_ms: Option<u64> },
    /// Return what could be had of files, sockets, names, arguments, environment and standard input.
    Reach {},
    /// Return what is in a file, or why it could not be read.
    Read { path: String },
    /// Return every environment variable.
    Variables {},
    /// Return which ways to this port of the machine were open: connecting, listening, datagrams, names.
    Network { port: u16 },
}
