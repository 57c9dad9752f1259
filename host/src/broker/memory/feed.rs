//! The task behind a subscription to a broker in memory.

use super::{Link, lock};
use crate::broker::{Delivery, Flow, Receipt, Source};
use chrono::{DateTime, Utc};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// One subscription.
pub(super) struct Feed {
    pub link: Arc<Link>,
    pub source: Source,
    pub prefetch: usize,
    pub deliveries: mpsc::Sender<Delivery>,
    pub confirmed: watch::Sender<Option<DateTime<Utc>>>,
    pub flow: watch::Receiver<Flow>,
    pub end: CancellationToken,
}

/// Handed over, and perhaps not read.
type Unread = (u64, Weak<()>);

/// Why one channel's life is over.
enum Left {
    /// The reader dropped the subscription: what it has read may still be acknowledged.
    Dropped(Option<Unread>),
    Ended,
    /// The connection is gone.
    Lost,
}

impl Feed {
    pub async fn run(mut self) {
        loop {
            let connection = tokio::select! {
                biased;
                () = self.over() => return,
                connection = self.link.connected() => connection,
            };
            let Some(channel) = self.link.server.open(&self.source) else {
                tokio::select! {
                    biased;
                    () = self.over() => return,
                    () = tokio::time::sleep(Duration::from_millis(500)) => continue,
                }
            };
            lock(&self.link.channels).insert(channel);
            lock(&self.link.opened).insert(channel);
            let left = self.serve(channel, connection).await;
            self.pause();
            match left {
                Left::Lost => {}
                Left::Ended => return self.give_up(channel),
                Left::Dropped(unread) => return self.linger(channel, unread).await,
            }
        }
    }

    async fn over(&self) {
        tokio::select! {
            biased;
            () = self.link.closing.cancelled() => {}
            () = self.end.cancelled() => {}
            () = self.deliveries.closed() => {}
        }
    }

    fn pause(&self) {
        if self.confirmed.send_replace(None).is_some() {
            self.link.server.consumes(&self.source, false);
        }
    }

    fn give_up(&self, channel: u64) {
        lock(&self.link.channels).remove(&channel);
        lock(&self.link.opened).remove(&channel);
        self.link.server.end(channel);
    }

    async fn serve(&mut self, channel: u64, connection: u64) -> Left {
        let news = self.link.server.news();
        // What an earlier connection handed over may still stand there.
        let mut unread: Option<Unread> = (self.deliveries.capacity() == 0).then(|| (0, Weak::new()));
        let mut steered = true;
        loop {
            let going = *self.flow.borrow_and_update() == Flow::Go;
            // Before anything is looked at, so that whatever comes in between is heard.
            let mut fresh = pin!(news.notified());
            fresh.as_mut().enable();
            if !going {
                self.pause();
            } else if self.confirmed.borrow().is_none() {
                self.confirmed.send_replace(Some(Utc::now()));
                self.link.server.consumes(&self.source, true);
            }
            if going
                && unread.is_none()
                && let Some((tag, stored)) = self.link.server.take(channel, self.prefetch)
            {
                let delivery = Delivery {
                    source: self.source.clone(),
                    message: stored.message,
                    redelivered: stored.redelivered,
                    receipt: Receipt::new(channel, tag),
                    arrived: tokio::time::Instant::now(),
                };
                unread = Some((tag, Arc::downgrade(&delivery.receipt.alive)));
                // There is room whenever `unread` is empty; otherwise the reader is gone, which is heard below.
                let _ = self.deliveries.try_send(delivery);
            }
            tokio::select! {
                biased;
                () = self.link.closing.cancelled() => return Left::Ended,
                () = self.end.cancelled() => return Left::Ended,
                () = self.deliveries.closed() => return Left::Dropped(unread),
                () = self.link.lost(connection) => return Left::Lost,
                changed = self.flow.changed(), if steered => steered = changed.is_ok(),
                room = self.deliveries.reserve(), if unread.is_some() => match room {
                    Ok(_) => unread = None,
                    Err(_) => return Left::Dropped(unread),
                },
                () = fresh => {}
            }
        }
    }

    /// Keep the channel while there are receipts for it. What was dropped with the reader's channel, unread, goes back.
    async fn linger(&self, channel: u64, mut unread: Option<Unread>) {
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        loop {
            if let Some((tag, _)) = unread.take_if(|(_, receipt)| receipt.strong_count() == 0) {
                self.link.server.give_back(channel, tag);
            }
            if !self.link.knows(channel) {
                return;
            }
            if self.link.server.holds(channel).is_none_or(|held| held == 0) {
                return self.give_up(channel);
            }
            tokio::select! {
                biased;
                () = self.end.cancelled() => return self.give_up(channel),
                () = self.link.closing.cancelled() => return self.give_up(channel),
                _ = tick.tick() => {}
            }
        }
    }
}
