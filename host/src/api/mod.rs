//! The HTTP API: submit, read, wait, call off, retry, forget; what is installed, who is alive, what waits.
//!
//! Every answer is JSON (`/metrics` alone is text), every error a problem document with a stable code ([`problem`]). Operations of the database run
//! on tasks of their own: a client that hangs up must not leave one half done.

mod benches;
mod body;
mod certificate;
mod erase;
mod explain;
mod facts;
mod follow;
mod guard;
mod listener;
mod origin;
mod params;
mod problem;
pub mod readiness;
mod redrive;
mod render;
mod retry;
mod share;
mod steering;
mod submit;
mod tasks;
mod tokens;
mod waiters;
mod warnings;

pub use benches::{BENCH_LABEL, is_run, new_run};
pub use certificate::{Certificate, CertificateError};
pub use listener::{BindError, Listener};
pub use problem::Problem;
pub use readiness::{Readiness, Reason};
pub use tokens::{Scope, Tokens, TokensError};

use crate::brakes::InForce;
use crate::broker::Broker;
use crate::db::{Db, DbError, Fields, TaskRow};
use crate::metrics::Metrics;
use crate::registry::Catalog;
use crate::task::TaskId;
use crate::task::limits::MessageLimits;
use axum::Router;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// How long open connections may go on after the end was asked for.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the API is given.
#[derive(Clone)]
pub struct Parts {
    /// What is remembered.
    pub db: Arc<dyn Db>,
    /// Which plugins are here.
    pub catalog: Arc<dyn Catalog>,
    /// For what it counts.
    pub broker: Arc<dyn Broker>,
    /// What was counted.
    pub metrics: Arc<Metrics>,
    /// The brakes that this process heeds.
    pub brakes: InForce,
    /// Whether tasks are taken in.
    pub readiness: watch::Receiver<Readiness>,
    /// Logical queues that this host consumes.
    pub queues: Vec<String>,
    /// What a task is checked against.
    pub message_limits: MessageLimits,
    /// The largest body of a request.
    pub body_bytes: usize,
    /// Connections at once.
    pub connections: usize,
    /// Attempts in all where neither the task nor a plugin of this host says: `retry.max_attempts`.
    pub max_attempts: u32,
    /// Notified after a submission, so that the relay publishes at once.
    pub outbox: Arc<Notify>,
    /// Ticks after every batch that this host has settled.
    pub settled: watch::Receiver<u64>,
    /// Who may call; `None`: everybody who reaches the address, which is loopback then.
    pub tokens: Option<Tokens>,
}

/// What the API needs to answer, and what it keeps between requests.
#[derive(Clone)]
pub struct ApiState {
    parts: Parts,
    stop: Arc<dyn Fn(TaskId) + Send + Sync>,
    /// Cancelled: those who wait are answered, streams end.
    closing: CancellationToken,
    waiters: Arc<waiters::Waiters>,
    /// Of the streams of all.
    streams: share::Share,
    /// Of each token; without tokens there is one for all.
    shares: Arc<[share::Share]>,
    bodies: body::Bodies,
}

impl ApiState {
    /// From what is given.
    pub fn new(parts: Parts) -> ApiState {
        let (connections, body_bytes) = (parts.connections, parts.body_bytes);
        let shares = match &parts.tokens {
            Some(tokens) => (0..tokens.len()).map(|_| share::Share::of_token(connections, body_bytes)).collect(),
            None => [share::Share::whole(connections, body_bytes)].into(),
        };
        ApiState {
            streams: share::Share::whole(connections, body_bytes),
            shares,
            bodies: body::Bodies::new(parts.body_bytes),
            parts,
            stop: Arc::new(|_| {}),
            closing: CancellationToken::new(),
            waiters: waiters::Waiters::new(),
        }
    }

    /// How a task that runs in this process is ended at once when somebody calls it off. Without it, its host hears of it
    /// with the next renewal of its lease, as every other host does.
    #[must_use]
    pub fn stopping_with(mut self, stop: Arc<dyn Fn(TaskId) + Send + Sync>) -> ApiState {
        self.stop = stop;
        self
    }
}

impl ApiState {
    /// Ask the database on a task of its own.
    async fn db<T, A, F>(&self, ask: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        A: Future<Output = Result<T, DbError>> + Send + 'static,
        F: FnOnce(Arc<dyn Db>) -> A,
    {
        match tokio::spawn(ask(self.parts.db.clone())).await {
            Ok(answer) => Ok(answer?),
            Err(e) => Err(Problem::internal(&e)),
        }
    }
}

/// Every route. Call it within a runtime: one task of it asks the database for all who wait.
pub fn router(state: ApiState) -> Router {
    let parts = &state.parts;
    tokio::spawn(state.waiters.clone().serve(parts.db.clone(), parts.settled.clone(), state.closing.clone()));
    let state = Arc::new(state);
    Router::new()
        .route("/v1/tasks", get(tasks::list).post(submit::one).delete(benches::delete))
        .route("/v1/tasks/batch", post(submit::batch))
        .route("/v1/tasks/{id}", get(tasks::show))
        .route("/v1/tasks/{id}/wait", get(tasks::wait))
        .route("/v1/tasks/{id}/events", get(tasks::events))
        .route("/v1/tasks/{id}/explain", get(explain::explain))
        .route("/v1/tasks/{id}/logs", get(tasks::logs))
        .route("/v1/tasks/{id}/attempts", get(tasks::attempts))
        .route("/v1/tasks/{id}/calls", get(tasks::calls))
        .route("/v1/tasks/{id}/cancel", post(tasks::cancel))
        .route("/v1/tasks/{id}/retry", post(retry::retry))
        .route("/v1/tasks/{id}/data", delete(erase::erase))
        .route("/v1/dead", get(facts::dead))
        .route("/v1/dead/redrive", post(redrive::redrive))
        .route("/v1/plugins", get(facts::plugins))
        .route("/v1/plugins/{name}", get(facts::plugin))
        .route("/v1/plugins/{name}/disable", post(steering::disable))
        .route("/v1/plugins/{name}/enable", post(steering::enable))
        .route("/v1/benches", get(benches::list))
        .route("/v1/hosts", get(facts::hosts))
        .route("/v1/hosts/{id}/drain", post(steering::drain))
        .route("/v1/hosts/{id}/undrain", post(steering::undrain))
        .route("/v1/queues", get(facts::queues))
        .route("/v1/queues/{name}/pause", post(steering::pause))
        .route("/v1/queues/{name}/resume", post(steering::resume))
        .route("/v1/brakes", get(steering::brakes))
        .route("/v1/audit", get(steering::audit))
        .route("/metrics", get(facts::metrics))
        .route("/healthz", get(readiness::healthz))
        .route("/readyz", get(readiness::readyz))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(axum::middleware::from_fn_with_state(state.clone(), guard::guard))
        .with_state(state)
}

/// Answer requests until `shutdown`, and then for a few seconds those that are under way: whoever waits is answered with
/// what is there, streams end.
pub async fn serve(listener: Listener, state: ApiState, shutdown: impl Future<Output = ()> + Send + 'static) {
    let closing = state.closing.clone();
    let shut = async {
        shutdown.await;
        closing.cancel();
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        () = listener.serve(router(state), closing.clone()) => {}
        () = shut => {}
    }
}

async fn no_route(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}; the API begins at /v1", uri.path()))
}

async fn no_method(method: axum::http::Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// An answer as JSON.
fn respond<T: serde::Serialize>(status: StatusCode, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => {
            let mut response = (status, body).into_response();
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(e) => Problem::internal(&e).into_response(),
    }
}

/// A task, whole, as JSON.
fn task_response(status: StatusCode, row: &TaskRow) -> Response {
    respond(status, &render::TaskJson::new(row, Fields::ALL))
}

#[cfg(test)]
mod tests;
