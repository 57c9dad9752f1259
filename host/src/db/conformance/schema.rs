//! Migrating, and refusing what does not fit.

use super::subject::*;
use crate::db::schema::POSTGRES;
use crate::db::{DbError, Migrated, OutboxTake};

/// The number of the last migration.
const LATEST: i64 = POSTGRES[POSTGRES.len() - 1].version;

fn refusal<T: std::fmt::Debug>(result: Result<T, DbError>) -> String {
    match result {
        Err(DbError::Schema(text)) => text,
        other => panic!("not refused: {other:?}"),
    }
}

pub async fn migrating_twice_changes_nothing(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    s.run(host, &arrival).await;
    assert_eq!(s.db.migrate().await.unwrap(), Migrated { from: LATEST, to: LATEST });
    assert_eq!(s.db.check_schema().await.unwrap(), LATEST);
    assert_eq!(s.row(arrival.message.id).await.host, Some(host));
}

pub async fn of_concurrent_migrations_one_migrates(s: &Subject) {
    s.back_door.empty().await;
    let (one, other) = (s.back_door.open(), s.back_door.open());
    let (a, b, c) = tokio::join!(s.db.migrate(), one.migrate(), other.migrate());
    let mut from = [a.unwrap(), b.unwrap(), c.unwrap()].map(|m| {
        assert_eq!(m.to, LATEST);
        m.from
    });
    from.sort();
    assert_eq!(from, [0, LATEST, LATEST]);
    assert_eq!(s.back_door.number("SELECT count(*) FROM schema_version").await, POSTGRES.len() as i64);
}

async fn later_migration(s: &Subject, min_build: &str) {
    s.set(&format!(
        "INSERT INTO schema_version (version, name, checksum, min_build, applied_at, applied_by)
         VALUES ({}, 'later', 'x', '{min_build}', '2030-01-01T00:00:00.000000Z', '{min_build}')",
        LATEST + 1
    ))
    .await;
}

pub async fn a_newer_schema_that_no_longer_supports_this_build_is_refused(s: &Subject) {
    later_migration(s, "99.1.0").await;
    for text in [refusal(s.db.check_schema().await), refusal(s.db.migrate().await)] {
        assert!(text.contains("99.1.0") && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    }
}

pub async fn a_newer_schema_that_supports_this_build_is_accepted(s: &Subject) {
    later_migration(s, "0.1.0").await;
    assert_eq!(s.db.check_schema().await.unwrap(), LATEST + 1);
    assert_eq!(s.db.migrate().await.unwrap(), Migrated { from: LATEST + 1, to: LATEST + 1 });
}

pub async fn a_schema_whose_history_was_edited_is_refused(s: &Subject) {
    s.set("UPDATE schema_version SET checksum = 'x' WHERE version = 2").await;
    let text = refusal(s.db.check_schema().await);
    assert!(text.contains("migration 2 (history)"), "{text}");
    s.set("DELETE FROM schema_version WHERE version = 2").await;
    assert!(refusal(s.db.migrate().await).contains("migration 3"));
}

pub async fn a_foreign_schema_is_refused_and_left_alone(s: &Subject) {
    s.set("DROP TABLE schema_version").await;
    for text in [refusal(s.db.check_schema().await), refusal(s.db.migrate().await)] {
        assert!(text.contains("belongs to another program"), "{text}");
    }
    s.set("CREATE TABLE schema_version (something integer)").await;
    assert!(refusal(s.db.migrate().await).contains("not Agentry's"));
    assert_eq!(s.back_door.number("SELECT count(*) FROM schema_version").await, 0);
}

pub async fn a_missing_table_is_noticed(s: &Subject) {
    s.set("DROP TABLE outbox").await;
    assert!(refusal(s.db.check_schema().await).contains("outbox"));
    assert!(refusal(s.db.migrate().await).contains("outbox"));
    assert!(matches!(s.db.take_outbox(&OutboxTake::new(1, LONG)).await, Err(DbError::Schema(_))));
}

pub async fn an_empty_database_is_told_apart(s: &Subject) {
    s.back_door.empty().await;
    assert!(s.db.ping().await.is_ok());
    let text = refusal(s.db.check_schema().await);
    assert!(text.contains("version 0") && text.contains("agentry migrate"), "{text}");
    assert!(matches!(s.db.claim(steady(id()), &[arrival()]).await, Err(DbError::Schema(_))));
    assert_eq!(s.db.migrate().await.unwrap(), Migrated { from: 0, to: LATEST });
    assert_eq!(s.db.check_schema().await.unwrap(), LATEST);
}
