//! RabbitMQ as the bare loop and the tools use it.

use anyhow::{Context, ensure};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

/// Messages published before their confirms are awaited.
pub const WINDOW: usize = 500;

/// Connects.
pub async fn connect(url: &str) -> anyhow::Result<Connection> {
    Connection::connect(url, ConnectionProperties::default()).await.context("failed to connect to the broker")
}

/// A channel with confirms.
pub async fn confirming(connection: &Connection) -> anyhow::Result<Channel> {
    let channel = connection.create_channel().await.context("failed to open a channel")?;
    channel.confirm_select(ConfirmSelectOptions::default()).await.context("failed to select confirms")?;
    Ok(channel)
}

/// An empty durable quorum queue.
pub async fn fresh_queue(channel: &Channel, name: &str) -> anyhow::Result<()> {
    let name: ShortString = name.into();
    channel.queue_delete(name.clone(), QueueDeleteOptions::default()).await.context("failed to delete a queue")?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name, options, arguments).await.context("failed to declare a queue")?;
    Ok(())
}

/// Publishes messages, persistent and `mandatory`, and awaits their confirms.
pub async fn publish(channel: &Channel, exchange: &str, key: &str, messages: &[String]) -> anyhow::Result<()> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
    let mut confirms = Vec::with_capacity(messages.len());
    for message in messages {
        let sent = channel
            .basic_publish(exchange.into(), key.into(), options, message.as_bytes(), properties.clone())
            .await
            .context("failed to publish")?;
        confirms.push(sent);
    }
    for confirm in confirms {
        let confirmed = confirm.await.context("failed to await a confirm")?;
        ensure!(matches!(confirmed, Confirmation::Ack(None)), "a message was not accepted: {confirmed:?}");
    }
    Ok(())
}
