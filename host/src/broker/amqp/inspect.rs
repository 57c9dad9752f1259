//! The topology as it is, against the one that this build declares. Changes nothing.
//!
//! AMQP returns no arguments of a queue. A queue that exists is declared again with those of this build: RabbitMQ compares them, and
//! either does nothing or names the difference. So each is looked up first, and one that is missing is not declared.

use super::topology::{self, Names};
use super::{AmqpBroker, CALL, close_channel, connection::Live};
use crate::broker::{BrokerError, Source};
use futures_util::future::join_all;
use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use std::sync::Arc;

/// One exchange or queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `exchange` or `queue`.
    pub kind: &'static str,
    /// Its name at the broker.
    pub name: String,
    /// Its state.
    pub state: Presence,
}

/// The state of an exchange or a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is there, as this build declares it.
    Fits,
    /// It is there; its arguments were not compared, since `broker.declare` is false.
    There,
    /// It is not there.
    Missing,
    /// It is there with other arguments, or not accessible: the reason, with the remedy.
    Refused(String),
    /// The broker did not respond.
    Unknown(String),
}

/// The connection as AMQP shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Version of the server, where it reports one.
    pub version: Option<String>,
    /// The connection is encrypted.
    pub tls: bool,
    /// Address without the password.
    pub address: String,
    /// Virtual host.
    pub vhost: String,
}

impl AmqpBroker {
    /// The connection.
    ///
    /// # Errors
    /// The broker is not connected.
    pub async fn connected(&self) -> Result<Connected, BrokerError> {
        let live = self.shared.consuming.live(CALL).await?;
        let address = &self.shared.options.address;
        Ok(Connected {
            version: live.version().map(str::to_owned),
            tls: address.is_tls(),
            address: address.to_string(),
            vhost: address.vhost().to_owned(),
        })
    }

    /// Looks at the exchanges and at every queue of these logical queues.
    ///
    /// # Errors
    /// The broker is not connected.
    pub async fn inspect(&self, queues: &[String]) -> Result<Vec<Found>, BrokerError> {
        let live = self.shared.consuming.live(CALL).await?;
        let (names, compare) = (&self.shared.names, self.shared.options.declare);
        let exchanges = [names.exchange(), names.dead_exchange()].map(|name| exchange(&live, name, compare));
        let sources = queues.iter().flat_map(|queue| {
            let queue: Arc<str> = queue.as_str().into();
            [Source::Tasks(queue.clone()), Source::Returned(queue.clone()), Source::Dead(queue)]
        });
        let queues = sources.map(|source| queue(&live, names, source, compare));
        let (mut exchanges, queues) = tokio::join!(join_all(exchanges), join_all(queues));
        exchanges.extend(queues);
        Ok(exchanges)
    }
}

async fn exchange(live: &Live, name: String, compare: bool) -> Found {
    let looked = declare_exchange(live, &name, true).await;
    let state = match presence(looked) {
        Presence::There if compare => compared(declare_exchange(live, &name, false).await),
        state => state,
    };
    Found { kind: "exchange", name, state }
}

/// On a channel of its own: a refusal closes the channel.
async fn declare_exchange(live: &Live, name: &str, passive: bool) -> Result<(), BrokerError> {
    let channel = live.channel().await?;
    let options = ExchangeDeclareOptions { passive, durable: true, ..Default::default() };
    let declare = channel.exchange_declare(name.into(), ExchangeKind::Direct, options, FieldTable::default());
    topology::call(&format!("looking at exchange {name:?}"), declare).await?;
    close_channel(&channel).await;
    Ok(())
}

async fn queue(live: &Live, names: &Names, source: Source, compare: bool) -> Found {
    let name = names.queue(&source);
    let looked = async {
        let channel = live.channel().await?;
        topology::passive(&channel, &name).await?;
        close_channel(&channel).await;
        Ok(())
    };
    let state = match presence(looked.await) {
        Presence::There if compare => {
            let again = async {
                let channel = live.channel().await?;
                topology::declare_queue(&channel, &name, topology::arguments(names, &source)).await?;
                close_channel(&channel).await;
                Ok(())
            };
            compared(again.await)
        }
        state => state,
    };
    Found { kind: "queue", name, state }
}

fn presence(looked: Result<(), BrokerError>) -> Presence {
    match looked {
        Ok(()) => Presence::There,
        // A queue whose leader is down is reported with the same code as one that is missing.
        Err(BrokerError::Refused(why)) if why.contains("does not exist") && !why.contains("down") => Presence::Missing,
        Err(BrokerError::Refused(why)) => Presence::Refused(why),
        Err(BrokerError::Unavailable(why)) => Presence::Unknown(why),
    }
}

fn compared(declared: Result<(), BrokerError>) -> Presence {
    match presence(declared) {
        Presence::There => Presence::Fits,
        other => other,
    }
}
