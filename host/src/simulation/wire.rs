//! What stands between one life of a host and everything else: its death, its pauses, its connections.

mod broker;
mod database;

pub use broker::WireBroker;
pub use database::WireDb;

use super::world::{LEASE, World};
use crate::broker::memory::MemoryBroker;
use crate::task::HostId;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Runs,
    /// It is stopped, and will go on.
    Stopped,
    /// It was killed: nothing that it still does is heard of by anybody.
    Dead,
}

/// One life of a host. Its tasks are not torn down when it dies: they never hear of anything again, which is the same for
/// everybody else.
pub struct Wire {
    /// Where it lives.
    pub world: Arc<World>,
    /// Which of the world's hosts.
    pub place: usize,
    /// This life.
    pub host: HostId,
    /// Its connection to the broker.
    pub broker: Arc<MemoryBroker>,
    life: Mutex<Life>,
    /// Wakes in their order: a watch wakes at random, and a world is to repeat.
    changed: Notify,
    database_cut: AtomicBool,
    /// Settlements hang, and nothing else does.
    wedged: AtomicBool,
}

impl Wire {
    /// A new life.
    pub fn new(world: &Arc<World>, place: usize) -> Arc<Wire> {
        Arc::new(Wire {
            world: world.clone(),
            place,
            host: world.chance.id(),
            broker: Arc::new(MemoryBroker::connect(&world.server)),
            life: Mutex::new(Life::Runs),
            changed: Notify::new(),
            database_cut: AtomicBool::new(false),
            wedged: AtomicBool::new(false),
        })
    }

    /// How it is.
    pub fn life(&self) -> Life {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it was; the dead stay dead.
    fn turn(&self, to: Life) -> Life {
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        let was = *life;
        if was != Life::Dead {
            *life = to;
        }
        drop(life);
        self.changed.notify_waiters();
        was
    }

    async fn until(&self, wanted: Life) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.life() == wanted {
                return;
            }
            changed.await;
        }
    }

    /// Returns when it runs; never, if it is dead.
    pub async fn alive(&self) {
        self.until(Life::Runs).await;
    }

    /// Returns when it is dead.
    pub async fn dead(&self) {
        self.until(Life::Dead).await;
    }

    /// `kill -9`.
    pub fn die(&self) {
        if self.turn(Life::Dead) != Life::Dead {
            self.world.tell(&format!("host {} dies: {}", self.place, self.host));
            self.broker.cut();
        }
    }

    /// It dies here, if chance has it. Steps that a whole batch takes at once come less often, and are as dangerous.
    pub fn die_at(&self, step: &'static str) {
        let weight = if matches!(step, "s4 crash" | "s5 crash" | "s6 crash" | "s5 record crash" | "s6 record crash") {
            4.0
        } else {
            1.0
        };
        if self.world.happens(weight * self.world.swarm.crash) && self.life() == Life::Runs {
            self.world.count(step);
            self.die();
        }
    }

    /// It stands still here, at the worst of moments, if chance has it: it holds a lease as far as it knows, and wakes when others
    /// have long taken over.
    fn stall(self: &Arc<Self>) {
        if self.world.happens(self.world.swarm.stall) && self.life() == Life::Runs {
            self.world.count("a host stood still before it settled");
            self.stop(true);
            let (wire, length) = (self.clone(), LEASE.mul_f64(2.0 + 3.0 * self.world.chance.fraction()));
            tokio::spawn(async move {
                tokio::time::sleep(length).await;
                wire.stop(false);
            });
        }
    }

    /// SIGSTOP, or SIGCONT.
    pub fn stop(&self, stopped: bool) {
        self.turn(if stopped { Life::Stopped } else { Life::Runs });
    }

    /// The way to the database is cut, or is there again.
    pub fn cut_database(&self, cut: bool) {
        self.database_cut.store(cut, Ordering::Relaxed);
    }

    /// From now on its settlements hang.
    pub fn wedge(&self) {
        self.wedged.store(true, Ordering::Relaxed);
    }

    /// A step of the path, on a task.
    pub fn step(&self, name: &'static str, subject: &dyn std::fmt::Display) {
        self.world.step(name, self.place, subject);
    }

    fn has_database(&self) -> bool {
        !self.database_cut.load(Ordering::Relaxed) && !self.world.database_is_down()
    }
}
