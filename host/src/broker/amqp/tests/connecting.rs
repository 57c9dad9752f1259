//! What is refused, what is waited for, and what is said about it.

use super::proxy::Proxy;
use super::{Prefix, address, place, url};
use crate::broker::amqp::{AmqpBroker, AmqpOptions};
use crate::broker::conformance::{Place, next, patience, publish, soon, tasks, tidily};
use crate::broker::{Broker, BrokerError, Health};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn options(url: &url::Url) -> AmqpOptions {
    AmqpOptions::new(address(url), "test-connecting", "agentry/test/here/1")
}

async fn refused(url: &url::Url) -> String {
    match soon("an answer", AmqpBroker::connect(options(url))).await.err() {
        Some(BrokerError::Refused(text)) => text,
        other => panic!("it should have been refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_repeated() {
    let mut url = url();
    url.set_password(Some("wr0ng-and-s3cret")).unwrap();
    let text = refused(&url).await;
    assert!(text.contains("refused the credentials of user") && text.contains("broker.url"), "{text}");
    assert!(!text.contains("wr0ng-and-s3cret"), "{text}");
}

#[tokio::test]
async fn a_missing_virtual_host_is_refused_by_name() {
    let mut url = url();
    url.set_path("/no-such-vhost");
    let text = refused(&url).await;
    assert!(text.contains("has no virtual host \"no-such-vhost\"") && text.contains("add_vhost"), "{text}");
}

#[tokio::test]
async fn what_does_not_speak_amqp_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://127.0.0.1:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut greeting = [0; 8];
            let _ = socket.read_exact(&mut greeting).await;
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let text = refused(&url).await;
    assert!(text.contains("does not speak AMQP 0-9-1"), "{text}");
}

#[tokio::test]
async fn an_unreachable_broker_is_unavailable_and_connected_when_it_comes() {
    tidily(place().await, async |place: &Prefix| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap();
        drop(listener);
        let mut there = Prefix { name: place.name.clone(), url: place.url.clone() };
        there.url.set_host(Some("127.0.0.1")).unwrap();
        there.url.set_port(Some(port.port())).unwrap();

        let broker = AmqpBroker::start(there.options()).unwrap();
        let error = soon("the first outcome", broker.first_outcome()).await.unwrap_err();
        assert!(matches!(&error, BrokerError::Unavailable(text) if text.contains(&port.to_string())), "{error}");
        assert!(
            matches!(&*broker.health().borrow(), Health::Down(_, reason) if reason.contains("connecting to amqp://"))
        );
        // Subscribed while it is away; consuming when it is there.
        let mut subscription = soon("an answer", broker.subscribe(tasks(), 1)).await.unwrap();
        assert!(subscription.confirmed.borrow().is_none());

        let _proxy = Proxy::on(TcpListener::bind(port).await.unwrap(), &place.url);
        soon("the connection", broker.health().wait_for(Health::is_up)).await.unwrap();
        soon("the consumer", subscription.confirmed.wait_for(Option::is_some)).await.unwrap();
        assert!(broker.describe().contains(&format!("connected to {port} since")), "{}", broker.describe());
        publish(&broker, ["x".into()]).await;
        next(&mut subscription).await;
        broker.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::on(listener, &url());
    proxy.set_dead_ends(true);
    let url = format!("amqp://127.0.0.1:{}?connection_timeout=300", proxy.port).parse().unwrap();
    let began = Instant::now();
    let error = AmqpBroker::connect(options(&url)).await.err();
    assert!(
        matches!(&error, Some(BrokerError::Unavailable(text)) if text.contains("no answer within 0.3 s")),
        "{error:?}"
    );
    assert!(began.elapsed() < patience(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn other_arguments_are_refused_with_queue_argument_values_and_remedy() {
    tidily(place().await, async |place: &Prefix| {
        let (stranger, channel) = place.stranger().await;
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(place.queue().as_str().into(), durable, FieldTable::default()).await.unwrap();
        let broker = AmqpBroker::connect(place.options()).await.unwrap();
        let error = broker.declare(&["q".into()]).await.unwrap_err();
        let BrokerError::Refused(text) = error else { panic!("{error}") };
        insta::assert_snapshot!(text.replace(&place.name, "PREFIX"), @r#"queue "PREFIX.q" in virtual host "/" has no x-dead-letter-exchange, and 'PREFIX.dead' is needed; nothing was changed. Either set another broker.prefix (or queue name), start on fresh queues, and move the waiting messages over with a shovel; or stop the producers, let the queue run empty, delete it, and start again"#);
        // Neither is it consumed, as it would lose what the broker gives up on.
        let error = broker.subscribe(tasks(), 1).await.err();
        assert!(matches!(&error, Some(BrokerError::Refused(same)) if *same == text), "{error:?}");
        // What can be declared still is, and the broker is well.
        assert!(broker.health().borrow().is_up());
        broker.close().await;
        stranger.close(200, "OK".into()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn without_declare_nothing_is_made_and_what_is_missing_is_named() {
    tidily(place().await, async |place: &Prefix| {
        let checking = AmqpOptions { declare: false, ..place.options() };
        let broker = AmqpBroker::connect(checking.clone()).await.unwrap();
        let error = broker.declare(&["q".into()]).await.unwrap_err();
        let BrokerError::Refused(text) = error else { panic!("{error}") };
        assert!(text.contains(&place.name) && text.contains("does not exist"), "{text}");
        assert!(text.contains("broker.declare is false"), "{text}");
        assert!(broker.facts(tasks()).await.is_err(), "nothing was made");
        broker.close().await;

        place.connect().await.close().await;
        let broker = AmqpBroker::connect(checking).await.unwrap();
        broker.declare(&["q".into()]).await.unwrap();
        let mut subscription = broker.subscribe(tasks(), 1).await.unwrap();
        publish(&broker, ["x".into()]).await;
        next(&mut subscription).await;
        broker.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_broker_is_described_without_its_password() {
    let mut url = url();
    url.set_query(Some("heartbeat=30"));
    let broker = AmqpBroker::connect(options(&url)).await.unwrap();
    let text = broker.describe();
    assert!(text.starts_with("RabbitMQ amqp://guest@") && text.contains("prefix test-connecting"), "{text}");
    assert!(text.contains("as agentry/test/here/1") && !text.contains(":guest"), "{text}");
    broker.close().await;
    assert!(broker.describe().contains("not connected"));
}

#[tokio::test]
async fn a_prefix_or_queue_that_cannot_be_named_is_refused() {
    let mut bad = options(&url());
    bad.prefix = "a b".into();
    assert!(matches!(AmqpBroker::start(bad), Err(BrokerError::Refused(text)) if text.starts_with("broker.prefix")));
    tidily(place().await, async |place: &Prefix| {
        let broker = place.open().await;
        let error = broker.declare(&["x.dead".into()]).await.unwrap_err();
        assert!(matches!(&error, BrokerError::Refused(text) if text.starts_with("broker.queues")), "{error}");
        broker.close().await;
    })
    .await;
}
