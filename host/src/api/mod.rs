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
mod openapi;
mod origin;
mod params;
mod problem;
pub mod readiness;
mod redrive;
mod render;
mod retry;
mod shapes;
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
pub use openapi::document;
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
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long open connections may go on after the end was asked for.
const FAREWELL: Duration = Duration::from_secs(5);

/// Time between two looks at the files of tokens and of the certificate.
const LOOK: Duration = Duration::from_secs(1);

/// What the API is given.
#[derive(Clone)]
pub struct Parts {
    /// The runtime of the path, on which the database is changed.
    pub path: Handle,
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
    /// Of all callers, without tokens. Each token has its own.
    everyone: share::Share,
    bodies: body::Bodies,
}

impl ApiState {
    /// From what is given.
    pub fn new(parts: Parts) -> ApiState {
        let whole = || share::Share::whole(parts.connections, parts.body_bytes);
        ApiState {
            streams: whole(),
            everyone: whole(),
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
    /// The places of a caller.
    fn share(&self, token: Option<&tokens::Token>) -> share::Share {
        let Some(token) = token else { return self.everyone.clone() };
        let own = || share::Share::of_token(self.parts.connections, self.parts.body_bytes);
        token.share.get_or_init(own).clone()
    }

    /// Ask the database on a task of its own.
    async fn db<T, A, F>(&self, ask: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        A: Future<Output = Result<T, DbError>> + Send + 'static,
        F: FnOnce(Arc<dyn Db>) -> A,
    {
        Self::asked(tokio::spawn(ask(self.parts.db.clone()))).await
    }

    /// Change the database, on the runtime of the path. A connection belongs to the runtime that opens it, and those for changes are the
    /// path's: none must wait for threads of the API.
    async fn change<T, A, F>(&self, ask: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        A: Future<Output = Result<T, DbError>> + Send + 'static,
        F: FnOnce(Arc<dyn Db>) -> A,
    {
        Self::asked(self.parts.path.spawn(ask(self.parts.db.clone()))).await
    }

    async fn asked<T>(asked: JoinHandle<Result<T, DbError>>) -> Result<T, Problem> {
        match asked.await {
            Ok(answer) => Ok(answer?),
            Err(e) => Err(Problem::internal(&e)),
        }
    }
}

/// The whole API. Call it within a runtime: one task of it asks the database for all who wait.
pub fn router(state: ApiState) -> Router {
    let parts = &state.parts;
    tokio::spawn(state.waiters.clone().serve(parts.db.clone(), parts.settled.clone(), state.closing.clone()));
    let state = Arc::new(state);
    let (router, _) = routes().split_for_parts();
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(axum::middleware::from_fn_with_state(state.clone(), guard::guard))
        .with_state(state)
}

/// Answer requests until `shutdown`, and then for a few seconds those that are under way: whoever waits is answered with
/// what is there, streams end.
pub async fn serve(listener: Listener, state: ApiState, shutdown: impl Future<Output = ()> + Send + 'static) {
    let closing = state.closing.clone();
    tokio::spawn(reload(state.parts.tokens.clone(), listener.certificate(), closing.clone()));
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

/// Every route. Each comes with the description of its handler, so that none is missing in the document.
fn routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::new()
        .routes(routes!(tasks::list, submit::one, benches::delete))
        .routes(routes!(submit::batch))
        .routes(routes!(tasks::show))
        .routes(routes!(tasks::wait))
        .routes(routes!(tasks::events))
        .routes(routes!(explain::explain))
        .routes(routes!(tasks::logs))
        .routes(routes!(tasks::attempts))
        .routes(routes!(tasks::calls))
        .routes(routes!(tasks::cancel))
        .routes(routes!(retry::retry))
        .routes(routes!(erase::erase))
        .routes(routes!(facts::dead))
        .routes(routes!(redrive::redrive))
        .routes(routes!(facts::plugins))
        .routes(routes!(facts::plugin))
        .routes(routes!(steering::disable))
        .routes(routes!(steering::enable))
        .routes(routes!(benches::list))
        .routes(routes!(facts::hosts))
        .routes(routes!(steering::drain))
        .routes(routes!(steering::undrain))
        .routes(routes!(facts::queues))
        .routes(routes!(steering::pause))
        .routes(routes!(steering::resume))
        .routes(routes!(steering::brakes))
        .routes(routes!(steering::audit))
        .routes(routes!(openapi::show))
        .routes(routes!(facts::metrics))
        .routes(routes!(readiness::healthz))
        .routes(routes!(readiness::readyz))
}

/// Reads the files of tokens and of the certificate again when they have changed, until `closing`.
async fn reload(tokens: Option<Tokens>, certificate: Option<Certificate>, closing: CancellationToken) {
    while closing.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let (tokens, certificate) = (tokens.clone(), certificate.clone());
        // A file system may be slow. A panic would be a defect of one look, and the next follows.
        let looked = tokio::task::spawn_blocking(move || {
            if let Some(tokens) = tokens {
                tokens.look();
            }
            if let Some(certificate) = certificate {
                certificate.look();
            }
        });
        let _ = looked.await;
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
