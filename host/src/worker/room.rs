//! Room for guests: slots of the host, of each queue with a share of its own, and of each plugin with a concurrency limit;
//! memory for all of them together; and turns to compute, which guests that wait in a host call do not take.
//!
//! A slot is taken first, then the plugin's, then memory, and the admission to a turn last. A task that waits for memory or a turn
//! keeps what it has. That delays no task that could run: memory and turns are given in the order of asking, so that no other
//! would be let in before. And it ends: memory is held by tasks that run, have all their slots, and end by themselves or lend it
//! while they wait; turns are held by guests that compute.

use super::owed::Owed;
use crate::registry::{MemoryBudget, Turns};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The slots.
pub struct Room {
    slots: Arc<Semaphore>,
    queues: HashMap<String, Arc<Semaphore>>,
    lanes: Arc<Semaphore>,
    most: u32,
    busy: Arc<AtomicU32>,
    plugins: Arc<Mutex<HashMap<Arc<str>, u32>>>,
    freed: Arc<Notify>,
    memory: MemoryBudget,
    turns: Turns,
    owed: Owed,
}

/// A slot of the host, and of its queue where that has a share. Dropped: free again.
pub struct Slot {
    _host: OwnedSemaphorePermit,
    _queue: Option<OwnedSemaphorePermit>,
}

/// A slot of the host that is not assigned to a queue yet.
pub struct AnySlot(OwnedSemaphorePermit);

/// A slot, and its plugin's. Dropped: free again.
pub struct Place {
    _slot: Slot,
    busy: Arc<AtomicU32>,
    plugin: Option<Arc<str>>,
    plugins: Arc<Mutex<HashMap<Arc<str>, u32>>>,
    freed: Arc<Notify>,
}

impl Room {
    /// So many slots, and of these so many for tasks of each queue that is named; so much memory. Taken slots are counted in
    /// `busy`.
    pub fn new(
        slots: u32,
        queues: &BTreeMap<String, u32>,
        lanes: u32,
        busy: Arc<AtomicU32>,
        memory: MemoryBudget,
    ) -> Room {
        let share = |(queue, share): (&String, &u32)| (queue.clone(), Arc::new(Semaphore::new(*share as usize)));
        Room {
            slots: Arc::new(Semaphore::new(slots as usize)),
            queues: queues.iter().map(share).collect(),
            lanes: Arc::new(Semaphore::new(lanes as usize)),
            most: slots,
            busy,
            plugins: Arc::default(),
            freed: Arc::default(),
            memory,
            turns: Turns::new(u32::MAX),
            owed: Owed::default(),
        }
    }

    /// With these turns. Without, any number of guests computes at once.
    pub fn with_turns(self, turns: Turns) -> Room {
        Room { turns, ..self }
    }

    /// Turns to compute.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Memory for all guests together.
    pub fn memory(&self) -> &MemoryBudget {
        &self.memory
    }

    /// Tasks that were interrupted for want of it.
    pub fn owed(&self) -> &Owed {
        &self.owed
    }

    /// Slots that are free.
    pub fn free(&self) -> u32 {
        u32::try_from(self.slots.available_permits()).unwrap_or(self.most)
    }

    /// Slots that are taken, by tasks that run or are about to.
    pub fn busy(&self) -> u32 {
        self.busy.load(Ordering::Relaxed)
    }

    /// Whether a guest could begin now: a slot and a turn are free, and no run waits for memory.
    pub fn can_begin(&self) -> bool {
        let guests = self.turns.guests();
        self.free() > 0 && guests.computing + guests.ahead < self.turns.bound() && self.memory.waiting() == 0
    }

    /// Woken when a place of a limited plugin became free.
    pub fn freed(&self) -> &Notify {
        &self.freed
    }

    /// Places in the isolation lane that are free now.
    pub fn free_lanes(&self) -> usize {
        self.lanes.available_permits()
    }

    /// A place in the isolation lane, if one is free now.
    pub fn try_lane(&self) -> Option<OwnedSemaphorePermit> {
        self.lanes.clone().try_acquire_owned().ok()
    }

    /// A slot for a task of this queue, as soon as one is free: first of the queue's share, so that a queue at its limit
    /// holds none of the host's.
    pub async fn slot(&self, queue: &str) -> Slot {
        let queue = match self.queues.get(queue) {
            Some(share) => Some(free(share).await),
            None => None,
        };
        Slot { _host: free(&self.slots).await, _queue: queue }
    }

    /// Waits for a slot for a task of any queue, in one line with the callers of [`Room::slot`].
    pub async fn any_slot(&self) -> AnySlot {
        AnySlot(free(&self.slots).await)
    }

    /// Returns a slot for a task of any queue if one is free.
    pub fn try_any_slot(&self) -> Option<AnySlot> {
        Some(AnySlot(self.slots.clone().try_acquire_owned().ok()?))
    }

    /// Makes it a slot for a task of this queue. Returns it unchanged if the queue has no free slot.
    pub fn for_queue(&self, slot: AnySlot, queue: &str) -> Result<Slot, AnySlot> {
        let queue = match self.queues.get(queue) {
            None => None,
            Some(share) => match share.clone().try_acquire_owned() {
                Ok(share) => Some(share),
                Err(_) => return Err(slot),
            },
        };
        Ok(Slot { _host: slot.0, _queue: queue })
    }

    /// Whether a plugin with this limit has room now.
    pub fn has_place(&self, plugin: &str, limit: Option<u32>) -> bool {
        limit.is_none_or(|limit| lock(&self.plugins).get(plugin).copied().unwrap_or(0) < limit)
    }

    /// Make a slot the place of a plugin. `None`: the plugin is at its limit, and the slot is free again.
    pub fn place(&self, slot: Slot, plugin: &Arc<str>, limit: Option<u32>) -> Option<Place> {
        let mut counted = None;
        if let Some(limit) = limit {
            let mut plugins = lock(&self.plugins);
            let used = plugins.entry(plugin.clone()).or_default();
            if *used >= limit {
                return None;
            }
            *used += 1;
            counted = Some(plugin.clone());
        }
        self.busy.fetch_add(1, Ordering::Relaxed);
        Some(Place {
            _slot: slot,
            busy: self.busy.clone(),
            plugin: counted,
            plugins: self.plugins.clone(),
            freed: self.freed.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
        if let Some(plugin) = &self.plugin {
            let mut plugins = lock(&self.plugins);
            if let Some(used) = plugins.get_mut(plugin) {
                *used -= 1;
                if *used == 0 {
                    plugins.remove(plugin);
                }
            }
            self.freed.notify_one();
        }
    }
}

/// The semaphores are never closed; should one be, nothing more is let in.
async fn free(slots: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    match slots.clone().acquire_owned().await {
        Ok(permit) => permit,
        Err(_) => std::future::pending().await,
    }
}

/// The map holds plain counts: a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_slot(room: &Room, queue: &str) -> Option<Slot> {
        room.for_queue(room.try_any_slot()?, queue).ok()
    }

    #[test]
    fn a_plugin_at_its_limit_leaves_the_slot_to_others() {
        let room = Room::new(2, &BTreeMap::new(), 1, Arc::default(), MemoryBudget::new(0));
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = room.place(try_slot(&room, "q").unwrap(), &a, Some(1)).unwrap();
        assert!(!room.has_place("a", Some(1)) && room.has_place("b", Some(1)));
        assert!(room.place(try_slot(&room, "q").unwrap(), &a, Some(1)).is_none());
        let second = room.place(try_slot(&room, "q").unwrap(), &b, None).unwrap();
        assert_eq!((room.busy.load(Ordering::Relaxed), room.free()), (2, 0));
        drop(first);
        assert!(room.has_place("a", Some(1)));
        drop(second);
        assert_eq!((room.busy.load(Ordering::Relaxed), room.free()), (0, 2));
    }

    #[tokio::test]
    async fn a_queue_at_its_share_leaves_the_hosts_slots_to_other_queues() {
        let shares = BTreeMap::from([("small".to_owned(), 1)]);
        let room = Room::new(3, &shares, 1, Arc::default(), MemoryBudget::new(0));
        let held = room.slot("small").await;
        assert!(try_slot(&room, "small").is_none(), "the share is taken");
        assert_eq!(room.free(), 2, "and who waits for it holds none of the host's");
        let others = [try_slot(&room, "large").unwrap(), try_slot(&room, "large").unwrap()];
        drop(held);
        assert!(try_slot(&room, "small").is_some());
        drop(others);
        assert_eq!(room.free(), 3);
    }

    #[tokio::test]
    async fn a_slot_for_any_queue_is_given_in_the_order_of_asking() {
        let room = Arc::new(Room::new(1, &BTreeMap::new(), 1, Arc::default(), MemoryBudget::new(0)));
        let held = room.slot("q").await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut asking = Vec::new();
        for name in ["delivery", "parked", "later"] {
            let (room, order) = (room.clone(), order.clone());
            asking.push(tokio::spawn(async move {
                if name == "parked" {
                    let slot = room.any_slot().await;
                    order.lock().unwrap().push(name);
                    drop(slot);
                } else {
                    let slot = room.slot("q").await;
                    order.lock().unwrap().push(name);
                    drop(slot);
                }
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        for asked in asking {
            asked.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["delivery", "parked", "later"]);
    }
}
