use super::*;
use crate::broker::conformance::{self, Place, conformance_suite, next, publish, ready, tasks};

#[async_trait]
impl Place for Server {
    async fn open(&self) -> Arc<dyn Broker> {
        Arc::new(MemoryBroker::connect(self))
    }

    async fn clean(&self) {}
}

async fn place() -> Server {
    Server::new(3, Arc::new(|_| 0))
}

conformance_suite! { place() }

#[tokio::test]
async fn a_cut_connection_brings_everything_unacknowledged_again_and_its_receipts_are_stale() {
    let server = place().await;
    let broker = MemoryBroker::connect(&server);
    broker.declare(&["q".into()]).await.unwrap();
    publish(&broker, conformance::numbers(0..1)).await;
    let mut subscription = conformance::subscribe(&broker, 2).await;
    let first = next(&mut subscription).await;
    broker.cut();
    ready(&broker, 1).await;
    assert_eq!(broker.acknowledge(vec![first.receipt]).await, Acknowledged { sent: 0, stale: 1 });
    assert!(!broker.health().borrow().is_up());
    broker.restore();
    let again = next(&mut subscription).await;
    assert!(again.redelivered);
    conformance::acknowledge(&broker, [again]).await;
    ready(&broker, 0).await;
    broker.close().await;
}

#[tokio::test]
async fn what_a_silent_connection_acknowledges_goes_nowhere() {
    let server = place().await;
    let broker = MemoryBroker::connect(&server);
    broker.declare(&["q".into()]).await.unwrap();
    publish(&broker, conformance::numbers(0..1)).await;
    let mut subscription = conformance::subscribe(&broker, 2).await;
    let first = next(&mut subscription).await;
    broker.fall_silent();
    assert_eq!(broker.acknowledge(vec![first.receipt]).await, Acknowledged { sent: 1, stale: 0 });
    ready(&broker, 1).await;
    broker.close().await;
}

#[tokio::test]
async fn what_comes_back_too_often_is_returned_with_its_reason() {
    let server = place().await;
    let broker = MemoryBroker::connect(&server);
    broker.declare(&["q".into()]).await.unwrap();
    publish(&broker, conformance::numbers(0..1)).await;
    let mut subscription = conformance::subscribe(&broker, 1).await;
    for _ in 0..4 {
        let delivery = next(&mut subscription).await;
        assert_eq!(delivery.source, tasks());
        broker.give_back(vec![delivery.receipt]).await;
    }
    let mut returned = broker.subscribe(Source::Returned("q".into()), 1).await.unwrap();
    let delivery = next(&mut returned).await;
    assert_eq!(delivery.message.headers["x-death"][0]["reason"], "delivery_limit");
    broker.close().await;
}
