//! Checks before a load is sent: a task of the plugin can run, and its message is within the limits.

use super::super::client::{Client, LEAST_BODY, encode, refused, rows};
use super::super::{Failed, escape, output};
use super::{numbers, target};
use crate::task::PluginRef;
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// `api.body_mib` by default: used where the daemon does not report its own.
const DEFAULT_BODY: u64 = 32 << 20;
/// `{"tasks":[]}`.
const FRAME: u64 = 12;

/// The queue of the plugin's tasks; an error if no live host can run them.
pub async fn plugin(client: &Client, text: &str) -> Result<String, Failed> {
    let asked: PluginRef = text.parse().map_err(|e| Failed::usage(format!("--plugin: {e}")))?;
    let path = format!("/v1/plugins/{}", encode(&asked.name));
    let found = match client.ask(Method::GET, &path, None, client.patience()).await? {
        Ok(plugin) if plugin["versions"].is_array() => standing(&plugin, &asked),
        Ok(_) => return Err(client.without("versions")),
        Err(answer) if answer.status == StatusCode::NOT_FOUND => {
            let remedy = "`agentry plugin list` shows every plugin with its state";
            Standing::Unusable(format!("{}; {remedy}", escape::line(&answer.detail)))
        }
        Err(answer) => return Err(refused(answer)),
    };
    let problem = match found {
        Standing::Ready(queue) => return Ok(queue),
        Standing::Unusable(problem) => problem,
    };
    let hosts = client.page("/v1/hosts", "hosts").await?;
    match served_elsewhere(&hosts, &asked) {
        true => {
            target::note(&format!("another host runs the tasks, not {}: {problem}", client.address()));
            Ok("default".to_owned())
        }
        false => Err(Failed::usage(format!("no task was sent: {problem}"))),
    }
}

/// Whether a daemon can run tasks of a plugin.
#[derive(Debug, PartialEq)]
enum Standing {
    /// It can; the logical queue of its tasks.
    Ready(String),
    /// It cannot: the problem and the remedy.
    Unusable(String),
}

/// The daemon's choice of a version, from the response of `GET /v1/plugins/{name}`.
fn standing(plugin: &Value, asked: &PluginRef) -> Standing {
    let versions = rows(plugin, "versions");
    let matching = |version: &&Value| match version["version"].as_str() {
        Some(text) => text.parse().is_ok_and(|version| asked.requirement.matches(&version)),
        // Its plugin.toml could not be read, so it may be any.
        None => true,
    };
    let of = |state: &str| versions.iter().filter(matching).find(|version| version["state"] == state);
    if plugin["state"] == "disabled" {
        return Standing::Unusable(format!("the plugin {asked} is disabled: {}", output::field(plugin, "cause")));
    }
    if let Some(ready) = of("ready") {
        return Standing::Ready(ready["queue"].as_str().unwrap_or("default").to_owned());
    }
    if let Some(broken) = of("broken") {
        let cause = output::field(broken, "cause");
        return Standing::Unusable(format!(
            "the plugin {asked} does not load: {cause}; a running daemon loads it without a restart once it is built or repaired"
        ));
    }
    let known: Vec<String> = versions.iter().map(|version| output::field(version, "version")).collect();
    Standing::Unusable(match known.is_empty() {
        true => format!("no version of the plugin {asked} is installed"),
        false => format!("no version of the plugin matches {asked}; installed are {}", known.join(", ")),
    })
}

/// Whether some live host reports a version that matches.
fn served_elsewhere(hosts: &Value, asked: &PluginRef) -> bool {
    let serves = |entry: &Value| {
        let entry = entry.as_str().and_then(|entry| entry.split_once('@'));
        entry.is_some_and(|(name, version)| {
            *name == *asked.name && version.parse().is_ok_and(|version| asked.requirement.matches(&version))
        })
    };
    rows(hosts, "hosts").iter().any(|host| host["alive"] == true && rows(host, "plugins").iter().any(serves))
}

/// How many of `tasks` tasks of this size go into one request of at most `batch`.
pub async fn batch(client: &Client, task: usize, batch: usize, tasks: u64) -> Result<usize, Failed> {
    // One more for the comma.
    let task = task as u64 + 1;
    let most = usize::try_from(tasks).unwrap_or(usize::MAX).min(batch);
    if FRAME + task * most as u64 <= LEAST_BODY {
        return Ok(batch);
    }
    let limit = client.body_limit().await.unwrap_or(DEFAULT_BODY);
    let fits = fits(task, most, limit)?;
    if fits == most {
        return Ok(batch);
    }
    target::note(&format!(
        "a request holds {} instead of {most} (--batch): a task has {} bytes, and api.body_mib allows {limit} bytes in a request",
        numbers::tasks(fits as u64),
        task - 1
    ));
    Ok(fits)
}

fn fits(task: u64, batch: usize, limit: u64) -> Result<usize, Failed> {
    let fits = limit.saturating_sub(FRAME) / task;
    match usize::try_from(fits).unwrap_or(usize::MAX).min(batch) {
        0 => Err(Failed::usage(format!(
            "no task was sent: a task has {} bytes with this --input, and api.body_mib allows {limit} bytes in a request; send \
             a smaller --input, or raise api.body_mib and limits.max.message_kib of the daemon",
            task - 1
        ))),
        fits => Ok(fits),
    }
}

/// The error for a message above `limits.max.message_kib`.
pub fn message(bytes: usize, limit: usize) -> Result<(), Failed> {
    match bytes <= limit {
        true => Ok(()),
        false => Err(Failed::usage(format!(
            "no task was sent: a message has {bytes} bytes with this --input, and limits.max.message_kib allows {limit} bytes; send a \
             smaller --input, or raise that limit of the daemon"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(text: &str) -> PluginRef {
        text.parse().unwrap()
    }

    #[test]
    fn a_plugin_that_does_not_load_is_unusable_with_its_cause() {
        let broken = json!({"version": null, "state": "broken", "cause": "p/p.wasm is missing", "queue": null});
        let plugin = json!({"state": "broken", "cause": "p/p.wasm is missing", "versions": [broken]});
        let Standing::Unusable(problem) = standing(&plugin, &asked("p@^1")) else { panic!("it is usable") };
        assert!(problem.contains("p/p.wasm is missing") && problem.contains("repaired"), "{problem}");
    }

    #[test]
    fn the_version_that_matches_decides() {
        let version = |version: &str, state: &str, queue| json!({"version": version, "state": state, "cause": null, "queue": queue});
        let versions = [version("2.0.0", "ready", Some("fast")), version("1.0.0", "broken", None)];
        let plugin = json!({"state": "ready", "cause": null, "versions": versions});
        assert_eq!(standing(&plugin, &asked("p")), Standing::Ready("fast".to_owned()));
        assert!(matches!(standing(&plugin, &asked("p@^1")), Standing::Unusable(why) if why.contains("does not load")));
        assert!(matches!(standing(&plugin, &asked("p@^3")), Standing::Unusable(why) if why.contains("2.0.0, 1.0.0")));
        let off = json!({"state": "disabled", "cause": "enabled = false", "versions": []});
        assert!(matches!(standing(&off, &asked("p")), Standing::Unusable(why) if why.contains("disabled")));
    }

    #[test]
    fn a_plugin_without_versions_has_no_empty_list_in_its_error() {
        let none = json!({"state": "ready", "cause": null, "versions": []});
        let Standing::Unusable(why) = standing(&none, &asked("p")) else { panic!("it is not ready") };
        assert!(why.ends_with("is installed"), "{why}");
    }

    #[test]
    fn only_a_live_host_with_a_matching_version_serves() {
        let host = |alive: bool| json!({"hosts": [{"alive": alive, "plugins": ["p@1.2.0", "q@1.0.0"]}]});
        assert!(served_elsewhere(&host(true), &asked("p@^1")));
        assert!(!served_elsewhere(&host(true), &asked("p@^2")) && !served_elsewhere(&host(false), &asked("p")));
    }

    #[test]
    fn a_batch_never_exceeds_the_limit_of_a_body() {
        let limit = 1_000;
        for task in [2_u64, 10, 333, 988] {
            let fits = fits(task, 500, limit).unwrap() as u64;
            // The last task has no comma.
            assert!(fits <= 500 && FRAME + fits * task - 1 <= limit, "{task}: {fits}");
        }
        assert_eq!(fits(10, 5, limit).unwrap(), 5);
        let error = fits(989, 500, limit).unwrap_err().message;
        assert!(
            error.contains("988 bytes") && error.contains("1000 bytes") && error.contains("api.body_mib"),
            "{error}"
        );
        let error = message(11, 10).unwrap_err().message;
        assert!(error.contains("11 bytes") && error.contains("limits.max.message_kib"), "{error}");
    }
}
