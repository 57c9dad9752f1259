//! Everything that an operator checks first: settings, services, plugins, machine and hosts, each as a named check with its facts and
//! the remedy of each finding.
//!
//! Each file asks for the facts of one part and judges them. The judgement is pure. Nothing is made or changed. All parts are asked
//! at once, and each question has its own bound, so the whole ends within [`LONGEST`], whatever hangs.
//!
//! `host/docs/doctor.md` lists the checks; a test holds it to [`CHECKS`].

mod broker;
mod daemon;
mod database;
mod hosts;
mod machine;
mod management;
mod outside;
mod plugins;
mod settings;
#[cfg(test)]
mod tests;

pub use daemon::Daemon;

use crate::broker::Broker as _;
use crate::config::{ConfigError, Settings};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, LocalBoxFuture, join_all};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The time that one question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time after which a part is given up whose questions did not end by themselves.
const PART: Duration = Duration::from_secs(14);
/// The time that everything takes at most.
pub const LONGEST: Duration = Duration::from_secs(15);

/// Every check, in the order of the output.
pub const CHECKS: [&str; 24] = [
    "settings",
    "api",
    "database.connection",
    "database.schema",
    "database.clock",
    "database.connections",
    "database.tables",
    "database.indexes",
    "database.transactions",
    "database.file",
    "broker.connection",
    "broker.topology",
    "broker.queues",
    "broker.management",
    "plugins",
    "grants",
    "outside.providers",
    "outside.tools",
    "machine.disk",
    "machine.files",
    "machine.memory",
    "hosts",
    "tasks",
    "daemon",
];

/// The result of a check, or the weight of a finding: the worst of the findings is the check's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Not checked, for the reason in the finding.
    Skipped,
    /// It works, and something needs attention.
    Warning,
    /// It does not work.
    Failed,
}

impl Status {
    /// The word in the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Skipped => "skipped",
            Status::Warning => "warning",
            Status::Failed => "failed",
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Finding {
    /// Its weight.
    pub status: Status,
    /// What was found, without a full stop.
    pub message: String,
    /// What to do; each warning and failure has one.
    pub remedy: Option<String>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Check {
    /// One of [`CHECKS`].
    pub name: &'static str,
    /// The worst of its findings.
    pub status: Status,
    /// One clause for a person.
    pub summary: String,
    /// What was found, in the order in which it was.
    pub findings: Vec<Finding>,
    /// What the findings follow from, for programs.
    pub facts: Value,
}

impl Check {
    fn new(name: &'static str, summary: impl Into<String>) -> Check {
        Check { name, status: Status::Ok, summary: summary.into(), findings: Vec::new(), facts: json!({}) }
    }

    /// Not checked.
    fn skipped(name: &'static str, reason: impl Into<String>) -> Check {
        let mut check = Check::new(name, "");
        check.find(Status::Skipped, reason.into(), None);
        check
    }

    /// Failed for one reason.
    fn failed(name: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Check {
        let mut check = Check::new(name, "");
        check.fail(message, remedy);
        check
    }

    fn with(mut self, facts: Value) -> Check {
        self.facts = facts;
        self
    }

    fn skip(&mut self, message: impl Into<String>, remedy: Option<&str>) {
        self.find(Status::Skipped, message.into(), remedy.map(str::to_owned));
    }

    fn warn(&mut self, message: impl Into<String>, remedy: impl Into<String>) {
        self.find(Status::Warning, message.into(), Some(remedy.into()));
    }

    fn fail(&mut self, message: impl Into<String>, remedy: impl Into<String>) {
        self.find(Status::Failed, message.into(), Some(remedy.into()));
    }

    fn find(&mut self, status: Status, message: String, remedy: Option<String>) {
        self.status = self.status.max(status);
        self.findings.push(Finding { status, message, remedy });
    }
}

/// All checks.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// The worst of all.
    pub status: Status,
    /// The build that asked.
    pub build: &'static str,
    /// The time of the question.
    pub at: DateTime<Utc>,
    /// The time that it took, in milliseconds.
    pub took_ms: u64,
    /// The settings file; `None`: there is none.
    pub file: Option<String>,
    /// Every check, in the order of [`CHECKS`].
    pub checks: Vec<Check>,
}

impl Report {
    /// How many checks ended like this.
    pub fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|check| check.status == status).count()
    }
}

/// What is asked about.
pub struct Subject {
    /// The settings; the error says why there are none.
    pub settings: Result<Settings, ConfigError>,
    /// The answer of the daemon at `--server`.
    pub daemon: BoxFuture<'static, Daemon>,
    /// Whether providers and tool servers are asked too (`--outside`).
    pub outside: bool,
}

/// Asks everything, and judges it.
pub async fn examine(subject: Subject) -> Report {
    let (at, began) = (Utc::now(), Instant::now());
    let Subject { settings, daemon, outside } = subject;
    let daemon = async { vec![daemon::judge(daemon.await)] }.boxed_local();
    let file = settings.as_ref().ok().and_then(|settings| settings.file.as_ref());
    let file = file.map(|file| file.display().to_string());
    let mut found = match &settings {
        Ok(settings) => {
            let parts = [
                async { vec![settings::judge(settings), settings::api(settings)] }.boxed_local(),
                services(settings).boxed_local(),
                plugins::checks(settings).boxed_local(),
                outside::checks(settings, outside).boxed_local(),
                machine::checks(settings).boxed_local(),
                daemon,
            ];
            together(parts.into()).await
        }
        Err(error) => {
            let mut found = together(vec![daemon]).await;
            found.push(settings::broken(error));
            found
        }
    };
    let unread = settings.is_err();
    let missing = |name| match unread {
        true => Check::skipped(name, "the settings cannot be read"),
        false => Check::failed(
            name,
            format!("the check did not end within {} s", PART.as_secs()),
            "run it again; if it hangs again, see what the machine or the services are busy with",
        ),
    };
    let mut named: BTreeMap<&str, Check> = found.drain(..).map(|check| (check.name, check)).collect();
    let checks: Vec<Check> =
        CHECKS.into_iter().map(|name| named.remove(name).unwrap_or_else(|| missing(name))).collect();
    Report {
        status: checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok),
        build: crate::daemon::BUILD,
        at,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        file,
        checks,
    }
}

/// The parts, at once; one that does not end in time has no checks.
async fn together(parts: Vec<LocalBoxFuture<'_, Vec<Check>>>) -> Vec<Check> {
    let bounded = parts.into_iter().map(|part| tokio::time::timeout(PART, part));
    join_all(bounded).await.into_iter().flatten().flatten().collect()
}

/// Database, broker and hosts: what each knows is compared with what the others know.
async fn services(settings: &Settings) -> Vec<Check> {
    let db = database::open(settings);
    let compared = async {
        let broker = broker::open(settings).await;
        let survey = broker::survey(settings, &db, &broker).await;
        let hosts = survey.database.as_ref().map(|recorded| recorded.hosts.as_slice()).unwrap_or_default();
        let of_broker = broker::checks(settings, &broker, &survey, hosts);
        let (of_broker, of_hosts) = tokio::join!(of_broker, hosts::checks(&db, &survey));
        if let Ok(broker) = broker {
            // It has nothing to lose: what is not closed in time ends with this process.
            let _ = tokio::time::timeout(Duration::from_millis(500), broker.close()).await;
        }
        [of_broker, of_hosts].concat()
    };
    let (of_database, compared) = tokio::join!(database::checks(settings, &db), compared);
    [of_database, compared].concat()
}

/// An answer, or the reason why there is none in time.
async fn within<T>(limit: Duration, question: impl Future<Output = T>) -> Result<T, String> {
    let late = |_| format!("no response within {} s", limit.as_secs_f32());
    tokio::time::timeout(limit, question).await.map_err(late)
}

/// Bytes for a person.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if value < 1_024.0 {
            return if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") };
        }
        value /= 1_024.0;
    }
    format!("{value:.1} TiB")
}

/// A time span for a person.
fn span(span: TimeDelta) -> String {
    crate::explain::span(span)
}

/// A number with the word that it counts.
fn count(number: impl Into<i64>, one: &str, many: &str) -> String {
    match number.into() {
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    }
}
