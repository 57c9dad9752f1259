//! Plays a case against a daemon, and writes down what was seen.

use std::time::{Duration, Instant};

use e2e::http::is_terminal;
use e2e::{Daemon, Site, Task};
use serde_json::Value;
use uuid::Uuid;

use crate::case::Case;
use crate::process::Process;
use crate::vigil::{Noticed, Vigil};
use crate::{install, patience};

/// How long the end of a task is waited for beyond its time limit, before it is given up.
const GRACE: Duration = Duration::from_secs(8);
/// How long memory may take to fall back.
const FALL: Duration = Duration::from_secs(5);
/// More than any attack may ever cost, and less than any machine has.
const BOUND_MIB: u64 = 3_072;
/// By how much resident memory may stay above what it was, in KiB: what the pool keeps of a slot (16 MiB), and what the
/// allocator keeps of what it was given back.
pub const STAYS: u64 = 32 << 10;

/// What became of an attack.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The task, once it had ended; `None`: it never did.
    pub task: Option<Value>,
    /// Its attempts.
    pub attempts: Vec<Value>,
    /// What its guest logged.
    pub logs: Vec<Value>,
    /// From the submission to the end.
    pub took: Duration,
    /// By how much the daemon's resident memory rose, in KiB.
    pub rise: u64,
    /// How much of that was still there when it was waited for, in KiB.
    pub stays: u64,
    /// What a watchman noticed meanwhile.
    pub noticed: Noticed,
    /// The honest task afterwards, and what it was to answer.
    pub honest: Option<(Value, Value)>,
    /// Whether the process is another one, or gone.
    pub pid_changed: bool,
}

impl Seen {
    /// `state`, or what stands for it.
    pub fn state(&self) -> &str {
        self.task.as_ref().and_then(|task| task["state"].as_str()).unwrap_or("never ended")
    }

    /// The failure; `null` where there is none.
    pub fn failure(&self) -> &Value {
        self.task.as_ref().map_or(&Value::Null, |task| &task["failure"])
    }

    /// The output.
    pub fn output(&self) -> &Value {
        self.task.as_ref().map_or(&Value::Null, |task| &task["output"])
    }

    /// The wall time of the last attempt, by the daemon's own clock.
    pub fn wall(&self) -> Duration {
        let micros = self.attempts.last().and_then(|attempt| attempt["usage"]["wall_us"].as_u64());
        micros.map_or(self.took, Duration::from_micros)
    }
}

/// A daemon that is attacked.
pub struct Stage<'a> {
    /// Its site.
    pub site: &'a Site,
    /// Itself.
    pub daemon: &'a Daemon,
    /// Its process when it began.
    pub process: Process,
    /// Who watches over it.
    pub vigil: Vigil,
    /// A plugin that echoes, for guests that cannot be honest.
    pub echo: &'static str,
    /// Every task there was.
    pub ids: Vec<Uuid>,
}

impl<'a> Stage<'a> {
    /// Begins to watch over a daemon that is ready.
    pub fn new(site: &'a Site, daemon: &'a Daemon, echo: &'static str) -> Self {
        let (vigil, process) = (Vigil::over(daemon.http().base()), Process(daemon.pid()));
        process.bound(BOUND_MIB);
        Self { site, daemon, process, vigil, echo, ids: Vec::new() }
    }

    /// Plays a case: the attack, and an honest task after it.
    pub async fn play(&mut self, case: &Case) -> Seen {
        self.vigil.take();
        let watch = self.process.watch();
        let within = Duration::from_secs(install::limit(case, "timeout_seconds"));
        let began = Instant::now();
        let (id, task) = self.run(case.id, case.input.clone(), within).await;
        let took = began.elapsed();
        let mut seen = Seen { took, rise: watch.rise(), ..Seen::default() };
        if task.is_some() {
            seen.attempts = self.list(&format!("/v1/tasks/{id}/attempts"), "attempts").await;
            seen.logs = self.list(&format!("/v1/tasks/{id}/logs"), "logs").await;
        }
        let (plugin, input, answer) = match &case.honest {
            Some(input) => (case.id, input, input.get("value").unwrap_or(input)),
            None => (self.echo, &Value::Bool(true), &Value::Bool(true)),
        };
        if task.is_some() {
            let (_, honest) = self.run(plugin, input.clone(), within).await;
            seen.honest = Some((honest.unwrap_or_default(), answer.clone()));
        }
        seen.stays = self.fallen(watch.before()).await;
        seen.noticed = self.vigil.take();
        seen.pid_changed = !self.alive();
        seen.task = task;
        seen
    }

    /// Whether the process that it began with is still there, and answers for itself.
    pub fn alive(&self) -> bool {
        self.daemon.pid() == self.process.0 && self.process.resident() > 0
    }

    /// Hands a task over as a producer does, and waits for its end.
    pub async fn run(&mut self, plugin: &str, input: Value, within: Duration) -> (Uuid, Option<Value>) {
        let task = Task::new(plugin, input);
        self.site.publish(std::slice::from_ref(&task)).await;
        self.ids.push(task.id);
        (task.id, self.ended(task.id, within).await)
    }

    /// The task once it has ended, if it does so soon enough.
    pub async fn ended(&self, id: Uuid, within: Duration) -> Option<Value> {
        let (began, most) = (Instant::now(), (within + GRACE).mul_f64(patience()));
        while began.elapsed() < most && self.alive() {
            if let Ok(answer) = self.daemon.http().try_get(&format!("/v1/tasks/{id}")).await
                && answer.status == 200
                && is_terminal(answer.json()["state"].as_str().unwrap_or_default())
            {
                return Some(answer.json());
            }
            tokio::time::sleep(Duration::from_millis(10)).await; // between two looks
        }
        None
    }

    async fn list(&self, path: &str, name: &str) -> Vec<Value> {
        match self.daemon.http().try_get(path).await {
            Ok(answer) if answer.status == 200 => answer.json()[name].as_array().cloned().unwrap_or_default(),
            other => panic!("GET {path}: {other:?}"),
        }
    }

    /// Waits until resident memory is nearly what it was; how much is still above that, in KiB.
    async fn fallen(&self, before: u64) -> u64 {
        let (began, most) = (Instant::now(), FALL.mul_f64(patience()));
        loop {
            let stays = self.process.resident().saturating_sub(before);
            if stays <= STAYS || began.elapsed() > most {
                return stays;
            }
            tokio::time::sleep(Duration::from_millis(20)).await; // between two looks
        }
    }
}
