//! Takes over the messages of `queue.sqlite`, which the embedded queue had to itself in earlier versions.
//!
//! The file is renamed first, under a name of its own, so that a daemon of an earlier version never writes to it again. Its
//! messages are appended in parts, each in one transaction with how far it came; a process that dies in between goes on
//! there. Then the file is deleted.

use super::{DbError, NewMessage, QueueTable};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Messages of one transaction.
const PART: usize = 500;
const OLD: &str = "queue.sqlite";

const QUEUES: &str = "SELECT id, name, kind, handed FROM queues ORDER BY id";
const MESSAGES: &str = "SELECT id, queue, properties, body FROM messages WHERE id > ? ORDER BY id LIMIT ?";

/// Take over what there is.
pub(super) async fn old_files(table: &QueueTable, folder: &Path) -> Result<(), DbError> {
    let failed = |e: std::io::Error| DbError::Refused(format!("taking over {OLD} in {}: {e}", folder.display()));
    let old = folder.join(OLD);
    if old.is_file() {
        // What its write-ahead log holds goes into the file, which can then be renamed alone.
        let mut connection = open(&old).await?;
        let mode = sqlx::query("PRAGMA journal_mode = DELETE").fetch_one(&mut connection).await.map_err(refused)?;
        if mode.get::<&str, _>(0) != "delete" {
            return Err(DbError::Refused(format!(
                "taking over {OLD} in {}: another process has it open",
                folder.display()
            )));
        }
        connection.close().await.map_err(refused)?;
        std::fs::rename(&old, folder.join(format!("queue-{}.old", uuid::Uuid::now_v7()))).map_err(failed)?;
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(failed)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| name(path).is_some_and(|name| name.starts_with("queue-") && name.ends_with(".old")))
        .collect();
    files.sort();
    for file in files {
        let count = one(table, &file).await?;
        std::fs::remove_file(&file).map_err(failed)?;
        tracing::info!(count, "messages of the embedded queue's former file taken over");
    }
    Ok(())
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

async fn open(file: &Path) -> Result<SqliteConnection, DbError> {
    SqliteConnectOptions::new().filename(file).connect().await.map_err(refused)
}

fn refused(error: sqlx::Error) -> DbError {
    DbError::Refused(format!("taking over {OLD}: {error}"))
}

async fn one(table: &QueueTable, file: &Path) -> Result<usize, DbError> {
    let mut connection = open(file).await?;
    let rows = sqlx::query(QUEUES).fetch_all(&mut connection).await.map_err(refused)?;
    let old: Vec<(i64, String, i64, i64)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
    let names: Vec<_> = old.iter().map(|(_, name, kind, _)| (name.clone(), *kind)).collect();
    table.declare(&names).await?;
    let now: HashMap<(String, i64), i64> =
        table.queues().await?.into_iter().map(|queue| ((queue.name, queue.kind), queue.id)).collect();
    let queues: HashMap<i64, (i64, i64)> =
        old.into_iter().filter_map(|(id, name, kind, handed)| Some((id, (*now.get(&(name, kind))?, handed)))).collect();
    let name = name(file).unwrap_or_default().to_owned();
    let mut upto = table.db.imported(&name).await?;
    let mut count = 0;
    loop {
        let rows =
            sqlx::query(MESSAGES).bind(upto).bind(PART as i64).fetch_all(&mut connection).await.map_err(refused)?;
        let Some(last) = rows.last() else { break };
        upto = last.get(0);
        let mut part = Vec::with_capacity(rows.len());
        for row in &rows {
            let Some((queue, handed)) = queues.get(&row.get::<i64, _>(1)) else { continue };
            let body: Vec<u8> = row.get(3);
            let message = NewMessage { queue: *queue, properties: row.get(2), body: body.into() };
            part.push((message, row.get::<i64, _>(0) <= *handed));
        }
        count += part.len();
        table.db.import(name.clone(), upto, part).await?;
    }
    connection.close().await.map_err(refused)?;
    Ok(count)
}
