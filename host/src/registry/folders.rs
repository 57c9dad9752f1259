//! Hears that something changed in the plugin folders. What it was is found out by looking.

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Watches folders, each by itself: a plugin's sources and build output are deeper down, and nobody's business.
pub(super) struct Folders(Mutex<Option<Watched>>);

struct Watched {
    watcher: RecommendedWatcher,
    paths: HashSet<PathBuf>,
}

impl Folders {
    /// Wakes `wake` on every change in a watched folder. Where the system cannot watch, nothing is ever heard.
    pub(super) fn new(wake: Arc<Notify>) -> Folders {
        let heard = move |event: notify::Result<Event>| {
            if event.as_ref().map_or(true, matters) {
                wake.notify_one();
            }
        };
        let watched = match notify::recommended_watcher(heard) {
            Ok(watcher) => Some(Watched { watcher, paths: HashSet::new() }),
            Err(error) => {
                tracing::warn!("failed to watch the plugin folders, changes are seen by the next look: {error}");
                None
            }
        };
        Folders(Mutex::new(watched))
    }

    /// Watch these, and no others. Answers whether one is watched that was not.
    pub(super) fn watch(&self, paths: &[PathBuf]) -> bool {
        // A panic in here leaves at worst a folder unwatched.
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Watched { watcher, paths: before }) = watched.as_mut() else { return false };
        let wanted: HashSet<PathBuf> = paths.iter().cloned().collect();
        for gone in before.difference(&wanted) {
            // A folder that was removed took its watch along.
            let _ = watcher.unwatch(gone);
        }
        before.retain(|path| wanted.contains(path));
        let mut more = false;
        for path in wanted.difference(&before.clone()) {
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => more |= before.insert(path.clone()),
                // Tried again at the next look, which finds the changes meanwhile.
                Err(error) => tracing::debug!("failed to watch {}: {error}", path.display()),
            }
        }
        more
    }
}

/// Looking at a file is an event too, and must not lead to another look.
fn matters(event: &Event) -> bool {
    !matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_change_is_heard_and_a_look_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let wake = Arc::new(Notify::new());
        let folders = Folders::new(wake.clone());
        assert!(folders.watch(&[dir.path().to_owned()]));
        assert!(!folders.watch(&[dir.path().to_owned()]), "it is watched already");
        std::fs::write(dir.path().join("plugin.toml"), "").unwrap();
        tokio::time::timeout(Duration::from_secs(20), wake.notified()).await.unwrap();
    }

    #[test]
    fn only_what_may_have_changed_something_matters() {
        let event = |kind| matters(&Event::new(kind));
        assert!(!event(EventKind::Access(AccessKind::Open(AccessMode::Any))));
        assert!(!event(EventKind::Access(AccessKind::Close(AccessMode::Read))));
        assert!(event(EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(event(EventKind::Other), "the queue of events ran over");
    }
}
