//! Which plugins there are, as hosts say, and what is to be said of a task whose plugin is none of them.

use super::super::HostRow;
use crate::task::{Failure, FailureKind, PluginRef};
use chrono::{DateTime, Utc};
use serde_json::json;
use std::collections::BTreeMap;

/// Plugins by name: the versions that are served, and why others failed to load.
#[derive(Debug, Default)]
pub(in crate::db) struct Known(BTreeMap<String, Plugin>);

#[derive(Debug, Default)]
struct Plugin {
    served: Vec<semver::Version>,
    /// Of the first host that reports one.
    broken: Option<String>,
}

impl Known {
    /// What hosts have that were alive since then: one that is restarted is away for a moment, however long tasks have waited
    /// for it.
    pub fn since(hosts: &[HostRow], since: DateTime<Utc>) -> Known {
        let mut known = Known::default();
        for host in hosts.iter().filter(|host| host.lease_until > since) {
            for plugin in &host.record.plugins {
                let (name, version) = plugin.split_once('@').unwrap_or((plugin, ""));
                known.0.entry(name.to_owned()).or_default().served.extend(version.parse::<semver::Version>());
            }
            for plugin in &host.record.broken_plugins {
                let (name, cause) = plugin.split_once(':').unwrap_or((plugin, ""));
                let entry = known.0.entry(name.trim().to_owned()).or_default();
                entry.broken.get_or_insert_with(|| format!("{} (host {})", cause.trim(), host.record.name));
            }
        }
        known
    }

    /// Whether no host serves what a task asks for (`name` or `name@requirement`): it waits in vain.
    pub fn lacks(&self, plugin: &str) -> bool {
        let name = plugin.split('@').next().unwrap_or(plugin);
        let Some(known) = self.0.get(name) else { return true };
        match plugin.parse::<PluginRef>() {
            Ok(wanted) => !known.served.iter().any(|version| wanted.requirement.matches(version)),
            Err(_) => true,
        }
    }

    /// The failure of a task whose plugin no host serves.
    pub fn failure(&self, plugin: &str) -> Failure {
        let name = plugin.split('@').next().unwrap_or(plugin);
        let known: Vec<String> = match self.0.get(name) {
            Some(Plugin { broken: Some(cause), .. }) => {
                let message = format!("the plugin {plugin} failed to load: {cause}; repair it, and retry the task");
                let detail = json!({"plugin": plugin, "cause": cause});
                return Failure::fatal(FailureKind::PluginBroken, message).with_detail(detail);
            }
            Some(known) => known.served.iter().map(|version| format!("{name}@{version}")).collect(),
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
        let served = Plugin { served: vec![version("1.2.0"), version("2.0.0-rc.1")], broken: None };
        let broken = Plugin { served: Vec::new(), broken: Some("no component (host h)".into()) };
        let newer = Plugin { served: vec![version("1.0.0")], broken: Some("no component (host h)".into()) };
        Known([("a", served), ("broken", broken), ("half", newer)].map(|(name, known)| (name.to_owned(), known)).into())
    }

    #[test]
    fn a_version_that_nobody_has_is_lacked_as_a_name_is() {
        for (plugin, lacks) in [
            ("a", false),
            ("a@1", false),
            ("a@2", true),
            ("a@^9", true),
            ("b", true),
            ("broken", true),
            ("broken@7", true),
            ("half@1", false),
            ("half@2", true),
            ("A", true),
        ] {
            assert_eq!(known().lacks(plugin), lacks, "{plugin}");
        }
    }

    #[test]
    fn the_failure_names_what_there_is() {
        assert!(known().failure("a@^9").message.ends_with("a@^9; known are: a@1.2.0, a@2.0.0-rc.1"));
        assert!(known().failure("b").message.ends_with("known are: a, broken, half"));
    }

    #[test]
    fn the_failure_of_a_broken_plugin_names_its_cause() {
        for plugin in ["broken", "half@2"] {
            let failure = known().failure(plugin);
            assert_eq!(failure.kind, FailureKind::PluginBroken);
            assert_eq!(failure.detail, json!({"plugin": plugin, "cause": "no component (host h)"}));
            assert!(failure.message.contains("no component"), "{}", failure.message);
        }
    }
}
