//! The task behind an embedded [`Subscription`](crate::broker::Subscription).

use super::line::Line;
use super::{Shared, from_row};
use crate::broker::{Delivery, Flow, Receipt, Source};
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// What one subscription holds unacknowledged.
pub(super) struct Holding {
    pub(super) line: Arc<Line>,
    held: Mutex<Held>,
    released: Notify,
}

#[derive(Default)]
struct Held {
    ids: BTreeSet<i64>,
    /// Nobody consumes for it any more; it goes when it is empty.
    left: bool,
}

impl Holding {
    pub(super) fn new(line: Arc<Line>) -> Self {
        line.consumer_came();
        Holding { line, held: Mutex::default(), released: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Let go of one; false if it was not held.
    pub(super) fn release(&self, id: i64) -> bool {
        let was_held = self.lock().ids.remove(&id);
        self.released.notify_one();
        was_held
    }

    /// Whether nothing will ever be settled here again.
    pub(super) fn is_abandoned(&self) -> bool {
        let held = self.lock();
        held.left && held.ids.is_empty()
    }

    fn holds(&self, id: i64) -> bool {
        self.lock().ids.contains(&id)
    }

    fn count(&self) -> usize {
        self.lock().ids.len()
    }
}

/// One subscription.
pub(super) struct Feed {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    pub(super) source: Source,
    pub(super) holding: Arc<Holding>,
    pub(super) prefetch: usize,
    pub(super) deliveries: mpsc::Sender<Delivery>,
    pub(super) confirmed: watch::Sender<Option<DateTime<Utc>>>,
    pub(super) flow: watch::Receiver<Flow>,
    pub(super) end: CancellationToken,
}

/// Handed over, and perhaps not read: its id, and whether its receipt still is. Known to be read when there is room again.
type Unread = (i64, Weak<()>);

enum Left {
    /// The reader dropped the subscription: what it has read may still be acknowledged.
    Dropped,
    /// It was ended, or the broker is being closed: everything unacknowledged comes again.
    Ended,
}

impl Feed {
    pub(super) fn confirm(&self) {
        self.confirmed.send_replace(Some(Utc::now()));
    }

    pub(super) async fn run(mut self) {
        let mut unread = None;
        let left = self.serve(&mut unread).await;
        if self.confirmed.send_replace(None).is_some() {
            self.holding.line.consumer_left();
        }
        self.holding.lock().left = true;
        let ids: Vec<i64> = match left {
            Left::Dropped => self.linger(unread).await.into_iter().filter(|id| self.holding.release(*id)).collect(),
            Left::Ended => std::mem::take(&mut self.holding.lock().ids).into_iter().collect(),
        };
        for id in ids {
            self.holding.line.put_back(id);
        }
        if self.holding.is_abandoned() {
            self.shared.holdings().remove(&self.id);
        }
    }

    /// What was dropped with the reader's channel, unread: its receipt is gone, or will be in a moment.
    async fn linger(&self, unread: Option<Unread>) -> Option<i64> {
        let (id, receipt) = unread?;
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        while self.holding.holds(id) {
            if receipt.strong_count() == 0 {
                return Some(id);
            }
            tokio::select! {
                _ = tick.tick() => {}
                () = self.end.cancelled() => break,
                () = self.shared.closing.cancelled() => break,
            }
        }
        None
    }

    async fn serve(&mut self, unread: &mut Option<Unread>) -> Left {
        let line = self.holding.line.clone();
        let mut steered = true;
        loop {
            let paused = *self.flow.borrow_and_update() != Flow::Go; // nothing is buffered here: to hold is to pause
            let consuming = self.confirmed.borrow().is_some();
            if paused && consuming {
                line.consumer_left();
                self.confirmed.send_replace(None);
            } else if !paused && !consuming {
                line.consumer_came();
                self.confirm();
            }
            // Before anything is looked at, so that whatever comes in between is heard.
            let mut arrival = pin!(line.arrival());
            arrival.as_mut().enable();
            let mut nothing = paused;
            if !paused && unread.is_none() && self.holding.count() < self.prefetch {
                // Read to the end, not within `select!`: a database future in flight is not to be dropped.
                match line.take(&self.shared.table).await {
                    Ok(Some((message, redelivered))) => {
                        self.hand_over(message, redelivered, unread);
                        continue;
                    }
                    Ok(None) => nothing = true,
                    Err(error) => {
                        tracing::error!(%error, queue = ?self.source, "the embedded queue cannot be read; trying again");
                        tokio::select! {
                            () = tokio::time::sleep(Duration::from_secs(1)) => {}
                            () = self.end.cancelled() => return Left::Ended,
                            () = self.shared.closing.cancelled() => return Left::Ended,
                        }
                        continue;
                    }
                }
            }
            tokio::select! {
                room = self.deliveries.reserve(), if unread.is_some() => match room {
                    Ok(_) => *unread = None,
                    Err(_) => return Left::Dropped,
                },
                () = arrival, if nothing && !paused => {}
                () = self.holding.released.notified() => {}
                changed = self.flow.changed(), if steered => steered = changed.is_ok(),
                () = self.deliveries.closed() => return Left::Dropped,
                () = self.end.cancelled() => return Left::Ended,
                () = self.shared.closing.cancelled() => return Left::Ended,
            }
        }
    }

    fn hand_over(
        &self,
        message: crate::db::queue_table::StoredMessage,
        redelivered: bool,
        unread: &mut Option<Unread>,
    ) {
        let id = message.id;
        self.holding.lock().ids.insert(id);
        let delivery = Delivery {
            source: self.source.clone(),
            message: from_row(message.content),
            redelivered,
            receipt: Receipt::new(self.id, id as u64),
        };
        *unread = Some((id, Arc::downgrade(&delivery.receipt.alive)));
        if self.deliveries.try_send(delivery).is_err() {
            // There is room whenever `unread` is empty, so the reader is gone; `serve` gives it back.
            tracing::trace!(id, "the reader is gone");
        }
    }
}
