//! What every broker must do, written once and run against each.

use super::{Broker, Delivery, Message, Publication, PublishError, QueueFacts, Source, Subscription, Target};
use async_trait::async_trait;
use futures_util::FutureExt;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Where a broker lives: opened again, it is the same queues.
#[async_trait]
pub(super) trait Place: Send + Sync {
    async fn open(&self) -> Arc<dyn Broker>;
    /// Leave nothing behind.
    async fn clean(&self);
}

/// Run a test and clean up after it, also after a failed one.
pub(super) async fn tidily<P: Place>(place: P, test: impl AsyncFnOnce(&P)) {
    let outcome = AssertUnwindSafe(test(&place)).catch_unwind().await;
    place.clean().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// One test per function of the suite.
macro_rules! conformance_suite {
    ($place:expr => $($name:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $crate::broker::conformance::tidily($place.await, async |place| {
                $crate::broker::conformance::$name(place).await
            })
            .await;
        }
    )+};
    ($place:expr) => {
        $crate::broker::conformance::conformance_suite! { $place =>
            a_published_message_is_delivered_acknowledged_and_gone,
            what_is_not_acknowledged_comes_again_when_the_subscription_ends,
            what_is_not_acknowledged_comes_again_after_a_restart,
            what_was_never_delivered_is_there_after_a_restart,
            what_is_given_back_comes_again_at_once,
            no_more_than_prefetch_are_unacknowledged,
            messages_come_in_the_order_they_were_published,
            several_subscriptions_share_a_queue,
            a_paused_subscription_takes_nothing_and_a_resumed_one_does,
            what_a_dropped_subscription_had_read_may_still_be_acknowledged,
            a_stale_receipt_is_counted_and_harms_nobody,
            acknowledgements_may_come_in_any_order,
            only_the_unroutable_of_a_batch_fail,
            unroutable_ones_are_told_apart_in_a_large_batch,
            properties_and_headers_survive,
            facts_count_what_waits_and_who_consumes,
            a_dead_letter_goes_to_the_queue_of_the_dead,
            a_large_body_arrives_whole,
            ten_thousand_messages_pass_in_order,
            many_publish_at_once,
            a_closed_broker_says_so,
        }
    };
}
pub(super) use conformance_suite;

/// One setting for all waiting: `AGENTRY_TEST_PATIENCE` multiplies it on slow machines.
pub(super) fn patience(seconds: u64) -> Duration {
    let factor: f64 = std::env::var("AGENTRY_TEST_PATIENCE").ok().and_then(|p| p.parse().ok()).unwrap_or(1.0);
    Duration::from_secs(seconds).mul_f64(factor)
}

/// Bound a wait and say what it was for.
pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(patience(30), future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {:?} for {what}", patience(30)),
    }
}

/// Ask until the answer is right.
pub(super) async fn eventually<T: std::fmt::Debug>(
    what: &str,
    ask: impl AsyncFn() -> T,
    right: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + patience(30);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        let answer = ask().await;
        if right(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {:?} for {what}; at last: {answer:?}", patience(30));
    }
}

pub(super) fn tasks() -> Source {
    Source::Tasks("q".into())
}

pub(super) fn message(body: impl Into<Vec<u8>>) -> Message {
    Message { body: body.into().into(), ..Message::default() }
}

pub(super) fn task(body: impl Into<Vec<u8>>) -> Publication {
    Publication { target: Target::Tasks("q".into()), message: message(body) }
}

pub(super) async fn publish(broker: &dyn Broker, bodies: impl IntoIterator<Item = String>) {
    let results = soon("confirms", broker.publish(bodies.into_iter().map(task).collect())).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

pub(super) fn numbers(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|i| i.to_string())
}

pub(super) async fn next(subscription: &mut Subscription) -> Delivery {
    soon("a delivery", subscription.deliveries.recv()).await.expect("the broker is open")
}

pub(super) async fn take(subscription: &mut Subscription, n: usize) -> Vec<Delivery> {
    let mut taken = Vec::with_capacity(n);
    for _ in 0..n {
        taken.push(next(subscription).await);
    }
    taken
}

pub(super) fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.body.to_vec()).expect("text")
}

fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(body).collect()
}

pub(super) async fn acknowledge(broker: &dyn Broker, deliveries: impl IntoIterator<Item = Delivery>) {
    let receipts: Vec<_> = deliveries.into_iter().map(|d| d.receipt).collect();
    let n = receipts.len();
    let done = soon("acknowledgements", broker.acknowledge(receipts)).await;
    assert_eq!((done.sent, done.stale), (n, 0));
}

pub(super) async fn ready(broker: &dyn Broker, n: u32) {
    let facts = eventually(
        "messages that wait",
        async || broker.facts(tasks()).await,
        |facts| facts.as_ref().is_ok_and(|f| f.ready == n),
    );
    facts.await.expect("right");
}

async fn start(place: &impl Place) -> Arc<dyn Broker> {
    let broker = place.open().await;
    broker.declare(&["q".into()]).await.expect("declared");
    broker
}

async fn subscribe(broker: &dyn Broker, prefetch: u16) -> Subscription {
    let mut subscription = broker.subscribe(tasks(), prefetch).await.expect("subscribed");
    soon("the consumer", subscription.confirmed.wait_for(Option::is_some)).await.expect("open");
    subscription
}

pub(super) async fn a_published_message_is_delivered_acknowledged_and_gone(place: &impl Place) {
    let broker = start(place).await;
    publish(&*broker, ["hello".into()]).await;
    let mut subscription = subscribe(&*broker, 10).await;
    let delivery = next(&mut subscription).await;
    assert_eq!((body(&delivery).as_str(), delivery.redelivered), ("hello", false));
    assert_eq!(delivery.source, tasks());
    acknowledge(&*broker, [delivery]).await;
    soon("the end", subscription.end()).await;
    let gone =
        eventually("nothing to be left", async || broker.facts(tasks()).await.unwrap(), |f| f.consumers == 0).await;
    assert_eq!(gone.ready, 0);
    broker.close().await;
    let broker = place.open().await;
    ready(&*broker, 0).await;
    broker.close().await;
}

pub(super) async fn what_is_not_acknowledged_comes_again_when_the_subscription_ends(place: &impl Place) {
    let broker = start(place).await;
    publish(&*broker, numbers(0..3)).await;
    let mut first = subscribe(&*broker, 10).await;
    let mut taken = take(&mut first, 2).await;
    acknowledge(&*broker, taken.drain(..1)).await;
    soon("the end", first.end()).await;
    ready(&*broker, 2).await;
    let mut second = subscribe(&*broker, 10).await;
    let again = take(&mut second, 2).await;
    assert_eq!(bodies(&again), ["1", "2"]);
    assert!(again[0].redelivered);
    broker.close().await;
}

pub(super) async fn what_is_not_acknowledged_comes_again_after_a_restart(place: &impl Place) {
    let broker = start(place).await;
    publish(&*broker, numbers(0..3)).await;
    let mut subscription = subscribe(&*broker, 10).await;
    let mut taken = take(&mut subscription, 3).await;
    acknowledge(&*broker, [taken.remove(1)]).await;
    broker.close().await;
    assert!(soon("the end of deliveries", subscription.deliveries.recv()).await.is_none());

    let broker = start(place).await;
    let mut subscription = subscribe(&*broker, 10).await;
    let again = take(&mut subscription, 2).await;
    assert_eq!(
        again.iter().map(|d| (body(d), d.redelivered)).collect::<Vec<_>>(),
        [("0".into(), true), ("2".into(), true)]
    );
    acknowledge(&*broker, again).await;
    broker.close().await;
}

pub(super) async fn what_was_never_delivered_is_there_after_a_restart(place: &impl Place) {
    let broker = start(place).await;
    publish(&*broker, numbers(0..20)).await;
    broker.close().await;
    let broker = place.open().await;
    let mut subscription = subscribe(&*broker, 20).await;
    let taken = take(&mut subscription, 20).await;
    assert_eq!(bodies(&taken), numbers(0..20).collect::<Vec<_>>());
    assert!(taken.iter().all(|d| !d.redelivered));
    acknowledge(&*broker, taken).await;
    broker.close().await;
}

pub(super) async fn what_is_given_back_comes_again_at_once(place: &impl Place) {
    let broker = start(place).await;
    publish(&*broker, numbers(0..5)).await;
    let mut subscription = subscribe(&*broker, 5).await;
    let mut taken = take(&mut subscription, 5).await;
    let back = [taken.remove(3), taken.remove(1)].map(|d| d.receipt);
    let done = broker.give_back(back.into()).await;
    assert_eq!((done.sent, done.stale), (2, 0));
    let again = take(&mut subscription, 2).await;
    assert_eq!(bodies(&again).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(["1".into(), "3".into()]));
    assert!(again.iter().all(|d| d.redelivered));
    acknowledge(&*broker, taken.into_iter().chain(again)).await;
    soon("the end", subscription.end()).await;
    ready(&*broker, 0).await;
    broker.close().await;
}

pub(super) async fn no_more_than_prefetch_are_unacknowledged(place: &impl Place) {
    let broker = start(place).await;
    publish(&*broker, numbers(0..10)).await;
    let mut subscription = subscribe(&*broker, 3).await;
    let mut taken = take(&mut subscription, 3).await;
    // Seven wait at the broker and three are held, so there is none on its way.
    ready(&*broker, 7).await;
    assert!(subscription.deliveries.try_recv().is_err());
    acknowledge(&*broker, [taken.remove(1)]).await;
    taken.push(next(&mut subscription).await);
    ready(&*broker, 6).await;
    assert!(subscription.deliveries.try_recv().is_err());
    assert_eq!(bodies(&taken), ["0", "2", "3"]);
    broker.close().await;
}

pub(super) async fn messages_come_in_the_order_they_were_published(place: &impl Place) {
    let broker = start(place).await;
    publish(&*broker, numbers(0..300)).await;
    publish(&*broker, numbers(300..301)).await;
    let mut subscription = subscribe(&*broker, 50).await;
    for i in 0..301 {
        let delivery = next(&mut subscription).await;
        assert_eq!(body(&delivery), i.to_string());
        acknowledge(&*broker, [delivery]).await;
    }
    broker.close().await;
}

pub(super) async fn several_subscriptions_share_a_queue(place: &impl Place) {
    let broker = start(place).await;
    let mut one = subscribe(&*broker, 2).await;
    let mut two = subscribe(&*broker, 2).await;
    publish(&*broker, numbers(0..40)).await;
    let (mut seen, mut of_one, mut of_two) = (BTreeSet::new(), 0, 0);
    while seen.len() < 40 {
        let delivery = tokio::select! {
            delivery = next(&mut one) => { of_one += 1; delivery }
            delivery = next(&mut two) => { of_two += 1; delivery }
        };
        assert!(seen.insert(body(&delivery)), "delivered twice: {delivery:?}");
        acknowledge(&*broker, [delivery]).await;
    }
    assert!(of_one > 0 && of_two > 0, "{of_one} and {of_two}");
    broker.close().await;
}

pub(super) async fn a_paused_subscription_takes_nothing_and_a_resumed_one_does(place: &impl Place) {
    let broker = start(place).await;
    let mut subscription = subscribe(&*broker, 4).await;
    publish(&*broker, numbers(0..10)).await;
    let held = take(&mut subscription, 2).await;
    subscription.pause.send_replace(true);
    soon("the pause", subscription.confirmed.wait_for(Option::is_none)).await.unwrap();
    // One may stand in the reader's channel already; the rest is back at the broker.
    let facts = eventually(
        "what was buffered to be given back",
        async || broker.facts(tasks()).await.unwrap(),
        |f| {
            // RabbitMQ counts a cancelled consumer of a quorum queue for as long as messages are out with it.
            f.ready >= 7
        },
    )
    .await;
    let standing = subscription.deliveries.try_recv().ok();
    assert_eq!(facts.ready as usize + usize::from(standing.is_some()), 8);
    // What the reader has is his, also while it is paused.
    let mut standing: Vec<Delivery> = standing.into_iter().collect();
    acknowledge(&*broker, held.into_iter().chain(standing.drain(..))).await;
    assert!(subscription.deliveries.try_recv().is_err());
    subscription.pause.send_replace(false);
    soon("the resumption", subscription.confirmed.wait_for(Option::is_some)).await.unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..facts.ready {
        let delivery = next(&mut subscription).await;
        seen.insert(body(&delivery));
        acknowledge(&*broker, [delivery]).await;
    }
    assert_eq!(seen.len(), facts.ready as usize);
    ready(&*broker, 0).await;
    broker.close().await;
}

pub(super) async fn what_a_dropped_subscription_had_read_may_still_be_acknowledged(place: &impl Place) {
    let broker = start(place).await;
    publish(&*broker, numbers(0..8)).await;
    let mut subscription = subscribe(&*broker, 5).await;
    let held = take(&mut subscription, 2).await;
    drop(subscription);
    // What nobody has read goes back, and only that.
    ready(&*broker, 6).await;
    acknowledge(&*broker, held).await;
    let mut subscription = subscribe(&*broker, 10).await;
    let rest = take(&mut subscription, 6).await;
    assert_eq!(bodies(&rest).into_iter().collect::<BTreeSet<_>>(), numbers(2..8).collect());
    broker.close().await;
}

pub(super) async fn a_stale_receipt_is_counted_and_harms_nobody(place: &impl Place) {
    let broker = start(place).await;
    publish(&*broker, numbers(0..2)).await;
    let mut first = subscribe(&*broker, 1).await;
    let stale = next(&mut first).await;
    soon("the end", first.end()).await;
    let mut second = subscribe(&*broker, 1).await;
    let alive = next(&mut second).await;
    assert_eq!(body(&alive), "0");
    let done = broker.acknowledge(vec![stale.receipt]).await;
    assert_eq!((done.sent, done.stale), (0, 1));
    // The live one of the same message is untouched.
    acknowledge(&*broker, [alive]).await;
    let last = next(&mut second).await;
    assert_eq!(body(&last), "1");
    acknowledge(&*broker, [last]).await;
    assert!(second.confirmed.borrow().is_some());
    broker.close().await;
}

pub(super) async fn acknowledgements_may_come_in_any_order(place: &impl Place) {
    let broker = start(place).await;
    publish(&*broker, numbers(0..12)).await;
    let mut subscription = subscribe(&*broker, 12).await;
    let mut taken: Vec<Option<Delivery>> = take(&mut subscription, 12).await.into_iter().map(Some).collect();
    for group in [&[4, 2][..], &[9], &[0, 1, 3], &[11, 7, 5]] {
        let group: Vec<Delivery> = group.iter().map(|i| taken[*i].take().unwrap()).collect();
        acknowledge(&*broker, group).await;
    }
    soon("the end", subscription.end()).await;
    ready(&*broker, 3).await;
    let mut subscription = subscribe(&*broker, 12).await;
    assert_eq!(bodies(&take(&mut subscription, 3).await), ["6", "8", "10"]);
    broker.close().await;
}

pub(super) async fn only_the_unroutable_of_a_batch_fail(place: &impl Place) {
    let broker = start(place).await;
    let to = |target| Publication { target, message: message("x") };
    let results = broker
        .publish(vec![
            to(Target::Tasks("q".into())),
            to(Target::Tasks("nowhere".into())),
            to(Target::Dead("nowhere".into())),
            to(Target::Queue("no-such-queue".into())),
            to(Target::Tasks("q".into())),
        ])
        .await;
    assert_eq!(results[0], Ok(()));
    for (i, names) in [(1, "nowhere"), (2, "nowhere"), (3, "no-such-queue")] {
        assert!(matches!(&results[i], Err(PublishError::Unroutable(text)) if text.contains(names)), "{:?}", results[i]);
    }
    assert_eq!(results[4], Ok(()));
    ready(&*broker, 2).await;
    broker.close().await;
}

pub(super) async fn unroutable_ones_are_told_apart_in_a_large_batch(place: &impl Place) {
    let broker = start(place).await;
    // Many answers in one frame, and returns among them.
    let queue = |i: usize| if i % 7 == 3 { "nowhere" } else { "q" };
    let batch =
        (0..2500).map(|i| Publication { target: Target::Tasks(queue(i).into()), message: message(i.to_string()) });
    let results = soon("confirms", broker.publish(batch.collect())).await;
    for (i, result) in results.iter().enumerate() {
        match queue(i) {
            "q" => assert_eq!(*result, Ok(()), "{i}"),
            _ => assert!(matches!(result, Err(PublishError::Unroutable(_))), "{i}: {result:?}"),
        }
    }
    broker.close().await;
}

pub(super) async fn properties_and_headers_survive(place: &impl Place) {
    let broker = start(place).await;
    let map = |value: Value| match value {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let sent = Message {
        body: vec![0, 159, 146, 150, b'\n'].into(),
        content_type: Some("application/json".into()),
        content_encoding: Some("identity".into()),
        message_id: Some("0192".into()),
        correlation_id: Some("c".into()),
        reply_to: Some("answers".into()),
        other: map(json!({"type": "t", "app_id": "a", "priority": 5, "timestamp": 1_700_000_000u64})),
        headers: map(
            json!({"agentry-plugin": "word-count", "traceparent": "00-x", "n": 7, "deep": {"list": [true, null, 1.5]}}),
        ),
    };
    let with_user = {
        let mut message = sent.clone();
        message.other.insert("user_id".into(), json!("somebody-else"));
        message
    };
    let publication = Publication { target: Target::Tasks("q".into()), message: with_user };
    assert_eq!(broker.publish(vec![publication]).await, [Ok(())]);
    let mut subscription = subscribe(&*broker, 1).await;
    let mut delivery = next(&mut subscription).await;
    // Of the transport, and only there.
    delivery.message.other.remove("delivery_mode");
    assert_eq!(delivery.message, sent);
    assert_eq!(delivery.message.header("agentry-plugin"), Some("word-count"));
    broker.close().await;
}

pub(super) async fn facts_count_what_waits_and_who_consumes(place: &impl Place) {
    let broker = start(place).await;
    assert_eq!(broker.facts(tasks()).await.unwrap(), QueueFacts { ready: 0, consumers: 0 });
    publish(&*broker, numbers(0..5)).await;
    ready(&*broker, 5).await;
    let one = subscribe(&*broker, 1).await;
    let two = subscribe(&*broker, 1).await;
    let consumers = async |n| {
        eventually("consumers", async || broker.facts(tasks()).await.unwrap(), |f| f.consumers == n).await;
    };
    consumers(2).await;
    drop(one);
    consumers(1).await;
    soon("the end", two.end()).await;
    consumers(0).await;
    ready(&*broker, 5).await;
    let error = broker.facts(Source::Tasks("unknown".into())).await.unwrap_err().to_string();
    assert!(error.contains("unknown") && error.contains("does not exist"), "{error}");
    broker.close().await;
}

pub(super) async fn a_dead_letter_goes_to_the_queue_of_the_dead(place: &impl Place) {
    let broker = start(place).await;
    let mut letter = message("not json");
    letter.headers.insert("agentry-reason".into(), json!("not_json"));
    letter.other.insert("expiration".into(), json!("1"));
    let publication = Publication { target: Target::Dead("q".into()), message: letter };
    assert_eq!(broker.publish(vec![publication]).await, [Ok(())]);
    let dead = Source::Dead("q".into());
    let mut subscription = broker.subscribe(dead.clone(), 1).await.unwrap();
    let delivery = next(&mut subscription).await;
    assert_eq!(delivery.source, dead);
    assert_eq!(delivery.message.header("agentry-reason"), Some("not_json"));
    // It would have been gone after a millisecond.
    assert_eq!(delivery.message.header("agentry-expiration"), Some("1"));
    acknowledge(&*broker, [delivery]).await;
    assert_eq!(broker.facts(tasks()).await.unwrap().ready, 0);
    broker.close().await;
}

pub(super) async fn a_large_body_arrives_whole(place: &impl Place) {
    let broker = start(place).await;
    let large: Vec<u8> = (0..3_000_000u32).map(|i| ((i * 31) >> 3) as u8).collect();
    let results = soon("confirms", broker.publish(vec![task(large.clone()), task("")])).await;
    assert_eq!(results, [Ok(()), Ok(())]);
    let mut subscription = subscribe(&*broker, 2).await;
    let taken = take(&mut subscription, 2).await;
    assert!(taken[0].message.body == large, "{} bytes", taken[0].message.body.len());
    assert!(taken[1].message.body.is_empty());
    acknowledge(&*broker, taken).await;
    broker.close().await;
}

pub(super) async fn ten_thousand_messages_pass_in_order(place: &impl Place) {
    let broker = start(place).await;
    let began = Instant::now();
    for n in 0..10 {
        publish(&*broker, numbers(n * 1000..(n + 1) * 1000)).await;
    }
    let published = began.elapsed();
    let mut subscription = subscribe(&*broker, 256).await;
    let began = Instant::now();
    // As the worker does: reading goes on while acknowledgements, as many as there are, are on their way.
    let (done, mut to_settle) = tokio::sync::mpsc::unbounded_channel();
    let settling = tokio::spawn({
        let broker = broker.clone();
        async move {
            let mut batch = Vec::new();
            while to_settle.recv_many(&mut batch, 500).await > 0 {
                acknowledge(&*broker, batch.drain(..)).await;
            }
        }
    });
    for i in 0..10_000 {
        let delivery = next(&mut subscription).await;
        assert_eq!(body(&delivery), i.to_string());
        done.send(delivery).expect("it is settling");
    }
    drop(done);
    soon("the last acknowledgement", settling).await.expect("settled");
    let consumed = began.elapsed();
    soon("the end", subscription.end()).await;
    ready(&*broker, 0).await;
    eprintln!("10,000 messages: published in {published:?}, consumed and acknowledged in {consumed:?}");
    broker.close().await;
}

pub(super) async fn many_publish_at_once(place: &impl Place) {
    let broker = start(place).await;
    let began = Instant::now();
    let mut publishers = tokio::task::JoinSet::new();
    for p in 0..64 {
        let broker = broker.clone();
        publishers.spawn(async move {
            for i in 0..50 {
                publish(&*broker, [format!("{p} {i}")]).await;
            }
        });
    }
    soon("all publishers", publishers.join_all()).await;
    eprintln!("3,200 messages, one at a time from 64 tasks: {:?}", began.elapsed());
    let mut subscription = subscribe(&*broker, 100).await;
    let mut last = std::collections::HashMap::new();
    for _ in 0..3200 {
        let delivery = next(&mut subscription).await;
        let text = body(&delivery);
        let (publisher, i) = text.split_once(' ').unwrap();
        let i: i32 = i.parse().unwrap();
        let before = last.insert(publisher.to_owned(), i).unwrap_or(-1);
        assert_eq!(before + 1, i, "of publisher {publisher}");
        acknowledge(&*broker, [delivery]).await;
    }
    broker.close().await;
}

pub(super) async fn a_closed_broker_says_so(place: &impl Place) {
    let broker = start(place).await;
    assert!(broker.health().borrow().is_up());
    publish(&*broker, numbers(0..1)).await;
    let mut subscription = subscribe(&*broker, 1).await;
    let delivery = next(&mut subscription).await;
    broker.close().await;
    assert!(soon("the end of deliveries", subscription.deliveries.recv()).await.is_none());
    assert!(subscription.confirmed.borrow().is_none());
    let results = soon("an answer", broker.publish(vec![task("x")])).await;
    assert!(matches!(&results[..], [Err(PublishError::Unconfirmed(_))]), "{results:?}");
    let done = soon("an answer", broker.acknowledge(vec![delivery.receipt])).await;
    assert_eq!((done.sent, done.stale), (0, 1));
    assert!(broker.subscribe(tasks(), 1).await.is_err());
    // Twice is once.
    soon("a second close", broker.close()).await;
}
