//! What an operator reads with SQL, on Postgres and on SQLite.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, Row, SqlitePool};
use uuid::Uuid;

use crate::patience::eventually;
use crate::variables;

/// A row of `tasks`.
#[derive(Clone, Debug)]
pub struct TaskRow {
    /// Who ran it.
    pub plugin: String,
    /// Its logical queue.
    pub queue: String,
    /// Its state.
    pub state: String,
}

/// A row of `dead_letters`.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The stable word.
    pub reason: String,
    /// What exactly.
    pub detail: String,
}

/// A reader.
pub enum Database {
    /// Of Postgres.
    Postgres(PgPool),
    /// Of a SQLite file.
    Sqlite(SqlitePool),
}

impl Database {
    /// Reads a Postgres database.
    pub async fn postgres(url: &str) -> Self {
        Self::Postgres(PgPool::connect(url).await.expect("the test's database answers"))
    }

    /// Reads the SQLite file in a data folder that has the table `tasks`.
    pub async fn sqlite_in(data: &Path) -> Self {
        eventually("the data folder holds a SQLite file with the table tasks", async || {
            let entries = std::fs::read_dir(data).map_err(|error| error.to_string())?;
            for file in entries.flatten().map(|entry| entry.path()).filter(|file| is_sqlite(file)) {
                let options = SqliteConnectOptions::new().filename(file).read_only(true);
                let pool = SqlitePool::connect_with(options).await.map_err(|error| error.to_string())?;
                if sqlx::query("SELECT 1 FROM tasks LIMIT 1").fetch_optional(&pool).await.is_ok() {
                    return Ok(Self::Sqlite(pool));
                }
            }
            Err("none".to_owned())
        })
        .await
    }

    /// Every task.
    pub async fn tasks(&self) -> BTreeMap<Uuid, TaskRow> {
        let rows = self
            .read([
                "SELECT id::text, plugin, queue, state::text FROM agentry.tasks",
                "SELECT CASE typeof(id) WHEN 'blob' THEN hex(id) ELSE id END, plugin, queue, state FROM tasks",
            ])
            .await;
        let task = |row: Vec<String>| {
            let [id, plugin, queue, state] = <[String; 4]>::try_from(row).expect("four columns");
            (id.parse().expect("an id"), TaskRow { plugin, queue, state })
        };
        rows.into_iter().map(task).collect()
    }

    /// Every task's events, in order: sequence number and name.
    pub async fn events(&self) -> BTreeMap<Uuid, Vec<(i64, String)>> {
        let rows = self
            .read([
                "SELECT task_id::text, seq::text, event::text FROM agentry.task_events ORDER BY task_id, task_events.seq",
                "SELECT CASE typeof(task_id) WHEN 'blob' THEN hex(task_id) ELSE task_id END, CAST(seq AS TEXT), event \
                 FROM task_events ORDER BY task_id, task_events.seq",
            ])
            .await;
        let mut events: BTreeMap<Uuid, Vec<(i64, String)>> = BTreeMap::new();
        for row in rows {
            let [id, seq, event] = <[String; 3]>::try_from(row).expect("three columns");
            events.entry(id.parse().expect("an id")).or_default().push((seq.parse().expect("a number"), event));
        }
        events
    }

    /// Every dead letter, oldest first.
    pub async fn dead_letters(&self) -> Vec<DeadLetter> {
        let rows = self
            .read([
                "SELECT reason, detail FROM agentry.dead_letters ORDER BY id",
                "SELECT reason, detail FROM dead_letters ORDER BY id",
            ])
            .await;
        let letter = |row: Vec<String>| {
            let [reason, detail] = <[String; 2]>::try_from(row).expect("two columns");
            DeadLetter { reason, detail }
        };
        rows.into_iter().map(letter).collect()
    }

    /// How many rows the outbox holds.
    pub async fn outbox(&self) -> u64 {
        let rows =
            self.read(["SELECT count(*)::text FROM agentry.outbox", "SELECT CAST(count(*) AS TEXT) FROM outbox"]).await;
        rows[0][0].parse().expect("a number")
    }

    /// How many dead letters are still to be published.
    pub async fn unpublished(&self) -> u64 {
        let rows = self
            .read([
                "SELECT count(*)::text FROM agentry.dead_letters WHERE publish_at IS NOT NULL",
                "SELECT CAST(count(*) AS TEXT) FROM dead_letters WHERE publish_at IS NOT NULL",
            ])
            .await;
        rows[0][0].parse().expect("a number")
    }

    /// One number that a statement of Postgres asks for.
    pub async fn number(&self, statement: &str) -> Result<i64, String> {
        let Self::Postgres(pool) = self else { return Err("only of Postgres".to_owned()) };
        let asked = sqlx::query_scalar(AssertSqlSafe(statement.to_owned())).fetch_one(pool).await;
        asked.map_err(|error| error.to_string())
    }

    /// Rows of texts that a statement of Postgres asks for.
    pub async fn texts(&self, statement: &'static str) -> Vec<Vec<String>> {
        assert!(matches!(self, Self::Postgres(_)), "only of Postgres");
        self.read([statement, ""]).await
    }

    async fn read(&self, statements: [&'static str; 2]) -> Vec<Vec<String>> {
        self.rows(statements).await.expect("the database answers")
    }

    /// Rows of texts, of Postgres with the first statement and of SQLite with the second; a missing value is an empty text.
    pub(crate) async fn rows(&self, [postgres, sqlite]: [&'static str; 2]) -> Result<Vec<Vec<String>>, String> {
        macro_rules! texts {
            ($rows:expr) => {
                $rows
                    .map_err(|error| error.to_string())?
                    .iter()
                    .map(|row| (0..row.len()).map(|at| row.get::<Option<String>, _>(at).unwrap_or_default()).collect())
                    .collect()
            };
        }
        Ok(match self {
            Self::Postgres(pool) => texts!(sqlx::query(postgres).fetch_all(pool).await),
            Self::Sqlite(pool) => texts!(sqlx::query(sqlite).fetch_all(pool).await),
        })
    }

    /// Every row of every table as text, bytes in hexadecimal digits. Of Postgres; a SQLite file can be read as it is.
    pub async fn everything(&self) -> String {
        let Self::Postgres(pool) = self else { return String::new() };
        let tables = "SELECT string_agg(format('SELECT to_jsonb(t)::text AS row FROM agentry.%I t', table_name), ' UNION ALL ') \
                      FROM information_schema.tables WHERE table_schema = 'agentry'";
        let all: String = sqlx::query_scalar(tables).fetch_one(pool).await.expect("the names of the tables");
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(all)).fetch_all(pool).await.expect("every row");
        assert!(!rows.is_empty(), "there are rows");
        rows.join("\n")
    }

    /// Runs statements, as an operator's mishap would.
    pub async fn execute(&self, statements: &str) {
        let statements = AssertSqlSafe(statements.to_owned());
        match self {
            Self::Postgres(pool) => drop(sqlx::raw_sql(statements).execute(pool).await.expect("the statements run")),
            Self::Sqlite(pool) => drop(sqlx::raw_sql(statements).execute(pool).await.expect("the statements run")),
        }
    }
}

/// What the embedded queue in a data folder holds, handed over or not, by queue; dead letters apart.
pub(crate) async fn queued_in(data: &Path) -> BTreeMap<String, Result<u32, String>> {
    let statement = "SELECT q.name || CASE q.kind WHEN 1 THEN '.returned' ELSE '' END, count(m.id) FROM embedded_queues q \
                     LEFT JOIN embedded_messages m ON m.queue = q.id WHERE q.kind IN (0, 1) GROUP BY q.id";
    let options = SqliteConnectOptions::new().filename(data.join("agentry.sqlite")).read_only(true);
    let rows = async { sqlx::query_as(statement).fetch_all(&SqlitePool::connect_with(options).await?).await };
    let rows: Result<Vec<(String, u32)>, sqlx::Error> = rows.await;
    match rows {
        Ok(rows) => rows.into_iter().map(|(queue, left)| (queue, Ok(left))).collect(),
        Err(error) => BTreeMap::from([("the embedded queue".to_owned(), Err(error.to_string()))]),
    }
}

fn is_sqlite(file: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 16];
    std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && &magic == b"SQLite format 3\0"
}

/// The URL of a database on the tests' server.
pub fn url(name: &str) -> reqwest::Url {
    url_on(&variables::postgres(), name)
}

/// The URL of a database on a server.
pub fn url_on(server: &reqwest::Url, name: &str) -> reqwest::Url {
    let mut url = server.clone();
    url.set_path(name);
    url
}

/// Makes a database.
pub async fn create(server: &reqwest::Url, name: &str) {
    let mut connection = admin(server).await;
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::raw_sql(create).execute(&mut connection).await.expect("a database is created");
    let _ = connection.close().await; // the server forgets it anyway
}

/// Deletes a database, whoever is connected.
pub async fn delete(server: &reqwest::Url, name: &str) {
    let mut connection = admin(server).await;
    let delete = AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
    sqlx::raw_sql(delete).execute(&mut connection).await.expect("a database is deleted");
    let _ = connection.close().await;
}

async fn admin(server: &reqwest::Url) -> PgConnection {
    let options = PgConnectOptions::from_url(server).expect("a server's URL");
    PgConnection::connect_with(&options).await.expect("the server answers")
}
