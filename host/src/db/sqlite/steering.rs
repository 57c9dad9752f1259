//! Brakes of operators, and the record of what operators changed.

use super::super::cells::stamp;
use super::super::fault::Fault;
use super::super::plan::{BrakeRow, REASON_KEPT, audit_of, bounded};
use super::super::*;
use super::SqliteDb;
use super::transition::begin;
use sqlx::{SqliteConnection, query};
use std::sync::Arc;

statements! {
    NEWS = "SELECT id, NULL AS kind, NULL AS target, NULL AS actor, NULL AS reason, NULL AS set_at, NULL AS change, 0 AS held
        FROM tasks WHERE owner = ?1 AND state = 'running' AND cancel_requested
        UNION ALL
        SELECT NULL, kind, target, actor, reason, set_at, change, released_at IS NULL FROM brakes";
    CURRENT = "SELECT actor, reason, set_at, released_at FROM brakes WHERE kind = ?1 AND target = ?2";
    WRITE = "INSERT INTO brakes (kind, target, actor, reason, set_at, released_at, change)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, (SELECT COALESCE(max(change), 0) + 1 FROM brakes))
        ON CONFLICT (kind, target) DO UPDATE SET actor = excluded.actor, reason = excluded.reason,
            set_at = excluded.set_at, released_at = excluded.released_at, change = excluded.change";
    AUDIT = "INSERT INTO audit (at, actor, action, target, count, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    AUDITED = concat!(
        page!("id", "id DESC", "SELECT id, octet_length(actor) + octet_length(target) + COALESCE(octet_length(reason), 0) AS bytes
            FROM audit WHERE (?1 IS NULL OR action = ?1) AND (?2 IS NULL OR actor = ?2)
                AND (?3 IS NULL OR at >= ?3) AND id < COALESCE(?4, 9223372036854775807)
            ORDER BY id DESC LIMIT ?5 + 1"),
        "SELECT a.id, a.at, a.actor, a.action, a.target, a.count, a.reason, (SELECT count(*) FROM found) AS found
        FROM page p JOIN audit a ON a.id = p.id WHERE p.n <= ?5 AND (p.n = 1 OR p.total <= ?6) ORDER BY p.id DESC"
    );
    PRUNE = "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ?1 ORDER BY at LIMIT ?2)";
    /// The last change keeps its row: the next one has a higher number.
    RELEASED = "DELETE FROM brakes WHERE released_at < ?1 AND change < (SELECT max(change) FROM brakes)";
    /// Brakes of hosts that are forgotten.
    GONE = "DELETE FROM brakes WHERE kind = 'host' AND NOT EXISTS (SELECT 1 FROM hosts h WHERE h.id = brakes.target)
        AND change < (SELECT max(change) FROM brakes)";
    WAITING = "SELECT queue, count(*) AS waiting FROM (
            SELECT queue FROM tasks WHERE state IN ('scheduled', 'pending', 'retrying') LIMIT ?1)
        GROUP BY queue ORDER BY queue";
}

pub(super) async fn news(connection: &mut SqliteConnection, host: HostId) -> Result<News, Fault> {
    steered::news(&query(NEWS).bind(host.hyphenated()).fetch_all(connection).await?)
}

async fn set_brake(connection: &mut SqliteConnection, change: &BrakeChange) -> Result<BrakeAnswer, Fault> {
    let target = storable::text(&change.target).into_owned();
    let (mut tx, now) = begin(connection).await?;
    let row = query(CURRENT).bind(change.kind.as_str()).bind(&target).fetch_optional(&mut *tx).await?;
    let row = row.as_ref().map(steered::brake_row).transpose()?.flatten();
    let after = BrakeRow::after(row.as_ref(), change, now);
    if let Some(after) = &after {
        query(WRITE)
            .bind(change.kind.as_str())
            .bind(&target)
            .bind(&after.actor)
            .bind(&after.reason)
            .bind(stamp(after.set_at))
            .bind(after.released_at.map(stamp))
            .execute(&mut *tx)
            .await?;
        record(&mut tx, &audit_of(change), now).await?;
    }
    let brakes = news(&mut tx, HostId::nil()).await?.brakes;
    tx.commit().await?;
    Ok(BrakeAnswer { changed: after.is_some(), brakes })
}

async fn audit(connection: &mut SqliteConnection, entry: &AuditEntry) -> Result<(), Fault> {
    let (mut tx, now) = begin(connection).await?;
    record(&mut tx, entry, now).await?;
    tx.commit().await?;
    Ok(())
}

async fn record(connection: &mut SqliteConnection, entry: &AuditEntry, now: DateTime<Utc>) -> Result<(), Fault> {
    query(AUDIT)
        .bind(stamp(now))
        .bind(storable::text(&entry.actor).into_owned())
        .bind(storable::text(&entry.action).into_owned())
        .bind(storable::text(&entry.target).into_owned())
        .bind(entry.count)
        .bind(entry.reason.as_deref().map(|reason| storable::cut(reason, REASON_KEPT).into_owned()))
        .execute(connection)
        .await?;
    Ok(())
}

async fn audited(connection: &mut SqliteConnection, filter: &AuditFilter) -> Result<Page<AuditRow>, Fault> {
    let rows = query(AUDITED)
        .bind(filter.action.as_deref())
        .bind(filter.actor.as_deref())
        .bind(filter.since.map(stamp))
        .bind(filter.before)
        .bind(filter.limit)
        .bind(PAGE_BYTES)
        .fetch_all(connection)
        .await?;
    rows::page(&rows, steered::audit)
}

async fn prune_audit(connection: &mut SqliteConnection, keep: Duration, limit: u32) -> Result<u64, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let before = stamp(now - bounded(keep));
    let pruned = query(PRUNE).bind(&before).bind(limit).execute(&mut *tx).await?.rows_affected();
    query(RELEASED).bind(&before).execute(&mut *tx).await?;
    query(GONE).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(pruned)
}

async fn waiting(connection: &mut SqliteConnection, limit: u32) -> Result<WaitingByQueue, Fault> {
    steered::waiting_of(&query(WAITING).bind(limit).fetch_all(connection).await?, limit)
}

steering_by_statements!(SqliteDb, news: read, read: browse, write: write);
