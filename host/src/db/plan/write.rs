//! A change of a row that is under lock.

use super::super::fault::Fault;
use super::super::{ClaimAnswer, Unusable, storable};
use super::birth::stored;
use super::{allowed, max_attempts};
use crate::db::Claimed;
use crate::task::{
    Arrival, Decision, Event, Failure, Fence, HostId, Runnable, State, TaskId, WaitCode, claim, next, retry,
    settle::Standing,
};
use chrono::{DateTime, Utc};
use serde_json::json;

/// A row as it stands under lock.
#[derive(Clone, Debug)]
pub(in crate::db) struct Locked {
    pub id: TaskId,
    /// What is decided on.
    pub row: claim::Row,
    /// `name` or `name@requirement`.
    pub plugin: String,
    pub attempt: u32,
    pub version: Option<String>,
    pub digest: Option<String>,
    pub started_at: Option<DateTime<Utc>>,
    /// When it was born; `None`: it was not read.
    pub created_at: Option<DateTime<Utc>>,
    /// The attempt is past its hard deadline.
    pub overdue: bool,
    /// Its owner's lease is valid, or lapsed without having been ended.
    pub owner_may_live: bool,
    pub last_seq: i64,
}

impl Locked {
    /// Whether the owner is to be taken for alive by somebody who is steady, or is not.
    pub fn owner_alive(&self, steady: bool) -> bool {
        if steady { self.row.owner_alive && !self.overdue } else { self.owner_may_live }
    }
}

/// The columns that a change sets. Those that follow from the state (`started_at`, `finished_at`, `waiting_since`) are set
/// by the statement, by the database's clock.
#[derive(Clone, Debug)]
pub(in crate::db) struct Write {
    pub id: TaskId,
    pub state: State,
    pub fence: Fence,
    pub owner: Option<HostId>,
    pub attempt: u32,
    pub max_attempts: u32,
    pub host_losses: u32,
    /// Microseconds from its claim to the attempt's hard deadline.
    pub allowed: Option<i64>,
    pub version: Option<String>,
    pub digest: Option<String>,
    /// `None` keeps the last one.
    pub failure: Option<String>,
    pub waiting_code: Option<WaitCode>,
    pub waiting_detail: Option<String>,
    /// Where the history stands before this.
    pub last_seq: i64,
    pub event: Event,
    /// The host that did it, if one did.
    pub host: Option<HostId>,
    pub detail: Option<String>,
    /// It goes to its queue from here.
    pub outbox: bool,
    /// When it happened; `None`: now.
    pub at: Option<DateTime<Utc>>,
    /// The attempt of the former owner ends here, with nobody alive to tell of it.
    pub lost: bool,
}

impl Write {
    /// The change that an event makes, all else kept.
    pub fn of_event(locked: &Locked, event: Event, host: Option<HostId>) -> Result<Write, Fault> {
        let row = &locked.row;
        // A claim or a sweep only ever writes over a running row when its owner is lost.
        let lost = row.state == State::Running;
        Ok(Write {
            id: locked.id,
            state: next(Some(row.state), event)?,
            fence: row.fence,
            owner: row.owner,
            attempt: locked.attempt,
            max_attempts: row.max_attempts,
            host_losses: if lost { (row.host_losses + 1).min(retry::SUSPECT_AFTER) } else { row.host_losses },
            allowed: None,
            version: locked.version.clone(),
            digest: locked.digest.clone(),
            failure: None,
            waiting_code: None,
            waiting_detail: None,
            last_seq: locked.last_seq,
            event,
            host,
            detail: lost.then(|| json!({"lost_host": row.owner, "lost_fence": row.fence}).to_string()),
            outbox: false,
            at: None,
            lost,
        })
    }

    /// Due again: it goes to its queue.
    pub fn wake(locked: &Locked) -> Result<Write, Fault> {
        Ok(Write { outbox: true, ..Write::of_event(locked, Event::Pending, None)? })
    }

    /// Called off while it waited: its end had been asked for while it ran.
    pub fn cancel(locked: &Locked) -> Result<Write, Fault> {
        Write::of_event(locked, Event::Cancelled, None)
    }

    /// Ended without having run.
    pub fn fail(locked: &Locked, failure: &Failure, host: Option<HostId>) -> Result<Write, Fault> {
        let failure = stored(failure);
        Ok(Write {
            failure: Some(failure.clone()),
            detail: Some(failure),
            ..Write::of_event(locked, Event::Failed, host)?
        })
    }

    /// The change that a decision makes; `None`: it writes nothing.
    pub fn of_decision(
        locked: &Locked,
        decision: &Decision,
        arrival: &Arrival,
        host: HostId,
    ) -> Result<Option<Write>, Fault> {
        let Decision::Run { event, attempt, host_losses, .. } = decision else {
            return Write::without_run(locked, decision, host);
        };
        let mut write = Write::of_event(locked, *event, Some(host))?;
        write.fence += 1;
        write.owner = Some(host);
        write.attempt = *attempt;
        write.host_losses = *host_losses;
        write.max_attempts = max_attempts(arrival);
        write.allowed = allowed(arrival);
        if let Runnable::Here { version, digest, .. } = &arrival.runnable {
            (write.version, write.digest) = (Some(version.to_string()), Some(digest.to_string()));
        }
        Ok(Some(write))
    }

    /// The change for a task that a relay published and whose message this host cannot use; `None`: its row is left as it is.
    pub fn of_unusable(
        locked: &Locked,
        unusable: &Unusable,
        host: HostId,
        now: DateTime<Utc>,
    ) -> Result<Option<Write>, Fault> {
        let detail = json!({"reason": unusable.reason, "detail": unusable.detail});
        Write::without_run(locked, &claim::decide_unusable(&locked.row, &detail, host, now), host)
    }

    /// The change that any other decision makes than to run.
    fn without_run(locked: &Locked, decision: &Decision, host: HostId) -> Result<Option<Write>, Fault> {
        let write = match decision {
            Decision::Park { event, code, detail } => Write {
                waiting_code: Some(*code),
                waiting_detail: (!detail.is_null()).then(|| storable::json(detail)),
                detail: Some(storable::json(&json!({"code": code.as_str(), "detail": detail}))),
                ..Write::of_event(locked, *event, Some(host))?
            },
            Decision::End { failure: Some(failure), .. } => Write::fail(locked, failure, Some(host))?,
            Decision::End { event, failure: None } => Write::of_event(locked, *event, Some(host))?,
            Decision::Schedule => return Err(Fault::Row("a task with a row was to be scheduled anew".into())),
            Decision::Run { .. } => return Err(Fault::Defect("a run was decided without what runs it".into())),
            Decision::Mine | Decision::Keep(_) | Decision::Conflict => return Ok(None),
        };
        Ok(Some(write))
    }
}

/// The answer to an arrival whose row was under lock. `at`: when it was written, if it was.
pub(in crate::db) fn answer(
    locked: &Locked,
    decision: Decision,
    write: Option<&Write>,
    at: DateTime<Utc>,
) -> ClaimAnswer {
    let claim::Row { snoozes, child_losses, host_losses, .. } = locked.row;
    let standing = |attempt, max_attempts, host_losses| Standing {
        attempt,
        max_attempts,
        snoozes,
        child_losses,
        isolated: retry::is_suspect(host_losses),
    };
    match (&decision, write) {
        (Decision::Run { .. }, Some(write)) => ClaimAnswer::Run(Claimed {
            fence: write.fence,
            standing: standing(write.attempt, write.max_attempts, write.host_losses),
            at,
        }),
        (Decision::Mine, _) => ClaimAnswer::Mine(Claimed {
            fence: locked.row.fence,
            standing: standing(locked.attempt, locked.row.max_attempts, host_losses),
            at: locked.started_at.unwrap_or(at),
        }),
        (Decision::Conflict, _) => ClaimAnswer::Conflict,
        _ => ClaimAnswer::Done(decision),
    }
}
