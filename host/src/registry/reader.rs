//! Reads a table of `plugin.toml` so that every complaint names the file, the key, what was found and what is allowed.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The longest piece of a file that an error repeats, in characters.
const QUOTED: usize = 60;

/// Why a `plugin.toml` is unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct ManifestError {
    /// The file.
    pub file: PathBuf,
    /// The key, what was found and what is allowed.
    pub problem: String,
}

/// One table, whose keys are all known.
pub(super) struct Section<'a> {
    file: &'a Path,
    path: String,
    table: Table,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(file: &'a Path, text: &str, known: &[&str]) -> Result<Section<'a>, ManifestError> {
        let table: Table = toml::from_str(text).map_err(|e: toml::de::Error| {
            let line = e.span().map(|s| text[..s.start.min(text.len())].matches('\n').count() + 1);
            let place = line.map_or(String::new(), |line| format!("line {line}: "));
            let problem = format!("{place}not TOML: {}", e.message().trim().replace('\n', "; "));
            ManifestError { file: file.to_owned(), problem }
        })?;
        Section::checked(file, String::new(), table, known)
    }

    fn checked(file: &'a Path, path: String, table: Table, known: &[&str]) -> Result<Section<'a>, ManifestError> {
        let section = Section { file, path, table };
        match section.table.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(section),
            Some(unknown) => Err(section.error(unknown, unknown_key(unknown, known))),
        }
    }

    /// An error about one key.
    pub(super) fn error(&self, key: &str, problem: impl fmt::Display) -> ManifestError {
        ManifestError { file: self.file.to_owned(), problem: format!("{} {problem}", self.name(key)) }
    }

    fn name(&self, key: &str) -> String {
        let bare = (1..=QUOTED).contains(&key.len())
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let key = if bare { key.to_owned() } else { quoted(key) };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    fn wrong(&self, key: &str, found: &Value, allowed: impl fmt::Display) -> ManifestError {
        self.error(key, format_args!("is {}; it must be {allowed}", describe(found)))
    }

    /// A table within this one; `None`: absent.
    pub(super) fn section(&mut self, key: &str, known: &[&str]) -> Result<Option<Section<'a>>, ManifestError> {
        match self.table.remove(key) {
            None => Ok(None),
            Some(Value::Table(table)) => Section::checked(self.file, self.name(key), table, known).map(Some),
            Some(found) => Err(self.wrong(key, &found, format_args!("a table, written [{}]", self.name(key)))),
        }
    }

    /// Text on one line, of at most `longest` bytes.
    pub(super) fn text(&mut self, key: &str, longest: usize) -> Result<Option<String>, ManifestError> {
        let Some(found) = self.table.remove(key) else { return Ok(None) };
        self.one_text(key, found, longest).map(Some)
    }

    fn one_text(&self, key: &str, found: Value, longest: usize) -> Result<String, ManifestError> {
        match found {
            Value::String(text) if text.len() > longest => {
                Err(self.error(key, format_args!("has {} bytes; allowed are {longest}", text.len())))
            }
            Value::String(text) if text.chars().any(char::is_control) => {
                Err(self.error(key, "holds a control character; it must be text on one line"))
            }
            Value::String(text) => Ok(text),
            found => Err(self.wrong(key, &found, "text, in quotes")),
        }
    }

    /// Text that must be there. `such_as`: what is allowed, for the error.
    pub(super) fn required(&mut self, key: &str, such_as: &str, longest: usize) -> Result<String, ManifestError> {
        match self.text(key, longest)? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) => Err(self.error(key, format_args!("is empty; it must be {such_as}"))),
            None => Err(self.error(key, format_args!("is missing; it must be {such_as}"))),
        }
    }

    /// A list of texts, none of them empty or there twice; absent: an empty one.
    pub(super) fn texts(&mut self, key: &str) -> Result<Vec<String>, ManifestError> {
        Ok(self.texts_if_any(key)?.unwrap_or_default())
    }

    /// The same; `None`: absent.
    pub(super) fn texts_if_any(&mut self, key: &str) -> Result<Option<Vec<String>>, ManifestError> {
        let Some(found) = self.table.remove(key) else { return Ok(None) };
        let Value::Array(entries) = found else { return Err(self.wrong(key, &found, "a list of texts")) };
        let mut texts = Vec::with_capacity(entries.len());
        for (i, entry) in entries.into_iter().enumerate() {
            let Value::String(text) = entry else {
                return Err(self.error(
                    key,
                    format_args!("holds {} at place {}; it must be a list of texts", describe(&entry), i + 1),
                ));
            };
            if text.is_empty() || text.len() > 1_024 || text.chars().any(char::is_control) {
                return Err(self.error(
                    key,
                    format_args!(
                        "holds {} at place {}; an entry has 1 to 1024 bytes on one line",
                        quoted(&text),
                        i + 1
                    ),
                ));
            }
            if texts.contains(&text) {
                return Err(self.error(key, format_args!("holds {} twice", quoted(&text))));
            }
            texts.push(text);
        }
        Ok(Some(texts))
    }

    /// A table of any keys to lists of texts.
    pub(super) fn lists(&mut self, key: &str) -> Result<BTreeMap<String, Vec<String>>, ManifestError> {
        let mut inner = match self.table.remove(key) {
            None => return Ok(BTreeMap::new()),
            Some(Value::Table(table)) => Section { file: self.file, path: self.name(key), table },
            Some(found) => return Err(self.wrong(key, &found, "a table of lists of texts")),
        };
        let keys: Vec<String> = inner.table.keys().cloned().collect();
        keys.into_iter().map(|key| Ok((key.clone(), inner.texts(&key)?))).collect()
    }

    /// A table of any keys to texts.
    pub(super) fn map(&mut self, key: &str, longest: usize) -> Result<BTreeMap<String, String>, ManifestError> {
        let inner = match self.table.remove(key) {
            None => return Ok(BTreeMap::new()),
            Some(Value::Table(table)) => Section { file: self.file, path: self.name(key), table },
            Some(found) => return Err(self.wrong(key, &found, "a table of texts")),
        };
        let mut map = BTreeMap::new();
        for (key, found) in &inner.table {
            match found {
                Value::String(text) if text.len() <= longest => map.insert(key.clone(), text.clone()),
                Value::String(text) => {
                    return Err(inner.error(key, format_args!("has {} bytes; allowed are {longest}", text.len())));
                }
                found => return Err(inner.wrong(key, found, "text, in quotes")),
            };
        }
        Ok(map)
    }

    /// A whole number within a range.
    pub(super) fn whole(&mut self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, ManifestError> {
        let Some(found) = self.table.remove(key) else { return Ok(None) };
        let number = found.as_integer().and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n));
        number.map(Some).ok_or_else(|| {
            let allowed = match *range.end() {
                u32::MAX => format!("a whole number, {} or more", range.start()),
                end => format!("a whole number from {} to {end}", range.start()),
            };
            self.wrong(key, &found, allowed)
        })
    }

    /// A number within a range; whole or not.
    pub(super) fn number(&mut self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, ManifestError> {
        let Some(found) = self.table.remove(key) else { return Ok(None) };
        let number = match found {
            // Whole numbers within any range used here are exact.
            #[allow(clippy::cast_precision_loss)]
            Value::Integer(n) => Some(n as f64),
            Value::Float(n) => Some(n),
            _ => None,
        };
        number
            .filter(|n| range.contains(n))
            .map(Some)
            .ok_or_else(|| self.wrong(key, &found, format_args!("a number from {} to {}", range.start(), range.end())))
    }

    /// The integer at a key, whatever it is, if it is one.
    pub(super) fn integer(&mut self, key: &str) -> Option<Result<i64, ManifestError>> {
        let found = self.table.remove(key)?;
        Some(found.as_integer().ok_or_else(|| self.wrong(key, &found, "a whole number")))
    }
}

fn unknown_key(unknown: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|key| (strsim::damerau_levenshtein(unknown, key), key))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, key)| *distance <= key.len().div_ceil(2));
    let hint = nearest.map_or(String::new(), |(_, key)| format!("did you mean {key}? "));
    format!("is not known; {hint}allowed are {}", known.join(", "))
}

fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the text {}", quoted(text)),
        Value::Integer(n) => format!("the number {n}"),
        Value::Float(n) => format!("the number {n}"),
        Value::Boolean(b) => b.to_string(),
        Value::Datetime(t) => format!("the time {t}"),
        Value::Array(_) => "a list".into(),
        Value::Table(_) => "a table".into(),
    }
}

/// In quotes, escaped and cut.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        None => format!("{text:?}"),
        Some((at, _)) => format!("{:?}…", &text[..at]),
    }
}
