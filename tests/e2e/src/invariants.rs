//! What must hold whenever everything is at rest, whatever happened before. The state machine is written down here once
//! more, from the contract and not from the code.

use std::collections::BTreeSet;

use serde_json::Value;
use uuid::Uuid;

use crate::daemon::Daemon;
use crate::http::is_terminal;
use crate::patience::{eventually, holds};
use crate::site::{Mode, Site};

/// What a scenario expects of the whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// Dead letters.
    pub dead_letters: usize,
    /// Runs that a killed daemon may have cost each task.
    pub take_overs: usize,
}

/// Checks, and stops the daemon, which must end cleanly. `ids` are all tasks there are.
///
/// - I1: every task has one row, and it is terminal;
/// - I2, I3: its history is gapless, begins with a birth, ends with the one terminal event, and folds to its state;
/// - I4: nothing is left in the queue, neither ready nor unacknowledged, nor in the outbox;
/// - I5: attempts and take-overs are within their budgets;
/// - I6: nothing runs;
/// - I7: fences strictly increase from claim to claim;
/// - I8: nothing is dead-lettered without a reason.
pub async fn hold(site: &Site, daemon: Daemon, ids: &[Uuid], expected: Expected) {
    site.at_rest(ids).await;
    let database = site.database().await;

    let rows = database.tasks().await;
    let known: BTreeSet<_> = rows.keys().copied().collect();
    let asked: BTreeSet<_> = ids.iter().copied().collect();
    assert_eq!(known, asked, "I1: exactly the tasks that were submitted have a row");
    for (id, row) in &rows {
        assert!(is_terminal(&row.state), "I1, I6: {id} is {}", row.state);
    }

    let histories = database.events().await;
    assert_eq!(histories.len(), rows.len(), "I3: every task has a history, and nothing else has");
    for (id, row) in &rows {
        let history = &histories[id];
        check_history(history, &row.state, expected).unwrap_or_else(|broken| panic!("{broken}: {id} {history:?}"));
    }

    for id in sample(ids) {
        let task = daemon.http().task(id).await;
        let events = daemon.http().events(id).await;
        check_fences(&events).unwrap_or_else(|broken| panic!("I7: {broken}: {id} {events:?}"));
        let attempts = task["attempt"].as_u64().unwrap_or_default();
        assert!(attempts <= task["max_attempts"].as_u64().unwrap_or_default(), "I5: {task}");
    }

    let dead = database.dead_letters().await;
    assert_eq!(dead.len(), expected.dead_letters, "{dead:?}");
    assert!(dead.iter().all(|letter| !letter.reason.is_empty() && !letter.detail.is_empty()), "I8: {dead:?}");

    eventually("I4: the outbox is empty", async || {
        let rows = database.outbox().await;
        holds(rows == 0, || format!("{rows} rows"))
    })
    .await;
    // Once nobody holds messages, those that were never acknowledged are ready again.
    daemon.stop().await;
    if site.mode == Mode::Services {
        for queue in ["default", "default.returned"] {
            eventually(&format!("I4: the queue {queue} is empty"), async || {
                let (ready, consumers) = site.amqp().count(&site.queue(queue)).await?;
                holds(ready == 0 && consumers == 0, || format!("{ready} ready, {consumers} consumers"))
            })
            .await;
        }
        let dead = site.amqp().take_all(&site.queue("default.dead")).await;
        assert!(dead.len() >= expected.dead_letters, "I8: on the wire are {}", dead.len());
        assert!(dead.iter().all(|letter| !letter.header("agentry-reason").is_empty()), "I8: {dead:?}");
    }
}

/// At most fifty, spread over all.
fn sample(ids: &[Uuid]) -> impl Iterator<Item = Uuid> {
    ids.iter().copied().step_by(ids.len().div_ceil(50).max(1))
}

/// The state after an event, as the contract's table has it; `None`: there is no such transition.
fn next(from: Option<&str>, event: &str) -> Option<&'static str> {
    let waiting = matches!(from, Some("scheduled" | "pending" | "retrying"));
    let running = from == Some("running");
    match event {
        "scheduled" if from.is_none() => Some("scheduled"),
        "pending" | "parked" if from.is_none() || waiting => Some("pending"),
        "running" if from.is_none() || waiting => Some("running"),
        "taken_over" if running => Some("running"),
        "retrying" if running => Some("retrying"),
        "snoozed" if running => Some("scheduled"),
        "interrupted" if running => Some("pending"),
        "completed" if running => Some("completed"),
        "failed" if from.is_none() || waiting || running => Some("failed"),
        "cancelled" if waiting || running => Some("cancelled"),
        _ => None,
    }
}

/// Whether a history is gapless, possible, and folds to its state.
pub(crate) fn check_history(history: &[(i64, String)], state: &str, expected: Expected) -> Result<(), String> {
    let mut at: Option<&str> = None;
    for (place, (seq, event)) in (1..).zip(history) {
        if *seq != place {
            return Err(format!("I3: a gap before {seq}"));
        }
        let to = next(at, event);
        at = Some(to.ok_or_else(|| format!("I2, I3: {event} after {at:?}"))?);
    }
    if at != Some(state) {
        return Err(format!("I3: the history folds to {at:?} and the row is {state}"));
    }
    let taken_over = history.iter().filter(|(_, event)| event == "taken_over").count();
    if taken_over > expected.take_overs {
        return Err(format!("I5: taken over {taken_over} times"));
    }
    Ok(())
}

fn check_fences(events: &[Value]) -> Result<(), String> {
    let claims = events.iter().filter(|event| matches!(event["event"].as_str(), Some("running" | "taken_over")));
    let fences: Option<Vec<i64>> = claims.map(|event| event["fence"].as_i64()).collect();
    let fences = fences.ok_or("a claim without a fence")?;
    if fences.is_sorted_by(|one, next| one < next) { Ok(()) } else { Err(format!("fences {fences:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(events: &[&str]) -> Vec<(i64, String)> {
        (1..).zip(events).map(|(seq, event)| (seq, (*event).to_owned())).collect()
    }

    #[test]
    fn a_sound_history_is_accepted() {
        let events = history(&["pending", "running", "retrying", "pending", "running", "completed"]);
        assert_eq!(check_history(&events, "completed", Expected::default()), Ok(()));
    }

    #[test]
    fn a_broken_history_is_told() {
        let broken = |events: &[&str], state| check_history(&history(events), state, Expected::default()).unwrap_err();
        assert!(broken(&["pending", "running", "completed", "running"], "running").starts_with("I2"));
        assert!(broken(&["completed"], "completed").starts_with("I2"));
        assert!(broken(&["running"], "completed").starts_with("I3"));
        assert!(broken(&["running", "taken_over", "completed"], "completed").starts_with("I5"));
        let gap = [(1, "running".to_owned()), (3, "completed".to_owned())];
        assert!(check_history(&gap, "completed", Expected::default()).unwrap_err().starts_with("I3"));
    }

    #[test]
    fn fences_that_do_not_increase_are_told() {
        let events = |fences: [i64; 2]| fences.map(|fence| serde_json::json!({"event": "running", "fence": fence}));
        assert!(check_fences(&events([1, 2])).is_ok());
        assert!(check_fences(&events([2, 2])).is_err());
        assert!(check_fences(&[serde_json::json!({"event": "running", "fence": null})]).is_err());
    }
}
