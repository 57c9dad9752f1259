//! Whether the daemon takes tasks, and if not, why: derived from live facts, never from what was configured.

use super::stalled::{self, StalledQueues};
use crate::api::readiness::{LOADING, Readiness as State, Reason};
use crate::api::{Certificate, Tokens};
use crate::broker::{Broker, Health};
use crate::db::{Brake, BrakeKind};
use crate::explain;
use crate::worker::Watched;
use agentry_outbound::tools::Tools;
use futures_util::FutureExt;
use futures_util::future::select_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the lease, the tool servers and what blocks publishing are looked at, which report no changes.
const LOOK: Duration = Duration::from_millis(500);

/// The answer of `/readyz`, and those who may change it.
#[derive(Clone)]
pub struct Readiness {
    state: Arc<watch::Sender<State>>,
    closing: Arc<watch::Sender<bool>>,
}

impl Readiness {
    /// Not yet: plugins are being compiled.
    pub fn loading() -> Readiness {
        let state = State { ready: false, reasons: vec![reason(LOADING, "plugins are being compiled")] };
        Readiness { state: Arc::new(watch::Sender::new(state)), closing: Arc::new(watch::Sender::new(false)) }
    }

    /// Plugins are loaded.
    pub fn loaded(&self) {
        self.not("starting", "the daemon is starting");
    }

    /// For those who answer.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Not ready, and why.
    pub fn not(&self, code: &'static str, message: impl Into<String>) {
        self.set(vec![reason(code, message)], Vec::new());
    }

    /// Not ready any more: it drains.
    pub fn closing(&self) {
        self.closing.send_replace(true);
        self.not("closing", "the daemon drains and ends");
    }

    /// Ready if and only if there is no reason not to be. Whatever else is wrong is told all the same.
    fn set(&self, reasons: Vec<Reason>, besides: Vec<Reason>) -> bool {
        let ready = reasons.is_empty();
        let new = State { ready, reasons: reasons.into_iter().chain(besides).collect() };
        let ready = new.ready;
        self.state.send_if_modified(|state| {
            let changed = *state != new;
            *state = new;
            changed
        });
        ready
    }
}

fn reason(code: &'static str, message: impl Into<String>) -> Reason {
    Reason { code: code.into(), message: message.into() }
}

/// Sources of what is wrong while tasks are taken in all the same.
pub struct Besides {
    /// The files of its tokens may be invalid since they were changed.
    pub tokens: Option<Tokens>,
    /// So may those of its certificate.
    pub certificate: Option<Certificate>,
    /// A task that calls an unavailable server fails; those that call none run on.
    pub tools: Option<Tools>,
    /// It may accept no messages although it is connected: tasks then wait in the outbox.
    pub broker: Arc<dyn Broker>,
    /// Why tasks of the outbox are not published.
    pub unpublished: watch::Receiver<Option<String>>,
    /// Why dead letters are not published, by queue.
    pub letters: watch::Receiver<BTreeMap<String, String>>,
    /// Queues with messages that do not arrive. These make the host unready.
    pub stalled: watch::Receiver<StalledQueues>,
}

/// Keep the answer true until the daemon closes. `first` is called once, when it is first ready.
pub async fn watch(
    readiness: Readiness,
    mut broker: watch::Receiver<Health>,
    mut worker: Watched,
    mut besides: Besides,
    first: impl FnOnce(),
) {
    let mut first = Some(first);
    let mut closing = readiness.closing.subscribe();
    let mut was = false;
    loop {
        if *closing.borrow_and_update() {
            return;
        }
        let mut reasons = reasons(&broker, &worker);
        if reasons.is_empty() {
            // A broker that is away, or a consumer that is not confirmed, is the reason itself.
            let queues = besides.stalled.borrow();
            reasons.extend(queues.iter().map(|(queue, state)| reason("stalled", stalled::told(queue, state))));
        }
        let why = reasons.iter().map(|r| r.message.as_str()).collect::<Vec<_>>().join("; ");
        let ready = readiness.set(reasons, besides.reasons().into_iter().chain(braked(&worker)).collect());
        if ready && let Some(first) = first.take() {
            first();
        } else if ready != was && ready {
            tracing::info!("ready again");
        } else if ready != was {
            tracing::warn!(why, "not ready");
        }
        was = ready;
        tokio::select! {
            _ = closing.changed() => return,
            () = changed(&mut broker, &mut worker, &mut besides.unpublished) => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Returns when a source that reports its changes has one. Sources that are gone report none.
async fn changed(
    broker: &mut watch::Receiver<Health>,
    worker: &mut Watched,
    unpublished: &mut watch::Receiver<Option<String>>,
) {
    let broker = reported(broker).boxed();
    let unpublished = reported(unpublished).boxed();
    let database = reported(&mut worker.database_trouble).boxed();
    let consuming = worker.consuming.iter_mut().map(|(_, confirmed)| reported(confirmed).boxed());
    select_all(consuming.chain([broker, database, unpublished])).await;
}

async fn reported<T>(source: &mut watch::Receiver<T>) {
    if source.changed().await.is_err() {
        std::future::pending().await
    }
}

impl Besides {
    fn reasons(&mut self) -> Vec<Reason> {
        let health = self.tools.as_ref().map(Tools::health).unwrap_or_default();
        let told = health.into_iter().filter_map(|server| {
            let trouble = server.trouble?;
            Some(reason("tools", format!("the tool server {} is away: {trouble}", server.server)))
        });
        let unpublished = self.unpublished.borrow_and_update().clone();
        let publishing = self.broker.refusal().or(unpublished).map(|why| {
            reason("publishing", format!("tasks wait in the outbox (waiting_for not_published or unroutable): {why}"))
        });
        let letters = self.letters.borrow_and_update().clone().into_values();
        let letters = letters.map(|why| reason("publishing", format!("dead letters wait in the database: {why}")));
        let tokens = self.tokens.as_ref().and_then(Tokens::trouble).map(|why| reason("tokens", why));
        let certificate = self.certificate.as_ref().and_then(Certificate::trouble);
        let certificate = certificate.map(|why| reason("certificate", why));
        told.chain(publishing).chain(letters).chain(tokens).chain(certificate).collect()
    }
}

fn reasons(broker: &watch::Receiver<Health>, worker: &Watched) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let Health::Down(since, why) = &*broker.borrow() {
        reasons.push(reason("broker", format!("the broker is away since {}: {why}", since.format("%FT%TZ"))));
    }
    if let Some(why) = &*worker.database_trouble.borrow() {
        reasons.push(reason("database", format!("the database does not answer: {why}")));
    }
    if !worker.lease.is_valid() {
        reasons.push(reason("lease", "the lease could not be renewed in time"));
    }
    let brakes = worker.brakes.now();
    let drained = brakes.host(worker.host).is_some();
    for (queue, confirmed) in &worker.consuming {
        if confirmed.borrow().is_none() && !drained && brakes.queue(queue).is_none() {
            reasons.push(reason("consumer", format!("the broker has not confirmed the consumer of queue {queue}")));
        }
    }
    reasons
}

/// The brakes that this host heeds: of itself, of its queues, and of plugins.
fn braked(worker: &Watched) -> Vec<Reason> {
    let brakes = worker.brakes.now();
    let concerns = |brake: &&Brake| match brake.kind {
        BrakeKind::Queue => worker.consuming.iter().any(|(queue, _)| *queue == brake.target),
        BrakeKind::Host => brake.target == worker.host.to_string(),
        BrakeKind::Plugin => true,
    };
    let said = |brake: &Brake| {
        let code = if brake.kind == BrakeKind::Host { "drained" } else { "paused" };
        reason(code, format!("{} since {}", explain::said(brake), brake.since.format("%FT%TZ")))
    };
    brakes.held.iter().filter(concerns).map(said).collect()
}
