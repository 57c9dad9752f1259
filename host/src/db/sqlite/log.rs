//! The write-ahead log, kept short.
//!
//! SQLite writes the log from its beginning again at a moment without readers, once all of it is in the database file. Readers that overlap leave no
//! such moment, and the log grows with every commit.

use super::super::cells::Cells;
use super::super::fault::Fault;
use super::super::flight::Line;
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection, query, raw_sql};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Length beyond which the log is emptied.
const MOST: u64 = 64 << 20;
/// Length at which the operator is told, since readers do not end in time.
const TOLD: u64 = 1 << 30;
/// Of an operation's time, the part in which readers may end before the log is emptied another time. Nothing is written meanwhile.
const READERS: u32 = 4;
/// Pause after an attempt, as a multiple of the time that it took.
const PAUSE: u32 = 10;

statements! {
    EMPTY = "PRAGMA wal_checkpoint(TRUNCATE)";
}

/// The log of a database file.
#[derive(Debug)]
pub(super) struct Log {
    file: PathBuf,
    most: u64,
    /// See [`PAUSE`].
    pause: u32,
    /// The next attempt.
    after: Mutex<Instant>,
}

impl Log {
    /// The log of this database file.
    pub fn beside(database: &str) -> Log {
        Log {
            file: PathBuf::from(format!("{database}-wal")),
            most: MOST,
            pause: PAUSE,
            after: Mutex::new(Instant::now()),
        }
    }

    fn after(&self) -> MutexGuard<'_, Instant> {
        self.after.lock().unwrap_or_else(PoisonError::into_inner) // a time, whole at every instruction
    }

    /// Empties the log if it is long. Waits until readers have ended that were there before, and keeps writers out meanwhile. New readers do not need
    /// the log by then.
    pub async fn shorten(&self, line: &Line<Sqlite>, limit: Duration) -> Result<(), Fault> {
        let bytes = std::fs::metadata(&self.file).map_or(0, |file| file.len());
        let began = Instant::now();
        if bytes <= self.most || began < *self.after() {
            return Ok(());
        }
        let mut connection = line.acquire(limit).await?;
        wait(&mut connection, limit / READERS).await?;
        let row = query(EMPTY).fetch_one(&mut *connection).await;
        wait(&mut connection, limit).await?;
        *self.after() = Instant::now() + began.elapsed() * self.pause;
        if row?.flag("busy")? && bytes >= TOLD {
            let (file, mib) = (self.file.display(), bytes >> 20);
            tracing::warn!(%file, mib, "the write-ahead log grows: reads that last long keep it from being emptied");
        }
        Ok(())
    }
}

/// How long statements of the connection wait for others.
async fn wait(connection: &mut SqliteConnection, limit: Duration) -> Result<(), Fault> {
    // A pragma takes no parameter.
    raw_sql(AssertSqlSafe(format!("PRAGMA busy_timeout = {}", limit.as_millis()))).execute(connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

    #[tokio::test]
    async fn log_is_emptied_although_readers_overlap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let options = options.journal_mode(SqliteJournalMode::Wal);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options.clone());
        let line = Line { pool, place: path.display().to_string().into(), waiting: std::sync::Arc::default() };
        query("CREATE TABLE t (x BLOB)").execute(&line.pool).await.unwrap();
        let log = Log { most: 256 << 10, pause: 0, ..Log::beside(&line.place) };
        let readers = SqlitePoolOptions::new().max_connections(2).connect_lazy_with(options);
        // One begins while the other reads.
        let turn = std::sync::Arc::new(tokio::sync::Barrier::new(2));
        let read = |first: bool| {
            let (readers, turn) = (readers.clone(), turn.clone());
            tokio::spawn(async move {
                if !first {
                    turn.wait().await;
                }
                loop {
                    let mut snapshot = readers.begin().await.unwrap();
                    query("SELECT count(*) FROM t").fetch_one(&mut *snapshot).await.unwrap();
                    turn.wait().await; // the other begins
                    turn.wait().await; // it has begun
                    snapshot.commit().await.unwrap();
                }
            })
        };
        let reading = [read(true), read(false)];
        let mut longest = 0;
        for _ in 0..150 {
            query("INSERT INTO t VALUES (zeroblob(65536))").execute(&line.pool).await.unwrap();
            log.shorten(&line, Duration::from_secs(20)).await.unwrap();
            longest = longest.max(std::fs::metadata(&log.file).unwrap().len());
        }
        reading.iter().for_each(tokio::task::JoinHandle::abort);
        assert!(longest < 4 << 20, "{longest} bytes");
    }
}
