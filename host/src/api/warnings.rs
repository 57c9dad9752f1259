//! What an answer to a submission warns of: the task was accepted, and may wait in vain.

use super::ApiState;
use super::problem::Problem;
use super::submit::{self, Hosts};
use crate::registry::Resolved;
use crate::task::PluginRef;
use serde::Serialize;

/// A warning about an accepted task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(super) struct Warning {
    /// A stable word.
    code: &'static str,
    /// `name` or `name@requirement`, as the task asks for it.
    plugin: String,
    /// The cause and the remedy, for a person.
    message: String,
}

/// The warning for a task whose plugin failed to load: on this host, where another may serve it, or on another, where none serves
/// it. It may be repaired, so the task is not rejected.
pub(super) async fn of(state: &ApiState, hosts: &mut Hosts, plugin: &PluginRef) -> Result<Option<Warning>, Problem> {
    let (place, cause) = match state.parts.catalog.resolve(plugin) {
        Resolved::Broken { cause } => ("this host".to_owned(), cause),
        Resolved::Ready(_) => return Ok(None),
        Resolved::Unknown { .. } | Resolved::Disabled => {
            let live = hosts.live(state).await?;
            match submit::broken(live, plugin) {
                Some((host, cause)) if !submit::is_ready(live, plugin) => (format!("host {host}"), cause.to_owned()),
                _ => return Ok(None),
            }
        }
    };
    let message = format!(
        "the plugin {plugin} failed to load on {place}: {cause}; repair it: if no live host serves it, the task fails as \
         plugin_broken after plugins.unknown_grace_seconds"
    );
    Ok(Some(Warning { code: "plugin_broken", plugin: plugin.to_string(), message }))
}
