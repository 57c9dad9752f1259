//! What a straightforward use of the same parts gives: RabbitMQ quorum queue, a fresh wasm instance per task, two batched
//! updates in Postgres, contiguous acknowledgements. No history, no fence, no retries, no limits.
//!
//! `BENCH_AMQP=amqp://… BENCH_DATABASE=postgres://… bare-loop COMPONENT TASKS`

#![allow(clippy::print_stdout, reason = "its output is its result")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bench::guest::Guest;
use bench::{INPUT, broker, database, variable};
use futures_util::StreamExt;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use serde_json::json;
use serde_json::value::RawValue;
use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

const QUEUE: &str = "agentry-bench-bare";
/// Unacknowledged deliveries at most.
const PREFETCH: u16 = 1_024;
/// Rows of one statement at most, and guests at once.
const BATCH: usize = 256;
/// Runs that measure an instance and a call alone.
const RUNS: u32 = 10_000;
/// The longest that consuming may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// A task on its way: id, input or output, delivery tag.
type Item = (Uuid, String, u64);

/// A task as it stands in the queue; the same fields as a message to the daemon.
#[derive(serde::Deserialize)]
struct Message<'a> {
    id: Uuid,
    #[serde(borrow)]
    input: &'a RawValue,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(component), Some(tasks), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        bail!("usage: bare-loop COMPONENT TASKS");
    };
    let tasks: usize = tasks.parse().context("TASKS is not a number")?;
    let guest = Guest::load(&PathBuf::from(component))?;
    let instance = fresh_instances(&guest).await?;

    let pool = database::connect(&variable("BENCH_DATABASE")?, 8).await?;
    database::fresh_table(&pool).await?;
    let connection = broker::connect(&variable("BENCH_AMQP")?).await?;
    let channel = broker::confirming(&connection).await?;
    broker::fresh_queue(&channel, QUEUE).await?;
    let submission = submit(&pool, &channel, tasks).await?;

    let channel = connection.create_channel().await.context("failed to open a channel")?;
    let consumed = tokio::time::timeout(PATIENCE, consume(&pool, &channel, &guest, tasks)).await;
    consumed.context("failed to consume every task in time")??;
    let (ended, seconds) = database::bare_result(&pool).await?;
    ensure!(usize::try_from(ended) == Ok(tasks), "{ended} of {tasks} tasks have ended");
    let result = json!({
        "tasks": tasks,
        "seconds": seconds,
        "per_second": tasks as f64 / seconds,
        "submitted_per_second": tasks as f64 / submission.as_secs_f64(),
        "instance_us": instance.as_secs_f64() * 1e6,
        "settings": format!("quorum queue, prefetch {PREFETCH}, batches of {BATCH}, submission in windows of {}", broker::WINDOW),
    });
    println!("{result}");
    // The epoch's thread and the connections end with the process.
    std::process::exit(0)
}

/// The mean time of an instance and a call, one after the other.
async fn fresh_instances(guest: &Guest) -> anyhow::Result<Duration> {
    let run = || guest.run(Uuid::nil().to_string(), INPUT.to_owned());
    for _ in 0..RUNS / 10 {
        run().await?;
    }
    let begun = Instant::now();
    for _ in 0..RUNS {
        run().await?;
    }
    Ok(begun.elapsed() / RUNS)
}

/// Inserts rows and publishes messages with confirms.
async fn submit(pool: &PgPool, channel: &Channel, tasks: usize) -> anyhow::Result<Duration> {
    let ids: Vec<Uuid> = (0..tasks).map(|_| Uuid::now_v7()).collect();
    let begun = Instant::now();
    for window in ids.chunks(broker::WINDOW) {
        database::insert(pool, window, INPUT).await?;
        let message = |id: &Uuid| format!(r#"{{"id":"{id}","plugin":"word-count","input":{INPUT}}}"#);
        broker::publish(channel, "", QUEUE, &window.iter().map(message).collect::<Vec<_>>()).await?;
    }
    Ok(begun.elapsed())
}

/// Runs every task of the queue and records it.
async fn consume(pool: &PgPool, channel: &Channel, guest: &Guest, tasks: usize) -> anyhow::Result<()> {
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.context("failed to set the prefetch")?;
    let consumer =
        channel.basic_consume(QUEUE.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await;
    let mut consumer = consumer.context("failed to consume")?;
    let (arrived, arrivals) = mpsc::channel(2_048);
    let (ran, ends) = mpsc::channel(2_048);
    let starting = tokio::spawn(start(pool.clone(), guest.clone(), arrivals, ran));
    let finishing = tokio::spawn(finish(pool.clone(), channel.clone(), ends, tasks));
    for _ in 0..tasks {
        let delivery = consumer.next().await.context("the consumer was cancelled")??;
        let message: Message<'_> = serde_json::from_slice(&delivery.data).context("failed to read a message")?;
        let item = (message.id, message.input.get().to_owned(), delivery.delivery_tag);
        if arrived.send(item).await.is_err() {
            break; // what went wrong is the starting task's result
        }
    }
    drop(arrived);
    starting.await??;
    finishing.await?
}

/// Records starts in batches and runs the guests.
async fn start(
    pool: PgPool,
    guest: Guest,
    mut arrivals: mpsc::Receiver<Item>,
    ran: mpsc::Sender<anyhow::Result<Item>>,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(BATCH));
    let mut batch = Vec::new();
    while arrivals.recv_many(&mut batch, BATCH).await > 0 {
        let ids: Vec<Uuid> = batch.iter().map(|(id, _, _)| *id).collect();
        database::started(&pool, &ids).await?;
        for (id, input, tag) in batch.drain(..) {
            let place = places.clone().acquire_owned().await?;
            let (guest, ran) = (guest.clone(), ran.clone());
            tokio::spawn(async move {
                let output = guest.run(id.to_string(), input).await;
                // Without a receiver the run has failed already.
                let _ = ran.send(output.map(|output| (id, output, tag))).await;
                drop(place);
            });
        }
    }
    Ok(())
}

/// Records ends in batches, and acknowledges the longest prefix of delivery tags that is recorded.
async fn finish(
    pool: PgPool,
    channel: Channel,
    mut ends: mpsc::Receiver<anyhow::Result<Item>>,
    tasks: usize,
) -> anyhow::Result<()> {
    let (mut batch, mut recorded, mut acknowledged, mut done) = (Vec::new(), BTreeSet::new(), 0_u64, 0);
    while done < tasks && ends.recv_many(&mut batch, BATCH).await > 0 {
        let items = batch.drain(..).collect::<anyhow::Result<Vec<Item>>>()?;
        let ids: Vec<Uuid> = items.iter().map(|(id, _, _)| *id).collect();
        let outputs: Vec<&str> = items.iter().map(|(_, output, _)| output.as_str()).collect();
        database::finished(&pool, &ids, &outputs).await?;
        recorded.extend(items.iter().map(|(_, _, tag)| *tag));
        let before = acknowledged;
        while recorded.remove(&(acknowledged + 1)) {
            acknowledged += 1;
        }
        if acknowledged > before {
            let options = BasicAckOptions { multiple: true };
            channel.basic_ack(acknowledged, options).await.context("failed to acknowledge")?;
        }
        done += items.len();
    }
    Ok(())
}
