//! Why an answer ended, in the words of many servers. What OpenAI's, Anthropic's and Google's own APIs write is a part of it, since
//! gateways hand on the words of the provider behind them.

use super::shape::{Ending, Fault, Reading};
use serde_json::Value;

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// By itself.
    Whole,
    /// With calls of tools, as it says.
    Calls,
    /// At a limit of length.
    Cut,
    /// By safety or policy.
    Refused,
    /// By a failure of the server.
    Failed,
    /// With a call that the server could not read.
    Malformed,
    /// There is no word for it: missing, null or empty.
    Unsaid,
    /// The word is not known.
    Unknown,
}

/// Reads a reason. Case, and whether words are joined by `_`, `-` or a space, do not matter; neither does the name of an
/// enumeration before it (`FinishReason.STOP`, `FINISH_REASON_STOP`).
pub(super) fn of(reason: &Value) -> Finish {
    let text = match reason {
        Value::Null => return Finish::Unsaid,
        Value::String(text) => text.trim().to_ascii_lowercase().replace(['-', ' '], "_"),
        _ => return Finish::Unknown,
    };
    let word = text.rsplit('.').next().unwrap_or_default();
    let word = word.strip_prefix("finish_reason_").unwrap_or(word);
    match word {
        "" | "null" | "none" | "unspecified" => Finish::Unsaid,
        "stop" | "eos" | "eos_token" | "stop_sequence" | "stop_token" | "end_turn" | "end_of_turn" | "end"
        | "complete" | "completed" | "done" | "finish" | "finished" | "normal" | "success" => Finish::Whole,
        "tool_calls" | "tool_call" | "tool_use" | "tool_uses" | "tool" | "tools" | "toolcalls" | "tooluse"
        | "function_call" | "function_calls" | "functioncall" => Finish::Calls,
        "length"
        | "max_tokens"
        | "max_token"
        | "max_output_tokens"
        | "max_completion_tokens"
        | "max_new_tokens"
        | "max_length"
        | "model_length"
        | "token_limit"
        | "length_limit"
        | "context_length"
        | "context_window"
        | "context_length_exceeded"
        | "model_context_window_exceeded"
        | "continuation"
        | "incomplete" => Finish::Cut,
        "content_filter"
        | "content_filtered"
        | "content_filtering"
        | "content_policy"
        | "content_policy_violation"
        | "safety"
        | "refusal"
        | "refused"
        | "recitation"
        | "sensitive"
        | "blocklist"
        | "blocked"
        | "prohibited_content"
        | "spii"
        | "moderation"
        | "guardrail_intervened"
        | "violation" => Finish::Refused,
        "error"
        | "failed"
        | "failure"
        | "network_error"
        | "insufficient_system_resource"
        | "abort"
        | "aborted"
        | "cancel"
        | "cancelled"
        | "canceled"
        | "timeout"
        | "server_error"
        | "internal_error"
        | "overloaded"
        | "unknown_error" => Finish::Failed,
        "malformed_function_call"
        | "malformed_tool_use"
        | "malformed_tool_call"
        | "unexpected_tool_call"
        | "tool_call_error" => Finish::Malformed,
        _ => Finish::Unknown,
    }
}

/// The ending that a reason means; `name` is that of its member.
pub(super) fn ending(name: &str, reason: &Value) -> Ending {
    match of(reason) {
        Finish::Whole | Finish::Calls => Ending::Whole,
        Finish::Unsaid => Ending::Unsaid,
        Finish::Cut => Ending::Cut,
        Finish::Refused => Ending::Refused(format!("its {name} is {reason}")),
        Finish::Failed => Ending::Fault(Fault::of_status(502, format!("its {name} is {reason}"))),
        Finish::Malformed => Ending::Broken(format!("it ended in a call of a tool that is none ({name} {reason})")),
        Finish::Unknown => Ending::Broken(format!("its {name} is {reason}, which is not known here")),
    }
}

/// The same where an answer that says that it calls tools, and has neither calls nor text, is broken. Otherwise it is judged by
/// what is there: servers differ in which of the two they write.
pub(super) fn ending_of(name: &str, reason: &Value, reading: &Reading) -> Ending {
    match of(reason) {
        Finish::Calls if reading.calls.is_empty() && reading.text.trim().is_empty() => {
            Ending::Broken(format!("its {name} is {reason}, and it calls no tool"))
        }
        _ => ending(name, reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reasons_are_read_in_every_spelling() {
        for (reason, finish) in [
            (json!("stop"), Finish::Whole),
            (json!("EOS"), Finish::Whole),
            (json!("FinishReason.STOP"), Finish::Whole),
            (json!("FINISH_REASON_MAX_TOKENS"), Finish::Cut),
            (json!("end-turn"), Finish::Whole),
            (json!("tool_call"), Finish::Calls),
            (json!("model_length"), Finish::Cut),
            (json!("insufficient_system_resource"), Finish::Failed),
            (json!("SAFETY"), Finish::Refused),
            (json!(""), Finish::Unsaid),
            (Value::Null, Finish::Unsaid),
            (json!("mystery"), Finish::Unknown),
            (json!(7), Finish::Unknown),
        ] {
            assert_eq!(of(&reason), finish, "{reason}");
        }
    }
}
