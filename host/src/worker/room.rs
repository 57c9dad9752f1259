//! Room for guests: slots of the host, and of each plugin with a concurrency limit of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The slots.
pub struct Room {
    slots: Arc<Semaphore>,
    most: u32,
    busy: Arc<AtomicU32>,
    plugins: Arc<Mutex<HashMap<Arc<str>, u32>>>,
    freed: Arc<Notify>,
}

/// A slot of the host, and of its plugin. Dropped: free again.
pub struct Place {
    _slot: OwnedSemaphorePermit,
    busy: Arc<AtomicU32>,
    plugin: Option<Arc<str>>,
    plugins: Arc<Mutex<HashMap<Arc<str>, u32>>>,
    freed: Arc<Notify>,
}

impl Room {
    /// So many slots. Guests that run are counted in `busy`.
    pub fn new(slots: u32, busy: Arc<AtomicU32>) -> Room {
        Room {
            slots: Arc::new(Semaphore::new(slots as usize)),
            most: slots,
            busy,
            plugins: Arc::default(),
            freed: Arc::default(),
        }
    }

    /// Slots that are free.
    pub fn free(&self) -> u32 {
        u32::try_from(self.slots.available_permits()).unwrap_or(self.most)
    }

    /// Woken when a place of a limited plugin became free.
    pub fn freed(&self) -> &Notify {
        &self.freed
    }

    /// A slot of the host, as soon as one is free.
    pub async fn slot(&self) -> OwnedSemaphorePermit {
        // The semaphore is never closed; should it be, a permit of an endless one keeps the path going.
        match self.slots.clone().acquire_owned().await {
            Ok(permit) => permit,
            Err(_) => std::future::pending().await,
        }
    }

    /// A slot of the host, if one is free now.
    pub fn try_slot(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    /// Whether a plugin with this limit has room now.
    pub fn has_place(&self, plugin: &str, limit: Option<u32>) -> bool {
        limit.is_none_or(|limit| lock(&self.plugins).get(plugin).copied().unwrap_or(0) < limit)
    }

    /// Make a slot the place of a plugin. `None`: the plugin is at its limit, and the slot is free again.
    pub fn place(&self, slot: OwnedSemaphorePermit, plugin: &Arc<str>, limit: Option<u32>) -> Option<Place> {
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

/// The map holds plain counts: a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_at_its_limit_leaves_the_slot_to_others() {
        let room = Room::new(2, Arc::default());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = room.place(room.try_slot().unwrap(), &a, Some(1)).unwrap();
        assert!(!room.has_place("a", Some(1)) && room.has_place("b", Some(1)));
        assert!(room.place(room.try_slot().unwrap(), &a, Some(1)).is_none());
        let second = room.place(room.try_slot().unwrap(), &b, None).unwrap();
        assert_eq!((room.busy.load(Ordering::Relaxed), room.free()), (2, 0));
        drop(first);
        assert!(room.has_place("a", Some(1)));
        drop(second);
        assert_eq!((room.busy.load(Ordering::Relaxed), room.free()), (0, 2));
    }
}
