//! Checks `[llm]` before anything is sent: what would fail later, for a guest, fails at the start, for the operator.

use super::types::{LlmSettings, LlmSettingsError, ModelSettings, ProviderKind, ProviderSettings};
use http::{HeaderName, HeaderValue};
use std::time::Duration;
use url::{Host, Url};

/// The longest that one request may be allowed to take.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
const MOST_RETRIES: u32 = 20;
const MOST_AT_ONCE: u32 = 10_000;

/// Headers that belong to the request itself.
const RESERVED: [&str; 9] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "transfer-encoding",
];

/// Checks all of it.
pub(super) fn check(settings: &LlmSettings) -> Result<(), LlmSettingsError> {
    for (name, provider) in &settings.providers {
        let fault = |key, reason| LlmSettingsError::Invalid { provider: name.clone(), key, reason };
        check_url(&provider.url).map_err(|reason| fault("url", reason))?;
        check_headers(provider).map_err(|reason| fault("headers", reason))?;
        check_key(name, provider)?;
        check_times(provider).map_err(|(key, reason)| fault(key, reason))?;
        if provider.retries > MOST_RETRIES {
            return Err(fault("retries", format!("{} is more than {MOST_RETRIES}", provider.retries)));
        }
        if !(1..=MOST_AT_ONCE).contains(&provider.concurrency) {
            return Err(fault("concurrency", format!("{} is not 1 to {MOST_AT_ONCE}", provider.concurrency)));
        }
    }
    settings.models.iter().try_for_each(|(alias, model)| check_model(settings, alias, model))
}

fn check_model(settings: &LlmSettings, alias: &str, model: &ModelSettings) -> Result<(), LlmSettingsError> {
    let Some(provider) = settings.providers.get(&model.provider) else {
        return Err(LlmSettingsError::UnknownProvider {
            model: alias.to_owned(),
            provider: model.provider.clone(),
            known: settings.providers.keys().cloned().collect(),
        });
    };
    let fault = |key, reason: &str| {
        Err(LlmSettingsError::InvalidModel { model: alias.to_owned(), key, reason: reason.to_owned() })
    };
    if model.model.trim().is_empty() || model.model.chars().any(char::is_control) {
        return fault("model", "is empty or has control characters; write the provider's name for the model");
    }
    if provider.kind == ProviderKind::Gemini && model.model.starts_with("models/") {
        return fault("model", "begins with models/, which the address already has; leave it out");
    }
    if model.max_output_tokens == 0 {
        return fault("max_output_tokens", "is 0; write the longest answer that may be asked for, in tokens");
    }
    Ok(())
}

fn check_url(url: &Url) -> Result<(), String> {
    let Some(host) = url.host() else {
        return Err("has no host; write it like https://api.openai.com/v1".into());
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user or password in it; write it as the key".into());
    }
    if url.fragment().is_some() {
        return Err("has a fragment (#…), which no request carries; leave it out".into());
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_local(&host) => Ok(()),
        "http" => {
            Err(format!("is plain http to {host}, which is not local: keys and conversations could be read; use https"))
        }
        other => Err(format!("has the scheme {other:?}; use https, or http to a local server")),
    }
}

/// Whether a host is this machine or on its own network: an address that is not global, or a name that public DNS does not have
/// (one without a dot, as in a compose file; RFC 6761, 6762, 8375, 9476 and ICANN's `.internal`).
fn is_local<S: AsRef<str>>(host: &Host<S>) -> bool {
    match host {
        Host::Ipv4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Host::Ipv6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_local::<&str>(&Host::Ipv4(ip)),
            None => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        },
        Host::Domain(name) => {
            let name = name.as_ref();
            !name.contains('.')
                || [".localhost", ".local", ".internal", ".home.arpa", ".alt"]
                    .iter()
                    .any(|suffix| name.ends_with(suffix))
        }
    }
}

/// Public providers want a key, in `key` or in the header that carries it.
fn check_key(name: &str, provider: &ProviderSettings) -> Result<(), LlmSettingsError> {
    let fault = |reason: &str| {
        Err(LlmSettingsError::Invalid { provider: name.to_owned(), key: "key", reason: reason.to_owned() })
    };
    let carriers: &[&str] = match provider.kind {
        ProviderKind::OpenAi | ProviderKind::OpenAiResponses => &["authorization", "api-key"],
        ProviderKind::Anthropic => &["x-api-key", "authorization"],
        ProviderKind::Gemini => &["x-goog-api-key", "authorization"],
    };
    let carrier = provider.headers.keys().find(|name| carriers.contains(&name.to_ascii_lowercase().as_str()));
    match (&provider.key, carrier) {
        (Some(key), _) if key.expose().trim().is_empty() => fault("is empty; leave it out where none is wanted"),
        (Some(key), _) if HeaderValue::from_str(key.expose()).is_err() => {
            fault("has characters that no header may carry, such as a line break")
        }
        (Some(_), Some(header)) => {
            fault(&format!("is set, and so is the header {header:?}, which carries it; leave one of them out"))
        }
        (None, None) if wants_key(provider) => Err(LlmSettingsError::MissingKey { provider: name.to_owned() }),
        _ => Ok(()),
    }
}

fn wants_key(provider: &ProviderSettings) -> bool {
    match (provider.kind, provider.url.host()) {
        (ProviderKind::OpenAi | ProviderKind::OpenAiResponses, Some(Host::Domain(name))) => {
            matches!(name, "api.openai.com" | "openrouter.ai")
        }
        (ProviderKind::OpenAi | ProviderKind::OpenAiResponses, _) => false,
        (_, host) => !host.is_some_and(|host| is_local(&host)),
    }
}

fn check_headers(provider: &ProviderSettings) -> Result<(), String> {
    for (name, value) in &provider.headers {
        let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
            return Err(format!("{name:?} is no header's name (RFC 9110, section 5.1)"));
        };
        if RESERVED.contains(&parsed.as_str()) {
            return Err(format!("{name:?} belongs to the request itself and cannot be set; leave it out"));
        }
        if HeaderValue::from_str(value.expose()).is_err() {
            return Err(format!("the value of {name:?} has characters that no header may carry, such as a line break"));
        }
    }
    Ok(())
}

fn check_times(provider: &ProviderSettings) -> Result<(), (&'static str, String)> {
    let total = provider.total;
    let stages = [("connect", provider.connect), ("first_byte", provider.first_byte), ("idle", provider.idle)];
    for (key, time) in stages.into_iter().chain([("total", total)]) {
        if time.is_zero() || time > LONGEST {
            return Err((key, format!("{time:?} is not between 0 and {LONGEST:?}")));
        }
    }
    match stages.into_iter().find(|(_, time)| *time > total) {
        Some((key, time)) => {
            Err((key, format!("{time:?} is longer than total, which is {total:?}; lower it, or raise total")))
        }
        None => Ok(()),
    }
}
