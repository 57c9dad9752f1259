//! Providers of language models and tool servers, asked only with `--outside`: it costs a request each, and starts child processes.

use super::{Check, PATIENCE, count, within};
use crate::config::Settings;
use crate::daemon;
use crate::registry::Reach;
use agentry_outbound::llm::Llm;
use agentry_outbound::tools::{ToolGrant, Tools};
use futures_util::future::join_all;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

const PROVIDERS: &str = "outside.providers";
const SERVERS: &str = "outside.tools";
/// The time that a tool server may take to start and to list its tools.
const START: Duration = Duration::from_secs(10);

/// A name, and what is offered there; `None`: it does not list it.
pub(super) type Listed = (String, Result<Option<Vec<String>>, String>);

pub(super) async fn checks(settings: &Settings, asked: bool) -> Vec<Check> {
    let both = |reason: &str, remedy: Option<&str>| -> Vec<Check> {
        let skipped = |name| {
            let mut check = Check::new(name, "");
            check.skip(reason, remedy);
            check
        };
        [PROVIDERS, SERVERS].map(skipped).into()
    };
    if !asked {
        let remedy = "run `agentry doctor --outside`, which sends a request to each and starts the tool servers";
        return both("asked with --outside alone", Some(remedy));
    }
    let Reach { llm, tools, .. } = match daemon::reach(settings, None) {
        Ok(reach) => reach,
        Err(error) => return both(&error.to_string(), Some("see grants")),
    };
    let (Some(llm), Some(tools)) = (llm, tools) else { return both("nothing is configured", None) };
    let (of_providers, of_servers) = tokio::join!(ask_providers(&llm), ask_servers(&tools));
    // Their children end with the session.
    let _ = tokio::time::timeout(Duration::from_secs(2), tools.close()).await;
    let models = settings.outside.llm.models.iter();
    let models = models.map(|(alias, model)| (alias.as_str(), model.provider.as_str(), model.model.as_str()));
    vec![providers(&of_providers, &models.collect::<Vec<_>>()), servers(&of_servers)]
}

async fn ask_providers(llm: &Llm) -> Vec<Listed> {
    let ask = |name: String| async move {
        let list = within(PATIENCE, llm.list(&name)).await.and_then(|list| list);
        (name, list)
    };
    join_all(llm.providers().into_iter().map(ask)).await
}

async fn ask_servers(tools: &Tools) -> Vec<Listed> {
    let ask = |name: String| async move {
        // A session of its own for each: one that is away would hide the tools of the others.
        let session = tools.session("doctor", ToolGrant::from([(name.clone(), vec!["*".to_owned()])]));
        let list = within(START, session.list(Instant::now() + START)).await;
        let list = list.and_then(|list| list.map_err(|error| error.to_string()));
        (name, list.map(|tools| Some(tools.into_iter().map(|tool| tool.name).collect())))
    };
    join_all(tools.servers().into_iter().map(ask)).await
}

/// Providers against the models that are configured: alias, provider and name there.
pub(super) fn providers(listed: &[Listed], models: &[(&str, &str, &str)]) -> Check {
    let mut check = part(PROVIDERS, listed, ("provider", "providers"), |name| {
        format!("correct url, key or proxy of [llm.providers.{name}]")
    });
    for (alias, provider, model) in models {
        let offered =
            listed.iter().find(|(name, _)| name == provider).and_then(|(_, list)| list.as_ref().ok()?.as_ref());
        if offered.is_some_and(|offered| !offered.iter().any(|name| name == model)) {
            check.warn(
                format!("the provider {provider} does not list the model {model:?} of [llm.models.{alias}]"),
                "correct model in that table, or use a key that may use it; some providers do not list every model",
            );
        }
    }
    check
}

/// Tool servers.
pub(super) fn servers(listed: &[Listed]) -> Check {
    part(SERVERS, listed, ("server", "servers"), |name| {
        format!("correct command, url or headers of [tools.{name}], and see the server's own log")
    })
}

fn part(name: &'static str, listed: &[Listed], (one, many): (&str, &str), remedy: impl Fn(&str) -> String) -> Check {
    let number = i64::try_from(listed.len()).unwrap_or(i64::MAX);
    if number == 0 {
        return Check::skipped(name, format!("no {one} is configured"));
    }
    let facts: Vec<_> = listed
        .iter()
        .map(|(name, list)| match list {
            Ok(list) => json!({"name": name, "offers": list}),
            Err(why) => json!({"name": name, "error": why}),
        })
        .collect();
    let mut check = Check::new(name, format!("{} asked", count(number, one, many))).with(json!({"asked": facts}));
    for (place, list) in listed {
        if let Err(why) = list {
            check.fail(format!("{place}: {why}"), remedy(place));
        }
    }
    check
}
