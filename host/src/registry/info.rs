//! What a person and the API may see of the plugins here.

use chrono::{DateTime, Utc};
use std::collections::BTreeMap;

/// One plugin of this host with all its versions, as `GET /v1/plugins` and `plugin list` show it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PluginInfo {
    /// Its name.
    pub name: String,
    /// Whether tasks of it can run: `ready` if any version can.
    pub state: PluginState,
    /// Why not, where it is not ready.
    pub cause: Option<String>,
    /// Most attempts at once on this host; `None`: as many as there are slots.
    pub concurrency: Option<u32>,
    /// The newest first.
    pub versions: Vec<VersionInfo>,
}

/// Whether a plugin or a version of it can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PluginState {
    /// It can.
    Ready,
    /// It failed to load; `cause` says why.
    Broken,
    /// The operator's policy turned it off.
    Disabled,
}

/// One version of a plugin. Of a broken one only what could be read is there.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct VersionInfo {
    /// The version; `None`: `plugin.toml` could not be read so far.
    pub version: Option<String>,
    /// Whether it can run.
    pub state: PluginState,
    /// Why not; or, of one that is ready, why what is in its folder now was not taken.
    pub cause: Option<String>,
    /// `sha256:<hex>` of the component that serves.
    pub digest: Option<String>,
    /// One sentence.
    pub description: String,
    /// The logical queue of its tasks unless they say otherwise.
    pub queue: Option<String>,
    /// Attempts in all unless a task says otherwise.
    pub max_attempts: Option<u32>,
    /// Full names with versions, sorted.
    pub imports: Vec<String>,
    /// By capability.
    pub grants: BTreeMap<String, GrantInfo>,
    /// Capabilities whose calls are recorded with their bodies; only the operator says so.
    pub recorded_bodies: Vec<String>,
    /// By name of the limit, the unit in the name.
    pub limits: BTreeMap<String, LimitInfo>,
    /// Its folder, absolute.
    pub path: String,
    /// Since when this build serves.
    pub loaded_at: Option<DateTime<Utc>>,
}

/// What a plugin may do with one capability.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct GrantInfo {
    /// What its `plugin.toml` asks for.
    pub wish: Vec<String>,
    /// What the operator allows.
    pub policy: Vec<String>,
    /// What stands in both.
    pub granted: Vec<String>,
}

/// What one limit is, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LimitInfo {
    /// What holds.
    pub value: u64,
    /// Who said so.
    pub origin: Origin,
    /// The operator's ceiling, `limits.max.*` of all plugins or of this one; of `memory_reserve_mib` the plugin's `memory_mib`.
    pub ceiling: u64,
}

/// Where a limit's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// `limits.default.*`.
    Default,
    /// The plugin's `[limits]`.
    Plugin,
    /// `limits.*` of the operator's `[plugins."…"]`.
    Policy,
    /// Nobody: it follows from the component. `memory_reserve_mib`: its initial memory and 4 MiB.
    Derived,
}
