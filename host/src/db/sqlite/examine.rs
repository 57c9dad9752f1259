//! Facts about the file, the tables and what waits in them. See [`Examiner`].

use super::super::cells::{Cells, need};
use super::super::examine;
use super::super::fault::Fault;
use super::super::schema::{self, SQLITE};
use super::*;
use sqlx::{SqliteConnection, query};

statements! {
    VERSION = "SELECT sqlite_version() AS version, (SELECT encoding FROM pragma_encoding) AS encoding";
    PAGES = "SELECT (SELECT page_count FROM pragma_page_count) * (SELECT page_size FROM pragma_page_size) AS bytes,
        (SELECT freelist_count FROM pragma_freelist_count) * (SELECT page_size FROM pragma_page_size) AS free_bytes";
    /// Reads every page, and compares no index with its table.
    DAMAGE = "PRAGMA quick_check(10)";
    WAITING = "WITH oldest AS (
            SELECT * FROM (SELECT COALESCE(waiting_code, 'pending') AS code, waiting_since AS since FROM tasks
                WHERE state = 'pending' ORDER BY created_at, id LIMIT 10000)
            UNION ALL
            SELECT * FROM (SELECT waiting_code, run_at FROM tasks
                WHERE state IN ('scheduled', 'retrying')
                    AND run_at < strftime('%Y-%m-%dT%H:%M:%S.000000Z', 'now', '-1 minute')
                ORDER BY run_at LIMIT 10000)
        )
        SELECT code, min(since) AS since, count(*) AS waiting FROM oldest GROUP BY code ORDER BY since, code";
    RUNNING = "SELECT owner, count(*) AS running FROM tasks WHERE state = 'running' GROUP BY owner";
    LETTERS = "SELECT count(*) AS unpublished, min(at) AS oldest
        FROM (SELECT at FROM dead_letters WHERE publish_at IS NOT NULL LIMIT 1000)";
}

#[async_trait]
impl Examiner for SqliteDb {
    async fn server(&self) -> Result<ServerFacts, DbError> {
        let place = self.place();
        self.read("look at the file", move |c| {
            let place = place.clone();
            Box::pin(async move {
                let row = query(VERSION).fetch_one(c).await?;
                Ok(ServerFacts {
                    version: format!("SQLite {}", need(row.text("version")?, "version")?),
                    encoding: need(row.text("encoding")?, "encoding")?,
                    database: place,
                    ..ServerFacts::default()
                })
            })
        })
        .await
    }

    async fn schema(&self) -> Result<SchemaFacts, DbError> {
        self.read("read the schema's version", |c| {
            Box::pin(async move {
                let applied = version::applied(c).await?;
                let known = SQLITE.last().map_or(0, |last| last.version);
                Ok(SchemaFacts { found: schema::version(&applied), known })
            })
        })
        .await
    }

    async fn connections(&self) -> Result<Option<ConnectionFacts>, DbError> {
        Ok(None)
    }

    async fn tables(&self) -> Result<Vec<TableFacts>, DbError> {
        let sizes = self.sizes().await?;
        let table = |size: TableSize| TableFacts {
            table: size.table,
            rows: size.rows,
            bytes: size.bytes,
            index_bytes: 0,
            dead: size.dead,
            vacuumed_at: None,
        };
        Ok(sizes.into_iter().map(table).collect())
    }

    async fn invalid_indexes(&self) -> Result<Vec<String>, DbError> {
        Ok(Vec::new())
    }

    async fn holders(&self) -> Result<Vec<HolderFacts>, DbError> {
        Ok(Vec::new())
    }

    async fn waiting(&self) -> Result<Vec<WaitingFacts>, DbError> {
        self.read("look for waiting tasks", |c| {
            Box::pin(async move { query(WAITING).fetch_all(c).await?.iter().map(examine::waiting).collect() })
        })
        .await
    }

    async fn running(&self) -> Result<Vec<RunningFacts>, DbError> {
        self.read("count running tasks", |c| {
            Box::pin(async move { query(RUNNING).fetch_all(c).await?.iter().map(examine::running).collect() })
        })
        .await
    }

    async fn letters(&self) -> Result<LetterFacts, DbError> {
        self.read("count unpublished dead letters", |c| {
            Box::pin(async move { examine::letters(&query(LETTERS).fetch_one(c).await?) })
        })
        .await
    }

    async fn file(&self) -> Result<Option<FileFacts>, DbError> {
        let log = format!("{}-wal", self.place());
        self.read("measure the file", move |c| {
            let log = log.clone();
            Box::pin(async move { file(c, &log).await.map(Some) })
        })
        .await
    }

    async fn damage(&self) -> Result<Vec<String>, DbError> {
        self.read("check the file", |c| {
            Box::pin(async move {
                let rows = query(DAMAGE).fetch_all(c).await?;
                let lines = rows.iter().map(|row| need(row.text("quick_check")?, "quick_check"));
                let lines: Vec<String> = lines.collect::<Result<_, Fault>>()?;
                Ok(lines.into_iter().filter(|line| line != "ok").collect())
            })
        })
        .await
    }
}

async fn file(connection: &mut SqliteConnection, log: &str) -> Result<FileFacts, Fault> {
    let row = query(PAGES).fetch_one(connection).await?;
    let bytes = |name| Ok::<_, Fault>(u64::try_from(need(row.int(name)?, name)?).unwrap_or_default());
    let log_bytes = std::fs::metadata(log).map_or(0, |file| file.len());
    Ok(FileFacts { bytes: bytes("bytes")?, free_bytes: bytes("free_bytes")?, log_bytes })
}
