//! Hosts and their leases.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{self, bounded};
use super::super::{HostRecord, HostRow, Renewal, rows, storable};
use crate::task::HostId;
use chrono::{DateTime, Utc};
use sqlx::postgres::types::PgInterval;
use sqlx::{PgConnection, query};
use std::time::Duration;

statements! {
    /// Enter or renew. Parts of one statement see the table as before it, so `before` is the lease as it was.
    RENEW = "WITH before AS (
        SELECT lease_until FROM hosts WHERE id = $1
    ), renewed AS (
        INSERT INTO hosts (id, name, build, settings_digest, queues, plugins, broken_plugins, slots, busy, started_at,
            renewed_at, lease_until, brakes)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, clock_timestamp(), clock_timestamp(), clock_timestamp() + $10::interval,
            $11)
        ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name, build = EXCLUDED.build,
            settings_digest = EXCLUDED.settings_digest, queues = EXCLUDED.queues, plugins = EXCLUDED.plugins,
            broken_plugins = EXCLUDED.broken_plugins, slots = EXCLUDED.slots, busy = EXCLUDED.busy,
            renewed_at = EXCLUDED.renewed_at, lease_until = EXCLUDED.lease_until,
            ended = false, brakes = EXCLUDED.brakes
        RETURNING renewed_at
    )
    SELECT NOT EXISTS (SELECT FROM before WHERE lease_until >= renewed_at) AS lapsed FROM renewed";
    END = "UPDATE hosts SET lease_until = LEAST(lease_until, clock_timestamp()), ended = true WHERE id = $1";
    LIST = "SELECT id, name, build, settings_digest, queues, plugins, broken_plugins, slots, busy, started_at, renewed_at,
        lease_until, brakes, lease_until > clock_timestamp() AS alive FROM hosts
        WHERE lease_until > clock_timestamp() - $1::interval ORDER BY started_at DESC, id";
    PING = "SELECT clock_timestamp() AS now";
}

/// A duration as Postgres adds it to a time.
pub(super) fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: bounded(duration).num_microseconds().unwrap_or(i64::MAX) }
}

pub(super) async fn renew(connection: &mut PgConnection, host: &HostRecord, ttl: Duration) -> Result<Renewal, Fault> {
    let list = |names: &[String]| storable::json(&names.into());
    let row = query(RENEW)
        .bind(host.id)
        .bind(storable::text(&host.name))
        .bind(storable::text(&host.build))
        .bind(storable::text(&host.settings_digest))
        .bind(list(&host.queues))
        .bind(list(&host.plugins))
        .bind(list(&host.broken_plugins))
        .bind(i64::from(host.slots))
        .bind(i64::from(host.busy))
        .bind(interval(ttl))
        .bind(host.brakes)
        .fetch_one(connection)
        .await?;
    Ok(Renewal { lapsed: row.flag("lapsed")? })
}

pub(super) async fn end(connection: &mut PgConnection, host: HostId) -> Result<(), Fault> {
    query(END).bind(host).execute(connection).await?;
    Ok(())
}

pub(super) async fn list(connection: &mut PgConnection) -> Result<Vec<HostRow>, Fault> {
    let rows = query(LIST).bind(interval(plan::HOST_SHOWN)).fetch_all(connection).await?;
    rows.iter().map(rows::host).collect()
}

pub(super) async fn clock(connection: &mut PgConnection) -> Result<DateTime<Utc>, Fault> {
    need(query(PING).fetch_one(connection).await?.time("now")?, "now")
}
