//! `agentry task cancel|retry`: one task, several, or all that filters match, page by page over the API.

use super::client::{Client, Refused, encode, refused, rows};
use super::pace::{Pace, Rate, moment};
use super::{Failed, Server, output};
use crate::task::{State, TaskId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

/// Tasks of one page.
const PAGE: u64 = 500;
/// How often the waiting and the running are looked through for what is to be cancelled, at most.
const PASSES: usize = 4;
/// How long one task may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which tasks, and how.
#[derive(clap::Args)]
pub struct Bulk {
    /// Their ids; without any: those that the filters match.
    ids: Vec<String>,
    /// Only in this state; several are separated by commas, here and in --plugin, --kind and --queue.
    #[arg(long)]
    state: Option<String>,
    /// Only of this plugin.
    #[arg(long)]
    plugin: Option<String>,
    /// Only whose last failure is of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only of this queue.
    #[arg(long)]
    queue: Option<String>,
    /// Only with this label.
    #[arg(long, value_name = "KEY=VALUE")]
    label: Option<String>,
    /// Only those that ended since (of those that have not ended: that were made since): a time, or a duration such as 1h.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// All tasks, without any filter.
    #[arg(long)]
    all: bool,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Not faster than this, such as 50/s.
    #[arg(long)]
    rate: Option<Rate>,
    /// Say how many it would be, and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    server: Server,
}

/// What is done to them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Cancel,
    Retry,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Verb::Cancel => "cancel",
            Verb::Retry => "retry",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Verb::Cancel => "cancelled",
            Verb::Retry => "retried",
        }
    }

    /// Whether a task in this state can be.
    fn takes(self, state: State) -> bool {
        state.is_terminal() == (self == Verb::Retry)
    }

    /// The states that are looked through. What waits comes first: it may begin to run meanwhile.
    fn states(self, asked: Option<&str>) -> Result<Vec<State>, Failed> {
        let Some(text) = asked else {
            return Ok(match self {
                Verb::Cancel => vec![State::Scheduled, State::Pending, State::Retrying, State::Running],
                Verb::Retry => vec![State::Failed, State::Cancelled],
            });
        };
        let parse = |part: &str| State::parse(part.trim()).filter(|state| self.takes(*state));
        let Some(mut states) = text.split(',').map(parse).collect::<Option<Vec<State>>>() else {
            let takes: Vec<_> = State::ALL.into_iter().filter(|s| self.takes(*s)).map(State::as_str).collect();
            let (verb, takes) = (self.name(), takes.join(", "));
            return Err(Failed::usage(format!("--state is {text:?}; task {verb} takes one or several of {takes}")));
        };
        states.sort_unstable();
        states.dedup();
        Ok(states)
    }
}

/// How far it is.
#[derive(Default)]
struct Tally {
    matched: u64,
    done: u64,
    skipped: u64,
    refused: u64,
    /// What became of each, for `--json`.
    tasks: Vec<Value>,
    /// Tasks that have had their turn, and new ones, which are not to be retried themselves.
    seen: HashSet<TaskId>,
}

impl Bulk {
    pub async fn run(self, verb: Verb) -> Result<(), Failed> {
        let filters = [&self.state, &self.plugin, &self.kind, &self.queue, &self.label, &self.since];
        let filtered = filters.iter().any(|filter| filter.is_some());
        match (self.ids.as_slice(), filtered || self.all) {
            ([], false) => {
                let verb = verb.name();
                Err(Failed::usage(format!(
                    "task {verb} takes ids, or a filter such as --plugin NAME or --since 1h, or --all for every task"
                )))
            }
            ([_, ..], true) => Err(Failed::usage("ids and filters exclude each other")),
            ([id], false) if !self.dry_run => self.one(verb, id).await,
            _ => self.many(verb).await,
        }
    }

    /// One task: its refusal is the end of the command.
    async fn one(&self, verb: Verb, id: &str) -> Result<(), Failed> {
        let path = format!("/v1/tasks/{}/{}", encode(id), verb.name());
        let answer = Client::new(&self.server)?.post(&path, String::new()).await?;
        match self.server.json {
            true => output::json(&answer),
            false => output::data(&format!("{} {}", output::field(&answer, "id"), output::field(&answer, "state"))),
        }
    }

    async fn many(&self, verb: Verb) -> Result<(), Failed> {
        let client = Client::new(&self.server)?;
        let (mut tally, mut pace) = (Tally::default(), Pace::new(self.rate));
        let end = match self.ids.is_empty() {
            true => self.matching(verb, &client, &mut tally, &mut pace).await,
            false => self.named(verb, &client, &mut tally, &mut pace).await,
        };
        output::progress("");
        // What was done is told, however it ended.
        self.tell(verb, &tally)?;
        end?;
        match tally.refused {
            0 => Ok(()),
            refused => Err(Failed::usage(format!("{refused} refused"))),
        }
    }

    async fn named(&self, verb: Verb, client: &Client, tally: &mut Tally, pace: &mut Pace) -> Result<(), Failed> {
        for id in &self.ids {
            if self.full(tally) {
                break;
            }
            tally.matched += 1;
            self.act(verb, client, id, tally, pace).await?;
        }
        Ok(())
    }

    async fn matching(&self, verb: Verb, client: &Client, tally: &mut Tally, pace: &mut Pace) -> Result<(), Failed> {
        let mut query = String::new();
        // Once for all pages.
        let since = moment(self.since.as_deref())?;
        let filters = [
            ("plugin", &self.plugin),
            ("kind", &self.kind),
            ("queue", &self.queue),
            ("label", &self.label),
            ("since", &since),
        ];
        for (name, value) in filters {
            if let Some(value) = value {
                query += &format!("&{name}={}", encode(value));
            }
        }
        let states = verb.states(self.state.as_deref())?;
        // What ran while the waiting were looked through may wait again (a retry, a snooze) when the running are: it is looked
        // for until a pass finds nothing new.
        let passes = if verb == Verb::Cancel && states.len() > 1 && !self.dry_run { PASSES } else { 1 };
        for _ in 0..passes {
            let before = tally.matched;
            self.pass(verb, client, &states, &query, tally, pace).await?;
            if tally.matched == before || self.full(tally) {
                break;
            }
        }
        Ok(())
    }

    async fn pass(
        &self,
        verb: Verb,
        client: &Client,
        states: &[State],
        query: &str,
        tally: &mut Tally,
        pace: &mut Pace,
    ) -> Result<(), Failed> {
        for state in states {
            let mut cursor = None;
            loop {
                let from = cursor.map(|cursor: String| format!("&cursor={cursor}")).unwrap_or_default();
                let page = client.page(&format!("/v1/tasks?limit={PAGE}&state={state}{query}{from}"), "tasks").await?;
                for task in rows(&page, "tasks") {
                    let Some(id) = task["id"].as_str() else { continue };
                    if self.full(tally) {
                        return Ok(());
                    }
                    if id.parse().is_ok_and(|id| !tally.seen.insert(id)) {
                        continue;
                    }
                    tally.matched += 1;
                    self.act(verb, client, id, tally, pace).await?;
                    output::progress(&format!("{} {}, {} skipped", tally.done, verb.done(), tally.skipped));
                }
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = Some(next.to_owned()),
                    None => break,
                }
            }
        }
        Ok(())
    }

    fn full(&self, tally: &Tally) -> bool {
        self.limit.is_some_and(|limit| tally.done >= limit)
    }

    async fn act(
        &self,
        verb: Verb,
        client: &Client,
        id: &str,
        tally: &mut Tally,
        pace: &mut Pace,
    ) -> Result<(), Failed> {
        // A task that was named is retried once more; one that only matches is retried once.
        let once = self.ids.is_empty() && verb == Verb::Retry;
        if self.dry_run {
            let path = format!("/v1/tasks?limit=1&retry_of={}", encode(id));
            if once && !rows(&client.page(&path, "tasks").await?, "tasks").is_empty() {
                tally.skipped += 1;
            } else {
                tally.done += 1;
                self.keep(tally, || json!({"id": id, "outcome": format!("would_{}", verb.name())}));
            }
            return Ok(());
        }
        pace.wait().await;
        let once = if once { "?once=true" } else { "" };
        let path = format!("/v1/tasks/{}/{}{once}", encode(id), verb.name());
        match client.ask(Method::POST, &path, Some(String::new()), PATIENCE).await? {
            Ok(task) => {
                tally.done += 1;
                let new = task["id"].as_str().unwrap_or_default().to_owned();
                self.keep(tally, || match verb {
                    Verb::Cancel => json!({"id": id, "outcome": verb.done(), "state": task["state"]}),
                    Verb::Retry => json!({"id": id, "outcome": verb.done(), "retry": new}),
                });
                tally.seen.extend(new.parse::<TaskId>().ok());
            }
            Err(answer) if self.ids.is_empty() && passes(&answer) => {
                tally.skipped += 1;
                self.keep(tally, || json!({"id": id, "outcome": "skipped", "detail": answer.detail}));
            }
            Err(answer) if answer.status.is_client_error() && !forbids(&answer) => {
                tally.refused += 1;
                output::progress("");
                output::say(&format!("{id}: {}", super::escape::line(&answer.detail)));
                self.keep(tally, || json!({"id": id, "outcome": "refused", "detail": answer.detail}));
            }
            Err(answer) => return Err(refused(answer)),
        }
        Ok(())
    }

    /// Without `--json` only numbers are told, however many tasks there are.
    fn keep(&self, tally: &mut Tally, what: impl FnOnce() -> Value) {
        if self.server.json {
            tally.tasks.push(what());
        }
    }

    fn tell(&self, verb: Verb, tally: &Tally) -> Result<(), Failed> {
        if self.server.json {
            return output::json(&json!({
                "dry_run": self.dry_run, "matched": tally.matched, "done": tally.done, "skipped": tally.skipped,
                "refused": tally.refused, "tasks": tally.tasks,
            }));
        }
        let done = if self.dry_run { format!("would {}", verb.name()) } else { verb.done().to_owned() };
        let mut text = format!("{} matched, {} {done}, {} skipped", tally.matched, tally.done, tally.skipped);
        if tally.refused > 0 {
            text += &format!(", {} refused", tally.refused);
        }
        output::data(&text)
    }
}

/// It has ended meanwhile, or has a retry, or nothing to retry with: it only matched.
fn passes(answer: &Refused) -> bool {
    matches!(answer.status, StatusCode::CONFLICT | StatusCode::NOT_FOUND)
}

/// Nor will the next one be allowed.
fn forbids(answer: &Refused) -> bool {
    matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

#[cfg(test)]
#[path = "bulk_tests.rs"]
mod tests;
