//! The database under test, and what only Postgres can show.

use super::*;
use crate::db::conformance::{self, BackDoor, Subject, arrival, completed, settlement};
use crate::task::Options;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, Row, raw_sql};
use std::str::FromStr;

mod examining;
mod growth;
mod letters;
mod locking;
mod migrating;
mod plans;
mod poolers;
mod pools;
mod replying;
mod submitting;

/// A database of its own on the server of `AGENTRY_TEST_POSTGRES`, dropped in the end, also after a panic.
struct Own {
    server: String,
    name: String,
    raw: PgPool,
}

fn server() -> String {
    std::env::var("AGENTRY_TEST_POSTGRES").expect("set AGENTRY_TEST_POSTGRES, or run `cargo xtask test`")
}

fn at(server: &str, database: &str) -> String {
    let mut url = url::Url::parse(server).expect("AGENTRY_TEST_POSTGRES is a URL");
    url.set_path(database);
    url.into()
}

impl Own {
    async fn new() -> Own {
        Own::encoded("'UTF8'").await
    }

    async fn encoded(encoding: &str) -> Own {
        let server = server();
        let name = format!("agentry_test_{}", uuid::Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&server).await.expect("the server of AGENTRY_TEST_POSTGRES answers");
        let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING {encoding}");
        raw_sql(AssertSqlSafe(create)).execute(&mut admin).await.expect("databases may be created there");
        let raw = PgConnectOptions::from_str(&at(&server, &name)).unwrap().options([("search_path", "agentry")]);
        Own { server, name, raw: PgPoolOptions::new().max_connections(2).connect_lazy_with(raw) }
    }

    fn with(&self, options: DbOptions) -> PostgresDb {
        PostgresDb::connect(&at(&self.server, &self.name), &options).unwrap()
    }

    fn options() -> DbOptions {
        DbOptions { max_connections: 4, timeout: Duration::from_secs(30), ..DbOptions::default() }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let (server, drop) = (self.server.clone(), format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        // In a thread and runtime of its own: this one may be panicking.
        let dropped = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let mut admin = PgConnection::connect(&server).await.unwrap();
                raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await.unwrap();
            })
        });
        if dropped.join().is_err() && !std::thread::panicking() {
            panic!("the database {} was not dropped", self.name);
        }
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
        for sql in [
            format!("ALTER TABLE tasks ADD CONSTRAINT refused CHECK (plugin_name <> '{name}')"),
            format!("ALTER TABLE task_logs ADD CONSTRAINT refused CHECK (logger <> '{name}')"),
        ] {
            self.execute(&sql).await.unwrap();
        }
    }

    async fn empty(&self) {
        self.execute("DROP SCHEMA agentry CASCADE").await.unwrap();
    }

    fn open(&self) -> Box<dyn Db> {
        Box::new(self.with(Own::options()))
    }
}

/// A fresh, migrated database.
pub(in crate::db) async fn subject() -> Subject {
    let own = Own::new().await;
    let db = own.open();
    db.migrate().await.unwrap();
    Subject { db, back_door: Box::new(own) }
}

#[tokio::test]
async fn every_statement_is_taken_by_the_database() {
    let own = Own::new().await;
    let db = own.with(Own::options());
    db.migrate().await.unwrap();
    let mut connection = db.lines.path.pool.acquire().await.unwrap();
    let files = [
        ("blockers", blockers::ALL),
        ("buckets", buckets::ALL),
        ("claim", claim::ALL),
        ("connect", connect::ALL),
        ("dead", dead::ALL),
        ("duties", duties::ALL),
        ("erase", erase::ALL),
        ("examine", examine::ALL),
        ("hosts", hosts::ALL),
        ("memories", memories::ALL),
        ("migrate", migrate::ALL),
        ("migrate", migrate::versions::ALL),
        ("outbox", outbox::ALL),
        ("labelled", labelled::ALL),
        ("prune", prune::ALL),
        ("read", read::ALL),
        ("record", record::ALL),
        ("redrive", redrive::ALL),
        ("replies", replies::ALL),
        ("retry", retry::ALL),
        ("settle", settle::ALL),
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
async fn an_address_that_cannot_mend_itself_is_told_from_one_that_may() {
    let options = DbOptions { timeout: Duration::from_secs(5), ..DbOptions::default() };
    let missing = PostgresDb::connect(&at(&server(), "agentry_test_missing"), &options).unwrap();
    let error = missing.ping().await.unwrap_err();
    assert!(matches!(&error, DbError::Refused(text) if text.contains("agentry_test_missing")), "{error:?}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = PostgresDb::connect(&format!("postgres://user:secret@{free}/db"), &options).unwrap();
    let error = away.ping().await.unwrap_err();
    let text = error.to_string();
    assert!(error.is_transient() && text.contains(&free.to_string()) && text.contains("refused"), "{text}");
    assert!(!text.contains("secret") && !away.place().contains("secret"), "{text}");
}

#[tokio::test]
async fn the_tables_are_in_the_named_schema_and_two_schemas_do_not_meet() {
    let own = Own::new().await;
    let one = own.with(Own::options());
    let other = own.with(DbOptions { schema: "other_2".parse().unwrap(), ..Own::options() });
    one.migrate().await.unwrap();
    other.migrate().await.unwrap();
    let arrival = arrival();
    one.claim(conformance::steady(conformance::id()), std::slice::from_ref(&arrival)).await.unwrap();
    assert!(other.task(arrival.message.id, Fields::default()).await.unwrap().is_none());
    assert_eq!(own.number("SELECT count(*) FROM agentry.tasks").await, 1);
    assert_eq!(own.number("SELECT count(*) FROM other_2.tasks").await, 0);
}

/// Wait until so many backends of this database wait for a lock.
async fn until_waiting(own: &Own, count: i64) {
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while own.number(sql).await < count {
        assert!(std::time::Instant::now() < patience, "nobody waits for a lock");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_operation_that_takes_too_long_is_unavailable_and_works_when_repeated() {
    let own = Own::new().await;
    let patient = own.with(Own::options());
    patient.migrate().await.unwrap();
    let hasty = own.with(DbOptions { timeout: Duration::from_millis(300), max_connections: 1, ..DbOptions::default() });
    let (host, arrival) = (conformance::id(), arrival());
    let mut blocker = own.raw.begin().await.unwrap();
    raw_sql("LOCK TABLE tasks").execute(&mut *blocker).await.unwrap();
    let error = hasty.claim(conformance::steady(host), std::slice::from_ref(&arrival)).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    blocker.rollback().await.unwrap();
    // The one connection is usable again as soon as its statement has been cancelled.
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    let answer = loop {
        match hasty.claim(conformance::steady(host), std::slice::from_ref(&arrival)).await {
            Ok(mut answers) => break answers.remove(0),
            Err(error) => assert!(error.is_transient() && std::time::Instant::now() < patience, "{error:?}"),
        }
    };
    assert!(matches!(answer, ClaimAnswer::Run(_) | ClaimAnswer::Mine(_)), "{answer:?}");
}

#[tokio::test]
async fn a_write_that_waits_for_the_end_of_its_attempt_is_fenced() {
    let own = Own::new().await;
    let db = Arc::new(own.with(Own::options()));
    db.migrate().await.unwrap();
    let (host, arrival) = (conformance::id(), arrival());
    db.claim(conformance::steady(host), std::slice::from_ref(&arrival)).await.unwrap();
    let mut settling = own.raw.begin().await.unwrap();
    let end = format!(
        "UPDATE tasks SET state = 'cancelled', finished_at = statement_timestamp() WHERE id = '{}'",
        arrival.message.id
    );
    raw_sql(AssertSqlSafe(end)).execute(&mut *settling).await.unwrap();
    let (writer, place) = (Some((arrival.message.id, 1)), Place { plugin: "p".into(), name: "b".into() });
    let writing = tokio::spawn({
        let db = db.clone();
        async move {
            let pairs = vec![("k".to_owned(), Vec::new())];
            db.stores().bucket_set(&place, pairs, &StoreLimits::default(), writer).await.unwrap()
        }
    });
    until_waiting(&own, 1).await;
    settling.commit().await.unwrap();
    assert_eq!(writing.await.unwrap(), Err(StoreRefusal::Fenced));
    assert_eq!(own.number("SELECT count(*) FROM buckets").await, 0);
}

#[tokio::test]
async fn of_two_hosts_that_wait_for_a_lost_owners_row_one_takes_it_over() {
    let own = Own::new().await;
    let db = Arc::new(own.with(Own::options()));
    db.migrate().await.unwrap();
    let lost = conformance::record();
    db.register_host(&lost, conformance::LONG).await.unwrap();
    let arrival = arrival();
    db.claim(conformance::steady(lost.id), std::slice::from_ref(&arrival)).await.unwrap();
    db.end_lease(lost.id).await.unwrap();
    let mut blocker = own.raw.begin().await.unwrap();
    raw_sql("SELECT FROM tasks FOR UPDATE").execute(&mut *blocker).await.unwrap();
    let mut claims = Vec::new();
    for _ in 0..2 {
        let host = conformance::record();
        db.register_host(&host, conformance::LONG).await.unwrap();
        let (db, arrival) = (db.clone(), arrival.clone());
        claims.push(tokio::spawn(async move {
            db.claim(conformance::steady(host.id), &[arrival]).await.unwrap().remove(0)
        }));
    }
    until_waiting(&own, 2).await;
    blocker.rollback().await.unwrap();
    let mut ran = 0;
    for claim in claims {
        match claim.await.unwrap() {
            ClaimAnswer::Run(claimed) => {
                ran += 1;
                assert_eq!(claimed.fence, 2);
            }
            answer => {
                use crate::task::{Decision, claim::Kept};
                assert_eq!(answer, ClaimAnswer::Done(Decision::Keep(Kept::OwnedElsewhere)));
            }
        }
    }
    assert_eq!(ran, 1);
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_its_operation_whole() {
    let own = Own::new().await;
    let db = Arc::new(own.with(DbOptions { max_connections: 1, ..Own::options() }));
    db.migrate().await.unwrap();
    let (host, arrival) = (conformance::id(), arrival());
    let mut blocker = own.raw.begin().await.unwrap();
    raw_sql("LOCK TABLE tasks").execute(&mut *blocker).await.unwrap();
    let caller = tokio::spawn({
        let (db, arrival) = (db.clone(), arrival.clone());
        async move { db.claim(conformance::steady(host), &[arrival]).await }
    });
    until_waiting(&own, 1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    blocker.rollback().await.unwrap();
    // The one connection comes back only when the claim has ended, and the claim was carried out.
    let answer = db.claim(conformance::steady(host), std::slice::from_ref(&arrival)).await.unwrap().remove(0);
    let ClaimAnswer::Mine(claimed) = answer else { panic!("{answer:?}") };
    let settled = db.settle(host, &[settlement(&arrival, &claimed, completed())]).await.unwrap();
    assert_eq!(settled, [SettleAnswer::Settled]);
}

#[tokio::test]
async fn connections_that_the_server_closed_are_replaced() {
    let own = Own::new().await;
    let db = own.with(Own::options());
    db.migrate().await.unwrap();
    db.ping().await.unwrap();
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    assert!(own.number(sql).await > 0);
    let answers = db.claim(conformance::steady(conformance::id()), &[arrival()]).await.unwrap();
    assert!(matches!(answers[0], ClaimAnswer::Run(_)), "{answers:?}");
}

#[tokio::test]
async fn next_due_is_the_first_time_that_a_task_waits_for() {
    let s = subject().await;
    let patience = Duration::from_secs(60);
    let hour = Duration::from_secs(3_600);
    let due = async || s.db.next_due().await.unwrap();
    assert_eq!(due().await, Due { within: None, brakes: Some(0) });
    let at = |hours| Some(Utc::now() + chrono::TimeDelta::hours(hours));
    let later = Options { run_at: at(1), deadline: at(2), ..Options::default() };
    s.db.submit(&[conformance::new_task(conformance::id(), later)]).await.unwrap();
    let written = s.db.waiting_written().expect("it is notified").notified();
    tokio::time::timeout(patience, written).await.expect("of the submission");
    let next = due().await.within.unwrap();
    assert!(next <= hour && next > hour - patience, "{next:?}");
    s.set("UPDATE tasks SET deadline = now() + interval '10 minutes'").await;
    assert!(due().await.within.unwrap() <= hour / 6);
    s.set("UPDATE tasks SET cancel_requested = true").await;
    assert_eq!(due().await.within, Some(Duration::ZERO));
    assert_eq!(s.db.fail_expired(10).await.unwrap(), 1);
    let change = |target: &str| {
        let (kind, target, by) = (BrakeKind::Queue, target.to_owned(), "ops".into());
        BrakeChange { kind, target, set: true, by, reason: None }
    };
    for (target, number) in [("a", 1), ("b", 2), ("a", 2)] {
        s.db.steering().set_brake(&change(target)).await.unwrap();
        assert_eq!(due().await, Due { within: None, brakes: Some(number) }, "a host that rests hears of it");
    }
}

#[tokio::test]
#[ignore = "prints how long the hot path takes"]
async fn timing() {
    conformance::timing(&subject().await, "postgres").await;
}

#[tokio::test]
async fn a_database_that_does_not_store_every_character_is_refused_with_the_remedy() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let own = Own::encoded(&format!("'{encoding}' LOCALE 'C'")).await;
        let db = own.with(Own::options());
        for refused in [db.migrate().await.map(drop), db.check_schema().await.map(drop)] {
            let Err(DbError::Schema(text)) = refused else { panic!("{encoding}: {refused:?}") };
            assert!(text.contains(&own.name) && text.contains(encoding), "{text}");
            assert!(text.contains("ENCODING 'UTF8' TEMPLATE template0") && text.contains("database.url"), "{text}");
        }
    }
}
