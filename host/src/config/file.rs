//! A settings file: its keys with their lines, and the tables `[queues.NAME]` and `[plugins."PATTERN"]`.

use super::layers::Raw;
use super::origin::{Origin, Problem, nearest};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Which keys a file may hold.
pub(super) enum Known<'a> {
    /// The default file: what stands there is known by definition.
    Anything,
    /// Settings, dotted.
    Keys(&'a [String]),
}

/// What a file says.
#[derive(Default)]
pub(super) struct Parsed {
    /// Dotted key → value and line.
    pub entries: BTreeMap<String, (Raw, usize)>,
    /// The tables that a name or pattern stands for.
    pub tables: Vec<Table>,
    /// Unknown keys and values of no type that settings have.
    pub problems: Vec<Problem>,
}

/// Which kind of table it is: those that a name or pattern stands for, and those whose keys are names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// `[queues.NAME]`.
    Queues,
    /// `[plugins."PATTERN"]`.
    Plugins,
    /// `[llm.providers.NAME]`.
    LlmProviders,
    /// `[llm.models.NAME]`.
    LlmModels,
    /// `[tools.NAME]`.
    Tools,
    /// `[http.secrets.NAME]`.
    HttpSecrets,
    /// `[config]`, whose keys are the plugins'.
    Config,
    /// `[folders]`, whose keys are names.
    Folders,
}

impl Section {
    /// Tables of a name, by what stands before it.
    const NAMED: [(&'static str, Section); 6] = [
        ("queues.", Section::Queues),
        ("plugins.", Section::Plugins),
        ("llm.providers.", Section::LlmProviders),
        ("llm.models.", Section::LlmModels),
        ("tools.", Section::Tools),
        ("http.secrets.", Section::HttpSecrets),
    ];
    /// Tables that stand alone.
    const PLAIN: [(&'static str, Section); 2] = [("config", Section::Config), ("folders", Section::Folders)];
    /// What only holds tables.
    const PARENTS: [&'static str; 6] = ["queues", "llm", "llm.providers", "llm.models", "tools", "http.secrets"];

    /// Whether the value of a key may be a secret: it is never shown.
    pub fn is_secret(self, key: &str) -> bool {
        match self {
            Section::LlmProviders => matches!(key, "key" | "headers" | "proxy"),
            Section::Tools => matches!(key, "env" | "headers" | "url" | "command" | "proxy"),
            Section::HttpSecrets => key == "value",
            Section::Config => true,
            Section::Queues | Section::Plugins | Section::LlmModels | Section::Folders => false,
        }
    }
}

/// `[queues.NAME]` or `[plugins."PATTERN"]`, its keys still to be read.
#[derive(Debug)]
pub(super) struct Table {
    pub section: Section,
    pub name: String,
    pub origin: Origin,
    /// Dotted key → value and its origin.
    pub values: BTreeMap<String, (TableValue, Origin)>,
}

/// A value in such a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TableValue(pub serde_json::Value);

struct Reader<'a> {
    text: &'a str,
    path: Option<&'a Path>,
    known: &'a Known<'a>,
    parsed: Parsed,
}

/// Read a file. `Err` is a syntax error as `LINE: what`.
pub(super) fn parse(text: &str, path: Option<&Path>, known: &Known<'_>) -> Result<Parsed, String> {
    // The parser's own `Display` quotes the line, and a line may hold a password: its message and place suffice.
    let table = DeTable::parse(text).map_err(|e| {
        let span = e.span().unwrap_or_default();
        // Only where the place is a key is it safe to repeat.
        let key = text.get(span.clone()).filter(|_| e.message() == "duplicate key").unwrap_or_default();
        format!("{}: {} {key}", line_of(text, span.start), e.message()).trim_end().to_owned()
    })?;
    let mut reader = Reader { text, path, known, parsed: Parsed::default() };
    reader.section(table.get_ref(), "");
    Ok(reader.parsed)
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1
}

impl Reader<'_> {
    fn origin(&self, at: usize) -> Origin {
        match self.path {
            Some(path) => Origin::File(path.to_owned(), line_of(self.text, at)),
            None => Origin::Default,
        }
    }

    fn section(&mut self, table: &DeTable<'_>, prefix: &str) {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let at = name.span().start;
            let dotted = name.get_ref().contains('.') && prefix != "plugins.";
            match (value.get_ref(), prefix) {
                (DeValue::Table(inner), "") if let Some(section) = plain(&key) => self.table(section, &key, at, inner),
                (DeValue::Table(inner), prefix)
                    if let Some(section) = named(prefix).filter(|_| !self.is_known(&key)) =>
                {
                    self.table(section, name.get_ref(), at, inner);
                }
                (DeValue::Table(inner), _) if !dotted && self.is_section(&key) => {
                    self.section(inner, &format!("{key}."));
                }
                (other, _) if !dotted && self.is_known(&key) => self.entry(key, other, at),
                (_, _) if !dotted && self.is_section(&key) => {
                    let origin = self.origin(at);
                    self.problem(Problem::invalid(&key, &origin, format_args!("it is a section; write [{key}]")));
                }
                _ => self.unknown(&key, at),
            }
        }
    }

    fn is_known(&self, key: &str) -> bool {
        match self.known {
            Known::Anything => true,
            Known::Keys(keys) => keys.iter().any(|k| k == key),
        }
    }

    fn is_section(&self, key: &str) -> bool {
        match self.known {
            Known::Anything => true,
            Known::Keys(keys) => {
                Section::PARENTS.contains(&key)
                    || keys.iter().any(|k| k.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
            }
        }
    }

    fn entry(&mut self, key: String, value: &DeValue<'_>, at: usize) {
        match raw(value) {
            Some(raw) => {
                self.parsed.entries.insert(key, (raw, line_of(self.text, at)));
            }
            None => {
                let problem = Problem::invalid(&key, &self.origin(at), unsuitable(value));
                self.problem(problem);
            }
        }
    }

    fn unknown(&mut self, key: &str, at: usize) {
        let Known::Keys(keys) = self.known else { return };
        let origin = self.origin(at);
        let sections = keys.iter().filter(|_| !key.contains('.')).filter_map(|k| k.split('.').next());
        let problem = Problem::unknown(key, &origin, keys.iter().map(String::as_str).chain(sections));
        self.problem(problem);
    }

    fn problem(&mut self, problem: Problem) {
        self.parsed.problems.push(problem);
    }

    fn table(&mut self, section: Section, name: &str, at: usize, table: &DeTable<'_>) {
        let mut values = BTreeMap::new();
        self.flatten(table, "", section, &mut values);
        self.parsed.tables.push(Table { section, name: name.to_owned(), origin: self.origin(at), values });
    }

    fn flatten(
        &mut self,
        table: &DeTable<'_>,
        prefix: &str,
        section: Section,
        out: &mut BTreeMap<String, (TableValue, Origin)>,
    ) {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let origin = self.origin(name.span().start);
            // Two levels of tables have keys of ours; what is below (a capability's own table) is its value.
            let descend =
                section == Section::Plugins && prefix.is_empty() && matches!(value.get_ref(), DeValue::Table(_));
            match (value.get_ref(), json(value)) {
                (DeValue::Table(inner), _) if descend => self.flatten(inner, &format!("{key}."), section, out),
                (_, Some(json)) => {
                    out.insert(key, (TableValue(json), origin));
                }
                (other, None) => {
                    self.problem(Problem::invalid(&key, &origin, unsuitable(other)));
                }
            }
        }
    }
}

fn plain(key: &str) -> Option<Section> {
    Section::PLAIN.into_iter().find(|(name, _)| *name == key).map(|(_, section)| section)
}

fn named(prefix: &str) -> Option<Section> {
    Section::NAMED.into_iter().find(|(name, _)| *name == prefix).map(|(_, section)| section)
}

fn unsuitable(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Array(_) => "a list holds texts alone",
        DeValue::Table(_) => "it is no section; it takes a single value",
        DeValue::Datetime(_) => "no setting is a date or time; put text in quotes",
        _ => "the number is out of range",
    }
}

fn raw(value: &DeValue<'_>) -> Option<Raw> {
    Some(match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => Raw::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()?),
        DeValue::Float(number) => Raw::Decimal(number.as_str().parse().ok().filter(|n: &f64| n.is_finite())?),
        DeValue::Boolean(flag) => Raw::Bool(*flag),
        DeValue::Array(items) => {
            Raw::List(items.iter().map(|i| i.get_ref().as_str().map(str::to_owned)).collect::<Option<_>>()?)
        }
        DeValue::Datetime(_) | DeValue::Table(_) => return None,
    })
}

fn json(value: &Spanned<DeValue<'_>>) -> Option<serde_json::Value> {
    use serde_json::Value;
    Some(match value.get_ref() {
        DeValue::Table(table) => Value::Object(
            table.iter().map(|(k, v)| json(v).map(|v| (k.get_ref().to_string(), v))).collect::<Option<_>>()?,
        ),
        DeValue::Array(items) => Value::Array(items.iter().map(json).collect::<Option<_>>()?),
        other => match raw(other)? {
            Raw::Text(text) => Value::String(text),
            Raw::Integer(number) => number.into(),
            Raw::Decimal(number) => number.into(),
            Raw::Bool(flag) => flag.into(),
            Raw::List(_) => return None,
        },
    })
}

impl Table {
    /// Every key that is none of these is a problem with the nearest one.
    pub fn only(&self, known: &[&str]) -> Result<(), Problem> {
        for (key, (_, origin)) in &self.values {
            let fits = |k: &&str| *k == key || k.strip_suffix('*').is_some_and(|head| key.starts_with(head));
            if !known.iter().any(fits) {
                let hint = match nearest(key, known.iter().copied()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("known are {}", known.join(", ")),
                };
                return Err(Problem(format!("{origin}: unknown setting {key} in {}; {hint}", self.title())));
            }
        }
        Ok(())
    }

    /// How it is headed in the file.
    pub fn title(&self) -> String {
        let named = Section::NAMED.iter().find(|(_, section)| *section == self.section);
        match (named, self.section) {
            (_, Section::Plugins) => format!("[plugins.\"{}\"]", self.name),
            (Some((prefix, _)), _) => format!("[{prefix}{}]", self.name),
            (None, _) => format!("[{}]", self.name),
        }
    }

    /// The dotted name of one of its keys.
    pub fn key(&self, key: &str) -> String {
        match Section::NAMED.iter().find(|(_, section)| *section == self.section) {
            Some((prefix, _)) => format!("{prefix}{}.{key}", serde_json::json!(self.name)),
            None => format!("{}.{key}", self.name),
        }
    }

    /// A whole number of that key, if it is set.
    pub fn number(&self, key: &str, allowed: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let Some((TableValue(value), origin)) = self.values.get(key) else { return Ok(None) };
        match value.as_u64().filter(|n| allowed.contains(n)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.invalid(
                key,
                origin,
                format_args!(
                    "{value} is not allowed; it takes a whole number from {} to {}",
                    allowed.start(),
                    allowed.end()
                ),
            )),
        }
    }

    /// What is wrong with one of its keys.
    pub fn invalid(&self, key: &str, origin: &Origin, what: impl std::fmt::Display) -> Problem {
        Problem(format!("{key} in {} ({origin}): {what}", self.title()))
    }
}

/// The folder a file's relative paths start at is its own; kept with the table's origin.
impl Origin {
    /// The file, for an origin that is one.
    pub fn file(&self) -> Option<&PathBuf> {
        match self {
            Origin::File(path, _) => Some(path),
            _ => None,
        }
    }
}
