//! `plugin.toml`: what a plugin says about itself and wishes for.

use super::limits::{KEYS, LimitWishes};
use super::policy::CapabilityWishes;
use super::reader::{ManifestError, Section, quoted};
use crate::task::limits::MAX_ATTEMPTS;
use crate::task::{DEFAULT_QUEUE, FailureKind, PluginRef, RetryPolicy};
use agentry_outbound::pattern::UrlPattern;
use semver::Version;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// The file's name.
pub const FILE: &str = "plugin.toml";
/// The largest such file, in bytes.
pub(super) const FILE_BYTES: u64 = 64 << 10;
/// The longest that a plugin may wish its tasks to be delayed, in seconds: thirty days.
const LONGEST_DELAY: f64 = 30.0 * 86_400.0;
/// Kinds of failure that a run of a plugin may end with and `retry.on` may name. Not `invalid_input`: the same input
/// stays invalid; not those that are decided before a run, nor `host_lost`, which has its own budget.
const RETRIABLE: [FailureKind; 11] = [
    FailureKind::PluginError,
    FailureKind::Trap,
    FailureKind::Timeout,
    FailureKind::CpuLimit,
    FailureKind::MemoryLimit,
    FailureKind::ResourceLimit,
    FailureKind::OutputTooLarge,
    FailureKind::InvalidOutput,
    FailureKind::Denied,
    FailureKind::BudgetExceeded,
    FailureKind::Internal,
];

/// A valid `plugin.toml`.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// `plugin.name`.
    pub name: String,
    /// `plugin.version`.
    pub version: Version,
    /// `plugin.component`: relative, and without `..`.
    pub component: PathBuf,
    /// `plugin.description`.
    pub description: String,
    /// `plugin.queue`.
    pub queue: String,
    /// `[limits]`.
    pub limits: LimitWishes,
    /// `limits.memory_reserve_mib`: what a running attempt counts with against the host's memory.
    pub memory_reserve_mib: Option<u64>,
    /// `[retry]`.
    pub retry: RetryWishes,
    /// `[capabilities]`.
    pub capabilities: CapabilityWishes,
    /// `[config]`: what the plugin reads where the operator says nothing.
    pub config: BTreeMap<String, String>,
}

/// `[retry]`; `None`: what the settings say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetryWishes {
    /// Attempts in all.
    pub max_attempts: Option<u32>,
    /// The longest first delay.
    pub base: Option<Duration>,
    /// Growth per burnt attempt.
    pub factor: Option<f64>,
    /// The longest delay.
    pub max: Option<Duration>,
    /// Which kinds are retried.
    pub on: Option<Vec<FailureKind>>,
}

impl RetryWishes {
    /// These, and where they are silent the settings.
    pub fn or(&self, settings: &RetryPolicy) -> RetryPolicy {
        RetryPolicy {
            max_attempts: self.max_attempts.unwrap_or(settings.max_attempts),
            base: self.base.unwrap_or(settings.base),
            factor: self.factor.unwrap_or(settings.factor),
            max: self.max.unwrap_or(settings.max),
            on: self.on.clone().or_else(|| settings.on.clone()),
        }
    }
}

impl Manifest {
    /// That of a component without `plugin.toml`: it wishes for nothing.
    pub(super) fn bare(name: &str) -> Manifest {
        Manifest {
            name: name.to_owned(),
            version: Version::new(0, 0, 0),
            component: PathBuf::new(),
            description: String::new(),
            queue: DEFAULT_QUEUE.to_owned(),
            limits: LimitWishes::default(),
            memory_reserve_mib: None,
            retry: RetryWishes::default(),
            capabilities: CapabilityWishes::default(),
            config: BTreeMap::new(),
        }
    }

    /// Read the text of `file`, which is only named in errors.
    ///
    /// # Errors
    /// The first thing that is wrong, with the file, the key, what was found and what is allowed.
    pub fn parse(file: &Path, text: &str) -> Result<Manifest, ManifestError> {
        let mut root = Section::root(file, text, &["manifest", "plugin", "limits", "retry", "capabilities", "config"])?;
        match root.integer("manifest").transpose()? {
            Some(1) => {}
            Some(other) => return Err(root.error("manifest", format_args!("is {other}; this host reads manifest = 1"))),
            None => return Err(root.error("manifest", "is missing; begin the file with manifest = 1")),
        }
        let Some(mut plugin) = root.section("plugin", &["name", "version", "component", "description", "queue"])?
        else {
            return Err(root.error("plugin", "is missing; it must be a table with name, version and component"));
        };
        let name = read_name(&mut plugin)?;
        let version = read_version(&mut plugin)?;
        let component = read_component(&mut plugin)?;
        let description = plugin.text("description", 1_024)?.unwrap_or_default();
        let queue = read_queue(&mut plugin)?;
        let (limits, memory_reserve_mib) = read_limits(&mut root)?;
        let retry = read_retry(&mut root)?;
        let capabilities = read_capabilities(&mut root)?;
        let config = root.map("config", 64 << 10)?;
        Ok(Manifest {
            name,
            version,
            component,
            description,
            queue,
            limits,
            memory_reserve_mib,
            retry,
            capabilities,
            config,
        })
    }
}

/// Name and version of a file that is not valid otherwise, so that the right plugin is reported as broken.
pub(super) fn gist(text: &str) -> (Option<String>, Option<Version>) {
    let Ok(root) = toml::from_str::<toml::Table>(text) else { return (None, None) };
    let get = |key: &str| root.get("plugin").and_then(|p| p.get(key)).and_then(|v| v.as_str());
    let name = get("name").filter(|name| PluginRef::is_name(name)).map(str::to_owned);
    (name, get("version").and_then(|version| version.parse().ok()))
}

fn read_name(plugin: &mut Section<'_>) -> Result<String, ManifestError> {
    let allowed = "a lower-case letter, then at most 62 lower-case letters, digits or hyphens";
    let name = plugin.required("name", allowed, 1_024)?;
    if !PluginRef::is_name(&name) {
        return Err(plugin.error("name", format_args!("is {}; it must be {allowed}", quoted(&name))));
    }
    Ok(name)
}

fn read_version(plugin: &mut Section<'_>) -> Result<Version, ManifestError> {
    let allowed = "a semantic version such as 0.1.0";
    let text = plugin.required("version", allowed, 256)?;
    text.parse().map_err(|e| plugin.error("version", format_args!("is {}; it must be {allowed}: {e}", quoted(&text))))
}

fn read_component(plugin: &mut Section<'_>) -> Result<PathBuf, ManifestError> {
    let allowed = "the path of a file in this folder, such as word_count.wasm";
    let text = plugin.required("component", allowed, 1_024)?;
    let path = Path::new(&text);
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(plugin.error("component", format_args!("is {}; it must be {allowed}", quoted(&text))));
    }
    Ok(path.to_owned())
}

fn read_queue(plugin: &mut Section<'_>) -> Result<String, ManifestError> {
    let Some(queue) = plugin.text("queue", 1_024)? else { return Ok(DEFAULT_QUEUE.into()) };
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if queue.is_empty() || queue.len() > 128 || !queue.bytes().all(fits) {
        return Err(plugin.error(
            "queue",
            format_args!("is {}; it must be 1 to 128 letters, digits, dots, hyphens or underscores", quoted(&queue)),
        ));
    }
    Ok(queue)
}

fn read_limits(root: &mut Section<'_>) -> Result<(LimitWishes, Option<u64>), ManifestError> {
    let mut wishes = LimitWishes::default();
    let known: Vec<&str> = KEYS.iter().copied().chain(["memory_reserve_mib"]).collect();
    let Some(mut limits) = root.section("limits", &known)? else { return Ok((wishes, None)) };
    for key in KEYS {
        if let Some(value) = limits.whole(key, 1..=u32::MAX)? {
            wishes.set(key, value.into());
        }
    }
    Ok((wishes, limits.whole("memory_reserve_mib", 1..=u32::MAX)?.map(u64::from)))
}

fn read_retry(root: &mut Section<'_>) -> Result<RetryWishes, ManifestError> {
    let known = ["max_attempts", "base_seconds", "factor", "max_seconds", "on"];
    let Some(mut retry) = root.section("retry", &known)? else { return Ok(RetryWishes::default()) };
    let words = retry.texts_if_any("on")?;
    let kind = |word: &String| {
        FailureKind::parse(word).filter(|kind| RETRIABLE.contains(kind)).ok_or_else(|| {
            let allowed: Vec<_> = RETRIABLE.iter().map(|k| k.as_str()).collect();
            retry.error("on", format_args!("holds {}; allowed are {}", quoted(word), allowed.join(", ")))
        })
    };
    let on = words.map(|words| words.iter().map(kind).collect::<Result<Vec<_>, _>>()).transpose()?;
    Ok(RetryWishes {
        max_attempts: retry.whole("max_attempts", MAX_ATTEMPTS)?,
        base: retry.number("base_seconds", 0.0..=LONGEST_DELAY)?.map(Duration::from_secs_f64),
        factor: retry.number("factor", 1.0..=100.0)?,
        max: retry.number("max_seconds", 0.0..=LONGEST_DELAY)?.map(Duration::from_secs_f64),
        on,
    })
}

fn read_capabilities(root: &mut Section<'_>) -> Result<CapabilityWishes, ManifestError> {
    let known = ["http", "llm", "tools", "keyvalue", "memory", "config", "folders"];
    let Some(mut wishes) = root.section("capabilities", &known)? else { return Ok(CapabilityWishes::default()) };
    let http = wishes.texts("http")?;
    if let Some(error) = http.iter().find_map(|text| text.parse::<UrlPattern>().err()) {
        return Err(wishes.error("http", format_args!("holds a line that cannot be: {error}")));
    }
    Ok(CapabilityWishes {
        http,
        llm: wishes.texts("llm")?,
        tools: wishes.lists("tools")?,
        keyvalue: wishes.texts("keyvalue")?,
        memory: wishes.texts("memory")?,
        config: wishes.texts("config")?,
        folders: wishes.texts("folders")?,
    })
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
