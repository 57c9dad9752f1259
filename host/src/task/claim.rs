//! What to do with a task that arrives: the claim table, as one pure function.
//!
//! An arrival is a delivery from the broker or a parked row that this host has room for. The database brings the row as
//! it stands under lock, and its own clock; what is decided here is then written in the same transaction.

use super::{Event, Failure, FailureKind, Fence, HostId, State, TaskMessage, WaitCode, retry};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Header of a message that a relay published: the fence of its task's row at that time. A hint for the claim; a producer has
/// no use for it.
pub const FENCE: &str = "agentry-fence";

/// A task that wants to run on this host.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// What is asked.
    pub message: Arc<TaskMessage>,
    /// The logical queue it came from.
    pub queue: Arc<str>,
    /// Whether this host can run it now.
    pub runnable: Runnable,
    /// The fence of its row when a relay published the message: the row exists. `None`: a producer published it, or the
    /// message does not tell. A hint, which decides where the database looks first.
    pub relayed: Option<Fence>,
}

impl Arrival {
    /// Whether the task has certainly not been claimed before, as far as its message tells.
    pub fn is_first(&self) -> bool {
        self.relayed.unwrap_or(0) == 0
    }
}

/// Whether this host can run a task now.
#[derive(Clone, Debug, PartialEq)]
pub enum Runnable {
    /// It can, with this build of the plugin.
    Here {
        /// The version that the requirement resolved to.
        version: Arc<str>,
        /// That version's content digest.
        digest: Arc<str>,
        /// Attempts in all: the message's wish or the plugin's.
        max_attempts: u32,
        /// How long an attempt may take before its owner is taken for wedged, whatever its lease says.
        allowed: Duration,
        /// The isolation lane has room.
        lane: bool,
    },
    /// Nobody is to run it: the broker gave up on it, and why. What runs already, runs on.
    Never {
        /// What it ends with.
        failure: Failure,
    },
    /// It cannot: the task is parked for whoever can.
    NotHere {
        /// Why.
        code: WaitCode,
        /// More for programs, such as the names that are known.
        detail: Value,
    },
}

/// A task's row as it stands, under lock.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its state.
    pub state: State,
    /// The last claim's number.
    pub fence: Fence,
    /// The last claim's host.
    pub owner: Option<HostId>,
    /// That host may still be at it: its lease reaches into the future and the attempt is not past its hard deadline, by
    /// the database's clock; or whoever asks cannot be sure (see `Claimant` in [`crate::db`]).
    pub owner_alive: bool,
    /// Not before this time.
    pub run_at: Option<DateTime<Utc>>,
    /// Not after this time.
    pub deadline: Option<DateTime<Utc>>,
    /// Somebody asked for its end while it ran.
    pub cancel_requested: bool,
    /// What it was asked; `None`: its message was unusable.
    pub fingerprint: Option<Vec<u8>>,
    /// Attempts used up.
    pub burnt: u32,
    /// Attempts in all.
    pub max_attempts: u32,
    /// Hosts that were lost while they ran it, up to the number that sends it to the isolation lane.
    pub host_losses: u32,
    /// Children of the isolation lane that died of it while their parent lived.
    pub child_losses: u32,
    /// Times it was snoozed.
    pub snoozes: u32,
    /// What it is parked for, if it is.
    pub parked: Option<WaitCode>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Write `event` (`running` or `taken_over`), take the next fence, run.
    Run {
        /// Which of the two.
        event: Event,
        /// The attempt's number, from 1.
        attempt: u32,
        /// Hosts lost so far, this one's predecessor included.
        host_losses: u32,
        /// In the isolation lane, in a process of its own.
        isolated: bool,
    },
    /// Write `parked` (or `interrupted`, from a dead owner): it waits in the database.
    Park {
        /// Which of the two.
        event: Event,
        /// What it waits for.
        code: WaitCode,
        /// More for programs.
        detail: Value,
    },
    /// Write `scheduled`: the database owns the wake-up. Only for a task without a row.
    Schedule,
    /// Write `failed` or `cancelled`.
    End {
        /// Which of the two.
        event: Event,
        /// Why, unless cancelled.
        failure: Option<Failure>,
    },
    /// Running in this very process, or claimed by it in a transaction whose answer was lost. Nothing is written.
    Mine,
    /// Nothing is written; acknowledge.
    Keep(Kept),
    /// The same id with another plugin, input or options: dead-letter the message. Nothing is written.
    Conflict,
}

/// Why an arrival changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The task has ended: a duplicate.
    Terminal,
    /// It waits for a later time; the scheduler will publish it.
    NotDue,
    /// Its owner's lease is valid; the rescuer will publish it should that lease expire.
    OwnedElsewhere,
    /// It is parked already, for the same reason.
    AlreadyParked,
}

/// The claim table. `row`: as it stands under lock, `None` if there is none; `now`: the database's clock.
pub fn decide(row: Option<&Row>, arrival: &Arrival, me: HostId, now: DateTime<Utc>) -> Decision {
    let Some(row) = row else { return decide_new(arrival, now) };
    if row.fingerprint.as_deref() != Some(arrival.message.fingerprint.as_slice()) {
        return Decision::Conflict;
    }
    decide_known(row, &arrival.runnable, me, now)
}

/// The same for a task that a relay published and whose message this host cannot use. Its row has the payload: it waits there for a host
/// that can, and says why.
pub fn decide_unusable(row: &Row, detail: &Value, me: HostId, now: DateTime<Utc>) -> Decision {
    if row.state == State::Pending && row.parked.is_some() {
        return Decision::Keep(Kept::AlreadyParked);
    }
    decide_known(row, &Runnable::NotHere { code: WaitCode::Held, detail: detail.clone() }, me, now)
}

/// Decides on a task that has a row.
fn decide_known(row: &Row, runnable: &Runnable, me: HostId, now: DateTime<Utc>) -> Decision {
    if row.state.is_terminal() {
        return Decision::Keep(Kept::Terminal);
    }
    if row.state == State::Running {
        if row.owner == Some(me) {
            return Decision::Mine;
        }
        if row.owner_alive {
            return Decision::Keep(Kept::OwnedElsewhere);
        }
    }
    if row.cancel_requested {
        return Decision::End { event: Event::Cancelled, failure: None };
    }
    if passed(row.deadline, now) {
        return expired(row.deadline);
    }
    match row.state {
        State::Running => take_over(row, runnable),
        State::Scheduled | State::Retrying if row.run_at.is_some_and(|at| at > now) => Decision::Keep(Kept::NotDue),
        _ => match runnable {
            Runnable::Never { failure } => Decision::End { event: Event::Failed, failure: Some(failure.clone()) },
            Runnable::Here { lane, .. } => run(row, Event::Running, row.host_losses, *lane),
            Runnable::NotHere { code, .. } if row.parked == Some(*code) => Decision::Keep(Kept::AlreadyParked),
            Runnable::NotHere { code, detail } => {
                Decision::Park { event: Event::Parked, code: *code, detail: detail.clone() }
            }
        },
    }
}

/// It can run here. One that was inside guests on hosts that died runs where it harms nobody, once there is room: so the
/// guilty one is known by construction, and its former neighbours pass.
fn run(row: &Row, event: Event, host_losses: u32, lane: bool) -> Decision {
    let isolated = retry::is_suspect(host_losses);
    if !isolated || lane {
        return Decision::Run { event, attempt: row.burnt + 1, host_losses, isolated };
    }
    let code = WaitCode::Isolation;
    match event {
        Event::Running if row.parked == Some(code) => Decision::Keep(Kept::AlreadyParked),
        Event::Running => Decision::Park { event: Event::Parked, code, detail: Value::Null },
        _ => Decision::Park { event: Event::Interrupted, code, detail: Value::Null },
    }
}

fn decide_new(arrival: &Arrival, now: DateTime<Utc>) -> Decision {
    let options = &arrival.message.options;
    if passed(options.deadline, now) {
        return expired(options.deadline);
    }
    if options.run_at.is_some_and(|at| at > now) {
        return Decision::Schedule;
    }
    match &arrival.runnable {
        Runnable::Never { failure } => Decision::End { event: Event::Failed, failure: Some(failure.clone()) },
        Runnable::Here { .. } => Decision::Run { event: Event::Running, attempt: 1, host_losses: 0, isolated: false },
        Runnable::NotHere { code, detail } => {
            Decision::Park { event: Event::Parked, code: *code, detail: detail.clone() }
        }
    }
}

/// Its owner's lease has expired.
fn take_over(row: &Row, runnable: &Runnable) -> Decision {
    // It is suspected, not convicted: a host that dies takes honest tasks with it. In the lane only a child's death counts,
    // while its parent lives, so the death of that parent adds nothing.
    let host_losses = (row.host_losses + 1).min(retry::SUSPECT_AFTER);
    match runnable {
        // The rescuer has it published anew.
        Runnable::Never { .. } => Decision::Keep(Kept::OwnedElsewhere),
        Runnable::Here { lane, .. } => run(row, Event::TakenOver, host_losses, *lane),
        Runnable::NotHere { code, detail } => {
            Decision::Park { event: Event::Interrupted, code: *code, detail: detail.clone() }
        }
    }
}

fn passed(deadline: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    deadline.is_some_and(|at| at <= now)
}

fn expired(deadline: Option<DateTime<Utc>>) -> Decision {
    Decision::End { event: Event::Failed, failure: Some(expiry(deadline)) }
}

/// The failure of a task whose deadline passed before it ran.
pub fn expiry(deadline: Option<DateTime<Utc>>) -> Failure {
    let at = deadline.map(|d| d.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)).unwrap_or_default();
    Failure::fatal(FailureKind::Expired, format!("its deadline {at} passed before it ran"))
        .with_detail(json!({"deadline": at}))
}

#[cfg(test)]
#[path = "claim_tests.rs"]
mod tests;
