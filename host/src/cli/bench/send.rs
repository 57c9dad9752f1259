//! Sending tasks, over HTTP in batches or over AMQP with confirms.

use super::super::client::{Client, refused, rows};
use super::super::{Failed, escape, settings};
use super::shape::Shape;
use super::{Plan, Via, check, numbers, target};
use crate::api::BENCH_LABEL;
use crate::broker::{Broker, Message, Publication, PublishError, Target};
use crate::config::{Services, Settings};
use crate::daemon;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::{Method, StatusCode};
use serde_json::value::RawValue;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

/// Requests or windows of confirms at once, in a flood.
const FLOOD_LANES: usize = 4;
/// The same at a rate: many, so that a slow one delays none of those after it.
const RATE_LANES: usize = 64;
/// The way to the daemon.
pub struct Sender<'a> {
    plan: &'a Plan,
    client: &'a Client,
    /// Tasks of one request or window.
    batch: usize,
    /// The broker and the logical queue.
    amqp: Option<(Arc<dyn Broker>, String)>,
}

/// The settings that lead to the broker, confirmed by the user; `None`: tasks go over HTTP.
pub fn route(plan: &Plan, file: Option<PathBuf>, yes: bool) -> Result<Option<Settings>, Failed> {
    if plan.via == Via::Http {
        return Ok(None);
    }
    let settings = settings(file, Vec::new())?;
    let Services::External { broker, .. } = settings.services() else {
        return Err(Failed::usage(
            "--via amqp needs broker.url and database.url; set them as for `agentry up`, for example in \
             AGENTRY_BROKER_URL and AGENTRY_DATABASE_URL",
        ));
    };
    target::confirm(broker.expose(), yes, "publish tasks to")?;
    Ok(Some(settings))
}

/// A task as it is sent. Over AMQP the queue stands in the routing key and not in the message.
#[derive(serde::Serialize)]
struct Task<'a> {
    id: Uuid,
    plugin: &'a str,
    input: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'a str>,
    options: Options<'a>,
}

#[derive(serde::Serialize)]
struct Options<'a> {
    labels: std::collections::BTreeMap<&'a str, &'a str>,
}

/// What was sent, and when it was meant to be.
pub struct Sent {
    /// Each task with the time from which its latency counts.
    pub tasks: Vec<(Uuid, DateTime<Utc>)>,
    /// Tasks that were confirmed.
    pub confirmed: u64,
    /// From the first send to the last confirmation.
    pub took: Duration,
}

/// How far sending and running are, shared between the sender and the watcher of one thread.
#[derive(Default)]
pub struct Progress {
    /// Each task that was handed to the connection, with the time from which its latency counts.
    pub tasks: RefCell<Vec<(Uuid, DateTime<Utc>)>>,
    /// Whether the daemon rejected a request.
    rejected: Cell<bool>,
    /// Whether tasks were taken from here that may exist.
    taken: Cell<bool>,
    /// Tasks sent and confirmed.
    pub sent: Cell<u64>,
    /// Since when tasks are sent.
    pub begun: Cell<Option<Instant>>,
    /// Tasks that the daemon has counted as ended.
    pub ended: Cell<u64>,
    /// Notified when more have ended.
    pub freed: Notify,
    /// The time from the first send to the last confirmation, once all are sent.
    pub done: Cell<Option<Duration>>,
}

impl Progress {
    /// Everything that was sent so far.
    pub fn so_far(&self) -> Sent {
        let took = self.done.get().or_else(|| Some(self.begun.get()?.elapsed())).unwrap_or_default();
        self.taken.set(self.may_exist());
        Sent { tasks: self.tasks.take(), confirmed: self.sent.get(), took }
    }

    /// Whether a task was sent that was not rejected.
    pub fn may_exist(&self) -> bool {
        self.taken.get() || !self.tasks.borrow().is_empty()
    }

    /// Forgets tasks of a request that the daemon rejected: none of them was accepted.
    fn reject(&self, ids: &[Uuid]) {
        let ids: HashSet<&Uuid> = ids.iter().collect();
        self.tasks.borrow_mut().retain(|(id, _)| !ids.contains(id));
        self.rejected.set(true);
    }
}

impl<'a> Sender<'a> {
    /// Checks the plugin and the size of a task, and connects to the broker where tasks go over AMQP.
    pub async fn open(plan: &'a Plan, client: &'a Client, route: Option<Settings>) -> Result<Sender<'a>, Failed> {
        let own = check::plugin(client, &plan.plugin).await?;
        let mut sender = Sender { plan, client, batch: plan.batch, amqp: None };
        let Some(settings) = route else {
            let size = sender.body(Uuid::nil(), plan.queue.as_deref())?.len();
            sender.batch = check::batch(client, size, plan.batch, plan.shape.tasks()).await?;
            return Ok(sender);
        };
        check::message(sender.body(Uuid::nil(), None)?.len(), settings.message_limits().body_bytes)?;
        let connecting = tokio::time::timeout(plan.patience, daemon::publisher(&settings)).await;
        let broker = connecting.map_err(|_| late(plan, "connect to the broker"))?.map_err(Failed::unreachable)?;
        sender.amqp = Some((broker, plan.queue.clone().unwrap_or(own)));
        Ok(sender)
    }

    /// Tasks of one request or window: fewer than asked for where a body would be too large.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Closes the connection to the broker.
    pub async fn close(&self) {
        if let Some((broker, _)) = &self.amqp {
            // What was not confirmed by now is not waited for.
            let _ = tokio::time::timeout(self.plan.patience, broker.close()).await;
        }
    }

    /// Sends every task of the plan at its time.
    pub async fn all(&self, progress: &Progress) -> Result<(), Failed> {
        let shape = self.plan.shape;
        let total = shape.tasks();
        let clock = Clock::start();
        progress.begun.set(Some(clock.begun));
        let (mut due, lanes) = match shape {
            Shape::Flood { .. } => (None, FLOOD_LANES),
            Shape::Rate { .. } => (Some(ticks(shape, clock.begun)), RATE_LANES),
        };
        progress.tasks.borrow_mut().reserve(usize::try_from(total).unwrap_or(0));
        let mut waiting = FuturesUnordered::new();
        let mut released = if due.is_some() { 0 } else { total };
        let mut next = 0;
        let fed = async {
            while next < total {
                while let Some(due) = &mut due
                    && released <= next
                {
                    tokio::select! {
                        tick = due.recv() => released += u64::from(tick.is_some()),
                        Some(sent) = waiting.next(), if !waiting.is_empty() => confirmed(progress, sent)?,
                    }
                }
                while let Some(Ok(())) = due.as_mut().map(mpsc::UnboundedReceiver::try_recv) {
                    released += 1;
                }
                while waiting.len() >= lanes {
                    if let Some(sent) = waiting.next().await {
                        confirmed(progress, sent)?;
                    }
                }
                let mut size = (released - next).min(self.batch as u64);
                if let Some(bound) = self.plan.in_flight {
                    let free = bound.saturating_sub(next.saturating_sub(progress.ended.get()));
                    if free == 0 {
                        tokio::select! {
                            () = progress.freed.notified() => {}
                            Some(sent) = waiting.next(), if !waiting.is_empty() => confirmed(progress, sent)?,
                        }
                        continue;
                    }
                    size = size.min(free);
                }
                let group: Vec<Uuid> = (0..size).map(|_| Uuid::now_v7()).collect();
                for (id, number) in group.iter().zip(next..) {
                    let from = clock.at(shape.intended(number).unwrap_or_else(|| clock.begun.elapsed()));
                    progress.tasks.borrow_mut().push((*id, from));
                }
                next += size;
                waiting.push(self.group(progress, group));
            }
            while let Some(sent) = waiting.next().await {
                confirmed(progress, sent)?;
            }
            Ok::<(), Failed>(())
        };
        if let Err(failed) = fed.await {
            while progress.rejected.get()
                && let Some(sent) = waiting.next().await
            {
                // The daemon responds, so it is soon known which of the others it accepted. The first error is reported.
                let _ = confirmed(progress, sent);
            }
            return Err(failed);
        }
        progress.done.set(Some(clock.begun.elapsed()));
        Ok(())
    }

    /// Sends some tasks; returns how many, once they are accepted.
    async fn group(&self, progress: &Progress, ids: Vec<Uuid>) -> Result<u64, Failed> {
        match &self.amqp {
            None => self.post(progress, &ids).await?,
            Some((broker, queue)) => self.publish(progress, &ids, broker.as_ref(), queue).await?,
        }
        Ok(ids.len() as u64)
    }

    async fn post(&self, progress: &Progress, ids: &[Uuid]) -> Result<(), Failed> {
        #[derive(serde::Serialize)]
        struct Batch<'a> {
            tasks: Vec<Task<'a>>,
        }
        let queue = self.plan.queue.as_deref();
        let input = self.input()?;
        let tasks = ids.iter().map(|id| self.task(*id, input, queue)).collect();
        let body = serde_json::to_string(&Batch { tasks }).map_err(Failed::usage)?;
        let size = body.len();
        let answer = self.client.ask(Method::POST, "/v1/tasks/batch", Some(body), self.client.patience()).await?;
        if answer.as_ref().is_err_and(|answer| answer.status.is_client_error()) {
            progress.reject(ids);
        }
        match answer {
            Ok(answer) if rows(&answer, "tasks").len() == ids.len() => Ok(()),
            Ok(_) => Err(self.client.stranger("its response does not name the tasks that were sent")),
            Err(answer) if answer.status == StatusCode::PAYLOAD_TOO_LARGE => Err(Failed::usage(format!(
                "a request of {} and {size} bytes exceeds a limit of the daemon: {}; send a smaller --input or --batch, \
                 or raise the limit",
                numbers::tasks(ids.len() as u64),
                escape::line(&answer.detail)
            ))),
            Err(answer) => Err(refused(answer)),
        }
    }

    async fn publish(&self, progress: &Progress, ids: &[Uuid], broker: &dyn Broker, queue: &str) -> Result<(), Failed> {
        let publication = |id: &Uuid| {
            let body = self.body(*id, None)?;
            let message =
                Message { body: body.into(), content_type: Some("application/json".into()), ..Message::default() };
            Ok(Publication { target: Target::Tasks(queue.to_owned()), message })
        };
        let batch = ids.iter().map(publication).collect::<Result<Vec<_>, Failed>>()?;
        let published = tokio::time::timeout(self.plan.patience, broker.publish(batch)).await;
        let published = published.map_err(|_| late(self.plan, "publish tasks with confirms"))?;
        let returned = |result: &Result<(), PublishError>| matches!(result, Err(PublishError::Unroutable(_)));
        if published.iter().all(returned) {
            progress.reject(ids);
        }
        match published.into_iter().find_map(Result::err) {
            None => Ok(()),
            Some(error) => Err(Failed::unreachable(format!(
                "failed to publish a task to the queue {}: {error}; broker.url, broker.prefix and --queue must be those of a daemon \
                 that consumes it",
                escape::line(queue)
            ))),
        }
    }

    /// One task as it is sent.
    fn body(&self, id: Uuid, queue: Option<&str>) -> Result<Vec<u8>, Failed> {
        serde_json::to_vec(&self.task(id, self.input()?, queue)).map_err(Failed::usage)
    }

    fn input(&self) -> Result<&RawValue, Failed> {
        serde_json::from_str(&self.plan.input).map_err(Failed::usage)
    }

    fn task<'t>(&'t self, id: Uuid, input: &'t RawValue, queue: Option<&'t str>) -> Task<'t> {
        let labels = [(BENCH_LABEL, self.plan.run.as_str())].into();
        Task { id, plugin: &self.plan.plugin, input, queue, options: Options { labels } }
    }
}

fn confirmed(progress: &Progress, sent: Result<u64, Failed>) -> Result<(), Failed> {
    progress.sent.set(progress.sent.get() + sent?);
    Ok(())
}

/// The error for a broker that did not respond in time.
fn late(plan: &Plan, what: &str) -> Failed {
    let seconds = plan.patience.as_secs_f64();
    Failed::unreachable(format!(
        "failed to {what} within {seconds} s (--patience); is the broker of broker.url available?"
    ))
}

/// Wall-clock times that grow with the monotonic clock.
struct Clock {
    begun: Instant,
    wall: DateTime<Utc>,
}

impl Clock {
    fn start() -> Clock {
        Clock { begun: Instant::now(), wall: Utc::now() }
    }

    fn at(&self, after: Duration) -> DateTime<Utc> {
        self.wall + TimeDelta::from_std(after).unwrap_or(TimeDelta::MAX)
    }
}

/// One message at each intended time. A thread of its own, because the runtime's timers round up to whole milliseconds, which
/// would be counted as latency.
fn ticks(shape: Shape, begun: Instant) -> mpsc::UnboundedReceiver<()> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for number in 0..shape.tasks() {
            let due = begun + shape.intended(number).unwrap_or_default();
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send(()).is_err() {
                break;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_come_at_their_times_and_none_is_skipped() {
        let every = Duration::from_millis(2);
        let (begun, shape) = (Instant::now(), Shape::Rate { tasks: 20, every });
        let mut due = ticks(shape, begun);
        let mut seen = 0;
        while due.blocking_recv().is_some() {
            assert!(begun.elapsed() >= every * seen, "never early");
            seen += 1;
        }
        assert_eq!(seen, 20);
    }

    #[test]
    fn a_message_holds_the_label_of_its_run() {
        let input = RawValue::from_string(r#"{"b" : 1.0}"#.into()).unwrap();
        let labels = [(BENCH_LABEL, "r")].into();
        let task = Task { id: Uuid::nil(), plugin: "p", input: &input, queue: None, options: Options { labels } };
        let expected = r#"{"id":"00000000-0000-0000-0000-000000000000","plugin":"p","input":{"b" : 1.0},"options":{"labels":{"agentry-bench":"r"}}}"#;
        assert_eq!(serde_json::to_string(&task).unwrap(), expected);
    }
}
