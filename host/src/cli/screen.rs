//! Where output goes: a person at a terminal, or a program that reads a pipe. A terminal has a width, colours and local times; a pipe has
//! every column, no colours, and times in UTC as the API returned them.

use anstyle::{AnsiColor, Style};
use chrono::{DateTime, Local, SecondsFormat, Utc};
use serde_json::Value;
use std::io::IsTerminal;

/// The narrowest width that is believed; a terminal may report 0.
const NARROWEST: usize = 20;

/// Meaning of a word, which colours it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing in particular.
    #[default]
    Plain,
    /// Ended or working as wanted.
    Good,
    /// Under way.
    Busy,
    /// Waits for something.
    Waiting,
    /// Failed, or gone.
    Bad,
    /// Of little interest.
    Faint,
}

/// Properties of standard output.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// Columns of the terminal; `None`: no terminal, or one of unlimited width.
    pub width: Option<usize>,
    /// Whether words are coloured.
    pub colours: bool,
    /// The time, at a terminal: times are then shown in local form and relative to it.
    pub now: Option<DateTime<Utc>>,
}

impl Screen {
    /// Output for programs.
    pub const PIPE: Screen = Screen { width: None, colours: false, now: None };

    /// Of this process. Colours need a terminal that has them, and no `NO_COLOR` (<https://no-color.org>).
    pub fn stdout() -> Screen {
        // The same for tests, wherever they run.
        if cfg!(test) {
            return Screen::PIPE;
        }
        let out = std::io::stdout();
        if !out.is_terminal() {
            return Screen::PIPE;
        }
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let columns = terminal_size::terminal_size_of(&out).map(|(width, _)| usize::from(width.0));
        Screen {
            width: columns.filter(|columns| *columns > 0).map(|columns| columns.max(NARROWEST)),
            colours: !set("NO_COLOR") && !dumb,
            now: Some(Utc::now()),
        }
    }

    /// The text, in the colour of its tone.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        let style = match tone {
            _ if !self.colours => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Busy => AnsiColor::Cyan.on_default(),
            Tone::Waiting => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().bold(),
            Tone::Faint => Style::new().dimmed(),
        };
        format!("{style}{text}{style:#}")
    }

    /// A time in a table: how long ago at a terminal, else as it is.
    pub fn ago(&self, value: &Value) -> String {
        match (self.now, time(value)) {
            (Some(now), Some(at)) => relative(at, now),
            _ => plain(value),
        }
    }

    /// A time of a log line: local at a terminal, else as it is.
    pub fn clock(&self, value: &Value) -> String {
        match (self.now, time(value)) {
            (Some(_), Some(at)) => at.with_timezone(&Local).format("%F %T%.3f").to_string(),
            _ => plain(value),
        }
    }

    /// A time in a record: local, and how long ago, at a terminal; else as it is.
    pub fn moment(&self, value: &Value) -> String {
        match (self.now, time(value)) {
            (Some(now), Some(at)) => {
                let local = at.with_timezone(&Local).to_rfc3339_opts(SecondsFormat::Millis, false);
                format!("{} ({})", local.replacen('T', " ", 1), relative(at, now))
            }
            _ => plain(value),
        }
    }
}

fn time(value: &Value) -> Option<DateTime<Utc>> {
    value.as_str()?.parse().ok()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| "-".to_owned(), super::escape::line)
}

/// A time relative to now, in the largest unit that fits.
fn relative(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - at).num_seconds();
    let amount = match seconds.unsigned_abs() {
        0 => return "now".into(),
        n @ 1..60 => format!("{n}s"),
        n @ 60..3_600 => format!("{}m", n / 60),
        n @ 3_600..172_800 => format!("{}h", n / 3_600),
        n => format!("{}d", n / 86_400),
    };
    if seconds > 0 { format!("{amount} ago") } else { format!("in {amount}") }
}

/// The tone of a task's state.
pub fn of_state(state: &str) -> Tone {
    match state {
        "completed" => Tone::Good,
        "running" => Tone::Busy,
        "failed" => Tone::Bad,
        "cancelled" => Tone::Faint,
        "scheduled" | "pending" | "retrying" => Tone::Waiting,
        _ => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn terminal() -> Screen {
        let now = "2026-01-02T03:04:05Z".parse().ok();
        Screen { width: Some(80), colours: true, now }
    }

    #[test]
    fn times_are_relative_at_a_terminal_and_utc_in_a_pipe() {
        for (at, shown) in [
            ("2026-01-02T03:04:05.9Z", "now"),
            ("2026-01-02T03:03:06Z", "59s ago"),
            ("2026-01-02T02:05:05Z", "59m ago"),
            ("2025-12-31T04:04:05Z", "47h ago"),
            ("2025-12-01T00:00:00Z", "32d ago"),
            ("2026-01-02T03:14:05Z", "in 10m"),
        ] {
            assert_eq!(terminal().ago(&json!(at)), shown);
            assert_eq!(Screen::PIPE.ago(&json!(at)), at);
            assert_eq!(Screen::PIPE.moment(&json!(at)), at);
        }
        assert!(terminal().moment(&json!("2026-01-02T03:03:05Z")).ends_with("(1m ago)"));
        assert_eq!((terminal().ago(&Value::Null), Screen::PIPE.moment(&Value::Null)), ("-".into(), "-".into()));
    }

    #[test]
    fn colours_are_for_terminals_alone() {
        assert_eq!(Screen::PIPE.paint(Tone::Bad, "failed"), "failed");
        assert_eq!(terminal().paint(Tone::Plain, "failed"), "failed");
        let painted = terminal().paint(Tone::Bad, "failed");
        assert!(painted.starts_with('\u{1b}') && painted.ends_with("\u{1b}[0m"), "{painted:?}");
    }
}
