//! Memories, found by their words in an index of FTS5.

use super::super::cells::{Cells, need, stamp};
use super::super::fault::Fault;
use super::super::plan;
use super::super::{MemoryRow, Place, StoreLimits, Writer, rows};
use super::buckets::enter;
use super::transition::begin;
use serde_json::Value;
use sqlx::{SqliteConnection, query};
use uuid::Uuid;

statements! {
    KNOWN = "SELECT id FROM memories WHERE plugin = ?1 AND memory = ?2 AND digest = ?3";
    REMEMBER = "INSERT INTO memories (id, plugin, memory, text, metadata, at, digest, words)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING number";
    INDEX = "INSERT INTO memory_words (rowid, words) VALUES (?1, ?2)";
    FORGET = "DELETE FROM memories WHERE plugin = ?1 AND memory = ?2 AND id = ?3 RETURNING number, words";
    /// The index holds no texts of its own: it is told which words to forget.
    UNINDEX = "INSERT INTO memory_words (memory_words, rowid, words) VALUES ('delete', ?1, ?2)";
    COUNT = "INSERT INTO stores (plugin, memories) VALUES (?1, ?2)
        ON CONFLICT (plugin) DO UPDATE SET memories = excluded.memories";
    NEWEST = "SELECT id, text, metadata, at, 0 AS score, 1 AS whole FROM memories
        WHERE plugin = ?1 AND memory = ?2 ORDER BY at DESC, number DESC LIMIT ?3";
    /// A word counts for as much as there are entries without it, within this memory: counts of whole numbers, so that equals
    /// are equal. Every word is a query of its own, in quotes, and nothing in it an operator.
    SEARCH = "WITH whole AS (
        SELECT count(*) + 1 AS whole FROM memories WHERE plugin = ?1 AND memory = ?2
    ), found AS MATERIALIZED (
        SELECT m.number, a.key AS n FROM json_each(?3) a CROSS JOIN memory_words f ON f.memory_words MATCH a.value
            CROSS JOIN memories m ON m.number = f.rowid
        WHERE m.plugin = ?1 AND m.memory = ?2
    ), weighed AS (
        SELECT number, (SELECT whole FROM whole) - count(*) OVER (PARTITION BY n) AS weight FROM found
    ), scored AS (
        SELECT number, sum(weight) AS score FROM weighed GROUP BY number
    )
    SELECT m.id, m.text, m.metadata, m.at, s.score, (SELECT whole FROM whole) AS whole
    FROM scored s JOIN memories m ON m.number = s.number ORDER BY s.score DESC, m.at DESC, m.number DESC LIMIT ?4";
}

pub(super) async fn remember(
    connection: &mut SqliteConnection,
    place: &Place,
    text: &str,
    metadata: &str,
    limits: &StoreLimits,
    writer: Writer,
) -> Result<Uuid, Fault> {
    limits.check_text(text)?;
    limits.check_metadata(metadata)?;
    let digest = plan::memory_digest(text, metadata);
    let (mut tx, now) = begin(connection).await?;
    let kept = enter(&mut tx, &place.plugin, writer).await?;
    let known = query(KNOWN).bind(&*place.plugin).bind(&*place.name).bind(digest.as_slice());
    if let Some(row) = known.fetch_optional(&mut *tx).await? {
        return need(row.id("id")?, "id");
    }
    plan::room_to_remember(kept.memories, limits)?;
    let (id, words) = (Uuid::now_v7(), plan::indexed(place, text));
    let row = query(REMEMBER)
        .bind(id.hyphenated())
        .bind(&*place.plugin)
        .bind(&*place.name)
        .bind(text)
        .bind(metadata)
        .bind(stamp(now))
        .bind(digest.as_slice())
        .bind(&words)
        .fetch_one(&mut *tx)
        .await?;
    query(INDEX).bind(need(row.int("number")?, "number")?).bind(words).execute(&mut *tx).await?;
    count(&mut tx, place, kept.memories + 1).await?;
    tx.commit().await?;
    Ok(id)
}

pub(super) async fn forget(
    connection: &mut SqliteConnection,
    place: &Place,
    id: Uuid,
    writer: Writer,
) -> Result<(), Fault> {
    let (mut tx, _) = begin(connection).await?;
    let kept = enter(&mut tx, &place.plugin, writer).await?;
    let gone = query(FORGET).bind(&*place.plugin).bind(&*place.name).bind(id.hyphenated());
    if let Some(row) = gone.fetch_optional(&mut *tx).await? {
        let (number, words) = (need(row.int("number")?, "number")?, need(row.text("words")?, "words")?);
        query(UNINDEX).bind(number).bind(words).execute(&mut *tx).await?;
        count(&mut tx, place, kept.memories.saturating_sub(1)).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn count(connection: &mut SqliteConnection, place: &Place, memories: u64) -> Result<(), Fault> {
    query(COUNT).bind(&*place.plugin).bind(plan::counted(memories)).execute(connection).await?;
    Ok(())
}

pub(super) async fn recall(
    connection: &mut SqliteConnection,
    place: &Place,
    query_text: &str,
    limit: u32,
) -> Result<Vec<MemoryRow>, Fault> {
    let (words, limit) = (plan::asked(place, query_text), limit.min(plan::RECALLED));
    let rows = match words.is_empty() {
        true => query(NEWEST).bind(&*place.plugin).bind(&*place.name).bind(limit).fetch_all(connection).await?,
        false => {
            // A word has no quotes in it.
            let quoted: Value = words.iter().map(|[scope, word]| format!("\"{scope}\" AND \"{word}\"")).collect();
            let search = query(SEARCH).bind(&*place.plugin).bind(&*place.name).bind(quoted.to_string()).bind(limit);
            search.fetch_all(connection).await?
        }
    };
    rows.iter().map(rows::memory).collect()
}
