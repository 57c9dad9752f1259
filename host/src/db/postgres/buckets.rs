//! Buckets. Whoever writes locks the plugin's row of `stores` first and the task's row last, and only for the rest of a short
//! transaction: a settlement of that task waits for no more than that.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{self, Held};
use super::super::{KeyRow, Place, StoreLimits, StoreRefusal, Writer, rows};
use agentry_defence::Defence;
use sqlx::{Connection, PgConnection, query};
use std::collections::{BTreeMap, HashMap};

statements! {
    ENTER = "INSERT INTO stores (plugin) VALUES ($1) ON CONFLICT (plugin) DO NOTHING";
    LOCK = "SELECT keys, bytes, memories FROM stores WHERE plugin = $1 FOR UPDATE";
    /// Looked at again when a claim or a settlement that was first has committed.
    OWN = "SELECT id FROM tasks WHERE id = $1 AND fence = $2 AND state = 'running' FOR SHARE";
    GET = "SELECT key, value FROM buckets WHERE plugin = $1 AND bucket = $2 AND key = ANY($3)";
    KEYS = "SELECT id, key FROM buckets WHERE plugin = $1 AND bucket = $2 AND id > $3 ORDER BY id LIMIT $4";
    SIZES = "SELECT key, (octet_length(key) + octet_length(value))::bigint AS bytes FROM buckets
        WHERE plugin = $1 AND bucket = $2 AND key = ANY($3)";
    SET = "INSERT INTO buckets (plugin, bucket, key, value, updated_at)
        SELECT $1, $2, i.key, i.value, statement_timestamp() FROM unnest($3::text[], $4::bytea[]) AS i(key, value)
        ON CONFLICT (plugin, bucket, key) DO UPDATE SET value = EXCLUDED.value, updated_at = EXCLUDED.updated_at";
    DELETE = "DELETE FROM buckets WHERE plugin = $1 AND bucket = $2 AND key = ANY($3)
        RETURNING (octet_length(key) + octet_length(value))::bigint AS bytes";
    COUNT = "UPDATE stores SET keys = $2, bytes = $3 WHERE plugin = $1";
}

/// What a plugin keeps, under lock.
pub(super) struct Kept {
    pub held: Held,
    pub memories: u64,
}

/// Begin to write: the plugin's row is locked, then the task must be the attempt's own.
pub(super) async fn enter(connection: &mut PgConnection, plugin: &str, writer: Writer) -> Result<Kept, Fault> {
    query(ENTER).bind(plugin).execute(&mut *connection).await?;
    let row = query(LOCK).bind(plugin).fetch_one(&mut *connection).await?;
    if let Some((task, fence)) = writer
        && query(OWN).bind(task).bind(fence).fetch_optional(connection).await?.is_none()
        && Defence::WriteFence.stands()
    {
        return Err(StoreRefusal::Fenced.into());
    }
    let count = |column| Ok::<u64, Fault>(need(row.int(column)?, column)?.unsigned_abs());
    Ok(Kept { held: Held { keys: count("keys")?, bytes: count("bytes")? }, memories: count("memories")? })
}

pub(super) async fn get(
    connection: &mut PgConnection,
    place: &Place,
    keys: &[String],
) -> Result<Vec<Option<Vec<u8>>>, Fault> {
    // A key with a NUL character is nowhere, and Postgres would not take it.
    let asked: Vec<&str> = keys.iter().map(String::as_str).filter(|key| !key.contains('\0')).collect();
    let rows = query(GET).bind(&*place.plugin).bind(&*place.name).bind(asked).fetch_all(connection).await?;
    let mut found = HashMap::new();
    for row in &rows {
        found.insert(need(row.text("key")?, "key")?, need(row.bytes("value")?, "value")?);
    }
    Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
}

pub(super) async fn keys(
    connection: &mut PgConnection,
    place: &Place,
    after: i64,
    limit: u32,
) -> Result<Vec<KeyRow>, Fault> {
    let keys = query(KEYS).bind(&*place.plugin).bind(&*place.name).bind(after).bind(i64::from(limit));
    keys.fetch_all(connection).await?.iter().map(rows::key).collect()
}

pub(super) async fn set(
    connection: &mut PgConnection,
    place: &Place,
    pairs: &[(String, Vec<u8>)],
    limits: &StoreLimits,
    writer: Writer,
) -> Result<(), Fault> {
    let pairs = plan::pairs(pairs, limits)?;
    let mut tx = connection.begin().await?;
    let kept = enter(&mut tx, &place.plugin, writer).await?;
    write(&mut tx, place, &pairs, kept.held, limits).await?;
    tx.commit().await?;
    Ok(())
}

pub(super) async fn delete(
    connection: &mut PgConnection,
    place: &Place,
    keys: &[String],
    writer: Writer,
) -> Result<(), Fault> {
    let gone: Vec<&str> = keys.iter().map(String::as_str).filter(|key| !key.contains('\0')).collect();
    let mut tx = connection.begin().await?;
    let kept = enter(&mut tx, &place.plugin, writer).await?;
    let rows = query(DELETE).bind(&*place.plugin).bind(&*place.name).bind(gone).fetch_all(&mut *tx).await?;
    let mut bytes = Vec::with_capacity(rows.len());
    for row in &rows {
        bytes.push(need(row.int("bytes")?, "bytes")?.unsigned_abs());
    }
    count(&mut tx, place, plan::held_without(kept.held, bytes.into_iter())).await?;
    tx.commit().await?;
    Ok(())
}

pub(super) async fn increment(
    connection: &mut PgConnection,
    place: &Place,
    key: &str,
    delta: u64,
    limits: &StoreLimits,
    writer: Writer,
) -> Result<u64, Fault> {
    limits.check_key(key)?;
    let mut tx = connection.begin().await?;
    let kept = enter(&mut tx, &place.plugin, writer).await?;
    let stored = query(GET).bind(&*place.plugin).bind(&*place.name).bind(vec![key]);
    let stored = stored.fetch_optional(&mut *tx).await?.map(|row| need(row.bytes("value")?, "value")).transpose()?;
    let sum = plan::sum(stored.as_deref(), delta)?;
    let text = sum.to_string();
    write(&mut tx, place, &BTreeMap::from([(key, text.as_bytes())]), kept.held, limits).await?;
    tx.commit().await?;
    Ok(sum)
}

/// Write pairs and what the plugin holds then.
async fn write(
    connection: &mut PgConnection,
    place: &Place,
    pairs: &BTreeMap<&str, &[u8]>,
    held: Held,
    limits: &StoreLimits,
) -> Result<(), Fault> {
    let keys: Vec<&str> = pairs.keys().copied().collect();
    let values: Vec<&[u8]> = pairs.values().copied().collect();
    let sizes = query(SIZES).bind(&*place.plugin).bind(&*place.name).bind(&keys).fetch_all(&mut *connection).await?;
    let mut there = BTreeMap::new();
    for row in &sizes {
        there.insert(need(row.text("key")?, "key")?, need(row.int("bytes")?, "bytes")?.unsigned_abs());
    }
    let after = plan::held_after(held, &there, pairs, limits)?;
    let set = query(SET).bind(&*place.plugin).bind(&*place.name).bind(&keys).bind(values);
    set.execute(&mut *connection).await?;
    count(connection, place, after).await
}

async fn count(connection: &mut PgConnection, place: &Place, held: Held) -> Result<(), Fault> {
    let (keys, bytes) = (plan::counted(held.keys), plan::counted(held.bytes));
    query(COUNT).bind(&*place.plugin).bind(keys).bind(bytes).execute(connection).await?;
    Ok(())
}
