//! The plugin that a task names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// `name` or `name@requirement`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PluginRef {
    /// The plugin's name: `^[a-z][a-z0-9-]{0,62}$`.
    pub name: Arc<str>,
    /// Which versions will do; `*`: any release, the newest first.
    pub requirement: semver::VersionReq,
}

impl PluginRef {
    /// Whether text is a plugin's name.
    pub fn is_name(text: &str) -> bool {
        let bytes = text.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes[0].is_ascii_lowercase()
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    }
}

impl FromStr for PluginRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, requirement) = match text.split_once('@') {
            Some((name, requirement)) => (name, Some(requirement)),
            None => (text, None),
        };
        if !PluginRef::is_name(name) {
            return Err(format!(
                "{name:?} is not a plugin name: a lower-case letter, then at most 62 lower-case letters, digits or hyphens"
            ));
        }
        let requirement = match requirement {
            None => semver::VersionReq::STAR,
            Some(text) => semver::VersionReq::parse(text)
                .map_err(|e| format!("{text:?} is not a semver requirement such as 1.2 or =0.1.0: {e}"))?,
        };
        Ok(PluginRef { name: name.into(), requirement })
    }
}

impl fmt::Display for PluginRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirement == semver::VersionReq::STAR {
            f.write_str(&self.name)
        } else {
            write!(f, "{}@{}", self.name, self.requirement)
        }
    }
}
