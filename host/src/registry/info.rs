//! What a person and the API may see of the plugins here.

use chrono::{DateTime, Utc};
use std::collections::BTreeMap;

/// A plugin of this host with all its versions.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Plugin)]
pub struct PluginInfo {
    /// Its name.
    pub name: String,
    /// Whether tasks of it can run: `ready` if any version can.
    pub state: PluginState,
    /// The reason, where it is not ready.
    pub cause: Option<String>,
    /// Most attempts at once on this host; `None`: as many as there are slots.
    pub concurrency: Option<u32>,
    /// The newest first.
    pub versions: Vec<VersionInfo>,
}

/// Whether a plugin or a version of it can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
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
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = PluginVersion)]
pub struct VersionInfo {
    /// The version; `None`: `plugin.toml` could not be read so far.
    pub version: Option<String>,
    /// Whether it can run.
    pub state: PluginState,
    /// The reason, where it is not ready; or the reason for which its folder's present content is not used.
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

/// Grants of one capability.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Grant)]
pub struct GrantInfo {
    /// Wishes of its `plugin.toml`.
    pub wish: Vec<String>,
    /// Grants of the operator's policy.
    pub policy: Vec<String>,
    /// Grants that both have.
    pub granted: Vec<String>,
}

/// A limit and its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Limit)]
pub struct LimitInfo {
    /// Its value.
    pub value: u64,
    /// Origin of the value.
    pub origin: Origin,
    /// The operator's ceiling, `limits.max.*` of all plugins or of this one; of `memory_reserve_mib` the plugin's `memory_mib`.
    pub ceiling: u64,
}

/// Where a limit's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = LimitOrigin)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// `limits.default.*`.
    Default,
    /// The plugin's `[limits]`.
    Plugin,
    /// `limits.*` of the operator's `[plugins."…"]`.
    Policy,
    /// It follows from the component. `memory_reserve_mib`: its initial memory and 4 MiB.
    Derived,
}
