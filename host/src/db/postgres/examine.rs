//! Facts about the server, the tables and what stands in their way. See [`Examiner`].

use super::super::cells::{Cells, need};
use super::super::examine;
use super::super::fault::Fault;
use super::super::schema::{self, POSTGRES, TABLES};
use super::*;
use sqlx::{PgConnection, query};

statements! {
    SERVER = "SELECT 'PostgreSQL ' || current_setting('server_version') AS version, current_setting('server_encoding') AS encoding,
            current_database()::text AS database, current_user::text AS role,
            pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on' AS read_only,
            inet_server_addr() IS NOT NULL AS is_remote,
            COALESCE((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS tls";
    /// A user sees that sessions of others exist, and not of which type they are.
    CONNECTIONS = "SELECT count(*) AS used, count(*) FILTER (WHERE a.usename = current_user) AS of_own_role,
            count(*) FILTER (WHERE a.datname = current_database()) AS of_own_database,
            current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
                - COALESCE(current_setting('reserved_connections', true)::bigint, 0) AS of_server,
            (SELECT CASE WHEN rolsuper THEN -1 ELSE rolconnlimit END::bigint FROM pg_roles WHERE rolname = current_user) AS of_role,
            (SELECT datconnlimit::bigint FROM pg_database WHERE datname = current_database()) AS of_database
        FROM pg_stat_activity a WHERE COALESCE(a.backend_type = 'client backend', a.usesysid IS NOT NULL)";
    TABLE_SIZES = "SELECT c.relname::text AS name, c.reltuples::bigint AS row_count, pg_table_size(c.oid)::bigint AS bytes,
            pg_indexes_size(c.oid)::bigint AS index_bytes, pg_stat_get_dead_tuples(c.oid)::bigint AS dead,
            GREATEST(pg_stat_get_last_autovacuum_time(c.oid), pg_stat_get_last_vacuum_time(c.oid)) AS vacuumed_at
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND c.relname::text = ANY($1)
        ORDER BY bytes DESC, name";
    /// One whose build is under way is not valid yet either.
    INVALID = "SELECT c.relname::text AS name FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = current_schema() AND NOT i.indisvalid
            AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
        ORDER BY name";
    /// Whose snapshot is old, or whose transaction is; not of this process. Text of statements is left out: it may hold data of tasks.
    HOLDERS = "SELECT * FROM (
            SELECT 'session' AS kind, 'process ' || pid AS name,
                concat_ws(', ', NULLIF('application ' || application_name, 'application '), 'user ' || usename, state) AS detail,
                extract(epoch FROM clock_timestamp() - xact_start)::bigint AS age
            FROM pg_stat_activity WHERE datname = current_database() AND application_name <> current_setting('application_name') AND xact_start IS NOT NULL
                AND backend_type = 'client backend' AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
            UNION ALL
            SELECT 'prepared transaction', gid, 'owner ' || owner,
                extract(epoch FROM clock_timestamp() - prepared)::bigint
            FROM pg_prepared_xacts WHERE database = current_database()
            UNION ALL
            SELECT 'replication slot', slot_name::text, CASE WHEN active THEN 'active' ELSE 'inactive' END, NULL::bigint
            FROM pg_replication_slots WHERE NOT active AND (xmin IS NOT NULL OR catalog_xmin IS NOT NULL)
        ) holders ORDER BY age DESC NULLS FIRST, name LIMIT 5";
    /// The oldest of each state by the index of lists; what waits for a time is late a minute after it.
    WAITING = "WITH oldest AS (
            (SELECT COALESCE(waiting_code, 'pending') AS code, waiting_since AS since FROM tasks
                WHERE state = 'pending' ORDER BY created_at, id LIMIT 10000)
            UNION ALL
            (SELECT waiting_code, run_at FROM tasks
                WHERE state IN ('scheduled', 'retrying') AND run_at < clock_timestamp() - interval '1 minute'
                ORDER BY run_at LIMIT 10000)
        )
        SELECT code, min(since) AS since, count(*) AS waiting FROM oldest GROUP BY code ORDER BY since, code";
    RUNNING = "SELECT owner, count(*) AS running FROM tasks WHERE state = 'running' GROUP BY owner";
    LETTERS = "SELECT count(*) AS unpublished, min(at) AS oldest
        FROM (SELECT at FROM dead_letters WHERE publish_at IS NOT NULL LIMIT 1000) letters";
}

#[async_trait]
impl Examiner for PostgresDb {
    async fn server(&self) -> Result<ServerFacts, DbError> {
        self.read("look at the server", |c| Box::pin(server(c))).await
    }

    async fn schema(&self) -> Result<SchemaFacts, DbError> {
        let name = self.schema.clone();
        self.read("read the schema's version", move |c| {
            let name = name.clone();
            Box::pin(async move {
                let applied = version::applied(c, &name).await?;
                let known = POSTGRES.last().map_or(0, |last| last.version);
                Ok(SchemaFacts { found: schema::version(&applied), known })
            })
        })
        .await
    }

    async fn connections(&self) -> Result<Option<ConnectionFacts>, DbError> {
        self.read("count connections", |c| Box::pin(async move { connections(c).await.map(Some) })).await
    }

    async fn tables(&self) -> Result<Vec<TableFacts>, DbError> {
        self.read("measure the tables", |c| Box::pin(tables(c))).await
    }

    async fn invalid_indexes(&self) -> Result<Vec<String>, DbError> {
        self.read("look for invalid indexes", |c| {
            Box::pin(async move {
                let rows = query(INVALID).fetch_all(c).await?;
                rows.iter().map(|row| need(row.text("name")?, "name")).collect()
            })
        })
        .await
    }

    async fn holders(&self) -> Result<Vec<HolderFacts>, DbError> {
        self.read("look for old transactions", |c| Box::pin(holders(c))).await
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
        Ok(None)
    }

    async fn damage(&self) -> Result<Vec<String>, DbError> {
        Ok(Vec::new())
    }
}

async fn server(connection: &mut PgConnection) -> Result<ServerFacts, Fault> {
    let row = query(SERVER).fetch_one(connection).await?;
    let text = |name| need(row.text(name)?, name);
    Ok(ServerFacts {
        version: text("version")?,
        encoding: text("encoding")?,
        tls: row.flag("is_remote")?.then_some(row.flag("tls")?),
        read_only: row.flag("read_only")?,
        database: text("database")?,
        role: text("role")?,
    })
}

async fn connections(connection: &mut PgConnection) -> Result<ConnectionFacts, Fault> {
    let row = query(CONNECTIONS).fetch_one(connection).await?;
    let number = |name| need(row.int(name)?, name);
    let limit = |name| Ok::<_, Fault>(row.int(name)?.filter(|limit| *limit >= 0));
    Ok(ConnectionFacts {
        used: number("used")?,
        used_by_role: number("of_own_role")?,
        used_by_database: number("of_own_database")?,
        of_server: number("of_server")?,
        of_role: limit("of_role")?,
        of_database: limit("of_database")?,
    })
}

async fn tables(connection: &mut PgConnection) -> Result<Vec<TableFacts>, Fault> {
    let names: Vec<String> = TABLES.iter().map(|table| (*table).to_owned()).collect();
    let rows = query(TABLE_SIZES).bind(names).fetch_all(connection).await?;
    let table = |row: &sqlx::postgres::PgRow| {
        Ok(TableFacts {
            table: need(row.text("name")?, "name")?,
            rows: need(row.int("row_count")?, "row_count")?,
            bytes: need(row.int("bytes")?, "bytes")?,
            index_bytes: need(row.int("index_bytes")?, "index_bytes")?,
            dead: row.int("dead")?,
            vacuumed_at: row.time("vacuumed_at")?,
        })
    };
    rows.iter().map(table).collect()
}

async fn holders(connection: &mut PgConnection) -> Result<Vec<HolderFacts>, Fault> {
    let rows = query(HOLDERS).fetch_all(connection).await?;
    let holder = |row: &sqlx::postgres::PgRow| {
        Ok(HolderFacts {
            kind: need(row.text("kind")?, "kind")?,
            name: need(row.text("name")?, "name")?,
            detail: row.text("detail")?.unwrap_or_default(),
            age_seconds: row.int("age")?,
        })
    };
    rows.iter().map(holder).collect()
}
