//! The layers settings come in: built-in defaults, a file, the environment, flags.

use super::environment::{self, Environment};
use super::expand::Variables;
use super::file::{self, Section, Table};
use super::origin::{ConfigError, Origin, Problem};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The built-in defaults, with a comment for each setting.
pub const DEFAULTS: &str = include_str!("../../config.default.toml");

/// A file in the current folder that is read when none is named.
const IMPLICIT_FILE: &str = "agentry.toml";

/// A value as a layer gave it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    Text(String),
    Integer(i64),
    Decimal(f64),
    Bool(bool),
    List(Vec<String>),
}

impl Raw {
    /// Empty text is unset, wherever it stands.
    fn is_unset(&self) -> bool {
        matches!(self, Raw::Text(text) if text.trim().is_empty())
    }
}

/// A value, where it came from, and what a relative path in it starts at.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub raw: Raw,
    pub origin: Origin,
    pub base: PathBuf,
}

/// A setting given as a flag.
#[derive(Clone, Debug)]
pub struct FlagValue {
    /// The setting, such as `broker.url`.
    pub key: &'static str,
    /// The flag, such as `--broker-url`.
    pub flag: &'static str,
    /// Its values; more than one only for lists.
    pub values: Vec<String>,
}

/// Where settings are read from: everything outside that they depend on.
#[derive(Clone, Debug)]
pub struct Sources {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// Settings given as flags.
    pub flags: Vec<FlagValue>,
    /// The environment.
    pub env: Vec<(OsString, OsString)>,
    /// The current folder, absolute.
    pub cwd: PathBuf,
    /// The machine.
    pub machine: super::Machine,
}

impl Sources {
    /// This process's own environment, folder and machine.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<FlagValue>) -> Result<Sources, ConfigError> {
        let cwd = std::env::current_dir()
            .map_err(|e| Problem(format!("the current folder cannot be read ({e}); change to one that exists")))?;
        Ok(Sources { file, flags, env: std::env::vars_os().collect(), cwd, machine: super::Machine::here() })
    }
}

/// All layers, merged: what each setting holds and where it came from.
#[derive(Debug)]
pub(super) struct Layers {
    pub entries: BTreeMap<String, Entry>,
    pub tables: Vec<Table>,
    pub environment: Environment,
    pub variables: Variables,
    pub file: Option<PathBuf>,
}

/// Read and merge every layer. Unknown names of all layers are reported together.
pub(super) fn read(sources: &Sources) -> Result<Layers, ConfigError> {
    let defaults = file::parse(DEFAULTS, None, &file::Known::Anything)
        .map_err(|e| Problem(format!("config.default.toml, built in: {e}")))?;
    let known: Vec<String> = defaults.entries.keys().cloned().collect();
    let mut problems = Vec::new();
    let environment = environment::read(&sources.env, &known, &mut problems);

    let (path, place) = chosen_file(sources, &environment);
    let mut layers = Layers {
        entries: BTreeMap::new(),
        tables: Vec::new(),
        environment,
        variables: Variables::new(&sources.env),
        file: path.clone(),
    };
    for (key, (raw, _)) in defaults.entries {
        layers.entries.insert(key, Entry { raw, origin: Origin::Default, base: sources.cwd.clone() });
    }

    if let Some(path) = path {
        let text = std::fs::read_to_string(&path).map_err(|e| {
            let hint = if e.kind() == std::io::ErrorKind::InvalidData { "; save it as UTF-8" } else { "" };
            Problem(format!("the settings file {} ({place}) cannot be read: {e}{hint}", path.display()))
        })?;
        let parsed = file::parse(&text, Some(&path), &file::Known::Keys(&known))
            .map_err(|e| Problem(format!("{}:{e}", path.display())))?;
        problems.extend(parsed.problems);
        let base = path.parent().unwrap_or(Path::new("/")).to_owned();
        for (key, (raw, line)) in parsed.entries {
            layers.set(key, Entry { raw, origin: Origin::File(path.clone(), line), base: base.clone() });
        }
        layers.tables = parsed.tables;
    }
    for (key, name, value) in std::mem::take(&mut layers.environment.settings) {
        layers.set(key, Entry { raw: Raw::Text(value), origin: Origin::Env(name), base: sources.cwd.clone() });
    }
    for flag in &sources.flags {
        let raw = match flag.values.as_slice() {
            [] => continue,
            [one] => Raw::Text(one.clone()),
            many => Raw::List(many.to_vec()),
        };
        layers.set(flag.key.to_owned(), Entry { raw, origin: Origin::Flag(flag.flag), base: sources.cwd.clone() });
    }
    if problems.is_empty() { Ok(layers) } else { Err(ConfigError(problems)) }
}

impl Layers {
    /// The tables of one kind, in the file's order.
    pub fn tables_of(&self, section: Section) -> Vec<&Table> {
        self.tables.iter().filter(|table| table.section == section).collect()
    }

    fn set(&mut self, key: String, entry: Entry) {
        if !entry.raw.is_unset() {
            self.entries.insert(key, entry);
        }
    }
}

/// The file that is read, and what named it.
fn chosen_file(sources: &Sources, environment: &Environment) -> (Option<PathBuf>, &'static str) {
    if let Some(path) = &sources.file {
        return (Some(sources.cwd.join(path)), "flag --config");
    }
    if let Some(path) = &environment.config {
        return (Some(sources.cwd.join(path)), "env AGENTRY_CONFIG");
    }
    let implicit = sources.cwd.join(IMPLICIT_FILE);
    (implicit.exists().then_some(implicit), "the current folder")
}
