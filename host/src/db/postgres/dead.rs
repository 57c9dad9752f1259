//! Unusable messages.

use super::super::bisect::bisected;
use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{self, Birth, content_hash};
use super::super::{BATCH_BYTES, DeadAnswer, DeadLetter, DeadRecorded, UnpublishedLetter, rows, storable};
use super::hosts::interval;
use super::transition::{column, give_birth};
use sqlx::{Connection, PgConnection, query};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

statements! {
    /// Two hosts may hold the same message, one of them without knowing that it was cut off. And a call that timed out may go on in its
    /// transaction while it is repeated. They take turns, in the order of the keys, so that no two wait for each other.
    TURNS = "SELECT pg_advisory_xact_lock(key) FROM (
        SELECT DISTINCT key FROM unnest($1::bigint[]) AS k(key) ORDER BY key) AS keys";
    /// The last letter that equals each. It is due to be published again: a host may have died after it had recorded it.
    SAME = "WITH asked AS (
        SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::uuid[]) AS a(n, hash, task_id)
    ), same AS (
        SELECT a.n, (
            SELECT d.id FROM dead_letters d
            WHERE d.content_hash = a.hash AND d.at > clock_timestamp() - $4::interval
                AND d.task_id IS NOT DISTINCT FROM a.task_id
            ORDER BY d.id DESC LIMIT 1) AS id
        FROM asked a
    ), again AS (
        UPDATE dead_letters SET publish_at = COALESCE(publish_at, statement_timestamp())
        WHERE id IN (SELECT id FROM dead_letters WHERE id IN (SELECT id FROM same) AND erased_at IS NULL
            ORDER BY id FOR UPDATE)
    )
    SELECT n, id FROM same WHERE id IS NOT NULL";
    INSERT = "INSERT INTO dead_letters (at, reason, detail, queue, task_id, plugin, body, properties, content_hash, publish_at)
        SELECT clock_timestamp(), l.reason, l.detail, l.queue, l.task_id, l.plugin, l.body, l.properties, l.hash,
            statement_timestamp()
        FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::bytea[], $7::text[], $8::bytea[])
            WITH ORDINALITY AS l(reason, detail, queue, task_id, plugin, body, properties, hash, n)
        ORDER BY l.n
        RETURNING id";
    /// Of the found letters so many are taken as their bodies have room, of which only the lengths are read before.
    TAKE = "WITH found AS (
        SELECT id, octet_length(body)::bigint AS bytes FROM dead_letters
        WHERE queue = $1 AND publish_at <= statement_timestamp() AND erased_at IS NULL ORDER BY publish_at, id LIMIT $2
        FOR UPDATE SKIP LOCKED
    ), due AS (
        SELECT id, row_number() OVER w AS n, sum(bytes) OVER w AS total FROM found WINDOW w AS (ORDER BY id)
    )
    UPDATE dead_letters d SET publish_at = clock_timestamp() + $3::interval
    FROM due WHERE d.id = due.id AND (due.n = 1 OR due.total <= $4::bigint)
    RETURNING d.id, d.reason, d.detail, d.body, d.properties";
    PUBLISHED = "UPDATE dead_letters SET publish_at = NULL WHERE id IN (
        SELECT id FROM dead_letters WHERE id = ANY($1) ORDER BY id FOR UPDATE)";
    /// One that another host has published meanwhile stays published.
    DEFER = "UPDATE dead_letters SET publish_at = clock_timestamp() + $2::interval WHERE id IN (
        SELECT id FROM dead_letters WHERE id = ANY($1) AND publish_at IS NOT NULL ORDER BY id FOR UPDATE)";
}

pub(super) async fn record(connection: &mut PgConnection, letters: &[DeadLetter]) -> Result<Vec<DeadAnswer>, Fault> {
    bisected!(letters.len(), |range| record_all(connection, &letters[range]).await, DeadAnswer::Refused)
}

async fn record_all(connection: &mut PgConnection, letters: &[DeadLetter]) -> Result<Vec<DeadAnswer>, Fault> {
    let hashes: Vec<[u8; 32]> = letters.iter().map(content_hash).collect();
    let earlier = plan::equal_before(letters, &hashes);
    let asked: Vec<usize> =
        (0..letters.len()).filter(|&n| earlier[n].is_none() && plan::may_be_known(&letters[n])).collect();
    let mut tx = connection.begin().await?;
    let mut known: HashMap<usize, i64> = HashMap::new();
    let turn = |[a, b, c, d, e, f, g, h, ..]: &[u8; 32]| i64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
    query(TURNS).bind(column(&hashes, turn)).execute(&mut *tx).await?;
    if !asked.is_empty() {
        let same = query(SAME)
            .bind(column(&asked, |&n| n as i64))
            .bind(column(&asked, |&n| &hashes[n][..]))
            .bind(column(&asked, |&n| letters[n].task_id))
            .bind(interval(plan::SAME_LETTER));
        for row in same.fetch_all(&mut *tx).await? {
            known.insert(row.count("n")? as usize, need(row.int("id")?, "id")?);
        }
    }
    let new: Vec<usize> = (0..letters.len()).filter(|n| earlier[*n].is_none() && !known.contains_key(n)).collect();
    let ids = insert(&mut tx, letters, &hashes, &new).await?;
    let mut seen = HashSet::new();
    let mut births = Vec::new();
    for &n in &new {
        if let Some(id) = plan::rejected_task(&letters[n]).filter(|id| seen.insert(*id)) {
            births.push(Birth::of_dead_letter(&letters[n], id)?);
        }
    }
    give_birth(&mut tx, &births).await?;
    tx.commit().await?;
    let new: HashMap<usize, i64> = new.into_iter().zip(ids).collect();
    let mut recorded: Vec<DeadRecorded> = Vec::with_capacity(letters.len());
    for (n, earlier) in earlier.into_iter().enumerate() {
        let first = earlier.and_then(|earlier| recorded.get(earlier)).map(|first| first.id);
        recorded.push(match (first.or_else(|| known.get(&n).copied()), new.get(&n)) {
            (Some(id), _) => DeadRecorded { id, repeated: true },
            (None, Some(id)) => DeadRecorded { id: *id, repeated: false },
            (None, None) => return Err(Fault::Defect("a dead letter got no id".into())),
        });
    }
    Ok(recorded.into_iter().map(DeadAnswer::Recorded).collect())
}

/// Insert the letters of these indexes; returns their ids, in the same order.
async fn insert(
    connection: &mut PgConnection,
    letters: &[DeadLetter],
    hashes: &[[u8; 32]],
    new: &[usize],
) -> Result<Vec<i64>, Fault> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let rows = query(INSERT)
        .bind(column(new, |&n| storable::text(&letters[n].reason)))
        .bind(column(new, |&n| storable::text(&letters[n].detail)))
        .bind(column(new, |&n| storable::text(&letters[n].queue)))
        .bind(column(new, |&n| letters[n].task_id))
        .bind(column(new, |&n| letters[n].plugin.as_deref().map(storable::text)))
        .bind(column(new, |&n| &*letters[n].body))
        .bind(column(new, |&n| storable::json(&letters[n].properties)))
        .bind(column(new, |&n| &hashes[n][..]))
        .fetch_all(connection)
        .await?;
    // They were given out in the order of the rows.
    let mut ids = rows.iter().map(|row| need(row.int("id")?, "id")).collect::<Result<Vec<i64>, Fault>>()?;
    ids.sort_unstable();
    Ok(ids)
}

pub(super) async fn take(
    connection: &mut PgConnection,
    queue: &str,
    limit: u32,
    hold: Duration,
) -> Result<Vec<UnpublishedLetter>, Fault> {
    let taking = query(TAKE).bind(queue).bind(i64::from(limit)).bind(interval(hold)).bind(plan::counted(BATCH_BYTES));
    let rows = taking.fetch_all(connection).await?;
    let mut letters = rows.iter().map(rows::unpublished).collect::<Result<Vec<_>, Fault>>()?;
    letters.sort_by_key(|letter| letter.id);
    Ok(letters)
}

pub(super) async fn published(connection: &mut PgConnection, ids: Arc<[i64]>) -> Result<(), Fault> {
    query(PUBLISHED).bind(&*ids).execute(connection).await?;
    Ok(())
}

pub(super) async fn defer(connection: &mut PgConnection, ids: Arc<[i64]>, delay: Duration) -> Result<(), Fault> {
    query(DEFER).bind(&*ids).bind(interval(delay)).execute(connection).await?;
    Ok(())
}
