//! `agentry bench`: puts a load of a given shape on a daemon and reports throughput, latency and cost.
//!
//! ```text
//! target ─▶ send ─▶ watch ─▶ report ─▶ table | JSON | svg
//! (ask, or embedded) (HTTP or AMQP) (counters, then rows once)
//! ```

mod check;
mod clean;
mod embedded;
mod legs;
mod numbers;
mod options;
mod plot;
mod reasons;
mod report;
mod resources;
mod rows;
mod send;
mod shape;
mod stats;
mod stop;
mod svg;
mod target;
mod watch;

pub use self::options::Bench;

use self::embedded::Embedded;
use self::options::Via;
use self::report::Report;
use self::shape::{Seconds, Shape};
use self::stop::Stop;
use super::client::Client;
use super::{Failed, input, output};
use std::path::PathBuf;
use uuid::Uuid;

/// The text that is counted unless `--input` gives another.
const TEXT: &str = r#"{"text":"the quick brown fox jumps over the lazy dog"}"#;

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
        if self.embedded && self.via == Via::Amqp {
            return Err(Failed::usage("--embedded has no AMQP broker; use --via http"));
        }
        if self.embedded && file.is_some() {
            return Err(Failed::usage("--config has no effect with --embedded, which uses default settings; omit it"));
        }
        let client = |server| Client::new(&server).map(|client| client.patient(self.patience.0, "--patience"));
        if self.clean {
            let client = client(self.server())?;
            target::confirm(client.address(), self.yes, "delete bench tasks on")?;
            return clean::clean(&client, self.run.as_deref(), self.json).await;
        }
        // Whatever may ask a person or read standard input comes before signals are taken from their default.
        let plan = self.plan()?;
        let mut server = self.server();
        if !self.embedded {
            target::confirm(client(self.server())?.address(), self.yes, "put a load on")?;
        }
        let route = send::route(&plan, file, self.yes)?;
        let mut stop = Stop::listen()?;
        let embedded = match self.embedded {
            true => Some(stop.unless(Embedded::start(&self.plugins)).await?),
            false => None,
        };
        if let Some(embedded) = &embedded {
            server.server.clone_from(&embedded.address);
        }
        let client = client(server)?;
        let loaded = self.load(&plan, &client, route, embedded.as_ref(), &mut stop).await;
        if let Some(embedded) = embedded {
            // A signal now ends it at once.
            let _ = stop
                .unless(async {
                    embedded.stop().await;
                    Ok(())
                })
                .await;
        }
        let (report, asked) = loaded?;
        match self.json {
            true => output::json(&report.json())?,
            false => output::data(&report.text())?,
        }
        if let Some(path) = &self.svg {
            std::fs::write(path, svg::draw(&report))
                .map_err(|e| Failed::usage(format!("failed to write {} (--svg): {e}", path.display())))?;
        }
        match asked {
            Some(asked) => Err(asked.failed(&self.left(&plan, &client))),
            None => report.verdict(),
        }
    }

    /// Sends the load and measures it. Returns what ended it early, too.
    async fn load(
        &self,
        plan: &Plan,
        client: &Client,
        route: Option<crate::config::Settings>,
        embedded: Option<&Embedded>,
        stop: &mut Stop,
    ) -> Result<(Report, Option<stop::Asked>), Failed> {
        let sender = stop.unless(send::Sender::open(plan, client, route)).await?;
        let progress = send::Progress::default();
        let measured = watch::measure(plan, client, &sender, embedded.map(Embedded::pid), &progress, stop).await;
        let _ = stop
            .unless(async {
                sender.close().await;
                Ok(())
            })
            .await;
        output::progress("");
        let measured = measured.map_err(|failed| match progress.begun.get() {
            Some(_) => Failed { message: failed.message + &self.left(plan, client), ..failed },
            None => failed,
        })?;
        let asked = measured.interrupted;
        Ok((Report::new(plan, client.address(), embedded.is_some(), sender.batch(), measured), asked))
    }

    /// What a person does about the tasks of a run that ended early.
    fn left(&self, plan: &Plan, client: &Client) -> String {
        match self.embedded {
            true => format!("; the tasks of run {} were deleted with the embedded daemon", plan.run),
            false => format!(
                "; tasks of run {} may still wait or run; delete them with: {}",
                plan.run,
                stop::remedy(&plan.run, client.address())
            ),
        }
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
