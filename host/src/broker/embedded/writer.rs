//! The one task that writes. It commits what waits, and meanwhile the next group gathers: under load, many callers share
//! one fsync; alone, nobody waits for company.

use crate::broker::Health;
use crate::db::queue_table::{Changes, NewMessage, QueueTable};
use chrono::Utc;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

/// A group: rows and bytes of one transaction.
const ROWS: usize = 4000;
const BYTES: usize = 16 << 20;

pub(super) type Done = oneshot::Sender<Result<(), String>>;

/// What is to be written.
pub(super) enum Write {
    /// Append messages.
    Append { rows: Vec<NewMessage>, done: Done },
    /// Remove messages.
    Remove { ids: Vec<i64>, done: Done },
    /// Up to which id a queue (by key) was handed over. Nobody waits for it: `redelivered` is a hint.
    Handed { queue: i64, upto: i64 },
}

/// Asks for writes.
pub(super) struct Writer(Mutex<Option<mpsc::UnboundedSender<Write>>>);

/// Unbounded, but for every message in it somebody waits with the memory for it in hand, or it is one small mark per
/// delivery, of which prefetch allows few.
pub(super) fn pair() -> (Writer, mpsc::UnboundedReceiver<Write>) {
    let (tx, rx) = mpsc::unbounded_channel();
    (Writer(Mutex::new(Some(tx))), rx)
}

impl Writer {
    fn send(&self, write: Write) {
        if let Some(tx) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // Without a receiver `done` is dropped, which its owner hears.
            let _ = tx.send(write);
        }
    }

    /// Write, and wait until it is durable. The error says why not.
    pub(super) async fn write(&self, what: impl FnOnce(Done) -> Write) -> Result<(), String> {
        let (done, outcome) = oneshot::channel();
        self.send(what(done));
        outcome.await.unwrap_or_else(|_| Err("the embedded queue was closed".into()))
    }

    pub(super) fn handed(&self, queue: i64, upto: i64) {
        self.send(Write::Handed { queue, upto });
    }

    /// Take nothing more; what was asked for is still written.
    pub(super) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

pub(super) async fn run(table: QueueTable, mut work: mpsc::UnboundedReceiver<Write>, health: watch::Sender<Health>) {
    while let Some(first) = work.recv().await {
        let mut changes = Changes::default();
        let mut handed = HashMap::new();
        let mut waiting = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(write) = next.take() {
            match write {
                Write::Append { rows, done } => {
                    bytes += rows.iter().map(|r| r.body.len() + r.properties.len()).sum::<usize>();
                    changes.append.extend(rows);
                    waiting.push(done);
                }
                Write::Remove { ids, done } => {
                    changes.remove.extend(ids);
                    waiting.push(done);
                }
                Write::Handed { queue, upto } => {
                    let highest = handed.entry(queue).or_insert(upto);
                    *highest = upto.max(*highest);
                }
            }
            if changes.append.len() + changes.remove.len() < ROWS && bytes < BYTES {
                next = work.try_recv().ok();
            }
        }
        changes.handed = handed.into_iter().collect();
        let outcome = table.write(&changes).await.map_err(|e| e.to_string());
        health.send_if_modified(|health| match (&outcome, &health) {
            (Ok(()), Health::Down(..)) => {
                tracing::info!("the embedded queue can be written again");
                *health = Health::Up(Utc::now());
                true
            }
            (Err(reason), Health::Up(_)) => {
                tracing::error!(reason, "the embedded queue cannot be written");
                *health = Health::Down(Utc::now(), reason.clone());
                true
            }
            _ => false,
        });
        for done in waiting {
            // Nobody waits any more: their task was cancelled.
            let _ = done.send(outcome.clone());
        }
    }
}
