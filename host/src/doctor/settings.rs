//! The settings: what is wrong with them, and what differs from the defaults.

use super::{Check, count};
use crate::api;
use crate::config::{ConfigError, Origin, Settings};
use crate::daemon;
use serde_json::json;

/// Settings that cannot be used.
pub(super) fn broken(error: &ConfigError) -> Check {
    let mut check = Check::new("settings", "");
    for problem in error.problems() {
        check.fail(problem.to_string(), "correct it where the message says; `agentry config check` repeats this check");
    }
    check
}

/// Settings that hold.
pub(super) fn judge(settings: &Settings) -> Check {
    let own = settings.effective().iter().filter(|setting| setting.origin != Origin::Default);
    let own: Vec<_> = own
        .map(|s| json!({"key": s.key, "value": s.value, "text": s.text(), "origin": s.origin.to_string()}))
        .collect();
    let number = i64::try_from(own.len()).unwrap_or(i64::MAX);
    let summary = match number {
        0 => "all are defaults".to_owned(),
        number => format!("{} from the defaults", count(number, "differs", "differ")),
    };
    let facts = json!({
        "file": settings.file, "digest": settings.digest(), "own": own, "recorded_bodies": settings.recorded_bodies(),
    });
    let mut check = Check::new("settings", summary).with(facts);
    for warning in &settings.warnings {
        check.warn(warning.clone(), "correct it where the message says, or accept it");
    }
    for warning in daemon::exposed(settings) {
        // The command that closes it stands in the warning.
        let (what, remedy) = warning.rsplit_once("; ").unwrap_or((&warning, "close it to other users"));
        check.warn(what, remedy);
    }
    check
}

/// The files of the API.
pub(super) fn api(settings: &Settings) -> Check {
    let api = &settings.api;
    let facts = json!({"listen": api.listen, "tls": api.tls.is_some(), "tokens_file": api.tokens_file});
    let scheme = if api.tls.is_some() { "https" } else { "http" };
    let who = if api.tokens_file.is_some() { "with tokens" } else { "without tokens" };
    let mut check = Check::new("api", format!("{scheme}://{} {who}", api.listen)).with(facts);
    if let Err(error) = api::Tokens::load(api.tokens_file.as_deref()) {
        check.fail(
            format!("failed to {error}"),
            "correct the file of api.tokens_file; its lines are `name scope token`",
        );
    }
    if let Some(tls) = &api.tls
        && let Err(error) = api::Certificate::load(&tls.certificate, &tls.key)
    {
        check.fail(format!("failed to {error}"), "correct the files of api.tls_cert and api.tls_key");
    }
    check
}
