//! The isolation lane: a task that was inside guests on hosts that died runs in a child process of its own. If the child dies
//! while this process lives, that task killed it, by construction; its former neighbours pass.
//!
//! Parent and child speak through the child's standard streams: two lines of JSON in ([`variables`], [`Order`]), one line out ([`Answer`]).
//! The parent keeps the child's input open: a line `stop` stops the guest, and its end says that the parent is dead, upon
//! which the child ends as well. The child has neither broker nor database: its parent records what it reports.

use super::{again, single};
use crate::config::Settings;
use crate::registry::{Isolation, Job, Runner};
use crate::task::settle::{Report, Usage, Verdict};
use crate::task::{Failure, FailureKind, Fence, TaskId};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The exit code of a child that was not able to begin: that is nobody's death.
const REFUSED: i32 = 2;
/// A report is an output and its logs, which have limits; this is far above all of them.
const LONGEST: u64 = 1 << 30;
/// How long a child may take to stop its guest and tell of it.
const STOPS_WITHIN: Duration = Duration::from_millis(800);

/// Variables that a child inherits, if they are set: what finds programs, libraries, folders and certificates, and what is for
/// debugging. None is a secret: every process of this user can read them until the child has protected itself.
const INHERITED: [&str; 8] = [
    "PATH",
    "LD_LIBRARY_PATH",
    "HOME",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "RUST_BACKTRACE",
    crate::config::DEBUGGABLE,
];

/// How this process starts one like itself.
#[derive(Clone, Default)]
pub struct Again {
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The variables that its settings are read from. They hold secrets, so it is given them on its standard input.
    pub variables: Vec<(String, String)>,
}

impl std::fmt::Debug for Again {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.variables.iter().map(|(name, _)| name).collect();
        f.debug_struct("Again").field("arguments", &self.arguments).field("variables", &names).finish()
    }
}

/// What a child is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    place: PathBuf,
    digest: Arc<str>,
    id: TaskId,
    attempt: u32,
    max_attempts: u32,
    fence: Option<Fence>,
    input: Arc<str>,
    labels: BTreeMap<String, String>,
    timeout: Option<Duration>,
    deadline_in: Option<Duration>,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// It ran.
    Ran(Report),
    /// It could not be run, and why.
    Refused(String),
}

/// Why there is no report.
enum Trouble {
    /// The child died of what it ran.
    Died(ExitStatus),
    /// Anything else, which is the host's own.
    Host(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Host(format!("the isolation lane broke: {error}"))
    }
}

/// Runs attempts in children of this process.
#[derive(Clone, Debug)]
pub struct Children {
    again: Again,
}

impl Children {
    /// Children that are started like this.
    pub fn new(again: Again) -> Children {
        Children { again }
    }

    fn start(&self) -> io::Result<Child> {
        Command::new(again::program()?)
            .args(&self.again.arguments)
            .env_clear()
            .envs(inherited().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A signal from the terminal is for the daemon alone: a child that it ended would count as killed by its task.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    async fn attempt(&self, runner: &dyn Runner, job: &Job) -> Result<Report, Trouble> {
        let order = Order {
            place: runner.place().to_owned(),
            digest: runner.digest().clone(),
            id: job.id,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            fence: job.fence,
            input: job.input.clone(),
            labels: job.labels.clone(),
            timeout: job.timeout,
            deadline_in: job.deadline.map(|at| at.saturating_duration_since(Instant::now())),
        };
        let mut child = self.start()?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Trouble::Host("a child without standard streams".into()));
        };
        let mut lines = serde_json::to_vec(&self.again.variables).map_err(io::Error::from)?;
        lines.push(b'\n');
        serde_json::to_writer(&mut lines, &order).map_err(io::Error::from)?;
        lines.push(b'\n');
        // A child that died before it read everything is told apart below, by how it ended.
        let _ = input.write_all(&lines).await;
        let answer = answer(output);
        tokio::pin!(answer);
        let answered = tokio::select! {
            answered = &mut answer => answered?,
            () = job.stop.cancelled() => {
                let _ = input.write_all(b"stop\n").await; // it may have ended
                match tokio::time::timeout(STOPS_WITHIN, answer).await {
                    Ok(answered) => answered?,
                    Err(_) => {
                        child.kill().await?;
                        return Ok(report(Verdict::Stopped));
                    }
                }
            }
        };
        match answered {
            Some(Answer::Ran(report)) => Ok(report),
            Some(Answer::Refused(why)) => Err(Trouble::Host(why)),
            None if job.stop.is_cancelled() => Ok(report(Verdict::Stopped)),
            None => match child.wait().await? {
                status if status.code() == Some(REFUSED) => {
                    Err(Trouble::Host("the isolation lane's process did not start; its log line says why".into()))
                }
                status => Err(Trouble::Died(status)),
            },
        }
    }
}

#[async_trait]
impl Isolation for Children {
    async fn run(&self, runner: &dyn Runner, job: Job) -> Report {
        match self.attempt(runner, &job).await {
            Ok(report) => report,
            Err(Trouble::Died(status)) => {
                tracing::error!(task = %job.id, plugin = %runner.name(), %status, "a task killed the process that it ran alone in");
                report(Verdict::ChildDied { message: status.to_string() })
            }
            Err(Trouble::Host(why)) => {
                tracing::error!(task = %job.id, why, "a task could not be isolated");
                let failure = Failure { retryable: true, ..Failure::fatal(FailureKind::Internal, why) };
                report(Verdict::Failed { failure, after: None })
            }
        }
    }
}

fn report(verdict: Verdict) -> Report {
    Report { verdict, usage: Usage::default(), logs: Vec::new(), calls: Vec::new() }
}

/// The child's answer; `None`: it ended without one.
async fn answer(output: impl AsyncRead + Unpin) -> Result<Option<Answer>, Trouble> {
    let mut text = Vec::new();
    output.take(LONGEST).read_to_end(&mut text).await?;
    // Half an answer is none: it died while it wrote.
    Ok(serde_json::from_slice(&text).ok())
}

/// Every variable that a child inherits.
fn inherited() -> impl Iterator<Item = &'static str> {
    #[cfg(feature = "failpoints")]
    let more = crate::failpoints::VARIABLES;
    #[cfg(not(feature = "failpoints"))]
    let more = [];
    INHERITED.into_iter().chain(more)
}

/// In the child, before [`serve`]: the variables that its settings are read from.
///
/// # Errors
/// Standard input that ends or is not what a daemon writes.
pub fn variables() -> io::Result<Vec<(OsString, OsString)>> {
    let mut line = String::new();
    // [`serve`] reads on where this ends: the standard library has one buffer for the whole process.
    io::stdin().lock().read_line(&mut line)?;
    let variables: Vec<(String, String)> = serde_json::from_str(&line)?;
    Ok(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
}

/// The child's whole life. Answers on standard output; ends the process at once when the parent is gone.
pub async fn serve(settings: &Settings) -> Result<(), super::DaemonError> {
    let mut input = BufReader::new(tokio::io::stdin());
    let mut line = String::new();
    input.read_line(&mut line).await.map_err(super::failed)?;
    let order: Order = serde_json::from_str(&line).map_err(super::failed)?;
    let stop = CancellationToken::new();
    tokio::spawn(listen(input, stop.clone()));
    let answer = match run(settings, order, stop).await {
        Ok(report) => Answer::Ran(report),
        Err(why) => Answer::Refused(why),
    };
    let text = serde_json::to_vec(&answer).map_err(super::failed)?;
    let mut output = tokio::io::stdout();
    output.write_all(&text).await.map_err(super::failed)?;
    output.flush().await.map_err(super::failed)
}

async fn run(settings: &Settings, order: Order, stop: CancellationToken) -> Result<Report, String> {
    let runner = single::isolated(settings, &order.place).await.map_err(|e| e.to_string())?;
    #[cfg(feature = "failpoints")]
    let runner = crate::failpoints::runner(runner);
    if *runner.digest() != order.digest {
        return Err(format!("{} has changed since its host loaded it", order.place.display()));
    }
    let job = Job {
        id: order.id,
        attempt: order.attempt,
        max_attempts: order.max_attempts,
        fence: order.fence,
        input: order.input,
        labels: order.labels,
        timeout: order.timeout,
        deadline: order.deadline_in.map(|left| Instant::now() + left),
        stop,
        // Its parent holds all that it may use.
        memory: None,
        turn: None,
        on_log: None,
    };
    Ok(runner.run(job).await)
}

/// Until the parent says stop, or is gone.
async fn listen(mut input: BufReader<tokio::io::Stdin>, stop: CancellationToken) {
    let mut line = String::new();
    while input.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        stop.cancel();
        line.clear();
    }
    // Nobody is left to report to, and whoever takes the task over must not find it running here.
    std::process::exit(REFUSED);
}
