//! The load: a plain producer that knows an exchange and a routing key. What the broker confirmed is promised; what it did
//! not is published again under the same id, for as long as it takes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection, ConnectionProperties};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::schedule::Chance;
use super::stage::{ENDED, Stage};
use crate::database::Database;
use crate::patience::patience;
use crate::{Task, probe};

/// How long the broker may take over a batch before its connection is given up.
const CONFIRM: Duration = Duration::from_secs(5);
/// So many promised tasks may wait to end. More would only make the rest at the end longer.
const OPEN: usize = 3_000;
/// How often tasks are published.
const TICK: Duration = Duration::from_millis(100);

/// A producer at work.
pub struct Load {
    shared: Arc<Shared>,
    producer: JoinHandle<()>,
    counter: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    promised: Mutex<Vec<Uuid>>,
    ended: AtomicUsize,
    again: AtomicUsize,
    enough: AtomicBool,
    /// Unlimited, if nothing.
    limit: Option<usize>,
}

impl Shared {
    fn promised(&self) -> usize {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn is_over(&self) -> bool {
        self.enough.load(Ordering::Relaxed) || self.limit.is_some_and(|limit| self.promised() >= limit)
    }
}

impl Load {
    /// Starts publishing, until [`Load::finish`].
    pub fn start(stage: &Stage, rate: u32, seed: u64) -> Self {
        Self::of(stage, rate, seed, None)
    }

    /// Starts publishing about so many tasks.
    pub fn limited(stage: &Stage, rate: u32, tasks: usize) -> Self {
        Self::of(stage, rate, 1, Some(tasks))
    }

    fn of(stage: &Stage, rate: u32, seed: u64, limit: Option<usize>) -> Self {
        let shared = Arc::new(Shared { limit, ..Shared::default() });
        let (url, exchange) = (stage.site.broker_url().to_owned(), stage.site.prefix().to_owned());
        let producer = tokio::spawn(produce(shared.clone(), url, exchange, rate, Chance(!seed)));
        let counter = tokio::spawn(count(shared.clone(), stage.site.database_url()));
        Self { shared, producer, counter }
    }

    /// Confirmed so far.
    pub fn promised(&self) -> usize {
        self.shared.promised()
    }

    /// Terminal so far, as of a second ago.
    pub fn ended(&self) -> usize {
        self.shared.ended.load(Ordering::Relaxed)
    }

    /// Whether everything was published and has ended.
    pub fn is_done(&self) -> bool {
        self.producer.is_finished() && self.ended() >= self.promised()
    }

    /// Publishes what is not confirmed yet, and waits until all has ended or too long has passed; every promised id.
    pub async fn finish(self) -> Promised {
        self.shared.enough.store(true, Ordering::Relaxed);
        self.producer.await.expect("the producer does not panic");
        let (mut seen, mut at) = (0, Instant::now());
        // As long as it gets on, however slowly.
        while self.shared.ended.load(Ordering::Relaxed) < self.shared.promised() && at.elapsed() < patience() {
            let ended = self.shared.ended.load(Ordering::Relaxed);
            if ended != seen {
                (seen, at) = (ended, Instant::now());
            }
            tokio::time::sleep(TICK).await;
        }
        self.counter.abort();
        let ids = std::mem::take(&mut *self.shared.promised.lock().unwrap_or_else(PoisonError::into_inner));
        Promised { ids, again: self.shared.again.load(Ordering::Relaxed) }
    }
}

/// What was confirmed.
pub struct Promised {
    /// By id.
    pub ids: Vec<Uuid>,
    /// How many publishes were repeated because they had not been confirmed.
    pub again: usize,
}

async fn count(shared: Arc<Shared>, url: String) {
    let database = Database::postgres(&url).await;
    loop {
        // An error is a fault at work; the next look tells.
        if let Ok(ended) = database.number(ENDED).await {
            shared.ended.store(usize::try_from(ended).unwrap_or_default(), Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}

async fn produce(shared: Arc<Shared>, url: String, exchange: String, rate: u32, mut chance: Chance) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut unconfirmed: VecDeque<Task> = VecDeque::new();
    let mut connected: Option<(Connection, Channel)> = None;
    let mut due = 0.0;
    loop {
        tick.tick().await;
        let open = shared.promised().saturating_sub(shared.ended.load(Ordering::Relaxed)) + unconfirmed.len();
        if !shared.is_over() && open < OPEN {
            due += f64::from(rate) * TICK.as_secs_f64();
            while due >= 1.0 {
                unconfirmed.push_back(task(&mut chance));
                due -= 1.0;
            }
        }
        if unconfirmed.is_empty() {
            if shared.is_over() {
                return;
            }
            continue;
        }
        if connected.is_none() {
            connected = connect(&url).await;
        }
        let Some((_, channel)) = &connected else { continue };
        let batch: Vec<Task> = unconfirmed.drain(..).collect();
        let confirmed = timeout(CONFIRM, publish(channel, &exchange, &batch)).await.unwrap_or_default();
        let mut promised = shared.promised.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failed = false;
        for (at, task) in batch.into_iter().enumerate() {
            if confirmed.get(at) == Some(&true) {
                promised.push(task.id);
            } else {
                unconfirmed.push_back(task);
                shared.again.fetch_add(1, Ordering::Relaxed);
                failed = true;
            }
        }
        if failed {
            connected = None; // whatever it was, another connection settles it
        }
    }
}

async fn connect(url: &str) -> Option<(Connection, Channel)> {
    let opening = async {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.ok()?;
        let channel = connection.create_channel().await.ok()?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.ok()?;
        Some((connection, channel))
    };
    timeout(CONFIRM, opening).await.ok().flatten()
}

/// Which were confirmed, and had a queue to go to.
async fn publish(channel: &Channel, exchange: &str, batch: &[Task]) -> Vec<bool> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let mut confirms = Vec::with_capacity(batch.len());
    for task in batch {
        let message = task.message();
        let publish =
            channel.basic_publish(exchange.into(), "default".into(), options, &message.body, message.properties);
        confirms.push(publish.await);
    }
    let mut confirmed = Vec::with_capacity(batch.len());
    for confirm in confirms {
        confirmed.push(match confirm {
            Ok(confirm) => matches!(confirm.await, Ok(Confirmation::Ack(None))),
            Err(_) => false,
        });
    }
    confirmed
}

/// Short ones, longer ones that faults can hit, some that fail once; all of them of the plugin that says when it begins, which
/// the ledger hears.
fn task(chance: &mut Chance) -> Task {
    match chance.below(20) {
        0..2 => probe::sleep(1_000 + chance.below(500) as u64),
        2..4 => probe::fail_until_attempt(2),
        4..8 => probe::echo(json!(chance.next())),
        _ => probe::sleep(20 + chance.below(200) as u64),
    }
}
