//! How often what happened: a simulation that never comes to a place has not tested it.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by name.
#[derive(Clone, Debug, Default)]
pub struct Tally(pub BTreeMap<&'static str, u64>);

/// Every row of the claim table, with what follows.
pub const CLAIMS: &[&str] = &[
    "none: run",
    "none: scheduled",
    "none: expired",
    "none: parked",
    "waiting: run",
    "waiting: run alone",
    "waiting: parked",
    "waiting: parked for the lane",
    "waiting: parked already",
    "waiting: not due",
    "waiting: expired",
    "given up by the broker",
    "running here: re-attached or run",
    "running elsewhere: left alone",
    "owner lost: taken over",
    "owner lost: taken over, alone",
    "owner lost: parked",
    "owner lost: cancelled",
    "terminal: duplicate",
    "another message: conflict",
];

/// Every step of the path.
pub const STEPS: &[&str] = &[
    "s0 delivered",
    "s1 decoded",
    "s1 unusable",
    "s2 claim",
    "s3 claimed",
    "s4 entered",
    "s5 settle",
    "s6 settled",
    "s6 fenced",
    "s5 record",
    "s6 recorded",
    "s6 recorded: relayed",
    "s6 not recorded: there is a row",
    "s7 acknowledged",
    "s7 stale",
];

/// Every step at which a host died.
pub const CRASHES: &[&str] = &[
    "s0 crash",
    "s1 crash",
    "s2 crash",
    "s3 crash",
    "s4 crash",
    "s5 crash",
    "s6 crash",
    "s7 crash",
    "s8 crash",
    "s5 record crash",
    "s6 record crash",
];

/// Memory was short.
pub const MEMORY: &[&str] = &["no memory for a guest"];

impl Tally {
    /// Once more.
    pub fn count(&mut self, name: &'static str) {
        *self.0.entry(name).or_default() += 1;
    }

    /// Both.
    pub fn add(&mut self, other: &Tally) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    /// How often.
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Of these, those that happened less often.
    pub fn rarer_than(&self, least: u64, names: &[&'static str]) -> Vec<(&'static str, u64)> {
        names.iter().map(|name| (*name, self.of(name))).filter(|(_, count)| *count < least).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, names) in [("claim table", CLAIMS), ("path", STEPS), ("deaths", CRASHES), ("memory", MEMORY)] {
            writeln!(f, "  {title}")?;
            for name in names {
                writeln!(f, "    {name:<36} {:>8}", self.of(name))?;
            }
        }
        let known = |name: &&&str| {
            CLAIMS.contains(name) || STEPS.contains(name) || CRASHES.contains(name) || MEMORY.contains(name)
        };
        writeln!(f, "  beside it")?;
        for name in self.0.keys().filter(|name| !known(name)) {
            writeln!(f, "    {name:<36} {:>8}", self.of(name))?;
        }
        Ok(())
    }
}
