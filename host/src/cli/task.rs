//! `agentry task …`.

use super::bulk::{Bulk, Verb};
use super::client::{Client, encode, rows};
use super::screen::{self, Screen};
use super::table::{Cell, Column, Table};
use super::watch::Watch;
use super::{Failed, Server, bodies, explain, follow, output, submit, timeline};
use crate::task::span;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// What became of tasks.
#[derive(clap::Subcommand)]
pub enum Task {
    /// One task with its life.
    Show(One),
    /// Tasks, newest first.
    List(List),
    /// Explain a task's state: cause and remedy. Asks the database and the broker of the settings if no daemon responds.
    Explain(One),
    /// List its events.
    Events(Stream),
    /// List what its guests logged, by attempt.
    Logs(Stream),
    /// What its guests called: which capability, how long, how large, with what result.
    Calls(Calls),
    /// Until it has ended; exit code 1 if it did not complete.
    Wait(Wait),
    /// Call tasks off; a running guest stops within a second.
    Cancel(Bulk),
    /// Ask ended tasks again, each as a new task. One that only matches a filter is retried once.
    Retry(Bulk),
    /// Take away what an ended task holds: input, output, logs, the words of its failures and its calls. The task stays.
    Erase(One),
}

/// One task.
#[derive(clap::Args)]
pub struct One {
    /// The task's id.
    id: String,
    #[command(flatten)]
    server: Server,
}

/// One task, as a list or as a stream.
#[derive(clap::Args)]
pub struct Stream {
    #[command(flatten)]
    one: One,
    /// Follow the task until it has ended. With --json: one line of JSON for each.
    #[arg(long, short)]
    follow: bool,
}

/// What one task called.
#[derive(clap::Args)]
pub struct Calls {
    #[command(flatten)]
    one: One,
    /// And what was sent and answered, as far as it was recorded (calls.bodies).
    #[arg(long)]
    bodies: bool,
}

/// Which tasks.
#[derive(clap::Args)]
pub struct List {
    /// Only in this state; several are separated by commas, here and in --plugin, --queue and --kind.
    #[arg(long)]
    state: Option<String>,
    /// Only of this plugin.
    #[arg(long)]
    plugin: Option<String>,
    /// Only of this queue.
    #[arg(long)]
    queue: Option<String>,
    /// Only with this label.
    #[arg(long, value_name = "KEY=VALUE")]
    label: Option<String>,
    /// Only whose last failure is of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only those that ended since (of those that have not ended: that were made since): a time, or a duration such as 1h.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only retries of this task.
    #[arg(long, value_name = "ID")]
    retry_of: Option<String>,
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

/// Which task, and for how long.
#[derive(clap::Args)]
pub struct Wait {
    /// The task's id.
    id: String,
    /// Give up after so many seconds; otherwise never.
    #[arg(long, value_name = "SECONDS", value_parser = span::seconds)]
    timeout: Option<u64>,
    #[command(flatten)]
    server: Server,
}

impl Task {
    pub async fn run(self, config: Option<PathBuf>) -> Result<(), Failed> {
        match self {
            Task::Explain(One { id, server }) => explain::run(&id, &server, config).await,
            Task::Show(one) => one.show().await,
            Task::List(list) => list.run().await,
            Task::Events(Stream { one, follow: true }) => {
                let first = std::cell::RefCell::new(None);
                one.follow("events", |event| timeline::event(event, &mut first.borrow_mut())).await
            }
            Task::Logs(Stream { one, follow: true }) => {
                let screen = Screen::stdout();
                one.follow("logs", |entry| timeline::log(entry, &screen)).await
            }
            Task::Events(Stream { one, .. }) => {
                let answer = one.all("events").await?;
                one.print(&answer, |answer| timeline::events(rows(answer, "events")))
            }
            Task::Logs(Stream { one, .. }) => {
                let (answer, screen) = (one.all("logs").await?, Screen::stdout());
                one.print(&answer, |answer| {
                    rows(answer, "logs").iter().map(|log| timeline::log(log, &screen)).collect()
                })
            }
            Task::Calls(Calls { one, bodies }) => {
                let calls = one.calls(bodies).await?;
                one.print(&json!({"calls": calls}), |answer| {
                    let calls = rows(answer, "calls");
                    let mut text = timeline::calls(calls);
                    if bodies {
                        text += &bodies::bodies(calls);
                    }
                    text
                })
            }
            Task::Cancel(bulk) => bulk.run(Verb::Cancel).await,
            Task::Retry(bulk) => bulk.run(Verb::Retry).await,
            Task::Erase(one) => {
                let path = format!("/v1/tasks/{}/data", encode(&one.id));
                let answer = Client::new(&one.server)?.delete(&path).await?;
                one.print(&answer, |answer| {
                    format!("{} erased {}", output::field(answer, "id"), output::field(answer, "erased_at"))
                })
            }
            Task::Wait(wait) => {
                let client = Client::new(&wait.server)?;
                let task = submit::wait(&client, &wait.id, wait.timeout.map(Duration::from_secs)).await?;
                match wait.server.json {
                    true => output::json(&task)?,
                    false => output::data(&timeline::record(&task, &Screen::stdout()))?,
                }
                submit::ended(&task)
            }
        }
    }
}

impl One {
    async fn get(&self, part: &str) -> Result<Value, Failed> {
        Client::new(&self.server)?.get(&format!("/v1/tasks/{}{part}", encode(&self.id))).await
    }

    async fn follow(&self, part: &str, show: impl Fn(&Value) -> String) -> Result<(), Failed> {
        follow::run(&Client::new(&self.server)?, &self.id, part, self.server.json, show).await
    }

    /// All rows of a list, page by page.
    async fn all(&self, list: &str) -> Result<Value, Failed> {
        let (mut all, mut part) = (Vec::new(), format!("/{list}"));
        loop {
            let mut page = self.get(&part).await?;
            if let Some(rows) = page[list].as_array_mut() {
                all.append(rows);
            }
            match page["next_after"].as_i64() {
                Some(after) => part = format!("/{list}?after={after}"),
                None => return Ok(json!({list: all, "next_after": null})),
            }
        }
    }

    /// All calls, page by page.
    async fn calls(&self, bodies: bool) -> Result<Vec<Value>, Failed> {
        let all = format!("/calls?bodies={bodies}");
        let (mut calls, mut part) = (Vec::new(), all.clone());
        loop {
            let mut page = self.get(&part).await?;
            if let Some(rows) = page["calls"].as_array_mut() {
                calls.append(rows);
            }
            match page["next_after"].as_str() {
                Some(after) => part = format!("{all}&after={}", encode(after)),
                None => return Ok(calls),
            }
        }
    }

    fn print(&self, answer: &Value, text: impl Fn(&Value) -> String) -> Result<(), Failed> {
        match self.server.json {
            true => output::json(answer),
            false => output::data(&text(answer)),
        }
    }

    async fn show(&self) -> Result<(), Failed> {
        let task = self.get("").await?;
        let events = self.all("events").await?;
        let attempts = self.get("/attempts").await?;
        if self.server.json {
            return output::json(&json!({
                "task": task, "events": events["events"], "attempts": attempts["attempts"],
            }));
        }
        let mut text = timeline::record(&task, &Screen::stdout());
        text += "\n";
        text += &timeline::events(rows(&events, "events"));
        text += &timeline::attempts(rows(&attempts, "attempts"));
        output::data(&text)
    }
}

impl List {
    async fn run(self) -> Result<(), Failed> {
        let mut path = format!("/v1/tasks?limit={}", self.limit);
        let filters = [
            ("state", &self.state),
            ("plugin", &self.plugin),
            ("queue", &self.queue),
            ("label", &self.label),
            ("kind", &self.kind),
            ("since", &self.since),
            ("retry_of", &self.retry_of),
            ("cursor", &self.cursor),
        ];
        for (name, value) in filters {
            if let Some(value) = value {
                path += &format!("&{name}={}", encode(value));
            }
        }
        let client = Client::new(&self.server)?;
        let ask = async || client.page(&path, "tasks").await;
        let text = |answer: &Value, screen: &Screen| {
            if let Some(cursor) = answer["next_cursor"].as_str().filter(|_| !self.watch.is_on()) {
                output::say(&format!("more: --cursor {cursor}"));
            }
            listed(rows(answer, "tasks"), screen)
        };
        self.watch.show(self.server.json, ask, text).await
    }
}

/// Columns of a list of tasks. The id is whole, since it is what other commands take.
const COLUMNS: [Column; 7] = [
    Column::new("id"),
    Column::new("state"),
    Column::new("why").least(8),
    Column::new("plugin").least(10),
    Column::new("attempt").rank(3),
    Column::new("queue").least(7).rank(2),
    Column::new("created").rank(1),
];

fn listed(tasks: &[Value], screen: &Screen) -> String {
    let mut table = Table::new(&COLUMNS);
    for task in tasks {
        let why = match (task["waiting_for"]["code"].as_str(), task["failure"]["kind"].as_str()) {
            (Some(code), _) => code.to_owned(),
            (None, Some(kind)) => kind.to_owned(),
            (None, None) => "-".into(),
        };
        let named = |name| Cell::from(output::field(task, name));
        let state = output::field(task, "state");
        let tone = screen::of_state(&state);
        let attempts = format!("{}/{}", output::field(task, "attempt"), output::field(task, "max_attempts"));
        let created = screen.ago(&task["created_at"]);
        table.row([
            named("id"),
            Cell::toned(state, tone),
            why.into(),
            named("plugin"),
            attempts.into(),
            named("queue"),
            created.into(),
        ]);
    }
    table.render(screen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_fits_80_columns_and_a_pipe_has_all() {
        let task = json!({
            "id": "01920c3e-0000-7000-8000-000000000001", "state": "retrying", "waiting_for": {"code": "not_published"},
            "plugin": "fetch-summary@^0.1", "attempt": 1, "max_attempts": 3, "queue": "default",
            "created_at": "2026-01-02T03:04:05.678901Z",
        });
        let tasks = [task];
        insta::assert_snapshot!(listed(&tasks, &Screen::PIPE), @r"
        id                                    state     why            plugin              attempt  queue    created
        01920c3e-0000-7000-8000-000000000001  retrying  not_published  fetch-summary@^0.1  1/3      default  2026-01-02T03:04:05.678901Z
        ");
        let now = "2026-01-02T03:14:06Z".parse().ok();
        let screen = Screen { width: Some(80), now, ..Screen::PIPE };
        insta::assert_snapshot!(listed(&tasks, &screen), @r"
        id                                    state     why          plugin      created
        01920c3e-0000-7000-8000-000000000001  retrying  not_publis…  fetch-sum…  10m ago
        (not shown: attempt, queue; see --json)
        ");
    }
}
