//! Chaos: three daemons under constant load, and faults at random, each one repeatable from its seed. When all is at rest
//! again, nothing may be lost and nothing doubled.
//!
//! ```text
//! run ─▶ schedule (seed ─▶ faults)      pure
//!  ├──▶ load                            a plain producer; what was confirmed is promised
//!  ├──▶ watch                           what had ended while faults were at work
//!  ├──▶ stage                           broker, database, daemons, ways between them; every fault is one method
//!  └──▶ verdict                         what is true at the end: the invariants, and what it cost
//! soak: the same stage and load without faults, memory and files sampled
//! ```

mod load;
mod report;
mod schedule;
pub mod soak;
mod stage;
mod verdict;
mod watch;

pub use report::Report;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use self::load::Load;
use self::report::Struck;
use self::stage::Stage;
use self::watch::Watch;

/// What a run must reach to count.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// Tasks that ended.
    pub tasks: usize,
    /// Faults of each kind that hit work in flight.
    pub each: usize,
}

/// A run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long faults happen. Then they stop, and all comes to rest.
    pub length: Duration,
    /// Decides which faults, on whom, and when.
    pub seed: u64,
    /// Tasks a second.
    pub rate: u32,
    /// What it takes to count.
    pub bar: Bar,
}

impl Plan {
    /// The short one, which is part of every test run: every fault at least once.
    pub fn short(seed: u64) -> Self {
        Self { length: Duration::from_secs(45), seed, rate: 25, bar: Bar { tasks: 500, each: 1 } }
    }

    /// The one that counts.
    pub fn full(length: Duration, seed: u64, rate: u32) -> Self {
        Self { length, seed, rate, bar: Bar { tasks: 50_000, each: 10 } }
    }
}

/// Runs it to its end. A fault under way when the time is up is finished, and a short plan's first round as well: a slow
/// machine takes longer, and shows no less.
pub async fn run(plan: Plan) -> Report {
    let mut stage = Stage::open(3, true).await;
    let load = Load::start(&stage, plan.rate, plan.seed);
    let watch = Watch::start(&stage);
    let began = Instant::now();
    let mut struck = Struck::default();
    for step in schedule::steps(plan.seed) {
        let bar_is_open = plan.bar.each == 1 && struck.least() < plan.bar.each && began.elapsed() < 4 * plan.length;
        if began.elapsed() >= plan.length && !bar_is_open {
            break;
        }
        tokio::time::sleep(step.pause).await; // faults come at times of their own: that is the test
        progress(&format!(
            "{:>4} s  {} ended of {} promised  {} faults  next {}",
            began.elapsed().as_secs(),
            load.ended(),
            load.promised(),
            struck.total(),
            step.fault.name()
        ));
        let hit = stage.strike(step).await;
        struck.enter(step.fault, hit);
    }
    stage.calm().await;
    progress("faults are over; waiting for rest");
    let ids = load.finish().await;
    let report = verdict::reach(stage, plan, began, struck, ids, watch.finish()).await;
    progress("");
    report
}

/// One line that is written over on a terminal; nothing in a pipe.
fn progress(line: &str) {
    let mut errors = std::io::stderr();
    if errors.is_terminal() {
        let _ = write!(errors, "\r\x1b[K{line}").and_then(|()| errors.flush()); // nobody looks any more
    }
}
