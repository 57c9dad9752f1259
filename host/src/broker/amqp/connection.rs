//! One connection that mends itself: connect, serve, notice its end, connect again, for ever.
//!
//! lapin can recover by itself; that is left off. Its recovery replays topology and consumers silently, and then nobody
//! can tell which delivery tags still mean something. Here a connection that ends takes its channels with it, visibly.

use super::refusal::BY_BROKER;
use super::transport::{self, Socket};
use super::{AmqpOptions, refusal};
use crate::broker::{BrokerError, Health};
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use rand::Rng;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// For the TCP connection and AMQP's handshake together.
const CONNECT: Duration = Duration::from_secs(10);
/// For a channel to open. Nothing is queued before it, so a healthy broker answers in one round trip.
const OPEN_CHANNEL: Duration = Duration::from_secs(5);
/// A connection that lived this long was a good one: the next back-off starts anew.
const SETTLED: Duration = Duration::from_secs(10);

/// How often it is repeated that the broker rejects this host.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Full-jitter exponential back-off, 100 ms to 10 s (as in AWS's "Exponential Backoff And Jitter").
pub(super) fn backoff(attempt: u32) -> Duration {
    let ceiling = 100u64.saturating_mul(1 << attempt.min(10)).min(10_000);
    // Never nothing: a peer that accepts and hangs up at once is not to be hammered.
    Duration::from_millis(rand::rng().random_range(10..=ceiling))
}

/// A connection that was opened, until it ends.
pub(super) struct Live {
    connection: Connection,
    socket: Arc<Socket>,
    condemned: OnceLock<String>,
    ended: Notify,
    pub(super) since: DateTime<Utc>,
}

impl Live {
    /// Whether it is alive as far as it knows.
    pub(super) fn is_connected(&self) -> bool {
        self.condemned.get().is_none() && self.connection.status().connected()
    }

    /// The broker has asked for silence (a memory or disk alarm): nothing is written until it says otherwise.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// The largest frame.
    pub(super) fn frame_max(&self) -> u32 {
        self.connection.configuration().frame_max()
    }

    /// The version of the server.
    pub(super) fn version(&self) -> Option<&str> {
        self.socket.version()
    }

    /// The address at the other end.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.socket.peer()
    }

    /// Give it up without ceremony: it does not answer, so a polite close would not be answered either.
    pub(super) fn condemn(&self, reason: &str) {
        let _ = self.condemned.set(reason.to_owned());
        self.socket.shut();
        self.ended.notify_one();
    }

    /// A new channel. One that is not opened in time condemns the connection.
    pub(super) async fn channel(&self) -> Result<Channel, BrokerError> {
        match timeout(OPEN_CHANNEL, self.connection.create_channel()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(BrokerError::Unavailable(format!("opening a channel: {error}"))),
            Err(_) if self.is_blocked() => {
                Err(BrokerError::Unavailable("RabbitMQ has blocked this connection (memory or disk alarm)".into()))
            }
            Err(_) => {
                let reason = format!("no channel was opened within {} s", OPEN_CHANNEL.as_secs());
                self.condemn(&reason);
                Err(BrokerError::Unavailable(reason))
            }
        }
    }

    /// Wait until it ends; answers why.
    async fn end(&self) -> String {
        let mut events = std::pin::pin!(self.connection.events_listener());
        // Not every way to close has an event (a close with code 200 has none).
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                event = events.next() => match event {
                    // Errors of a channel come here too, and are handled where the channel is.
                    Some(Event::Error(error)) if !self.is_connected() => {
                        return self.condemned.get().cloned().unwrap_or_else(|| error.to_string());
                    }
                    Some(Event::ConnectionBlocked(reason)) => {
                        tracing::warn!(reason, "RabbitMQ has blocked this connection: it takes no messages for now");
                    }
                    Some(Event::ConnectionUnblocked) => tracing::info!("RabbitMQ takes messages again"),
                    Some(_) => continue,
                    None => return "it was closed".into(),
                },
                _ = tick.tick() => {}
                () = self.ended.notified() => {}
            }
            if let Some(reason) = self.condemned.get() {
                return reason.clone();
            }
            if !self.connection.status().connected() {
                return "it was closed".into();
            }
        }
    }

    async fn close(&self) {
        if let Ok(Err(error)) = timeout(Duration::from_secs(3), self.connection.close(200, "OK".into())).await {
            tracing::debug!(%error, "the connection was not closed politely");
        }
        self.socket.shut();
    }
}

async fn open(options: &AmqpOptions, name: &str) -> Result<Live, BrokerError> {
    let address = &options.address;
    let unavailable =
        |reason: &str| BrokerError::Unavailable(format!("connecting to {address}: {}", address.redact(reason)));
    let mut uri = address.uri();
    uri.query.heartbeat.get_or_insert(options.heartbeat_seconds);
    let patience = uri.query.connection_timeout.map_or(CONNECT, Duration::from_millis);
    let properties = ConnectionProperties::default()
        .with_connection_name(name.into())
        .with_client_property("product".into(), "agentry".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let socket = Arc::new(Socket::default());
    let (keep, trust) = (socket.clone(), options.trust.clone());
    let connecting = Connection::connector(
        uri,
        transport::runtime(),
        async move |uri: AMQPUri, _| transport::connect(&uri, &trust, patience, &keep).await,
        properties,
    );
    match timeout(patience, connecting).await {
        Ok(Ok(connection)) => {
            Ok(Live { connection, socket, condemned: OnceLock::new(), ended: Notify::new(), since: Utc::now() })
        }
        Ok(Err(error)) => {
            socket.shut();
            let greeting = socket.greeting();
            Err(match refusal::refusal(address, &options.trust, &error, greeting) {
                Some(text) => BrokerError::Refused(text),
                None => unavailable(&format!("{error}{}", refusal::hint(address, &error, greeting))),
            })
        }
        Err(_) => {
            socket.shut();
            Err(unavailable(&format!("no answer within {} s", patience.as_secs_f32())))
        }
    }
}

/// Refusals in a row of a broker that was away before, after which they are taken for final. With the back-off they take about ten seconds.
const REFUSALS: u32 = 6;

/// How attempts to connect ended: the first that succeeded, and until then the last one. The error: whether it is one that does not
/// mend itself, and why.
pub(super) type FirstOutcome = Option<Result<(), (bool, String)>>;

/// A connection and the task that keeps it.
pub(super) struct Link {
    pub(super) live: watch::Receiver<Option<Arc<Live>>>,
    pub(super) health: watch::Receiver<Health>,
    pub(super) first: watch::Receiver<FirstOutcome>,
}

impl Link {
    /// Start connecting. Ends when `closing` is cancelled.
    pub(super) fn start(
        options: Arc<AmqpOptions>,
        name: String,
        closing: CancellationToken,
        tracker: &tokio_util::task::TaskTracker,
    ) -> Link {
        let (live_tx, live) = watch::channel(None);
        let (health_tx, health) = watch::channel(Health::Down(Utc::now(), "connecting".into()));
        let (first_tx, first) = watch::channel(None);
        tracker.spawn(async move {
            let mut attempt = 0;
            let mut refusals = 0;
            let mut was_away = false;
            let mut last_said = None;
            while !closing.is_cancelled() {
                let began = Instant::now();
                let opened = tokio::select! {
                    opened = open(&options, &name) => opened,
                    () = closing.cancelled() => break,
                };
                let reason = match opened {
                    Ok(live) => {
                        let version = live.version();
                        tracing::info!(address = %options.address, name, peer = ?live.peer(), version, "connected to RabbitMQ");
                        let live = Arc::new(live);
                        live_tx.send_replace(Some(live.clone()));
                        health_tx.send_replace(Health::Up(live.since));
                        first_tx.send_if_modified(|f| !matches!(f.replace(Ok(())), Some(Ok(()))));
                        let ended = tokio::select! {
                            reason = live.end() => Some(options.address.redact(&reason)),
                            () = closing.cancelled() => None,
                        };
                        live_tx.send_replace(None);
                        let Some(reason) = ended else {
                            live.close().await;
                            break;
                        };
                        live.socket.shut();
                        if began.elapsed() > SETTLED {
                            attempt = 0;
                        }
                        format!("the connection to {} ended: {reason}", options.address)
                    }
                    Err(error) => {
                        let (refused, text) = match error {
                            BrokerError::Refused(text) => (true, text),
                            BrokerError::Unavailable(text) => (false, text),
                        };
                        refusals = if refused { refusals + 1 } else { 0 };
                        was_away |= !refused;
                        // A broker that has just started refuses users and virtual hosts that are loaded or created after its port.
                        let may_load = was_away && text.starts_with(BY_BROKER);
                        let is_final = refused && (!may_load || refusals >= REFUSALS);
                        first_tx.send_if_modified(|f| {
                            let now = Some(Err((is_final, text.clone())));
                            !matches!(f, Some(Ok(()))) && std::mem::replace(f, now.clone()) != now
                        });
                        if refused && last_said.is_none_or(|at: Instant| at.elapsed() > SAY_AGAIN) {
                            last_said = Some(Instant::now());
                            tracing::error!(reason = text, "RabbitMQ rejects this host; retrying until that is corrected");
                        }
                        text
                    }
                };
                went_down(&health_tx, &reason);
                let pause = backoff(attempt);
                attempt += 1;
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = closing.cancelled() => break,
                }
            }
            health_tx.send_replace(Health::Down(Utc::now(), "closed".into()));
        });
        Link { live, health, first }
    }

    /// The live connection, waiting at most `patience` for it.
    pub(super) async fn live(&self, patience: Duration) -> Result<Arc<Live>, BrokerError> {
        let mut watch = self.live.clone();
        let found = timeout(patience, watch.wait_for(|live| live.as_ref().is_some_and(|l| l.is_connected()))).await;
        match found {
            Ok(Ok(live)) => live.clone().ok_or_else(|| self.unavailable()),
            _ => Err(self.unavailable()),
        }
    }

    fn unavailable(&self) -> BrokerError {
        BrokerError::Unavailable(match &*self.health.borrow() {
            Health::Up(_) => "the connection has just ended".into(),
            Health::Down(_, reason) => reason.clone(),
        })
    }
}

/// Say it once per reason: an outage of an hour is not a line every ten seconds.
fn went_down(health: &watch::Sender<Health>, reason: &str) {
    health.send_if_modified(|health| {
        let since = match health {
            Health::Down(_, same) if same == reason => return false,
            Health::Down(since, _) => *since,
            Health::Up(_) => Utc::now(),
        };
        tracing::warn!(reason, "RabbitMQ is away; trying again, for ever");
        *health = Health::Down(since, reason.to_owned());
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_to_ten_seconds_and_is_never_nothing() {
        for attempt in [0, 1, 5, 40] {
            let ceiling = Duration::from_millis(100 * (1 << attempt.min(10))).min(Duration::from_secs(10));
            for _ in 0..100 {
                let pause = backoff(attempt);
                assert!(pause >= Duration::from_millis(10) && pause <= ceiling, "{attempt}: {pause:?}");
            }
        }
    }
}
