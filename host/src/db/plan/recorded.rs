//! A first attempt that ran without a claim.

use super::super::Recording;
use super::super::fault::Fault;
use super::{Birth, Locked, Outcome};
use crate::task::{Arrival, Decision, HostId, State};
use chrono::{DateTime, Utc};

/// The columns of a [`Recording`].
#[derive(Debug)]
pub(in crate::db) struct Recorded<'a> {
    /// The row as a claim would have made it.
    pub birth: Birth<'a>,
    /// The end.
    pub outcome: Outcome<'a>,
    /// Microseconds from the attempt's beginning to now.
    pub ran_us: i64,
}

impl<'a> Recorded<'a> {
    /// The columns that a recording writes.
    pub fn of(recording: &'a Recording, host: HostId) -> Result<Recorded<'a>, Fault> {
        // Nothing is decided by the clock: a message that names a time is never run without a claim.
        let (decision, birth) = Birth::of_arrival(&recording.arrival, host, DateTime::<Utc>::UNIX_EPOCH)?;
        if !matches!(decision, Decision::Run { .. }) || Birth::needs_clock(&recording.arrival.message) {
            return Err(Fault::Defect(format!("{decision:?} for a task that ran without a claim")));
        }
        let outcome = Outcome::of(&recording.settlement)?;
        if outcome.outbox || !outcome.calls.is_empty() {
            return Err(Fault::Defect(format!("a task that ended as {} was to be recorded at once", outcome.event)));
        }
        Ok(Recorded { birth, outcome, ran_us: super::bounded(recording.ran).num_microseconds().unwrap_or(0) })
    }
}

/// Whether a row waits for its first attempt and nothing else: only then is the end of an attempt without a claim written.
pub(in crate::db) fn awaits_first_attempt(locked: &Locked, arrival: &Arrival, now: DateTime<Utc>) -> bool {
    let row = &locked.row;
    row.state == State::Pending
        && row.fence == 0
        && row.parked.is_none()
        && !row.cancel_requested
        && row.fingerprint.as_deref() == Some(arrival.message.fingerprint.as_slice())
        && row.deadline.is_none_or(|deadline| deadline > now)
}
