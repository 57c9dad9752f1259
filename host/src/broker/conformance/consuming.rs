//! Delivered, acknowledged, given back, come again.

use super::*;
use std::collections::BTreeSet;

pub(in crate::broker) async fn a_published_message_is_delivered_acknowledged_and_gone(place: &impl Place) {
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

pub(in crate::broker) async fn what_is_not_acknowledged_comes_again_when_the_subscription_ends(place: &impl Place) {
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

pub(in crate::broker) async fn what_is_not_acknowledged_comes_again_after_a_restart(place: &impl Place) {
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

pub(in crate::broker) async fn what_was_never_delivered_is_there_after_a_restart(place: &impl Place) {
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

pub(in crate::broker) async fn what_is_given_back_comes_again_at_once(place: &impl Place) {
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

pub(in crate::broker) async fn no_more_than_prefetch_are_unacknowledged(place: &impl Place) {
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

pub(in crate::broker) async fn messages_come_in_the_order_they_were_published(place: &impl Place) {
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

pub(in crate::broker) async fn several_subscriptions_share_a_queue(place: &impl Place) {
    let broker = start(place).await;
    let mut one = subscribe(&*broker, 2).await;
    let mut two = subscribe(&*broker, 2).await;
    publish(&*broker, numbers(0..40)).await;
    // With the first one's prefetch used up, the second is given what comes next.
    let mut first = take(&mut one, 2).await;
    first.extend(take(&mut two, 2).await);
    let mut seen: BTreeSet<String> = bodies(&first).into_iter().collect();
    assert_eq!(seen.len(), 4, "delivered twice: {first:?}");
    acknowledge(&*broker, first).await;
    while seen.len() < 40 {
        let delivery = tokio::select! {
            delivery = next(&mut one) => delivery,
            delivery = next(&mut two) => delivery,
        };
        assert!(seen.insert(body(&delivery)), "delivered twice: {delivery:?}");
        acknowledge(&*broker, [delivery]).await;
    }
    broker.close().await;
}

/// What stands in the reader's channel.
fn standing(subscription: &mut Subscription) -> Vec<Delivery> {
    std::iter::from_fn(|| subscription.deliveries.try_recv().ok()).collect()
}

pub(in crate::broker) async fn a_paused_subscription_takes_nothing_and_a_resumed_one_does(place: &impl Place) {
    let broker = start(place).await;
    let mut subscription = subscribe(&*broker, 4).await;
    publish(&*broker, numbers(0..10)).await;
    let held = take(&mut subscription, 2).await;
    subscription.flow.send_replace(Flow::GiveBack);
    soon("the pause", subscription.confirmed.wait_for(Option::is_none)).await.unwrap();
    // Some may stand in the reader's channel already; the rest is back at the broker.
    let standing = standing(&mut subscription);
    // RabbitMQ counts a cancelled consumer of a quorum queue for as long as messages are out with it.
    let facts = eventually(
        "what was buffered to be given back",
        async || broker.facts(tasks()).await.unwrap(),
        |f| f.ready as usize + standing.len() == 8,
    )
    .await;
    // What the reader has is his, also while it is paused.
    acknowledge(&*broker, held.into_iter().chain(standing)).await;
    assert!(subscription.deliveries.try_recv().is_err());
    subscription.flow.send_replace(Flow::Go);
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

pub(in crate::broker) async fn a_held_subscription_gives_nothing_back_and_goes_on_where_it_was(place: &impl Place) {
    let broker = start(place).await;
    let mut subscription = subscribe(&*broker, 4).await;
    publish(&*broker, numbers(0..10)).await;
    let first = take(&mut subscription, 2).await;
    subscription.flow.send_replace(Flow::Hold);
    soon("the hold", subscription.confirmed.wait_for(Option::is_none)).await.unwrap();
    let standing = standing(&mut subscription);
    assert!(subscription.deliveries.try_recv().is_err(), "nothing new is handed over");
    subscription.flow.send_replace(Flow::Go);
    soon("the resumption", subscription.confirmed.wait_for(Option::is_some)).await.unwrap();
    let mut seen: Vec<String> = bodies(&standing);
    assert!(standing.iter().all(|d| !d.redelivered));
    // Not before: an acknowledgement makes room, and what the broker sends just as it hears of the hold, it takes back.
    acknowledge(&*broker, first.into_iter().chain(standing)).await;
    while seen.len() < 8 {
        let delivery = next(&mut subscription).await;
        assert!(!delivery.redelivered, "it was not given back: {delivery:?}");
        seen.push(body(&delivery));
        acknowledge(&*broker, [delivery]).await;
    }
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), numbers(2..10).collect());
    ready(&*broker, 0).await;
    broker.close().await;
}

pub(in crate::broker) async fn what_a_dropped_subscription_had_read_may_still_be_acknowledged(place: &impl Place) {
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

pub(in crate::broker) async fn a_stale_receipt_is_counted_and_harms_nobody(place: &impl Place) {
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

pub(in crate::broker) async fn acknowledgements_may_come_in_any_order(place: &impl Place) {
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
