//! The task behind a [`Subscription`](crate::broker::Subscription): consume, hand over, prove that it is alive, and start
//! anew whenever it is not.

use super::Shared;
use super::acks::{Incarnation, Settle};
use super::connection::{Live, backoff};
use super::convert;
use super::topology::{CALL, call, meaning, passive};
use crate::broker::{BrokerError, Delivery, Flow, Source};
use chrono::{DateTime, Utc};
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

/// How often a subscription asks its channel for a sign of life, and how long it waits for one.
const PROBE_EVERY: Duration = Duration::from_secs(5);
const PROBE_ANSWER: Duration = Duration::from_secs(5);

/// One subscription.
pub(super) struct Feed {
    pub(super) shared: Arc<Shared>,
    pub(super) source: Source,
    /// The name of the queue at the broker.
    pub(super) queue: String,
    /// The consumer tag. Each consume on a channel adds its number: RabbitMQ 3.10 answers INTERNAL_ERROR to a tag that was
    /// cancelled on the same channel while messages of a quorum queue are out with it.
    pub(super) tag: String,
    pub(super) consumes: u32,
    pub(super) prefetch: u16,
    pub(super) deliveries: mpsc::Sender<Delivery>,
    pub(super) confirmed: watch::Sender<Option<DateTime<Utc>>>,
    pub(super) flow: watch::Receiver<Flow>,
    pub(super) end: CancellationToken,
}

/// Why consuming stopped.
enum Left {
    /// The reader dropped the subscription: what it has read may still be acknowledged.
    Dropped,
    /// It was ended, or the broker is being closed: everything unacknowledged goes back.
    Ended,
    /// To be started anew.
    Lost(BrokerError),
}

impl From<BrokerError> for Left {
    fn from(error: BrokerError) -> Self {
        Left::Lost(error)
    }
}

/// Deliveries that the reader's channel holds. More than one, so that a flood does not cost two task switches a delivery.
pub(super) const HANDED: usize = 32;

/// What is on its way to the reader.
#[derive(Default)]
struct InHand {
    /// Taken from lapin, not handed over; prefetch bounds it. Taken at once, whether the reader reads or not, since the end
    /// of a channel is only heard behind its deliveries.
    next: VecDeque<Delivery>,
    /// The last [`HANDED`] that were handed over, and perhaps not read: tag, and whether the receipt still exists.
    unread: VecDeque<(u64, Weak<()>)>,
}

impl InHand {
    /// Hand over as much as the reader's channel has room for.
    fn hand_over(&mut self, first: mpsc::Permit<'_, Delivery>, deliveries: &mpsc::Sender<Delivery>) {
        let mut permit = Some(first);
        while let Some(delivery) = self.next.pop_front() {
            let Some(permit) = permit.take().or_else(|| deliveries.try_reserve().ok()) else {
                self.next.push_front(delivery);
                return;
            };
            if self.unread.len() == HANDED {
                self.unread.pop_front(); // read: there was room for as many after it
            }
            self.unread.push_back((delivery.receipt.tag, Arc::downgrade(&delivery.receipt.alive)));
            permit.send(delivery);
        }
    }
}

impl Feed {
    /// Consume until the reader or the broker has had enough. `first` hears how the first attempt ended.
    pub(super) async fn run(mut self, first: oneshot::Sender<Result<(), BrokerError>>) {
        let mut first = Some(first);
        let mut attempt = 0;
        let mut said = String::new();
        loop {
            let left = self.session(&mut first, &mut attempt).await;
            self.confirmed.send_replace(None);
            let Left::Lost(error) = left else { return };
            let text = error.to_string();
            if let Some(first) = first.take() {
                let refused = matches!(error, BrokerError::Refused(_));
                // The caller has gone if this fails; then the deliveries' receiver has too.
                let _ = first.send(if refused { Err(error) } else { Ok(()) });
                if refused {
                    return;
                }
            }
            if attempt == 0 {
                // It had been consuming: whatever ended that is news.
                said.clear();
            }
            if said != text {
                tracing::warn!(queue = self.queue, reason = text, "not consuming; trying again, for ever");
                said = text;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff(attempt)) => attempt += 1,
                () = self.over() => return,
            }
        }
    }

    /// The reader or the broker has had enough.
    async fn over(&self) {
        tokio::select! {
            () = self.deliveries.closed() => {}
            () = self.end.cancelled() => {}
            () = self.shared.closing.cancelled() => {}
        }
    }

    /// One channel's life.
    async fn session(
        &mut self,
        first: &mut Option<oneshot::Sender<Result<(), BrokerError>>>,
        attempt: &mut u32,
    ) -> Left {
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = self.over() => return Left::Ended,
        };
        let (live, incarnation) = match opened {
            Ok(opened) => opened,
            Err(error) => return error.into(),
        };
        let mut hand = InHand::default();
        let left = match self.serve(&live, &incarnation, &mut hand, first, attempt).await {
            Ok(left) | Err(left) => left,
        };
        self.confirmed.send_replace(None);
        if matches!(left, Left::Dropped) {
            incarnation.settle(hand.next.iter().map(|d| d.receipt.tag).collect(), Settle::GiveBack).await;
            self.linger(&incarnation, hand.unread).await;
        }
        // Whoever comes now comes too late; whoever came before has been answered or is ahead of the close.
        self.shared.incarnations.end(&incarnation);
        incarnation.flush().await;
        // A lost one is closed by being dropped.
        if !matches!(left, Left::Lost(_)) && incarnation.channel.status().connected() {
            self.close(&incarnation).await;
        }
        left
    }

    async fn open(&self) -> Result<(Arc<Live>, Arc<Incarnation>), BrokerError> {
        let live = self.shared.consuming.live(CALL).await?;
        self.shared.redeclare(&live, self.source.queue()).await?;
        let channel = live.channel().await?;
        call("setting the prefetch", channel.basic_qos(self.prefetch, BasicQosOptions::default())).await?;
        Ok((live, self.shared.incarnations.begin(channel, self.prefetch)))
    }

    async fn serve(
        &mut self,
        live: &Live,
        incarnation: &Incarnation,
        hand: &mut InHand,
        first: &mut Option<oneshot::Sender<Result<(), BrokerError>>>,
        attempt: &mut u32,
    ) -> Result<Left, Left> {
        let mut consumer: Option<Consumer> = None;
        let mut probe: Option<BoxFuture<'static, Result<(), BrokerError>>> = None;
        let mut steered = true;
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + PROBE_EVERY, PROBE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let flow = *self.flow.borrow_and_update();
            if flow != Flow::Go
                && let Some(running) = consumer.take()
            {
                self.confirmed.send_replace(None);
                self.withdraw(incarnation, running, &mut hand.next).await?;
            }
            if flow == Flow::GiveBack && !hand.next.is_empty() {
                incarnation.settle(hand.next.drain(..).map(|d| d.receipt.tag).collect(), Settle::GiveBack).await;
            }
            if flow == Flow::Go && consumer.is_none() {
                self.consumes += 1;
                consumer = Some(self.consume(&incarnation.channel).await?);
                self.confirmed.send_replace(Some(Utc::now()));
                *attempt = 0;
                tracing::info!(queue = self.queue, consumer = self.tag, prefetch = self.prefetch, "consuming");
            }
            if let Some(first) = first.take() {
                // See `run`.
                let _ = first.send(Ok(()));
            }
            tokio::select! {
                permit = self.deliveries.reserve(), if flow == Flow::Go && !hand.next.is_empty() => {
                    let Ok(permit) = permit else { return Ok(self.leave(incarnation, consumer, hand, Left::Dropped).await) };
                    hand.hand_over(permit, &self.deliveries);
                }
                Some(received) = OptionFuture::from(consumer.as_mut().map(|c| c.next())) => {
                    let (mut received, mut taken) = (Some(received), 0);
                    // What has arrived behind it is taken as well: a turn of this loop costs more than a delivery does.
                    while let Some(one) = received.take() {
                        match one {
                            Some(Ok(delivery)) => self.take(incarnation, delivery, &mut hand.next).await,
                            Some(Err(error)) => return Err(meaning("consuming", &error).into()),
                            None => {
                                let text = format!("RabbitMQ cancelled the consumer of {:?}: was it deleted?", self.queue);
                                return Err(BrokerError::Unavailable(text).into());
                            }
                        }
                        taken += 1;
                        if taken < HANDED {
                            received = consumer.as_mut().and_then(|consumer| consumer.next().now_or_never());
                        }
                    }
                }
                Some(alive) = OptionFuture::from(probe.as_mut()) => {
                    probe = None;
                    alive?;
                }
                _ = tick.tick(), if probe.is_none() => probe = Some(sign_of_life(&incarnation.channel, &self.queue)),
                changed = self.flow.changed(), if steered => steered = changed.is_ok(),
                () = self.deliveries.closed() => return Ok(self.leave(incarnation, consumer, hand, Left::Dropped).await),
                () = self.end.cancelled() => return Ok(self.leave(incarnation, consumer, hand, Left::Ended).await),
                () = self.shared.closing.cancelled() => {
                    return Ok(self.leave(incarnation, consumer, hand, Left::Ended).await);
                }
            }
            if !live.is_connected() {
                return Err(BrokerError::Unavailable("the connection has ended".into()).into());
            }
        }
    }

    /// Take a delivery in hand.
    async fn take(&self, incarnation: &Incarnation, delivery: lapin::message::Delivery, next: &mut VecDeque<Delivery>) {
        incarnation.delivered(delivery.delivery_tag).await;
        next.push_back(convert::delivery(&self.source, incarnation.id, delivery));
    }

    fn consumer_tag(&self) -> String {
        match self.consumes {
            0 | 1 => self.tag.clone(),
            later => format!("{}#{later}", self.tag),
        }
    }

    async fn consume(&self, channel: &Channel) -> Result<Consumer, BrokerError> {
        call(
            &format!("consuming from {:?}", self.queue),
            channel.basic_consume(
                self.queue.as_str().into(),
                self.consumer_tag().into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            ),
        )
        .await
    }

    /// Cancel the consumer; what lapin holds of it joins `next`.
    async fn withdraw(
        &self,
        incarnation: &Incarnation,
        mut consumer: Consumer,
        next: &mut VecDeque<Delivery>,
    ) -> Result<(), BrokerError> {
        let channel = &incarnation.channel;
        call("cancelling a consumer", channel.basic_cancel(self.consumer_tag().into(), BasicCancelOptions::default()))
            .await?;
        let drained = timeout(CALL, async {
            while let Some(Ok(delivery)) = consumer.next().await {
                self.take(incarnation, delivery, next).await;
            }
        });
        if drained.await.is_err() {
            return Err(BrokerError::Unavailable("a cancelled consumer did not end".into()));
        }
        Ok(())
    }

    /// Stop consuming because nobody wants more. That it fails matters to nobody: the channel is on its way out.
    async fn leave(
        &self,
        incarnation: &Incarnation,
        consumer: Option<Consumer>,
        hand: &mut InHand,
        left: Left,
    ) -> Left {
        if let Some(consumer) = consumer
            && let Err(error) = self.withdraw(incarnation, consumer, &mut hand.next).await
        {
            tracing::debug!(%error, queue = self.queue, "the consumer was not cancelled politely");
        }
        incarnation.settle(hand.next.drain(..).map(|d| d.receipt.tag).collect(), Settle::GiveBack).await;
        left
    }

    /// Close the channel, with good manners. RabbitMQ's channel passes acknowledgements on to a quorum queue through a
    /// buffer of its own, and what is still in there when the channel closes is delivered again. So it is asked for an
    /// answer first; by then the buffer has been passed on.
    async fn close(&self, incarnation: &Incarnation) {
        let polite = async {
            sign_of_life(&incarnation.channel, &self.queue).await?;
            call("closing a channel", incarnation.channel.close(200, "OK".into())).await
        };
        if let Err(error) = polite.await {
            tracing::debug!(%error, queue = self.queue, "the channel was not closed politely");
        }
    }

    /// Keep the channel while there are receipts for it. What was dropped with the reader's channel, unread, goes back:
    /// its receipt is gone, or will be in a moment.
    async fn linger(&self, incarnation: &Incarnation, mut unread: VecDeque<(u64, Weak<()>)>) {
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        loop {
            let gone = |(tag, receipt): &(u64, Weak<()>)| (receipt.strong_count() == 0).then_some(*tag);
            let tags: Vec<u64> = unread.iter().filter_map(gone).collect();
            if !tags.is_empty() {
                unread.retain(|(_, receipt)| receipt.strong_count() > 0);
                // Those that were read and settled are settled already, and are skipped.
                incarnation.settle(tags, Settle::GiveBack).await;
            }
            tokio::select! {
                () = incarnation.drained() => return,
                _ = tick.tick() => if !incarnation.channel.status().connected() { return },
                () = self.end.cancelled() => return,
                () = self.shared.closing.cancelled() => return,
            }
        }
    }
}

/// A passive declare on the consuming channel itself. A connection that is half open, or a channel that hangs, does not
/// answer; a queue that is gone answers with an error.
fn sign_of_life(channel: &Channel, queue: &str) -> BoxFuture<'static, Result<(), BrokerError>> {
    let (channel, queue) = (channel.clone(), queue.to_owned());
    Box::pin(async move {
        match timeout(PROBE_ANSWER, passive(&channel, &queue)).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => Err(BrokerError::Unavailable(format!(
                "the channel that consumes from {queue:?} gave no sign of life within {} s",
                PROBE_ANSWER.as_secs()
            ))),
        }
    })
}
