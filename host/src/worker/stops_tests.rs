//! Brakes stop their targets, and nothing else.

use super::*;
use crate::brakes::InForce;
use crate::broker::{Message, Receipt, Source};
use crate::db::{BrakeKind, Brakes};
use crate::task::{Arrival, TaskMessage};
use crate::worker::execute::tests::shared;

fn apply(brakes: &InForce, targets: &[(BrakeKind, &str)]) {
    let held = targets.iter().map(|(kind, target)| Brake {
        kind: *kind,
        target: (*target).into(),
        by: "ops".into(),
        reason: Some("a test".into()),
        since: chrono::DateTime::UNIX_EPOCH,
    });
    brakes.apply(Brakes { change: brakes.now().change + 1, held: held.collect() });
}

fn plugin(text: &str) -> PluginRef {
    text.parse().unwrap()
}

fn candidate(queue: &str, name: &str) -> Candidate {
    let message = TaskMessage::assemble(None, name, "1", Default::default(), &Default::default()).unwrap();
    let runnable = Runnable::NotHere { code: WaitCode::NoSlot, detail: serde_json::Value::Null };
    Candidate::of(Arrival { message: Arc::new(message), queue: queue.into(), runnable, relayed: None }, None)
}

#[tokio::test(start_paused = true)]
async fn brakes_stop_their_targets_and_nothing_else() {
    let shared = shared();
    let brakes = shared.parts.brakes.clone();
    assert_eq!((shared.stopped("default"), shared.stopped_queues()), (None, Some(Vec::new())));
    apply(&brakes, &[(BrakeKind::Queue, "default"), (BrakeKind::Plugin, "a"), (BrakeKind::Plugin, "b@1.2.0")]);
    assert_eq!((shared.stopped("default"), shared.stopped("other")), (Some(Stop::Paused), None));
    assert_eq!(shared.stopped_queues(), Some(vec!["default".to_owned()]));
    assert!(shared.disabled(&plugin("a"), None).is_some() && shared.disabled(&plugin("a@^2"), Some("2.0.0")).is_some());
    assert!(shared.disabled(&plugin("b"), Some("1.2.0")).is_some());
    assert!(shared.disabled(&plugin("b"), Some("1.3.0")).is_none() && shared.disabled(&plugin("b"), None).is_none());
    assert!(shared.disabled(&plugin("c"), Some("1.2.0")).is_none());
    let host = shared.config.host.to_string();
    apply(&brakes, &[(BrakeKind::Host, host.as_str())]);
    assert_eq!((shared.stopped("other"), shared.stopped_queues()), (Some(Stop::Drained), None));
    let other = uuid::Uuid::nil().to_string();
    apply(&brakes, &[(BrakeKind::Host, other.as_str())]);
    assert_eq!(shared.stopped("other"), None, "another host is drained");
}

#[tokio::test(start_paused = true)]
async fn delivery_is_held_until_its_queue_goes_on_or_its_subscription_gives_back() {
    let shared = shared();
    let (flow, end) = (watch::Sender::new(Flow::Go), CancellationToken::new());
    assert_eq!(held(&shared, "default", flow.subscribe(), &end).await, Held::Released);
    apply(&shared.parts.brakes, &[(BrakeKind::Queue, "default")]);
    let wait = |shared: Arc<Shared>, flow: watch::Receiver<Flow>, end: CancellationToken| {
        tokio::spawn(async move { held(&shared, "default", flow, &end).await })
    };
    let waiting = wait(shared.clone(), flow.subscribe(), end.clone());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!waiting.is_finished(), "a short pause returns none");
    flow.send_replace(Flow::Hold);
    apply(&shared.parts.brakes, &[]);
    assert_eq!(waiting.await.unwrap(), Held::Released);
    apply(&shared.parts.brakes, &[(BrakeKind::Queue, "default")]);
    let waiting = wait(shared.clone(), flow.subscribe(), end.clone());
    flow.send_replace(Flow::GiveBack);
    assert_eq!(waiting.await.unwrap(), Held::GoesBack);
    flow.send_replace(Flow::Hold);
    let waiting = wait(shared.clone(), flow.subscribe(), end.clone());
    end.cancel();
    assert_eq!(waiting.await.unwrap(), Held::Ended);
}

#[tokio::test(start_paused = true)]
async fn flow_of_a_paused_queue_is_held_first_and_gives_back_later() {
    let shared = shared();
    let (queue, other): (Arc<str>, Arc<str>) = ("default".into(), "other".into());
    let (paused, free) = (watch::Sender::new(Flow::Go), watch::Sender::new(Flow::Go));
    let (_paused, _free) = (paused.subscribe(), free.subscribe());
    shared.flows.add(&shared, &queue, paused.clone());
    shared.flows.add(&shared, &other, free.clone());
    let holding = tokio::spawn(super::super::receive::hold(shared.clone()));
    let flows = async || {
        tokio::time::sleep(Duration::from_millis(1)).await;
        (*paused.borrow(), *free.borrow())
    };
    assert_eq!(flows().await, (Flow::Go, Flow::Go));
    apply(&shared.parts.brakes, &[(BrakeKind::Queue, "default")]);
    assert_eq!(flows().await, (Flow::Hold, Flow::Go));
    tokio::time::sleep(HELD).await;
    assert_eq!(flows().await, (Flow::GiveBack, Flow::Go));
    apply(&shared.parts.brakes, &[]);
    assert_eq!(flows().await, (Flow::Go, Flow::Go));
    let host = shared.config.host.to_string();
    apply(&shared.parts.brakes, &[(BrakeKind::Host, host.as_str())]);
    assert_eq!(flows().await, (Flow::GiveBack, Flow::GiveBack));
    shared.database_trouble.send_replace(Some("away".into()));
    apply(&shared.parts.brakes, &[]);
    assert_eq!(flows().await, (Flow::Hold, Flow::Hold));
    holding.abort();
}

#[tokio::test(start_paused = true)]
async fn batch_keeps_what_does_not_begin_by_it() {
    let shared = shared();
    apply(&shared.parts.brakes, &[(BrakeKind::Queue, "default")]);
    let rest = sorted_out(&shared, vec![candidate("default", "prompt"), candidate("other", "prompt")]).await;
    assert_eq!(rest.len(), 2, "to be parked is not to begin");
    let ready = async || crate::worker::execute::tests::ready(&shared).await;
    let mut begins = vec![candidate("default", "prompt"), candidate("other", "prompt")];
    for one in &mut begins {
        one.ready = Some(ready().await);
    }
    let delivery = Delivery {
        source: Source::Tasks("default".into()),
        message: Message::default(),
        redelivered: false,
        receipt: Receipt::new(1, 1),
        arrived: tokio::time::Instant::now(),
    };
    begins[0].delivery = Some(delivery);
    let rest = sorted_out(&shared, begins).await;
    assert_eq!(rest.iter().map(|one| &*one.arrival.queue).collect::<Vec<_>>(), ["other"]);
    apply(&shared.parts.brakes, &[(BrakeKind::Plugin, "prompt")]);
    let rest = sorted_out(&shared, rest).await;
    assert!(rest[0].ready.is_none(), "it holds no place while it waits");
    assert!(
        matches!(&rest[0].arrival.runnable, Runnable::NotHere { code: WaitCode::Paused, detail } if detail["brake"]["by"] == "ops")
    );
}
