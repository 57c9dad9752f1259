//! `${NAME}` and `${file:PATH}` in a secret: what stands in the settings file is where it is, and not what it is.

use agentry_outbound::Secret;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// The variables of the environment. Never shown.
#[derive(Clone, Default)]
pub(super) struct Variables {
    all: BTreeMap<String, String>,
    used: RefCell<References>,
}

/// What settings refer to: names and paths, without their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Variables of the environment.
    pub variables: BTreeSet<String>,
    /// Files that hold a secret.
    pub files: BTreeSet<PathBuf>,
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variables({})", self.all.len())
    }
}

impl Variables {
    /// Those that are text.
    pub fn new(environment: &[(OsString, OsString)]) -> Variables {
        let text = |(name, value): &(OsString, OsString)| Some((name.to_str()?.to_owned(), value.to_str()?.to_owned()));
        Variables { all: environment.iter().filter_map(text).collect(), used: RefCell::default() }
    }

    /// What [`Variables::expand`] has put in so far.
    pub fn used(&self) -> References {
        self.used.borrow().clone()
    }

    /// The value of a variable.
    pub fn value_of(&self, name: &str) -> Option<&str> {
        self.all.get(name).map(String::as_str)
    }

    /// A text with every reference put in. Relative paths start at `base`. `$$` is a dollar sign. The error repeats names alone.
    pub fn expand(&self, text: &str, base: &Path) -> Result<Secret, String> {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, reference) = rest.split_at(at);
            expanded.push_str(before);
            if let Some(after) = reference.strip_prefix("$$") {
                expanded.push('$');
                rest = after;
            } else if let Some(inner) = reference.strip_prefix("${") {
                let Some((name, after)) = inner.split_once('}') else {
                    return Err("it has a ${ without its }; a dollar sign is written $$".into());
                };
                expanded.push_str(&self.value(name, base)?);
                rest = after;
            } else {
                return Err("it has a $ that begins no ${NAME}; a dollar sign is written $$".into());
            }
        }
        expanded.push_str(rest);
        if expanded.is_empty() {
            return Err("it is empty".into());
        }
        Ok(Secret::new(expanded))
    }

    fn value(&self, name: &str, base: &Path) -> Result<String, String> {
        if let Some(path) = name.strip_prefix("file:") {
            let path = base.join(path);
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
            self.used.borrow_mut().files.insert(path);
            return Ok(text.trim_start_matches('\u{feff}').trim_end_matches(['\n', '\r']).to_owned());
        }
        let of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(of_a_name) {
            return Err("what stands in ${…} is the name of a variable, or file:PATH".into());
        }
        match self.all.get(name) {
            Some(value) if !value.is_empty() => {
                self.used.borrow_mut().variables.insert(name.to_owned());
                Ok(value.clone())
            }
            Some(_) => Err(format!("the variable {name} is empty; set it for this process")),
            None => Err(format!("the variable {name} is not set; set it for this process")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        Variables::new(&[("TOKEN".into(), "hunter2".into()), ("EMPTY".into(), "".into())])
    }

    #[test]
    fn references_are_put_in_and_nothing_is_shown() {
        let base = Path::new("/");
        assert_eq!(variables().expand("Bearer ${TOKEN}$$", base).unwrap().expose(), "Bearer hunter2$");
        assert_eq!(variables().expand("plain", base).unwrap().expose(), "plain");
        assert!(!format!("{:?}", variables()).contains("hunter2"));
    }

    #[test]
    fn a_file_is_read_without_its_last_newline_from_where_the_settings_are() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "hunter2\n").unwrap();
        assert_eq!(variables().expand("${file:key}", folder.path()).unwrap().expose(), "hunter2");
    }

    #[test]
    fn what_is_not_there_is_named_and_the_rest_not_repeated() {
        for (text, named) in [
            ("hunter3${MISSING}", "MISSING is not set"),
            ("hunter3${EMPTY}", "EMPTY is empty"),
            ("hunter3${TOKEN", "without its }"),
            ("hunter3$TOKEN", "a dollar sign is written $$"),
            ("hunter3${a b}", "the name of a variable"),
            ("${file:hunter3-no}", "cannot be read"),
            ("", "empty"),
        ] {
            let error = variables().expand(text, Path::new("/nowhere")).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
            assert!(
                !error.contains("hunter2") && (text.starts_with("${file") || !error.contains("hunter3")),
                "{error}"
            );
        }
    }
}
