//! What the agent did, step by step: part of its output, and of every failure.

use agentry_sdk::llm::{self, Reply};
use agentry_sdk::serde_json::{self, Value, json};
use std::time::Duration;

/// The most that a failure's details may have, in bytes; the host allows 64 KiB.
const DETAILS_BYTES: usize = 60 << 10;

/// One thought, one action, one observation.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Step {
    /// Why, as far as the model said.
    pub(crate) thought: Option<String>,
    /// What it did; `null`: the reply was none that can be acted on.
    pub(crate) action: Option<Action>,
    /// What the model was told, as it was told.
    pub(crate) observation: String,
    /// Whether that was a failure.
    pub(crate) failed: bool,
    /// How long the tool took.
    pub(crate) ms: u64,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Action {
    /// By the name under which the model knows it.
    pub(crate) tool: String,
    /// As the model wrote them.
    pub(crate) arguments: Value,
}

/// What it cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Usage {
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    /// Requests to the model, those without an answer included.
    pub(crate) llm_calls: u32,
    /// Calls of tools, those that failed included.
    pub(crate) tool_calls: u32,
}

/// Everything so far.
#[derive(Debug, Default)]
pub(crate) struct Trajectory {
    pub(crate) steps: Vec<Step>,
    pub(crate) usage: Usage,
    /// The provider's name for the model that answered last.
    pub(crate) model: Option<String>,
}

impl Trajectory {
    /// Counts an exchange with the model, whatever came of it.
    pub(crate) fn count(&mut self, exchange: &Result<Reply, llm::Error>) {
        self.usage.llm_calls += 1;
        let usage = match exchange {
            Ok(reply) => {
                self.model = Some(reply.model.clone());
                reply.usage
            }
            Err(llm::Error::Truncated { usage, .. }) => *usage,
            Err(_) => llm::Usage::default(),
        };
        self.usage.input_tokens += u64::from(usage.input_tokens);
        self.usage.output_tokens += u64::from(usage.output_tokens);
    }

    /// For a failure: all of it if there is room, otherwise with shorter texts, otherwise without the oldest steps.
    pub(crate) fn details(&self) -> Value {
        let show = |steps: &[Step]| {
            let mut details = json!({"steps": steps, "usage": self.usage, "model": self.model});
            if steps.len() < self.steps.len() {
                details["omitted_steps"] = json!(self.steps.len() - steps.len());
            }
            details
        };
        let fits = |details: &Value| serde_json::to_string(details).is_ok_and(|text| text.len() <= DETAILS_BYTES);
        let mut steps = self.steps.clone();
        for bytes in [usize::MAX, 4 << 10, 1 << 10, 256] {
            steps.iter_mut().for_each(|step| step.shorten(bytes));
            let details = show(&steps);
            if fits(&details) {
                return details;
            }
        }
        let rest = (1..=steps.len()).map(|from| show(&steps[from..])).find(fits);
        rest.unwrap_or_else(|| show(&[]))
    }
}

impl Step {
    fn shorten(&mut self, bytes: usize) {
        if let Some(thought) = &mut self.thought {
            *thought = cut(thought, bytes);
        }
        if let Some(action) = &mut self.action {
            let written = action.arguments.to_string();
            if written.len() > bytes {
                action.arguments = Value::String(cut(&written, bytes));
            }
        }
        self.observation = cut(&self.observation, bytes);
    }
}

/// A text of at most so many bytes and a mark that says what is missing.
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}\n[cut: the first {end} of {} bytes]", &text[..end], text.len())
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(observation: String) -> Step {
        let action = Action { tool: "calculator".into(), arguments: json!({"expression": "1"}) };
        Step { thought: Some("why".into()), action: Some(action), observation, failed: false, ms: 1 }
    }

    #[test]
    fn a_cut_is_marked_and_leaves_letters_whole() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc\n[cut: the first 3 of 4 bytes]");
        assert_eq!(cut("a\u{e9}b", 2), "a\n[cut: the first 1 of 4 bytes]");
        assert_eq!(cut("\u{1f35e}", 0), "\n[cut: the first 0 of 4 bytes]");
    }

    #[test]
    fn details_are_whole_where_there_is_room() {
        let trajectory = Trajectory { steps: vec![step("2".into())], ..Trajectory::default() };
        let details = trajectory.details();
        assert_eq!(details["steps"][0]["observation"], "2");
        assert_eq!(details["steps"][0]["action"], json!({"tool": "calculator", "arguments": {"expression": "1"}}));
        assert_eq!(details.get("omitted_steps"), None);
    }

    #[test]
    fn details_always_fit_however_long_the_steps_are() {
        let size = |details: &Value| details.to_string().len();
        let long = Trajectory { steps: vec![step("x".repeat(8_000)); 32], ..Trajectory::default() };
        let details = long.details();
        assert!(size(&details) <= DETAILS_BYTES, "{}", size(&details));
        assert_eq!(details["steps"].as_array().map(Vec::len), Some(32), "shorter, and all there");

        // Six bytes of JSON for each.
        let mut huge = step("\u{1}".repeat(30_000));
        huge.thought = Some("\u{1}".repeat(30_000));
        huge.action = Some(Action { tool: "a".into(), arguments: json!({"b": "\u{1}".repeat(30_000)}) });
        let details = Trajectory { steps: vec![huge; 32], ..Trajectory::default() }.details();
        assert!(size(&details) <= DETAILS_BYTES, "{}", size(&details));
        let (kept, omitted) = (details["steps"].as_array().map_or(0, Vec::len), details["omitted_steps"].as_u64());
        assert!(kept > 0 && omitted == Some(32 - kept as u64), "{kept} {omitted:?}");
    }
}
