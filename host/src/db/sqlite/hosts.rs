//! Hosts and their leases.

use super::super::cells::{Cells, stamp};
use super::super::fault::Fault;
use super::super::plan::{self, bounded};
use super::super::{HostRecord, HostRow, Renewal, rows, storable};
use super::transition::{begin, now};
use crate::task::HostId;
use sqlx::{SqliteConnection, query};
use std::time::Duration;

statements! {
    LEASE = "SELECT lease_until >= ?2 AS valid FROM hosts WHERE id = ?1";
    RENEW = "INSERT INTO hosts (id, name, build, settings_digest, queues, plugins, broken_plugins, slots, busy, started_at,
            renewed_at, lease_until, brakes)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11, ?12)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, build = excluded.build,
            settings_digest = excluded.settings_digest, queues = excluded.queues, plugins = excluded.plugins,
            broken_plugins = excluded.broken_plugins, slots = excluded.slots, busy = excluded.busy,
            renewed_at = excluded.renewed_at, lease_until = excluded.lease_until, ended = 0,
            brakes = excluded.brakes";
    END = "UPDATE hosts SET lease_until = min(lease_until, ?2), ended = 1 WHERE id = ?1";
    LIST = "SELECT id, name, build, settings_digest, queues, plugins, broken_plugins, slots, busy, started_at, renewed_at,
        lease_until, brakes, lease_until > ?1 AS alive FROM hosts WHERE lease_until > ?2 ORDER BY started_at DESC, id";
    PING = "SELECT 1";
}

pub(super) async fn renew(
    connection: &mut SqliteConnection,
    host: &HostRecord,
    ttl: Duration,
) -> Result<Renewal, Fault> {
    let list = |names: &[String]| storable::json(&names.into());
    let (mut tx, now) = begin(connection).await?;
    let id = host.id.hyphenated();
    let lease = query(LEASE).bind(id).bind(stamp(now)).fetch_optional(&mut *tx).await?;
    let valid = lease.map(|row| row.flag("valid")).transpose()?;
    query(RENEW)
        .bind(id)
        .bind(storable::text(&host.name).as_ref())
        .bind(storable::text(&host.build).as_ref())
        .bind(storable::text(&host.settings_digest).as_ref())
        .bind(list(&host.queues))
        .bind(list(&host.plugins))
        .bind(list(&host.broken_plugins))
        .bind(host.slots)
        .bind(host.busy)
        .bind(stamp(now))
        .bind(stamp(now + bounded(ttl)))
        .bind(host.brakes)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(Renewal { lapsed: valid != Some(true) })
}

pub(super) async fn end(connection: &mut SqliteConnection, host: HostId) -> Result<(), Fault> {
    let (mut tx, now) = begin(connection).await?;
    query(END).bind(host.hyphenated()).bind(stamp(now)).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

pub(super) async fn list(connection: &mut SqliteConnection) -> Result<Vec<HostRow>, Fault> {
    let now = now();
    let shown = now - bounded(plan::HOST_SHOWN);
    let rows = query(LIST).bind(stamp(now)).bind(stamp(shown)).fetch_all(connection).await?;
    rows.iter().map(rows::host).collect()
}

pub(super) async fn ping(connection: &mut SqliteConnection) -> Result<chrono::DateTime<chrono::Utc>, Fault> {
    query(PING).execute(connection).await?;
    Ok(now())
}
