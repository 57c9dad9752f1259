//! Sending tasks, over HTTP in batches or over AMQP with confirms.

use super::super::client::Client;
use super::super::{Failed, escape, settings};
use super::shape::Shape;
use super::target;
use super::{Plan, Via};
use crate::api::BENCH_LABEL;
use crate::broker::{Broker, Message, Publication, Target};
use crate::config::Services;
use crate::daemon;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::value::RawValue;
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Requests or windows of confirms at once, in a flood.
const FLOOD_LANES: usize = 4;
/// The same at a rate: many, so that a slow one delays none of those after it.
const RATE_LANES: usize = 64;
/// How often the bound of tasks in flight is looked at.
const GLANCE: Duration = Duration::from_millis(2);

/// The way to the daemon.
pub struct Sender<'a> {
    plan: &'a Plan,
    client: &'a Client,
    /// The broker and the logical queue.
    amqp: Option<(Arc<dyn Broker>, String)>,
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
    /// From the first send to the last confirmation.
    pub took: Duration,
}

/// How far sending and running are, shared between the sender and the watcher of one thread.
#[derive(Default)]
pub struct Progress {
    /// Tasks sent and confirmed.
    pub sent: Cell<u64>,
    /// Tasks that the daemon has counted as ended.
    pub ended: Cell<u64>,
    /// Whether all are sent.
    pub done: Cell<bool>,
}

impl<'a> Sender<'a> {
    /// Connects to the broker where tasks go over AMQP.
    pub async fn open(
        plan: &'a Plan,
        client: &'a Client,
        file: Option<PathBuf>,
        yes: bool,
    ) -> Result<Sender<'a>, Failed> {
        if plan.via == Via::Http {
            return Ok(Sender { plan, client, amqp: None });
        }
        let settings = settings(file, Vec::new())?;
        let Services::External { broker: url, .. } = settings.services() else {
            return Err(Failed::usage(
                "--via amqp needs broker.url and database.url; set them as for `agentry up`, for example in \
                 AGENTRY_BROKER_URL and AGENTRY_DATABASE_URL",
            ));
        };
        target::confirm(url.expose(), yes, "publish tasks to")?;
        let queue = match &plan.queue {
            Some(queue) => queue.clone(),
            None => own_queue(client, &plan.plugin).await?,
        };
        let broker = daemon::publisher(&settings).await.map_err(Failed::unreachable)?;
        Ok(Sender { plan, client, amqp: Some((broker, queue)) })
    }

    /// Closes the connection to the broker.
    pub async fn close(&self) {
        if let Some((broker, _)) = &self.amqp {
            broker.close().await;
        }
    }

    /// Sends every task of the plan at its time.
    pub async fn all(&self, progress: &Progress) -> Result<Sent, Failed> {
        let shape = self.plan.shape;
        let total = shape.tasks();
        let clock = Clock::start();
        let (mut due, lanes) = match shape {
            Shape::Flood { .. } => (None, FLOOD_LANES),
            Shape::Rate { .. } => (Some(ticks(shape, clock.begun)), RATE_LANES),
        };
        let mut tasks: Vec<(Uuid, DateTime<Utc>)> = Vec::with_capacity(usize::try_from(total).unwrap_or(0));
        let mut waiting = FuturesUnordered::new();
        let mut released = if due.is_some() { 0 } else { total };
        while (tasks.len() as u64) < total {
            let next = tasks.len() as u64;
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
            let mut size = (released - next).min(self.plan.batch as u64);
            if let Some(bound) = self.plan.in_flight {
                let free = bound.saturating_sub(next.saturating_sub(progress.ended.get()));
                if free == 0 {
                    tokio::select! {
                        () = tokio::time::sleep(GLANCE) => {}
                        Some(sent) = waiting.next(), if !waiting.is_empty() => confirmed(progress, sent)?,
                    }
                    continue;
                }
                size = size.min(free);
            }
            let group: Vec<Uuid> = (0..size).map(|_| Uuid::now_v7()).collect();
            for (id, number) in group.iter().zip(next..) {
                tasks.push((*id, clock.at(shape.intended(number).unwrap_or_else(|| clock.begun.elapsed()))));
            }
            waiting.push(self.group(group));
        }
        while let Some(sent) = waiting.next().await {
            confirmed(progress, sent)?;
        }
        progress.done.set(true);
        Ok(Sent { tasks, took: clock.begun.elapsed() })
    }

    /// Sends some tasks; returns how many, once they are accepted.
    async fn group(&self, ids: Vec<Uuid>) -> Result<u64, Failed> {
        match &self.amqp {
            None => self.post(&ids).await?,
            Some((broker, queue)) => self.publish(&ids, broker.as_ref(), queue).await?,
        }
        Ok(ids.len() as u64)
    }

    async fn post(&self, ids: &[Uuid]) -> Result<(), Failed> {
        #[derive(serde::Serialize)]
        struct Batch<'a> {
            tasks: Vec<Task<'a>>,
        }
        let queue = self.plan.queue.as_deref();
        let input = self.input()?;
        let tasks = ids.iter().map(|id| self.task(*id, input, queue)).collect();
        let body = serde_json::to_string(&Batch { tasks }).map_err(Failed::usage)?;
        self.client.post("/v1/tasks/batch", body).await.map(drop)
    }

    async fn publish(&self, ids: &[Uuid], broker: &dyn Broker, queue: &str) -> Result<(), Failed> {
        let input = self.input()?;
        let publication = |id: &Uuid| {
            let body = serde_json::to_vec(&self.task(*id, input, None)).map_err(Failed::usage)?;
            let message =
                Message { body: body.into(), content_type: Some("application/json".into()), ..Message::default() };
            Ok(Publication { target: Target::Tasks(queue.to_owned()), message })
        };
        let batch = ids.iter().map(publication).collect::<Result<Vec<_>, Failed>>()?;
        match broker.publish(batch).await.into_iter().find_map(Result::err) {
            None => Ok(()),
            Some(error) => Err(Failed::unreachable(format!(
                "failed to publish a task to the queue {}: {error}",
                escape::line(queue)
            ))),
        }
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

/// The queue of a plugin's tasks.
async fn own_queue(client: &Client, plugin: &str) -> Result<String, Failed> {
    let name = plugin.split('@').next().unwrap_or_default();
    let found = client.get(&format!("/v1/plugins/{}", super::super::client::encode(name))).await?;
    Ok(found["queue"].as_str().unwrap_or("default").to_owned())
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
