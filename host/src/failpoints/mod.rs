//! Faults on demand, for tests: this module exists only with the feature `failpoints`, in the binary `agentry-faulty`.
//!
//! The database, the broker and the plugins are wrapped ([`database`], [`broker`], [`catalog`]); at each step of a task's way
//! stands a named point. What is to happen there comes from the environment:
//!
//! ```text
//! AGENTRY_FAILPOINTS='s6.settled=abort@3;relay.publish=error@1x2;s4.entered[7f…]=abort'
//!                     point  action  at the third hit, once    for that task alone, every time
//! ```
//!
//! Actions: `abort` (SIGKILL to this very process: nothing is flushed), `error` (the call does not happen and says so),
//! `commit-then-error` (it happens, and its answer is lost), `hang` (for ever), `hang:MS` and `panic`.
//!
//! `AGENTRY_LEDGER=FILE`: the moment a guest logs for the first time in a run, one line is appended to that file by one
//! write: the log of side effects that neither database nor broker has a part in. A guest that says nothing is not in it.
//!
//! `AGENTRY_WITHOUT=memory,http_grant`: the host without these of its defences (`agentry_defence::Defence`), to show that each is
//! missed.

mod broker;
mod catalog;
mod database;

use crate::broker::Broker;
use crate::db::Db;
use crate::registry::{Catalog, Runner};
use rustix::process::{Signal, getpid, kill_process};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// The variables, which only this build knows.
pub const VARIABLES: [&str; 3] = ["AGENTRY_FAILPOINTS", "AGENTRY_LEDGER", "AGENTRY_WITHOUT"];

/// Every point there is, in the order of a task's way.
pub const POINTS: [&str; 36] = [
    "s0.received",
    "s1.decoded",
    "s2.claim",
    "s3.claimed",
    "s4.entered",
    "s4.ended",
    "s5.settle",
    "s6.settled",
    "s5.record",
    "s6.recorded",
    "s7.acknowledge",
    "s7.acknowledged",
    "submit.before",
    "submit.after",
    "relay.take",
    "relay.taken",
    "relay.publish",
    "relay.published",
    "relay.drop",
    "relay.dropped",
    "rescue.before",
    "rescue.after",
    "wake.before",
    "wake.after",
    "dead.record",
    "dead.recorded",
    "dead.publish",
    "dead.published",
    "redrive.begin",
    "redrive.begun",
    "redrive.publish",
    "redrive.published",
    "redrive.end",
    "redrive.ended",
    "lease.renew",
    "lease.renewed",
];

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL to this process.
    Abort,
    /// It does not happen.
    Error,
    /// It happens, and its answer is lost.
    CommitThenError,
    /// For so long; `None`: for ever.
    Hang(Option<Duration>),
    /// The host's own code panics, on the thread that came here.
    Panic,
}

/// One rule of `AGENTRY_FAILPOINTS`.
#[derive(Debug)]
struct Rule {
    point: String,
    /// Only where this stands in the subject: a task's id, or a plugin's name.
    subject: Option<String>,
    action: Action,
    from: u64,
    times: u64,
    hits: AtomicU64,
}

impl Rule {
    fn parse(text: &str) -> Result<Rule, String> {
        let (point, action) = text.split_once('=').ok_or_else(|| format!("{text:?} is no POINT=ACTION"))?;
        let (point, subject) = match point.split_once('[') {
            Some((point, subject)) => (point, Some(subject.trim_end_matches(']').to_owned())),
            None => (point, None),
        };
        if !POINTS.contains(&point) {
            return Err(format!("{point:?} is no point; there are {}", POINTS.join(", ")));
        }
        let (action, when) = action.split_once('@').map_or((action, None), |(action, when)| (action, Some(when)));
        let (from, times) = match when {
            None => (1, u64::MAX),
            Some(when) => {
                let (from, times) = when.split_once('x').unwrap_or((when, "1"));
                let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is no number of hits"));
                (number(from)?, number(times)?)
            }
        };
        let action = match action.split_once(':').unwrap_or((action, "")) {
            ("abort", "") => Action::Abort,
            ("error", "") => Action::Error,
            ("commit-then-error", "") => Action::CommitThenError,
            ("hang", "") => Action::Hang(None),
            ("panic", "") => Action::Panic,
            ("hang", ms) => {
                let ms = ms.parse().map_err(|_| format!("{ms:?} is no number of milliseconds"))?;
                Action::Hang(Some(Duration::from_millis(ms)))
            }
            _ => return Err(format!("{action:?} is no action")),
        };
        Ok(Rule { point: point.to_owned(), subject, action, from, times, hits: AtomicU64::new(0) })
    }

    fn fires(&self, point: &str, subject: &str) -> bool {
        if self.point != point || self.subject.as_deref().is_some_and(|wanted| !subject.contains(wanted)) {
            return false;
        }
        let hit = self.hits.fetch_add(1, Ordering::Relaxed) + 1;
        hit >= self.from && hit - self.from < self.times
    }
}

static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
static LEDGER: OnceLock<Option<File>> = OnceLock::new();
/// Redrives that have begun and are about to be published: nothing else tells them from what the relay publishes.
static REDRIVES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// What is to happen at a point now, for this subject. Said before it happens, so that a test knows that it did.
fn action(point: &'static str, subject: &str) -> Option<Action> {
    let rules = RULES.get_or_init(|| {
        let text = std::env::var(VARIABLES[0]).unwrap_or_default();
        let rules = text.split(';').map(str::trim).filter(|rule| !rule.is_empty()).map(Rule::parse);
        rules.collect::<Result<_, _>>().unwrap_or_else(|error| {
            crate::telemetry::say(&format!("agentry: {}: {error}", VARIABLES[0]));
            std::process::exit(2)
        })
    });
    let rule = rules.iter().find(|rule| rule.fires(point, subject))?;
    // Not through the log, which is written by a thread that dies with this process.
    let _ = std::io::stderr().write_all(format!("failpoint {point} {:?}\n", rule.action).as_bytes());
    match rule.action {
        Action::Abort => abort(),
        Action::Panic => panic!("failpoint {point}"),
        _ => {}
    }
    Some(rule.action)
}

/// End as a killed process ends: at once, with nothing flushed and nobody told.
fn abort() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    loop {
        std::thread::park();
    }
}

/// Before a call. `Err`: it is not to happen.
async fn before(point: &'static str, subject: &str) -> Result<Option<Action>, String> {
    match action(point, subject) {
        Some(Action::Error) => Err(format!("failpoint {point}")),
        Some(Action::Hang(time)) => {
            hang(time).await;
            Ok(None)
        }
        other => Ok(other),
    }
}

/// After a call. `Err`: its answer is lost.
async fn after(point: &'static str, subject: &str, asked: Option<Action>) -> Result<(), String> {
    match asked.or_else(|| action(point, subject)) {
        Some(Action::CommitThenError | Action::Error) => Err(format!("failpoint {point}: the answer is lost")),
        Some(Action::Hang(time)) => {
            hang(time).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn hang(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

fn redrives() -> MutexGuard<'static, BTreeSet<String>> {
    REDRIVES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Append a line to the ledger, if there is one.
fn effect(line: &str) {
    let ledger = LEDGER.get_or_init(|| {
        let path = std::env::var_os(VARIABLES[1]).filter(|path| !path.is_empty())?;
        let opened = OpenOptions::new().append(true).create(true).open(path);
        Some(opened.unwrap_or_else(|error| {
            crate::telemetry::say(&format!("agentry: {}: {error}", VARIABLES[1]));
            std::process::exit(2)
        }))
    });
    if let Some(mut file) = ledger.as_ref() {
        // One write, appended: lines of several processes do not mix, and a kill after it loses nothing.
        let written = file.write_all(format!("{line}\n").as_bytes());
        if let Err(error) = written {
            crate::telemetry::say(&format!("agentry: the ledger cannot be written: {error}"));
            abort();
        }
    }
}

/// The database, with points.
pub fn database(inner: Arc<dyn Db>) -> Arc<dyn Db> {
    Arc::new(database::Faulty(inner))
}

/// The broker, with points.
pub fn broker(inner: Arc<dyn Broker>) -> Arc<dyn Broker> {
    Arc::new(broker::Faulty(inner))
}

/// The plugins, with points and the ledger.
pub fn catalog(inner: Arc<dyn Catalog>) -> Arc<dyn Catalog> {
    Arc::new(catalog::Faulty(inner))
}

/// One plugin, with points and the ledger.
pub fn runner(inner: Arc<dyn Runner>) -> Arc<dyn Runner> {
    Arc::new(catalog::FaultyRunner(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(rule: &str, subject: &str) -> Vec<bool> {
        let rule = Rule::parse(rule).unwrap();
        (0..5).map(|_| rule.fires("s5.settle", subject)).collect()
    }

    #[test]
    fn a_rule_fires_where_and_when_it_says() {
        assert_eq!(fired("s5.settle=abort", ""), [true; 5]);
        assert_eq!(fired("s5.settle=error@2", ""), [false, true, false, false, false]);
        assert_eq!(fired("s5.settle=error@2x3", ""), [false, true, true, true, false]);
        assert_eq!(fired("s6.settled=error", ""), [false; 5]);
        assert_eq!(fired("s5.settle[abc]=error", "an abc"), [true; 5]);
        assert_eq!(fired("s5.settle[abc]=error", "another"), [false; 5]);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for bad in ["s5.settle", "s9.what=abort", "s5.settle=explode", "s5.settle=error@x", "s5.settle=hang:long"] {
            assert!(Rule::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Rule::parse("s5.settle=hang:20").unwrap().action, Action::Hang(Some(Duration::from_millis(20))));
    }
}
