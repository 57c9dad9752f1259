//! A brake that is set or released. Pure.

use super::super::{AuditEntry, BrakeChange, storable};
use chrono::{DateTime, Utc};

/// Bytes of a reason that are kept.
pub(in crate::db) const REASON_KEPT: usize = 2_000;

/// A row of `brakes`, without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::db) struct BrakeRow {
    pub actor: String,
    pub reason: Option<String>,
    pub set_at: DateTime<Utc>,
    pub released_at: Option<DateTime<Utc>>,
}

impl BrakeRow {
    /// The row after a change; `None`: nothing changes.
    pub fn after(row: Option<&BrakeRow>, change: &BrakeChange, now: DateTime<Utc>) -> Option<BrakeRow> {
        let held = row.filter(|row| row.released_at.is_none());
        let reason = change.reason.as_deref().map(|reason| storable::cut(reason, REASON_KEPT).into_owned());
        let actor = storable::text(&change.by).into_owned();
        match (held, change.set) {
            (None, false) => None,
            (None, true) => Some(BrakeRow { actor, reason, set_at: now, released_at: None }),
            (Some(held), false) => Some(BrakeRow { released_at: Some(now), ..held.clone() }),
            (Some(held), true) if reason.is_none() || reason == held.reason => None,
            (Some(held), true) => Some(BrakeRow { actor, reason, ..held.clone() }),
        }
    }
}

/// The record of a change of a brake.
pub(in crate::db) fn audit_of(change: &BrakeChange) -> AuditEntry {
    let (set, release) = change.kind.actions();
    AuditEntry {
        actor: change.by.clone(),
        action: if change.set { set } else { release }.to_owned(),
        target: change.target.clone(),
        count: None,
        reason: change.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::BrakeKind;

    #[test]
    fn brake_is_set_once_keeps_its_time_and_is_released_once() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let (first, later) = (at("2030-01-01T00:00:00Z"), at("2030-01-02T00:00:00Z"));
        let change = |set, by: &str, reason: Option<&str>| BrakeChange {
            kind: BrakeKind::Queue,
            target: "q".into(),
            set,
            by: by.into(),
            reason: reason.map(str::to_owned),
        };
        assert_eq!(BrakeRow::after(None, &change(false, "a", None), first), None);
        let set = BrakeRow::after(None, &change(true, "a", Some("x")), first).unwrap();
        assert_eq!((set.set_at, set.released_at), (first, None));
        assert_eq!(BrakeRow::after(Some(&set), &change(true, "b", None), later), None);
        assert_eq!(BrakeRow::after(Some(&set), &change(true, "b", Some("x")), later), None);
        let again = BrakeRow::after(Some(&set), &change(true, "b", Some("y")), later).unwrap();
        assert_eq!((again.actor.as_str(), again.reason.as_deref(), again.set_at), ("b", Some("y"), first));
        let released = BrakeRow::after(Some(&again), &change(false, "c", None), later).unwrap();
        assert_eq!(released, BrakeRow { released_at: Some(later), ..again });
        assert_eq!(BrakeRow::after(Some(&released), &change(false, "c", None), later), None);
        let anew = BrakeRow::after(Some(&released), &change(true, "c", None), later).unwrap();
        assert_eq!((anew.reason, anew.set_at, anew.released_at), (None, later, None));
    }
}
