//! Publishing: one channel with confirms, every message `mandatory`, everything that waits in one go.
//!
//! The task publishes a window, awaits all of its confirms, and meanwhile the next window gathers. One window at a time,
//! because of what lapin does with returns: it hands a returned message to whichever confirm is resolved next, and one
//! confirm frame may resolve many, in any order. Within a whole window every return has arrived with its confirms, and
//! finds its publication by what it is.

use super::connection::{Link, Live};
use super::convert;
use super::topology::{CALL, call, meaning};
use super::{Shared, close_channel};
use crate::broker::names::prepared;
use crate::broker::{BrokerError, Publication, PublishError, Target};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind, PublisherConfirm};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// A window: few enough for lapin's buffers, which have no bound of their own, and many enough that a round trip to
/// a quorum of disks is shared.
const WINDOW: usize = 1000;
const WINDOW_BYTES: usize = 8 << 20;
/// For all confirms of a window. A quorum queue without its majority answers nothing at all.
const CONFIRM: Duration = Duration::from_secs(30);
/// Why nothing is published while the broker asks for that.
pub(super) const BLOCKED: &str = "RabbitMQ has blocked publishing (memory or disk alarm)";
/// Everything in a content header that is not headers: at most ten short strings, and some.
const PROPERTIES_BYTES: u32 = 3000;

/// What [`publish`](crate::broker::Broker::publish) asks for.
pub(super) struct Job {
    pub(super) batch: Vec<Publication>,
    pub(super) answer: oneshot::Sender<Vec<Result<(), PublishError>>>,
}

/// Hand a batch to the task that publishes; returns once each message is confirmed, or known not to be.
pub(super) async fn publish(jobs: &mpsc::Sender<Job>, batch: Vec<Publication>) -> Vec<Result<(), PublishError>> {
    let n = batch.len();
    let closed = || vec![Err(PublishError::Unconfirmed("the broker was closed".into())); n];
    if n == 0 {
        return Vec::new();
    }
    let (answer, answered) = oneshot::channel();
    match jobs.send(Job { batch, answer }).await {
        Ok(()) => answered.await.unwrap_or_else(|_| closed()),
        Err(_) => closed(),
    }
}

/// The task that publishes, until the broker is closed; what was asked for until then is still published. `own`: a connection of its
/// own, in place of the one for tasks.
pub(super) async fn run(shared: Arc<Shared>, mut jobs: mpsc::Receiver<Job>, own: Option<Link>) {
    let mut publisher = Publisher { shared: shared.clone(), own, channel: None };
    loop {
        let job = tokio::select! {
            job = jobs.recv() => job,
            () = shared.closing.cancelled(), if !jobs.is_closed() => {
                jobs.close();
                continue;
            }
        };
        let Some(job) = job else { break };
        let mut answers = vec![(job.answer, job.batch.len())];
        let mut all = job.batch;
        while all.len() < WINDOW
            && let Ok(job) = jobs.try_recv()
        {
            answers.push((job.answer, job.batch.len()));
            all.extend(job.batch);
        }
        let mut results = publisher.publish(all).await.into_iter();
        for (answer, n) in answers {
            // Nobody waits any more: their task was cancelled.
            let _ = answer.send(results.by_ref().take(n).collect());
        }
    }
}

struct Publisher {
    shared: Arc<Shared>,
    own: Option<Link>,
    channel: Option<(Arc<Live>, Channel)>,
}

/// One message of a window: what it looks like on the wire, and what became of it.
struct Sent {
    exchange: String,
    key: String,
    properties: BasicProperties,
    result: Result<(), PublishError>,
}

type Sending<'a> = MaybeDone<BoxFuture<'a, lapin::Result<PublisherConfirm>>>;

impl Publisher {
    async fn publish(&mut self, batch: Vec<Publication>) -> Vec<Result<(), PublishError>> {
        let batch: Vec<Publication> = batch.into_iter().map(prepared).collect();
        let mut results = Vec::with_capacity(batch.len());
        let mut rest = batch.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(WINDOW).take_while(|p| {
                bytes += p.message.body.len();
                bytes <= WINDOW_BYTES
            });
            let (window, after) = rest.split_at(fits.count().max(1));
            rest = after;
            match self.channel().await {
                Ok((live, channel)) => results.extend(self.window(&live, &channel, window).await),
                Err(error) => {
                    let error = PublishError::Unconfirmed(error.to_string());
                    results.resize(batch.len(), Err(error));
                    break;
                }
            }
        }
        results
    }

    async fn channel(&mut self) -> Result<(Arc<Live>, Channel), BrokerError> {
        if let Some((live, channel)) = &self.channel
            && live.is_connected()
            && channel.status().connected()
        {
            if live.is_blocked() {
                return Err(BrokerError::Unavailable(BLOCKED.into()));
            }
            return Ok((live.clone(), channel.clone()));
        }
        self.channel = None;
        let live = self.own.as_ref().unwrap_or(&self.shared.publishing).live(CALL).await?;
        let channel = live.channel().await?;
        call("asking for confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        self.channel = Some((live.clone(), channel.clone()));
        Ok((live, channel))
    }

    async fn window(
        &mut self,
        live: &Live,
        channel: &Channel,
        window: &[Publication],
    ) -> Vec<Result<(), PublishError>> {
        let room = live.frame_max().saturating_sub(PROPERTIES_BYTES) as usize;
        let mut sent: Vec<Sent> = Vec::with_capacity(window.len());
        let mut sending: Vec<(usize, Sending<'_>)> = Vec::with_capacity(window.len());
        for publication in window {
            let (exchange, key) = self.shared.names.route(&publication.target);
            if let Target::Queue(name) = &publication.target
                && self.shared.names.is_own(name)
            {
                let result = Err(PublishError::Unroutable(format!("{name:?}, which is this host's own")));
                sent.push(Sent { exchange, key, properties: BasicProperties::default(), result });
                continue;
            }
            let built = if key.len() > 255 {
                Err(format!("the routing key has {} bytes and AMQP allows 255", key.len()))
            } else {
                convert::properties(&publication.message, room)
            };
            let result = match built {
                Ok(properties) => {
                    let future = channel.basic_publish(
                        exchange.as_str().into(),
                        key.as_str().into(),
                        BasicPublishOptions { mandatory: !is_direct(&publication.target), ..Default::default() },
                        &publication.message.body,
                        properties.clone(),
                    );
                    sending.push((sent.len(), maybe_done(future.boxed())));
                    Ok(properties)
                }
                Err(text) => Err(PublishError::Unconfirmed(text)),
            };
            let (properties, result) = match result {
                // Until its confirm says otherwise.
                Ok(properties) => (properties, Err(PublishError::Unconfirmed("no answer in time".into()))),
                Err(error) => (BasicProperties::default(), Err(error)),
            };
            sent.push(Sent { exchange, key, properties, result });
        }
        // The first poll puts a message into lapin's queue, so this is the order on the wire.
        poll_fn(|cx| {
            for (_, future) in &mut sending {
                let _ = Pin::new(future).poll(cx);
            }
            Poll::Ready(())
        })
        .await;

        let mut refused = false;
        let mut returned: Vec<(usize, BasicReturnMessage)> = Vec::new();
        let mut failed: Option<lapin::Error> = None;
        let confirmed = timeout(CONFIRM, async {
            for (index, future) in &mut sending {
                Pin::new(&mut *future).await;
                let confirm = match Pin::new(future).take_output() {
                    Some(Ok(confirm)) => confirm.await,
                    Some(Err(error)) => Err(error),
                    None => continue,
                };
                sent[*index].result = match confirm {
                    Ok(Confirmation::Ack(message)) => {
                        returned.extend(message.map(|m| (*index, m)));
                        Ok(())
                    }
                    Ok(Confirmation::Nack(message)) => {
                        returned.extend(message.map(|m| (*index, m)));
                        refused = true;
                        Err(PublishError::Unconfirmed("RabbitMQ refused it (nack): is the queue full?".into()))
                    }
                    Ok(Confirmation::NotRequested) => {
                        Err(PublishError::Unconfirmed("the channel is not in confirm mode".into()))
                    }
                    Err(error) => {
                        let text = meaning("publishing", &error).to_string();
                        failed = Some(error);
                        Err(PublishError::Unconfirmed(text))
                    }
                };
            }
        })
        .await;
        drop(sending);

        for (index, message) in returned {
            let index = whose(&message, window, &sent).unwrap_or(index);
            sent[index].result = Err(unroutable(&window[index].target, &sent[index]));
            // A binding or a queue of ours is gone.
            if !matches!(window[index].target, Target::Queue(_)) {
                self.shared.nudge.notify_one();
            }
        }
        if confirmed.is_err() {
            // What lapin still holds would go out later, without anybody knowing.
            live.condemn(&format!("publishing was not confirmed within {} s", CONFIRM.as_secs()));
            self.channel = None;
        }
        if let Some(error) = failed {
            tracing::warn!(%error, "the publishing channel is gone; opening another");
            if matches!(error.kind(), ErrorKind::ProtocolError(_)) {
                self.shared.nudge.notify_one();
            }
            self.channel = None;
        }
        if refused && let Some((_, channel)) = self.channel.take() {
            // A quorum queue that is full has the channel refuse on its own, and does not take that back when its limit is
            // removed by a policy. A new channel asks the queue.
            tokio::spawn(async move { close_channel(&channel).await });
        }
        sent.into_iter().map(|s| s.result).collect()
    }
}

/// Whether it goes straight to a consumer (RabbitMQ, "Direct Reply-to"): there is no queue of that name, and with `mandatory` the broker
/// would deliver it and return it as well.
fn is_direct(target: &Target) -> bool {
    matches!(target, Target::Queue(name) if name.starts_with("amq.rabbitmq.reply-to."))
}

/// Which publication came back. Two that are alike in everything are alike in this too.
fn whose(message: &BasicReturnMessage, window: &[Publication], sent: &[Sent]) -> Option<usize> {
    (0..window.len()).find(|i| {
        let Sent { exchange, key, properties, result } = &sent[*i];
        result.is_ok()
            && message.routing_key.as_str() == key
            && message.exchange.as_str() == exchange
            && message.data == window[*i].message.body
            && message.properties == *properties
    })
}

fn unroutable(target: &Target, sent: &Sent) -> PublishError {
    PublishError::Unroutable(match target {
        Target::Queue(name) => format!("the name {name:?}"),
        _ => format!("key {:?} of exchange {:?}", sent.key, sent.exchange),
    })
}
