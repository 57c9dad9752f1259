//! Migrations of a schema that is in use.

use super::*;
use crate::db::conformance::steady;
use crate::db::fault::Fault;
use crate::db::postgres::migrate::Patience;
use crate::db::schema::{Migration, POSTGRES};
use crate::db::{DbError, Migrated};
use sqlx::Postgres;

const LATEST: i64 = POSTGRES.len() as i64;
/// Long enough for a look at who is in the way.
const SHORT: Patience = Patience {
    lock: Duration::from_millis(600),
    total: Duration::from_millis(700),
    pause: Duration::from_millis(10),
    silence: Duration::from_secs(60),
};

/// A schema as an older build left it.
async fn at_version(version: usize) -> (Own, Arc<PostgresDb>) {
    let own = Own::new().await;
    own.execute("CREATE SCHEMA agentry").await.unwrap();
    own.execute(migrate::CREATE_VERSIONS).await.unwrap();
    for Migration { version, name, sql } in &POSTGRES[..version] {
        own.execute(sql).await.unwrap();
        let checksum = POSTGRES[*version as usize - 1].checksum();
        let row =
            format!("INSERT INTO schema_version VALUES ({version}, '{name}', '{checksum}', '0.1.0', now(), '0.1.0')");
        own.execute(&row).await.unwrap();
    }
    let db = Arc::new(own.with(Own::options()));
    (own, db)
}

/// A transaction of a session with this name, which has done this.
async fn session(own: &Own, name: &str, sql: &str) -> sqlx::Transaction<'static, Postgres> {
    let mut tx = own.raw.begin().await.unwrap();
    raw_sql(AssertSqlSafe(format!("{sql}; SET application_name = '{name}'"))).execute(&mut *tx).await.unwrap();
    tx
}

fn unavailable<T: std::fmt::Debug>(result: Result<T, DbError>) -> String {
    match result {
        Err(DbError::Unavailable(text)) => text,
        other => panic!("not unavailable: {other:?}"),
    }
}

const SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM tasks";
const INVALID: &str = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";

#[tokio::test]
async fn migration_without_lock_names_the_session_in_its_way_and_keeps_what_was_applied() {
    let (own, db) = at_version(5).await;
    let report = session(&own, "report", "LOCK TABLE dead_letters IN ACCESS SHARE MODE").await;
    let text = unavailable(db.migrate_with(SHORT).await);
    for part in ["migration 7 (operators)", "report", "idle in transaction", "pg_terminate_backend", "migrate again"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(own.number("SELECT max(version) FROM schema_version").await, 6);
    // It has let go of everything, of its turn too.
    own.execute("BEGIN; LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE NOWAIT; COMMIT").await.unwrap();
    report.rollback().await.unwrap();
    assert_eq!(db.migrate_with(SHORT).await.unwrap(), Migrated { from: 6, to: LATEST });
}

#[tokio::test]
async fn migration_waits_for_no_lock_with_others_behind_it() {
    let (own, db) = at_version(6).await;
    let report = session(&own, "report", "LOCK TABLE tasks IN ACCESS SHARE MODE").await;
    let patience = Patience { total: Duration::from_secs(60), ..SHORT };
    let migrating = tokio::spawn({
        let db = db.clone();
        async move { db.migrate_with(patience).await }
    });
    until_waiting(&own, 1).await;
    // Waits behind the migration, until that lets go.
    let read = tokio::time::timeout(Duration::from_secs(20), own.number("SELECT count(*) FROM tasks")).await;
    assert_eq!(read.expect("a read is not kept waiting"), 0);
    assert!(!migrating.is_finished());
    report.rollback().await.unwrap();
    assert_eq!(migrating.await.unwrap().unwrap(), Migrated { from: 6, to: LATEST });
}

#[tokio::test]
async fn interrupted_build_of_an_index_is_done_again_while_tasks_go_on() {
    let (own, db) = at_version(9).await;
    let host = conformance::id();
    let claim = async || {
        let answers = db.claim(steady(host), &[arrival()]).await.unwrap();
        assert!(matches!(answers[0], ClaimAnswer::Run(_)), "{answers:?}");
    };
    claim().await;
    let backup = session(&own, "backup", SNAPSHOT).await;
    let migrating = tokio::spawn({
        let db = db.clone();
        async move { db.migrate().await }
    });
    until_waiting(&own, 1).await;
    claim().await;
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    assert_eq!(own.number(kill).await, 1);
    assert!(migrating.await.unwrap().unwrap_err().is_transient());
    assert_eq!((own.number(INVALID).await, own.number("SELECT max(version) FROM schema_version").await), (1, 9));
    let text = unavailable(db.migrate_with(SHORT).await);
    assert!(text.contains("migration 10 (lists)") && text.contains("backup"), "{text}");
    claim().await;
    backup.rollback().await.unwrap();
    assert_eq!(db.migrate().await.unwrap(), Migrated { from: 9, to: LATEST });
    assert_eq!(own.number(INVALID).await, 0);
    for index in POSTGRES.iter().flat_map(Migration::indexes) {
        let found = format!("SELECT count(*) FROM pg_indexes WHERE schemaname = 'agentry' AND indexname = '{index}'");
        assert_eq!(own.number(&found).await, 1, "{index}");
    }
}

#[tokio::test]
async fn older_build_that_waits_for_its_turn_does_not_stop_a_build_of_an_index() {
    let (own, db) = at_version(9).await;
    let backup = session(&own, "backup", SNAPSHOT).await;
    let migrating = tokio::spawn({
        let db = db.clone();
        async move { db.migrate().await }
    });
    until_waiting(&own, 1).await;
    // As builds before this one take their turn: in a statement, whose snapshot a concurrent build waits for.
    let other = own.with(Own::options());
    let older = tokio::spawn(async move {
        let turn = "SELECT pg_advisory_xact_lock(hashtextextended('agentry migrates agentry', 0))";
        loop {
            let mut tx = other.lines.path.pool.begin().await.unwrap();
            match raw_sql(turn).execute(&mut *tx).await.map_err(Fault::from) {
                Ok(_) => return tx.commit().await.unwrap(),
                // Of two that wait for each other, the server ends the wait of one. Both try again.
                Err(fault) => assert!(fault.is_contention(), "{fault:?}"),
            }
        }
    });
    until_waiting(&own, 2).await;
    backup.rollback().await.unwrap();
    let both = async { (migrating.await.unwrap(), older.await.unwrap()) };
    let (migrated, ()) =
        tokio::time::timeout(Duration::from_secs(60), both).await.expect("neither waits for the other");
    assert_eq!(migrated.unwrap(), Migrated { from: 9, to: LATEST });
}

#[tokio::test]
async fn index_that_an_operator_built_before_is_kept() {
    let (own, db) = at_version(6).await;
    for index in [
        "CREATE INDEX CONCURRENTLY tasks_retries ON tasks (retry_of, created_at) WHERE retry_of IS NOT NULL",
        "CREATE INDEX CONCURRENTLY tasks_newest ON tasks (created_at, id)",
    ] {
        own.execute(index).await.unwrap();
    }
    let built = "SELECT sum(oid::bigint)::bigint FROM pg_class WHERE relname IN ('tasks_retries', 'tasks_newest')";
    let before = own.number(built).await;
    assert_eq!(db.migrate().await.unwrap(), Migrated { from: 6, to: LATEST });
    assert_eq!(own.number(built).await, before);
}

#[tokio::test]
async fn migration_by_another_process_is_waited_for_only_so_long() {
    let (own, db) = at_version(9).await;
    let turn = "SELECT pg_advisory_xact_lock(hashtextextended('agentry migrates agentry', 0))";
    let other = session(&own, "agentry/9.9.9/there/7", turn).await;
    let text = unavailable(db.migrate_with(SHORT).await);
    assert!(text.contains("agentry/9.9.9/there/7") && text.contains("wait for its end"), "{text}");
    other.rollback().await.unwrap();
    assert_eq!(db.migrate().await.unwrap(), Migrated { from: 9, to: LATEST });
}

#[tokio::test]
async fn migration_that_is_given_up_leaves_its_turn_to_others() {
    let (own, db) = at_version(6).await;
    let report = session(&own, "report", "LOCK TABLE tasks IN ACCESS SHARE MODE").await;
    // Nothing is heard of the server while the migration waits for a lock under its turn.
    db.lines.reads.pool.close().await;
    let patience = Patience { lock: Duration::from_secs(60), silence: Duration::from_secs(1), ..SHORT };
    assert!(db.migrate_with(patience).await.unwrap_err().is_transient());
    report.rollback().await.unwrap();
    let patience = Patience { total: Duration::from_secs(20), ..SHORT };
    let migrated = own.with(Own::options()).migrate_with(patience).await.expect("the turn of the other is over");
    assert_eq!(migrated, Migrated { from: 6, to: LATEST });
    assert_eq!(db.lines.path.pool.size(), 0, "a session that migrated is not used again");
}

/// Waits until the first build of the index by another session shows up, which the snapshot of a third one holds up.
async fn building(own: &Own) -> tokio::task::JoinHandle<Result<u64, String>> {
    let (server, name) = (own.server.clone(), own.name.clone());
    let build = tokio::spawn(async move {
        let mut operator = PgConnection::connect(&at(&server, &name)).await.unwrap();
        let index = "SET search_path = agentry; SET application_name = 'operator'";
        operator.execute(index).await.unwrap();
        let build = "CREATE INDEX CONCURRENTLY tasks_newest ON tasks (created_at, id)";
        operator.execute(build).await.map(|done| done.rows_affected()).map_err(|error| error.to_string())
    });
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while own.number(INVALID).await == 0 {
        assert!(std::time::Instant::now() < patience, "the operator's build has not begun");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    build
}

#[tokio::test]
async fn index_that_an_operator_is_building_is_waited_for_and_kept() {
    let (own, db) = at_version(9).await;
    let backup = session(&own, "backup", SNAPSHOT).await;
    let build = building(&own).await;
    let which = "SELECT oid::bigint FROM pg_class WHERE relname = 'tasks_newest'";
    let built = own.number(which).await;
    let text = unavailable(db.migrate_with(SHORT).await);
    for part in ["migration 10 (lists)", "tasks_newest", "operator", "migrate again"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let migrating = tokio::spawn({
        let db = db.clone();
        async move { db.migrate().await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!build.is_finished() && !migrating.is_finished());
    backup.rollback().await.unwrap();
    build.await.unwrap().expect("the operator's build ends well");
    assert_eq!(migrating.await.unwrap().unwrap(), Migrated { from: 9, to: LATEST });
    assert_eq!((own.number(which).await, own.number(INVALID).await), (built, 0), "it is the operator's index");
}
