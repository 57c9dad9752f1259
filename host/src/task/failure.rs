//! Why a task has no output: a stored reason with a stable kind.

use serde_json::Value;
use std::fmt;

/// The stable word for what went wrong. Programs match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // host/docs/failures.md says what each one means
pub enum FailureKind {
    PluginError,
    Trap,
    Timeout,
    CpuLimit,
    MemoryLimit,
    ResourceLimit,
    OutputTooLarge,
    InvalidOutput,
    Denied,
    BudgetExceeded,
    InvalidInput,
    Rejected,
    UnknownPlugin,
    PluginBroken,
    Expired,
    HostLost,
    Internal,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [FailureKind; 17] = {
        use FailureKind::*;
        [
            PluginError,
            Trap,
            Timeout,
            CpuLimit,
            MemoryLimit,
            ResourceLimit,
            OutputTooLarge,
            InvalidOutput,
            Denied,
            BudgetExceeded,
            InvalidInput,
            Rejected,
            UnknownPlugin,
            PluginBroken,
            Expired,
            HostLost,
            Internal,
        ]
    };

    /// The stable text form.
    pub fn as_str(self) -> &'static str {
        use FailureKind::*;
        match self {
            PluginError => "plugin_error",
            Trap => "trap",
            Timeout => "timeout",
            CpuLimit => "cpu_limit",
            MemoryLimit => "memory_limit",
            ResourceLimit => "resource_limit",
            OutputTooLarge => "output_too_large",
            InvalidOutput => "invalid_output",
            Denied => "denied",
            BudgetExceeded => "budget_exceeded",
            InvalidInput => "invalid_input",
            Rejected => "rejected",
            UnknownPlugin => "unknown_plugin",
            PluginBroken => "plugin_broken",
            Expired => "expired",
            HostLost => "host_lost",
            Internal => "internal",
        }
    }

    /// The kind of that text form.
    pub fn parse(text: &str) -> Option<FailureKind> {
        FailureKind::ALL.into_iter().find(|k| k.as_str() == text)
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A stored reason.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Failure {
    /// The stable word.
    pub kind: FailureKind,
    /// One sentence for a person.
    pub message: String,
    /// It would have been retried, had attempts been left.
    pub retryable: bool,
    /// `{limit, used, allowed}`, `{frames, exit_code, stderr_tail}`, or the guest's `{code, data}`; `null`: nothing more.
    #[serde(default)]
    pub detail: Value,
}

impl Failure {
    /// A failure that is not retried.
    pub fn fatal(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), retryable: false, detail: Value::Null }
    }

    /// The same with more for programs.
    #[must_use]
    pub fn with_detail(mut self, detail: Value) -> Failure {
        self.detail = detail;
        self
    }
}
