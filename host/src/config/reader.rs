//! Typed reading of merged settings: every value is checked once, here, and remembered as it will be shown.

use super::layers::{Entry, Layers, Raw};
use super::origin::{Origin, Problem};
use super::secret::SecretUrl;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One setting as it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// Its dotted name.
    pub key: String,
    /// Its value, secrets left out; `null`: unset.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
    /// What explains the value, such as `auto`.
    pub note: Option<&'static str>,
}

impl Effective {
    /// The value on one line.
    pub fn text(&self) -> String {
        let text = match &self.value {
            Value::Null => "-".into(),
            Value::String(text) => text.clone(),
            Value::Array(items) => items
                .iter()
                .map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned))
                .collect::<Vec<_>>()
                .join(", "),
            other => other.to_string(),
        };
        match self.note {
            Some(note) => format!("{text} ({note})"),
            None => text,
        }
    }
}

/// Reads settings out of the layers.
pub(super) struct Reader {
    entries: BTreeMap<String, Entry>,
    pub shown: Vec<Effective>,
    /// Files that a secret was read from.
    pub files: BTreeSet<PathBuf>,
}

impl Reader {
    pub fn new(layers: &mut Layers) -> Reader {
        Reader { entries: std::mem::take(&mut layers.entries), shown: Vec::new(), files: BTreeSet::new() }
    }

    /// Settings that nobody has read: a default without a meaning.
    pub fn unread(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    fn take(&mut self, key: &str) -> Result<Entry, Problem> {
        self.entries.remove(key).ok_or_else(|| Problem(format!("{key}: config.default.toml, built in, lacks it")))
    }

    fn show(&mut self, key: &str, value: Value, origin: &Origin) {
        self.shown.push(Effective { key: key.to_owned(), value, origin: origin.clone(), note: None });
    }

    /// The origin of a setting that was read.
    pub fn origin(&self, key: &str) -> Origin {
        self.shown.iter().find(|s| s.key == key).map_or(Origin::Default, |s| s.origin.clone())
    }

    /// Text; `None`: unset.
    pub fn text(&mut self, key: &str) -> Result<Option<String>, Problem> {
        let entry = self.take(key)?;
        let text = match entry.raw {
            Raw::Text(text) if text.trim().is_empty() => None,
            Raw::Text(text) => Some(text),
            other => return Err(wrong(key, &entry.origin, &other, "text")),
        };
        self.show(key, json!(text), &entry.origin);
        Ok(text)
    }

    /// Text that must be there.
    pub fn word(&mut self, key: &str, allowed: &str, fits: impl Fn(&str) -> bool) -> Result<String, Problem> {
        let text = self.text(key)?.unwrap_or_default();
        if fits(&text) {
            return Ok(text);
        }
        Err(Problem::invalid(key, &self.origin(key), format_args!("{text:?} is not allowed; it takes {allowed}")))
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Result<T, Problem> {
        let text = self.text(key)?.unwrap_or_default();
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, choice)) => Ok(*choice),
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                let what = format!("{text:?} is not allowed; it takes one of {}", words.join(", "));
                Err(Problem::invalid(key, &self.origin(key), what))
            }
        }
    }

    /// A path, absolute.
    pub fn path(&mut self, key: &str) -> Result<Option<PathBuf>, Problem> {
        let entry = self.take(key)?;
        let path = match &entry.raw {
            Raw::Text(text) if text.trim().is_empty() => None,
            Raw::Text(text) => Some(absolute(&entry.base, text)),
            other => return Err(wrong(key, &entry.origin, other, "a path")),
        };
        let shown = path.as_deref().map(|path| as_text(key, &entry, path)).transpose()?;
        self.show(key, json!(shown), &entry.origin);
        Ok(path)
    }

    /// Texts, at least one.
    pub fn list(&mut self, key: &str) -> Result<Vec<String>, Problem> {
        let (items, entry) = self.items(key)?;
        self.show(key, json!(items), &entry.origin);
        Ok(items)
    }

    /// Texts, or none.
    pub fn list_or_none(&mut self, key: &str) -> Result<Vec<String>, Problem> {
        let unset = self.entries.get(key).is_some_and(|entry| match &entry.raw {
            Raw::List(items) => items.is_empty(),
            Raw::Text(text) => text.trim().is_empty(),
            _ => false,
        });
        if unset {
            let entry = self.take(key)?;
            self.show(key, json!([]), &entry.origin);
            return Ok(Vec::new());
        }
        self.list(key)
    }

    /// Paths, absolute, at least one.
    pub fn paths(&mut self, key: &str) -> Result<Vec<PathBuf>, Problem> {
        let (items, entry) = self.items(key)?;
        let paths: Vec<PathBuf> = items.iter().map(|item| absolute(&entry.base, item)).collect();
        let shown = paths.iter().map(|path| as_text(key, &entry, path)).collect::<Result<Vec<_>, _>>()?;
        self.show(key, json!(shown), &entry.origin);
        Ok(paths)
    }

    fn items(&mut self, key: &str) -> Result<(Vec<String>, Entry), Problem> {
        let entry = self.take(key)?;
        let parts = match &entry.raw {
            // In a file a list is a list: one text in its place is one item, commas and all.
            Raw::Text(text) if matches!(entry.origin, Origin::File(..)) => vec![text.clone()],
            Raw::Text(text) => text.split(',').map(str::to_owned).collect(),
            Raw::List(items) => items.clone(),
            other => return Err(wrong(key, &entry.origin, other, "a list")),
        };
        let mut items: Vec<String> = Vec::new();
        for part in parts.iter().map(|p| p.trim()).filter(|p| !p.is_empty()) {
            if items.iter().any(|i| i == part) {
                return Err(Problem::invalid(key, &entry.origin, format_args!("{part:?} stands there twice")));
            }
            items.push(part.to_owned());
        }
        if items.is_empty() {
            return Err(Problem::invalid(key, &entry.origin, "the list is empty; it needs at least one entry"));
        }
        Ok((items, entry))
    }

    pub fn flag(&mut self, key: &str) -> Result<bool, Problem> {
        let entry = self.take(key)?;
        let flag = match &entry.raw {
            Raw::Bool(flag) => *flag,
            Raw::Text(text) if text.trim() == "true" => true,
            Raw::Text(text) if text.trim() == "false" => false,
            other => return Err(wrong(key, &entry.origin, other, "true or false")),
        };
        self.show(key, json!(flag), &entry.origin);
        Ok(flag)
    }

    /// A whole number.
    pub fn number<T>(&mut self, key: &str, allowed: RangeInclusive<T>) -> Result<T, Problem>
    where
        T: Copy + PartialOrd + fmt::Display + TryFrom<i64> + serde::Serialize,
    {
        let entry = self.take(key)?;
        let number = whole(&entry.raw).and_then(|n| T::try_from(n).ok()).filter(|n| allowed.contains(n));
        let Some(number) = number else {
            let takes = format!("a whole number from {} to {}", allowed.start(), allowed.end());
            return Err(wrong(key, &entry.origin, &entry.raw, &takes));
        };
        self.show(key, json!(number), &entry.origin);
        Ok(number)
    }

    /// A whole number, or `auto` for `automatic`.
    pub fn number_or_auto<T>(&mut self, key: &str, allowed: RangeInclusive<T>, automatic: T) -> Result<T, Problem>
    where
        T: Copy + PartialOrd + fmt::Display + TryFrom<i64> + serde::Serialize,
    {
        if let Some(Entry { raw: Raw::Text(text), origin, .. }) = self.entries.get(key)
            && text.trim() == "auto"
        {
            let origin = origin.clone();
            self.entries.remove(key);
            self.shown.push(Effective { key: key.into(), value: json!(automatic), origin, note: Some("auto") });
            return Ok(automatic);
        }
        self.number(key, allowed)
    }

    /// A number with or without a fraction.
    pub fn decimal(&mut self, key: &str, allowed: RangeInclusive<f64>) -> Result<f64, Problem> {
        let entry = self.take(key)?;
        let number = match &entry.raw {
            Raw::Decimal(number) => Some(*number),
            Raw::Text(text) => text.trim().parse().ok(),
            // Whole numbers of settings are far below 2^53.
            other => whole(other).map(|n| n as f64),
        };
        let Some(number) = number.filter(|n| allowed.contains(n)) else {
            let takes = format!("a number from {} to {}", allowed.start(), allowed.end());
            return Err(wrong(key, &entry.origin, &entry.raw, &takes));
        };
        let shown = if number.fract() == 0.0 { json!(number as i64) } else { json!(number) };
        self.show(key, shown, &entry.origin);
        Ok(number)
    }

    /// A duration in whole seconds.
    pub fn seconds(&mut self, key: &str, allowed: RangeInclusive<u64>) -> Result<Duration, Problem> {
        self.number(key, allowed).map(Duration::from_secs)
    }

    /// A duration in whole days.
    pub fn days(&mut self, key: &str, allowed: RangeInclusive<u64>) -> Result<Duration, Problem> {
        self.number(key, allowed).map(|days| Duration::from_secs(days * 86_400))
    }

    /// An address to listen on.
    pub fn address(&mut self, key: &str) -> Result<SocketAddr, Problem> {
        let text = self.text(key)?.unwrap_or_default();
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.clone(),
        };
        numeric.parse().map_err(|_| {
            let what = format!("{text:?} is not an address and port such as 127.0.0.1:7070 or [::]:7070");
            Problem::invalid(key, &self.origin(key), what)
        })
    }

    /// An address with a password, given as `KEY` or as the file `KEY_file`. The higher layer wins; both in one layer is
    /// an error.
    pub fn secret(&mut self, key: &str, schemes: &[&str], example: &str) -> Result<Option<SecretUrl>, Problem> {
        let direct = self.take(key)?;
        let file_key = format!("{key}_file");
        if let Some(Entry { raw: Raw::Text(text), origin, .. }) = self.entries.get(&file_key)
            && text.contains(":/")
        {
            // The address itself, password and all, where its file is to be named.
            let what = format!("it holds an address; it takes the path of a file that holds one, and {key} an address");
            return Err(Problem::invalid(&file_key, origin, what));
        }
        let file = self.path(&file_key)?;
        let file_origin = self.origin(&file_key);
        let text = match &direct.raw {
            Raw::Text(text) => Some(text.trim().to_owned()).filter(|t| !t.is_empty()),
            // The value may be a secret typed wrongly: it is not repeated.
            _ => return Err(Problem::invalid(key, &direct.origin, format_args!("it takes text such as {example}"))),
        };
        let (text, origin) = match (text, file) {
            (None, None) => {
                self.show(key, Value::Null, &direct.origin);
                return Ok(None);
            }
            (Some(_), Some(_)) if direct.origin.layer() == file_origin.layer() => {
                let what = format!("it and {file_key} ({file_origin}) are both set; set one");
                return Err(Problem::invalid(key, &direct.origin, what));
            }
            (Some(text), file) if file.is_none() || direct.origin.layer() > file_origin.layer() => {
                (text, direct.origin.clone())
            }
            (_, Some(path)) => {
                let text = std::fs::read_to_string(&path).map_err(|e| {
                    Problem::invalid(&file_key, &file_origin, format_args!("{} cannot be read: {e}", path.display()))
                })?;
                self.files.insert(path);
                // Editors put a mark before it, and shells quotes around it.
                let text = super::environment::bare(text.trim_start_matches('\u{feff}')).to_owned();
                (text, file_origin)
            }
            (Some(text), None) => (text, direct.origin.clone()),
        };
        // A proxy is often named without its scheme, as other programs take it.
        let text = if schemes.contains(&"http") && !text.contains("://") { format!("http://{text}") } else { text };
        let url = SecretUrl::parse(&text, schemes)
            .map_err(|e| Problem::invalid(key, &origin, format_args!("{e}; it takes {example}")))?;
        self.show(key, json!(url), &origin);
        Ok(Some(url))
    }
}

/// A path as it is shown and recorded. Rows, other processes and SQLite take text.
fn as_text(key: &str, entry: &Entry, path: &Path) -> Result<String, Problem> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        let place = if entry.base.to_str().is_none() {
            format!(
                "; relative paths start at {}: write an absolute one, or start from another folder",
                entry.base.display()
            )
        } else {
            "; rename the folder".to_owned()
        };
        Problem::invalid(key, &entry.origin, format_args!("{} is not UTF-8{place}", path.display()))
    })
}

fn whole(raw: &Raw) -> Option<i64> {
    match raw {
        Raw::Integer(number) => Some(*number),
        Raw::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn wrong(key: &str, origin: &Origin, raw: &Raw, takes: &str) -> Problem {
    let found = match raw {
        Raw::Text(text) => format!("{text:?}"),
        Raw::Integer(number) => number.to_string(),
        Raw::Decimal(number) => number.to_string(),
        Raw::Bool(flag) => flag.to_string(),
        Raw::List(items) => format!("{items:?}"),
    };
    Problem::invalid(key, origin, format_args!("{found} is not allowed; it takes {takes}"))
}

/// Relative paths start at `base`; `.` and `..` are resolved by name, so that what is shown is short.
pub(super) fn absolute(base: &Path, text: &str) -> PathBuf {
    use std::path::Component;
    let mut path = PathBuf::new();
    for part in base.join(text.trim()).components() {
        match part {
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path
}
