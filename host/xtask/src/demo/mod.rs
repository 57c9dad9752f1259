//! `cargo xtask demo`: real documents through real plugins, agents that answer questions about them, hostile guests among them,
//! and a kill in the middle.
//!
//! ```text
//! documents ─▶ submit (HTTP, or plain AMQP) ─▶ half have ended ─▶ SIGKILL ─▶ the same again ─▶ all have ended ─▶ report
//! ```

mod agents;
mod api;
mod daemon;
mod documents;
mod report;
mod stand_in;
mod submit;
mod timeline;
mod watch;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;

use self::daemon::{Around, Daemon};
use self::report::Report;
use self::timeline::Times;
use self::watch::Watch;
use crate::guard::StopSignal;
use crate::{Ending, guests, host, services, signals, talk};

/// How long everything may take to end, kill included. A slow machine under load needs a part of it.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(clap::Args)]
pub struct Args {
    /// Over a private RabbitMQ and PostgreSQL instead of embedded, published by a plain AMQP client.
    #[arg(long)]
    services: bool,
    /// As root on Debian, with --services: install PostgreSQL and RabbitMQ if they are missing.
    #[arg(long, requires = "services")]
    install: bool,
    /// At most so many documents.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u16).range(10..=2000))]
    documents: u16,
    #[command(flatten)]
    model: agents::Model,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let found = args.services.then(|| services::find(args.install)).transpose()?; // before minutes of building
    if !host::was_built()? {
        println!("build: the first one takes some minutes (about 4 on two cores); later ones take seconds");
    }
    let binary = build()?;
    let publisher = match args.services {
        true => Some(talk::phase(
            "build",
            "a plain AMQP publisher",
            || host::build("plain-publish"),
            |binary| binary.display().to_string(),
        )?),
        false => None,
    };
    let services = found
        .map(|found| talk::phase("services", "starting", || found.start(), |services| services.description.clone()))
        .transpose()?;
    let around = match (&services, &publisher) {
        (Some(services), Some(publisher)) => Around::Services { services, publisher },
        _ => Around::Embedded,
    };
    let folder = tempfile::Builder::new().prefix("agentry-demo-").tempdir().context("failed to make a folder")?;
    let (daemon, good) = show(args, &around, &binary, folder.path())?;
    if good && talk::watched() {
        println!("\nthe daemon is still up at {}; Ctrl-C ends it", daemon.address());
        signals::wait();
    }
    drop(daemon);
    if good { Ok(()) } else { Err(Ending::Failed.into()) }
}

/// Builds the plugins and the daemon at the same time: the daemon's last crates wait for one another and leave processors free.
fn build() -> anyhow::Result<PathBuf> {
    std::thread::scope(|scope| {
        let components = scope.spawn(|| guests::build(&[], guests::Pace::Beside));
        let daemon = || host::build("agentry");
        let binary = talk::phase("build", "the daemon, and the plugins beside it", daemon, |binary| {
            binary.display().to_string()
        });
        let components = || components.join().unwrap_or_else(|_| anyhow::bail!("the build of the plugins panicked"));
        talk::phase("plugins", "waiting for their build", components, |built| format!("{} components", built.len()))?;
        binary
    })
}

/// The show itself. Answers with the daemon, still up, and whether all went as it must.
fn show(args: &Args, around: &Around<'_>, binary: &Path, folder: &Path) -> anyhow::Result<(Daemon, bool)> {
    let mut tasks = documents::gather(usize::from(args.documents))?;
    let hostile = tasks.iter().filter(|task| task.is_hostile()).count();
    let documents = tasks.len() - hostile;
    let world = agents::World::start(&args.model)?;
    world.join(&mut tasks)?;
    let asked = tasks.len() - hostile - documents;
    println!("tasks: {documents} documents, {asked} agents with questions and {hostile} hostile guests among them");
    let setup = daemon::Setup::write(folder, binary, around, world.settings())?;
    // Whatever ends the first one, ends it like this.
    let daemon = start(&setup, StopSignal::Kill, "starting")?;

    let (began, at_begin) = (Instant::now(), SystemTime::now());
    let submitting = submit::all(around, &daemon, &tasks)?;
    println!("submitted: {} by {submitting} in {}", tasks.len(), talk::seconds(began.elapsed()));
    let mut watch = Watch::new(&tasks, PATIENCE);
    let at_kill = watch.until(&daemon, tasks.len() / 2)?;

    drop(daemon);
    let (killed, since) = (SystemTime::now(), Instant::now());
    watch.say(&format!("killed: SIGKILL, when {at_kill} of {} had ended", tasks.len()));
    let daemon = start(&setup, StopSignal::Term, "starting again on the same data")?;
    let back = since.elapsed();
    watch.until(&daemon, tasks.len())?;
    watch.finish();
    let took = began.elapsed();

    let times = Times { began: at_begin.into(), killed: killed.into() };
    let report = Report::read(&daemon, &tasks, &setup.log()?, times)?;
    print!("\n{}", report.summary(took, back));
    print!("{}", report.results());
    println!("agents (the model: {}):", world.model());
    print!("{}", report.agents());
    print!("{}", report.hostile());
    print!("{}", report.timeline());
    print!("{}", report.verdict());
    Ok((daemon, report.is_good()))
}

fn start(setup: &daemon::Setup, stop: StopSignal, what: &str) -> anyhow::Result<Daemon> {
    talk::phase("daemon", what, || setup.start(stop), |daemon| format!("ready at {}", daemon.address()))
}

/// The tasks' count that a person reads: `1 task`, `2 tasks`.
fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_count_is_written_as_a_person_writes_it() {
        assert_eq!(super::count(1, "task"), "1 task");
        assert_eq!(super::count(0, "task"), "0 tasks");
    }
}
