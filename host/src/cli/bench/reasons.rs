//! Why tasks did not complete, counted.

use super::super::escape;
use super::rows::{Reason, Row};
use serde_json::{Value, json};

/// Characters of a message that are shown.
const SHOWN: usize = 160;

/// Tasks that did not complete, by state, kind and code: how many, and the first message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reasons(Vec<(String, Reason, u64)>);

impl Reasons {
    /// Counts one more row.
    pub fn add(&mut self, row: &Row) {
        let Some(reason) = &row.reason else { return };
        let same = |(state, known, _): &&mut (String, Reason, u64)| {
            *state == row.state && (&known.kind, &known.code) == (&reason.kind, &reason.code)
        };
        match self.0.iter_mut().find(same) {
            Some((_, _, count)) => *count += 1,
            None => self.0.push((row.state.clone(), reason.clone(), 1)),
        }
    }

    /// The most frequent first.
    pub fn sort(&mut self) {
        self.0.sort_by_key(|(.., count)| std::cmp::Reverse(*count));
    }

    /// For a program.
    pub fn json(&self) -> Value {
        let one = |(state, reason, count): &(String, Reason, u64)| {
            let Reason { kind, code, message } = reason;
            json!({"state": state, "kind": kind, "code": code, "count": count, "first_message": message})
        };
        self.0.iter().map(one).collect()
    }

    /// For a person, one line each.
    pub fn lines(&self) -> Vec<String> {
        let one = |(state, reason, count): &(String, Reason, u64)| {
            let code = reason.code.as_ref().map(|code| format!(", code {code}")).unwrap_or_default();
            let cut = if reason.message.chars().nth(SHOWN).is_some() { "…" } else { "" };
            let message: String = reason.message.chars().take(SHOWN).collect();
            escape::line(&format!("{count} {state}: {}{code}: {message}{cut}", reason.kind))
        };
        self.0.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &str, kind: &str, code: Option<&str>, message: &str) -> Row {
        let reason = Reason { kind: kind.into(), code: code.map(Into::into), message: message.into() };
        Row { state: state.into(), started_at: None, finished_at: None, reason: Some(reason) }
    }

    #[test]
    fn reasons_are_counted_by_kind_and_code_with_the_first_message() {
        let mut reasons = Reasons::default();
        reasons.add(&row("failed", "trap", None, "once"));
        for message in ["first", "second"] {
            reasons.add(&row("failed", "permanent", Some("E1"), message));
        }
        reasons.add(&Row { state: "completed".into(), started_at: None, finished_at: None, reason: None });
        reasons.sort();
        assert_eq!(reasons.lines(), ["2 failed: permanent, code E1: first", "1 failed: trap: once"]);
        assert_eq!(reasons.json()[0]["first_message"], "first");
    }

    #[test]
    fn a_message_is_cut_and_cannot_control_the_terminal() {
        let mut reasons = Reasons::default();
        reasons.add(&row("failed", "trap", None, &format!("\u{1b}[2J{}", "x".repeat(1_000))));
        let lines = reasons.lines();
        assert!(lines[0].contains("\\u{1b}[2J") && lines[0].ends_with('…') && lines[0].len() < 250, "{lines:?}");
    }
}
