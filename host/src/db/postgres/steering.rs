//! Brakes of operators, and the record of what operators changed.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{BrakeRow, REASON_KEPT, audit_of};
use super::super::*;
use super::PostgresDb;
use super::hosts::interval;
use sqlx::{Connection, PgConnection, query};
use std::sync::Arc;

statements! {
    /// Both parts of the news in one statement: a host that runs tasks sends it several times a second.
    NEWS = "SELECT id, NULL::text AS kind, NULL::text AS target, NULL::text AS actor, NULL::text AS reason,
            NULL::timestamptz AS set_at, NULL::bigint AS change, false AS held
        FROM tasks WHERE owner = $1 AND state = 'running' AND cancel_requested
        UNION ALL
        (SELECT NULL, kind, target, actor, reason, set_at, change, released_at IS NULL FROM brakes ORDER BY kind, target)";
    /// Changes are numbered one after the other.
    LOCK = "LOCK TABLE brakes IN SHARE ROW EXCLUSIVE MODE";
    CURRENT = "SELECT clock_timestamp() AS now, b.actor, b.reason, b.set_at, b.released_at
        FROM (SELECT 1) AS one LEFT JOIN brakes b ON b.kind = $1 AND b.target = $2";
    WRITE = "INSERT INTO brakes (kind, target, actor, reason, set_at, released_at, change)
        VALUES ($1, $2, $3, $4, $5, $6, (SELECT COALESCE(max(change), 0) + 1 FROM brakes))
        ON CONFLICT (kind, target) DO UPDATE SET actor = EXCLUDED.actor, reason = EXCLUDED.reason,
            set_at = EXCLUDED.set_at, released_at = EXCLUDED.released_at, change = EXCLUDED.change";
    AUDIT = "INSERT INTO audit (at, actor, action, target, count, reason) VALUES (clock_timestamp(), $1, $2, $3, $4, $5)";
    AUDITED = concat!(
        page!("id", "id DESC", "SELECT id, octet_length(actor) + octet_length(target) + COALESCE(octet_length(reason), 0) AS bytes
            FROM audit WHERE ($1::text IS NULL OR action = $1) AND ($2::text IS NULL OR actor = $2)
                AND ($3::timestamptz IS NULL OR at >= $3) AND ($4::bigint IS NULL OR id < $4)
            ORDER BY id DESC LIMIT $5::bigint + 1"),
        "SELECT a.id, a.at, a.actor, a.action, a.target, a.count, a.reason, (SELECT count(*) FROM found) AS found
        FROM page p JOIN audit a ON a.id = p.id
        WHERE p.n <= $5 AND (p.n = 1 OR p.total <= $6::bigint) ORDER BY p.id DESC"
    );
    PRUNE = "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < statement_timestamp() - $1::interval
        ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)";
    /// The last change keeps its row: the next one has a higher number.
    RELEASED = "DELETE FROM brakes WHERE released_at < statement_timestamp() - $1::interval
        AND change < (SELECT max(change) FROM brakes)";
    /// Brakes of hosts that are forgotten.
    GONE = "DELETE FROM brakes b WHERE b.kind = 'host' AND NOT EXISTS (SELECT FROM hosts h WHERE h.id::text = b.target)
        AND change < (SELECT max(change) FROM brakes)";
    WAITING = "SELECT queue, count(*) AS waiting FROM (
            SELECT queue FROM tasks WHERE state IN ('scheduled', 'pending', 'retrying') LIMIT $1) AS w
        GROUP BY queue ORDER BY queue";
}

pub(super) async fn news(connection: &mut PgConnection, host: HostId) -> Result<News, Fault> {
    steered::news(&query(NEWS).bind(host).fetch_all(connection).await?)
}

async fn set_brake(connection: &mut PgConnection, change: &BrakeChange) -> Result<BrakeAnswer, Fault> {
    let mut tx = connection.begin().await?;
    let target = storable::text(&change.target);
    query(LOCK).execute(&mut *tx).await?;
    let row = query(CURRENT).bind(change.kind.as_str()).bind(&target).fetch_one(&mut *tx).await?;
    let now = need(row.time("now")?, "now")?;
    let after = BrakeRow::after(steered::brake_row(&row)?.as_ref(), change, now);
    if let Some(after) = &after {
        query(WRITE)
            .bind(change.kind.as_str())
            .bind(&target)
            .bind(&after.actor)
            .bind(&after.reason)
            .bind(after.set_at)
            .bind(after.released_at)
            .execute(&mut *tx)
            .await?;
        audit(&mut tx, &audit_of(change)).await?;
    }
    let brakes = news(&mut tx, HostId::nil()).await?.brakes;
    tx.commit().await?;
    Ok(BrakeAnswer { changed: after.is_some(), brakes })
}

async fn audit(connection: &mut PgConnection, entry: &AuditEntry) -> Result<(), Fault> {
    query(AUDIT)
        .bind(storable::text(&entry.actor))
        .bind(storable::text(&entry.action))
        .bind(storable::text(&entry.target))
        .bind(entry.count)
        .bind(entry.reason.as_deref().map(|reason| storable::cut(reason, REASON_KEPT)))
        .execute(connection)
        .await?;
    Ok(())
}

async fn audited(connection: &mut PgConnection, filter: &AuditFilter) -> Result<Page<AuditRow>, Fault> {
    let rows = query(AUDITED)
        .bind(filter.action.as_deref().map(storable::text))
        .bind(filter.actor.as_deref().map(storable::text))
        .bind(filter.since)
        .bind(filter.before)
        .bind(i64::from(filter.limit))
        .bind(PAGE_BYTES)
        .fetch_all(connection)
        .await?;
    rows::page(&rows, steered::audit)
}

async fn prune_audit(connection: &mut PgConnection, keep: Duration, limit: u32) -> Result<u64, Fault> {
    let pruned = query(PRUNE).bind(interval(keep)).bind(i64::from(limit)).execute(&mut *connection).await?;
    query(RELEASED).bind(interval(keep)).execute(&mut *connection).await?;
    query(GONE).execute(connection).await?;
    Ok(pruned.rows_affected())
}

async fn waiting(connection: &mut PgConnection, limit: u32) -> Result<WaitingByQueue, Fault> {
    steered::waiting_of(&query(WAITING).bind(i64::from(limit)).fetch_all(connection).await?, limit)
}

steering_by_statements!(PostgresDb, news: run_again, read: scan, write: run);
