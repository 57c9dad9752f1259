//! Unusable messages.

use super::super::bisect::bisected;
use super::super::cells::{Cells, need, stamp};
use super::super::fault::Fault;
use super::super::plan::{self, Birth, bounded, content_hash, counted};
use super::super::{BATCH_BYTES, DeadAnswer, DeadLetter, DeadRecorded, UnpublishedLetter, rows, storable};
use super::transition::{begin, insert_tasks, now, one};
use chrono::{DateTime, Utc};
use sqlx::{SqliteConnection, query};
use std::time::Duration;

statements! {
    SAME = "SELECT id FROM dead_letters WHERE content_hash = ?1 AND at > ?2 AND task_id IS ?3 ORDER BY id DESC LIMIT 1";
    /// Due to be published again: the process may have died after it had recorded it.
    AGAIN = "UPDATE dead_letters SET publish_at = COALESCE(publish_at, ?2) WHERE id = ?1 AND erased_at IS NULL";
    INSERT = "INSERT INTO dead_letters (at, reason, detail, queue, task_id, plugin, body, properties, content_hash, publish_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?1) RETURNING id";
    /// Of the found letters so many as their bodies have room, of which only the lengths are read before.
    DUE = "WITH found AS (
        SELECT id, octet_length(body) AS bytes FROM dead_letters
        WHERE queue = ?1 AND publish_at <= ?2 AND erased_at IS NULL ORDER BY publish_at, id LIMIT ?3
    ), due AS (
        SELECT id, row_number() OVER w AS n, sum(bytes) OVER w AS total FROM found WINDOW w AS (ORDER BY id)
    )
    SELECT d.id, d.reason, d.detail, d.body, d.properties FROM due JOIN dead_letters d ON d.id = due.id
    WHERE due.n = 1 OR due.total <= ?4 ORDER BY d.id";
    HOLD = "UPDATE dead_letters SET publish_at = ?2 WHERE id IN (SELECT value FROM json_each(?1))";
    PUBLISHED = "UPDATE dead_letters SET publish_at = NULL WHERE id IN (SELECT value FROM json_each(?1))";
    DEFER = "UPDATE dead_letters SET publish_at = ?2 WHERE id IN (SELECT value FROM json_each(?1))
        AND publish_at IS NOT NULL";
}

pub(super) async fn record(
    connection: &mut SqliteConnection,
    letters: &[DeadLetter],
) -> Result<Vec<DeadAnswer>, Fault> {
    bisected!(letters.len(), |range| record_all(connection, &letters[range]).await, DeadAnswer::Refused)
}

async fn record_all(connection: &mut SqliteConnection, letters: &[DeadLetter]) -> Result<Vec<DeadAnswer>, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let mut answers = Vec::with_capacity(letters.len());
    for letter in letters {
        answers.push(DeadAnswer::Recorded(record_one(&mut tx, letter, now).await?));
    }
    tx.commit().await?;
    Ok(answers)
}

async fn record_one(
    connection: &mut SqliteConnection,
    letter: &DeadLetter,
    now: DateTime<Utc>,
) -> Result<DeadRecorded, Fault> {
    let hash = content_hash(letter);
    if plan::may_be_known(letter) {
        let since = stamp(now - bounded(plan::SAME_LETTER));
        let same = query(SAME).bind(&hash[..]).bind(since).bind(letter.task_id.map(|id| id.hyphenated()));
        if let Some(row) = same.fetch_optional(&mut *connection).await? {
            let id = need(row.int("id")?, "id")?;
            query(AGAIN).bind(id).bind(stamp(now)).execute(&mut *connection).await?;
            return Ok(DeadRecorded { id, repeated: true });
        }
    }
    let row = query(INSERT)
        .bind(stamp(now))
        .bind(storable::text(&letter.reason).as_ref())
        .bind(storable::text(&letter.detail).as_ref())
        .bind(storable::text(&letter.queue).as_ref())
        .bind(letter.task_id.map(|id| id.hyphenated()))
        .bind(letter.plugin.as_deref().map(|plugin| storable::text(plugin).into_owned()))
        .bind(&*letter.body)
        .bind(storable::json(&letter.properties))
        .bind(&hash[..])
        .fetch_one(&mut *connection)
        .await?;
    // The task of a message that is refused may have a row already.
    if let Some(id) = plan::rejected_task(letter)
        && one(&mut *connection, id, now).await?.is_none()
    {
        insert_tasks(&mut *connection, &[Birth::of_dead_letter(letter, id)?], now).await?;
    }
    Ok(DeadRecorded { id: need(row.int("id")?, "id")?, repeated: false })
}

pub(super) async fn take(
    connection: &mut SqliteConnection,
    queue: &str,
    limit: u32,
    hold: Duration,
) -> Result<Vec<UnpublishedLetter>, Fault> {
    let (mut tx, now) = begin(connection).await?;
    let due = query(DUE).bind(queue).bind(stamp(now)).bind(limit).bind(counted(BATCH_BYTES));
    let due = due.fetch_all(&mut *tx).await?;
    let letters = due.iter().map(rows::unpublished).collect::<Result<Vec<_>, Fault>>()?;
    if !letters.is_empty() {
        let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
        query(HOLD).bind(json(&ids)).bind(stamp(now + bounded(hold))).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(letters)
}

pub(super) async fn published(connection: &mut SqliteConnection, ids: &[i64]) -> Result<(), Fault> {
    query(PUBLISHED).bind(json(ids)).execute(connection).await?;
    Ok(())
}

pub(super) async fn defer(connection: &mut SqliteConnection, ids: &[i64], delay: Duration) -> Result<(), Fault> {
    query(DEFER).bind(json(ids)).bind(stamp(now() + bounded(delay))).execute(connection).await?;
    Ok(())
}

/// Ids as a JSON array, for `json_each`.
fn json(ids: &[i64]) -> String {
    serde_json::json!(ids).to_string()
}
