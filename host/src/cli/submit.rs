//! `agentry submit`.

mod publish;

use super::client::{Client, encode, refused, rows};
use super::screen::Screen;
use super::{Failed, Server, input, output, timeline};
use crate::task::{instant, span};
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long one request of a wait lasts; the next follows at once.
const WAIT: Duration = Duration::from_secs(20);

/// Hand a task to a daemon.
#[derive(clap::Args)]
pub struct Submit {
    /// `name` or `name@requirement`.
    plugin: String,
    /// JSON, @file, or - for standard input.
    #[arg(long, short, value_name = "JSON")]
    input: String,
    /// The task's id; the same id with the same content is the same task.
    #[arg(long, value_name = "UUID")]
    id: Option<String>,
    /// The logical queue; otherwise the plugin's own.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Wall clock of one attempt, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = span::seconds)]
    timeout: Option<u64>,
    /// Attempts in all.
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// 0 to 9, higher first.
    #[arg(long, value_name = "N")]
    priority: Option<u8>,
    /// Not before this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = instant::read)]
    run_at: Option<DateTime<Utc>>,
    /// Not after this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = instant::read)]
    deadline: Option<DateTime<Utc>>,
    /// `key=value`; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Submit to a daemon's API, or publish to the broker of the settings as any producer does. Published, a task has a record
    /// once a host has claimed it, and goes to the queue `default` unless --queue names another.
    #[arg(long, value_enum, default_value = "http")]
    via: Via,
    /// Wait for the end and print the output; exit code 1 if there is none.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    server: Server,
}

/// How a task reaches its queue.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Via {
    /// Through the API of `--server`.
    Http,
    /// Published with a confirm to the broker of `broker.url`.
    Amqp,
}

impl Submit {
    pub async fn run(self, config: Option<PathBuf>) -> Result<(), Failed> {
        if self.via == Via::Amqp {
            return publish::run(self, config).await;
        }
        let body = self.body(self.id.as_deref(), self.queue.as_deref())?;
        let client = Client::new(&self.server)?;
        if self.wait {
            nobody_consumes(&client).await?;
        }
        let task = client.post("/v1/tasks", body).await?;
        let id = task["id"].as_str().ok_or_else(|| client.without("id"))?.to_owned();
        for warning in rows(&task, "warnings") {
            output::say(&format!("agentry: warning: {}", output::field(warning, "message")));
        }
        if !self.wait {
            return match self.server.json {
                true => output::json(&task),
                false => output::data(&id),
            };
        }
        output::say(&format!("task {id}"));
        finish(&client, &id, self.server.json).await
    }

    /// The task as JSON. Over AMQP the queue is the routing key, and no part of it.
    fn body(&self, id: Option<&str>, queue: Option<&str>) -> Result<String, Failed> {
        let mut labels = BTreeMap::new();
        for label in &self.labels {
            let pair = label.split_once('=');
            let (key, value) = pair.ok_or_else(|| Failed::usage(format!("--label takes KEY=VALUE, not {label:?}")))?;
            if labels.insert(key, value).is_some() {
                return Err(Failed::usage(format!("--label {key} is given twice")));
            }
        }
        let options: BTreeMap<&str, Value> = [
            ("timeout_seconds", json!(self.timeout)),
            ("max_attempts", json!(self.max_attempts)),
            ("priority", json!(self.priority)),
            ("run_at", json!(self.run_at)),
            ("deadline", json!(self.deadline)),
            ("labels", if labels.is_empty() { Value::Null } else { json!(labels) }),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .collect();
        #[derive(serde::Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<&'a str>,
            plugin: &'a str,
            input: &'a RawValue,
            #[serde(skip_serializing_if = "Option::is_none")]
            queue: Option<&'a str>,
            options: BTreeMap<&'a str, Value>,
        }
        let input = input::read(&self.input)?;
        let body = Body { id, plugin: &self.plugin, input: &input, queue, options };
        serde_json::to_string(&body).map_err(Failed::usage)
    }
}

/// Waits for the end of a task and prints its output.
async fn finish(client: &Client, id: &str, json: bool) -> Result<(), Failed> {
    let task = wait(client, id, None).await?;
    match (json, task["state"].as_str()) {
        (true, _) => output::json(&task)?,
        (false, Some("completed")) => output::data(&client.output(id).await?)?,
        (false, _) => output::say(timeline::record(&task, &Screen::stdout()).trim_end()),
    }
    ended(&task)
}

/// Say at once when there is nobody who would run it, instead of waiting in silence.
async fn nobody_consumes(client: &Client) -> Result<(), Failed> {
    if let Err(answer) = client.ask(Method::GET, "/readyz", None, Duration::from_secs(5)).await? {
        output::say(&format!("the daemon takes no tasks now: {}", super::escape::line(&answer.detail)));
    }
    Ok(())
}

/// The task once it has ended; or as it stands when the time is up.
pub async fn wait(client: &Client, id: &str, timeout: Option<Duration>) -> Result<Value, Failed> {
    // A time-out beyond the clock is none.
    let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut said = Value::Null;
    loop {
        let left = end.map_or(WAIT, |end| end.saturating_duration_since(Instant::now()).min(WAIT));
        let path = format!("/v1/tasks/{}/wait?timeout={}", encode(id), left.as_secs_f64().ceil());
        let answer = client.ask(Method::GET, &path, None, left + Duration::from_secs(30)).await?;
        let task = answer.map_err(refused)?;
        let terminal = matches!(task["state"].as_str(), Some("completed" | "failed" | "cancelled"));
        if terminal || end.is_some_and(|end| Instant::now() >= end) {
            return Ok(task);
        }
        let reason = &task["waiting_for"]["code"];
        if *reason != said {
            let message = output::field(&task["waiting_for"], "message");
            output::say(&format!("still {}: {message}", output::field(&task, "state")));
            said = reason.clone();
        }
    }
}

/// Exit code 0 for completed, 1 for anything else.
pub fn ended(task: &Value) -> Result<(), Failed> {
    match task["state"].as_str() {
        Some("completed") => Ok(()),
        Some("failed") => Err(Failed::task(format!(
            "the task failed: {}: {}",
            output::field(&task["failure"], "kind"),
            output::field(&task["failure"], "message")
        ))),
        _ => Err(Failed::task(format!("the task is {}", output::field(task, "state")))),
    }
}
