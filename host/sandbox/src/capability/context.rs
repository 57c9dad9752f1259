//! `agentry:plugin/context`: what the guest may ask about the attempt it is in. Always linked.

use std::sync::Arc;

use tokio::time::Instant;

use super::bindings::agentry::plugin::context;
use crate::instance::State;

/// Whose attempt this is, as the guest may know it.
pub(crate) struct Context {
    pub(crate) plugin_name: Arc<str>,
    pub(crate) plugin_version: Arc<str>,
    /// Sorted by key.
    pub(crate) labels: Vec<(String, String)>,
}

impl context::Host for State {
    fn remaining_ms(&mut self) -> u32 {
        let left = self.shared.end.saturating_duration_since(Instant::now());
        u32::try_from(left.as_millis()).unwrap_or(u32::MAX)
    }

    fn plugin_name(&mut self) -> String {
        self.context.plugin_name.to_string()
    }

    fn plugin_version(&mut self) -> String {
        self.context.plugin_version.to_string()
    }

    fn labels(&mut self) -> Vec<(String, String)> {
        self.context.labels.clone()
    }
}
