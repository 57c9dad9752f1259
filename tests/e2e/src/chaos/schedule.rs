//! Which faults, on whom, when: all of it from one number.

use std::time::Duration;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9` of a daemon, and its restart.
    Kill,
    /// A daemon is stopped past its lease, and goes on.
    Pause,
    /// `kill -9` of the broker, and its restart.
    BrokerKilled,
    /// The broker closes every connection.
    ConnectionsClosed,
    /// The database is restarted, fast.
    DatabaseRestarted,
    /// The database is restarted as after a crash.
    DatabaseCrashed,
    /// Every connection's backend is terminated.
    BackendsTerminated,
    /// A daemon's way to the broker is cut.
    BrokerCut,
    /// A daemon's way to the database is cut.
    DatabaseCut,
    /// A daemon's way to the broker falls silent: half-open.
    BrokerSilent,
    /// A daemon's way to the database falls silent.
    DatabaseSilent,
}

impl Fault {
    /// All there are.
    pub const ALL: [Self; 11] = [
        Self::Kill,
        Self::Pause,
        Self::BrokerKilled,
        Self::ConnectionsClosed,
        Self::DatabaseRestarted,
        Self::DatabaseCrashed,
        Self::BackendsTerminated,
        Self::BrokerCut,
        Self::DatabaseCut,
        Self::BrokerSilent,
        Self::DatabaseSilent,
    ];

    /// As a person reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "daemon killed",
            Self::Pause => "daemon paused past its lease",
            Self::BrokerKilled => "broker killed and restarted",
            Self::ConnectionsClosed => "connections closed by the broker",
            Self::DatabaseRestarted => "database restarted",
            Self::DatabaseCrashed => "database stopped immediately",
            Self::BackendsTerminated => "backends terminated",
            Self::BrokerCut => "way to the broker cut",
            Self::DatabaseCut => "way to the database cut",
            Self::BrokerSilent => "way to the broker silent",
            Self::DatabaseSilent => "way to the database silent",
        }
    }
}

/// One fault of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub fault: Fault,
    /// To which daemon, where it is one.
    pub victim: usize,
    /// How long after the one before.
    pub pause: Duration,
    /// How long it lasts, beyond what it takes.
    pub length: Duration,
}

/// Rounds without end; each round has every fault once, in an order of its own.
pub fn steps(seed: u64) -> impl Iterator<Item = Step> {
    let mut chance = Chance(seed);
    std::iter::repeat_with(move || {
        let mut round = Fault::ALL;
        for at in (1..round.len()).rev() {
            round.swap(at, chance.below(at + 1));
        }
        round.map(|fault| Step {
            fault,
            victim: chance.below(3),
            pause: Duration::from_millis(200 + chance.below(1_000) as u64),
            length: Duration::from_millis(200 + chance.below(1_800) as u64),
        })
    })
    .flatten()
}

/// Splitmix64: small, and the same everywhere.
pub struct Chance(pub u64);

impl Chance {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_schedule_and_another_does_not() {
        let first = |seed| steps(seed).take(40).collect::<Vec<_>>();
        assert_eq!(first(7), first(7));
        assert_ne!(first(7), first(8));
    }

    #[test]
    fn every_round_has_every_fault_once() {
        let all: Vec<_> = steps(3).take(5 * Fault::ALL.len()).collect();
        for round in all.chunks(Fault::ALL.len()) {
            let mut faults: Vec<_> = round.iter().map(|step| step.fault).collect();
            faults.sort();
            assert_eq!(faults, Fault::ALL);
        }
    }
}
