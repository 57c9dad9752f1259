//! Messages that RabbitMQ returns: none is lost on any version, whichever build declared the queues.

use super::{Prefix, place};
use crate::broker::conformance::{acknowledge, body, eventually, next, tidily};
use crate::broker::{Broker, Source};
use lapin::options::{
    BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, ExchangeKind};

fn returned() -> Source {
    Source::Returned("q".into())
}

/// Declares the queue of returned messages as builds before this one do every 15 s.
async fn declare_as_before(place: &Prefix, channel: &Channel) {
    let dead = format!("{}.dead", place.name);
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare(dead.as_str().into(), ExchangeKind::Direct, options, FieldTable::default()).await.unwrap();
    let name = format!("{}.returned", place.queue());
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.as_str().into(), options, arguments).await.unwrap();
    let options = QueueBindOptions::default();
    let key = "q.returned".into();
    channel.queue_bind(name.as_str().into(), dead.as_str().into(), key, options, FieldTable::default()).await.unwrap();
}

/// Publish as RabbitMQ does that returns a message of the queue `q`.
async fn give_up(place: &Prefix, channel: &Channel, text: &str) {
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let exchange = format!("{}.dead", place.name);
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let mut headers = FieldTable::default();
    headers.insert("x-first-death-reason".into(), AMQPValue::LongString("delivery_limit".into()));
    let properties = BasicProperties::default().with_delivery_mode(2).with_headers(headers);
    let publish =
        channel.basic_publish(exchange.as_str().into(), "q.returned".into(), options, text.as_bytes(), properties);
    let confirm = publish.await.unwrap().await.unwrap();
    assert!(confirm.is_ack() && confirm.take_message().is_none(), "it is routed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_in_the_queue_of_an_earlier_build_are_moved_and_consumed() {
    tidily(place().await, async |place: &Prefix| {
        let (stranger, channel) = place.stranger().await;
        declare_as_before(place, &channel).await;
        for i in 0..40 {
            give_up(place, &channel, &i.to_string()).await;
        }
        let broker = place.connect().await;
        let mut subscription = broker.subscribe(returned(), 5).await.expect("subscribed");
        for i in 0..40 {
            let delivery = next(&mut subscription).await;
            assert_eq!((body(&delivery), &delivery.source), (i.to_string(), &returned()));
            assert_eq!(delivery.message.header("x-first-death-reason"), Some("delivery_limit"));
            acknowledge(&broker, [delivery]).await;
        }
        // A host of the earlier build binds its queue again. Each of both queues then has a copy, and this build reads both.
        declare_as_before(place, &channel).await;
        give_up(place, &channel, "again").await;
        for _ in 0..2 {
            let delivery = next(&mut subscription).await;
            assert_eq!(body(&delivery), "again");
            acknowledge(&broker, [delivery]).await;
        }
        // Declaring again removes that binding: one copy.
        broker.declare(&["q".into()]).await.expect("declared");
        for text in ["first", "second"] {
            give_up(place, &channel, text).await;
            let delivery = next(&mut subscription).await;
            assert_eq!(body(&delivery), text);
            acknowledge(&broker, [delivery]).await;
        }
        // The earlier build finds what it wants: other arguments would be an error.
        declare_as_before(place, &channel).await;
        broker.close().await;
        stranger.close(200, "OK".into()).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returned_message_outlives_a_thousand_deliveries_and_then_is_a_dead_letter() {
    tidily(place().await, async |place: &Prefix| {
        let broker = place.connect().await;
        let (stranger, channel) = place.stranger().await;
        give_up(place, &channel, "poison").await;
        let name = format!("{}.returned.v2", place.queue());
        let mut deliveries = 0;
        let mut empty = 0;
        // A message that was given back is there again in a moment.
        while empty < 100 {
            match channel.basic_get(name.as_str().into(), BasicGetOptions::default()).await.unwrap() {
                Some(message) => {
                    deliveries += 1;
                    empty = 0;
                    let back = BasicNackOptions { requeue: true, multiple: false };
                    channel.basic_nack(message.delivery.delivery_tag, back).await.unwrap();
                }
                None => {
                    empty += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        }
        assert_eq!(deliveries, 1001);
        let dead = Source::Dead("q".into());
        eventually("a dead letter", async || broker.facts(dead.clone()).await.unwrap().ready, |ready| *ready == 1)
            .await;
        broker.close().await;
        stranger.close(200, "OK".into()).await.unwrap();
    })
    .await;
}
