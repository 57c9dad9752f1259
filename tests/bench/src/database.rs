//! Postgres as the bare loop uses it, and the counters that a run is judged by.

use anyhow::Context;
use serde_json::{Value, json};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Row, query};
use uuid::Uuid;

/// Statistics of an idle backend become visible after at most this time.
const STATISTICS: std::time::Duration = std::time::Duration::from_millis(1_500);

/// Connects.
pub async fn connect(url: &str, connections: u32) -> anyhow::Result<PgPool> {
    PgPoolOptions::new().max_connections(connections).connect(url).await.context("failed to connect to the database")
}

/// The bare loop's one table, empty.
pub async fn fresh_table(pool: &PgPool) -> anyhow::Result<()> {
    let create = "CREATE TABLE bare_tasks (id uuid PRIMARY KEY, status smallint NOT NULL, input jsonb, result jsonb,
        created_at timestamptz DEFAULT now(), started_at timestamptz, finished_at timestamptz)";
    for statement in ["DROP TABLE IF EXISTS bare_tasks", create] {
        query(statement).execute(pool).await.context("failed to make the table")?;
    }
    Ok(())
}

/// Inserts waiting tasks.
pub async fn insert(pool: &PgPool, ids: &[Uuid], input: &str) -> anyhow::Result<()> {
    let insert = "INSERT INTO bare_tasks (id, status, input) SELECT id, 0, $2::jsonb FROM unnest($1::uuid[]) id";
    query(insert).bind(ids).bind(input).execute(pool).await.context("failed to insert tasks")?;
    Ok(())
}

/// The first of the two updates.
pub async fn started(pool: &PgPool, ids: &[Uuid]) -> anyhow::Result<()> {
    let update = "UPDATE bare_tasks SET status = 1, started_at = now() WHERE id = ANY($1) AND status = 0";
    query(update).bind(ids).execute(pool).await.context("failed to record starts")?;
    Ok(())
}

/// The second of the two updates.
pub async fn finished(pool: &PgPool, ids: &[Uuid], outputs: &[&str]) -> anyhow::Result<()> {
    let update = "UPDATE bare_tasks t SET status = 2, finished_at = now(), result = u.output::jsonb
        FROM unnest($1::uuid[], $2::text[]) AS u (id, output) WHERE t.id = u.id";
    query(update).bind(ids).bind(outputs).execute(pool).await.context("failed to record ends")?;
    Ok(())
}

/// How many tasks of the bare loop have ended, and the time from the first start to the last end.
pub async fn bare_result(pool: &PgPool) -> anyhow::Result<(i64, f64)> {
    let result = "SELECT count(*) AS ended, extract(epoch FROM max(finished_at) - min(started_at))::float8 AS seconds
        FROM bare_tasks WHERE status = 2";
    let row = query(result).fetch_one(pool).await.context("failed to read the result")?;
    Ok((row.try_get("ended")?, row.try_get::<Option<f64>, _>("seconds")?.unwrap_or_default()))
}

/// Write-ahead log and transactions so far.
pub async fn counters(pool: &PgPool) -> anyhow::Result<Value> {
    tokio::time::sleep(STATISTICS).await;
    let counters = "SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::float8 AS wal,
        (SELECT (xact_commit + xact_rollback)::float8 FROM pg_stat_database WHERE datname = current_database()) AS xacts";
    let row = query(counters).fetch_one(pool).await.context("failed to read the counters")?;
    Ok(json!({"wal_bytes": row.try_get::<f64, _>("wal")?, "transactions": row.try_get::<f64, _>("xacts")?}))
}

/// What a daemon recorded of the tasks between two ids: how many, how many completed, and the time from the first start to the
/// last end.
pub async fn recorded(pool: &PgPool, schema: &str, first: Uuid, last: Uuid) -> anyhow::Result<Value> {
    let schema: String = schema.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let statement = format!(
        "SELECT count(*) AS rows, count(*) FILTER (WHERE state = 'completed') AS completed,
            extract(epoch FROM max(finished_at) - min(started_at))::float8 AS seconds
        FROM {schema}.tasks WHERE id BETWEEN $1 AND $2"
    );
    let row = query(AssertSqlSafe(statement)).bind(first).bind(last).fetch_one(pool).await;
    let row = row.context("failed to read the daemon's rows")?;
    let seconds: Option<f64> = row.try_get("seconds")?;
    Ok(json!({
        "rows": row.try_get::<i64, _>("rows")?, "completed": row.try_get::<i64, _>("completed")?, "seconds": seconds,
    }))
}
