//! Labelled tasks: a count by value, and deletion, a few at a time.

use super::super::cells::{Cells, need};
use super::super::fault::Fault;
use super::super::plan::{LINES_DELETED, fitting};
use super::super::{Label, LabelledDeletion, LabelledTasks, rows};
use super::prune::FORGET;
use sqlx::{Connection, PgConnection, query};

statements! {
    /// By creation, newest first, as the indexes of migration 10 are ordered. They are of one key, which is a constant when the statement is
    /// planned; tasks that have ended and others are in different ones, so that neither are read in vain.
    ENDED = fitting!("$3::bigint", "created_at DESC, id DESC", "SELECT id, created_at, last_seq + log_seq AS lines FROM tasks
            WHERE labels <> '{}' AND labels::jsonb ->> $1 IS NOT NULL AND finished_at IS NOT NULL AND labels::jsonb ->> $1 = $2
        ORDER BY created_at DESC, id DESC LIMIT $4 FOR UPDATE SKIP LOCKED");
    UNFINISHED = "SELECT id FROM tasks
            WHERE labels <> '{}' AND labels::jsonb ->> $1 IS NOT NULL AND finished_at IS NULL AND labels::jsonb ->> $1 = $2
        ORDER BY created_at DESC, id DESC LIMIT $3";
    VALUES = "SELECT value, sum(ended)::bigint AS ended, sum(unfinished)::bigint AS unfinished, max(last_at) AS last_at FROM (
            SELECT labels::jsonb ->> $1 AS value, count(*) AS ended, 0 AS unfinished, max(finished_at) AS last_at FROM tasks
            WHERE labels <> '{}' AND labels::jsonb ->> $1 IS NOT NULL AND finished_at IS NOT NULL GROUP BY 1
        UNION ALL
            SELECT labels::jsonb ->> $1, 0, count(*), max(created_at) FROM tasks
            WHERE labels <> '{}' AND labels::jsonb ->> $1 IS NOT NULL AND finished_at IS NULL GROUP BY 1
        ) counted GROUP BY value ORDER BY last_at DESC LIMIT $2";
}

pub(super) async fn values(connection: &mut PgConnection, key: &str, limit: u32) -> Result<Vec<LabelledTasks>, Fault> {
    let found = query(VALUES).bind(key).bind(i64::from(limit)).fetch_all(connection).await?;
    found.iter().map(rows::labelled).collect()
}

pub(super) async fn delete(
    connection: &mut PgConnection,
    label: &Label,
    limit: u32,
) -> Result<LabelledDeletion, Fault> {
    let (key, value, limit) = (label.key.as_str(), label.value.as_str(), i64::from(limit));
    let mut tx = connection.begin().await?;
    let ended = query(ENDED).bind(key).bind(value).bind(LINES_DELETED).bind(limit).fetch_all(&mut *tx).await?;
    let ended = ended.iter().map(|row| need(row.id("id")?, "id")).collect::<Result<Vec<_>, _>>()?;
    if !ended.is_empty() {
        query(FORGET).bind(&ended).execute(&mut *tx).await?;
    }
    let unfinished = query(UNFINISHED).bind(key).bind(value).bind(limit).fetch_all(&mut *tx).await?;
    let unfinished = unfinished.iter().map(|row| need(row.id("id")?, "id")).collect::<Result<_, _>>()?;
    tx.commit().await?;
    Ok(LabelledDeletion { deleted: ended.len() as u64, unfinished })
}
