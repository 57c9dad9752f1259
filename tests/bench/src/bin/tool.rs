//! Small tools around a run of `cargo xtask bench`, each of which prints one line of JSON:
//!
//! ```text
//! BENCH_AMQP=amqp://…          bench-tool publish EXCHANGE KEY PLUGIN,… TASKS  publishes with confirms
//! BENCH_DATABASE=postgres://…  bench-tool recorded SCHEMA FIRST LAST          what a daemon recorded of these ids
//! BENCH_DATABASE=postgres://…  bench-tool counters                            write-ahead log and transactions so far
//! BENCH_DATABASE=postgres://…  bench-tool create NAME | drop NAME             databases
//!                              bench-tool slow-server MILLISECONDS            prints its port, then serves
//! ```

#![allow(clippy::print_stdout, reason = "its output is its result")]

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bench::{INPUT, broker, database, slow_server, variable};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, query};
use uuid::Uuid;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["publish", exchange, key, plugins, tasks] => publish(exchange, key, plugins, tasks.parse()?).await?,
        ["recorded", schema, first, last] => {
            let pool = database::connect(&variable("BENCH_DATABASE")?, 1).await?;
            database::recorded(&pool, schema, first.parse()?, last.parse()?).await?
        }
        ["counters"] => database::counters(&database::connect(&variable("BENCH_DATABASE")?, 1).await?).await?,
        ["create", name] => databases(&format!("CREATE DATABASE {}", identifier(name)?)).await?,
        ["drop", name] => databases(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name)?)).await?,
        ["slow-server", milliseconds] => {
            let wait = Duration::from_millis(milliseconds.parse()?);
            slow_server::serve(wait, |port| println!("{port}")).await?;
            Value::Null
        }
        _ => bail!("usage: bench-tool publish|recorded|counters|create|drop|slow-server …"),
    };
    println!("{result}");
    Ok(())
}

/// Publishes tasks for a daemon. Ids are in order, so the first and the last name all of them.
async fn publish(exchange: &str, key: &str, plugins: &str, tasks: usize) -> anyhow::Result<Value> {
    let connection = broker::connect(&variable("BENCH_AMQP")?).await?;
    let channel = broker::confirming(&connection).await?;
    let ids: Vec<Uuid> = (0..tasks).map(|_| Uuid::now_v7()).collect();
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { bail!("TASKS is 0") };
    let plugins: Vec<&str> = plugins.split(',').collect();
    let begun = Instant::now();
    for window in ids.chunks(broker::WINDOW) {
        let message = |(id, plugin): (&Uuid, &str)| format!(r#"{{"id":"{id}","plugin":"{plugin}","input":{INPUT}}}"#);
        let messages: Vec<_> = window.iter().zip(plugins.iter().cycle().copied()).map(message).collect();
        broker::publish(&channel, exchange, key, &messages).await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    connection.close(200, "done".into()).await.context("failed to close the connection")?;
    Ok(json!({"first": first, "last": last, "tasks": tasks, "per_second": tasks as f64 / seconds}))
}

async fn databases(statement: &str) -> anyhow::Result<Value> {
    let pool = database::connect(&variable("BENCH_DATABASE")?, 1).await?;
    query(AssertSqlSafe(statement.to_owned())).execute(&pool).await.context("failed to create or drop a database")?;
    Ok(Value::Null)
}

/// A name that needs no quotation marks.
fn identifier(name: &str) -> anyhow::Result<&str> {
    let fits = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if fits { Ok(name) } else { bail!("{name:?} is not a database name of this program") }
}
