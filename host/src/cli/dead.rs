//! `agentry dead …`.

use super::client::{Client, encode, rows};
use super::output::{self, field};
use super::pace::{Pace, Rate, moment};
use super::screen::{Screen, Tone};
use super::table::{Cell, Column, Table};
use super::watch::Watch;
use super::{Failed, Server, escape};
use serde_json::{Value, json};

/// Letters of one request that only looks.
const CHUNK: u64 = 100;

/// Messages that could not be used.
#[derive(clap::Subcommand)]
pub enum Dead {
    /// The newest first, with the reason.
    List(List),
    /// Show one, with its body and its properties.
    Show(Show),
    /// Deliver them again, each under a new id. What was redriven before is left alone.
    Redrive(Redrive),
}

/// Which.
#[derive(clap::Args)]
pub struct List {
    /// Only with this reason.
    #[arg(long)]
    reason: Option<String>,
    /// Only from this queue.
    #[arg(long)]
    queue: Option<String>,
    /// Only those recorded since: a time, or a duration such as 1h.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// At most so many, up to 500.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Go on where an earlier list ended.
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    server: Server,
}

impl Dead {
    pub async fn run(self) -> Result<(), Failed> {
        let list = match self {
            Dead::List(list) => list,
            Dead::Show(show) => return show.run().await,
            Dead::Redrive(redrive) => return redrive.run().await,
        };
        let mut path = format!("/v1/dead?limit={}", list.limit);
        for (name, value) in
            [("reason", &list.reason), ("queue", &list.queue), ("since", &list.since), ("cursor", &list.cursor)]
        {
            if let Some(value) = value {
                path += &format!("&{name}={}", encode(value));
            }
        }
        let client = Client::new(&list.server)?;
        let text = |answer: &Value, screen: &Screen| {
            if !answer["next_cursor"].is_null() && !list.watch.is_on() {
                output::say(&format!("more: --cursor {}", field(answer, "next_cursor")));
            }
            listed(rows(answer, "dead"), screen)
        };
        list.watch.show(list.server.json, async || client.page(&path, "dead").await, text).await
    }
}

fn listed(letters: &[Value], screen: &Screen) -> String {
    let mut table = Table::new(&[
        Column::new("id"),
        Column::new("at"),
        Column::new("queue").least(7).rank(2),
        Column::new("reason"),
        Column::new("task").rank(1),
        Column::new("redriven").rank(3),
        Column::new("as").rank(4),
        Column::new("detail").least(20),
    ]);
    for letter in letters {
        let named = |name| Cell::from(field(letter, name));
        let [at, redriven] = ["at", "redriven_at"].map(|name| screen.ago(&letter[name]));
        let reason = Cell::toned(field(letter, "reason"), Tone::Bad);
        table.row([
            named("id"),
            at.into(),
            named("queue"),
            reason,
            named("task_id"),
            redriven.into(),
            named("redriven_as"),
            named("detail"),
        ]);
    }
    table.render(screen)
}

/// One letter.
#[derive(clap::Args)]
pub struct Show {
    /// Its id, as `agentry dead list` shows it.
    id: i64,
    #[command(flatten)]
    server: Server,
}

impl Show {
    async fn run(self) -> Result<(), Failed> {
        // Letters are listed by their id, the highest first.
        let path = format!("/v1/dead?limit=1&cursor={}", self.id.saturating_add(1).max(1));
        let answer = Client::new(&self.server)?.page(&path, "dead").await?;
        let letter = rows(&answer, "dead").iter().find(|letter| letter["id"] == self.id).ok_or_else(|| {
            Failed::usage(format!(
                "there is no dead letter {}; `agentry dead list` shows those that there are",
                self.id
            ))
        })?;
        match self.server.json {
            true => output::json(letter),
            false => output::data(&shown(letter, &Screen::stdout())),
        }
    }
}

fn shown(letter: &Value, screen: &Screen) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| text += &format!("{name:<10} {value}\n");
    row("letter", field(letter, "id"));
    row("reason", screen.paint(Tone::Bad, &field(letter, "reason")));
    row("detail", field(letter, "detail"));
    row("recorded", screen.moment(&letter["at"]));
    for (name, key) in [("queue", "queue"), ("task", "task_id"), ("plugin", "plugin")] {
        if !letter[key].is_null() {
            row(name, field(letter, key));
        }
    }
    if !letter["redriven_as"].is_null() {
        row("redriven", format!("as {}, {}", field(letter, "redriven_as"), screen.moment(&letter["redriven_at"])));
    }
    for (name, value) in letter["properties"].as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        row("property", format!("{}: {}", escape::line(name), escape::line(&value.to_string())));
    }
    if !letter["erased_at"].is_null() {
        row("erased", screen.moment(&letter["erased_at"]));
        return text;
    }
    row("body", format!("{} bytes", field(letter, "body_bytes")));
    let body = letter["body"].as_str().unwrap_or_default();
    for line in body.lines() {
        text += &format!("  {}\n", escape::line(line));
    }
    text
}

/// Which, and how.
#[derive(clap::Args)]
pub struct Redrive {
    /// Their ids; without any: those that the filters match.
    ids: Vec<i64>,
    /// Only with this reason.
    #[arg(long)]
    reason: Option<String>,
    /// Only from this queue.
    #[arg(long)]
    queue: Option<String>,
    /// Only those recorded since: a time, or a duration such as 1h.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// All of them, without any filter.
    #[arg(long)]
    all: bool,
    /// Those that are named once more, if they were redriven before.
    #[arg(long, requires = "ids")]
    again: bool,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Not faster than this, such as 50/s.
    #[arg(long)]
    rate: Option<Rate>,
    /// Say which it would be, and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    server: Server,
}

impl Redrive {
    async fn run(self) -> Result<(), Failed> {
        let filtered = self.reason.is_some() || self.queue.is_some() || self.since.is_some() || self.all;
        match (self.ids.is_empty(), filtered) {
            (true, false) => Err(Failed::usage(
                "dead redrive takes ids, or a filter such as --reason not_json or --since 1h, or --all for every letter",
            )),
            (false, true) => Err(Failed::usage("ids and filters exclude each other")),
            _ => {
                let mut letters = Vec::new();
                let end = self.collect(&mut letters).await;
                output::progress("");
                // What was done is told, however it ended.
                self.tell(&letters)?;
                end?;
                match count(&letters, &["failed", "unknown", "erased"]) {
                    0 => Ok(()),
                    failed => Err(Failed::usage(format!("{failed} could not be redriven"))),
                }
            }
        }
    }

    /// The newest first, one by one: what became of each is known whatever happens to the next.
    async fn collect(&self, letters: &mut Vec<Value>) -> Result<(), Failed> {
        let client = Client::new(&self.server)?;
        let mut pace = Pace::new(self.rate);
        let since = moment(self.since.as_deref())?;
        let chunk = if self.dry_run { CHUNK } else { 1 };
        let (mut named, mut before) = (self.ids.chunks(chunk as usize), Value::Null);
        loop {
            let limit = self.limit.map_or(chunk, |limit| limit.saturating_sub(letters.len() as u64).min(chunk));
            if limit == 0 {
                return Ok(());
            }
            let body = if self.ids.is_empty() {
                json!({
                    "reason": self.reason, "queue": self.queue, "since": since, "before": before, "limit": limit,
                    "dry_run": self.dry_run,
                })
            } else {
                let Some(ids) = named.next() else { return Ok(()) };
                let ids = &ids[..ids.len().min(limit as usize)];
                json!({"ids": ids, "again": self.again, "dry_run": self.dry_run})
            };
            pace.wait().await;
            let answer = client.post("/v1/dead/redrive", body.to_string()).await?;
            letters.extend_from_slice(rows(&answer, "letters"));
            output::progress(&format!("{} letters", letters.len()));
            before = answer["next_before"].clone();
            if self.ids.is_empty() && before.is_null() {
                return Ok(());
            }
        }
    }

    fn tell(&self, letters: &[Value]) -> Result<(), Failed> {
        if self.server.json {
            return output::json(&json!({
                "dry_run": self.dry_run, "letters": letters, "redriven": count(letters, &["redriven"]),
            }));
        }
        let lines: Vec<_> = letters
            .iter()
            .map(|letter| ["id", "outcome", "task_id", "detail"].map(|name| field(letter, name)).to_vec())
            .collect();
        output::data(&output::table(&["id", "outcome", "task", "detail"], &lines))
    }
}

fn count(letters: &[Value], outcomes: &[&str]) -> usize {
    letters.iter().filter(|letter| letter["outcome"].as_str().is_some_and(|o| outcomes.contains(&o))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_letter_steers_the_terminal() {
        let letter = json!({
            "id": 7, "at": "2026-01-02T03:04:05Z", "reason": "not_json", "detail": "expected value", "queue": "default",
            "task_id": null, "plugin": null, "body": "a\u{1b}[2J\n\tb", "body_bytes": 8, "properties": {"x-team": "\u{9b}", "type": null},
            "redriven_at": null, "redriven_as": null, "erased_at": null,
        });
        insta::assert_snapshot!(shown(&letter, &Screen::PIPE), @r#"
        letter     7
        reason     not_json
        detail     expected value
        recorded   2026-01-02T03:04:05Z
        queue      default
        property   x-team: "\u{9b}"
        body       8 bytes
          a\u{1b}[2J
          \tb
        "#);
    }
}
