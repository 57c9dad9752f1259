//! The broker: the connection, what `up` declares, and consumers against the hosts that the database knows.

use super::database::Opened;
use super::{Check, PATIENCE, count, management, within};
use crate::broker::amqp::{AmqpBroker, Connected, Found, Presence};
use crate::broker::{Broker, BrokerError};
use crate::config::{Services, Settings};
use crate::daemon;
use crate::db::HostRow;
use crate::explain::{self, Cause, DatabaseError, Facts, Places, QueueLook};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Checks that need the connection.
const BEHIND: [&str; 2] = ["broker.topology", "broker.queues"];

/// The time that connecting may take: the questions come after it.
const CONNECT: Duration = Duration::from_secs(4);

/// The reason why there is no connection.
#[derive(Clone, Debug)]
pub(super) enum NoBroker {
    /// The queue is embedded.
    Embedded,
    /// It does not respond.
    Away(String),
    /// It rejects this client.
    Refused(String),
}

/// Connects, and declares nothing.
pub(super) async fn open(settings: &Settings) -> Result<Arc<AmqpBroker>, NoBroker> {
    match within(CONNECT, daemon::amqp(settings)).await {
        Ok(Ok(Some(broker))) => Ok(broker),
        Ok(Ok(None)) => Err(NoBroker::Embedded),
        Ok(Err(BrokerError::Refused(why))) => Err(NoBroker::Refused(why)),
        Ok(Err(BrokerError::Unavailable(why))) => Err(NoBroker::Away(why)),
        Err(late) => Err(NoBroker::Away(late)),
    }
}

/// Queues and hosts, as `agentry task explain` asks for them.
pub(super) async fn survey(settings: &Settings, db: &Opened, broker: &Result<Arc<AmqpBroker>, NoBroker>) -> Facts {
    let db = match db {
        Opened::There(examined) => Ok(examined.db.clone()),
        Opened::NotYet => Err(DatabaseError::Refused("there is no database yet".into())),
        Opened::Unusable(why) => Err(DatabaseError::Refused(why.clone())),
    };
    let embedded = matches!(broker, Err(NoBroker::Embedded));
    let broker = match broker {
        Ok(broker) => Ok(broker.clone() as Arc<dyn Broker>),
        Err(NoBroker::Embedded) => Err("it is embedded in the daemon".to_owned()),
        Err(NoBroker::Away(why) | NoBroker::Refused(why)) => Err(why.clone()),
    };
    explain::survey(Places { db, broker, queues: settings.broker.queues.clone(), daemon: None, embedded }).await
}

pub(super) async fn checks(
    settings: &Settings,
    broker: &Result<Arc<AmqpBroker>, NoBroker>,
    survey: &Facts,
    hosts: &[HostRow],
) -> Vec<Check> {
    let behind = |reason: &str| BEHIND.map(|name| Check::skipped(name, reason));
    let name = "broker.connection";
    let origin = format!("broker.url ({})", settings.origin("broker.url"));
    let (first, rest) = match broker {
        Ok(broker) => {
            let names: Vec<String> = survey.queues.iter().map(|look| look.queue.clone()).collect();
            let inspect = within(PATIENCE, broker.inspect(&settings.broker.queues));
            let (connected, found, managed) =
                tokio::join!(within(PATIENCE, broker.connected()), inspect, management::check(settings, &names, hosts));
            let found = match found {
                Ok(Ok(found)) => Ok(found),
                Ok(Err(error)) => Err(error.to_string()),
                Err(late) => Err(late),
            };
            let connected = match connected {
                Ok(Ok(connected)) => Ok(connected),
                Ok(Err(error)) => Err(error.to_string()),
                Err(late) => Err(late),
            };
            let is_consumed = hosts.iter().any(|host| host.alive);
            let topology = topology(found, settings.broker.declare, is_consumed);
            let queues = queues(&survey.queues, explain::of_queues(survey), hosts);
            return vec![connection(connected, survey.refusal.as_deref(), &origin), topology, queues, managed];
        }
        Err(NoBroker::Embedded) => {
            let why = "the queue is embedded: its messages are rows of database.file";
            (Check::skipped(name, why), behind("the queue is embedded"))
        }
        Err(NoBroker::Away(why)) => {
            let check = Check::failed(
                name,
                why.clone(),
                format!("start the broker, or correct {origin}; hosts reconnect by themselves"),
            );
            (check, behind("the broker does not respond"))
        }
        Err(NoBroker::Refused(why)) => {
            let check = Check::failed(name, why.clone(), format!("follow the message, or correct {origin}"));
            (check, behind("the broker rejects this client"))
        }
    };
    let managed = match settings.services() {
        Services::Embedded => Check::skipped("broker.management", "the queue is embedded"),
        Services::External { .. } => management::check(settings, &settings.broker.queues, hosts).await,
    };
    [vec![first], rest.into(), vec![managed]].concat()
}

/// The connection; `refusal`: the broker accepts no messages.
pub(super) fn connection(connected: Result<Connected, String>, refusal: Option<&str>, origin: &str) -> Check {
    let name = "broker.connection";
    let Connected { version, tls, address, vhost } = match connected {
        Ok(connected) => connected,
        Err(why) => return Check::failed(name, why, format!("start the broker, or correct {origin}")),
    };
    let encrypted = if tls { ", TLS" } else { "" };
    let shown = version.as_deref().unwrap_or("of an unknown version");
    let mut check = Check::new(name, format!("RabbitMQ {shown}{encrypted}, {address}"))
        .with(json!({"version": version, "tls": tls, "address": address, "vhost": vhost}));
    if let Some(why) = refusal {
        check.fail(
            format!("the broker accepts no messages: {why}"),
            "free memory or disk on the broker (`rabbitmqctl list_alarms`), or raise its limits",
        );
    }
    check
}

/// What `up` declares. `is_consumed`: a live host keeps it declared.
pub(super) fn topology(found: Result<Vec<Found>, String>, declares: bool, is_consumed: bool) -> Check {
    let name = "broker.topology";
    let found = match found {
        Ok(found) => found,
        Err(why) => return Check::failed(name, why, "run it again; if it hangs again, see the broker's log"),
    };
    let state = |state: &Presence| match state {
        Presence::Fits => "fits",
        Presence::There => "exists",
        Presence::Missing => "missing",
        Presence::Refused(_) => "refused",
        Presence::Unknown(_) => "unknown",
    };
    let listed: Vec<_> =
        found.iter().map(|f| json!({"kind": f.kind, "name": f.name, "state": state(&f.state)})).collect();
    let good = found.iter().filter(|found| matches!(found.state, Presence::Fits | Presence::There)).count();
    let how = if declares { "as this build declares them" } else { "there; arguments are not compared" };
    let summary = format!("{good} of {} exchanges and queues are {how}", found.len());
    let mut check = Check::new(name, summary).with(json!({"objects": listed, "compared": declares}));
    let missing: Vec<&str> = found.iter().filter(|f| f.state == Presence::Missing).map(|f| f.name.as_str()).collect();
    if !missing.is_empty() {
        let text = format!("missing at the broker: {}", missing.join(", "));
        match (declares, is_consumed) {
            (false, _) => {
                check.fail(text, "declare it as host/docs/messages.md lists it, or set broker.declare = true")
            }
            (true, true) => check.fail(
                format!("{text}, although a live host should have declared it"),
                "compare broker.url, virtual host and broker.prefix with those of the hosts, and see their logs",
            ),
            (true, false) => check.warn(text, "start the daemon (`agentry up`), which declares it"),
        }
    }
    for Found { kind, name, state } in &found {
        match state {
            Presence::Refused(why) => check.fail(
                why.clone(),
                format!("repair the {kind} {name} as the message says; host/docs/messages.md lists what is needed"),
            ),
            Presence::Unknown(why) => check.fail(
                format!("the {kind} {name} could not be looked at: {why}"),
                "see the broker's log; a queue without a running leader does not respond (`rabbitmq-queues quorum_status`)",
            ),
            Presence::Fits | Presence::There | Presence::Missing => {}
        }
    }
    check
}

/// Messages and consumers against the hosts. Queues that are missing are reported with the topology.
pub(super) fn queues(looks: &[QueueLook], causes: Vec<Cause>, hosts: &[HostRow]) -> Check {
    let counted = |look: &QueueLook| look.tasks.as_ref().ok().map(|tasks| (tasks.ready, tasks.consumers));
    let listed: Vec<_> = looks
        .iter()
        .map(|look| {
            let (ready, consumers) = counted(look).unzip();
            json!({"queue": look.queue, "ready": ready, "consumers": consumers, "returned": look.returned, "dead": look.dead})
        })
        .collect();
    let ready: i64 = looks.iter().filter_map(counted).map(|(ready, _)| i64::from(ready)).sum();
    let consumers: i64 = looks.iter().filter_map(counted).map(|(_, consumers)| i64::from(consumers)).sum();
    let summary =
        format!("{} ready, {}", count(ready, "message", "messages"), count(consumers, "consumer", "consumers"));
    let mut check = Check::new("broker.queues", summary).with(json!({"queues": listed}));
    for cause in causes {
        let queue = cause.detail["queue"].as_str().unwrap_or_default();
        let has_host = hosts.iter().any(|host| host.alive && host.record.queues.iter().any(|name| name == queue));
        let waits = cause.detail["ready"].as_u64().is_some_and(|ready| ready > 0);
        let remedy = cause.remedy.unwrap_or_else(|| "see the broker's log".into());
        match cause.code {
            "no_queue" | "queue_refused" => {}
            // A queue that is empty and has no host is one that is not in use, or not yet.
            "no_consumer" if has_host => check.fail(cause.message, remedy),
            "no_consumer" if waits => check.warn(cause.message, remedy),
            "no_consumer" => {}
            _ => check.warn(cause.message, remedy),
        }
    }
    check
}
