//! Unusable messages.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{self, Birth, content_hash};
use super::super::{DeadLetter, DeadRecorded, storable};
use super::hosts::interval;
use super::transition::give_birth;
use sqlx::{Connection, PgConnection, query};

statements! {
    SAME = "SELECT id FROM dead_letters WHERE content_hash = $1 AND at > clock_timestamp() - $2::interval
        AND task_id IS NOT DISTINCT FROM $3 ORDER BY id DESC LIMIT 1";
    /// Two hosts may hold the same message, one of them without knowing that it was cut off: they take turns.
    TURN = "SELECT pg_advisory_xact_lock($1)";
    INSERT = "INSERT INTO dead_letters (at, reason, detail, queue, task_id, plugin, body, properties, content_hash)
        VALUES (clock_timestamp(), $1, $2, $3, $4, $5, $6, $7, $8) RETURNING id";
}

pub(super) async fn record(connection: &mut PgConnection, letter: &DeadLetter) -> Result<DeadRecorded, Fault> {
    let hash = content_hash(letter);
    let mut tx = connection.begin().await?;
    if plan::may_be_known(letter) {
        let [a, b, c, d, e, f, g, h, ..] = hash;
        query(TURN).bind(i64::from_be_bytes([a, b, c, d, e, f, g, h])).execute(&mut *tx).await?;
        let same = query(SAME).bind(&hash[..]).bind(interval(plan::SAME_LETTER)).bind(letter.task_id);
        let same = same.fetch_optional(&mut *tx).await?;
        if let Some(row) = same {
            return Ok(DeadRecorded { id: need(row.int("id")?, "id")?, repeated: true });
        }
    }
    let row = query(INSERT)
        .bind(storable::text(&letter.reason))
        .bind(storable::text(&letter.detail))
        .bind(storable::text(&letter.queue))
        .bind(letter.task_id)
        .bind(letter.plugin.as_deref().map(storable::text))
        .bind(&*letter.body)
        .bind(storable::json(&letter.properties))
        .bind(&hash[..])
        .fetch_one(&mut *tx)
        .await?;
    if let Some(id) = plan::rejected_task(letter) {
        give_birth(&mut tx, &[Birth::of_dead_letter(letter, id)?]).await?;
    }
    tx.commit().await?;
    Ok(DeadRecorded { id: need(row.int("id")?, "id")?, repeated: false })
}
