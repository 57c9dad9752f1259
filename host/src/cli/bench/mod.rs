//! `agentry bench`: puts a load of a given shape on a daemon and reports throughput, latency and cost.
//!
//! ```text
//! target ─▶ send ─▶ watch ─▶ report ─▶ table | JSON | svg
//! (ask, or embedded) (HTTP or AMQP) (counters, then rows once)
//! ```

mod clean;
mod embedded;
mod legs;
mod report;
mod resources;
mod rows;
mod send;
mod shape;
mod stats;
mod svg;
mod target;
mod watch;

use self::embedded::Embedded;
use self::report::Report;
use self::shape::{Seconds, Shape};
use super::client::Client;
use super::pace::Rate;
use super::{Failed, Server, input, output};
use std::path::PathBuf;
use uuid::Uuid;

/// The text that is counted unless `--input` gives another.
const TEXT: &str = r#"{"text":"the quick brown fox jumps over the lazy dog"}"#;

/// Measure a daemon under load: throughput, latency and cost per task.
#[derive(clap::Args)]
#[command(after_help = "Exit codes: 0 every task completed; 1 some did not; 2 usage; 3 no daemon answers.")]
pub struct Bench {
    /// Send this many tasks as fast as possible.
    #[arg(long, value_name = "N", default_value_t = 20_000, conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    tasks: u32,
    /// Send at this rate instead, such as 200/s. Late tasks are not skipped; latency counts from the intended time.
    #[arg(long, requires = "duration")]
    rate: Option<Rate>,
    /// How long to send at --rate, such as 30s or 2m.
    #[arg(long = "for", id = "duration", value_name = "TIME", requires = "rate")]
    duration: Option<Seconds>,
    /// `name` or `name@requirement`.
    #[arg(long, value_name = "NAME", default_value = "word-count")]
    plugin: String,
    /// JSON, @file, or - for standard input [default: a short text for word-count].
    #[arg(long, short, value_name = "JSON")]
    input: Option<String>,
    /// The logical queue; otherwise the plugin's own.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// How tasks are sent. AMQP uses broker.url and broker.prefix of the settings.
    #[arg(long, value_enum, default_value = "http")]
    via: Via,
    /// Tasks of one request, or of one window of confirms.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// At most this many tasks sent and not yet ended; otherwise unbounded.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: Option<u32>,
    /// Stop waiting when no task has ended for this long.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    patience: Seconds,
    /// Start an embedded daemon of this binary for the run, with a temporary data folder and default settings, instead of
    /// using --server.
    #[arg(long)]
    embedded: bool,
    /// Plugin folder of the embedded daemon.
    #[arg(long, value_name = "FOLDER", default_value = "plugins")]
    plugins: PathBuf,
    /// Draw latency and throughput as an SVG picture.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Do not ask before loading a daemon that is not on this machine.
    #[arg(long)]
    yes: bool,
    /// Instead of a load: cancel and delete the tasks of earlier runs.
    #[arg(long, conflicts_with_all = ["tasks", "rate", "embedded", "svg", "via"])]
    clean: bool,
    /// With --clean: only the tasks of this run.
    #[arg(long, requires = "clean", value_name = "RUN")]
    run: Option<String>,
    #[command(flatten)]
    server: Server,
}

/// How tasks are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Via {
    /// `POST /v1/tasks/batch`.
    Http,
    /// Published with confirms.
    Amqp,
}

impl Via {
    fn name(self) -> &'static str {
        match self {
            Via::Http => "http",
            Via::Amqp => "amqp",
        }
    }
}

/// Everything that a run knows before it starts.
pub(super) struct Plan {
    run: String,
    shape: Shape,
    plugin: String,
    input: String,
    queue: Option<String>,
    via: Via,
    batch: usize,
    in_flight: Option<u64>,
    patience: std::time::Duration,
}

impl Bench {
    pub async fn run(self, file: Option<PathBuf>) -> Result<(), Failed> {
        if self.clean {
            target::confirm(&self.server.server, self.yes, "delete bench tasks on")?;
            return clean::clean(&Client::new(&self.server)?, self.run.as_deref(), self.patience.0, self.server.json)
                .await;
        }
        tokio::select! {
            done = self.load(file) => done,
            signal = interrupted() => Err(Failed::task(format!("interrupted by {signal}; remove the tasks with `agentry bench --clean`"))),
        }
    }

    async fn load(&self, file: Option<PathBuf>) -> Result<(), Failed> {
        let plan = self.plan()?;
        let mut server = Server { server: self.server.server.clone(), json: self.server.json };
        let embedded = match self.embedded {
            true if self.via == Via::Amqp => {
                return Err(Failed::usage("--embedded has no AMQP broker; use --via http"));
            }
            true => {
                let embedded = Embedded::start(&self.plugins).await?;
                server.server = embedded.address.clone();
                Some(embedded)
            }
            false => {
                target::confirm(&server.server, self.yes, "put a load on")?;
                None
            }
        };
        let client = Client::new(&server)?;
        let sender = send::Sender::open(&plan, &client, file, self.yes).await?;
        let measured =
            watch::measure(&plan, &client, &sender, embedded.as_ref().map(Embedded::pid), &server.server).await;
        sender.close().await;
        let report = Report::new(&plan, &server.server, embedded.is_some(), measured?);
        if let Some(embedded) = embedded {
            embedded.stop().await;
        }
        if let Some(path) = &self.svg {
            std::fs::write(path, svg::draw(&report))
                .map_err(|e| Failed::usage(format!("failed to write {}: {e}", path.display())))?;
        }
        match server.json {
            true => output::json(&report.json())?,
            false => output::data(&report.text())?,
        }
        report.verdict()
    }

    fn plan(&self) -> Result<Plan, Failed> {
        let input = match &self.input {
            Some(argument) => input::read(argument)?.get().to_owned(),
            None => TEXT.to_owned(),
        };
        let shape = match (self.rate, self.duration) {
            (Some(rate), Some(Seconds(duration))) => Shape::rate(rate, duration)?,
            _ => Shape::Flood { tasks: self.tasks.into() },
        };
        Ok(Plan {
            // Ids grow with time, so the last digits tell two runs apart.
            run: Uuid::now_v7().simple().to_string(),
            shape,
            plugin: self.plugin.clone(),
            input,
            queue: self.queue.clone(),
            via: self.via,
            batch: self.batch as usize,
            in_flight: self.in_flight.map(u64::from),
            patience: self.patience.0,
        })
    }
}

/// Returns the name of the signal that asks this program to end.
async fn interrupted() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}
