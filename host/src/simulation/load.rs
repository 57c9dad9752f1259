//! What producers and operators do.

use super::expectation::{Deed, Promise};
use super::guests::{EVERYWHERE, FIRST, NOWHERE};
use super::world::World;
use crate::broker::{Message, Publication, Target};
use crate::db::{Db, NewTask};
use crate::task::limits::MessageLimits;
use crate::task::{Options, TaskId, TaskMessage};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Publish, submit and cancel until the world is calm, and until everything that was begun is confirmed.
pub async fn run(world: Arc<World>) {
    let mut under_way = tokio::task::JoinSet::new();
    while !world.is_calm() {
        tokio::time::sleep(world.chance.millis(1..2 * world.swarm.every)).await;
        match world.chance.below(100) {
            0..4 => drop(under_way.spawn(unusable(world.clone()))),
            4..13 => drop(under_way.spawn(cancel(world.clone()))),
            13..24 => drop(under_way.spawn(submit(world.clone(), task(&world)))),
            _ => drop(under_way.spawn(publish(world.clone(), task(&world)))),
        }
        while under_way.try_join_next().is_some() {}
        // More would only wait in line, and the calm would be longer than the storm.
        while !world.is_calm() && open(&world) >= world.swarm.open {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    under_way.join_all().await;
}

fn open(world: &World) -> usize {
    let tables = world.db.look();
    let ended = |id: &TaskId| tables.tasks.get(id).is_some_and(|task| task.state.is_terminal());
    world.promises().keys().filter(|id| !ended(id)).count()
}

/// A task, and what may become of it.
fn task(world: &World) -> (TaskMessage, Promise) {
    let chance = &world.chance;
    let (deed, length) = match chance.below(100) {
        0..45 => (Deed::End, chance.millis(1..60)),
        45..56 => (Deed::End, chance.millis(60..1_500)),
        56..66 => (Deed::EndLate, chance.millis(2_000..9_000)),
        66..76 => (Deed::FailTwice, chance.millis(1..100)),
        76..82 => (Deed::Fail, chance.millis(1..100)),
        82..86 => (Deed::FailAlways, chance.millis(1..100)),
        86..92 => (Deed::Snooze, chance.millis(1..100)),
        92..93 => (Deed::Kill, Duration::ZERO),
        _ => (Deed::End, Duration::from_millis(1)),
    };
    let plugin = match chance.below(20) {
        0 => NOWHERE,
        1..3 => FIRST,
        _ => EVERYWHERE[chance.below(EVERYWHERE.len())],
    };
    let run_at = chance.percent(8.0).then(|| world.now() + chance.millis(100..5_000));
    let limited = chance.percent(10.0);
    let deadline = limited.then(|| run_at.unwrap_or_else(|| world.now()) + chance.millis(1..8_000));
    let options = Options {
        priority: chance.percent(20.0).then(|| chance.below(10) as u8),
        run_at,
        deadline,
        ..Options::default()
    };
    let input = json!({"do": deed.word(), "for": length.as_millis() as u64}).to_string();
    let message = TaskMessage::assemble(Some(chance.id()), plugin, &input, options, &MessageLimits::default());
    let nowhere = plugin == NOWHERE;
    (message.expect("a good message"), Promise { deed, nowhere, limited, cancelled: false })
}

fn publication(id: TaskId, body: Vec<u8>) -> Publication {
    let message = Message {
        body: body.into(),
        content_type: Some("application/json".into()),
        message_id: Some(id.to_string()),
        ..Message::default()
    };
    Publication { target: Target::Tasks("default".into()), message }
}

/// Until the broker has confirmed it.
async fn confirmed(world: &World, publication: Publication) {
    while world.server.publish(publication.clone()).is_err() {
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}

async fn publish(world: Arc<World>, (task, promise): (TaskMessage, Promise)) {
    let publication = publication(task.id, task.encode());
    confirmed(&world, publication.clone()).await;
    world.promises().insert(task.id, promise);
    if world.happens(world.swarm.twice) {
        tokio::time::sleep(world.chance.millis(0..6_000)).await;
        world.count("published twice");
        confirmed(&world, publication).await;
    }
    if world.happens(2.0) {
        // The same deed under the same id, and another message all the same.
        world.count("published in conflict");
        let mut other: serde_json::Value = serde_json::from_slice(&task.encode()).expect("it was encoded here");
        other["input"]["other"] = true.into();
        confirmed(&world, self::publication(task.id, other.to_string().into())).await;
    }
}

async fn unusable(world: Arc<World>) {
    let id = world.chance.id();
    confirmed(&world, publication(id, b"{\"plugin\": ".to_vec())).await;
    world.unusable().insert(id);
}

/// A client of the API: it asks again under the same id until it hears an answer.
async fn submit(world: Arc<World>, (task, promise): (TaskMessage, Promise)) {
    let id = task.id;
    let task = NewTask { max_attempts: 3, message: task, queue: "default".into(), retry_of: None };
    let call = || async { world.db.submit(std::slice::from_ref(&task)).await.is_ok() };
    asked(&world, call).await;
    world.count("submitted");
    world.promises().insert(id, promise);
}

async fn cancel(world: Arc<World>) {
    let known: Vec<TaskId> = world.promises().keys().copied().collect();
    if known.is_empty() {
        return;
    }
    let id = *world.chance.one(&known);
    if let Some(promise) = world.promises().get_mut(&id) {
        promise.cancelled = true;
    }
    asked(&world, || async { world.db.cancel(id).await.is_ok() }).await;
    world.count("cancel asked for");
}

/// Over an API that may be down, and whose answer may be lost.
async fn asked<F: Future<Output = bool>>(world: &World, call: impl Fn() -> F) {
    loop {
        tokio::time::sleep(world.delay()).await;
        let heard = !world.database_is_down() && call().await && !world.happens(world.swarm.lost);
        if heard {
            return;
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}
