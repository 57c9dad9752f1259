//! What every broker must do, written once and run against each.

mod consuming;
mod publishing;

pub(in crate::broker) use consuming::*;
pub(in crate::broker) use publishing::*;

use super::{Broker, Delivery, Flow, Message, Publication, Source, Subscription, Target};
use async_trait::async_trait;
use futures_util::FutureExt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Where a broker lives: opened again, it is the same queues.
#[async_trait]
pub(in crate::broker) trait Place: Send + Sync {
    async fn open(&self) -> Arc<dyn Broker>;
    /// Leave nothing behind.
    async fn clean(&self);
}

/// Run a test and clean up after it, also after a failed one.
pub(in crate::broker) async fn tidily<P: Place>(place: P, test: impl AsyncFnOnce(&P)) {
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
            a_held_subscription_gives_nothing_back_and_goes_on_where_it_was,
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
pub(in crate::broker) use conformance_suite;

/// One setting for all waiting: `AGENTRY_TEST_PATIENCE` multiplies it on slow machines.
pub(in crate::broker) fn patience(seconds: u64) -> Duration {
    let factor: f64 = std::env::var("AGENTRY_TEST_PATIENCE").ok().and_then(|p| p.parse().ok()).unwrap_or(1.0);
    Duration::from_secs(seconds).mul_f64(factor)
}

/// Bound a wait and say what it was for.
pub(in crate::broker) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(patience(30), future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {:?} for {what}", patience(30)),
    }
}

/// Ask until the answer is right.
pub(in crate::broker) async fn eventually<T: std::fmt::Debug>(
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

pub(in crate::broker) fn tasks() -> Source {
    Source::Tasks("q".into())
}

pub(in crate::broker) fn message(body: impl Into<Vec<u8>>) -> Message {
    Message { body: body.into().into(), ..Message::default() }
}

pub(in crate::broker) fn task(body: impl Into<Vec<u8>>) -> Publication {
    Publication { target: Target::Tasks("q".into()), message: message(body) }
}

pub(in crate::broker) async fn publish(broker: &dyn Broker, bodies: impl IntoIterator<Item = String>) {
    let results = soon("confirms", broker.publish(bodies.into_iter().map(task).collect())).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

pub(in crate::broker) fn numbers(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|i| i.to_string())
}

pub(in crate::broker) async fn next(subscription: &mut Subscription) -> Delivery {
    soon("a delivery", subscription.deliveries.recv()).await.expect("the broker is open")
}

pub(in crate::broker) async fn take(subscription: &mut Subscription, n: usize) -> Vec<Delivery> {
    let mut taken = Vec::with_capacity(n);
    for _ in 0..n {
        taken.push(next(subscription).await);
    }
    taken
}

pub(in crate::broker) fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.body.to_vec()).expect("text")
}

pub(in crate::broker) fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(body).collect()
}

pub(in crate::broker) async fn acknowledge(broker: &dyn Broker, deliveries: impl IntoIterator<Item = Delivery>) {
    let receipts: Vec<_> = deliveries.into_iter().map(|d| d.receipt).collect();
    let n = receipts.len();
    let done = soon("acknowledgements", broker.acknowledge(receipts)).await;
    assert_eq!((done.sent, done.stale), (n, 0));
}

pub(in crate::broker) async fn ready(broker: &dyn Broker, n: u32) {
    let facts = eventually(
        "messages that wait",
        async || broker.facts(tasks()).await,
        |facts| facts.as_ref().is_ok_and(|f| f.ready == n),
    );
    facts.await.expect("right");
}

pub(in crate::broker) async fn start(place: &impl Place) -> Arc<dyn Broker> {
    let broker = place.open().await;
    broker.declare(&["q".into()]).await.expect("declared");
    broker
}

pub(in crate::broker) async fn subscribe(broker: &dyn Broker, prefetch: u16) -> Subscription {
    let mut subscription = broker.subscribe(tasks(), prefetch).await.expect("subscribed");
    soon("the consumer", subscription.confirmed.wait_for(Option::is_some)).await.expect("open");
    subscription
}
