//! Those who wait for a task's end. However many there are, one loop asks the database for all of them.

use crate::db::Db;
use crate::task::TaskId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How often the database is asked while nothing tells that a task has ended: other hosts end tasks too.
const INTERVAL: Duration = Duration::from_millis(100);
/// The same while the database does not answer.
const TROUBLED: Duration = Duration::from_secs(1);
/// Ids in one question.
const BATCH: usize = 1_000;

/// Everybody who waits.
pub(super) struct Waiters {
    waiting: Mutex<HashMap<TaskId, Entry>>,
    arrived: Notify,
}

struct Entry {
    ended: watch::Sender<bool>,
    waiters: usize,
}

/// One who waits; dropped, it waits no longer.
pub(super) struct Waiter {
    waiters: Arc<Waiters>,
    id: TaskId,
    ended: watch::Receiver<bool>,
}

impl Waiters {
    pub fn new() -> Arc<Waiters> {
        Arc::new(Waiters { waiting: Mutex::default(), arrived: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Entry>> {
        // Whoever panicked left a map that is whole: every change to it is one call.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begin to wait. Do so before reading the task: what ends between the two is not missed then.
    pub fn register(self: &Arc<Self>, id: TaskId) -> Waiter {
        let mut waiting = self.lock();
        let entry = waiting.entry(id).or_insert_with(|| Entry { ended: watch::Sender::new(false), waiters: 0 });
        entry.waiters += 1;
        let ended = entry.ended.subscribe();
        drop(waiting);
        self.arrived.notify_one();
        Waiter { waiters: self.clone(), id, ended }
    }

    /// Ask for everybody, until `closing`. `settled` ticks when this host has ended tasks.
    pub async fn serve(
        self: Arc<Self>,
        db: Arc<dyn Db>,
        mut settled: watch::Receiver<u64>,
        closing: CancellationToken,
    ) {
        while !closing.is_cancelled() {
            let ids: Vec<TaskId> =
                self.lock().iter().filter(|(_, entry)| !*entry.ended.borrow()).map(|(id, _)| *id).collect();
            if ids.is_empty() {
                tokio::select! {
                    () = self.arrived.notified() => continue,
                    () = closing.cancelled() => return,
                }
            }
            settled.mark_unchanged();
            let mut pause = INTERVAL;
            for batch in ids.chunks(BATCH) {
                // On a task of its own: a question to the database is never dropped half-way.
                let (asked, batch) = (db.clone(), batch.to_vec());
                let answer = tokio::spawn(async move { asked.terminal(&batch).await }).await;
                match answer {
                    Ok(Ok(ended)) => self.tell(&ended),
                    Ok(Err(_)) | Err(_) => pause = TROUBLED,
                }
            }
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                // A sender that is gone says nothing any more; the interval goes on.
                () = async { if settled.changed().await.is_err() { std::future::pending().await } } => {}
            }
        }
    }

    fn tell(&self, ended: &[TaskId]) {
        let waiting = self.lock();
        for id in ended {
            if let Some(entry) = waiting.get(id) {
                entry.ended.send_replace(true);
            }
        }
    }
}

impl Waiter {
    /// Until the task has ended.
    pub async fn ended(&mut self) {
        // The sender lives as long as this waiter's entry does.
        let _ = self.ended.wait_for(|ended| *ended).await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.waiters.lock();
        if let Some(entry) = waiting.get_mut(&self.id) {
            entry.waiters -= 1;
            if entry.waiters == 0 {
                waiting.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_remembered_after_the_last_has_gone() {
        let waiters = Waiters::new();
        let id = TaskId::now_v7();
        let (one, two) = (waiters.register(id), waiters.register(id));
        drop(one);
        assert_eq!(waiters.lock().len(), 1);
        drop(two);
        assert!(waiters.lock().is_empty());
    }

    #[tokio::test]
    async fn all_who_wait_for_a_task_hear_of_its_end() {
        let waiters = Waiters::new();
        let id = TaskId::now_v7();
        let (mut one, mut two) = (waiters.register(id), waiters.register(id));
        waiters.tell(&[TaskId::now_v7(), id]);
        one.ended().await;
        two.ended().await;
        // One who comes after the end has been told hears of it as well.
        waiters.register(id).ended().await;
    }
}
