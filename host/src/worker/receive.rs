//! Receive: a delivery becomes an arrival, or a dead letter.

use super::Shared;
use super::candidate::{self, Candidate, consider};
use super::dead::{Burial, death};
use super::reserve::LONG;
use super::stops::{self, Held, Stop};
use super::unclaimed::{self, Ways};
use crate::broker::{Delivery, FENCE, Flow, Header, Receipt, Subscription};
use crate::registry::Resolved;
use crate::task::message::Envelope;
use crate::task::{Failure, FailureKind, Fence, TaskMessage};
use futures_util::FutureExt;
use serde_json::json;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Receive tasks of one queue until `end`: at the latest when the worker closes.
pub async fn tasks(
    shared: Arc<Shared>,
    mut subscription: Subscription,
    ways: Ways,
    dead: mpsc::Sender<Burial>,
    end: CancellationToken,
) {
    while let Some(delivery) = next(&end, &mut subscription).await {
        shared.window.arrived(delivery.source.queue());
        shared.parts.metrics.delivery(delivery.source.queue(), false, delivery.redelivered);
        let message = match decode(&shared, &delivery) {
            Ok(message) => message,
            Err(rejection) => {
                // The receiver of burials outlives every sender.
                let _ = dead.send(Burial::rejected(delivery, rejection)).await;
                continue;
            }
        };
        let candidate = match admitted(&shared, Arc::new(message), &delivery, (&subscription.flow, &end)).await {
            Ok(candidate) => candidate,
            Err(why) => {
                give_back(&shared, vec![delivery.receipt]).await;
                match why {
                    NotAdmitted::Late => continue,
                    NotAdmitted::Ended => break,
                }
            }
        };
        if let Some(candidate) = unclaimed::begin(&shared, &ways, candidate, delivery) {
            let _ = ways.claims.send(candidate).await;
        }
    }
    leave(&shared, subscription).await;
}

/// Receive what the broker itself gave up on. What belongs to a task is settled; the rest is a dead letter with its reason.
///
/// One that came to its delivery limit was delivered to hosts that died or gave it back: the row knows what to think of that,
/// so it is an arrival like any other, with or without an id. Whether there is such a limit depends on RabbitMQ's version and on
/// policies, and must not decide about a task. One that expired, or was thrown out, ends its task.
pub async fn returned(
    shared: Arc<Shared>,
    mut subscription: Subscription,
    claims: mpsc::Sender<Candidate>,
    dead: mpsc::Sender<Burial>,
) {
    while let Some(delivery) = next(&shared.closing, &mut subscription).await {
        shared.parts.metrics.delivery(delivery.source.queue(), true, delivery.redelivered);
        let message = match decode(&shared, &delivery) {
            Ok(message) => Arc::new(message),
            Err(rejection) => {
                let _ = dead.send(Burial::returned(delivery, rejection.id)).await;
                continue;
            }
        };
        let candidate = match death(&delivery) {
            "delivery_limit" => {
                match admitted(&shared, message, &delivery, (&subscription.flow, &shared.closing)).await {
                    Ok(candidate) => candidate,
                    Err(why) => {
                        give_back(&shared, vec![delivery.receipt]).await;
                        match why {
                            NotAdmitted::Late => continue,
                            NotAdmitted::Ended => break,
                        }
                    }
                }
            }
            _ if !message.id_given => {
                let _ = dead.send(Burial::returned(delivery, None)).await;
                continue;
            }
            why => candidate::hopeless(message, delivery.source.queue().clone(), given_up(why)),
        };
        let _ = claims.send(candidate.with(delivery)).await;
    }
    leave(&shared, subscription).await;
}

/// Why a delivery goes back.
enum NotAdmitted {
    /// It has waited as long as it may, or its queue is stopped here.
    Late,
    /// The subscription is to end.
    Ended,
}

/// The delivery as a candidate, once no brake stops its queue.
async fn admitted(
    shared: &Shared,
    message: Arc<TaskMessage>,
    delivery: &Delivery,
    (flow, end): (&watch::Sender<Flow>, &CancellationToken),
) -> Result<Candidate, NotAdmitted> {
    let queue = delivery.source.queue();
    loop {
        if shared.stopped(queue).is_none() {
            match admit(shared, message.clone(), delivery, end).await {
                Ok(Some(candidate)) if shared.stopped(queue).is_none() => return Ok(candidate),
                Ok(_) => {}
                Err(why) => return Err(why),
            }
        }
        match stops::held(shared, queue, flow.subscribe(), end).await {
            Held::Released => {}
            Held::GoesBack => return Err(NotAdmitted::Late),
            Held::Ended => return Err(NotAdmitted::Ended),
        }
    }
}

/// A slot and memory first, then the claim: what is `running` runs, and what waits is still the broker's to give to others.
/// `None`: a brake has stopped its queue meanwhile.
async fn admit(
    shared: &Shared,
    message: Arc<TaskMessage>,
    delivery: &Delivery,
    end: &CancellationToken,
) -> Result<Option<Candidate>, NotAdmitted> {
    let queue = delivery.source.queue().clone();
    let admission = async {
        let slot = shared.room.slot(&queue).await;
        consider(shared, message, queue.clone(), relayed(delivery), slot).await
    };
    tokio::pin!(admission);
    // Timers cost more than a slot that is free.
    if let Some(candidate) = admission.as_mut().now_or_never() {
        return Ok(Some(candidate));
    }
    let mut delayed = None;
    loop {
        tokio::select! {
            biased;
            candidate = &mut admission => return Ok(Some(candidate)),
            () = end.cancelled() => return Err(NotAdmitted::Ended),
            () = shared.until_stopped(&queue) => return Ok(None),
            () = past(delivery, shared.config.waits) => return Err(NotAdmitted::Late),
            () = past(delivery, Some(LONG)), if delayed.is_none() => delayed = Some(shared.window.delayed(&queue)),
        }
    }
}

/// Returns when a delivery has been in hand for so long; `None`: never.
async fn past(delivery: &Delivery, time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep_until(delivery.arrived + time).await,
        None => std::future::pending().await,
    }
}

/// The fence of its task's row, if a relay published it.
pub fn relayed(delivery: &Delivery) -> Option<Fence> {
    delivery.message.header(FENCE)?.parse().ok()
}

/// What a task ends with that the broker threw out of its queue.
fn given_up(why: &str) -> Failure {
    let kind = if why == "expired" { FailureKind::Expired } else { FailureKind::Rejected };
    Failure::fatal(kind, format!("the broker gave up on its message before it ran: {why}"))
        .with_detail(json!({"reason": why}))
}

async fn next(end: &CancellationToken, subscription: &mut Subscription) -> Option<Delivery> {
    // Waiting for a token costs more than a delivery that is there.
    if !end.is_cancelled()
        && let Some(Some(delivery)) = subscription.deliveries.recv().now_or_never()
    {
        return Some(delivery);
    }
    tokio::select! {
        biased;
        () = end.cancelled() => None,
        delivery = subscription.deliveries.recv() => delivery,
    }
}

/// The flows of all subscriptions that take tasks in, with their queues.
#[derive(Default)]
pub struct Flows {
    all: Mutex<Vec<(Arc<str>, watch::Sender<Flow>)>>,
    added: Notify,
}

impl Flows {
    /// Steer this one too, until its subscription is gone.
    pub fn add(&self, shared: &Shared, queue: &Arc<str>, flow: watch::Sender<Flow>) {
        let mut flows = self.lock();
        steer(&flow, wanted(shared, queue, Duration::ZERO));
        flows.retain(|(_, flow)| !flow.is_closed());
        flows.push((queue.clone(), flow));
        self.added.notify_one();
    }

    /// Whoever steers leaves this one alone from now on; it gives back.
    fn leave(&self, flow: &watch::Sender<Flow>) {
        let mut flows = self.lock();
        flows.retain(|(_, other)| !other.same_channel(flow));
        flow.send_replace(Flow::GiveBack);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Arc<str>, watch::Sender<Flow>)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner) // whole at every instruction
    }
}

/// While the database is away nothing new is taken in, and what was handed over stays unacknowledged where it is: giving it
/// back would count against its delivery limit, and bring it here again. Of a paused queue it stays for [`stops::HELD`], and goes back then: a
/// pause may last. From a drained host it goes back at once. Until the worker closes; see [`leave`].
pub async fn hold(shared: Arc<Shared>) {
    let mut trouble = shared.database_trouble.subscribe();
    let mut brakes = shared.parts.brakes.changes();
    let mut paused: HashMap<Arc<str>, Instant> = HashMap::new();
    loop {
        trouble.mark_unchanged();
        brakes.mark_unchanged();
        let mut next = None;
        {
            let mut flows = shared.flows.lock();
            flows.retain(|(_, flow)| !flow.is_closed());
            for (queue, flow) in flows.iter() {
                let since = match shared.stopped(queue) {
                    None => paused.remove(queue).map(|_| Duration::ZERO),
                    Some(_) => Some(paused.entry(queue.clone()).or_insert_with(Instant::now).elapsed()),
                };
                let since = since.unwrap_or_default();
                steer(flow, wanted(&shared, queue, since));
                if shared.stopped(queue) == Some(Stop::Paused) && since < stops::HELD {
                    next = Some(next.unwrap_or(stops::HELD).min(stops::HELD - since));
                }
            }
        }
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            changed = trouble.changed() => if changed.is_err() { return },
            changed = brakes.changed() => if changed.is_err() { return },
            () = shared.flows.added.notified() => {}
            () = tokio::time::sleep(next.unwrap_or_default()), if next.is_some() => {}
        }
    }
}

/// How a subscription is to flow whose queue has been stopped for so long, if it is.
fn wanted(shared: &Shared, queue: &str, since: Duration) -> Flow {
    match shared.stopped(queue) {
        Some(Stop::Drained) => Flow::GiveBack,
        Some(Stop::Paused) if since >= stops::HELD => Flow::GiveBack,
        Some(Stop::Paused) => Flow::Hold,
        None if shared.database_trouble.borrow().is_some() => Flow::Hold,
        None => Flow::Go,
    }
}

fn steer(flow: &watch::Sender<Flow>, wanted: Flow) {
    flow.send_if_modified(|flow| std::mem::replace(flow, wanted) != wanted);
}

/// Stop consuming; what was handed over and not started goes back at once, for others.
async fn leave(shared: &Shared, mut subscription: Subscription) {
    shared.flows.leave(&subscription.flow);
    subscription.deliveries.close();
    let mut unstarted = Vec::new();
    while let Some(delivery) = subscription.deliveries.recv().await {
        unstarted.push(delivery.receipt);
    }
    give_back(shared, unstarted).await;
}

async fn give_back(shared: &Shared, receipts: Vec<Receipt>) {
    if !receipts.is_empty() {
        shared.parts.broker.give_back(receipts).await;
    }
}

fn decode(shared: &Shared, delivery: &Delivery) -> Result<TaskMessage, crate::task::Rejection> {
    let message = &delivery.message;
    let (plugin, options) = (message.text_header("agentry-plugin"), message.object_header("agentry-options"));
    let odd = |name, header: &Header<'_>| header.odd().map(|kind| (name, kind));
    let envelope = Envelope {
        body: &message.body,
        content_type: message.content_type.as_deref(),
        content_encoding: message.content_encoding.as_deref(),
        message_id: message.message_id.as_deref(),
        compression: message.header("compression"),
        plugin_header: plugin.text(),
        options_header: options.text(),
        odd_header: odd("agentry-plugin", &plugin).or_else(|| odd("agentry-options", &options)),
        reply_to: message.reply_to.as_deref(),
        correlation_id: message.correlation_id.as_deref(),
        traceparent: message.header("traceparent"),
    };
    let message = TaskMessage::decode(&envelope, &shared.config.message_limits)?;
    if message.reply_to.is_some() {
        shared.replies_expected.store(true, Ordering::Relaxed);
    }
    // A relay publishes rows. One may be older than the ceiling, and its runs end at it.
    if relayed(delivery).is_none()
        && message.options.timeout_seconds.is_some()
        && let Resolved::Ready(runner) = shared.parts.catalog.resolve(&message.plugin)
    {
        message.check_timeout(runner.timeout_ceiling())?;
    }
    Ok(message)
}
