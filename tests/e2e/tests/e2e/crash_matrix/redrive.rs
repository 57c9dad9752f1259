//! Dead letters that are delivered again while the daemon dies or loses an answer; and once more, as an operator would.

use std::collections::BTreeSet;

use e2e::invariants::{self, Expected};
use e2e::ledger::Ledger;
use e2e::{Mode, Site, Task, eventually, probe, task};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Cell, Outcome, base, count, setup, strike};

/// More than the fault's hit: some are redriven before it, and some are left behind it.
const LETTERS: usize = 4;

/// Each letter is redriven exactly once: one task under one id, which completes.
pub async fn redrive(cell: Cell) -> Outcome {
    let site = Site::new(Mode::Services).await;
    let ledger = Ledger::in_folder(site.folder());
    // They ask for more time than this daemon gives; the next one gives it.
    let first = base(&site, &ledger, "first").set("limits.max.timeout_seconds", 400).start().await;
    let dead: Vec<Task> = (0..LETTERS).map(|_| probe::sleep(40).option("timeout_seconds", 500)).collect();
    site.publish(&dead).await;
    let database = site.database().await;
    eventually("all are dead letters", async || match database.dead_letters().await.len() {
        LETTERS => Ok(()),
        n => Err(format!("{n} letters")),
    })
    .await;
    site.at_rest(&task::ids(&dead)).await;
    first.stop().await;

    let mut daemon = setup(&site, &ledger, &cell).start().await;
    let (http, all) = (daemon.http().clone(), json!({"reason": "bad_options"}));
    // The daemon may die under it, or never answer: whatever it says is not to be relied upon.
    let (_, struck) = tokio::join!(http.try_post("/v1/dead/redrive", &all), strike(&site, &cell, &ledger, &mut daemon));
    let again = daemon.http().post("/v1/dead/redrive", &all).await.expect(200);
    let outcomes: Vec<&Value> =
        again["letters"].as_array().expect("letters").iter().map(|one| &one["outcome"]).collect();
    assert!(outcomes.iter().all(|outcome| **outcome == "redriven"), "{again}");
    let nothing = daemon.http().post("/v1/dead/redrive", &all).await.expect(200);
    assert_eq!(nothing["letters"], json!([]), "no letter waits");

    let letters = database
        .texts("SELECT redriven_as::text, redrives::text, (redriven_at IS NOT NULL)::text FROM agentry.dead_letters")
        .await;
    assert!(letters.iter().all(|letter| letter[1..] == ["1", "true"]), "each is redriven once: {letters:?}");
    let new: BTreeSet<Uuid> = letters.iter().map(|letter| letter[0].parse().expect("an id")).collect();
    assert_eq!(new.len(), LETTERS, "each under an id of its own: {letters:?}");
    let ids: Vec<Uuid> = task::ids(&dead).into_iter().chain(new.iter().copied()).collect();
    site.at_rest(&ids).await;
    let mut rows = database.tasks().await;
    assert!(dead.iter().all(|task| rows[&task.id].state == "failed"), "a terminal task never changes: {rows:?}");
    rows.retain(|id, _| new.contains(id));
    assert!(rows.values().all(|row| row.state == "completed"), "{rows:?}");
    let outcome = count(&ledger, &cell, &rows, &struck);
    let expected = Expected { dead_letters: LETTERS, take_overs: 1, ..Expected::default() };
    invariants::hold_with(&site, daemon, &ids, expected, struck.kept(&ledger)).await;
    outcome
}
