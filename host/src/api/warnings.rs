//! What an answer to a submission warns of: the task was accepted, and may wait in vain.

use super::ApiState;
use crate::registry::Resolved;
use crate::task::PluginRef;
use serde::Serialize;

/// One warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Warning {
    /// A stable word.
    code: &'static str,
    /// `name` or `name@requirement`, as the task asks for it.
    plugin: String,
    /// The cause and the remedy, for a person.
    message: String,
}

/// The warning for a task whose plugin failed to load on this host. Another host may serve it, so the task is not rejected.
pub(super) fn of(state: &ApiState, plugin: &PluginRef) -> Option<Warning> {
    let Resolved::Broken { cause } = state.parts.catalog.resolve(plugin) else { return None };
    let message = format!(
        "the plugin {plugin} failed to load on this host: {cause}; repair it: if no live host serves it, the task fails as \
         plugin_broken after plugins.unknown_grace_seconds"
    );
    Some(Warning { code: "plugin_broken", plugin: plugin.to_string(), message })
}
