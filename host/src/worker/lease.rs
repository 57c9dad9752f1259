//! The lease: one per process, renewed well before it ends. A host that could not renew stops settling.

use super::Remote;
use crate::db::{Db, DbError, HostRecord};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Renewals also bring news (cancelled tasks), which are to be heard within a second.
const NEWS: Duration = Duration::from_millis(400);
/// Of its length, the part after which the lease is renewed by a host that runs nothing and has nothing new to report.
const AT_REST: u32 = 6;
/// Longer than any process lives.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What is known of the lease, by this process's own clock.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// Valid until then.
    until: Instant,
    /// From then on this host has been in touch with the database for a whole lease time.
    steady_from: Instant,
}

/// Whether this process may still act on what it claimed, and whether it may take over what others claimed. A clone is the
/// same lease.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    standing: Mutex<Standing>,
    renewed: Notify,
}

impl Lease {
    /// A lease that is not valid yet.
    pub fn new(now: Instant) -> Lease {
        let standing = Mutex::new(Standing { until: now, steady_from: now + FAR });
        Lease(Arc::new(Inner { standing, renewed: Notify::new() }))
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.0.standing.lock().unwrap_or_else(PoisonError::into_inner) // two times, whole at every instruction
    }

    /// The database has answered a renewal for `ttl` that was asked for then.
    fn renewed(&self, asked: Instant, ttl: Duration) {
        {
            let mut standing = self.standing();
            // It had run out, or is the first: how long the database was away, and for whom, nobody knows.
            if standing.until <= asked {
                standing.steady_from = Instant::now() + ttl;
            }
            standing.until = asked + Keeper::good_for(ttl);
        }
        self.0.renewed.notify_waiters();
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
        self.standing().until > Instant::now()
    }

    /// Whether this host can tell the dead from the late. After an outage of the database every lease has lapsed, and whoever
    /// comes back first would take over what all the others run; so claimants wait one lease time, in which the living
    /// renew.
    pub fn is_steady(&self) -> bool {
        self.standing().steady_from <= Instant::now()
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
}

impl Keeper {
    /// How long a renewal is good for: it is counted from before it was sent, and ends before others may take over.
    pub fn good_for(ttl: Duration) -> Duration {
        ttl.mul_f64(0.8)
    }

    /// Enter this host, with its first lease.
    pub async fn register(&self) -> Result<(), DbError> {
        let asked = Instant::now();
        self.db.register_host(&(self.record)(), self.ttl).await?;
        self.lease.renewed(asked, self.ttl);
        Ok(())
    }

    /// Renew until told to end.
    pub async fn run(self, worker: Remote, end: CancellationToken) {
        let mut trouble = false;
        let pause = NEWS.min(self.ttl / 3);
        let mut last: Option<(Instant, HostRecord)> = None;
        loop {
            tokio::select! {
                biased;
                () = end.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let (asked, record) = (Instant::now(), (self.record)());
            // Only a task that runs here can be cancelled here; without one, there is only the lease to keep.
            let rests =
                |(at, said): &(Instant, HostRecord)| *said == record && *at + self.ttl / AT_REST >= asked + pause;
            if !trouble && !worker.runs_any() && last.as_ref().is_some_and(rests) {
                continue;
            }
            match self.db.renew_lease(&record, self.ttl).await {
                Ok(renewal) => {
                    self.lease.renewed(asked, self.ttl);
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
                    renewal.cancel.into_iter().for_each(|id| worker.stop(id));
                }
                Err(error) => {
                    if !trouble {
                        tracing::error!(%error, "failed to renew the lease; results are held back once it ends");
                    }
                    trouble = true;
                }
            }
        }
    }
}
