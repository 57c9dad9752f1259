//! The spool: results that wait for the database on disk, so that they survive this process.
//!
//! One file per batch, written whole and synced before it gets its name; deleted once its batch is recorded. A restart with
//! the same data folder records what it finds under the host and the fences that it was won with, before anything else: the
//! fence still decides. Without a folder (in tests) nothing is kept, and results wait in memory alone.

use crate::db::{Db, DbError, SettleAnswer};
use crate::task::{HostId, Settlement};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How a file says what it is. Another number is another program's.
const VERSION: u32 = 1;

/// Where results wait.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: Option<PathBuf>,
    host: HostId,
    next: u64,
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    host: HostId,
    settlements: &'a [Settlement],
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    host: HostId,
    settlements: Vec<Settlement>,
}

impl Spool {
    /// A spool in this folder, which is made when it is first needed; `None`: nothing can be kept.
    pub fn new(folder: Option<PathBuf>, host: HostId) -> Spool {
        Spool { folder, host, next: 0 }
    }

    /// Keep a batch. `Ok(None)`: there is no folder. When this answers with a file, it survives a power cut.
    pub async fn keep(&mut self, batch: Vec<Settlement>) -> (Vec<Settlement>, io::Result<Option<PathBuf>>) {
        let Some(folder) = self.folder.clone() else { return (batch, Ok(None)) };
        self.next += 1;
        let (name, host) = (format!("{host}-{:08}.json", self.next, host = self.host), self.host);
        let write = tokio::task::spawn_blocking(move || {
            let kept = write(&folder, &name, &Written { version: VERSION, host, settlements: &batch });
            (batch, kept)
        });
        match write.await {
            Ok((batch, kept)) => (batch, kept.map(Some)),
            // The runtime is going down, and this batch with it: the broker has it still.
            Err(gone) => (Vec::new(), Err(io::Error::other(gone))),
        }
    }

    /// What was kept in a file.
    pub async fn load(file: PathBuf) -> io::Result<(HostId, Vec<Settlement>)> {
        tokio::task::spawn_blocking(move || read(&file)).await.map_err(io::Error::other)?
    }

    /// A file cannot be read: it is kept for a person, and not looked at again.
    pub fn put_aside(file: &Path, error: &io::Error) {
        let renamed = fs::rename(file, file.with_extension("unreadable"));
        tracing::error!(%error, file = %file.display(), ?renamed, "a spooled result cannot be read; put aside");
    }

    /// A batch is recorded, and its file not needed any more.
    pub async fn done(file: PathBuf) {
        if let Err(error) = tokio::fs::remove_file(&file).await {
            // It will be settled once more at the next start, which changes nothing.
            tracing::warn!(%error, file = %file.display(), "failed to delete a spooled result that is recorded");
        }
    }
}

/// Record what an earlier process in this folder left. Answers how many results there were.
///
/// # Errors
/// The database's; call again when it answers. What cannot be read is put aside, said, and no error.
pub async fn replay(db: &dyn Db, folder: PathBuf) -> Result<usize, DbError> {
    let mut replayed = 0;
    for file in left(&folder) {
        let (host, settlements) = match Spool::load(file.clone()).await {
            Ok(read) => read,
            Err(error) => {
                Spool::put_aside(&file, &error);
                continue;
            }
        };
        for (settlement, answer) in settlements.iter().zip(db.settle(host, &settlements).await?) {
            let (task, event) = (settlement.id, settlement.ended.event());
            match answer {
                SettleAnswer::Settled => tracing::info!(%task, %event, "recorded from the spool of an earlier process"),
                SettleAnswer::Fenced => tracing::warn!(%task, %event, "fenced: a spooled result came too late"),
                SettleAnswer::Unwritten(reason) => {
                    tracing::error!(%task, %event, reason, "the database refuses a spooled result, and that it failed");
                }
                SettleAnswer::Refused => tracing::error!(%task, %event, "the database refuses a spooled result"),
            }
        }
        replayed += settlements.len();
        Spool::done(file).await;
    }
    Ok(replayed)
}

/// Files in the order in which they were written. What a process left half written when it died was promised to nobody, and
/// goes.
fn left(folder: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let folder = folder.display();
            tracing::error!(%error, %folder, "the spool cannot be read: results in it are not recorded; give this user access");
            return Vec::new();
        }
    };
    let (mut files, mut parts) = (Vec::new(), Vec::new());
    for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => files.push(path),
            Some("part") => parts.push(path),
            _ => {}
        }
    }
    for part in parts {
        if let Err(error) = fs::remove_file(&part) {
            tracing::warn!(%error, file = %part.display(), "failed to delete a half-written result");
        }
    }
    files.sort();
    files
}

fn write(folder: &Path, name: &str, batch: &Written<'_>) -> io::Result<PathBuf> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let (temporary, file) = (folder.join(format!("{name}.part")), folder.join(name));
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let mut writer = BufWriter::new(open);
    serde_json::to_writer(&mut writer, batch)?;
    writer.flush()?;
    writer.get_ref().sync_all()?;
    fs::rename(&temporary, &file)?;
    // The name is durable when its folder is.
    File::open(folder)?.sync_all()?;
    Ok(file)
}

fn read(file: &Path) -> io::Result<(HostId, Vec<Settlement>)> {
    let read: Read = serde_json::from_reader(BufReader::new(File::open(file)?))?;
    match read.version {
        VERSION => Ok((read.host, read.settlements)),
        other => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("version {other}, this build reads {VERSION}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::settle::{Body, Call, Ended, LogLine, Usage};
    use crate::task::{Failure, FailureKind};
    use std::time::Duration;

    fn settlement(ended: Ended) -> Settlement {
        let at = "2030-01-01T00:00:00.000001Z".parse().unwrap();
        let line = LogLine {
            seq: 1,
            at,
            stream: "stderr",
            level: "warn",
            logger: "a".into(),
            message: "\u{1F600}\0".into(),
            cut: true,
        };
        let call = Call {
            seq: 1,
            at,
            capability: "http".into(),
            operation: "GET".into(),
            target: "https://a.example/".into(),
            duration_us: 1,
            request_bytes: 0,
            response_bytes: 9,
            result: "ok".into(),
            detail: serde_json::Value::Null,
            request_body: None,
            response_body: Some(Body { bytes: b"\0\xff".to_vec(), size: 9 }),
        };
        Settlement {
            id: uuid::Uuid::now_v7(),
            fence: 3,
            attempt: 2,
            ended,
            version: "1.0.0".into(),
            digest: "sha256:0".into(),
            usage: Usage { wall_us: 5, ..Usage::default() },
            logs: vec![line],
            calls: vec![call],
        }
    }

    #[tokio::test]
    async fn what_is_kept_reads_back_as_it_was() {
        let scratch = tempfile::tempdir().unwrap();
        let host = uuid::Uuid::new_v4();
        let mut spool = Spool::new(Some(scratch.path().join("spool")), host);
        let failure = Failure::fatal(FailureKind::Trap, "x").with_detail(serde_json::json!({"frames": [1]}));
        let batch: Vec<Settlement> = [
            Ended::Completed { output: r#"{"b": 1, "a":2}"#.into() },
            Ended::Failed { failure: failure.clone() },
            Ended::Retrying { failure, after: Duration::from_millis(1500) },
            Ended::Snoozed { message: "early".into(), after: Duration::from_secs(1) },
            Ended::Interrupted { reason: "r".into() },
            Ended::ChildLost { reason: "r".into() },
            Ended::Cancelled,
        ]
        .map(settlement)
        .into();
        let (batch, kept) = spool.keep(batch).await;
        let file = kept.unwrap().unwrap();
        assert_eq!(Spool::load(file.clone()).await.unwrap(), (host, batch.clone()));
        let (_, second) = spool.keep(batch).await;
        assert_eq!(left(file.parent().unwrap()), [file.clone(), second.unwrap().unwrap()], "in their order");
        Spool::done(file.clone()).await;
        let part = file.with_extension("json.part");
        fs::write(&part, "{").unwrap();
        assert_eq!(left(file.parent().unwrap()).len(), 1);
        assert!(!part.exists(), "what was half written when its process died goes");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_loses_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let occupied = scratch.path().join("occupied");
        fs::write(&occupied, "a file").unwrap();
        let (batch, kept) =
            Spool::new(Some(occupied), uuid::Uuid::nil()).keep(vec![settlement(Ended::Cancelled)]).await;
        assert!(kept.is_err());
        assert_eq!(batch.len(), 1);
    }
}
