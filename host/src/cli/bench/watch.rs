//! Watching a run: cheap counters while it lasts, the rows once it has ended.

use super::super::client::{Client, encode, rows as list};
use super::super::{Failed, output};
use super::Plan;
use super::legs::{Leg, Scrape};
use super::resources::{self, Usage};
use super::rows::{self, Row};
use super::send::{Progress, Sender, Sent};
use super::stop::{Early, Stop};
use super::{numbers, target};
use crate::api::BENCH_LABEL;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How often the counters are read.
const GLANCE: Duration = Duration::from_millis(100);
/// The least and the most pause between two reads where the number in flight is bounded by them: twice the time of a read, within
/// these, so that reading costs the daemon little.
const SHORT_GLANCE: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(3)];
/// How long the rows of an interrupted run may take to read.
const FAREWELL: Duration = Duration::from_secs(10);
/// Without a new end for so long, it is asked whether anything is left to run: other daemons may have run the rest.
const STILL: Duration = Duration::from_secs(2);
/// States in which a task has not ended.
const UNFINISHED: [&str; 4] = ["running", "pending", "retrying", "scheduled"];

/// What was measured.
pub struct Measured {
    /// What was sent.
    pub sent: Sent,
    /// Recorded tasks; `None` if they could not be read.
    pub rows: Option<BTreeMap<Uuid, Row>>,
    /// Ended tasks by the daemon's counters when the load ended, and the time since the first send.
    pub counted: (u64, Duration),
    /// Legs, as the daemon counted them.
    pub legs: BTreeMap<String, Leg>,
    /// The daemon's use of processor and memory: before, and when the last task had ended; or why it is unknown.
    pub resources: Result<(Usage, Usage), String>,
    /// The mean time between two reads of the counters, where they bound the number in flight.
    pub glance: Option<Duration>,
    /// What ended the run before its time.
    pub early: Option<Early>,
}

/// Sends the load and waits for the end of every task, or until none has ended for the patience of the plan. A signal or a
/// failure ends it before, with what was measured so far.
pub async fn measure(
    plan: &Plan,
    client: &Client,
    sender: &Sender<'_>,
    child: Option<u32>,
    progress: &Progress,
    stop: &mut Stop,
) -> Result<Measured, Failed> {
    let pid = stop.unless(process(client, child)).await?;
    let usage =
        || pid.clone().and_then(|pid| resources::usage(pid).ok_or_else(|| format!("/proc/{pid} is not readable")));
    let (before, used_before) = (stop.unless(scrape(client)).await?, usage());
    let looks = Looks::default();
    let load = async { tokio::try_join!(sender.all(progress), ends(plan, client, &before, progress, &looks)) };
    let ended = tokio::select! {
        ended = load => ended.map_err(Early::Failed),
        asked = stop.next() => Err(Early::Asked(asked)),
    };
    let used = usage();
    let counted = (progress.ended.get(), progress.begun.get().map(|begun| begun.elapsed()).unwrap_or_default());
    let (sent, rows, early) = match ended {
        Ok(((), patient)) => {
            let sent = progress.so_far();
            let recorded = tokio::select! {
                rows = recorded(plan, client, &sent, patient) => rows.map_err(Early::Failed),
                asked = stop.next() => Err(Early::Asked(asked)),
            };
            match recorded {
                Ok(rows) => (sent, Some(rows), None),
                Err(early) => (sent, farewell(plan, client, stop).await?, Some(early)),
            }
        }
        // Nothing was measured.
        Err(Early::Failed(failed)) if !progress.may_exist() => return Err(failed),
        Err(early) => (progress.so_far(), farewell(plan, client, stop).await?, Some(early)),
    };
    output::progress("");
    // A daemon that does not return the rows would not return its counters either.
    let legs = match rows {
        None => BTreeMap::new(),
        Some(_) => match (stop.unless(scrape(client)).await, &early) {
            (Ok(after), _) => after.since(&before),
            (Err(_), Some(_)) => BTreeMap::new(),
            (Err(failed), None) => return Err(failed),
        },
    };
    let resources = used_before.and_then(|before| Ok((before, used?)));
    Ok(Measured { sent, rows, counted, legs, resources, glance: looks.mean(plan), early })
}

/// Reads the recorded tasks of a run that ended early; `None` if the daemon does not respond. A signal ends the reading.
async fn farewell(plan: &Plan, client: &Client, stop: &mut Stop) -> Result<Option<BTreeMap<Uuid, Row>>, Failed> {
    output::progress("ended early; reading what is recorded");
    let reading = stop.unless(rows::read(client, &plan.run));
    let unknown = |why: &str| {
        output::progress("");
        target::note(&format!("the states of the tasks are unknown: {why}"));
        Ok(None)
    };
    match tokio::time::timeout(FAREWELL.min(plan.patience), reading).await {
        Ok(Err(failed)) if failed.is_interruption() => Err(failed),
        Ok(Err(_)) => unknown("the daemon can no longer be asked"),
        Ok(Ok(rows)) => Ok(Some(rows)),
        Err(_) => unknown("the daemon did not report them in time"),
    }
}

/// How often the counters were read.
#[derive(Default)]
struct Looks(Cell<(u32, Duration)>);

impl Looks {
    fn count(&self, took: Duration) {
        let (count, all) = self.0.get();
        self.0.set((count.saturating_add(1), all + took));
    }

    fn mean(&self, plan: &Plan) -> Option<Duration> {
        let (count, all) = self.0.get();
        (plan.in_flight.is_some() && count > 0).then(|| all / count)
    }
}

/// The daemon's process id, or why it is unknown.
async fn process(client: &Client, child: Option<u32>) -> Result<Result<u32, String>, Failed> {
    if let Some(pid) = child {
        return Ok(Ok(pid));
    }
    if target::place(client.address()) == target::Place::Elsewhere {
        target::note("the daemon is not on this machine: latency includes the difference of the two clocks");
        return Ok(Err("the daemon is not on this machine".to_owned()));
    }
    Ok(resources::pid_of(&client.page("/v1/hosts", "hosts").await?, &resources::machine()))
}

async fn scrape(client: &Client) -> Result<Scrape, Failed> {
    Ok(Scrape::parse(&client.text("/metrics").await?))
}

/// Follows the counters until as many tasks have ended as were sent, or nothing is left to run. Returns false if it gave up.
async fn ends(
    plan: &Plan,
    client: &Client,
    before: &Scrape,
    progress: &Progress,
    looks: &Looks,
) -> Result<bool, Failed> {
    let plugin = plan.plugin.split('@').next().unwrap_or_default();
    let total = plan.shape.tasks();
    let (begun, mut moved, mut asked) = (Instant::now(), Instant::now(), Instant::now());
    let (mut shown, mut pause) = (Instant::now(), SHORT_GLANCE[0]);
    // Tasks of this run that another daemon ended, as far as it is known.
    let mut elsewhere = 0;
    loop {
        let looked = Instant::now();
        tokio::time::sleep(if plan.in_flight.is_some() { pause } else { GLANCE }).await;
        let reading = Instant::now();
        let here = scrape(client).await?.ended(plugin).saturating_sub(before.ended(plugin));
        if plan.in_flight.is_some() && progress.done.get().is_none() && asked.elapsed() >= STILL {
            asked = Instant::now();
            let rows = rows::read(client, &plan.run).await?;
            let recorded = rows.values().filter(|row| row.finished_at.is_some()).count() as u64;
            elsewhere = elsewhere.max(recorded.saturating_sub(here));
        }
        let ended = here + elsewhere;
        pause = (reading.elapsed() * 2).clamp(SHORT_GLANCE[0], SHORT_GLANCE[1]);
        looks.count(looked.elapsed());
        if ended != progress.ended.get() {
            progress.ended.set(ended);
            progress.freed.notify_one();
            (moved, asked) = (Instant::now(), Instant::now());
        }
        if shown.elapsed() >= GLANCE {
            shown = Instant::now();
            let rate = numbers::rate(ended as f64 / begun.elapsed().as_secs_f64());
            output::progress(&format!("{}/{total} sent, {ended} ended, {rate}", progress.sent.get()));
        }
        if progress.done.get().is_some() {
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
            let seconds = plan.patience.as_secs_f64();
            return Err(Failed::task(format!(
                "no task ended within {seconds} s (--patience) while --in-flight held the rest back; is the queue consumed?"
            )));
        }
    }
}

/// Whether a row of the run has not ended, or messages wait in a queue.
async fn is_anything_left(plan: &Plan, client: &Client) -> Result<bool, Failed> {
    let label = encode(&format!("{BENCH_LABEL}={}", plan.run));
    for state in UNFINISHED {
        let page = client.page(&format!("/v1/tasks?limit=1&state={state}&label={label}"), "tasks").await?;
        if !list(&page, "tasks").is_empty() {
            return Ok(true);
        }
    }
    let queues = client.page("/v1/queues", "queues").await?;
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
