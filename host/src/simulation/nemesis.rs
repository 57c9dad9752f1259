//! What happens to hosts, broker and database.

use super::fault::Fault;
use super::host::Host;
use super::wire::{Life, Wire};
use super::world::{LEASE, World};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The hosts as they are now.
#[derive(Clone)]
pub struct Hosts(Arc<Mutex<Vec<Option<Host>>>>);

impl Hosts {
    fn at<T>(&self, place: usize, with: impl FnOnce(&Host) -> T) -> Option<T> {
        let hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(place)?.as_ref().map(with)
    }

    fn wire(&self, place: usize) -> Option<Arc<Wire>> {
        self.at(place, |host| host.wire.clone())
    }

    fn wires(&self) -> Vec<Arc<Wire>> {
        let hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.iter().flatten().map(|host| host.wire.clone()).collect()
    }

    /// Whatever still lasts is over.
    pub fn heal(&self) {
        for wire in self.wires() {
            wire.stop(false);
            wire.cut_database(false);
            if wire.life() != Life::Dead {
                wire.broker.restore();
            }
        }
    }
}

/// Start the hosts, each with somebody who starts it again whenever it has ended.
pub fn populate(world: &Arc<World>) -> Hosts {
    let hosts = Hosts(Arc::new(Mutex::new((0..world.swarm.hosts).map(|_| None).collect())));
    for place in 0..world.swarm.hosts {
        tokio::spawn(supervise(world.clone(), hosts.clone(), place));
    }
    hosts
}

async fn supervise(world: Arc<World>, hosts: Hosts, place: usize) {
    let mut former = None;
    loop {
        let host = Host::start(&world, place, former);
        let (wire, mut ended) = (host.wire.clone(), host.ended.clone());
        hosts.0.lock().unwrap_or_else(PoisonError::into_inner)[place] = Some(host);
        tokio::select! {
            biased;
            () = wire.dead() => {}
            _ = ended.wait_for(|ended| *ended) => {}
        }
        let longest = if world.is_calm() { 500 } else { 6_000 };
        tokio::time::sleep(world.chance.millis(50..longest)).await;
        // In the same data folder, or on another machine: then its lease has to lapse.
        former = world.chance.percent(50.0).then_some(wire.host);
    }
}

/// Do things until the world is calm.
pub async fn run(world: Arc<World>, hosts: Hosts) {
    loop {
        tokio::time::sleep(world.chance.millis(100..2 * world.swarm.pause)).await;
        if world.is_calm() {
            return;
        }
        let fault = *world.chance.one(&world.swarm.faults);
        let place = world.chance.below(world.swarm.hosts);
        let short = if fault == Fault::Pause { 30.0 } else { 70.0 };
        let length = if world.chance.percent(short) { 100..2_500 } else { 2_500..4 * LEASE.as_millis() as u64 };
        let length = world.chance.millis(length);
        world.count(fault.name());
        strike(&world, &hosts, fault, place, length).await;
    }
}

/// One fault; what lasts, lasts for `length`, while others come.
async fn strike(world: &Arc<World>, hosts: &Hosts, fault: Fault, place: usize, length: Duration) {
    let Some(wire) = hosts.wire(place) else { return };
    match fault {
        Fault::Kill => wire.die(),
        Fault::Pause => {
            wire.stop(true);
            later(length, move || wire.stop(false));
        }
        Fault::Drain => drop(hosts.at(place, |host| host.end.cancel())),
        Fault::Wedge => {
            wire.wedge();
            later(length + Duration::from_secs(90), move || wire.die());
        }
        Fault::DatabaseDown => {
            world.take_database_down(true);
            tokio::time::sleep(length).await;
            world.take_database_down(false);
        }
        Fault::DatabaseCut => {
            wire.cut_database(true);
            later(length, move || wire.cut_database(false));
        }
        Fault::BrokerRestart => {
            let wires = hosts.wires();
            wires.iter().for_each(|wire| wire.broker.cut());
            tokio::time::sleep(length).await;
            wires.iter().for_each(|wire| reconnect(wire));
        }
        Fault::ConnectionCut => {
            wire.broker.cut();
            later(length, move || reconnect(&wire));
        }
        Fault::HalfOpen => {
            wire.broker.fall_silent();
            later(length, {
                let wire = wire.clone();
                move || wire.broker.cut()
            });
            later(length + Duration::from_millis(300), move || reconnect(&wire));
        }
        Fault::Unbind => {
            world.server.bind("default", false);
            tokio::time::sleep(length).await;
            world.server.bind("default", true);
        }
        Fault::Expire => {
            let thrown = world.server.throw_out("default", "expired").and_then(|id| id.parse().ok());
            if let Some(id) = thrown {
                world.promises().entry(id).and_modify(|promise| promise.limited = true);
            }
        }
    }
}

fn reconnect(wire: &Wire) {
    if wire.life() != Life::Dead {
        wire.broker.restore();
    }
}

fn later(after: Duration, what: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        what();
    });
}
