//! The fixed words of labels.

use crate::db::ClaimAnswer;
use crate::task::Decision;
use crate::task::claim::Kept;

/// A part of a task's way through this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// From its delivery to the beginning of its run, or of its claim where that comes first.
    Wait,
    /// Until its claim is committed.
    Claim,
    /// Until its guest has ended.
    Run,
    /// Until its end is committed.
    Settle,
    /// Until its acknowledgement is written to the broker's connection.
    Acknowledge,
}

impl Leg {
    /// Every leg, in the order of a task's way.
    pub const ALL: [Leg; 5] = [Leg::Wait, Leg::Claim, Leg::Run, Leg::Settle, Leg::Acknowledge];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Leg::Wait => "wait",
            Leg::Claim => "claim",
            Leg::Run => "run",
            Leg::Settle => "settle",
            Leg::Acknowledge => "acknowledge",
        }
    }
}

/// A step that works in batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Claims.
    Claim,
    /// First attempts that ran without a claim.
    Record,
    /// Ends of claimed attempts.
    Settle,
    /// Acknowledgements.
    Acknowledge,
}

impl Step {
    /// Every step, in the order of a task's way.
    pub const ALL: [Step; 4] = [Step::Claim, Step::Record, Step::Settle, Step::Acknowledge];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Step::Claim => "claim",
            Step::Record => "record",
            Step::Settle => "settle",
            Step::Acknowledge => "acknowledge",
        }
    }
}

/// Result of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Run,
    Mine,
    Duplicate,
    NotDue,
    Owned,
    Parked,
    Scheduled,
    Ended,
    Conflict,
    Refused,
}

impl Claim {
    pub const ALL: [Claim; 10] = {
        use Claim::*;
        [Run, Mine, Duplicate, NotDue, Owned, Parked, Scheduled, Ended, Conflict, Refused]
    };

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Claim::Run => "run",
            Claim::Mine => "mine",
            Claim::Duplicate => "duplicate",
            Claim::NotDue => "not_due",
            Claim::Owned => "owned",
            Claim::Parked => "parked",
            Claim::Scheduled => "scheduled",
            Claim::Ended => "ended",
            Claim::Conflict => "conflict",
            Claim::Refused => "refused",
        }
    }

    pub fn of(answer: &ClaimAnswer) -> Claim {
        match answer {
            ClaimAnswer::Run(_) => Claim::Run,
            ClaimAnswer::Mine(_) | ClaimAnswer::Done(Decision::Mine) => Claim::Mine,
            ClaimAnswer::Done(Decision::Run { .. }) => Claim::Run,
            ClaimAnswer::Done(Decision::Park { .. }) | ClaimAnswer::Done(Decision::Keep(Kept::AlreadyParked)) => {
                Claim::Parked
            }
            ClaimAnswer::Done(Decision::Schedule) => Claim::Scheduled,
            ClaimAnswer::Done(Decision::End { .. }) => Claim::Ended,
            ClaimAnswer::Done(Decision::Keep(Kept::Terminal)) => Claim::Duplicate,
            ClaimAnswer::Done(Decision::Keep(Kept::NotDue)) => Claim::NotDue,
            ClaimAnswer::Done(Decision::Keep(Kept::OwnedElsewhere)) => Claim::Owned,
            ClaimAnswer::Conflict | ClaimAnswer::Done(Decision::Conflict) => Claim::Conflict,
            ClaimAnswer::Refused(_) => Claim::Refused,
        }
    }
}

/// Outcome of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replied {
    /// The broker confirmed it.
    Published,
    /// Its queue does not exist.
    Unroutable,
    /// Its queue did not accept it for as long as it is tried.
    Expired,
}
