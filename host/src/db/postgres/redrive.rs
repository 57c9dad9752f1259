//! Delivering dead letters again: written down before, marked after.

use super::super::RedriveAnswer;
use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::redrive_id;
use super::super::rows;
use crate::task::TaskId;
use sqlx::{Connection, PgConnection, query};

statements! {
    LETTER = "SELECT id, queue, body, properties, content_hash, redrives, redriven_as, redriven_at,
        erased_at IS NOT NULL AS erased FROM dead_letters WHERE id = $1 FOR UPDATE";
    BEGIN = "UPDATE dead_letters SET redriven_as = $2, redriven_at = NULL WHERE id = $1";
    END = "UPDATE dead_letters SET redriven_at = statement_timestamp(), redrives = redrives + 1
        WHERE id = $1 AND redriven_as = $2 AND redriven_at IS NULL";
}

pub(super) async fn begin_redrive(
    connection: &mut PgConnection,
    letter: i64,
    again: bool,
) -> Result<RedriveAnswer, Fault> {
    let mut tx = connection.begin().await?;
    let Some(row) = query(LETTER).bind(letter).fetch_optional(&mut *tx).await? else {
        return Ok(RedriveAnswer::Unknown);
    };
    if row.flag("erased")? {
        return Ok(RedriveAnswer::Erased);
    }
    if row.time("redriven_at")?.is_some() && !again {
        return Ok(RedriveAnswer::Redriven(need(row.id("redriven_as")?, "redriven_as")?));
    }
    let (redrives, hash) = (need(row.int("redrives")?, "redrives")?, need(row.bytes("content_hash")?, "content_hash")?);
    let id = redrive_id(letter, redrives, &hash);
    query(BEGIN).bind(letter).bind(id).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(RedriveAnswer::Begun(rows::redrive(&row, id)?))
}

pub(super) async fn end_redrive(connection: &mut PgConnection, letter: i64, id: TaskId) -> Result<(), Fault> {
    query(END).bind(letter).bind(id).execute(connection).await?;
    Ok(())
}
