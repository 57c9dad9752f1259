//! The database under test, and what only SQLite can show.

use super::*;
use crate::db::conformance::{self, BackDoor, Subject, arrival};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Executor, Row, SqlitePool, raw_sql};

/// A file of its own, gone in the end.
struct Own {
    folder: tempfile::TempDir,
    raw: SqlitePool,
}

impl Own {
    fn new() -> Own {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(folder.path().join("agentry.db")).create_if_missing(true);
        Own { folder, raw: SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options) }
    }

    fn with(&self, options: DbOptions) -> SqliteDb {
        SqliteDb::connect(&self.folder.path().join("agentry.db"), &options).unwrap()
    }

    fn options() -> DbOptions {
        DbOptions { max_connections: 2, timeout: Duration::from_secs(30), ..DbOptions::default() }
    }
}

#[async_trait]
impl BackDoor for Own {
    async fn execute(&self, sql: &str) -> Result<u64, String> {
        let sql = raw_sql(AssertSqlSafe(sql.to_owned()));
        sql.execute(&self.raw).await.map(|done| done.rows_affected()).map_err(|e| e.to_string())
    }

    async fn number(&self, sql: &str) -> i64 {
        raw_sql(AssertSqlSafe(sql.to_owned())).fetch_one(&self.raw).await.unwrap().get(0)
    }

    async fn refuse(&self, name: &str) {
        for (table, column) in [("tasks", "plugin_name"), ("task_logs", "logger")] {
            let sql = format!(
                "CREATE TRIGGER refuse_{table} BEFORE INSERT ON {table} WHEN NEW.{column} = '{name}'
                 BEGIN SELECT RAISE(ABORT, 'refused'); END"
            );
            self.execute(&sql).await.unwrap();
        }
    }

    async fn empty(&self) {
        // The tables behind the index of words go with it.
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
            AND name NOT LIKE 'memory\\_words\\_%' ESCAPE '\\'";
        for row in raw_sql(sql).fetch_all(&self.raw).await.unwrap() {
            self.execute(&format!("DROP TABLE {}", row.get::<String, _>(0))).await.unwrap();
        }
    }

    fn open(&self) -> Box<dyn Db> {
        Box::new(self.with(Own::options()))
    }
}

/// A fresh, migrated database.
pub(in crate::db) async fn subject() -> Subject {
    let own = Own::new();
    let db = own.open();
    db.migrate().await.unwrap();
    Subject { db, back_door: Box::new(own) }
}

#[tokio::test]
async fn every_statement_is_taken_by_the_database() {
    let own = Own::new();
    let db = own.with(Own::options());
    db.migrate().await.unwrap();
    db.create_queues().await.unwrap();
    let mut connection = db.writer.line.pool.acquire().await.unwrap();
    let files = [
        ("buckets", buckets::ALL),
        ("dead", dead::ALL),
        ("duties", duties::ALL),
        ("erase", erase::ALL),
        ("examine", examine::ALL),
        ("hosts", hosts::ALL),
        ("memories", memories::ALL),
        ("outbox", outbox::ALL),
        ("labelled", labelled::ALL),
        ("log", log::ALL),
        ("outgoing", outgoing::ALL),
        ("prune", prune::ALL),
        ("queue", queue::ALL),
        ("queue", queue::tables::ALL),
        ("queue", queue::asked::ALL),
        ("read", read::ALL),
        ("redrive", redrive::ALL),
        ("retry", retry::ALL),
        ("settle", settle::ALL),
        ("settle::details", settle::details::ALL),
        ("sizes", sizes::ALL),
        ("spending", spending::ALL),
        ("steering", steering::ALL),
        ("submit", submit::ALL),
        ("transition", transition::ALL),
        ("unusable", unusable::ALL),
        ("waiting", waiting::ALL),
        ("version", version::ALL),
        ("version", version::versions::ALL),
    ];
    for (file, statements) in files {
        assert!(!statements.is_empty(), "{file}");
        for (name, text) in statements {
            (&mut *connection)
                .prepare(sqlx::SqlStr::from_static(text))
                .await
                .unwrap_or_else(|e| panic!("{file}::{name}: {e}"));
        }
    }
}

#[tokio::test]
async fn statements_find_their_rows_by_an_index() {
    let own = Own::new();
    let db = own.with(Own::options());
    db.migrate().await.unwrap();
    for (statement, index) in [
        (read::TASKS, "tasks_newest ((created_at,id)<(?,?))"),
        (read::TASKS_OF_STATE, "tasks_of_state (state=? AND (created_at,id)<(?,?))"),
        (read::TASKS_RUNNING, "tasks_running"),
        (read::TASKS_OF_PLUGIN, "tasks_of_plugin (plugin_name=? AND (created_at,id)<(?,?))"),
        (read::TASKS_OF_QUEUE, "tasks_of_queue (queue=? AND (created_at,id)<(?,?))"),
        (read::TASKS_LABELLED, "tasks_labelled ((created_at,id)<(?,?))"),
        (read::TASKS_OF_KIND, "tasks_of_kind (<expr>=? AND (created_at,id)<(?,?))"),
        (read::TASKS_OF_RETRIES, "tasks_retries (retry_of=?"),
        (read::TASKS_SINCE, "tasks_completed (finished_at>?)"),
        (read::TASKS_SINCE, "tasks_not_completed (finished_at>?)"),
        (read::TASKS_SINCE, "tasks_newest (created_at>?)"),
        (labelled::BENCH_ENDED, "tasks_of_bench (<expr>=?)"),
        (labelled::BENCH_UNFINISHED, "tasks_of_bench_open (<expr>=?)"),
        (labelled::BENCH_VALUES, "tasks_of_bench_open"),
        (duties::DUE, "tasks_due (run_at<?)"),
        (duties::EXPIRED, "tasks_expiring (deadline>? AND deadline<?)"),
        (duties::CALLED_OFF, "tasks_called_off"),
        (duties::WAITED_FOR, "tasks_unserved (plugin>?)"),
        (waiting::WAITING, "tasks_of_state (state=?)"),
        (waiting::WAITING, "tasks_parked (plugin_name>?)"),
        (waiting::WAITING, "tasks_parked (plugin_name=?)"),
        (waiting::WAITING, "outbox_due"),
        (duties::UNKNOWN, "tasks_unserved (plugin=? AND waiting_since<?)"),
        (duties::LOST, "tasks_running"),
        (read::PARKED, "tasks_parked (plugin_name=?)"),
        (read::DEAD, "INTEGER PRIMARY KEY (rowid<?)"),
        (steering::NEWS, "tasks_cancelling (owner=?)"),
        (steering::WAITING, "tasks_waiting (state=?)"),
        (outbox::DUE, "outbox_due (due_at<?)"),
        (prune::COMPLETED, "tasks_completed (finished_at<?)"),
        (prune::OTHERS, "tasks_not_completed (finished_at<?)"),
    ] {
        let explain = raw_sql(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")));
        let rows = explain.fetch_all(&own.raw).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        assert!(plan.iter().any(|line| line.contains(index)), "{index}: {plan:#?}");
        let scans = |line: &&String| ["SCAN tasks", "SCAN t"].contains(&line.as_str());
        assert!(!plan.iter().any(|line| scans(&line)), "{index}: {plan:#?}");
    }
}

#[tokio::test]
async fn migration_of_a_locked_file_names_the_cause_and_works_when_it_is_repeated() {
    let own = Own::new();
    own.with(Own::options()).ping().await.unwrap();
    let mut other = own.raw.begin_with("BEGIN IMMEDIATE").await.unwrap();
    raw_sql("CREATE TABLE elsewhere (x)").execute(&mut *other).await.unwrap();
    let hasty = own.with(DbOptions { timeout: Duration::from_millis(200), ..Own::options() });
    let error = hasty.migrate().await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("locked by another process"), "{error}");
    other.rollback().await.unwrap();
    assert_eq!(hasty.migrate().await.unwrap().from, 0);
}

#[tokio::test]
async fn a_file_that_is_no_database_and_a_missing_folder_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing").join("agentry.db");
    let error = SqliteDb::connect(&path, &DbOptions::default()).unwrap_err();
    assert!(matches!(&error, DbError::Refused(text) if text.contains("missing")), "{error:?}");
    let path = folder.path().join("text.db");
    std::fs::write(&path, "this is not a database, and long enough to be seen as none ".repeat(20)).unwrap();
    let error = SqliteDb::connect(&path, &DbOptions::default()).unwrap().check_schema().await.unwrap_err();
    assert!(matches!(&error, DbError::Refused(text) if text.contains("text.db")), "{error:?}");
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let own = Own::new();
    let db = own.with(Own::options());
    db.migrate().await.unwrap();
    let (host, arrival) = (conformance::id(), arrival());
    db.claim(conformance::steady(host), std::slice::from_ref(&arrival)).await.unwrap();
    db.close().await;
    let db = own.with(Own::options());
    assert_eq!(db.task(arrival.message.id, Fields::default()).await.unwrap().unwrap().host, Some(host));
    assert!(matches!(db.claim(conformance::steady(host), &[arrival]).await.unwrap()[0], ClaimAnswer::Mine(_)));
}

#[tokio::test]
async fn commits_are_on_the_disk_before_they_are_told() {
    let own = Own::new();
    let db = own.with(Own::options());
    db.migrate().await.unwrap();
    let mut connection = db.writer.line.pool.acquire().await.unwrap();
    let synchronous: i64 = raw_sql("PRAGMA synchronous").fetch_one(&mut *connection).await.unwrap().get(0);
    let journal: String = raw_sql("PRAGMA journal_mode").fetch_one(&mut *connection).await.unwrap().get(0);
    assert_eq!((synchronous, journal.as_str()), (2, "wal"));
    let mut reader = db.readers.pool.acquire().await.unwrap();
    assert!(raw_sql("DELETE FROM tasks").execute(&mut *reader).await.is_err());
}

#[tokio::test]
async fn a_writer_in_the_way_is_waited_for_and_then_unavailable() {
    let own = Own::new();
    let db = own.with(DbOptions { timeout: Duration::from_millis(300), ..Own::options() });
    db.migrate().await.unwrap();
    let mut blocker = own.raw.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let error = db.claim(conformance::steady(conformance::id()), &[arrival()]).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    // Readers are not in anybody's way.
    assert!(db.task(conformance::id(), Fields::default()).await.unwrap().is_none());
    raw_sql("SELECT 1").execute(&mut *blocker).await.unwrap();
    blocker.rollback().await.unwrap();
}

#[tokio::test]
async fn what_was_erased_is_not_in_the_file_either() {
    let own = Own::new();
    let db = own.with(Own::options());
    db.migrate().await.unwrap();
    let host = conformance::id();
    // Long enough for pages of its own, which are free afterwards.
    let input = format!("\"{}\"", "hunter2 ".repeat(4_000));
    let message = conformance::message(conformance::id(), "word-count", &input, Default::default());
    let arrival = conformance::arrival_of(message, conformance::here());
    let answer = db.claim(conformance::steady(host), std::slice::from_ref(&arrival)).await.unwrap().remove(0);
    let ClaimAnswer::Run(claimed) = answer else { panic!("{answer:?}") };
    db.settle(host, &[conformance::settlement(&arrival, &claimed, conformance::completed())]).await.unwrap();
    let found = || {
        let file = std::fs::read(own.folder.path().join("agentry.db")).unwrap();
        file.windows(7).filter(|bytes| bytes == b"hunter2").count()
    };
    db.erase(arrival.message.id).await.unwrap();
    // With the last connection the write-ahead log goes into the file.
    db.close().await;
    assert_eq!(found(), 0);
}

#[tokio::test]
async fn what_was_forgotten_or_deleted_is_not_in_the_file_either() {
    let own = Own::new();
    let db = own.with(Own::options());
    db.migrate().await.unwrap();
    let (stores, limits) = (db.stores(), StoreLimits::default());
    let place = Place { plugin: "p".into(), name: "m".into() };
    let id = stores.remember(&place, "the word is hunter2", "{}", &limits, None).await.unwrap().unwrap();
    stores.remember(&place, "another text", "{}", &limits, None).await.unwrap().unwrap();
    let value = b"hunter2 ".repeat(4_000);
    stores.bucket_set(&place, vec![("k".into(), value)], &limits, None).await.unwrap().unwrap();
    stores.forget(&place, id, None).await.unwrap().unwrap();
    stores.bucket_delete(&place, &["k".to_owned()], None).await.unwrap().unwrap();
    db.close().await;
    let file = std::fs::read(own.folder.path().join("agentry.db")).unwrap();
    assert_eq!(file.windows(7).filter(|bytes| bytes == b"hunter2").count(), 0);
    assert!(file.windows(7).any(|bytes| bytes == b"another"), "what is kept is there to be seen");
}

#[tokio::test]
async fn operator_is_told_of_schema_tasks_letters_and_the_file() {
    let own = Own::new();
    let db = own.with(Own::options());
    conformance::examining::examined(&db, &db).await;
    let age = async |sql: &str| assert_eq!(own.execute(sql).await, Ok(1));
    conformance::examining::late(&db, &db, age).await;
    let file = db.file().await.unwrap().expect("it has a file");
    assert!(file.bytes > 0 && file.log_bytes > 0, "{file:?}");
    assert_eq!(db.connections().await.unwrap(), None);
    db.close().await;
    own.execute("PRAGMA wal_checkpoint(TRUNCATE)").await.unwrap();
    own.raw.close().await;
    let path = own.folder.path().join("agentry.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4_096].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let damage = own.with(Own::options()).damage().await;
    assert!(damage.as_ref().map_or(true, |lines| !lines.is_empty()), "a page of rubbish is found: {damage:?}");
}

#[tokio::test]
#[ignore = "prints how long the hot path takes"]
async fn timing() {
    conformance::timing(&subject().await, "sqlite").await;
}
