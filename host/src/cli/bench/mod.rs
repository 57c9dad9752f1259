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
mod picture;
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
use self::picture::Picture;
use self::report::Report;
use self::shape::{Seconds, Shape};
use self::stop::{Early, Stop};
use self::watch::Measured;
use super::client::Client;
use super::{Failed, input, output};
use crate::api::new_run;
use std::path::PathBuf;

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
            return clean::clean(&client, self.run.as_deref(), self.json, &mut Stop::listen()?).await;
        }
        // Whatever may ask a person or read standard input comes before signals are taken from their default.
        let plan = self.plan()?;
        let mut server = self.server();
        if !self.embedded {
            target::confirm(client(self.server())?.address(), self.yes, "put a load on")?;
        }
        let route = send::route(&plan, file, self.yes)?;
        let mut stop = Stop::listen()?;
        let picture = self.svg.as_deref().map(Picture::open).transpose()?;
        let mut embedded = match self.embedded {
            true => Some(stop.unless(Embedded::start(&self.plugins)).await?),
            false => None,
        };
        if let Some(embedded) = &embedded {
            server.server.clone_from(&embedded.address);
        }
        let client = client(server)?;
        let loaded = self.load(&plan, &client, route, embedded.as_mut(), &mut stop).await;
        if let Some(embedded) = embedded {
            // A signal now ends it at once.
            let _ = stop
                .unless(async {
                    embedded.stop().await;
                    Ok(())
                })
                .await;
        }
        let (report, early) = loaded?;
        match self.json {
            true => output::json(&report.json())?,
            false => output::data(&report.text())?,
        }
        let drawn = picture.map_or(Ok(()), |picture| picture.write(&svg::draw(&report)));
        match (early, drawn) {
            (Some(early), Ok(())) => Err(early),
            // The command that deletes the tasks is needed in any case.
            (Some(Failed { code, message }), Err(drawn)) => {
                Err(Failed { code, message: format!("{message}; {}", drawn.message) })
            }
            (None, drawn) => drawn.and_then(|()| report.verdict()),
        }
    }

    /// Sends the load and measures it. Returns the end of the program, too, if something ended the run early.
    async fn load(
        &self,
        plan: &Plan,
        client: &Client,
        route: Option<crate::config::Settings>,
        embedded: Option<&mut Embedded>,
        stop: &mut Stop,
    ) -> Result<(Report, Option<Failed>), Failed> {
        let sender = stop.unless(send::Sender::open(plan, client, route)).await?;
        let progress = send::Progress::default();
        let child = embedded.as_deref().map(Embedded::pid);
        let mut measured = watch::measure(plan, client, &sender, child, &progress, stop).await;
        let _ = stop
            .unless(async {
                sender.close().await;
                Ok(())
            })
            .await;
        output::progress("");
        if let Some(embedded) = embedded
            && let Err(failed) | Ok(Measured { early: Some(Early::Failed(failed)), .. }) = &mut measured
        {
            embedded.explain(failed).await;
        }
        let left = self.left(plan, client, &progress);
        let mut measured = measured.map_err(|failed| match progress.begun.get() {
            Some(_) => Failed { message: failed.message + &left, ..failed },
            None => failed,
        })?;
        let why = measured.early.as_ref().map(|early| (early.signal(), early.error().map(str::to_owned)));
        let end = measured.early.take().map(|early| early.failed(&left));
        let mut report = Report::new(plan, client.address(), self.embedded, sender.batch(), measured);
        (report.interrupted, report.error) = why.unwrap_or_default();
        Ok((report, end))
    }

    /// What a person does about the tasks of a run that ended early.
    fn left(&self, plan: &Plan, client: &Client, progress: &send::Progress) -> String {
        if !progress.may_exist() {
            return "; no task was accepted".to_owned();
        }
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
            run: new_run(),
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
