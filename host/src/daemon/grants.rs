//! The operator's half of every grant: what it names must be configured.

use super::{DaemonError, configuration};
use crate::config::{PluginRule, Settings};
use crate::registry::{PluginPolicy, Policies};
use serde_json::Value;

/// `[plugins."…"]`.
pub fn policies(settings: &Settings) -> Result<Policies, DaemonError> {
    for rule in &settings.plugins.rules {
        known(settings, rule)?;
    }
    let rules = settings.plugins.rules.iter();
    let policies = rules.map(|rule| Ok((rule.pattern.clone(), policy(rule)?))).collect::<Result<_, DaemonError>>()?;
    Policies::new(policies).map_err(configuration)
}

/// One `[plugins."…"]`. Settings have checked its keys; what it says of capabilities is read where it is known.
fn policy(rule: &PluginRule) -> Result<PluginPolicy, DaemonError> {
    let mut policy = PluginPolicy {
        enabled: rule.enabled,
        concurrency: rule.concurrency,
        budgets: rule.budgets.clone(),
        calls: rule.calls.clone(),
        pins: rule.pins.clone(),
        ..PluginPolicy::default()
    };
    for (limit, value) in &rule.limits {
        policy.limits.set(limit, *value);
    }
    for (limit, value) in &rule.max {
        policy.max.set(limit, *value);
    }
    let capabilities = serde_json::Map::from_iter(rule.capabilities.clone());
    policy.capabilities = serde_json::from_value(capabilities.into())
        .map_err(|e| configuration(format!("plugins.{:?}.capabilities: {e}", rule.pattern)))?;
    Ok(policy)
}

/// A grant of what is not configured would be a plugin that is broken, and nobody would know before it is loaded.
fn known(settings: &Settings, rule: &PluginRule) -> Result<(), DaemonError> {
    let outside = &settings.outside;
    let models: Vec<&String> = outside.llm.models.keys().collect();
    let servers: Vec<&String> = outside.tools.keys().collect();
    let folders: Vec<&String> = outside.folders.keys().collect();
    for (capability, section, known) in
        [("llm", "[llm.models.NAME]", models), ("tools", "[tools.NAME]", servers), ("folders", "[folders]", folders)]
    {
        let granted = rule.capabilities.get(capability);
        // Of tools the servers are the keys of a table; whatever else it may be is refused where policies are read.
        let listed = granted.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let keys = granted.and_then(Value::as_object).into_iter().flat_map(|table| table.keys().map(String::as_str));
        let mut names = listed.chain(keys);
        if let Some(name) = names.find(|name| *name != "*" && !known.iter().any(|k| k == name)) {
            let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(configuration(format!(
                "plugins.{:?}.capabilities.{capability} grants {name:?}, and {section} has no such name; configured are: {known}",
                rule.pattern
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(capability: &str, value: Value) -> String {
        let folder = tempfile::tempdir().unwrap();
        let text = "[llm.providers.a]\nkind = 'openai'\nurl = 'http://127.0.0.1:1'\n[llm.models.default]\nprovider = 'a'\n\
                    model = 'm'\n[folders]\ncorpus = '.'\n";
        let file = folder.path().join("agentry.toml");
        std::fs::write(&file, text).unwrap();
        let machine = crate::config::Machine { cores: 1, memory_mib: 4_096, mappings: 65_530 };
        let cwd = folder.path().to_owned();
        let sources = crate::config::Sources { file: Some(file), flags: Vec::new(), env: Vec::new(), cwd, machine };
        let settings = Settings::load(&sources).unwrap();
        let mut rule = PluginRule::of("fetch-*");
        rule.capabilities.insert(capability.into(), value);
        known(&settings, &rule).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_grant_of_what_is_not_configured_stops_the_start_with_the_names_there_are() {
        assert_eq!(
            refused("llm", json!(["defualt"])),
            "plugins.\"fetch-*\".capabilities.llm grants \"defualt\", and [llm.models.NAME] has no such name; configured \
             are: default"
        );
        assert!(refused("tools", json!({ "search": ["*"] })).ends_with("configured are: none"));
        assert!(refused("folders", json!(["corpse"])).ends_with("configured are: corpus"));
        for (capability, value) in [("llm", json!(["default"])), ("llm", json!(["*"])), ("folders", json!(["corpus"]))]
        {
            assert_eq!(refused(capability, value), "");
        }
    }
}
