//! One line of the result: a goal, what was measured, and whether the goal holds.

use serde_json::{Value, json};

/// Whether a goal is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Holds,
    Short,
    Skipped(String),
    Failed(String),
}

/// A goal and its measurement.
pub struct Row {
    what: String,
    goal: String,
    measured: String,
    verdict: Verdict,
    figures: Value,
}

impl Row {
    /// A measured row.
    pub fn new(what: &str, goal: &str, measured: impl Into<String>, holds: bool, figures: Value) -> Self {
        let verdict = if holds { Verdict::Holds } else { Verdict::Short };
        Self { what: what.into(), goal: goal.into(), measured: measured.into(), verdict, figures }
    }

    /// A row that could not be measured here, and why.
    pub fn skipped(what: &str, goal: &str, why: impl Into<String>) -> Self {
        let verdict = Verdict::Skipped(why.into());
        Self { what: what.into(), goal: goal.into(), measured: String::new(), verdict, figures: Value::Null }
    }

    /// A row whose measurement broke.
    pub fn failed(what: &str, error: &anyhow::Error) -> Self {
        let verdict = Verdict::Failed(format!("{error:#}"));
        Self { what: what.into(), goal: String::new(), measured: String::new(), verdict, figures: Value::Null }
    }

    /// Whether the measurement broke. A goal that is not reached is a result, and no failure of the run.
    pub fn is_broken(&self) -> bool {
        matches!(self.verdict, Verdict::Failed(_))
    }

    /// For a person who waits for the whole table.
    pub fn line(&self) -> String {
        format!("{}: {} ({})", self.what, if self.measured.is_empty() { "-" } else { &self.measured }, self.word())
    }

    /// For a program.
    pub fn json(&self) -> Value {
        json!({
            "row": self.what, "goal": self.goal, "measured": self.measured, "verdict": self.word(), "figures": self.figures,
        })
    }

    fn word(&self) -> String {
        match &self.verdict {
            Verdict::Holds => "holds".into(),
            Verdict::Short => "short".into(),
            Verdict::Skipped(why) => format!("skipped: {why}"),
            Verdict::Failed(why) => format!("failed: {why}"),
        }
    }
}

/// All rows, as Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text = "| row | goal | measured | verdict |\n|---|---|---|---|\n".to_owned();
    for row in rows {
        let cells =
            [&row.what, &row.goal, &row.measured, &row.word()].map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

/// The value in the middle; of two in the middle the lower one.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// A number that a program printed.
pub fn number(value: &Value, path: &str) -> anyhow::Result<f64> {
    let found = value.pointer(path).and_then(Value::as_f64);
    found.ok_or_else(|| anyhow::anyhow!("failed to find {path} in {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_row_never_reads_as_held() {
        let rows = [
            Row::new("a", "≥ 1", "2 | 3", true, Value::Null),
            Row::new("b", "≥ 1", "0", false, Value::Null),
            Row::skipped("c", "≥ 1", "no npm"),
            Row::failed("d", &anyhow::anyhow!("broken")),
        ];
        let table = table(&rows);
        assert!(table.contains("| a | ≥ 1 | 2 \\| 3 | holds |"), "{table}");
        assert!(table.contains("| b | ≥ 1 | 0 | short |"), "{table}");
        assert!(table.contains("| c | ≥ 1 |  | skipped: no npm |") && table.contains("failed: broken"), "{table}");
        assert_eq!(rows.iter().filter(|row| row.is_broken()).count(), 1);
    }

    #[test]
    fn the_median_is_one_of_the_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(1.0));
        assert_eq!(median(Vec::new()), None);
    }
}
