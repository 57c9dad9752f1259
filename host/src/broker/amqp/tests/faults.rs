//! What breaks while it runs, and that it mends itself.

use super::proxy::Proxy;
use super::{Prefix, place, raw};
use crate::broker::amqp::AmqpBroker;
use crate::broker::conformance::{
    acknowledge, body, eventually, message, next, numbers, patience, publish, ready, soon, task, tasks, tidily,
};
use crate::broker::{Broker, Publication, PublishError, Source, Subscription, Target};
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use std::time::Instant;

async fn consuming(broker: &AmqpBroker, prefetch: u16) -> Subscription {
    let subscription = broker.subscribe(tasks(), prefetch).await.expect("subscribed");
    assert!(subscription.confirmed.borrow().is_some());
    subscription
}

/// Consuming is confirmed anew, later than before.
async fn confirmed_anew(subscription: &mut Subscription, since: Option<chrono::DateTime<chrono::Utc>>) {
    soon("the consumer to be confirmed anew", subscription.confirmed.wait_for(|c| c.is_some() && *c > since))
        .await
        .expect("the broker is open");
}

/// Publish until it is confirmed, as the relay does.
async fn publish_stubbornly(broker: &AmqpBroker, text: &str) {
    eventually("a confirmed publication", async || broker.publish(vec![task(text)]).await, |r| r[0].is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_deleted_under_a_consumer_is_declared_and_consumed_again() {
    tidily(place().await, async |place: &Prefix| {
        let broker = place.connect().await;
        let mut subscription = consuming(&broker, 5).await;
        let since = *subscription.confirmed.borrow();
        publish(&broker, ["before".into()]).await;
        let lost = next(&mut subscription).await;
        let (stranger, channel) = place.stranger().await;
        channel.queue_delete(place.queue().as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        confirmed_anew(&mut subscription, since).await;
        // Its message went with the queue; its tag harms nobody.
        assert_eq!(broker.acknowledge(vec![lost.receipt]).await.sent, 0);
        publish_stubbornly(&broker, "after").await;
        let delivery = next(&mut subscription).await;
        assert_eq!(body(&delivery), "after");
        acknowledge(&broker, [delivery]).await;
        stranger.close(200, "OK".into()).await.unwrap();
        broker.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_closed_by_the_broker_is_opened_again_and_its_receipts_are_stale() {
    tidily(place().await, async |place: &Prefix| {
        let broker = place.connect().await;
        let mut subscription = consuming(&broker, 5).await;
        let since = *subscription.confirmed.borrow();
        publish(&broker, numbers(0..2)).await;
        let held = next(&mut subscription).await;
        // An unknown tag: RabbitMQ closes the channel with PRECONDITION_FAILED.
        let channel = broker.shared.incarnations.any_channel();
        channel.basic_ack(999, lapin::options::BasicAckOptions::default()).await.unwrap();
        confirmed_anew(&mut subscription, since).await;
        let done = broker.acknowledge(vec![held.receipt]).await;
        assert_eq!((done.sent, done.stale), (0, 1));
        for expected in ["0", "1"] {
            // One of the first channel may stand before them.
            let mut delivery = next(&mut subscription).await;
            while broker.shared.incarnations.is_gone(&delivery.receipt) {
                delivery = next(&mut subscription).await;
            }
            assert_eq!((body(&delivery).as_str(), delivery.redelivered), (expected, true));
            acknowledge(&broker, [delivery]).await;
        }
        assert!(broker.health().borrow().is_up());
        broker.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_are_made_again_and_nothing_is_lost() {
    tidily(place().await, async |place: &Prefix| {
        let proxy = Proxy::start(&place.url).await;
        let broker = proxy.before(place).connect().await;
        let mut health = broker.health();
        let mut subscription = consuming(&broker, 10).await;
        let mut seen = std::collections::BTreeSet::new();
        let mut stale = 0;
        for round in 0..4 {
            let since = *subscription.confirmed.borrow();
            for i in 0..10 {
                publish_stubbornly(&broker, &format!("{round} {i}")).await;
            }
            let held = next(&mut subscription).await;
            proxy.cut();
            soon("the loss to be noticed", subscription.confirmed.wait_for(|c| *c != since)).await.unwrap();
            stale += broker.acknowledge(vec![held.receipt]).await.stale;
            soon("the connection", health.wait_for(|h| h.is_up())).await.unwrap();
            confirmed_anew(&mut subscription, since).await;
        }
        assert_eq!(stale, 4, "a cut channel takes no acknowledgement");
        while seen.len() < 40 {
            let delivery = next(&mut subscription).await;
            let text = body(&delivery);
            // One of a former channel may stand in the reader's channel: stale, and to come again.
            if broker.acknowledge(vec![delivery.receipt]).await.sent == 1 {
                seen.insert(text);
            }
        }
        soon("the end", subscription.end()).await;
        ready(&broker, 0).await;
        broker.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_noticed_and_consumption_resumes_within_thirty_seconds() {
    tidily(place().await, async |place: &Prefix| {
        let proxy = Proxy::start(&place.url).await;
        let broker = proxy.before(place).connect().await;
        let mut subscription = consuming(&broker, 5).await;
        let since = *subscription.confirmed.borrow();
        publish(&broker, ["held".into()]).await;
        let held = next(&mut subscription).await;
        proxy.silence();
        let began = Instant::now();
        soon("the silence to be noticed", subscription.confirmed.wait_for(Option::is_none)).await.unwrap();
        confirmed_anew(&mut subscription, since).await;
        assert!(began.elapsed() < patience(30), "{:?}", began.elapsed());
        // The old connection's tag means nothing on the new one.
        assert_eq!(broker.acknowledge(vec![held.receipt]).await.sent, 0);
        publish_stubbornly(&broker, "after").await;
        broker.close().await;
        drop(proxy);
        // RabbitMQ gives up on the silent connection and delivers what it held.
        let broker = place.connect().await;
        ready(&broker, 2).await;
        broker.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_binding_makes_publications_unroutable_until_it_is_bound_again() {
    tidily(place().await, async |place: &Prefix| {
        let broker = place.connect().await;
        let (stranger, channel) = place.stranger().await;
        channel
            .queue_unbind(place.queue().as_str().into(), place.name.as_str().into(), "q".into(), FieldTable::default())
            .await
            .unwrap();
        let results = broker.publish(vec![task("x")]).await;
        assert!(matches!(&results[..], [Err(PublishError::Unroutable(_))]), "{results:?}");
        publish_stubbornly(&broker, "x").await;
        stranger.close(200, "OK".into()).await.unwrap();
        broker.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_exchange_leaves_publications_unconfirmed_until_it_is_declared_again() {
    tidily(place().await, async |place: &Prefix| {
        let broker = place.connect().await;
        let (stranger, channel) = place.stranger().await;
        channel.exchange_delete(place.name.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
        let results = soon("an answer", broker.publish(vec![task("x"), task("y")])).await;
        assert!(results.iter().all(|r| matches!(r, Err(PublishError::Unconfirmed(_)))), "{results:?}");
        publish_stubbornly(&broker, "x").await;
        ready(&broker, 1).await;
        stranger.close(200, "OK".into()).await.unwrap();
        broker.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_gives_up_on_arrives_in_returned() {
    tidily(place().await, async |place: &Prefix| {
        let broker = place.connect().await;
        let mut expiring = message("stale");
        expiring.other.insert("expiration".into(), "1".into());
        let publication = Publication { target: task("").target, message: expiring };
        assert_eq!(broker.publish(vec![publication]).await, [Ok(())]);
        let mut returned = broker.subscribe(Source::Returned("q".into()), 1).await.unwrap();
        let delivery = next(&mut returned).await;
        assert_eq!(body(&delivery), "stale");
        assert_eq!(delivery.message.headers["x-first-death-reason"], "expired");
        assert_eq!(delivery.message.headers["x-death"][0]["queue"], place.queue().as_str());
        broker.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_publisher_is_understood_and_the_topology_is_what_the_contract_says() {
    tidily(place().await, async |place: &Prefix| {
        let broker = place.connect().await;
        let (stranger, channel) = place.stranger().await;
        // Declared once more with exactly these arguments: anything else would be refused.
        let mut arguments = FieldTable::default();
        for (key, value) in [
            ("x-queue-type", "quorum".to_owned()),
            ("x-dead-letter-exchange", format!("{}.dead", place.name)),
            ("x-dead-letter-routing-key", "q.returned".to_owned()),
        ] {
            arguments.insert(key.into(), lapin::types::AMQPValue::LongString(value.into()));
        }
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(place.queue().as_str().into(), durable, arguments).await.unwrap();
        let exchange = place.name.as_str();
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let properties = BasicProperties::default().with_content_type("application/json".into());
        channel.basic_publish(exchange.into(), "q".into(), options, b"{}", properties).await.unwrap();
        let mut subscription = consuming(&broker, 1).await;
        let delivery = next(&mut subscription).await;
        assert_eq!(delivery.message.content_type.as_deref(), Some("application/json"));
        acknowledge(&broker, [delivery]).await;
        stranger.close(200, "OK".into()).await.unwrap();
        broker.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_properties_are_not_text_is_delivered_like_any_other() {
    tidily(place().await, async |place: &Prefix| {
        let broker = place.connect().await;
        let mut subscription = consuming(&broker, 5).await;
        let since = *subscription.confirmed.borrow();
        for (what, (flags, properties)) in [
            ("a binary value, which AMQP allows", raw::header(b"fine", b"\xff")),
            ("a binary correlation id", raw::correlation_id(b"\xff\xfe\0")),
            ("a binary header name", raw::header(b"k\xff", b"v")),
            ("twenty thousand tables in each other", raw::deep_headers(20_000)),
        ] {
            raw::publish(place, flags, &properties, what.as_bytes()).await;
            let delivery = next(&mut subscription).await;
            assert_eq!((body(&delivery).as_str(), delivery.redelivered), (what, false));
            match what {
                "a binary correlation id" => {
                    assert_eq!(delivery.message.correlation_id.as_deref(), Some("??\0"));
                }
                "a binary header name" => assert_eq!(delivery.message.header("k?"), Some("v")),
                _ => {}
            }
            // Such a message is what is dead-lettered; it must go out again, too.
            let letter = Publication { target: Target::Dead("q".into()), message: delivery.message.clone() };
            assert_eq!(soon("a confirm", broker.publish(vec![letter])).await, [Ok(())]);
            acknowledge(&broker, [delivery]).await;
        }
        assert_eq!(*subscription.confirmed.borrow(), since, "one channel all the time");
        broker.close().await;
    })
    .await;
}
