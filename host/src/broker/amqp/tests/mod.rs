//! Against a real RabbitMQ: the conformance suite, and what only a network and a broker of its own can do.

mod connecting;
mod faults;
mod inspecting;
mod proxy;
mod raw;
mod returned;
mod tls;

use super::{AmqpAddress, AmqpBroker, AmqpOptions};
use crate::broker::Broker;
use crate::broker::conformance::{Place, conformance_suite, soon};
use async_trait::async_trait;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};
use std::sync::Arc;

/// Where the tests' RabbitMQ is.
pub(super) fn url() -> url::Url {
    std::env::var("AGENTRY_TEST_AMQP")
        .expect("set AGENTRY_TEST_AMQP, or run `cargo xtask test`")
        .parse()
        .expect("AGENTRY_TEST_AMQP is an address")
}

pub(super) fn address(url: &url::Url) -> AmqpAddress {
    url.as_str().parse().expect("an AMQP address")
}

/// A prefix of its own, with one logical queue `q`.
pub(super) struct Prefix {
    pub(super) name: String,
    pub(super) url: url::Url,
}

pub(super) async fn place() -> Prefix {
    Prefix { name: format!("test-{}", uuid::Uuid::new_v4().simple()), url: url() }
}

impl Prefix {
    pub(super) fn options(&self) -> AmqpOptions {
        AmqpOptions::new(address(&self.url), &*self.name, format!("agentry/test/here/{}", std::process::id()))
    }

    pub(super) async fn connect(&self) -> AmqpBroker {
        let broker = AmqpBroker::connect(self.options()).await.expect("connected");
        broker.declare(&["q".into()]).await.expect("declared");
        broker
    }

    /// A plain client without any code of ours.
    pub(super) async fn stranger(&self) -> (Connection, lapin::Channel) {
        let uri = address(&url()).uri();
        let connecting = Connection::connect_uri(uri, ConnectionProperties::default());
        let connection = soon("a plain connection", connecting).await.expect("connected");
        let channel = connection.create_channel().await.expect("a channel");
        (connection, channel)
    }

    pub(super) fn queue(&self) -> String {
        format!("{}.q", self.name)
    }
}

#[async_trait]
impl Place for Prefix {
    async fn open(&self) -> Arc<dyn Broker> {
        Arc::new(AmqpBroker::connect(self.options()).await.expect("connected"))
    }

    async fn clean(&self) {
        let (connection, channel) = self.stranger().await;
        for suffix in ["", ".returned", ".returned.v2", ".dead"] {
            let queue = format!("{}{suffix}", self.queue());
            channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.expect("deleted");
        }
        for exchange in [self.name.clone(), format!("{}.dead", self.name)] {
            channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await.expect("deleted");
        }
        connection.close(200, "OK".into()).await.expect("closed");
    }
}

conformance_suite! { place() }
