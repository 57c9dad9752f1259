//! What is written for what was decided: column values, the same for both databases. Pure.
//!
//! [`crate::task`] decides; here a decision becomes a [`Birth`] (a new row), a [`Write`] (a change of a row under lock) or an
//! [`Outcome`] (the end of an attempt), each with the event that tells of it. The databases only carry them out.

mod birth;
mod brake;
mod erasure;
mod known;
mod letter;
mod outcome;
mod recorded;
mod store;
mod submission;
mod write;

pub(super) use birth::Birth;
pub(super) use brake::{BrakeRow, REASON_KEPT, audit_of};
pub(super) use erasure::erased;
pub(super) use known::Known;
pub(super) use letter::{content_hash, equal_before, may_be_known, redrive_id};
pub(super) use outcome::{Outcome, body, body_bytes, call_detail, counted, has_body, refused, unstorable};
pub(super) use recorded::{Recorded, awaits_first_attempt};
pub(super) use store::{
    Former, Held, RECALLED, added, afforded, asked, countable, counted_amounts, held_after, held_without, indexed,
    memory_digest, pairs, room_to_remember, sum,
};
pub(super) use submission::Submission;
pub(super) use write::{Locked, Write, answer};

use super::{ClaimAnswer, Claimed, DeadLetter};
use crate::task::{Arrival, Decision, Runnable, TaskId, settle::Standing};
use chrono::{DateTime, Utc};

/// Tasks that a filter without an order leaves, up to which they are sorted for a list. More of them are looked for among the newest.
pub(super) const FEW: i64 = 10_000;
/// Bytes of a dead letter's body that are read back.
pub(super) const BODY_SHOWN: i64 = 64 * 1024;
/// Within this time a message that may be known is taken for the same as an equal one that has a row.
pub(super) const SAME_LETTER: std::time::Duration = std::time::Duration::from_secs(3600);
/// How long an ended host is shown, and then forgotten.
pub(super) const HOST_SHOWN: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
/// Days for which it is remembered what was spent on them.
pub(super) const SPENDING_KEPT: i32 = 35;
/// Lines of history and logs that one deletion takes at most, except for a single task that has more.
pub(super) const LINES_DELETED: i64 = 20_000;

/// A query for tasks to delete whose lines fit into the parameter `$most`, and for the first one in any case. One task may have tens of
/// thousands of lines, and a batch that does not end in its time-out would be repeated.
macro_rules! fitting {
    ($most:literal, $order:literal, $($found:expr),+) => {
        concat!(
            "WITH found AS (",
            $($found),+,
            "), page AS (SELECT id, row_number() OVER w AS n, sum(lines) OVER w AS total FROM found WINDOW w AS (ORDER BY ",
            $order,
            ")) SELECT id, CAST(total AS bigint) AS total FROM page WHERE n = 1 OR total <= ",
            $most,
            " ORDER BY n"
        )
    };
}
pub(super) use fitting;
/// The longest delay that is computed with; a policy's own ceiling is far below.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(10 * 365 * 24 * 3600);

/// A duration that both databases can add to a time.
pub(super) fn bounded(duration: std::time::Duration) -> chrono::TimeDelta {
    chrono::TimeDelta::from_std(duration.min(LONGEST)).unwrap_or(chrono::TimeDelta::MAX)
}

/// The answer to an arrival whose row was inserted at `at`.
pub(super) fn born(decision: Decision, arrival: &Arrival, at: DateTime<Utc>) -> ClaimAnswer {
    match decision {
        Decision::Run { attempt, .. } => {
            let max_attempts = max_attempts(arrival);
            let standing = Standing { attempt, max_attempts, snoozes: 0, child_losses: 0, isolated: false };
            ClaimAnswer::Run(Claimed { fence: 1, standing, at })
        }
        other => ClaimAnswer::Done(other),
    }
}

/// Attempts in all, as far as this host can tell.
fn max_attempts(arrival: &Arrival) -> u32 {
    match &arrival.runnable {
        Runnable::Here { max_attempts, .. } => *max_attempts,
        Runnable::NotHere { .. } | Runnable::Never { .. } => arrival.message.max_attempts(None),
    }
}

/// How long after its claim an attempt is past its hard deadline, in microseconds.
fn allowed(arrival: &Arrival) -> Option<i64> {
    match &arrival.runnable {
        Runnable::Here { allowed, .. } => bounded(*allowed).num_microseconds(),
        Runnable::NotHere { .. } | Runnable::Never { .. } => None,
    }
}

/// The task that a dead letter is recorded as, too, unless it has a row: a conflict is about another task's row.
pub(super) fn rejected_task(letter: &DeadLetter) -> Option<TaskId> {
    letter.task_id.filter(|_| letter.reason != "conflict")
}
