//! What came of it all, for a person to read.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Instant;

use crate::case::Case;
use crate::stage::Seen;

/// One row for each attack.
pub struct Table {
    title: String,
    began: Instant,
    rows: Vec<String>,
    broken: Vec<String>,
}

impl Table {
    /// An empty one.
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), began: Instant::now(), rows: Vec::new(), broken: Vec::new() }
    }

    /// What became of a case.
    pub fn add(&mut self, case: &Case, seen: &Seen, violations: &[String]) {
        let kind = seen.failure()["kind"].as_str().unwrap_or_default();
        let limit = seen.failure()["detail"]["limit"].as_str().unwrap_or_default();
        let what =
            [seen.state(), kind, limit].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let numbers = format!("{:>5} ms {:>+5} MiB", seen.wall().as_millis(), seen.rise >> 10);
        self.row(case.id, &what, &numbers, violations);
    }

    /// A row of another kind.
    pub fn row(&mut self, id: &str, what: &str, numbers: &str, violations: &[String]) {
        let verdict = if violations.is_empty() {
            "holds".to_owned()
        } else {
            self.broken.push(format!("{id}: {}", violations.join("; ")));
            format!("BROKEN: {}", violations.join("; "))
        };
        self.rows.push(format!("{id:<32} {what:<44} {numbers:>20}  {verdict}"));
    }

    /// Shows it, past the test's own capture: it is to be seen in every run. Fails if a row is broken.
    #[track_caller]
    pub fn hold(self) {
        let mut text = format!("{}: {} rows in {:.0?}\n", self.title, self.rows.len(), self.began.elapsed());
        for row in &self.rows {
            let _ = writeln!(text, "  {row}"); // writing to a text does not fail
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
        assert!(self.broken.is_empty(), "{}", self.broken.join("\n"));
    }
}
