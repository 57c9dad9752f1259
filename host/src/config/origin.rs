//! Where a setting came from, and what can be wrong with it.

use std::fmt::{self, Write};
use std::path::PathBuf;

/// Where a setting's value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `config.default.toml`.
    Default,
    /// A file and the line in it.
    File(PathBuf, usize),
    /// A variable of the environment.
    Env(String),
    /// A flag of the command.
    Flag(&'static str),
}

impl Origin {
    /// A later layer wins.
    pub(super) fn layer(&self) -> u8 {
        match self {
            Origin::Default => 0,
            Origin::File(..) => 1,
            Origin::Env(_) => 2,
            Origin::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Env(name) => write!(f, "env {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// What is wrong with the settings, in one line that names the setting, where it stands and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(pub(super) String);

impl Problem {
    /// A value that is not allowed.
    pub(super) fn invalid(key: &str, origin: &Origin, what: impl fmt::Display) -> Problem {
        Problem(format!("{key} ({origin}): {what}"))
    }

    /// A name that nothing is called by.
    pub(super) fn unknown<'a>(
        name: &str,
        place: &dyn fmt::Display,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Problem {
        let hint = match nearest(name, known) {
            Some(near) => format!("; did you mean {near}?"),
            None => "; `agentry config show` lists every setting".into(),
        };
        Problem(format!("{place}: unknown setting {name}{hint}"))
    }
}

impl fmt::Display for Problem {
    /// On one line whatever a key or a variable is called: `"a\nb" = 1` is TOML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c.is_control() {
                true => write!(f, "{}", c.escape_unicode())?,
                false => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Why there are no settings: at least one problem. All unknown names are reported together, then the first bad value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub(super) Vec<Problem>);

impl ConfigError {
    /// The problems, one line each.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        ConfigError(vec![problem])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The known name most like this one, if one is like it at all.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| {
            let whole = strsim::normalized_damerau_levenshtein(name, k);
            // `slots` for `worker.slots`: the last part alone is a common slip.
            let tail = k.rsplit('.').next().unwrap_or(k);
            let last = name.rsplit('.').next().unwrap_or(name);
            let same_start = if last.len() > 2 && tail.starts_with(last) { 0.3 } else { 0.0 };
            (whole.max(strsim::normalized_damerau_levenshtein(last, tail) * 0.95) + same_start, k)
        })
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, k)| k)
}
