//! The worker under simulated faults: the real worker, keeper and duties of several hosts over a database and a broker in
//! memory, on one thread, with a clock that only moves when everybody waits. One seed decides everything that happens, so
//! a world that fails is replayed by its number.
//!
//! ```text
//! chance ── one stream of numbers
//!   ├─▶ wires    between each host and its database and broker: late, lost, refused, answered and not heard, done later
//!   ├─▶ guests   what plugins do: end, fail, snooze, take long, kill their host
//!   ├─▶ load     what producers and operators do: publish, twice, in conflict, unusable, submit, cancel
//!   └─▶ nemesis  what happens to hosts, broker, database: kills, pauses, restarts, cuts, half-open connections
//! play: a world from its seed to its verdict: the invariants, over the tables, the queues and the ledger of what guests did
//! ```
//!
//! A world draws which faults it knows and how often they come, so that some worlds are rough and some are nearly calm
//! (swarm testing). `AGENTRY_SIMULATION_SEED=n` runs the world with that number alone, and prints its steps.

mod chance;
mod expectation;
mod fault;
mod guests;
mod host;
mod ledger;
mod load;
mod nemesis;
mod play;
mod swarm;
mod tally;
mod tests;
mod verdict;
mod wire;
mod world;
