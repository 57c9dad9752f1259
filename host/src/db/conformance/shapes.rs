//! The constraints and the transition function hold together.

use super::subject::*;
use crate::task::{Event, State, next};

const TIME: &str = "'2030-01-01T00:00:00.000000Z'";
const OWNER: &str = "'01020304-0000-4000-8000-000000000000'";

/// The columns that the state decides, in a shape that is right for it.
fn shape(state: State) -> Vec<(&'static str, String)> {
    let mut columns: Vec<(&str, String)> = vec![("state", format!("'{state}'"))];
    let free = ["owner", "started_at", "finished_at", "output", "failure", "run_at", "waiting_since", "waiting_code"];
    let of = |column: &str| -> &str {
        match (state, column) {
            (State::Running, "owner") => OWNER,
            (State::Running, "started_at") => TIME,
            (State::Completed | State::Failed | State::Cancelled, "finished_at") => TIME,
            (State::Completed, "output") => "'1'",
            (State::Failed | State::Retrying, "failure") => "'{}'",
            (State::Scheduled | State::Retrying, "run_at") => TIME,
            (State::Scheduled | State::Pending | State::Retrying, "waiting_since") => TIME,
            (State::Scheduled, "waiting_code") => "'scheduled'",
            (State::Retrying, "waiting_code") => "'backoff'",
            _ => "NULL",
        }
    };
    columns.extend(free.map(|column| (column, of(column).to_owned())));
    let (fence, attempt) = if state == State::Running { ("1", "1") } else { ("0", "0") };
    columns.extend([("fence", fence.to_owned()), ("attempt", attempt.to_owned()), ("burnt", "0".to_owned())]);
    columns
}

async fn insert(s: &Subject, columns: &[(&'static str, String)]) -> Result<String, String> {
    let id = id().to_string();
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let values: Vec<_> = columns.iter().map(|(_, value)| value.as_str()).collect();
    let sql = format!(
        "INSERT INTO tasks (id, plugin, plugin_name, queue, max_attempts, created_at, {}) VALUES ('{id}', 'a', 'a', 'q', 3, \
         {TIME}, {})",
        names.join(", "),
        values.join(", ")
    );
    s.back_door.execute(&sql).await.map(|_| id)
}

pub async fn every_well_formed_row_is_accepted_and_every_legal_transition_between_them(s: &Subject) {
    for event in Event::ALL {
        for from in State::ALL.map(Some).into_iter().chain([None]) {
            let Ok(to) = next(from, event) else { continue };
            let target = shape(to);
            let id = match from {
                None => insert(s, &target).await.unwrap(),
                Some(from) => {
                    let id = insert(s, &shape(from)).await.unwrap();
                    let sets: Vec<_> = target.iter().map(|(name, value)| format!("{name} = {value}")).collect();
                    let sql = format!("UPDATE tasks SET {} WHERE id = '{id}'", sets.join(", "));
                    assert_eq!(s.back_door.execute(&sql).await.unwrap(), 1);
                    id
                }
            };
            let sql =
                format!("INSERT INTO task_events (task_id, seq, at, event) VALUES ('{id}', 1, {TIME}, '{event}')");
            s.back_door.execute(&sql).await.unwrap();
        }
    }
    assert_eq!(s.back_door.number("SELECT count(DISTINCT state) FROM tasks").await, State::ALL.len() as i64);
    assert_eq!(s.back_door.number("SELECT count(DISTINCT event) FROM task_events").await, Event::ALL.len() as i64);
}

pub async fn every_malformed_row_is_refused(s: &Subject) {
    use State::*;
    let bad: &[(State, &str, &str)] = &[
        (Running, "owner", "NULL"),
        (Running, "started_at", "NULL"),
        (Running, "fence", "0"),
        (Running, "attempt", "0"),
        (Running, "finished_at", TIME),
        (Running, "waiting_since", TIME),
        (Running, "waiting_code", "'queued'"),
        (Running, "output", "'1'"),
        (Pending, "waiting_since", "NULL"),
        (Pending, "waiting_code", "'backoff'"),
        (Pending, "waiting_code", "'nonsense'"),
        (Pending, "finished_at", TIME),
        (Scheduled, "run_at", "NULL"),
        (Scheduled, "waiting_code", "NULL"),
        (Scheduled, "waiting_code", "'no_plugin'"),
        (Retrying, "run_at", "NULL"),
        (Retrying, "failure", "NULL"),
        (Retrying, "waiting_code", "NULL"),
        (Completed, "output", "NULL"),
        (Completed, "failure", "'{}'"),
        (Completed, "finished_at", "NULL"),
        (Failed, "failure", "NULL"),
        (Failed, "finished_at", "NULL"),
        (Failed, "output", "'1'"),
        (Cancelled, "finished_at", "NULL"),
        (Cancelled, "output", "'1'"),
        (Pending, "state", "'PENDING'"),
        (Pending, "state", "'done'"),
        (Pending, "state", "NULL"),
        (Running, "burnt", "2"),
        (Pending, "fence", "-1"),
    ];
    for (state, column, value) in bad {
        let mut columns = shape(*state);
        for (name, was) in &mut columns {
            if name == column {
                assert_ne!(was, value, "{state} {column} is not made bad");
                *was = (*value).to_owned();
            }
        }
        assert!(insert(s, &columns).await.is_err(), "{state} with {column} = {value} was accepted");
    }
    assert_eq!(s.back_door.number("SELECT count(*) FROM tasks").await, 0);
    insert(s, &shape(Pending)).await.unwrap();
    for bad in ["priority = 10", "priority = -1", "max_attempts = 0", "max_attempts = 101", "last_seq = 0"] {
        assert!(s.back_door.execute(&format!("UPDATE tasks SET {bad}")).await.is_err(), "{bad} was accepted");
    }
    let event = format!("INSERT INTO task_events (task_id, seq, at, event) VALUES ({OWNER}, 1, {TIME}, 'vanished')");
    assert!(s.back_door.execute(&event).await.is_err());
    let attempt = format!(
        "INSERT INTO task_attempts (task_id, fence, attempt, host, started_at, finished_at, ended)
         VALUES ({OWNER}, 1, 1, {OWNER}, {TIME}, {TIME}, 'vanished')"
    );
    assert!(s.back_door.execute(&attempt).await.is_err());
}
