//! Buckets. There is one writer, so what was read in its transaction stays so.

use super::super::cells::{Cells, need, stamp};
use super::super::fault::Fault;
use super::super::plan::{self, Held};
use super::super::{KeyRow, Place, StoreLimits, StoreRefusal, Writer, rows};
use super::transition::begin;
use agentry_defence::Defence;
use chrono::{DateTime, Utc};
use sqlx::{SqliteConnection, query};
use std::collections::BTreeMap;

statements! {
    KEPT = "SELECT keys, bytes, memories FROM stores WHERE plugin = ?1";
    OWN = "SELECT id FROM tasks WHERE id = ?1 AND fence = ?2 AND state = 'running'";
    GET = "SELECT value FROM buckets WHERE plugin = ?1 AND bucket = ?2 AND key = ?3";
    KEYS = "SELECT id, key FROM buckets WHERE plugin = ?1 AND bucket = ?2 AND id > ?3 ORDER BY id LIMIT ?4";
    SIZE = "SELECT octet_length(key) + octet_length(value) AS bytes FROM buckets
        WHERE plugin = ?1 AND bucket = ?2 AND key = ?3";
    SET = "INSERT INTO buckets (plugin, bucket, key, value, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (plugin, bucket, key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at";
    DELETE = "DELETE FROM buckets WHERE plugin = ?1 AND bucket = ?2 AND key = ?3";
    COUNT = "INSERT INTO stores (plugin, keys, bytes) VALUES (?1, ?2, ?3)
        ON CONFLICT (plugin) DO UPDATE SET keys = excluded.keys, bytes = excluded.bytes";
}

/// What a plugin keeps.
#[derive(Default)]
pub(super) struct Kept {
    pub held: Held,
    pub memories: u64,
}

/// Begin to write: the task must be the attempt's own.
pub(super) async fn enter(connection: &mut SqliteConnection, plugin: &str, writer: Writer) -> Result<Kept, Fault> {
    if let Some((task, fence)) = writer
        && query(OWN).bind(task.hyphenated()).bind(fence).fetch_optional(&mut *connection).await?.is_none()
        && Defence::WriteFence.stands()
    {
        return Err(StoreRefusal::Fenced.into());
    }
    let Some(row) = query(KEPT).bind(plugin).fetch_optional(connection).await? else { return Ok(Kept::default()) };
    let count = |column| Ok::<u64, Fault>(need(row.int(column)?, column)?.unsigned_abs());
    Ok(Kept { held: Held { keys: count("keys")?, bytes: count("bytes")? }, memories: count("memories")? })
}

pub(super) async fn get(
    connection: &mut SqliteConnection,
    place: &Place,
    keys: &[String],
) -> Result<Vec<Option<Vec<u8>>>, Fault> {
    let mut values = Vec::with_capacity(keys.len());
    for key in keys {
        values.push(value(connection, place, key).await?);
    }
    Ok(values)
}

async fn value(connection: &mut SqliteConnection, place: &Place, key: &str) -> Result<Option<Vec<u8>>, Fault> {
    let row = query(GET).bind(&*place.plugin).bind(&*place.name).bind(key).fetch_optional(connection).await?;
    // An empty blob reads as none.
    row.map(|row| Ok(row.bytes("value")?.unwrap_or_default())).transpose()
}

async fn size(connection: &mut SqliteConnection, place: &Place, key: &str) -> Result<Option<u64>, Fault> {
    let row = query(SIZE).bind(&*place.plugin).bind(&*place.name).bind(key).fetch_optional(connection).await?;
    row.map(|row| Ok(need(row.int("bytes")?, "bytes")?.unsigned_abs())).transpose()
}

pub(super) async fn keys(
    connection: &mut SqliteConnection,
    place: &Place,
    after: i64,
    limit: u32,
) -> Result<Vec<KeyRow>, Fault> {
    let keys = query(KEYS).bind(&*place.plugin).bind(&*place.name).bind(after).bind(limit);
    keys.fetch_all(connection).await?.iter().map(rows::key).collect()
}

pub(super) async fn set(
    connection: &mut SqliteConnection,
    place: &Place,
    pairs: &[(String, Vec<u8>)],
    limits: &StoreLimits,
    writer: Writer,
) -> Result<(), Fault> {
    let pairs = plan::pairs(pairs, limits)?;
    let (mut tx, now) = begin(connection).await?;
    let kept = enter(&mut tx, &place.plugin, writer).await?;
    write(&mut tx, place, &pairs, kept.held, limits, now).await?;
    tx.commit().await?;
    Ok(())
}

pub(super) async fn delete(
    connection: &mut SqliteConnection,
    place: &Place,
    keys: &[String],
    writer: Writer,
) -> Result<(), Fault> {
    let (mut tx, _) = begin(connection).await?;
    let kept = enter(&mut tx, &place.plugin, writer).await?;
    let mut gone = Vec::new();
    for key in keys {
        if let Some(bytes) = size(&mut tx, place, key).await? {
            query(DELETE).bind(&*place.plugin).bind(&*place.name).bind(key).execute(&mut *tx).await?;
            gone.push(bytes);
        }
    }
    count(&mut tx, place, plan::held_without(kept.held, gone.into_iter())).await?;
    tx.commit().await?;
    Ok(())
}

pub(super) async fn increment(
    connection: &mut SqliteConnection,
    place: &Place,
    key: &str,
    delta: u64,
    limits: &StoreLimits,
    writer: Writer,
) -> Result<u64, Fault> {
    limits.check_key(key)?;
    let (mut tx, now) = begin(connection).await?;
    let kept = enter(&mut tx, &place.plugin, writer).await?;
    let sum = plan::sum(value(&mut tx, place, key).await?.as_deref(), delta)?;
    let text = sum.to_string();
    write(&mut tx, place, &BTreeMap::from([(key, text.as_bytes())]), kept.held, limits, now).await?;
    tx.commit().await?;
    Ok(sum)
}

/// Write pairs and what the plugin holds then.
async fn write(
    connection: &mut SqliteConnection,
    place: &Place,
    pairs: &BTreeMap<&str, &[u8]>,
    held: Held,
    limits: &StoreLimits,
    now: DateTime<Utc>,
) -> Result<(), Fault> {
    let mut there = BTreeMap::new();
    for key in pairs.keys() {
        if let Some(bytes) = size(connection, place, key).await? {
            there.insert((*key).to_owned(), bytes);
        }
    }
    let after = plan::held_after(held, &there, pairs, limits)?;
    for (key, value) in pairs {
        let set = query(SET).bind(&*place.plugin).bind(&*place.name).bind(*key).bind(*value).bind(stamp(now));
        set.execute(&mut *connection).await?;
    }
    count(connection, place, after).await
}

async fn count(connection: &mut SqliteConnection, place: &Place, held: Held) -> Result<(), Fault> {
    let (keys, bytes) = (plan::counted(held.keys), plan::counted(held.bytes));
    query(COUNT).bind(&*place.plugin).bind(keys).bind(bytes).execute(connection).await?;
    Ok(())
}
