//! A plain AMQP client, as any producer has one: nothing of it knows the daemon's code.

use futures_util::StreamExt;
use futures_util::future::join_all;
use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};

/// A connection with a channel whose publishes are confirmed.
pub struct Amqp {
    connection: Connection,
    publisher: Channel,
}

/// See [`Amqp::hold`]. A consumer that is dropped is cancelled.
pub struct Holder {
    client: Amqp,
    _consumer: Consumer,
}

impl Holder {
    /// Closes the connection, and the broker has what it held.
    pub async fn close(self) {
        self.client.connection.close(200, "done".into()).await.expect("a connection that closes");
    }
}

/// A message about to be published.
#[derive(Clone, Default)]
pub struct Outgoing {
    /// Its body.
    pub body: Vec<u8>,
    /// Its properties.
    pub properties: BasicProperties,
}

impl Outgoing {
    /// A persistent message of type JSON.
    pub fn json(body: impl Into<Vec<u8>>) -> Self {
        let properties = BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
        Self { body: body.into(), properties }
    }

    /// The same with other properties.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(BasicProperties) -> BasicProperties) -> Self {
        self.properties = change(self.properties);
        self
    }

    /// The same with a text header.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.with(|properties| {
            let mut headers = properties.headers().clone().unwrap_or_default();
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
            properties.with_headers(headers)
        })
    }
}

/// A message taken from a queue.
#[derive(Debug)]
pub struct Taken {
    /// Its body.
    pub body: Vec<u8>,
    /// Its properties.
    pub properties: BasicProperties,
}

impl Taken {
    /// A header that is text; empty if it is missing.
    pub fn header(&self, name: &str) -> String {
        let headers = self.properties.headers().as_ref();
        match headers.and_then(|headers| headers.inner().get(name)) {
            Some(AMQPValue::LongString(text)) => text.to_string(),
            Some(AMQPValue::ShortString(text)) => text.to_string(),
            _ => String::new(),
        }
    }
}

impl Amqp {
    /// Connects to a broker.
    pub async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await;
        let connection = connection.expect("the broker answers");
        let publisher = connection.create_channel().await.expect("a channel");
        publisher.confirm_select(ConfirmSelectOptions::default()).await.expect("publisher confirms");
        Self { connection, publisher }
    }

    /// Publishes, and returns when the broker has confirmed every message as routed.
    pub async fn publish(&self, exchange: &str, key: &str, messages: impl IntoIterator<Item = Outgoing>) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let mut confirms = Vec::new();
        for Outgoing { body, properties } in messages {
            let publish = self.publisher.basic_publish(exchange.into(), key.into(), options, &body, properties);
            confirms.push(publish.await.expect("a publish"));
        }
        for confirm in join_all(confirms).await {
            let confirm = confirm.expect("a confirm");
            assert!(confirm.is_ack(), "the broker refused a message for {exchange}/{key}");
            assert!(confirm.take_message().is_none(), "no queue is bound for {exchange}/{key}");
        }
    }

    /// Whether a message for this key would reach a queue: publishes it, and says what came of it.
    pub async fn is_routed(&self, exchange: &str, key: &str, message: Outgoing) -> Result<(), String> {
        // A channel of its own: a missing exchange closes it.
        let channel = self.connection.create_channel().await.map_err(|error| error.to_string())?;
        let confirms = ConfirmSelectOptions::default();
        channel.confirm_select(confirms).await.map_err(|error| error.to_string())?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let Outgoing { body, properties } = message;
        let publish = channel.basic_publish(exchange.into(), key.into(), options, &body, properties).await;
        let confirm = publish.map_err(|error| error.to_string())?.await.map_err(|error| error.to_string())?;
        let routed = confirm.is_ack() && confirm.take_message().is_none();
        let _ = channel.close(200, "done".into()).await; // the connection ends soon anyway
        if routed { Ok(()) } else { Err("it came back".to_owned()) }
    }

    /// Takes away the binding of a queue.
    pub async fn unbind(&self, queue: &str, exchange: &str, key: &str) {
        let channel = self.connection.create_channel().await.expect("a channel");
        let unbind = channel.queue_unbind(queue.into(), exchange.into(), key.into(), FieldTable::default());
        unbind.await.expect("the binding is gone");
    }

    /// Deletes an exchange.
    pub async fn delete_exchange(&self, exchange: &str) {
        let channel = self.connection.create_channel().await.expect("a channel");
        let delete = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
        delete.await.expect("the exchange is gone");
    }

    /// Messages that are ready, and consumers; `Err` if there is no such queue.
    pub async fn count(&self, queue: &str) -> Result<(u32, u32), String> {
        // Asking for a queue that does not exist closes the channel, so this has its own.
        let channel = self.connection.create_channel().await.map_err(|error| error.to_string())?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
        let queue = queue.map_err(|error| error.to_string())?;
        let counts = (queue.message_count(), queue.consumer_count());
        let _ = channel.close(200, "done".into()).await; // the connection ends soon anyway
        Ok(counts)
    }

    /// Takes every message that is ready. They are given back when this client goes.
    pub async fn take_all(&self, queue: &str) -> Vec<Taken> {
        let channel = self.connection.create_channel().await.expect("a channel");
        let mut all = Vec::new();
        while let Some(BasicGetMessage { delivery, .. }) =
            channel.basic_get(queue.into(), BasicGetOptions::default()).await.expect("a get")
        {
            all.push(Taken { body: delivery.data.clone(), properties: delivery.properties.clone() });
        }
        all
    }

    /// Declares what `host/docs/messages.md` says the daemon declares, word for word.
    pub async fn declare(&self, prefix: &str, logical: &str) {
        let dead = self.declare_exchanges(prefix).await;
        let returned_key = format!("{logical}.returned");
        let dead_key = format!("{logical}.dead");
        let queues = [
            (format!("{prefix}.{logical}"), prefix, logical, dead_lettering(&dead, &returned_key)),
            (format!("{prefix}.{returned_key}.v2"), &dead, &returned_key, {
                let mut arguments = dead_lettering(&dead, &dead_key);
                arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(1000));
                arguments
            }),
            (format!("{prefix}.{dead_key}"), &dead, &dead_key, quorum()),
        ];
        for (queue, exchange, key, arguments) in queues {
            self.declare_queue(&queue, arguments).await;
            self.bind(&queue, exchange, key).await;
        }
        let moved = format!("{returned_key}.v2");
        self.bind(&format!("{prefix}.{moved}"), &dead, &moved).await;
    }

    /// Declares both exchanges; returns the name of that of dead letters.
    async fn declare_exchanges(&self, prefix: &str) -> String {
        let channel = self.connection.create_channel().await.expect("a channel");
        let dead = format!("{prefix}.dead");
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        for exchange in [prefix, &dead] {
            let declare =
                channel.exchange_declare(exchange.into(), ExchangeKind::Direct, durable, FieldTable::default());
            declare.await.expect("an exchange");
        }
        dead
    }

    /// Declares what builds before `PREFIX.QUEUE.returned.v2` declared.
    pub async fn declare_as_before(&self, prefix: &str, logical: &str) {
        let dead = self.declare_exchanges(prefix).await;
        let (returned_key, dead_key) = (format!("{logical}.returned"), format!("{logical}.dead"));
        for (key, exchange, arguments) in [
            (&returned_key, &*dead, quorum()),
            (&dead_key, &*dead, quorum()),
            (&logical.to_owned(), prefix, dead_lettering(&dead, &returned_key)),
        ] {
            let queue = format!("{prefix}.{key}");
            self.declare_queue(&queue, arguments).await;
            self.bind(&queue, exchange, key).await;
        }
    }

    /// Binds a queue.
    pub async fn bind(&self, queue: &str, exchange: &str, key: &str) {
        let channel = self.connection.create_channel().await.expect("a channel");
        let options = QueueBindOptions::default();
        let bind = channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default());
        bind.await.expect("a binding");
    }

    /// Consumes a queue on a connection of its own, and acknowledges nothing: it holds one message until it is closed.
    pub async fn hold(url: &str, queue: &str) -> Holder {
        let client = Self::connect(url).await;
        client.publisher.basic_qos(1, BasicQosOptions::default()).await.expect("a prefetch of one");
        let options = BasicConsumeOptions::default();
        let consume = client.publisher.basic_consume(queue.into(), "holder".into(), options, FieldTable::default());
        let consumer = consume.await.expect("a consumer");
        Holder { client, _consumer: consumer }
    }

    /// Takes every message that is ready, on a connection of its own, and ends without an acknowledgement, as a process does
    /// that is killed. Returns how many it took.
    pub async fn take_and_die(url: &str, queue: &str) -> usize {
        let client = Self::connect(url).await;
        let taken = client.take_all(queue).await.len();
        let _ = client.connection.close(320, "it dies".into()).await; // the broker may be faster
        taken
    }

    /// Publishes a message and waits for the reply to it, over RabbitMQ's direct reply-to.
    pub async fn call(&self, exchange: &str, key: &str, message: Outgoing) -> Taken {
        let channel = self.connection.create_channel().await.expect("a channel");
        let pseudo = "amq.rabbitmq.reply-to";
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consume = channel.basic_consume(pseudo.into(), "".into(), options, FieldTable::default());
        let mut replies = consume.await.expect("a consumer");
        let Outgoing { body, properties } = message.with(|properties| properties.with_reply_to(pseudo.into()));
        let publish =
            channel.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), &body, properties);
        publish.await.expect("a publish").await.expect("a publish");
        let reply = tokio::time::timeout(crate::patience::patience(), replies.next()).await;
        let delivery = reply.expect("a reply in time").expect("a reply").expect("a delivery");
        Taken { body: delivery.data.clone(), properties: delivery.properties.clone() }
    }

    /// Declares a durable queue.
    pub async fn declare_queue(&self, queue: &str, arguments: FieldTable) {
        let channel = self.connection.create_channel().await.expect("a channel");
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), durable, arguments).await.expect("a queue");
    }

    /// Deletes what belongs to a prefix.
    pub async fn delete(&self, prefix: &str, logical: &[String]) {
        let Ok(channel) = self.connection.create_channel().await else { return };
        for queue in logical {
            for suffix in ["", ".returned", ".returned.v2", ".dead"] {
                let name = format!("{prefix}.{queue}{suffix}");
                let _ = channel.queue_delete(name.into(), QueueDeleteOptions::default()).await; // as far as it exists
            }
        }
        for exchange in [prefix.to_owned(), format!("{prefix}.dead"), format!("{prefix}.events")] {
            let _ = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await;
        }
    }
}

/// `x-queue-type=quorum`.
pub fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments
}

fn dead_lettering(dead: &str, returned_key: &str) -> FieldTable {
    let mut arguments = quorum();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(dead.into()));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(returned_key.into()));
    arguments
}
