//! How far it is: a bar on a terminal, a line now and then elsewhere.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};

use super::daemon::Daemon;
use super::documents::Task;
use crate::{signals, talk};

/// Looks at the daemon until enough tasks have ended.
pub struct Watch {
    ids: BTreeSet<String>,
    bar: ProgressBar,
    deadline: Instant,
}

impl Watch {
    /// A look at these tasks, which must all have ended within `patience`.
    pub fn new(tasks: &[Task], patience: Duration) -> Self {
        let bar = if talk::watched() { ProgressBar::new(tasks.len() as u64) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("tasks: {bar:40} {pos} of {len} have ended ({elapsed})");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let ids = tasks.iter().map(|task| task.id.to_string()).collect();
        Self { ids, bar, deadline: Instant::now() + patience }
    }

    /// Returns when at least `enough` have ended, with their number.
    pub fn until(&mut self, daemon: &Daemon, enough: usize) -> anyhow::Result<usize> {
        loop {
            signals::check()?;
            let tasks = daemon.api().tasks(false)?;
            let ours = tasks.iter().filter(|task| task["id"].as_str().is_some_and(|id| self.ids.contains(id)));
            let ended = ours.filter(|task| !task["finished_at"].is_null()).count();
            self.bar.set_position(ended as u64);
            if ended >= enough {
                return Ok(ended);
            }
            if Instant::now() > self.deadline {
                bail!("failed to see all tasks end: {ended} of {} have", self.ids.len());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A line beside the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }

    /// The bar goes.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
