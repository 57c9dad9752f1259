//! What the behaviours need: a database, a back door, and short words for usual steps.

use crate::db::*;
use crate::task::settle::{Call, LogLine, Usage};
use crate::task::*;
use crate::task::{settle::Ended, settle::Settlement};
use serde_json::Value;
use std::sync::Arc;

/// A lease that outlives every test.
pub const LONG: Duration = Duration::from_secs(3600);
/// A lease time, as it is by default.
pub const LEASE: Duration = Duration::from_secs(30);
/// The digest of the plugin that tests run.
pub const DIGEST: &str = "sha256:0";

/// A fresh, migrated database.
pub struct Subject {
    /// Behind the trait.
    pub db: Box<dyn Db>,
    /// Beside it.
    pub back_door: Box<dyn BackDoor>,
}

/// What no operation can bring about.
#[async_trait]
pub trait BackDoor: Send + Sync {
    /// Run a statement that both databases understand; answers the rows it changed, or its error.
    async fn execute(&self, sql: &str) -> Result<u64, String>;
    /// The number that a query answers.
    async fn number(&self, sql: &str) -> i64;
    /// From now on the database refuses rows of this plugin, and log lines of a logger of this name.
    async fn refuse(&self, name: &str);
    /// Make the database as empty as if it were new.
    async fn empty(&self);
    /// Another process's connection to it.
    fn open(&self) -> Box<dyn Db>;
}

impl Subject {
    /// A live host.
    pub async fn host(&self) -> HostId {
        let host = record();
        self.db.register_host(&host, LONG).await.unwrap();
        host.id
    }

    /// Change what no operation changes.
    pub async fn set(&self, sql: &str) {
        self.back_door.execute(sql).await.unwrap();
    }

    /// Claim one task.
    pub async fn claim(&self, host: HostId, arrival: &Arrival) -> ClaimAnswer {
        let mut answers = self.db.claim(steady(host), std::slice::from_ref(arrival)).await.unwrap();
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    /// Claim one task that is sure to run.
    pub async fn run(&self, host: HostId, arrival: &Arrival) -> Claimed {
        match self.claim(host, arrival).await {
            ClaimAnswer::Run(claimed) => claimed,
            other => panic!("not run: {other:?}"),
        }
    }

    /// Settle one attempt.
    pub async fn settle(&self, host: HostId, settlement: &Settlement) -> SettleAnswer {
        let answers = self.db.settle(host, std::slice::from_ref(settlement)).await.unwrap();
        assert_eq!(answers.len(), 1);
        answers.into_iter().next().unwrap()
    }

    /// Claim one task and end it.
    pub async fn end(&self, host: HostId, arrival: &Arrival, ended: Ended) {
        let claimed = self.run(host, arrival).await;
        let answer = self.settle(host, &settlement(arrival, &claimed, ended)).await;
        assert_eq!(answer, SettleAnswer::Settled);
    }

    /// A task with everything.
    pub async fn row(&self, id: TaskId) -> TaskRow {
        self.db.task(id, Fields::ALL).await.unwrap().expect("the task has a row")
    }

    /// A task's events, having checked that they are gapless, fold to the row's state, and never go back in fence or time.
    pub async fn history(&self, id: TaskId) -> Vec<Event> {
        let row = self.row(id).await;
        let events = self.db.events(id, 0, 1000).await.unwrap().rows;
        let mut state = None;
        for (event, seq) in events.iter().zip(1..) {
            assert_eq!(event.seq, seq, "a gap in {events:#?}");
            state = Some(next(state, event.event).unwrap());
        }
        assert_eq!(state, Some(row.state), "{events:#?}");
        let fences: Vec<_> = events.iter().filter_map(|e| e.fence).collect();
        assert!(fences.is_sorted(), "{events:#?}");
        assert!(events.is_sorted_by_key(|e| e.at), "{events:#?}");
        events.into_iter().map(|e| e.event).collect()
    }

    /// What a task waits for.
    pub async fn waits(&self, id: TaskId) -> Option<WaitCode> {
        self.row(id).await.waiting_for.map(|w| w.code)
    }

    /// Ids in the outbox that are due, which are then held for a long time.
    pub async fn published(&self) -> Vec<TaskId> {
        self.db.take_outbox(&OutboxTake::new(100, LONG)).await.unwrap().rows.into_iter().map(|row| row.id).collect()
    }
}

/// A host that has been in touch with the database for long.
pub fn steady(host: HostId) -> Claimant {
    Claimant { host, steady: true }
}

/// What a host says of itself.
pub fn record() -> HostRecord {
    HostRecord {
        id: uuid::Uuid::new_v4(),
        name: "agentry/0.1.0/here/1".into(),
        build: "0.1.0 (abc)".into(),
        settings_digest: "sha256:1".into(),
        queues: vec!["default".into()],
        plugins: vec!["word-count@0.1.0".into()],
        broken_plugins: vec!["broken: no component".into()],
        slots: 4,
        busy: 1,
        brakes: Some(0),
    }
}

/// A new id, larger than those before.
pub fn id() -> TaskId {
    uuid::Uuid::now_v7()
}

/// A message for a plugin.
pub fn message(id: TaskId, plugin: &str, input: &str, options: Options) -> TaskMessage {
    TaskMessage::assemble(Some(id), plugin, input, options, &Default::default()).unwrap()
}

/// This host can run it.
pub fn here() -> Runnable {
    Runnable::Here {
        version: "0.1.0".into(),
        digest: DIGEST.into(),
        max_attempts: 3,
        allowed: Duration::from_secs(600),
        lane: true,
    }
}

/// This host cannot run it.
pub fn elsewhere(code: WaitCode) -> Runnable {
    Runnable::NotHere { code, detail: serde_json::json!({"known": ["a"]}) }
}

/// The arrival of a message.
pub fn arrival_of(message: TaskMessage, runnable: Runnable) -> Arrival {
    Arrival { message: Arc::new(message), queue: "default".into(), runnable, relayed: None }
}

/// The arrival of a usual task that runs here.
pub fn arrival() -> Arrival {
    arrival_with(Options::default(), here())
}

/// The arrival of a task with these options.
pub fn arrival_with(options: Options, runnable: Runnable) -> Arrival {
    arrival_of(message(id(), "word-count", r#"{"text":"a b"}"#, options), runnable)
}

/// The same task, seen by a host that can or cannot run it.
pub fn again(arrival: &Arrival, runnable: Runnable) -> Arrival {
    Arrival { runnable, ..arrival.clone() }
}

/// Another task under the same id.
pub fn conflicting(arrival: &Arrival) -> Arrival {
    arrival_of(message(arrival.message.id, "word-count", "2", Options::default()), here())
}

/// Parked tasks of these plugins.
pub fn parked_of(plugins: &[String], lane: bool, limit: u32) -> ParkedLook {
    ParkedLook { plugins: plugins.to_vec(), lane, limit, ..ParkedLook::default() }
}

/// A task to be submitted.
pub fn new_task(id: TaskId, options: Options) -> NewTask {
    NewTask {
        message: message(id, "word-count", "1", options),
        queue: "default".into(),
        retry_of: None,
        max_attempts: 3,
    }
}

/// The end of a claimed attempt.
pub fn settlement(arrival: &Arrival, claimed: &Claimed, ended: Ended) -> Settlement {
    Settlement {
        id: arrival.message.id,
        fence: claimed.fence,
        attempt: claimed.standing.attempt,
        ended,
        version: "0.1.0".into(),
        digest: DIGEST.into(),
        usage: Usage { wall_us: 12, cpu_us: 7, ..Usage::default() },
        logs: Vec::new(),
        calls: Vec::new(),
    }
}

/// A line a guest logged.
pub fn line(seq: u32, logger: &str, message: &str) -> LogLine {
    LogLine {
        seq,
        at: "2030-01-01T00:00:00.000001Z".parse().unwrap(),
        stream: "log",
        level: "info",
        logger: logger.into(),
        message: message.into(),
        cut: false,
    }
}

/// A call that took its number in milliseconds.
pub fn call(seq: u32, target: &str) -> Call {
    Call {
        seq,
        at: at("2030-01-01T00:00:00.000001Z"),
        capability: "llm".into(),
        operation: "chat".into(),
        target: target.into(),
        duration_us: u64::from(seq) * 1_000,
        request_bytes: 10,
        response_bytes: 20,
        result: "ok".into(),
        detail: serde_json::json!({"input_tokens": 7}),
        request_body: None,
        response_body: None,
    }
}

/// It ended well.
pub fn completed() -> Ended {
    Ended::Completed { output: "{\"words\": 2}".into() }
}

/// It ended badly.
pub fn failed() -> Ended {
    Ended::Failed { failure: trap() }
}

/// It is to be run again, at once.
pub fn retrying() -> Ended {
    Ended::Retrying { failure: trap(), after: Duration::ZERO }
}

/// A failure that is retried.
pub fn trap() -> Failure {
    Failure {
        kind: FailureKind::Trap,
        message: "unreachable".into(),
        retryable: true,
        detail: serde_json::json!({"exit_code": Value::Null}),
    }
}

/// A time far ahead, or long ago.
pub fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}
