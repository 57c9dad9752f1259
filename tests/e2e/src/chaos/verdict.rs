//! What is true when all is at rest: read from the database and from the broker, in whole sets, not task by task.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use uuid::Uuid;

use super::Plan;
use super::load::Promised;
use super::report::{Found, Report, Struck};
use super::stage::Stage;
use crate::database::{Database, TaskRow};
use crate::http::is_terminal;
use crate::invariants::{self, Expected};

/// Stops the daemons and looks.
pub async fn reach(stage: Stage, plan: Plan, began: Instant, struck: Struck, promised: Promised) -> Report {
    let database = stage.site.database().await;
    let mut found = Found {
        promised: promised.ids.len(),
        published_again: promised.again,
        fenced: fenced(&stage),
        ..Found::default()
    };
    rows(&database, &promised.ids, &mut found).await;
    claims(&database, &stage, &mut found).await;
    outside(&database, &mut found).await;
    ledger(&database, &stage, &mut found).await;
    let queues = ["default", "default.returned", "default.dead"].map(|queue| stage.site.queue(queue));
    let stage = stage.stopped(&mut found.violations).await;
    for queue in queues {
        // Once nobody holds messages, those that were never acknowledged are ready again.
        match stage.site.amqp().count(&queue).await {
            Ok((0, _)) => {}
            Ok((ready, _)) => found.violations.push(format!("I4: {ready} messages are left in {queue}")),
            Err(error) => found.violations.push(format!("I4: {queue} cannot be looked at: {error}")),
        }
    }
    Report::new(plan, began.elapsed(), struck, found)
}

/// I1, I2, I3, I5, I6.
async fn rows(database: &Database, promised: &[Uuid], found: &mut Found) {
    let rows = database.tasks().await;
    let histories = database.events().await;
    let asked: BTreeSet<_> = promised.iter().copied().collect();
    let lost: Vec<_> = asked.iter().filter(|id| !rows.get(*id).is_some_and(|row| is_terminal(&row.state))).collect();
    found.lost = lost.len();
    for id in lost.iter().take(5) {
        let state = rows.get(*id).map(|row| row.state.clone());
        found.violations.push(format!("I1: {id} was promised and is {state:?}: {:?}", histories.get(*id)));
    }
    let unknown = rows.keys().filter(|id| !asked.contains(*id)).count();
    if unknown > 0 {
        found.violations.push(format!("I1: {unknown} rows that nobody was promised"));
    }
    let mut broken = 0;
    for (id, row) in &rows {
        let history = histories.get(id).map(Vec::as_slice).unwrap_or_default();
        found.doubled += usize::from(history.iter().filter(|(_, event)| is_terminal(event)).count() > 1);
        let said = invariants::check_history(history, &row.state, Expected { dead_letters: 0, take_overs: usize::MAX })
            .and_then(|()| honest(row));
        if let Err(what) = said {
            broken += 1;
            if broken <= 5 {
                found.violations.push(format!("{what}: {id} {history:?}"));
            }
        }
    }
    if broken > 5 {
        found.violations.push(format!("and {} more such", broken - 5));
    }
    if found.doubled > 0 {
        found.violations.push(format!("I2: {} tasks have two outcomes", found.doubled));
    }
    let events = |name: &str| histories.values().flatten().filter(|(_, event)| event == name).count();
    found.runs = events("running") + events("taken_over");
    found.take_overs = events("taken_over");
    found.interrupted = events("interrupted");
    found.extra_runs = found.runs.saturating_sub(histories.len() + events("retrying") + events("snoozed"));
    if found.extra_runs != found.take_overs + found.interrupted {
        found.violations.push(format!("I5: {} extra runs, which take-overs do not explain", found.extra_runs));
    }
}

/// Every task of this load is honest: however often its hosts die, it completes in the end.
fn honest(row: &TaskRow) -> Result<(), String> {
    if row.state == "failed" || row.state == "cancelled" { Err(format!("I5: {}", row.state)) } else { Ok(()) }
}

/// What guests did, against what was claimed: nothing ran without a claim of its own, and what completed has run.
async fn ledger(database: &Database, stage: &Stage, found: &mut Found) {
    let Some(ledger) = &stage.ledger else { return };
    let mut began: BTreeMap<Uuid, usize> = BTreeMap::new();
    for (id, _) in ledger.beginnings() {
        *began.entry(id).or_default() += 1;
        found.began += 1;
    }
    let mut broken = Vec::new();
    for (id, history) in database.events().await {
        let claims = history.iter().filter(|(_, event)| event == "running" || event == "taken_over").count();
        let began = began.remove(&id).unwrap_or_default();
        if began > claims || began == 0 {
            broken.push(format!("ledger: {id} began {began} times and was claimed {claims} times: {history:?}"));
        }
    }
    broken.extend(began.iter().map(|(id, times)| format!("ledger: {id} began {times} times and has no row")));
    let more = broken.len().saturating_sub(5);
    found.violations.extend(broken.into_iter().take(5));
    if more > 0 {
        found.violations.push(format!("and {more} more such"));
    }
}

/// I5, I7: budgets and fences, and from whom tasks were taken over.
async fn claims(database: &Database, stage: &Stage, found: &mut Found) {
    let fences = "SELECT count(*) FROM (SELECT fence, lag(fence) OVER (PARTITION BY task_id ORDER BY seq) AS before \
                  FROM agentry.task_events WHERE event IN ('running', 'taken_over')) AS c WHERE before >= fence";
    let budgets = "SELECT count(*) FROM agentry.tasks WHERE burnt > max_attempts OR attempt < burnt";
    let attempts = "SELECT count(*) FROM (SELECT task_id FROM agentry.task_attempts WHERE ended = 'completed' \
                    GROUP BY task_id HAVING count(*) > 1) AS c";
    for (statement, what) in [
        (fences, "I7: claims whose fence does not grow"),
        (budgets, "I5: tasks beyond their attempts"),
        (attempts, "I2: tasks that completed twice"),
    ] {
        match database.number(statement).await {
            Ok(0) => {}
            Ok(number) => found.violations.push(format!("{what}: {number}")),
            Err(error) => found.violations.push(format!("{what}: cannot be told: {error}")),
        }
    }
    let marks: BTreeMap<u32, BTreeSet<&str>> = stage.marks.iter().fold(BTreeMap::new(), |mut marks, (pid, fault)| {
        marks.entry(*pid).or_default().insert(fault.name());
        marks
    });
    let taken = database
        .texts(
            "SELECT coalesce(h.name, '?'), count(*)::text FROM (SELECT event, lag(host) OVER (PARTITION BY task_id ORDER BY \
             seq) AS before FROM agentry.task_events WHERE event IN ('running', 'taken_over')) AS c LEFT JOIN agentry.hosts h \
             ON h.id = c.before WHERE event = 'taken_over' GROUP BY 1",
        )
        .await;
    for row in taken {
        let pid: Option<u32> = row[0].rsplit('/').next().and_then(|pid| pid.parse().ok());
        let done = pid.and_then(|pid| marks.get(&pid)).map(|done| done.iter().copied().collect::<Vec<_>>().join(", "));
        let times: usize = row[1].parse().unwrap_or_default();
        *found.taken_from.entry(done.unwrap_or_else(|| "hit only together with all".to_owned())).or_default() += times;
    }
}

/// I4, I8: what is left, and what was put aside.
async fn outside(database: &Database, found: &mut Found) {
    let outbox = database.outbox().await;
    if outbox > 0 {
        found.violations.push(format!("I4: {outbox} rows are left in the outbox"));
    }
    for letter in database.dead_letters().await.iter().take(5) {
        found.violations.push(format!("I8: nothing was unusable, and yet: {letter:?}"));
    }
}

fn fenced(stage: &Stage) -> usize {
    stage.actors.iter().map(|actor| actor.daemon.said().matches("fenced: ").count()).sum()
}
