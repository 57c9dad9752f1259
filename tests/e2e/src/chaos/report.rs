//! What came of a run, for a person, and whether it counts.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::schedule::Fault;
use super::{Bar, Plan};

/// How often each fault happened, and how often it hit work in flight: only that counts.
#[derive(Clone, Debug, Default)]
pub struct Struck(BTreeMap<Fault, (usize, usize)>);

impl Struck {
    /// Enters one that happened while so many tasks ran.
    pub fn enter(&mut self, fault: Fault, running: i64) {
        let (all, hit) = self.0.entry(fault).or_default();
        *all += 1;
        *hit += usize::from(running > 0);
    }

    /// All that happened.
    pub fn total(&self) -> usize {
        self.0.values().map(|(all, _)| all).sum()
    }

    /// How many hit, of the fault that hit least.
    pub fn least(&self) -> usize {
        Fault::ALL.iter().map(|fault| self.of(*fault).1).min().unwrap_or_default()
    }

    fn of(&self, fault: Fault) -> (usize, usize) {
        self.0.get(&fault).copied().unwrap_or_default()
    }
}

/// What was found at the end.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Tasks that were promised.
    pub promised: usize,
    /// Tasks that were seen to have ended while faults were at work, and looked at again in the end.
    pub watched: usize,
    /// Publishes that were repeated, not having been confirmed.
    pub published_again: usize,
    /// Promised, and without a terminal row.
    pub lost: usize,
    /// With more than one terminal event.
    pub doubled: usize,
    /// Claims.
    pub runs: usize,
    /// Beginnings of guests, by the ledger.
    pub began: usize,
    /// Claims beyond those that a failed attempt or a first run explains.
    pub extra_runs: usize,
    /// Claims of what another host was running.
    pub take_overs: usize,
    /// What had been done to the host that it was taken from: how often.
    pub taken_from: BTreeMap<String, usize>,
    /// Runs that a shutdown interrupted.
    pub interrupted: usize,
    /// Results that were dropped, since another host had taken the task over.
    pub fenced: usize,
    /// Everything that must not be.
    pub violations: Vec<String>,
}

/// A run's summary.
#[derive(Clone, Debug)]
pub struct Report {
    plan: Plan,
    took: Duration,
    struck: Struck,
    found: Found,
}

impl Report {
    pub(super) fn new(plan: Plan, took: Duration, struck: Struck, found: Found) -> Self {
        Self { plan, took, struck, found }
    }

    /// What must not be, and is.
    pub fn violations(&self) -> &[String] {
        &self.found.violations
    }

    /// Why it does not count; nothing if it does.
    pub fn short_of(&self) -> Vec<String> {
        let Bar { tasks, each } = self.plan.bar;
        let mut short = Vec::new();
        if self.found.promised < tasks {
            short.push(format!("{} tasks, and {tasks} are needed", self.found.promised));
        }
        if self.found.watched == 0 {
            short.push("no end was looked at twice".to_owned());
        }
        for fault in Fault::ALL {
            let (_, hit) = self.struck.of(fault);
            if hit < each {
                short.push(format!("{}: {hit} hit work in flight, and {each} are needed", fault.name()));
            }
        }
        short
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { promised, published_again, runs, extra_runs, take_overs, interrupted, fenced, .. } = self.found;
        let Found { lost, doubled, began, watched, .. } = self.found;
        writeln!(f, "chaos: seed {}, {:.0} s", self.plan.seed, self.took.as_secs_f64())?;
        writeln!(f, "  {promised} tasks promised, {published_again} published again for want of a confirmation")?;
        for fault in Fault::ALL {
            let (all, hit) = self.struck.of(fault);
            writeln!(f, "  {:<34} {all:>3}, {hit:>3} hit work in flight", fault.name())?;
        }
        writeln!(
            f,
            "  {runs} claims, of which {began} began in a guest; {extra_runs} extra: {take_overs} taken over, {interrupted} interrupted; {fenced} fenced"
        )?;
        writeln!(f, "  {watched} ends were seen on the way, and looked at again")?;
        for (whom, times) in &self.found.taken_from {
            writeln!(f, "    {times} taken over from a host that had been: {whom}")?;
        }
        for violation in &self.found.violations {
            writeln!(f, "  VIOLATION {violation}")?;
        }
        writeln!(f, "{lost} lost, {doubled} doubled outcomes")?;
        match self.short_of().as_slice() {
            [] => write!(f, "counts"),
            short => write!(f, "does not count: {}", short.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(promised: usize, hits: usize) -> Report {
        let mut struck = Struck::default();
        for fault in Fault::ALL {
            (0..hits).for_each(|_| struck.enter(fault, 3));
        }
        let plan = Plan { length: Duration::ZERO, seed: 1, rate: 1, bar: Bar { tasks: 10, each: 2 } };
        Report::new(plan, Duration::ZERO, struck, Found { promised, watched: 1, ..Found::default() })
    }

    #[test]
    fn a_run_counts_only_with_its_tasks_and_every_fault_in_flight() {
        assert_eq!(report(10, 2).short_of(), Vec::<String>::new());
        assert_eq!(report(9, 2).short_of(), ["9 tasks, and 10 are needed"]);
        assert_eq!(report(10, 1).short_of().len(), Fault::ALL.len());
        let mut unwatched = report(10, 2);
        unwatched.found.watched = 0;
        assert_eq!(unwatched.short_of(), ["no end was looked at twice"]);
        let mut missed = report(10, 2);
        missed.struck.0.insert(Fault::Pause, (9, 1));
        assert_eq!(missed.short_of().len(), 1, "what hits nothing does not count: {missed}");
    }
}
