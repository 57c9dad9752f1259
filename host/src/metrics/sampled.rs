//! The last sample of database and broker, which a duty takes every few seconds: tasks that wait, the outbox, the queues.

use super::levels::{Out, level, unix};
use crate::broker::QueueFacts;
use crate::task::WaitCode;
use std::fmt;
use std::time::{Duration, SystemTime};

/// Queues of one sample.
pub const QUEUES: usize = 64;

/// Due tasks of one queue that wait for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingTasks {
    /// The logical queue.
    pub queue: String,
    /// What they wait for.
    pub code: WaitCode,
    /// How many, as far as they were counted.
    pub tasks: u64,
    /// Those of them that wait for longer than they should.
    pub overdue: u64,
    /// The longest wait.
    pub oldest: Duration,
}

/// Messages and consumers of a logical queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueLevels {
    /// The logical queue.
    pub queue: String,
    /// Its tasks, if they are known.
    pub tasks: Option<QueueFacts>,
    /// Messages that the broker returned.
    pub returned: Option<u32>,
    /// Dead letters.
    pub dead: Option<u32>,
}

/// One sample. Queues are those of this host and of others that share its database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// The time; `None`: there is none yet.
    pub at: Option<SystemTime>,
    /// By queue and code, each pair once.
    pub waiting: Vec<WaitingTasks>,
    /// Rows of the outbox, as far as they were counted; `None`: not known.
    pub outbox: Option<u64>,
    /// How long the first of them has been due.
    pub relay_lag: Option<Duration>,
    /// By queue, each once.
    pub queues: Vec<QueueLevels>,
}

impl Sampled {
    /// With no more queues than [`QUEUES`], which come from the settings of hosts. Tasks of any other queue are added up as `other`.
    pub(super) fn bounded(mut self, other: &str, own: impl Fn(&str) -> bool) -> Sampled {
        self.queues.sort_by_key(|queue| !own(&queue.queue));
        self.queues.truncate(QUEUES);
        let known = |queue: &str| own(queue) || self.knows(queue);
        let mut waiting: Vec<WaitingTasks> = Vec::new();
        for mut group in self.waiting.clone() {
            if !known(&group.queue) {
                group.queue = other.to_owned();
            }
            match waiting.iter_mut().find(|seen| (&seen.queue, seen.code) == (&group.queue, group.code)) {
                Some(seen) => {
                    seen.tasks += group.tasks;
                    seen.overdue += group.overdue;
                    seen.oldest = seen.oldest.max(group.oldest);
                }
                None => waiting.push(group),
            }
        }
        self.waiting = waiting;
        self
    }

    /// Whether a queue is among those that were asked about.
    pub(super) fn knows(&self, queue: &str) -> bool {
        self.queues.iter().any(|known| known.queue == queue)
    }

    pub(super) fn encode(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        out.float("sample_timestamp", self.at.map_or(0.0, unix))?;
        let labels = |group: &WaitingTasks| [("queue", group.queue.clone()), ("code", group.code.as_str().to_owned())];
        let groups = || self.waiting.iter();
        out.ints("waiting_tasks", groups().map(|group| (labels(group), level(group.tasks))))?;
        out.gauges("waiting_oldest", groups().map(|group| (labels(group), group.oldest.as_secs_f64())))?;
        out.ints("waiting_overdue_tasks", groups().map(|group| (labels(group), level(group.overdue))))?;
        if let Some(outbox) = self.outbox {
            out.int("outbox_tasks", level(outbox))?;
            out.float("relay_lag", self.relay_lag.unwrap_or_default().as_secs_f64())?;
        }
        let messages = self.queues.iter().flat_map(|queue| {
            let counts =
                [("tasks", queue.tasks.map(|facts| facts.ready)), ("returned", queue.returned), ("dead", queue.dead)];
            counts
                .into_iter()
                .filter_map(|(source, count)| Some(([("queue", &*queue.queue), ("source", source)], i64::from(count?))))
        });
        out.ints("queue_messages", messages)?;
        let consumers = self
            .queues
            .iter()
            .filter_map(|queue| Some(([("queue", &*queue.queue)], i64::from(queue.tasks?.consumers))));
        out.ints("queue_consumers", consumers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_that_no_host_has_are_one_series() {
        let group = |queue: &str, tasks, seconds| WaitingTasks {
            queue: queue.into(),
            code: WaitCode::NoPlugin,
            tasks,
            overdue: 1,
            oldest: Duration::from_secs(seconds),
        };
        let levels = |queue: String| QueueLevels { queue, tasks: None, returned: None, dead: None };
        let waiting = vec![group("a", 1, 1), group("b", 2, 9), group("c", 4, 5), group("q1", 8, 2)];
        let queues = (0..1_000).map(|n| levels(format!("q{n}"))).chain([levels("a".into())]).collect();
        let bounded = Sampled { waiting, queues, ..Sampled::default() }.bounded("other", |queue| queue == "a");
        let other = WaitingTasks { overdue: 2, ..group("other", 6, 9) };
        assert_eq!(bounded.waiting, [group("a", 1, 1), other, group("q1", 8, 2)]);
        assert_eq!((bounded.queues.len(), &*bounded.queues[0].queue), (QUEUES, "a"), "its own come first");
    }
}
