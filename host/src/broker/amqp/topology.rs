//! Exchanges and queues as `host/docs/messages.md` lists them, and what RabbitMQ says when others are in the way.

use crate::broker::{BrokerError, Source, Target};
use lapin::Queue;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ErrorKind, ExchangeKind};
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

/// Deliveries without an acknowledgement after which the broker moves a returned message to the dead-letter queue. The same on
/// every version of RabbitMQ: 3.x has no limit by default, and 4.x one of 20. Hosts that crash or restart stay far below it; a
/// message that crashes every host before it is claimed does not circle for ever.
const RETURNED_LIMIT: i32 = 1000;

/// For the broker's answer to any one call.
pub(super) const CALL: Duration = Duration::from_secs(10);

/// Names of what belongs to a prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Result<Self, BrokerError> {
        crate::broker::names::check_name("broker.prefix", prefix)?;
        Ok(Names { prefix: prefix.to_owned() })
    }

    pub(super) fn exchange(&self) -> String {
        self.prefix.clone()
    }

    pub(super) fn dead_exchange(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    pub(super) fn queue(&self, source: &Source) -> String {
        match source {
            Source::Tasks(q) => format!("{}.{q}", self.prefix),
            Source::Returned(q) => format!("{}.{q}.returned.v2", self.prefix),
            Source::Dead(q) => format!("{}.{q}.dead", self.prefix),
        }
    }

    /// The queue of returned messages as builds before [`RETURNED_LIMIT`] declared it; see [`super::earlier`].
    pub(super) fn earlier_returned(&self, queue: &str) -> String {
        format!("{}.{queue}.returned", self.prefix)
    }

    /// Whether a queue of this name is, or may become, one of the daemon's. Producers may not name it for replies: they would publish to it
    /// with the daemon's permissions.
    pub(super) fn is_own(&self, queue: &str) -> bool {
        queue.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with('.'))
    }

    /// Exchange and routing key.
    pub(super) fn route(&self, target: &Target) -> (String, String) {
        match target {
            Target::Tasks(q) => (self.exchange(), q.clone()),
            // A key of its own: the other may lead to the earlier queue as well, and then a message would be moved in a circle.
            Target::Returned(q) => (self.dead_exchange(), format!("{q}.returned.v2")),
            Target::Dead(q) => (self.dead_exchange(), format!("{q}.dead")),
            Target::Queue(name) => (String::new(), name.clone()),
        }
    }
}

/// Bound a call, and say what it was for.
pub(super) async fn call<T>(what: &str, future: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
    match timeout(CALL, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(meaning(what, &error)),
        Err(_) => Err(BrokerError::Unavailable(format!("{what}: no answer within {} s", CALL.as_secs()))),
    }
}

/// Declare one logical queue with all that belongs to it. Repeating it changes nothing.
pub(super) async fn declare(channel: &Channel, names: &Names, queue: &str) -> Result<(), BrokerError> {
    let (exchange, dead) = (names.exchange(), names.dead_exchange());
    for exchange in [&exchange, &dead] {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        call(
            &format!("declaring exchange {exchange:?}"),
            channel.exchange_declare(exchange.as_str().into(), ExchangeKind::Direct, options, FieldTable::default()),
        )
        .await?;
    }
    // What builds before this one know of it is its arguments and its key, which never change.
    let returned = format!("{queue}.returned");
    let q = std::sync::Arc::<str>::from(queue);
    let (tasks, kept, letters) = (Source::Tasks(q.clone()), Source::Returned(q.clone()), Source::Dead(q));
    // The queues that take what is dead-lettered come first, so that none is lost in between.
    let dead_key = format!("{queue}.dead");
    let name = names.queue(&letters);
    declare_queue(channel, &name, arguments(names, &letters)).await?;
    bind(channel, &name, &dead, &dead_key).await?;

    let name = names.queue(&kept);
    declare_queue(channel, &name, arguments(names, &kept)).await?;
    bind(channel, &name, &dead, &returned).await?;
    let (_, moved) = names.route(&Target::Returned(queue.to_owned()));
    bind(channel, &name, &dead, &moved).await?;

    // Hosts of an earlier build consume it and bind it again and again, so this is repeated as well.
    let name = names.earlier_returned(queue);
    declare_queue(channel, &name, quorum()).await?;
    let unbind = channel.queue_unbind(
        name.as_str().into(),
        dead.as_str().into(),
        returned.as_str().into(),
        FieldTable::default(),
    );
    call(&format!("removing the binding of queue {name:?} to exchange {dead:?}"), unbind).await?;

    let name = names.queue(&tasks);
    declare_queue(channel, &name, arguments(names, &tasks)).await?;
    bind(channel, &name, &exchange, queue).await
}

/// Arguments of a queue, which never change.
pub(super) fn arguments(names: &Names, source: &Source) -> FieldTable {
    let (dead, queue) = (names.dead_exchange(), source.queue());
    match source {
        Source::Tasks(_) => dead_lettering(&dead, &format!("{queue}.returned")),
        Source::Returned(_) => {
            let mut arguments = dead_lettering(&dead, &format!("{queue}.dead"));
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(RETURNED_LIMIT));
            arguments
        }
        Source::Dead(_) => quorum(),
    }
}

pub(super) async fn declare_queue(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    call(&format!("declaring queue {name:?}"), channel.queue_declare(name.into(), options, arguments)).await.map(drop)
}

async fn bind(channel: &Channel, name: &str, exchange: &str, key: &str) -> Result<(), BrokerError> {
    let options = QueueBindOptions::default();
    let bind = channel.queue_bind(name.into(), exchange.into(), key.into(), options, FieldTable::default());
    call(&format!("binding queue {name:?} to exchange {exchange:?}"), bind).await
}

/// Check, without changing anything, that all of it is there (`broker.declare=false`). AMQP lets nobody read arguments or
/// bindings, so those are not checked.
pub(super) async fn check(channel: &Channel, names: &Names, queue: &str) -> Result<(), BrokerError> {
    for exchange in [names.exchange(), names.dead_exchange()] {
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        call(
            &format!("checking exchange {exchange:?}"),
            channel.exchange_declare(exchange.into(), ExchangeKind::Direct, options, FieldTable::default()),
        )
        .await
        .map_err(undeclared)?;
    }
    let q = std::sync::Arc::<str>::from(queue);
    for source in [Source::Tasks(q.clone()), Source::Returned(q.clone()), Source::Dead(q)] {
        passive(channel, &names.queue(&source)).await.map_err(undeclared)?;
    }
    Ok(())
}

/// What the broker counts for a queue; it must exist.
pub(super) async fn passive(channel: &Channel, name: &str) -> Result<Queue, BrokerError> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    call(&format!("looking at queue {name:?}"), channel.queue_declare(name.into(), options, FieldTable::default()))
        .await
}

fn undeclared(error: BrokerError) -> BrokerError {
    match error {
        BrokerError::Refused(text) if text.contains("does not exist") => BrokerError::Refused(format!(
            "{text}; broker.declare is false: declare it as host/docs/messages.md lists it, or set broker.declare=true"
        )),
        other => other,
    }
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments
}

fn dead_lettering(exchange: &str, key: &str) -> FieldTable {
    let mut arguments = quorum();
    arguments.insert("x-dead-letter-exchange".into(), text(exchange));
    arguments.insert("x-dead-letter-routing-key".into(), text(key));
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// What an error of a channel means: some cannot mend themselves.
pub(super) fn meaning(what: &str, error: &lapin::Error) -> BrokerError {
    let ErrorKind::ProtocolError(protocol) = error.kind() else {
        return BrokerError::Unavailable(format!("{what}: {error}"));
    };
    let says = protocol.get_message().as_str();
    match protocol.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => BrokerError::Refused(inequivalent(what, says)),
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => BrokerError::Refused(format!(
            "{what}: RabbitMQ does not allow it ({says}); grant it with `rabbitmqctl set_permissions`, or declare it yourself and set broker.declare=false"
        )),
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => {
            BrokerError::Refused(format!("{what}: it does not exist ({says})"))
        }
        AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED) => BrokerError::Refused(format!(
            "{what}: another connection owns it exclusively ({says}); set another broker.prefix or queue name"
        )),
        _ => BrokerError::Unavailable(format!("{what}: {says}")),
    }
}

/// Queue, argument, both values, and a way out on which nothing is lost.
fn inequivalent(what: &str, says: &str) -> String {
    let Some(found) = Inequivalent::parse(says) else {
        return format!("{what}: RabbitMQ refuses it ({says}); nothing was changed");
    };
    let Inequivalent { argument, kind, name, vhost, wanted, current } = found;
    let then = if kind == "queue" {
        "set another broker.prefix (or queue name), start on fresh queues, and move the waiting messages over with a \
         shovel; or stop the producers, let the queue run empty, delete it, and start again"
    } else {
        "set another broker.prefix; or have its owner delete it, which loses no message that is already in a queue"
    };
    let current = current.map_or(format!("no {argument}"), |value| format!("{argument} '{value}'"));
    let wanted = wanted.map_or("none".to_owned(), |value| format!("'{value}'"));
    format!(
        "{kind} {name:?} in virtual host {vhost:?} has {current}, and {wanted} is needed; nothing was changed. Either {then}"
    )
}

/// RabbitMQ's `inequivalent arg 'A' for KIND 'N' in vhost 'V': received X but current is Y`.
struct Inequivalent<'a> {
    argument: &'a str,
    kind: &'a str,
    name: &'a str,
    vhost: &'a str,
    wanted: Option<&'a str>,
    current: Option<&'a str>,
}

impl<'a> Inequivalent<'a> {
    fn parse(says: &'a str) -> Option<Self> {
        let (_, rest) = says.split_once("inequivalent arg '")?;
        let (argument, rest) = rest.split_once("' for ")?;
        let (kind, rest) = rest.split_once(" '")?;
        let (name, rest) = rest.split_once("' in vhost '")?;
        let (vhost, rest) = rest.split_once("': received ")?;
        let (wanted, current) = rest.split_once(" but current is ")?;
        Some(Inequivalent { argument, kind, name, vhost, wanted: value(wanted), current: value(current) })
    }
}

/// `none` · `'x'` · `the value 'x' of type 'longstr'`.
fn value(text: &str) -> Option<&str> {
    let text = text.trim();
    if text == "none" {
        return None;
    }
    let text = text.strip_prefix("the value ").unwrap_or(text);
    Some(text.rsplit_once(" of type ").map_or(text, |(value, _)| value).trim_matches('\''))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inequivalent_queue_is_told_with_argument_values_and_remedy() {
        let says = "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'agentry.default' in vhost '/': \
                    received 'quorum' but current is 'classic'";
        insta::assert_snapshot!(inequivalent("declaring queue \"agentry.default\"", says), @r#"queue "agentry.default" in virtual host "/" has x-queue-type 'classic', and 'quorum' is needed; nothing was changed. Either set another broker.prefix (or queue name), start on fresh queues, and move the waiting messages over with a shovel; or stop the producers, let the queue run empty, delete it, and start again"#);
        let says = "PRECONDITION_FAILED - inequivalent arg 'x-dead-letter-exchange' for queue 'agentry.default' in vhost \
                    'team': received the value 'agentry.dead' of type 'longstr' but current is none";
        insta::assert_snapshot!(inequivalent("declaring queue \"agentry.default\"", says), @r#"queue "agentry.default" in virtual host "team" has no x-dead-letter-exchange, and 'agentry.dead' is needed; nothing was changed. Either set another broker.prefix (or queue name), start on fresh queues, and move the waiting messages over with a shovel; or stop the producers, let the queue run empty, delete it, and start again"#);
        let says = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'agentry' in vhost '/': received 'direct' \
                    but current is 'topic'";
        insta::assert_snapshot!(inequivalent("declaring exchange \"agentry\"", says), @r#"exchange "agentry" in virtual host "/" has type 'topic', and 'direct' is needed; nothing was changed. Either set another broker.prefix; or have its owner delete it, which loses no message that is already in a queue"#);
    }

    #[test]
    fn a_refusal_that_is_not_understood_is_told_as_it_came() {
        let says = "PRECONDITION_FAILED - invalid property 'non-durable' for queue 'x' in vhost '/'";
        assert_eq!(
            inequivalent("declaring queue \"x\"", says),
            "declaring queue \"x\": RabbitMQ refuses it (PRECONDITION_FAILED - invalid property 'non-durable' for \
             queue 'x' in vhost '/'); nothing was changed"
        );
    }

    #[test]
    fn names_are_those_of_the_contract() {
        let names = Names::new("agentry").unwrap();
        let q: std::sync::Arc<str> = "default".into();
        assert_eq!(names.queue(&Source::Tasks(q.clone())), "agentry.default");
        assert_eq!(names.queue(&Source::Returned(q.clone())), "agentry.default.returned.v2");
        assert_eq!(names.earlier_returned("default"), "agentry.default.returned");
        assert_eq!(names.queue(&Source::Dead(q)), "agentry.default.dead");
        assert_eq!(names.route(&Target::Tasks("default".into())), ("agentry".into(), "default".into()));
        assert_eq!(
            names.route(&Target::Returned("default".into())),
            ("agentry.dead".into(), "default.returned.v2".into())
        );
        assert_eq!(names.route(&Target::Dead("default".into())), ("agentry.dead".into(), "default.dead".into()));
        for (queue, own) in
            [("agentry.default", true), ("agentry.default.dead", true), ("agentry-answers", false), ("answers", false)]
        {
            assert_eq!(names.is_own(queue), own, "{queue}");
        }
        assert_eq!(names.route(&Target::Queue("amq.gen-x".into())), (String::new(), "amq.gen-x".into()));
    }
}
