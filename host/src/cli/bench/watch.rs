//! Watching a run: cheap counters while it lasts, the rows once it has ended.

use super::super::client::{Client, encode, rows as list};
use super::super::{Failed, output};
use super::Plan;
use super::legs::{Leg, Scrape};
use super::resources::{self, Usage};
use super::rows::{self, Row};
use super::send::{Progress, Sender, Sent};
use super::target;
use crate::api::BENCH_LABEL;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How often the counters are read.
const GLANCE: Duration = Duration::from_millis(100);
/// The same where the number in flight is bounded by them.
const SHORT_GLANCE: Duration = Duration::from_millis(10);
/// Without a new end for so long, it is asked whether anything is left to run: other daemons may have run the rest.
const STILL: Duration = Duration::from_secs(2);
/// States in which a task has not ended.
const UNFINISHED: [&str; 4] = ["running", "pending", "retrying", "scheduled"];

/// What was measured.
pub struct Measured {
    /// What was sent.
    pub sent: Sent,
    /// What the database recorded.
    pub rows: BTreeMap<Uuid, Row>,
    /// Legs, as the daemon counted them.
    pub legs: BTreeMap<String, Leg>,
    /// The daemon's use of processor and memory: before, and when the last task had ended; or why it is unknown.
    pub resources: Result<(Usage, Usage), String>,
}

/// Sends the load and waits for the end of every task, or until none has ended for the patience of the plan.
pub async fn measure(
    plan: &Plan,
    client: &Client,
    sender: &Sender<'_>,
    child: Option<u32>,
    server: &str,
) -> Result<Measured, Failed> {
    let pid = process(client, child, server).await?;
    let usage =
        || pid.clone().and_then(|pid| resources::usage(pid).ok_or_else(|| format!("/proc/{pid} is not readable")));
    let (before, used_before) = (scrape(client).await?, usage());
    let progress = Progress::default();
    let (sent, patient) = tokio::try_join!(sender.all(&progress), ends(plan, client, &before, &progress))?;
    let used = usage();
    let rows = recorded(plan, client, &sent, patient).await?;
    output::progress("");
    let legs = scrape(client).await?.since(&before);
    Ok(Measured { sent, rows, legs, resources: used_before.and_then(|before| Ok((before, used?))) })
}

/// The daemon's process id, or why it is unknown.
async fn process(client: &Client, child: Option<u32>, server: &str) -> Result<Result<u32, String>, Failed> {
    if let Some(pid) = child {
        return Ok(Ok(pid));
    }
    if !target::is_loopback(server) {
        target::note("the daemon is not on this machine: latency includes the difference of the two clocks");
        return Ok(Err("the daemon is not on this machine".to_owned()));
    }
    Ok(resources::pid_of(&client.get("/v1/hosts").await?, &resources::machine()))
}

async fn scrape(client: &Client) -> Result<Scrape, Failed> {
    Ok(Scrape::parse(&client.text("/metrics").await?))
}

/// Follows the counters until as many tasks have ended as were sent, or nothing is left to run. Returns false if it gave up.
async fn ends(plan: &Plan, client: &Client, before: &Scrape, progress: &Progress) -> Result<bool, Failed> {
    let plugin = plan.plugin.split('@').next().unwrap_or_default();
    let (total, glance) = (plan.shape.tasks(), if plan.in_flight.is_some() { SHORT_GLANCE } else { GLANCE });
    let (begun, mut moved, mut asked) = (Instant::now(), Instant::now(), Instant::now());
    loop {
        tokio::time::sleep(glance).await;
        let ended = scrape(client).await?.ended(plugin).saturating_sub(before.ended(plugin));
        if ended != progress.ended.get() {
            progress.ended.set(ended);
            (moved, asked) = (Instant::now(), Instant::now());
        }
        let rate = ended as f64 / begun.elapsed().as_secs_f64();
        output::progress(&format!("{}/{total} sent, {ended} ended, {rate:.0}/s", progress.sent.get()));
        if progress.done.get() {
            if ended >= total {
                return Ok(true);
            }
            if moved.elapsed() >= plan.patience {
                return Ok(false);
            }
            if asked.elapsed() >= STILL {
                asked = Instant::now();
                if !is_anything_left(plan, client).await? {
                    return Ok(true);
                }
            }
        } else if plan.in_flight.is_some() && moved.elapsed() >= plan.patience {
            let seconds = plan.patience.as_secs();
            return Err(Failed::task(format!(
                "no task ended for {seconds} s while --in-flight held the rest back; is the queue consumed?"
            )));
        }
    }
}

/// Whether a row of the run has not ended, or messages wait in a queue.
async fn is_anything_left(plan: &Plan, client: &Client) -> Result<bool, Failed> {
    let label = encode(&format!("{BENCH_LABEL}={}", plan.run));
    for state in UNFINISHED {
        let page = client.get(&format!("/v1/tasks?limit=1&state={state}&label={label}")).await?;
        if !list(&page, "tasks").is_empty() {
            return Ok(true);
        }
    }
    let queues = client.get("/v1/queues").await?;
    Ok(list(&queues, "queues").iter().any(|queue| queue["ready"].as_u64().unwrap_or_default() > 0))
}

/// The rows, read again until every task that was sent has ended; once only if it is known that some will not.
async fn recorded(plan: &Plan, client: &Client, sent: &Sent, patient: bool) -> Result<BTreeMap<Uuid, Row>, Failed> {
    let (mut before, mut moved) = (0, Instant::now());
    loop {
        let begun = Instant::now();
        let rows = rows::read(client, &plan.run).await?;
        let ended = rows.values().filter(|row| row.finished_at.is_some()).count();
        if ended != before {
            (before, moved) = (ended, Instant::now());
        }
        output::progress(&format!("{ended}/{} recorded", sent.tasks.len()));
        if ended >= sent.tasks.len() || !patient || moved.elapsed() >= plan.patience {
            return Ok(rows);
        }
        // Reading costs the daemon something, so it takes at most a third of the time.
        tokio::time::sleep((begun.elapsed() * 2).max(Duration::from_millis(250))).await;
    }
}
