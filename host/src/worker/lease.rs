//! The lease: one per process, renewed well before it ends. A host that could not renew stops settling.

use super::Remote;
use crate::brakes::InForce;
use crate::db::{Db, DbError, HostRecord};
use crate::metrics::LeaseFacts;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a host that runs tasks asks which of them are to end, and looks whether it has something new to report with its lease.
const NEWS: Duration = Duration::from_millis(400);
/// Of its length, the part after which the lease is renewed by a host that has nothing new to report.
const AT_REST: u32 = 6;
/// Longer than any process lives.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A moment by both clocks of this process. The first stands still while the machine is suspended, in which leases run out all the same;
/// the second does not.
#[derive(Clone, Copy, Debug)]
struct Moment {
    at: Instant,
    since_boot: Duration,
}

/// What is known of the lease, by this process's own clocks.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// Valid until then, by whichever clock comes first.
    until: Moment,
    /// From then on this host has been in touch with the database for a whole lease time.
    steady_from: Instant,
}

impl Moment {
    /// Whether both clocks agree that it is later than `other`, or stand still.
    fn is_after(self, other: Moment) -> bool {
        self.at > other.at && self.since_boot > other.since_boot
    }
}

/// Whether this process may still act on what it claimed, and whether it may take over what others claimed. A clone is the
/// same lease.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Inner>);

struct Inner {
    standing: Mutex<Standing>,
    renewed: Notify,
    /// Renewals by how they went.
    counts: Counts,
    since_boot: Box<dyn Fn() -> Duration + Send + Sync>,
}

#[derive(Debug, Default)]
struct Counts {
    renewed: AtomicU64,
    lapsed: AtomicU64,
    failed: AtomicU64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("standing", &self.standing).finish_non_exhaustive()
    }
}

/// Time since the machine was started, with that in which it was suspended. Only Linux has such a clock.
fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).try_into().unwrap_or_default();
    #[cfg(not(target_os = "linux"))]
    let time = Duration::ZERO;
    time
}

impl Lease {
    /// A lease that is not valid yet, by the clocks of this machine.
    pub fn of_this_machine() -> Lease {
        Lease::new(Instant::now(), since_boot)
    }

    /// A lease that is not valid yet; `since_boot` goes on while the machine is suspended.
    pub fn new(now: Instant, since_boot: impl Fn() -> Duration + Send + Sync + 'static) -> Lease {
        let until = Moment { at: now, since_boot: since_boot() };
        let standing = Mutex::new(Standing { until, steady_from: now + FAR });
        Lease(Arc::new(Inner {
            standing,
            renewed: Notify::new(),
            counts: Counts::default(),
            since_boot: Box::new(since_boot),
        }))
    }

    fn now(&self) -> Moment {
        Moment { at: Instant::now(), since_boot: (self.0.since_boot)() }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.0.standing.lock().unwrap_or_else(PoisonError::into_inner) // two times, whole at every instruction
    }

    /// The database has answered a renewal for `ttl` that was asked for then. `lapsed`: by the database's clock, it had run out.
    fn renewed(&self, asked: Moment, ttl: Duration, lapsed: bool) {
        {
            let mut standing = self.standing();
            // It had run out, or is the first: how long the database or this machine was away, and which others were, is unknown.
            if lapsed || !standing.until.is_after(asked) {
                standing.steady_from = Instant::now() + ttl;
            }
            let good = Keeper::good_for(ttl);
            standing.until = Moment { at: asked.at + good, since_boot: asked.since_boot + good };
        }
        self.0.renewed.notify_waiters();
    }

    /// The lease as metrics show it.
    pub fn facts(&self) -> LeaseFacts {
        let (until, now) = (self.standing().until, self.now());
        let by_clock = until.at.saturating_duration_since(now.at);
        let remaining = match (now.since_boot, until.since_boot) {
            // Only Linux has the second clock.
            (Duration::ZERO, _) => by_clock,
            (now, until) => by_clock.min(until.saturating_sub(now)),
        };
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { renewed, lapsed, failed } = &self.0.counts;
        LeaseFacts { remaining, renewed: read(renewed), lapsed: read(lapsed), failed: read(failed) }
    }

    /// Returns at once while the lease is valid, otherwise when it is again.
    pub async fn valid(&self) {
        loop {
            let mut renewed = pin!(self.0.renewed.notified());
            renewed.as_mut().enable(); // before it is looked at, so that no renewal is missed
            if self.is_valid() {
                return;
            }
            renewed.await;
        }
    }

    /// Whether it is valid now.
    pub fn is_valid(&self) -> bool {
        self.standing().until.is_after(self.now())
    }

    /// Whether this host can tell the dead from the late. After an outage of the database every lease has lapsed, and whoever
    /// comes back first would take over what all the others run; so claimants wait one lease time, in which the living
    /// renew.
    pub fn is_steady(&self) -> bool {
        let standing = self.standing();
        standing.steady_from <= Instant::now() && standing.until.is_after(self.now())
    }
}

/// Keeps the lease: renews it, tells the worker what to end.
pub struct Keeper {
    /// Where leases are kept.
    pub db: Arc<dyn Db>,
    /// What this host says of itself; asked at each renewal.
    pub record: Box<dyn Fn() -> HostRecord + Send + Sync>,
    /// The lease's length.
    pub ttl: Duration,
    /// Extended at each renewal.
    pub lease: Lease,
    /// Where brakes are applied.
    pub brakes: InForce,
}

impl Keeper {
    /// How long a renewal is good for: it is counted from before it was sent, and ends before others may take over.
    pub fn good_for(ttl: Duration) -> Duration {
        ttl.mul_f64(0.8)
    }

    /// Enter this host, with its first lease.
    pub async fn register(&self) -> Result<(), DbError> {
        let asked = self.lease.now();
        self.db.register_host(&(self.record)(), self.ttl).await?;
        self.lease.renewed(asked, self.ttl, true);
        Ok(())
    }

    /// Apply the brakes that hold, before anything begins.
    pub async fn heed(&self) -> Result<(), DbError> {
        self.brakes.apply(self.db.steering().brakes().await?);
        Ok(())
    }

    /// Renew until told to end, and end tasks whose end was asked for. Neither waits for the other.
    pub async fn run(self, worker: Remote, end: CancellationToken) {
        tokio::join!(self.renew(&end), self.news(&worker, &end));
    }

    fn pause(&self) -> Duration {
        NEWS.min(self.ttl / 3)
    }

    async fn renew(&self, end: &CancellationToken) {
        let mut trouble = false;
        let pause = self.pause();
        let mut last: Option<(Moment, HostRecord)> = None;
        loop {
            tokio::select! {
                biased;
                () = end.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let (asked, record) = (self.lease.now(), (self.record)());
            let rests = |(then, said): &(Moment, HostRecord)| {
                *said == record && asked.at + pause <= then.at + self.ttl / AT_REST && self.lease.is_valid()
            };
            if !trouble && last.as_ref().is_some_and(rests) {
                continue;
            }
            match self.db.renew_lease(&record, self.ttl).await {
                Ok(renewal) => {
                    self.lease.renewed(asked, self.ttl, renewal.lapsed);
                    let Counts { renewed, lapsed, .. } = &self.lease.0.counts;
                    (if renewal.lapsed { lapsed } else { renewed }).fetch_add(1, Ordering::Relaxed);
                    last = Some((asked, record));
                    if renewal.lapsed {
                        tracing::warn!(
                            "the lease had lapsed: others may have taken over what runs here; the fence decides"
                        );
                    }
                    if trouble {
                        tracing::info!("the lease is renewed again");
                    }
                    trouble = false;
                }
                Err(error) => {
                    self.lease.0.counts.failed.fetch_add(1, Ordering::Relaxed);
                    if !trouble {
                        tracing::error!(%error, "failed to renew the lease; results are held back once it ends");
                    }
                    trouble = true;
                }
            }
        }
    }

    async fn news(&self, worker: &Remote, end: &CancellationToken) {
        let host = (self.record)().id;
        loop {
            let asked = tokio::select! {
                biased;
                () = end.cancelled() => return,
                () = self.brakes.asked() => true,
                () = tokio::time::sleep(self.pause()) => false,
            };
            // Only a task that runs here can be cancelled here. Of brakes a host that rests hears from its scheduler.
            if !asked && !worker.runs_any() {
                continue;
            }
            match self.db.steering().news(host).await {
                Ok(news) => {
                    news.to_end.into_iter().for_each(|id| worker.stop(id));
                    self.brakes.apply(news.brakes);
                }
                Err(error) => tracing::debug!(%error, "failed to look for brakes and for tasks to end; retrying"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    /// A lease on a machine whose second clock is at so many seconds.
    fn lease() -> (Lease, Arc<AtomicU64>) {
        let clock = Arc::new(AtomicU64::new(1_000));
        let read = clock.clone();
        (Lease::new(Instant::now(), move || Duration::from_secs(read.load(Ordering::Relaxed))), clock)
    }

    #[tokio::test(start_paused = true)]
    async fn lease_ends_while_the_machine_is_suspended() {
        let (lease, clock) = lease();
        assert!(!lease.is_valid());
        lease.renewed(lease.now(), TTL, true);
        assert!(lease.is_valid() && !lease.is_steady());
        tokio::time::advance(TTL / 2).await;
        clock.fetch_add(15, Ordering::Relaxed);
        lease.renewed(lease.now(), TTL, false);
        tokio::time::advance(TTL / 2).await;
        clock.fetch_add(15, Ordering::Relaxed);
        assert!(lease.is_valid() && lease.is_steady());
        // Ten minutes of which the first clock shows nothing.
        clock.fetch_add(600, Ordering::Relaxed);
        assert!(!lease.is_valid(), "others may have taken over");
        lease.renewed(lease.now(), TTL, false);
        assert!(lease.is_valid() && !lease.is_steady(), "all machines may have been suspended, and none is lost");
    }

    #[tokio::test(start_paused = true)]
    async fn host_whose_lease_had_lapsed_in_the_database_is_not_steady() {
        let (lease, clock) = lease();
        lease.renewed(lease.now(), TTL, true);
        tokio::time::advance(TTL).await;
        clock.fetch_add(30, Ordering::Relaxed);
        assert!(!lease.is_steady(), "it has run out here");
        lease.renewed(lease.now(), TTL, false);
        assert!(!lease.is_steady(), "it had run out here");
        tokio::time::advance(TTL).await;
        clock.fetch_add(1, Ordering::Relaxed);
        lease.renewed(lease.now(), TTL, true);
        assert!(lease.is_valid() && !lease.is_steady());
    }
}
