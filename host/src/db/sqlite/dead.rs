//! Unusable messages.

use super::super::cells::{Cells, need, stamp};
use super::super::fault::Fault;
use super::super::plan::{self, Birth, bounded, content_hash};
use super::super::{DeadLetter, DeadRecorded, storable};
use super::transition::{begin, insert_tasks, one};
use sqlx::{SqliteConnection, query};

statements! {
    SAME = "SELECT id FROM dead_letters WHERE content_hash = ?1 AND at > ?2 AND task_id IS ?3 ORDER BY id DESC LIMIT 1";
    INSERT = "INSERT INTO dead_letters (at, reason, detail, queue, task_id, plugin, body, properties, content_hash)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING id";
}

pub(super) async fn record(connection: &mut SqliteConnection, letter: &DeadLetter) -> Result<DeadRecorded, Fault> {
    let hash = content_hash(letter);
    let (mut tx, now) = begin(connection).await?;
    if plan::may_be_known(letter) {
        let since = stamp(now - bounded(plan::SAME_LETTER));
        let same = query(SAME).bind(&hash[..]).bind(since).bind(letter.task_id.map(|id| id.hyphenated()));
        if let Some(row) = same.fetch_optional(&mut *tx).await? {
            return Ok(DeadRecorded { id: need(row.int("id")?, "id")?, repeated: true });
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
        .fetch_one(&mut *tx)
        .await?;
    if let Some(id) = plan::rejected_task(letter) {
        // The task of a message that is refused may have a row already.
        if one(&mut tx, id, now).await?.is_none() {
            insert_tasks(&mut tx, &[Birth::of_dead_letter(letter, id)?], now).await?;
        }
    }
    tx.commit().await?;
    Ok(DeadRecorded { id: need(row.int("id")?, "id")?, repeated: false })
}
