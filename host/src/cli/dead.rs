//! `agentry dead …`.

use super::client::{Client, encode, rows};
use super::output::{self, field};
use super::pace::{Pace, Rate, moment};
use super::{Failed, Server};
use serde_json::{Value, json};

/// Letters of one request that only looks.
const CHUNK: u64 = 100;
/// What is shown of a letter.
const NAMES: [&str; 8] = ["id", "at", "queue", "reason", "task_id", "redriven_at", "redriven_as", "detail"];

/// Messages that could not be used.
#[derive(clap::Subcommand)]
pub enum Dead {
    /// The newest first, with the reason.
    List(List),
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
    server: Server,
}

impl Dead {
    pub async fn run(self) -> Result<(), Failed> {
        let list = match self {
            Dead::List(list) => list,
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
        let answer = Client::new(&list.server)?.page(&path, "dead").await?;
        if list.server.json {
            return output::json(&answer);
        }
        let lines: Vec<_> =
            rows(&answer, "dead").iter().map(|letter| NAMES.map(|name| field(letter, name)).to_vec()).collect();
        output::data(&output::table(&["id", "at", "queue", "reason", "task", "redriven", "as", "detail"], &lines))?;
        if !answer["next_cursor"].is_null() {
            output::say(&format!("more: --cursor {}", field(&answer, "next_cursor")));
        }
        Ok(())
    }
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
