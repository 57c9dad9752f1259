//! Which plugins there are, as hosts say, and what is to be said of a task whose plugin is none of them.

use super::super::HostRow;
use crate::task::{Failure, FailureKind, PluginRef};
use chrono::{DateTime, Utc};
use serde_json::json;
use std::collections::BTreeMap;

/// Plugins by name, with the versions that are served; none for those that are broken, which exist, and wait to be mended.
#[derive(Debug, Default)]
pub(in crate::db) struct Known(BTreeMap<String, Vec<semver::Version>>);

impl Known {
    /// What hosts have that were alive since then: one that is restarted is away for a moment, however long tasks have waited
    /// for it.
    pub fn since(hosts: &[HostRow], since: DateTime<Utc>) -> Known {
        let mut known = Known::default();
        for host in hosts.iter().filter(|host| host.lease_until > since) {
            for plugin in &host.record.plugins {
                let (name, version) = plugin.split_once('@').unwrap_or((plugin, ""));
                let versions = known.0.entry(name.to_owned()).or_default();
                versions.extend(version.parse::<semver::Version>());
            }
            let broken = host.record.broken_plugins.iter().filter_map(|plugin| plugin.split(':').next());
            for name in broken {
                known.0.entry(name.trim().to_owned()).or_default().clear();
            }
        }
        known
    }

    /// Whether a task that asks for this (`name` or `name@requirement`) waits in vain.
    pub fn lacks(&self, plugin: &str) -> bool {
        let name = plugin.split('@').next().unwrap_or(plugin);
        let Some(versions) = self.0.get(name) else { return true };
        match plugin.parse::<PluginRef>() {
            Ok(wanted) => !versions.is_empty() && !versions.iter().any(|version| wanted.requirement.matches(version)),
            Err(_) => true,
        }
    }

    /// The failure of a task whose plugin nobody serves.
    pub fn failure(&self, plugin: &str) -> Failure {
        let name = plugin.split('@').next().unwrap_or(plugin);
        let known: Vec<String> = match self.0.get(name) {
            Some(versions) => versions.iter().map(|version| format!("{name}@{version}")).collect(),
            None => self.0.keys().cloned().collect(),
        };
        let words = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let message = format!("no live host serves the plugin {plugin}; known are: {words}");
        Failure::fatal(FailureKind::UnknownPlugin, message).with_detail(json!({"plugin": plugin, "known": known}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let version = |text: &str| semver::Version::parse(text).unwrap();
        let served = [("a", vec![version("1.2.0"), version("2.0.0-rc.1")]), ("broken", Vec::new())];
        Known(served.map(|(name, versions)| (name.to_owned(), versions)).into())
    }

    #[test]
    fn a_version_that_nobody_has_is_lacked_as_a_name_is() {
        for (plugin, lacks) in
            [("a", false), ("a@1", false), ("a@2", true), ("a@^9", true), ("b", true), ("broken@7", false), ("A", true)]
        {
            assert_eq!(known().lacks(plugin), lacks, "{plugin}");
        }
    }

    #[test]
    fn the_failure_names_what_there_is() {
        assert!(known().failure("a@^9").message.ends_with("a@^9; known are: a@1.2.0, a@2.0.0-rc.1"));
        assert!(known().failure("b").message.ends_with("known are: a, broken"));
    }
}
