//! Plugins as a daemon would load them, and the operator's half of their grants.

use super::{Check, count, within};
use crate::config::Settings;
use crate::daemon;
use crate::registry::{PluginInfo, PluginState};
use serde_json::json;
use std::time::Duration;

/// The time that loading may take: compiling what is not in the cache takes longer.
const LOADING: Duration = Duration::from_secs(11);

pub(super) async fn checks(settings: &Settings) -> Vec<Check> {
    vec![loaded(settings).await, grants(settings)]
}

async fn loaded(settings: &Settings) -> Check {
    let name = "plugins";
    match within(LOADING, daemon::installed(settings)).await {
        Ok(Ok(plugins)) => judge(&plugins),
        Ok(Err(error)) => Check::failed(
            name,
            error.to_string(),
            "correct plugins.dir, the limits or the grants that the message names",
        ),
        Err(_) => {
            let mut check = Check::new(name, "");
            let seconds = LOADING.as_secs();
            check.skip(
                format!("the components were not compiled within {seconds} s"),
                Some("start the daemon, which keeps compiled code in data.dir, and run it again; `agentry plugin list` shows what it loaded"),
            );
            check
        }
    }
}

/// What was loaded.
pub(super) fn judge(plugins: &[PluginInfo]) -> Check {
    let name = "plugins";
    let listed: Vec<_> = plugins
        .iter()
        .flat_map(|plugin| {
            plugin.versions.iter().map(|version| {
                json!({
                    "name": plugin.name, "version": version.version, "state": version.state, "cause": version.cause,
                    "digest": version.digest, "path": version.path, "imports": version.imports,
                })
            })
        })
        .collect();
    let of = |state| i64::try_from(plugins.iter().filter(|plugin| plugin.state == state).count()).unwrap_or(i64::MAX);
    let mut summary = format!("{} ready", count(of(PluginState::Ready), "plugin is", "plugins are"));
    if of(PluginState::Disabled) > 0 {
        summary += &format!(", {} disabled", of(PluginState::Disabled));
    }
    if of(PluginState::Broken) > 0 {
        summary += &format!(", {} broken", of(PluginState::Broken));
    }
    let mut check = Check::new(name, summary).with(json!({"plugins": listed}));
    if plugins.is_empty() {
        check.warn(
            "no folder of plugins.dir holds a plugin",
            "install one there, or name another folder in plugins.dir",
        );
    }
    for plugin in plugins {
        let broken = |check: &mut Check, which: &str, cause: &str| {
            let text = format!("the plugin {}{which} cannot be loaded: {cause}", plugin.name);
            check.fail(text, "correct it as the message says; a daemon loads it again by itself");
        };
        if let (PluginState::Broken, Some(cause)) = (plugin.state, &plugin.cause) {
            broken(&mut check, "", cause);
            continue;
        }
        for version in &plugin.versions {
            let Some(cause) = &version.cause else { continue };
            let which = version.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
            match version.state {
                PluginState::Broken => broken(&mut check, &which, cause),
                PluginState::Ready => check.warn(
                    format!("what is in the folder of {}{which} now was not taken: {cause}", plugin.name),
                    "correct it as the message says; the former build serves meanwhile",
                ),
                PluginState::Disabled => {}
            }
        }
    }
    check
}

/// Grants of models, tools, folders and hosts that are configured.
fn grants(settings: &Settings) -> Check {
    let name = "grants";
    match daemon::grants(settings) {
        Ok(rules) => {
            let rules = i64::try_from(rules).unwrap_or(i64::MAX);
            let summary = format!("{} of plugins", count(rules, "table", "tables"));
            let patterns: Vec<&str> = settings.plugins.rules.iter().map(|rule| rule.pattern.as_str()).collect();
            Check::new(name, summary).with(json!({"patterns": patterns}))
        }
        Err(error) => Check::failed(
            name,
            error.to_string(),
            "grant one of the names that the message lists, or configure the missing one",
        ),
    }
}
