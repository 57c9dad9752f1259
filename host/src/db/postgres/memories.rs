//! Memories, found by their words.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan;
use super::super::{MemoryRow, Place, StoreLimits, Writer, rows};
use super::buckets::enter;
use sqlx::{Connection, PgConnection, query};
use uuid::Uuid;

statements! {
    KNOWN = "SELECT id FROM memories WHERE plugin = $1 AND memory = $2 AND digest = $3";
    REMEMBER = "INSERT INTO memories (id, plugin, memory, text, metadata, at, digest, words)
        VALUES ($1, $2, $3, $4, $5, statement_timestamp(), $6, $7)";
    FORGET = "DELETE FROM memories WHERE plugin = $1 AND memory = $2 AND id = $3";
    COUNT = "UPDATE stores SET memories = $2 WHERE plugin = $1";
    NEWEST = "SELECT id, text, metadata, at, 0::bigint AS score, 1::bigint AS whole FROM memories
        WHERE plugin = $1 AND memory = $2 ORDER BY at DESC, id DESC LIMIT $3";
    /// A word counts for as much as there are entries without it, within this memory: counts of whole numbers, so that equals
    /// are equal. Every word is a query of its own and nothing in it an operator. The place is compared after the index was
    /// asked: a plan that reads all entries of the place and looks for every word in each takes minutes where this takes one
    /// second.
    SEARCH = "WITH whole AS (
        SELECT count(*) + 1 AS whole FROM memories WHERE plugin = $1 AND memory = $2
    ), found AS MATERIALIZED (
        SELECT m.id, m.plugin, m.memory, w.n FROM unnest($3::text[]) WITH ORDINALITY AS w(words, n)
            JOIN memories m ON m.found_by @@ plainto_tsquery('pg_catalog.simple', w.words)
    ), weighed AS (
        SELECT id, (SELECT whole FROM whole) - count(*) OVER (PARTITION BY n) AS weight FROM found
        WHERE plugin = $1 AND memory = $2
    ), scored AS (
        SELECT id, sum(weight)::bigint AS score FROM weighed GROUP BY id
    )
    SELECT m.id, m.text, m.metadata, m.at, s.score, (SELECT whole FROM whole) AS whole
    FROM scored s JOIN memories m USING (id) ORDER BY s.score DESC, m.at DESC, m.id DESC LIMIT $4";
}

pub(super) async fn remember(
    connection: &mut PgConnection,
    place: &Place,
    text: &str,
    metadata: &str,
    limits: &StoreLimits,
    writer: Writer,
) -> Result<Uuid, Fault> {
    limits.check_text(text)?;
    limits.check_metadata(metadata)?;
    let digest = plan::memory_digest(text, metadata);
    let mut tx = connection.begin().await?;
    let kept = enter(&mut tx, &place.plugin, writer).await?;
    let known = query(KNOWN).bind(&*place.plugin).bind(&*place.name).bind(digest.as_slice());
    if let Some(row) = known.fetch_optional(&mut *tx).await? {
        return need(row.id("id")?, "id");
    }
    plan::room_to_remember(kept.memories, limits)?;
    let id = Uuid::now_v7();
    query(REMEMBER)
        .bind(id)
        .bind(&*place.plugin)
        .bind(&*place.name)
        .bind(text)
        .bind(metadata)
        .bind(digest.as_slice())
        .bind(plan::indexed(place, text))
        .execute(&mut *tx)
        .await?;
    count(&mut tx, place, kept.memories + 1).await?;
    tx.commit().await?;
    Ok(id)
}

pub(super) async fn forget(
    connection: &mut PgConnection,
    place: &Place,
    id: Uuid,
    writer: Writer,
) -> Result<(), Fault> {
    let mut tx = connection.begin().await?;
    let kept = enter(&mut tx, &place.plugin, writer).await?;
    let gone = query(FORGET).bind(&*place.plugin).bind(&*place.name).bind(id).execute(&mut *tx).await?.rows_affected();
    count(&mut tx, place, kept.memories.saturating_sub(gone)).await?;
    tx.commit().await?;
    Ok(())
}

async fn count(connection: &mut PgConnection, place: &Place, memories: u64) -> Result<(), Fault> {
    query(COUNT).bind(&*place.plugin).bind(plan::counted(memories)).execute(connection).await?;
    Ok(())
}

pub(super) async fn recall(
    connection: &mut PgConnection,
    place: &Place,
    query_text: &str,
    limit: u32,
) -> Result<Vec<MemoryRow>, Fault> {
    let (words, limit) = (plan::asked(place, query_text), i64::from(limit.min(plan::RECALLED)));
    let rows = match words.is_empty() {
        true => query(NEWEST).bind(&*place.plugin).bind(&*place.name).bind(limit).fetch_all(connection).await?,
        false => {
            let words: Vec<String> = words.iter().map(|all| all.join(" ")).collect();
            let search = query(SEARCH).bind(&*place.plugin).bind(&*place.name).bind(words).bind(limit);
            search.fetch_all(connection).await?
        }
    };
    rows.iter().map(rows::memory).collect()
}
