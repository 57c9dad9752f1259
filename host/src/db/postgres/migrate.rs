//! Applying migrations beside running daemons: each in a transaction of its own, under locks that are waited for only briefly.
//!
//! A statement that waits for the lock of a table keeps every later one on that table waiting behind it. So a step that gets no lock
//! within moments is undone and tried again, and the error names the session in the way. Indexes of a filled schema are built
//! concurrently; what an interrupted build left is dropped first, and one that another session is building is waited for.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::schema::{self, BUILD, Migration, POSTGRES};
use super::super::{Migrated, SchemaName};
use super::blockers::Blockers;
use super::version;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, query, raw_sql};
use std::time::Duration;
use tokio::time::Instant;

/// How long a migration waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a lock for which others wait behind it.
    pub lock: Duration,
    /// For all locks together, and for another process that migrates.
    pub total: Duration,
    /// Between two tries, at first.
    pub pause: Duration,
    /// For a server that does not answer.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            lock: Duration::from_secs(2),
            total: Duration::from_secs(300),
            pause: Duration::from_secs(1),
            silence: Duration::from_secs(60),
        }
    }
}

/// The longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(10);
/// How often is looked whether another process has ended its migration, or the build of an index.
const LOOK: Duration = Duration::from_millis(100);

statements! {
    /// Of the session. One key per schema, so that two schemas of one database do not wait for each other. It is not waited for in a
    /// statement: a concurrent build waits for every statement that began before it.
    TURN = "SELECT pg_try_advisory_lock(hashtextextended('agentry migrates ' || $1, 0))";
    END_TURN = "SELECT pg_advisory_unlock(hashtextextended('agentry migrates ' || $1, 0))";
    IN_TURN = "SELECT l.pid::bigint AS pid, COALESCE(a.application_name, '') AS application FROM pg_locks l
        LEFT JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('agentry migrates ' || $1, 0)";
    ME = "SELECT pg_backend_pid()::bigint AS pid";
    LIMIT = "SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', $2, false)";
    SCHEMA_EXISTS = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
    /// Indexes that an interrupted concurrent build left, and those of one that is under way, with the process that builds.
    /// It holds a lock of the table, which is shown to every user. Of the progress of other users' sessions only the process is.
    INVALID = "SELECT c.relname::text AS name, b.pid::bigint AS pid, a.application_name AS application
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN LATERAL (
            SELECT p.pid FROM pg_stat_progress_create_index p JOIN pg_locks l ON l.pid = p.pid
            WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'ShareUpdateExclusiveLock' AND l.relation = i.indrelid
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND COALESCE(p.index_relid, i.indexrelid) IN (i.indexrelid, 0)
            LIMIT 1) b ON true
        LEFT JOIN pg_stat_activity a ON a.pid = b.pid
        WHERE n.nspname = $1 AND c.relname::text = ANY($2) AND NOT (i.indisvalid AND i.indisready)
        ORDER BY b.pid IS NULL, name";
    CREATE_VERSIONS = "CREATE TABLE IF NOT EXISTS schema_version (
        version    bigint      NOT NULL PRIMARY KEY,
        name       text        NOT NULL,
        checksum   text        NOT NULL,
        min_build  text        NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now(),
        applied_by text        NOT NULL)";
}

/// Statements that need the version table.
pub(super) mod versions {
    statements! {
        WRITE = "INSERT INTO schema_version (version, name, checksum, min_build, applied_by) VALUES ($1, $2, $3, $4, $5)";
    }
}

/// Migrates in a session that ends afterwards: settings and locks of it are left as they are.
pub(super) async fn migrate(
    connection: &mut PgConnection,
    schema: &SchemaName,
    blockers: &Blockers,
    patience: Patience,
) -> Result<Migrated, Fault> {
    version::expect_utf8(&mut *connection).await?;
    let pid = need(query(ME).fetch_one(&mut *connection).await?.int("pid")?, "pid")?;
    let mut run = Run { schema, patience, from: None, step: None };
    let from = blockers.watching(pid, patience.silence, run.all(connection, blockers)).await?;
    let to = version::check(connection, schema).await?;
    Ok(Migrated { from, to })
}

/// One call.
struct Run<'a> {
    schema: &'a SchemaName,
    patience: Patience,
    /// The version that was found.
    from: Option<i64>,
    /// The migration at which it is.
    step: Option<&'static Migration>,
}

impl Run<'_> {
    /// Tries until everything is applied. Between two tries others may have their turn: an older build waits for it in a statement, which
    /// a concurrent build waits for.
    async fn all(&mut self, connection: &mut PgConnection, blockers: &Blockers) -> Result<i64, Fault> {
        // Time that was lost to locks. Indexes that are built meanwhile may take longer.
        let (mut waited, mut pause) = (Duration::ZERO, self.patience.pause);
        loop {
            self.turn(connection, Instant::now()).await?;
            let result = self.steps(connection).await;
            // A connection that is gone has given its turn back.
            let ended = query(END_TURN).bind(self.schema.as_str()).execute(&mut *connection).await;
            match result {
                Err(fault) if fault.is_lock_wait() => {
                    let who = blockers.take();
                    waited += self.patience.lock;
                    if waited >= self.patience.total {
                        return Err(Fault::Busy(self.blocked(&who)));
                    }
                    let step = self.step.map(|step| step.version);
                    tracing::warn!(migration = step, reason = %fault.reason(), blocked_by = who, "migration got no lock; retrying");
                }
                Err(fault) => return Err(fault),
                Ok(from) => {
                    ended?;
                    return Ok(from);
                }
            }
            let rest = pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
            tokio::time::sleep(rest).await;
            waited += rest;
            pause = (pause * 2).min(LONGEST);
        }
    }

    fn blocked(&self, who: &str) -> String {
        let step = match self.step {
            Some(step) => format!("migration {} ({})", step.version, step.name),
            None => "preparing the schema".to_owned(),
        };
        format!(
            "{step} got no lock within {} s: blocked by {who}; wait for the end of that transaction, or end its session \
             (SELECT pg_terminate_backend(PROCESS)), and migrate again: what was applied before is kept",
            self.patience.total.as_secs_f64()
        )
    }

    /// Waits until no other process migrates this schema.
    async fn turn(&mut self, connection: &mut PgConnection, began: Instant) -> Result<(), Fault> {
        let schema = self.schema.as_str();
        loop {
            if query(TURN).bind(schema).fetch_one(&mut *connection).await?.try_get(0)? {
                return Ok(());
            }
            if began.elapsed() >= self.patience.total {
                let who = match query(IN_TURN).bind(schema).fetch_optional(&mut *connection).await? {
                    Some(row) => {
                        let (pid, name) =
                            (need(row.int("pid")?, "pid")?, need(row.text("application")?, "application")?);
                        format!("process {pid} ({name})")
                    }
                    None => "another process".to_owned(),
                };
                return Err(Fault::Busy(format!("the schema {schema} is being migrated by {who}; wait for its end")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Applies what is missing. Returns the version that was found.
    async fn steps(&mut self, connection: &mut PgConnection) -> Result<i64, Fault> {
        self.limit(connection, self.patience.lock).await?;
        self.step = None;
        let mut tx = connection.begin().await?;
        // Asked first, since CREATE SCHEMA IF NOT EXISTS needs the right to create schemas even if it exists.
        let exists: bool = query(SCHEMA_EXISTS).bind(self.schema.as_str()).fetch_one(&mut *tx).await?.try_get(0)?;
        if !exists {
            // A name of lower-case letters, digits and underscores.
            raw_sql(AssertSqlSafe(format!("CREATE SCHEMA \"{}\"", self.schema))).execute(&mut *tx).await?;
        }
        let applied = version::applied(&mut tx, self.schema).await?;
        let pending = schema::pending(POSTGRES, &applied, BUILD)?;
        if !pending.is_empty() {
            query(CREATE_VERSIONS).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        let from = *self.from.get_or_insert(schema::version(&applied));
        for migration in pending {
            self.step = Some(migration);
            tracing::debug!(migration = migration.version, name = migration.name, "applying a migration");
            if from > 0 {
                self.limit(connection, self.patience.total).await?;
                self.drop_invalid(connection, migration).await?;
            }
            // Nothing waits behind the build of an index of a table that was just made.
            if migration.is_transactional() || from == 0 {
                self.limit(connection, self.patience.lock).await?;
                self.at_once(connection, migration).await?;
            } else {
                // Nothing but other changes of the schema waits behind a concurrent build.
                self.limit(connection, self.patience.total).await?;
                self.apart(connection, migration).await?;
            }
        }
        Ok(from)
    }

    /// Applies a migration in one transaction.
    async fn at_once(&self, connection: &mut PgConnection, migration: &Migration) -> Result<(), Fault> {
        let mut tx = connection.begin().await?;
        // A constant of this build.
        raw_sql(AssertSqlSafe(migration.in_transaction())).execute(&mut *tx).await?;
        wrote(&mut tx, migration).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Applies a migration whose statements cannot be in a transaction. Each may have been carried out by an earlier call.
    async fn apart(&self, connection: &mut PgConnection, migration: &Migration) -> Result<(), Fault> {
        for (statement, name) in migration.statements().into_iter().zip(migration.indexes()) {
            tracing::info!(migration = migration.version, index = name, "building an index beside running daemons");
            raw_sql(AssertSqlSafe(statement)).execute(&mut *connection).await?;
        }
        // `IF NOT EXISTS` accepts an index that another session began to build meanwhile, and did not finish.
        let invalid = query(INVALID).bind(self.schema.as_str()).bind(migration.indexes());
        if let Some(row) = invalid.fetch_optional(&mut *connection).await? {
            let name = need(row.text("name")?, "name")?;
            return Err(Fault::Busy(format!(
                "the index {name} is not valid after its build: another session built it as well; migrate again, which \
                 waits for that session or builds the index anew"
            )));
        }
        wrote(connection, migration).await
    }

    /// Drops what interrupted builds left. An index that another session is building is waited for, and kept if it becomes valid.
    async fn drop_invalid(&self, connection: &mut PgConnection, migration: &Migration) -> Result<(), Fault> {
        let began = Instant::now();
        loop {
            let invalid = query(INVALID).bind(self.schema.as_str()).bind(migration.indexes());
            let Some(row) = invalid.fetch_optional(&mut *connection).await? else { return Ok(()) };
            let name = need(row.text("name")?, "name")?;
            if let Some(pid) = row.int("pid")? {
                if began.elapsed() >= self.patience.total {
                    let who = format!("process {pid} ({})", row.text("application")?.unwrap_or_default());
                    let step = format!("migration {} ({})", migration.version, migration.name);
                    return Err(Fault::Busy(format!(
                        "{step} waits for the index {name}, which {who} is building; wait for the end of that build, and \
                         migrate again: what was applied before is kept"
                    )));
                }
                tokio::time::sleep(LOOK).await;
                continue;
            }
            tracing::warn!(index = name, "dropping an index whose build was interrupted; it is built again");
            // One of this build's own names.
            let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS \"{}\".\"{name}\"", self.schema);
            raw_sql(AssertSqlSafe(drop)).execute(&mut *connection).await?;
        }
    }

    /// Bounds the wait for locks and nothing else: a build takes as long as its table is large.
    async fn limit(&self, connection: &mut PgConnection, lock: Duration) -> Result<(), Fault> {
        query(LIMIT).bind("0").bind(lock.as_millis().to_string()).execute(connection).await?;
        Ok(())
    }
}

async fn wrote(connection: &mut PgConnection, migration: &Migration) -> Result<(), Fault> {
    query(versions::WRITE)
        .bind(migration.version)
        .bind(migration.name)
        .bind(migration.checksum())
        .bind(migration.min_build()?)
        .bind(BUILD)
        .execute(connection)
        .await?;
    Ok(())
}
