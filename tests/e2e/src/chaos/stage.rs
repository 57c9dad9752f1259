//! What faults happen to: a broker, a database, three daemons, and a way from each daemon to each of both.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::schedule::{Fault, Step};
use crate::database::Database;
use crate::forward::Forward;
use crate::ledger::Ledger;
use crate::private::{Broker, Server, Stop};
use crate::{Daemon, Site};

/// How many tasks have ended.
pub const ENDED: &str = "SELECT count(*) FROM agentry.tasks WHERE state IN ('completed', 'failed', 'cancelled')";
/// How long a lease is.
const LEASE: Duration = Duration::from_secs(4);
/// How long work in flight is waited for, so that a fault hits some.
const IN_FLIGHT: Duration = Duration::from_secs(10);

/// All of it.
pub struct Stage {
    pub site: Site,
    pub actors: Vec<Actor>,
    /// What guests did, independently of everything else.
    pub ledger: Option<Ledger>,
    /// Process ids and what was done to them.
    pub marks: Vec<(u32, Fault)>,
    operator: Database,
    server: Server,
    broker: Broker,
}

/// How long first attempts run before they are claimed, by daemon: never, shortly, and as by default.
const CLAIM_AFTER: [u64; 3] = [0, 50, 200];

/// A daemon and its ways.
pub struct Actor {
    pub daemon: Daemon,
    to_broker: Forward,
    to_server: Forward,
}

impl Stage {
    /// Starts everything. With `ledger`, daemons of the build that writes down each beginning of a guest.
    pub async fn open(daemons: usize, ledger: bool) -> Self {
        let (broker, server) = tokio::join!(Broker::start(""), Server::start());
        let site = Site::private(&broker.url(), &server.url()).await;
        let ledger = ledger.then(|| Ledger::in_folder(site.folder()));
        let mut actors = Vec::new();
        for number in 0..daemons {
            let mut to_broker = Forward::to(site.broker_url(), 5672);
            let mut to_server = Forward::to(&site.database_url(), 5432);
            to_broker.restore().await;
            to_server.restore().await;
            let setup = site
                .setup_named(&format!("daemon-{number}"))
                .set("broker.url", to_broker.through(site.broker_url()))
                .set("database.url", to_server.through(&site.database_url()))
                .set("database.timeout_seconds", 3)
                .set("lease.ttl_seconds", LEASE.as_secs())
                .set("worker.slots", 16)
                .set("worker.claim_after_ms", CLAIM_AFTER[number % CLAIM_AFTER.len()])
                .set("log.level", "warn")
                // Its open files are counted from outside, which only root may do otherwise.
                .variable("AGENTRY_DEBUGGABLE", "1");
            let setup = match &ledger {
                Some(ledger) => ledger.kept_by(setup),
                None => setup,
            };
            actors.push(Actor { daemon: setup.start().await, to_broker, to_server });
        }
        let operator = Database::postgres(&site.database_url()).await;
        Self { site, actors, ledger, marks: Vec::new(), operator, server, broker }
    }

    /// Does it; answers with how many tasks ran at that moment, at whom it hit.
    pub async fn strike(&mut self, step: Step) -> i64 {
        let Step { fault, victim, length, .. } = step;
        let victim = victim % self.actors.len();
        match fault {
            Fault::Kill => {
                // Stopped first: what it runs then is what the kill hits.
                let hit = self.stop_in_flight(victim).await;
                self.mark(victim, fault);
                let daemon = &mut self.actors[victim].daemon;
                daemon.kill();
                tokio::time::sleep(length).await;
                daemon.start_again().await;
                hit
            }
            Fault::Pause => {
                let hit = self.stop_in_flight(victim).await;
                self.mark(victim, fault);
                tokio::time::sleep(LEASE + length).await;
                self.actors[victim].daemon.signal(Signal::CONT);
                hit
            }
            Fault::BrokerKilled => {
                let hit = self.in_flight(None).await;
                self.broker.kill();
                tokio::time::sleep(length).await;
                self.broker.start_again().await;
                hit
            }
            Fault::ConnectionsClosed => {
                let hit = self.in_flight(None).await;
                self.broker.control(&["close_all_connections", "chaos"]).await;
                hit
            }
            Fault::DatabaseRestarted | Fault::DatabaseCrashed => {
                let hit = self.in_flight(None).await;
                let how = if fault == Fault::DatabaseCrashed { Stop::Immediate } else { Stop::Fast };
                self.server.stop(how).await;
                tokio::time::sleep(length / 2).await;
                self.server.start_again().await;
                hit
            }
            Fault::BackendsTerminated => {
                let hit = self.in_flight(None).await;
                let all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                           WHERE datname = current_database() AND pid <> pg_backend_pid()";
                self.ask(all).await;
                hit
            }
            Fault::BrokerCut | Fault::BrokerSilent | Fault::DatabaseCut | Fault::DatabaseSilent => {
                let hit = self.in_flight(Some(victim)).await;
                self.mark(victim, fault);
                let actor = &mut self.actors[victim];
                let broker = matches!(fault, Fault::BrokerCut | Fault::BrokerSilent);
                let way = if broker { &mut actor.to_broker } else { &mut actor.to_server };
                if matches!(fault, Fault::BrokerCut | Fault::DatabaseCut) {
                    way.cut().await;
                } else {
                    way.fall_silent();
                }
                tokio::time::sleep(length + Duration::from_secs(1)).await;
                way.restore().await; // what fell silent stays so, which is half-open; who connects anew gets through
                hit
            }
        }
    }

    /// Faults are over: every way is open.
    pub async fn calm(&mut self) {
        for actor in &mut self.actors {
            actor.to_broker.restore().await;
            actor.to_server.restore().await;
            actor.daemon.signal(Signal::CONT);
        }
        self.site.reconnect().await;
    }

    /// Stops every daemon; one that does not end cleanly is a violation.
    pub async fn stopped(mut self, violations: &mut Vec<String>) -> Self {
        for actor in &mut self.actors {
            let code = actor.daemon.terminate().await;
            if code != Some(0) {
                let said = actor.daemon.said();
                let end: Vec<_> = said.lines().rev().take(3).collect();
                violations.push(format!("a daemon did not end cleanly: {code:?}, {end:?}"));
            }
        }
        self
    }

    fn mark(&mut self, victim: usize, fault: Fault) {
        self.marks.push((self.actors[victim].daemon.pid(), fault));
    }

    /// SIGSTOP while it runs something; how many tasks it runs then.
    async fn stop_in_flight(&self, victim: usize) -> i64 {
        self.in_flight(Some(victim)).await;
        self.actors[victim].daemon.signal(Signal::STOP);
        self.running(Some(victim)).await
    }

    /// Waits, not for ever, until something runs; how many tasks do.
    async fn in_flight(&self, victim: Option<usize>) -> i64 {
        let began = Instant::now();
        loop {
            let running = self.running(victim).await;
            if running > 0 || began.elapsed() > IN_FLIGHT {
                return running;
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }

    async fn running(&self, victim: Option<usize>) -> i64 {
        let whose = match victim {
            // Named agentry/BUILD/HOST/PID.
            Some(victim) => format!("h.name LIKE '%/{}' AND NOT h.ended", self.actors[victim].daemon.pid()),
            None => "NOT h.ended AND h.lease_until > now()".to_owned(),
        };
        self.ask(&format!(
            "SELECT count(*) FROM agentry.tasks t JOIN agentry.hosts h ON h.id = t.owner \
             WHERE t.state = 'running' AND {whose}"
        ))
        .await
    }

    /// A number, asked again while the database recovers.
    async fn ask(&self, statement: &str) -> i64 {
        crate::eventually("the operator reads the database", async || self.operator.number(statement).await).await
    }
}
