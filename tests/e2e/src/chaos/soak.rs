//! The soak: the same load without faults, for as long as so many tasks take; memory, open files and dead tuples sampled.

use std::fmt;
use std::time::{Duration, Instant};

use super::load::Load;
use super::progress;
use super::stage::Stage;
use crate::database::Database;

/// Between two samples, at most.
const EVERY: Duration = Duration::from_secs(1);

/// One look at everything.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// Resident memory of all daemons together, in KiB.
    memory: u64,
    /// Their open files.
    files: u64,
    /// Dead tuples per hundred live ones, over all tables of tasks, events, outbox and hosts.
    dead: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Soaked {
    tasks: usize,
    lost: usize,
    took: Duration,
    samples: Vec<Sample>,
}

/// Runs so many tasks.
pub async fn run(tasks: usize, rate: u32) -> Soaked {
    let stage = Stage::open(3, false).await;
    let load = Load::limited(&stage, rate, tasks);
    let database = stage.site.database().await;
    let began = Instant::now();
    let mut samples = Vec::new();
    let (mut ended, mut moved) = (0, Instant::now());
    while !load.is_done() && moved.elapsed() < crate::patience() {
        if load.ended() != ended {
            (ended, moved) = (load.ended(), Instant::now());
        }
        samples.push(sample(&stage, &database).await);
        progress(&format!("{:>4} s  {ended} ended of {tasks}", began.elapsed().as_secs()));
        tokio::time::sleep(EVERY).await;
    }
    let took = began.elapsed();
    let (promised, ended) = (load.promised(), load.ended());
    let ids = load.finish().await.ids;
    progress("");
    let mut violations = Vec::new();
    let _stage = stage.stopped(&mut violations).await;
    let lost = promised.saturating_sub(ended).max(tasks.saturating_sub(ids.len())) + violations.len();
    Soaked { tasks: ids.len(), lost, took, samples }
}

async fn sample(stage: &Stage, database: &Database) -> Sample {
    let mut sample = Sample::default();
    for actor in &stage.actors {
        let process = format!("/proc/{}", actor.daemon.pid());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap_or_default();
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        sample.memory += resident.unwrap_or(0_u64);
        sample.files += std::fs::read_dir(format!("{process}/fd")).map_or(0, |files| files.count() as u64);
    }
    let dead = "SELECT (100 * sum(n_dead_tup) / greatest(sum(n_live_tup), 1))::bigint FROM pg_stat_user_tables";
    sample.dead = database.number(dead).await.map_or(0, i64::unsigned_abs);
    sample
}

impl Soaked {
    /// Medians of the first and of the last quarter.
    fn quarters(&self, of: impl Fn(&Sample) -> u64) -> (u64, u64) {
        let median = |samples: &[Sample]| {
            let mut values: Vec<_> = samples.iter().map(&of).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        let quarter = self.samples.len().div_ceil(4);
        (median(&self.samples[..quarter]), median(&self.samples[self.samples.len() - quarter..]))
    }

    /// Whether nothing grew: memory by a tenth and 24 MiB at most, files by 12, dead tuples stay below a third of the live.
    pub fn is_flat(&self) -> bool {
        let (memory, files, dead) =
            (self.quarters(|s| s.memory), self.quarters(|s| s.files), self.quarters(|s| s.dead));
        memory.1 <= memory.0 + memory.0 / 10 + (24 << 10) && files.1 <= files.0 + 12 && dead.1 <= 33
    }

    /// Whether all ended.
    pub fn is_complete(&self) -> bool {
        self.lost == 0
    }
}

impl fmt::Display for Soaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.tasks as f64 / self.took.as_secs_f64().max(0.001);
        writeln!(
            f,
            "soak: {} tasks in {:.0} s ({rate:.0} a second), {} lost",
            self.tasks,
            self.took.as_secs_f64(),
            self.lost
        )?;
        writeln!(
            f,
            "  medians of the first and the last quarter of {} samples, three daemons together:",
            self.samples.len()
        )?;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, (first, last): (u64, u64), unit: &str| {
            writeln!(f, "  {name:<16} {first:>7} {last:>7} {unit}")
        };
        let (first, last) = self.quarters(|s| s.memory);
        line(f, "memory", (first >> 10, last >> 10), "MiB resident")?;
        line(f, "files", self.quarters(|s| s.files), "open")?;
        line(f, "dead tuples", self.quarters(|s| s.dead), "per hundred live ones")?;
        write!(f, "{}", if self.is_flat() { "flat" } else { "not flat" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soaked(memory: impl Fn(u64) -> u64, files: impl Fn(u64) -> u64) -> Soaked {
        let samples = (0..100).map(|n| Sample { memory: memory(n), files: files(n), dead: 1 }).collect();
        Soaked { tasks: 1, lost: 0, took: Duration::from_secs(1), samples }
    }

    #[test]
    fn what_grows_is_not_flat() {
        assert!(soaked(|_| 300 << 10, |_| 60).is_flat());
        assert!(!soaked(|n| (300 << 10) + n * 2_000, |_| 60).is_flat(), "memory");
        assert!(!soaked(|_| 300 << 10, |n| 60 + n).is_flat(), "files");
    }
}
