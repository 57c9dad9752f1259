//! One world, from its seed to its verdict.

use super::swarm::Without;
use super::tally::Tally;
use super::world::World;
use super::{load, nemesis, verdict};
use std::time::Duration;
use tokio::time::Instant;

/// How long the calm world has to come to rest.
const REST: Duration = Duration::from_secs(900);

/// What became of a world.
pub struct Outcome {
    /// Its number.
    pub seed: u64,
    /// Steps that were taken.
    pub steps: u64,
    /// Of every step with its time: the same for the same seed.
    pub digest: u64,
    /// How often what happened.
    pub tally: Tally,
    /// What must not be, and is.
    pub violations: Vec<String>,
    /// Everything that happened, in order.
    pub trace: Vec<String>,
}

/// Play the world of this seed for so many steps, and let it come to rest.
pub fn play(seed: u64, steps: u64, without: Without) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let world = World::new(seed, without);
        world.server.declare("default");
        world.tell(&format!("{:?}", world.swarm));
        let hosts = nemesis::populate(&world);
        let load = tokio::spawn(load::run(world.clone()));
        let nemesis = tokio::spawn(nemesis::run(world.clone(), hosts.clone()));
        // A world that nearly stands still is over, too.
        while world.taken() < steps && world.age() < Duration::from_secs(3_600) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        world.calm_down();
        load.await.expect("the load does not panic");
        nemesis.await.expect("the nemesis does not panic");
        hosts.heal();
        let calm = Instant::now();
        while !verdict::is_at_rest(&world) && calm.elapsed() < REST {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // What is still on its way (a late statement, an acknowledgement) arrives.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let violations = verdict::violations(&world);
        let (tally, trace) = world.notes();
        Outcome { seed, steps: world.taken(), digest: world.digest(), tally, violations, trace }
    })
}
