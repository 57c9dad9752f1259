//! `agentry run`.

mod local;

use self::local::Local;
use super::{Failed, bodies, escape, input, output, settings, timeline};
use crate::daemon;
use crate::registry::{BODIES, Job};
use crate::task::settle::{Body, BodyText, Call, LogLine, Verdict};
use crate::task::span;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// One attempt at one task, here and now: same sandbox, limits and grants as under the daemon; nothing needed around it.
#[derive(clap::Args)]
pub struct Run {
    /// A plugin's folder, or a component (`*.wasm`).
    plugin: PathBuf,
    /// JSON, @file, or - for standard input.
    #[arg(long, short, value_name = "JSON", default_value = "null")]
    input: String,
    /// Wall clock, in seconds; otherwise the plugin's.
    #[arg(long, value_name = "SECONDS", value_parser = span::seconds)]
    timeout: Option<u64>,
    /// `key=value`; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// When it has ended, print what it called, and what was sent and answered, to standard error.
    #[arg(long)]
    calls: bool,
    #[command(flatten, next_help_heading = "What it may reach")]
    local: Local,
}

impl Run {
    pub async fn run(self, file: Option<PathBuf>) -> Result<(), Failed> {
        let mut settings = settings(file, Vec::new())?;
        let wishes = crate::registry::wishes_of(&self.plugin);
        self.local.apply(&mut settings, &wishes.llm)?;
        // Whoever runs it names its folder.
        settings.plugins.rules.iter_mut().for_each(|rule| rule.pins = Default::default());
        if self.calls {
            settings.plugins.rules.iter_mut().for_each(|rule| rule.calls.bodies = None);
            settings.calls.bodies = Some(BODIES.map(str::to_owned).to_vec());
        }
        let input = input::read(&self.input)?;
        let mut labels = std::collections::BTreeMap::new();
        for label in &self.labels {
            let pair = label.split_once('=');
            let (key, value) = pair.ok_or_else(|| Failed::usage(format!("--label takes KEY=VALUE, not {label:?}")))?;
            labels.insert(key.to_owned(), value.to_owned());
        }
        let opened = daemon::plugin(&settings, &self.plugin, self.local.memory.as_deref()).await;
        let hinted = |error| Failed::usage(format!("{error}{}", self.local.hint(&wishes)));
        let (runner, _gone_with_the_run) = opened.map_err(hinted)?;
        let stop = CancellationToken::new();
        let job = Job {
            id: uuid::Uuid::now_v7(),
            attempt: 1,
            max_attempts: 1,
            fence: None,
            input: input.get().into(),
            labels,
            timeout: self.timeout.map(Duration::from_secs),
            deadline: None,
            stop: stop.clone(),
            memory: None,
            turn: None,
            on_log: Some(Arc::new(show)),
        };
        let interrupt = async {
            let _ = tokio::signal::ctrl_c().await;
            stop.cancel();
            std::future::pending::<()>().await;
        };
        let report = tokio::select! {
            report = runner.run(job) => report,
            () = interrupt => return Err(Failed::task("interrupted")),
        };
        if self.calls {
            let calls: Vec<Value> = report.calls.iter().map(called).collect();
            output::say(&format!("{}{}", timeline::calls(&calls), bodies::bodies(&calls)));
        }
        match report.verdict {
            Verdict::Output(output) => output::data(&output),
            Verdict::Failed { failure, .. } => {
                let message = escape::line(&failure.message);
                Err(Failed::task(format!("{}: {message}{}", failure.kind, detail(failure.detail))))
            }
            Verdict::Snooze { message, after } => {
                Err(Failed::task(format!("snoozed for {after:?}: {}", escape::line(&message))))
            }
            Verdict::ChildDied { message } => Err(Failed::task(message)),
            Verdict::Stopped | Verdict::NoMemory { .. } => Err(Failed::task("interrupted")),
        }
    }
}

/// What is known besides the message: the frames of a trap, innermost first, one a line; and the rest, if there is any.
fn detail(mut detail: Value) -> String {
    let mut text = String::new();
    if let Some(known) = detail.as_object_mut() {
        // Its author has seen what it said.
        known.remove("stderr_tail");
        let frames = known.remove("frames").unwrap_or_default();
        for frame in frames.as_array().into_iter().flatten().filter_map(Value::as_str) {
            text += &format!("\n  at {}", escape::line(frame));
        }
        known.retain(|_, value| !value.is_null());
        if known.is_empty() {
            return text;
        }
    }
    match detail {
        Value::Null => text,
        rest => format!("\n  {}{text}", escape::line(&rest.to_string())),
    }
}

/// A call as the API would show it.
fn called(call: &Call) -> Value {
    let body = |body: &Option<Body>| body.as_ref().map(|body| json!(BodyText::new(&body.bytes, body.size)));
    let mut row = json!(call);
    row["fence"] = json!(1);
    row["request_body"] = json!(body(&call.request_body));
    row["response_body"] = json!(body(&call.response_body));
    row
}

/// A line as it arrives.
fn show(line: &LogLine) {
    let logger = if line.logger.is_empty() { String::new() } else { format!("{}: ", escape::line(&line.logger)) };
    let cut = if line.cut { " …" } else { "" };
    output::say(&format!("{:<5} {logger}{}{cut}", line.level, escape::line(&line.message)));
}
