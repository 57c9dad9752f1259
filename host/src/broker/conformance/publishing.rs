//! Published, counted, many and large.

use super::*;
use crate::broker::{PublishError, QueueFacts};
use serde_json::{Map, Value, json};

pub(in crate::broker) async fn only_the_unroutable_of_a_batch_fail(place: &impl Place) {
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

pub(in crate::broker) async fn unroutable_ones_are_told_apart_in_a_large_batch(place: &impl Place) {
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

pub(in crate::broker) async fn properties_and_headers_survive(place: &impl Place) {
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

pub(in crate::broker) async fn facts_count_what_waits_and_who_consumes(place: &impl Place) {
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

pub(in crate::broker) async fn a_dead_letter_goes_to_the_queue_of_the_dead(place: &impl Place) {
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

pub(in crate::broker) async fn a_large_body_arrives_whole(place: &impl Place) {
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

pub(in crate::broker) async fn ten_thousand_messages_pass_in_order(place: &impl Place) {
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

pub(in crate::broker) async fn many_publish_at_once(place: &impl Place) {
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

pub(in crate::broker) async fn a_closed_broker_says_so(place: &impl Place) {
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
