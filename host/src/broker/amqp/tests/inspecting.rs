//! The topology is looked at and never changed.

use super::{Prefix, place};
use crate::broker::amqp::{AmqpBroker, Found, Presence};
use crate::broker::conformance::tidily;
use crate::broker::{Broker, Source};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;

fn of<'a>(found: &'a [Found], name: &str) -> &'a Presence {
    &found.iter().find(|found| found.name == name).unwrap_or_else(|| panic!("{name}: {found:?}")).state
}

#[tokio::test]
async fn what_is_missing_is_named_and_not_made() {
    tidily(place().await, async |place: &Prefix| {
        let broker = AmqpBroker::connect(place.options()).await.expect("connected");
        for _ in 0..2 {
            let found = broker.inspect(&["q".into()]).await.expect("inspected");
            assert_eq!(found.len(), 5, "{found:?}");
            assert!(found.iter().all(|found| found.state == Presence::Missing), "{found:?}");
        }
        let connected = broker.connected().await.expect("connected");
        assert!(connected.version.is_some() && !connected.tls, "{connected:?}");
        broker.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_declared_fits_and_a_queue_with_other_arguments_is_named() {
    tidily(place().await, async |place: &Prefix| {
        let broker = place.connect().await;
        let found = broker.inspect(&["q".into()]).await.expect("inspected");
        assert!(found.iter().all(|found| found.state == Presence::Fits), "{found:?}");

        let (connection, channel) = place.stranger().await;
        let name = format!("{}.other", place.name);
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await.expect("declared");
        let found = broker.inspect(&["q".into(), "other".into()]).await.expect("inspected");
        let Presence::Refused(why) = of(&found, &name) else { panic!("{found:?}") };
        assert!(why.contains(&name) && why.contains("is needed"), "{why}");
        assert_eq!(of(&found, &format!("{name}.dead")), &Presence::Missing);

        let mut options = place.options();
        options.declare = false;
        let checking = AmqpBroker::connect(options).await.expect("connected");
        let found = checking.inspect(&["other".into()]).await.expect("inspected");
        assert_eq!(of(&found, &name), &Presence::There, "arguments are compared only where they are declared");
        assert_eq!(checking.facts(Source::Tasks("other".into())).await.expect("there").ready, 0);
        channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await.expect("deleted");
        connection.close(200, "OK".into()).await.expect("closed");
        for broker in [broker, checking] {
            broker.close().await;
        }
    })
    .await;
}
