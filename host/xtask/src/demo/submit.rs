//! How tasks get in: over HTTP, or published by a plain AMQP client that knows nothing of Agentry.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::daemon::{Around, Daemon};
use super::documents::Task;
use crate::process::{self, Read, Terms};
use crate::services::Services;

/// Submits everything, and says by what.
pub fn all(around: &Around<'_>, daemon: &Daemon, tasks: &[Task]) -> anyhow::Result<&'static str> {
    match around {
        Around::Embedded => {
            let bodies: Vec<Value> = tasks.iter().map(Task::body).collect();
            daemon.api().post("/v1/tasks/batch", &json!({"tasks": bodies}))?;
            Ok("one HTTP batch")
        }
        Around::Services { services, publisher } => {
            publish(services, publisher, tasks)?;
            Ok("a plain AMQP client, each confirmed")
        }
    }
}

fn publish(services: &Services, publisher: &Path, tasks: &[Task]) -> anyhow::Result<()> {
    let mut messages = tempfile::NamedTempFile::new().context("failed to make a file")?;
    let mut writer = BufWriter::new(File::create(messages.path()).context("failed to open a file")?);
    for task in tasks {
        writeln!(writer, "{}", task.body()).context("failed to write the messages")?;
    }
    writer.flush().context("failed to write the messages")?;
    messages.flush().context("failed to write the messages")?;
    let mut command = Command::new(publisher);
    command.args(["agentry", "default"]).arg(messages.path());
    command.env("PLAIN_PUBLISH_URL", &services.amqp_url);
    let mut confirmed = 0;
    let status = process::read(&command, &Terms::default(), Read::Stdout, |_| confirmed += 1)?;
    ensure!(
        status.success() && confirmed == tasks.len(),
        "failed to publish: {confirmed} of {} confirmed",
        tasks.len()
    );
    Ok(())
}
