//! Sessions that keep a migration waiting, seen from a second connection while it waits.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use sqlx::postgres::PgPool;
use sqlx::query;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How often is looked, and how often progress is reported.
const LOOK: Duration = Duration::from_millis(200);
const REPORT: Duration = Duration::from_secs(30);

statements! {
    /// The oldest transaction first. An index is not shown before its build has begun.
    LOOKED = "SELECT a.pid::bigint AS pid, a.application_name AS application, a.state, a.xact_start, a.query_start,
            EXISTS (SELECT FROM pg_stat_activity WHERE pid = ($1::bigint)::int) AS here,
            p.phase, p.blocks_done, p.blocks_total
        FROM (SELECT 1) one LEFT JOIN pg_stat_progress_create_index p ON p.pid = ($1::bigint)::int
            LEFT JOIN pg_stat_activity a ON a.pid = ANY(pg_blocking_pids(($1::bigint)::int))
        ORDER BY a.xact_start LIMIT 1";
}

/// Looks for what a session waits for.
#[derive(Debug)]
pub(super) struct Blockers {
    pool: PgPool,
    /// The last one that was seen.
    seen: Mutex<Option<String>>,
}

impl Blockers {
    pub fn new(pool: PgPool) -> Blockers {
        Blockers { pool, seen: Mutex::default() }
    }

    /// The last blocker since the last call.
    pub fn take(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        seen.unwrap_or_else(|| "a session that could not be seen".to_owned())
    }

    /// Runs `work`, which waits in the session `pid`, and remembers who blocks it. Fails when the session is gone, and when the server has not
    /// answered for `silence`: a connection that falls silent would otherwise be waited for without end.
    pub async fn watching<T>(
        &self,
        pid: i64,
        silence: Duration,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        tokio::select! {
            biased;
            result = work => result,
            fault = self.watch(pid, silence) => Err(fault),
        }
    }

    async fn watch(&self, pid: i64, silence: Duration) -> Fault {
        let (mut answered, mut reported, mut missed) = (Instant::now(), Instant::now(), 0);
        loop {
            tokio::time::sleep(LOOK).await;
            match self.look(pid, &mut reported).await {
                Ok(here) => {
                    answered = Instant::now();
                    missed = if here { 0 } else { missed + 1 };
                    // Its own error says more, and arrives first if it arrives at all.
                    if missed > 10 {
                        return Fault::Busy("the session that migrates is gone".into());
                    }
                }
                Err(fault) if answered.elapsed() >= silence => return fault,
                Err(fault) => tracing::debug!(reason = %fault.reason(), "failed to look for blockers of the migration"),
            }
        }
    }

    /// Returns whether the session exists.
    async fn look(&self, pid: i64, reported: &mut Instant) -> Result<bool, Fault> {
        let row = query(LOOKED).bind(pid).fetch_one(&self.pool).await?;
        if let Some(blocker) = row.int("pid")? {
            let text = |column| Ok::<_, Fault>(row.text(column)?.unwrap_or_else(|| "unknown".to_owned()));
            let time = |column| {
                let at = row.time(column)?.map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
                Ok::<_, Fault>(at.unwrap_or_else(|| "unknown".to_owned()))
            };
            let who = format!(
                "process {blocker} (application {:?}, {}, transaction began {}, query began {})",
                text("application")?,
                text("state")?,
                time("xact_start")?,
                time("query_start")?,
            );
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(who);
        }
        if let (Some(phase), true) = (row.text("phase")?, reported.elapsed() >= REPORT) {
            *reported = Instant::now();
            let (done, total) = (row.int("blocks_done")?, row.int("blocks_total")?);
            tracing::info!(phase, blocks_done = done, blocks_total = total, "the index is being built");
        }
        need(Some(row.flag("here")?), "here")
    }
}
