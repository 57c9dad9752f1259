//! One attack: what is installed, what is asked of it, and what must become of it.

use serde_json::{Value, json};

use crate::guest::Guest;
use crate::stage::Seen;

/// What is installed.
#[derive(Clone, Debug)]
pub enum Component {
    /// Component text.
    Text(String),
    /// A file as it is.
    Bytes(Vec<u8>),
    /// A guest that was built, by its name.
    Built(&'static str),
}

impl From<Guest> for Component {
    fn from(guest: Guest) -> Self {
        Self::Text(guest.text())
    }
}

impl From<String> for Component {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// How the task must end.
#[derive(Clone, Debug)]
pub enum Expect {
    /// Completed: what was tried is survived, or refused so that the guest heard of it.
    Completes,
    /// Failed.
    Fails {
        /// `failure.kind`.
        kind: &'static str,
        /// `failure.detail.limit`, with more used than allowed.
        limit: Option<&'static str>,
        /// What stands somewhere in the failure.
        says: &'static [&'static str],
    },
}

/// A further look at what became of it; each text is a violation.
pub type Check = fn(&Case, &Seen) -> Vec<String>;

/// One attack on a plugin that loads.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, which is the plugin's too.
    pub id: &'static str,
    /// What is installed.
    pub component: Component,
    /// Limits in `plugin.toml` that differ from [`crate::install::LIMITS`].
    pub limits: Vec<(&'static str, u64)>,
    /// What makes it attack.
    pub input: Value,
    /// What it answers with itself afterwards; `None`: this guest cannot be honest, and another is asked.
    pub honest: Option<Value>,
    /// How the attack must end.
    pub expect: Expect,
    /// What else must be true.
    pub checks: Vec<Check>,
    /// Names of `agentry_defence::Defence` without which this case must turn red.
    pub shows: &'static [&'static str],
}

impl Case {
    /// A hand-written guest, which attacks when its input is a text and echoes anything else.
    pub fn new(id: &'static str, component: impl Into<Component>) -> Self {
        Self {
            id,
            component: component.into(),
            limits: Vec::new(),
            input: json!("attack"),
            honest: Some(json!(1)),
            expect: Expect::Completes,
            checks: Vec::new(),
            shows: &[],
        }
    }

    /// The guest `probe`, which does what its input says.
    pub fn probe(id: &'static str, input: Value) -> Self {
        let honest = Some(json!({"do": "echo", "value": 1}));
        Self { input, honest, ..Self::new(id, Component::Built("probe")) }
    }

    /// With another limit.
    #[must_use]
    pub fn limit(mut self, name: &'static str, value: u64) -> Self {
        self.limits.push((name, value));
        self
    }

    /// It must fail with this kind.
    #[must_use]
    pub fn fails(mut self, kind: &'static str) -> Self {
        self.expect = Expect::Fails { kind, limit: None, says: &[] };
        self
    }

    /// It must fail with this kind, for this limit.
    #[must_use]
    pub fn over(mut self, kind: &'static str, limit: &'static str) -> Self {
        self.expect = Expect::Fails { kind, limit: Some(limit), says: &[] };
        self
    }

    /// Its failure must hold these words.
    #[must_use]
    pub fn saying(mut self, words: &'static [&'static str]) -> Self {
        match &mut self.expect {
            Expect::Fails { says, .. } => *says = words,
            Expect::Completes => panic!("{}: what completes says nothing", self.id),
        }
        self
    }

    /// It attacks whatever it is asked.
    #[must_use]
    pub fn never_honest(mut self) -> Self {
        self.honest = None;
        self
    }

    /// What else must be true.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Which defences it shows.
    #[must_use]
    pub fn shows(mut self, defences: &'static [&'static str]) -> Self {
        self.shows = defences;
        self
    }
}
