//! What a world is like: which faults it knows, and how often they come.

use super::chance::Chance;
use super::fault::Fault;
use super::guests::GROWN;
use crate::worker::WindowConfig;
use std::time::Duration;

/// What is taken out of the code, to see that its absence is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Without {
    /// Nothing.
    #[default]
    Nothing,
    /// A settlement is recorded whatever its fence.
    Fence,
    /// A redelivery of what runs here is run again.
    Reattach,
    /// A delivery is acknowledged before its claim is committed.
    CommitBeforeAck,
}

/// A world's settings.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// Hosts.
    pub hosts: usize,
    /// Slots of each.
    pub slots: u32,
    /// Memory of each for all its guests, in bytes.
    pub memory: u64,
    /// How long a first attempt without effects may run before it is claimed.
    pub claim_after: Duration,
    /// How many deliveries a host has in hand.
    pub window: WindowConfig,
    /// Milliseconds between publications, on average.
    pub every: u64,
    /// Tasks that may be open at once.
    pub open: usize,
    /// Percent of calls that take long.
    pub slow: f64,
    /// Percent of calls that are refused.
    pub refused: f64,
    /// Percent of calls that happen and whose answer is lost.
    pub lost: f64,
    /// Percent of the steps S0…S7 at which the host dies.
    pub crash: f64,
    /// Percent of settlements before which the host stands still for longer than its lease.
    pub stall: f64,
    /// Percent of messages that are handed over out of their order.
    pub reorder: f64,
    /// Percent of messages that are published twice.
    pub twice: f64,
    /// Milliseconds between the nemesis's faults, on average.
    pub pause: u64,
    /// What the nemesis does.
    pub faults: Vec<Fault>,
    /// See [`Without`].
    pub without: Without,
}

impl Swarm {
    /// Drawn: every world is another.
    pub fn draw(chance: &Chance) -> Swarm {
        let sometimes = |chance: &Chance, most: f64| if chance.percent(60.0) { chance.fraction() * most } else { 0.0 };
        let mut faults: Vec<Fault> = Fault::ALL.iter().filter(|_| chance.percent(60.0)).copied().collect();
        if faults.is_empty() {
            faults = Fault::ALL.to_vec();
        }
        Swarm {
            hosts: *chance.one(&[1, 2, 3, 3, 4]),
            slots: *chance.one(&[1, 2, 4, 8]),
            claim_after: Duration::from_millis(*chance.one(&[0, 25, 200, 2_000])),
            window: WindowConfig { least: 4, step: *chance.one(&[1, 2, 100]), ahead: 3 },
            every: *chance.one(&[20, 50, 100]),
            open: *chance.one(&[10, 30, 60]),
            slow: sometimes(chance, 4.0),
            refused: sometimes(chance, 4.0),
            lost: sometimes(chance, 4.0),
            crash: sometimes(chance, 4.0),
            stall: sometimes(chance, 10.0),
            reorder: sometimes(chance, 40.0),
            twice: sometimes(chance, 20.0),
            pause: *chance.one(&[500, 1_500, 4_000]),
            faults,
            memory: *chance.one(&[GROWN, 2 * GROWN, 8 * GROWN, 8 * GROWN]),
            without: Without::Nothing,
        }
    }
}
