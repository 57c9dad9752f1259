//! What all in a world share: its chance, its clock, its database and broker, and what is noted down.

use super::chance::Chance;
use super::expectation::Promise;
use super::ledger::Ledger;
use super::swarm::{Swarm, Without};
use super::tally::Tally;
use crate::broker::memory::Server;
use crate::db::memory::MemoryDb;
use crate::task::TaskId;
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A host's lease.
pub const LEASE: Duration = Duration::from_secs(3);
/// How often the broker lets a message come back before it gives up on it.
const RETURNS: u32 = 12;

/// What all in a world share.
pub struct World {
    /// Decides.
    pub chance: Arc<Chance>,
    /// What it is like.
    pub swarm: Swarm,
    /// The database.
    pub db: MemoryDb,
    /// The broker.
    pub server: Server,
    /// What producers were promised.
    pub promises: Mutex<BTreeMap<TaskId, Promise>>,
    /// Ids of messages that nobody can use.
    pub unusable: Mutex<BTreeSet<TaskId>>,
    began: Instant,
    calm: Arc<AtomicBool>,
    database_down: AtomicBool,
    steps: AtomicU64,
    digest: AtomicU64,
    tally: Mutex<Tally>,
    ledger: Mutex<Ledger>,
    trace: Mutex<Vec<String>>,
    wrongs: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// The world of this seed, which begins now.
    pub fn new(seed: u64, without: Without) -> Arc<World> {
        let chance = Arc::new(Chance::of(seed));
        let swarm = Swarm { without, ..Swarm::draw(&chance) };
        let began = Instant::now();
        let calm = Arc::new(AtomicBool::new(false));
        let choice = {
            let (chance, calm, reorder) = (chance.clone(), calm.clone(), swarm.reorder);
            move |ready: usize| match !calm.load(Ordering::Relaxed) && chance.percent(reorder) {
                true => chance.below(ready),
                false => 0,
            }
        };
        Arc::new(World {
            db: MemoryDb::new(Arc::new(move || now(began))),
            server: Server::new(RETURNS, Arc::new(choice)),
            chance,
            swarm,
            promises: Mutex::default(),
            unusable: Mutex::default(),
            began,
            calm,
            database_down: AtomicBool::new(false),
            steps: AtomicU64::new(0),
            digest: AtomicU64::new(0),
            tally: Mutex::default(),
            ledger: Mutex::default(),
            trace: Mutex::default(),
            wrongs: Mutex::default(),
        })
    }

    /// The database's clock.
    pub fn now(&self) -> DateTime<Utc> {
        now(self.began)
    }

    /// No faults any more, and no load.
    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// From now on there are none.
    pub fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
        self.tell("calm");
    }

    /// How long it has been.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Steps so far.
    pub fn taken(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Of every step with its time: the same for the same seed.
    pub fn digest(&self) -> u64 {
        self.digest.load(Ordering::Relaxed)
    }

    /// What was noted down, handed over.
    pub fn notes(&self) -> (Tally, Vec<String>) {
        (std::mem::take(&mut *lock(&self.tally)), std::mem::take(&mut *lock(&self.trace)))
    }

    /// Whether something of this likelihood (in percent) happens; nothing does in a calm world.
    pub fn happens(&self, percent: f64) -> bool {
        percent > 0.0 && !self.is_calm() && self.chance.percent(percent)
    }

    /// How long something takes on its way.
    pub fn delay(&self) -> Duration {
        if self.happens(self.swarm.slow) { self.chance.millis(200..4_000) } else { self.chance.millis(0..15) }
    }

    /// The database is away, or there again.
    pub fn take_database_down(&self, down: bool) {
        self.database_down.store(down, Ordering::Relaxed);
    }

    /// Whether it is away.
    pub fn database_is_down(&self) -> bool {
        self.database_down.load(Ordering::Relaxed)
    }

    /// What guests did.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// What producers were promised.
    pub fn promises(&self) -> MutexGuard<'_, BTreeMap<TaskId, Promise>> {
        lock(&self.promises)
    }

    /// Ids of messages that nobody can use.
    pub fn unusable(&self) -> MutexGuard<'_, BTreeSet<TaskId>> {
        lock(&self.unusable)
    }

    /// Something happened that is no step.
    pub fn count(&self, name: &'static str) {
        lock(&self.tally).count(name);
        self.tell(name);
    }

    /// A step at a host, on a task.
    pub fn step(&self, name: &'static str, place: usize, subject: &dyn std::fmt::Display) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        lock(&self.tally).count(name);
        self.tell(&format!("{place} {name} {subject}"));
    }

    /// The same step on so many.
    pub fn steps(&self, name: &'static str, count: u64) {
        self.steps.fetch_add(count, Ordering::Relaxed);
        (0..count).for_each(|_| lock(&self.tally).count(name));
        if count > 0 {
            self.tell(&format!("{name} {count}"));
        }
    }

    /// A violation that no table shows at rest.
    pub fn wrong(&self, what: String) {
        self.tell(&what);
        lock(&self.wrongs).push(what);
    }

    /// Such violations.
    pub fn wrongs(&self) -> Vec<String> {
        lock(&self.wrongs).clone()
    }

    /// A line of the trace.
    pub fn tell(&self, what: &str) {
        let line = format!("{:>9.3} {what}", self.began.elapsed().as_secs_f64());
        let mut hash = DefaultHasher::new();
        (self.digest.load(Ordering::Relaxed), &line).hash(&mut hash);
        self.digest.store(hash.finish(), Ordering::Relaxed);
        lock(&self.trace).push(line);
    }
}

fn now(began: Instant) -> DateTime<Utc> {
    let start = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(20_000);
    (start + began.elapsed()).trunc_subsecs(6)
}
