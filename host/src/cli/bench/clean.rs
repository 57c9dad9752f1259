//! `agentry bench --clean`: no row of a bench is left.

use super::super::client::{Client, encode, refused, rows};
use super::super::{Failed, escape, output};
use super::numbers;
use super::stop::{Stop, remedy};
use crate::api::{BENCH_LABEL, is_run};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Between two looks at tasks that run and were asked to end.
const PAUSE: Duration = Duration::from_millis(200);
/// A run without an unfinished task is over once no task of it was created or has ended for so long: between two tasks of a
/// slow rate, all of them have ended.
pub(super) const QUIET: Duration = Duration::from_secs(5);

/// Progress of a clean.
#[derive(Default)]
struct Done {
    deleted: u64,
    cancelled: HashSet<String>,
    /// Tasks that have not ended of a run that was named.
    left: u64,
    /// Runs that may still be going.
    going: Vec<Run>,
}

/// A run with recorded tasks.
#[derive(Clone, Debug, PartialEq)]
struct Run {
    id: String,
    unfinished: u64,
    /// Since the last of its tasks was created or ended.
    idle: Duration,
}

impl Run {
    fn read(run: &Value) -> Option<Run> {
        Some(Run {
            // It is printed as a part of a command.
            id: run["run"].as_str().filter(|id| is_run(id))?.to_owned(),
            unfinished: run["unfinished"].as_u64()?,
            idle: Duration::try_from_secs_f64(run["idle_seconds"].as_f64()?).ok()?,
        })
    }

    fn is_over(&self) -> bool {
        self.unfinished == 0 && self.idle >= QUIET
    }

    /// How long until it is known whether it is over.
    fn doubt(&self) -> Option<Duration> {
        QUIET.checked_sub(self.idle).filter(|_| self.unfinished == 0)
    }

    fn json(&self) -> Value {
        json!({"run": self.id, "unfinished": self.unfinished, "idle_seconds": self.idle.as_secs_f64()})
    }
}

/// Deletes the tasks of one run, cancelling those that have not ended; or those of every run that is over. Prints what was done,
/// also if a signal or a failure ends it.
pub async fn clean(client: &Client, run: Option<&str>, as_json: bool, stop: &mut Stop) -> Result<(), Failed> {
    let mut done = Done::default();
    let ended = stop.unless(work(client, run, &mut done)).await;
    output::progress("");
    let began = done.deleted > 0 || !done.cancelled.is_empty();
    if began || ended.as_ref().err().is_none_or(Failed::is_interruption) {
        let (deleted, cancelled) = (done.deleted, done.cancelled.len());
        match as_json {
            true => output::json(&json!({
                "deleted": deleted, "cancelled": cancelled, "left": done.left,
                "runs_left": done.going.iter().map(Run::json).collect::<Vec<_>>(),
            }))?,
            false => {
                // Their rows held the cancellation.
                let again = if cancelled == 0 {
                    ""
                } else {
                    "; if the run goes on, or their messages wait in a queue or at another daemon, more tasks come: repeat --clean"
                };
                output::data(&format!("{deleted} deleted, {cancelled} cancelled first{again}"))?;
            }
        }
    }
    match ended {
        Err(failed) if failed.is_interruption() => {
            let message = failed.message + "; the tasks that were not deleted are left: repeat --clean";
            Err(Failed { message, ..failed })
        }
        Err(failed) => Err(failed),
        Ok(()) => verdict(client, run, &done),
    }
}

fn verdict(client: &Client, run: Option<&str>, done: &Done) -> Result<(), Failed> {
    if let Some(problem) = going(&done.going, client.address()) {
        return Err(Failed::task(problem));
    }
    match (done.left, run) {
        (0, Some(run)) if done.deleted == 0 => Err(Failed::task(format!(
            "no task of the run \"{}\" was found at {}; messages that are still in a queue become tasks later",
            escape::line(run),
            escape::line(client.address())
        ))),
        (0, _) => Ok(()),
        (left, _) => Err(Failed::task(format!(
            "{} or more still run after {} s without a change (--patience); repeat --clean once they have ended",
            numbers::tasks(left),
            client.patience().as_secs_f64()
        ))),
    }
}

/// The runs that were left, each with the command that deletes its tasks.
fn going(runs: &[Run], server: &str) -> Option<String> {
    let line = |run: &Run| {
        let why = match run.unfinished {
            0 => "was active less than 5 s ago".to_owned(),
            unfinished => format!("has {} that did not end", numbers::tasks(unfinished)),
        };
        let id = escape::line(&run.id);
        format!("\n  run {id} {why}; delete its tasks, cancelling them where needed, with: {}", remedy(&id, server))
    };
    let lines: String = runs.iter().map(line).collect();
    (!runs.is_empty()).then(|| format!("left what may still be going:{lines}"))
}

async fn work(client: &Client, run: Option<&str>, done: &mut Done) -> Result<(), Failed> {
    if let Some(run) = run {
        done.left = named(client, run, done).await?;
        return Ok(());
    }
    let mut runs = listed(client).await?;
    if let Some(doubt) = runs.iter().filter_map(Run::doubt).max() {
        output::progress("waiting to see whether a recent run is still going");
        tokio::time::sleep(doubt + PAUSE).await;
        runs = listed(client).await?;
    }
    let (over, going) = runs.into_iter().partition(Run::is_over);
    done.going = going;
    for run in over {
        loop {
            match batch(client, &run.id, done).await? {
                (0, unfinished) if unfinished.is_empty() => break,
                // It goes on after all.
                (0, unfinished) => {
                    done.going.push(Run { unfinished: unfinished.len() as u64, ..run });
                    break;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

async fn listed(client: &Client) -> Result<Vec<Run>, Failed> {
    let answer = client.page("/v1/benches", "runs").await?;
    rows(&answer, "runs").iter().map(|run| Run::read(run).ok_or_else(|| client.without("runs"))).collect()
}

/// Deletes ended tasks of a run once. Returns how many were deleted, and those that have not ended.
async fn batch(client: &Client, run: &str, done: &mut Done) -> Result<(u64, Vec<String>), Failed> {
    let answer = client.delete(&format!("/v1/tasks?label={}", encode(&format!("{BENCH_LABEL}={run}")))).await?;
    let deleted = answer["deleted"].as_u64().ok_or_else(|| client.without("deleted"))?;
    let unfinished = answer["unfinished"].as_array().ok_or_else(|| client.without("unfinished"))?;
    done.deleted += deleted;
    output::progress(&format!("{} deleted", done.deleted));
    Ok((deleted, unfinished.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect()))
}

/// Cancels what has not ended and deletes what has, until nothing is left or nothing has moved for the client's patience. Returns
/// how many are left.
async fn named(client: &Client, run: &str, done: &mut Done) -> Result<u64, Failed> {
    let mut moved = Instant::now();
    loop {
        let (deleted, unfinished) = batch(client, run, done).await?;
        if deleted > 0 {
            moved = Instant::now();
        }
        for id in &unfinished {
            if done.cancelled.insert(id.clone()) {
                cancel(client, id).await?;
                moved = Instant::now();
            }
        }
        match unfinished.len() as u64 {
            0 if deleted == 0 => return Ok(0),
            left if moved.elapsed() >= client.patience() => return Ok(left),
            0 => {}
            _ if deleted == 0 => tokio::time::sleep(PAUSE).await,
            _ => {}
        }
    }
}

/// Asks for a task's end. One that has ended meanwhile is no error.
async fn cancel(client: &Client, id: &str) -> Result<(), Failed> {
    let path = format!("/v1/tasks/{}/cancel", encode(id));
    match client.ask(Method::POST, &path, Some(String::new()), client.patience()).await? {
        Err(answer) if !matches!(answer.status, StatusCode::CONFLICT | StatusCode::NOT_FOUND) => Err(refused(answer)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(unfinished: u64, idle: u64) -> Run {
        Run { id: "a".into(), unfinished, idle: Duration::from_secs(idle) }
    }

    #[test]
    fn a_run_is_over_once_every_task_has_ended_and_none_was_new_for_a_while() {
        assert!(run(0, 5).is_over() && run(0, 5_000).is_over());
        assert!(!run(0, 4).is_over() && !run(1, 5_000).is_over());
        assert_eq!(
            (run(0, 4).doubt(), run(1, 4).doubt(), run(0, 9).doubt()),
            (Some(Duration::from_secs(1)), None, None)
        );
    }

    #[test]
    fn a_run_that_was_left_is_named_with_the_command_that_deletes_it() {
        assert_eq!(going(&[], "http://box:1"), None);
        let text = going(&[run(1, 9), run(0, 1)], "http://box:1").unwrap();
        assert!(text.contains("run a has 1 task that did not end"), "{text}");
        assert!(text.contains("was active less than 5 s ago"), "{text}");
        assert_eq!(text.matches("agentry bench --clean --run a --server http://box:1").count(), 2, "{text}");
    }
}
