//! A catalog for those who must answer before plugins are loaded.

use super::{Catalog, PluginInfo, Resolved, Served};
use crate::task::PluginRef;
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// A catalog without plugins until another one takes its place.
pub struct Late {
    loaded: OnceLock<Arc<dyn Catalog>>,
    changes: watch::Sender<u64>,
}

impl Default for Late {
    fn default() -> Late {
        Late { loaded: OnceLock::new(), changes: watch::Sender::new(0) }
    }
}

impl Late {
    /// Answer from this catalog from now on. A second one is ignored.
    pub fn load(&self, catalog: Arc<dyn Catalog>) {
        if self.loaded.set(catalog).is_ok() {
            self.changes.send_modify(|n| *n += 1);
        }
    }
}

impl Catalog for Late {
    fn resolve(&self, plugin: &PluginRef) -> Resolved {
        self.loaded.get().map_or_else(|| Resolved::Unknown { known: Vec::new() }, |catalog| catalog.resolve(plugin))
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.loaded.get().map_or_else(|| self.changes.subscribe(), |catalog| catalog.changes())
    }
    fn list(&self) -> Vec<PluginInfo> {
        self.loaded.get().map(|catalog| catalog.list()).unwrap_or_default()
    }
    fn served(&self) -> Served {
        self.loaded.get().map(|catalog| catalog.served()).unwrap_or_default()
    }
}
