//! Lists and reports as the API returns them. Their rows are the types that the database and the registry have.

use super::render::{CallJson, TaskJson};
use super::warnings::Warning;
use crate::db::{AttemptRow, AuditRow, Brake, DeadRow, EventRow, HostRow, LogRow};
use crate::registry::PluginInfo;
use crate::task::TaskId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A page of tasks, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct TaskPage<'a> {
    /// The tasks; `input` and `output` are absent unless `fields` asks for them.
    pub tasks: Vec<TaskJson<'a>>,
    /// `cursor` of the next page; `null` on the last one.
    pub next_cursor: Option<String>,
}

/// A part of a task's history, oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct EventPage {
    /// At most 1,000.
    pub events: Vec<EventRow>,
    /// `after` of the next part; `null` if there is none now.
    pub next_after: Option<i64>,
}

/// A part of a task's log, oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct LogPage {
    /// At most 1,000.
    pub logs: Vec<LogRow>,
    /// `after` of the next part; `null` if there is none now.
    pub next_after: Option<i64>,
}

/// The ended attempts of a task, oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct AttemptList {
    /// All of them.
    pub attempts: Vec<AttemptRow>,
}

/// A part of a task's calls, in the order in which they began.
#[derive(Serialize, ToSchema)]
pub(super) struct CallPage<'a> {
    /// The calls; their bodies are absent unless `bodies=true`.
    pub calls: Vec<CallJson<'a>>,
    /// `after` of the next part; `null` if there is none now.
    pub next_after: Option<String>,
}

/// The answer to a batch.
#[derive(Serialize, ToSchema)]
pub(super) struct Batch {
    /// One for each task of the request, in its order.
    pub tasks: Vec<BatchTask>,
    /// Reasons for which tasks may wait; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// One task of a batch.
#[derive(Serialize, ToSchema)]
pub(super) struct BatchTask {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: TaskId,
    /// False if the task existed before.
    pub created: bool,
}

/// A page of dead letters, the last recorded first.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadPage {
    /// The letters.
    pub dead: Vec<DeadRow>,
    /// `cursor` of the next page; `null` on the last one.
    pub next_cursor: Option<String>,
}

/// Result of a redrive.
#[derive(Serialize, ToSchema)]
pub(super) struct Redrives {
    /// One for each letter.
    pub letters: Vec<Redriven>,
    /// `before` of the next request with the same filters; `null` if no letter is left.
    pub next_before: Option<i64>,
}

/// Outcome of the redrive of one letter.
#[derive(Serialize, ToSchema)]
pub(super) struct Redriven {
    /// The letter's id.
    pub id: i64,
    /// The id under which it is published, or was.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub task_id: Option<TaskId>,
    /// `redriven`, `would_redrive`, `skipped`, `failed`, `erased` or `unknown`.
    pub outcome: &'static str,
    /// The reason, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The plugins of one host.
#[derive(Serialize, ToSchema)]
pub(super) struct PluginList {
    /// All of them, broken and disabled ones too.
    pub plugins: Vec<PluginInfo>,
}

/// The hosts of a database.
#[derive(Serialize, ToSchema)]
pub(super) struct HostList {
    /// All of them, also those whose lease has ended.
    pub hosts: Vec<HostJson>,
}

/// A host, and who drained it.
#[derive(Serialize, ToSchema)]
pub(super) struct HostJson {
    #[serde(flatten)]
    pub host: HostRow,
    /// Who drained it; `null`: it is not drained.
    pub drained: Option<SetBy>,
}

/// Who set a brake, and why.
#[derive(Serialize, ToSchema)]
pub(super) struct SetBy {
    /// The name of the token; `api` without tokens, `local` for a command that works on the database itself.
    pub by: String,
    /// The reason that was given.
    pub reason: Option<String>,
    /// The time since which it holds.
    pub since: DateTime<Utc>,
}

impl From<&Brake> for SetBy {
    fn from(brake: &Brake) -> SetBy {
        SetBy { by: brake.by.clone(), reason: brake.reason.clone(), since: brake.since }
    }
}

/// The body of a request that sets or releases a brake. It may be left out.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BrakeRequest {
    /// The reason, for those who look; at most 500 characters.
    #[schema(max_length = 500)]
    pub reason: Option<String>,
}

/// Result of setting or releasing a brake.
#[derive(Serialize, ToSchema)]
pub(super) struct BrakeChanged {
    /// False if it held already for that reason, or did not hold.
    pub changed: bool,
    /// The brake that holds now; `null`: none does.
    pub brake: Option<Brake>,
    /// The hosts on the way.
    #[serde(flatten)]
    pub heeding: Heeding,
}

/// The hosts that do not heed the last change of a brake.
#[derive(Serialize, ToSchema)]
pub(super) struct Heeding {
    /// Live hosts that do not heed it yet.
    pub behind: Vec<String>,
    /// Live hosts of an earlier build, which heed no brake.
    pub unaware: Vec<String>,
}

/// The brakes that hold.
#[derive(Serialize, ToSchema)]
pub(super) struct BrakeList {
    /// All of them.
    pub brakes: Vec<Brake>,
    /// The hosts on the way.
    #[serde(flatten)]
    pub heeding: Heeding,
}

/// A page of changes, the last recorded first.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditPage {
    /// The changes.
    pub audit: Vec<AuditRow>,
    /// `cursor` of the next page; `null` on the last one.
    pub next_cursor: Option<String>,
}

/// Queues, by name.
#[derive(Serialize, ToSchema)]
pub(super) struct QueueList {
    /// Those of this host, of other live hosts, of waiting tasks and of brakes.
    pub queues: Vec<QueueCount>,
}

/// A queue as its broker counts it.
#[derive(Serialize, ToSchema)]
pub(super) struct QueueCount {
    /// The logical queue.
    pub queue: String,
    /// Messages that wait for a consumer.
    pub ready: Option<u32>,
    /// Consumers, of all hosts and other programs.
    pub consumers: Option<u32>,
    /// Messages that the broker returned.
    pub returned: Option<u32>,
    /// Messages in its dead-letter queue.
    pub dead: Option<u32>,
    /// Messages that consumers have in hand.
    pub unacknowledged: Option<u32>,
    /// Time of its oldest message.
    pub oldest_at: Option<DateTime<Utc>>,
    /// Why the two before are not known.
    pub reason: Option<String>,
    /// Why the counts are not known.
    pub error: Option<String>,
    /// Tasks with a row that are scheduled, pending or retrying; `null` while the database does not respond.
    #[schema(minimum = 0)]
    pub waiting: Option<i64>,
    /// More tasks wait, in all queues together, than are counted.
    pub waiting_more: bool,
    /// Who paused it; `null`: it is not paused.
    pub paused: Option<SetBy>,
}

/// The runs of `agentry bench`.
#[derive(Serialize, ToSchema)]
pub(super) struct BenchList {
    /// At most 10,000, the last active first.
    pub runs: Vec<BenchRun>,
}

/// One run of `agentry bench`.
#[derive(Serialize, ToSchema)]
pub(super) struct BenchRun {
    /// Its id: a UUID of version 7 as 32 lowercase hexadecimal digits.
    pub run: String,
    /// Tasks that have ended.
    pub ended: u64,
    /// Tasks that have not.
    pub unfinished: u64,
    /// When the last of them was created or ended.
    pub last_at: DateTime<Utc>,
    /// Time since then, in seconds.
    pub idle_seconds: f64,
}

/// Whether the process responds.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`.
    pub status: &'static str,
}
