//! What there is: plugins, hosts, queues, dead letters; and what was counted.

use super::params::{Named, Params};
use super::problem::Problem;
use super::tasks::{LONGEST_PAGE, PAGE};
use super::{ApiState, respond};
use crate::broker::Source;
use crate::db::{Brake, BrakeKind, DeadFilter, HostRow, WaitingByQueue};
use crate::metrics;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// What only RabbitMQ's management API knows.
const NO_MANAGEMENT: &str = "only RabbitMQ's management API knows, and broker.management_url is not set";
/// How long a queue may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// `GET /v1/plugins`
pub(super) async fn plugins(State(state): State<Arc<ApiState>>, params: Params) -> Result<Response, Problem> {
    params.only(&[])?;
    Ok(respond(StatusCode::OK, &json!({"plugins": state.parts.catalog.list()})))
}

/// `GET /v1/plugins/{name}`
pub(super) async fn plugin(
    State(state): State<Arc<ApiState>>,
    Named(name): Named,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&[])?;
    let plugins = state.parts.catalog.list();
    match plugins.iter().find(|plugin| plugin.name == name) {
        Some(plugin) => Ok(respond(StatusCode::OK, plugin)),
        None => {
            let known: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
            let others = match known.is_empty() {
                true => "no plugin is installed on it: check plugins.dir".to_owned(),
                false => format!("there are: {}", known.join(", ")),
            };
            let detail = format!("there is no plugin {name:?} on this host; {others}");
            Err(Problem::not_found(detail).with("known", known))
        }
    }
}

/// `GET /metrics`: what this process has counted, for Prometheus.
pub(super) async fn metrics(State(state): State<Arc<ApiState>>) -> Response {
    let brakes = state.parts.brakes.now();
    for kind in BrakeKind::ALL {
        state.parts.metrics.brakes(kind.as_str(), brakes.count(kind));
    }
    ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], state.parts.metrics.text()).into_response()
}

/// `GET /v1/hosts`
pub(super) async fn hosts(State(state): State<Arc<ApiState>>, params: Params) -> Result<Response, Problem> {
    params.only(&[])?;
    let hosts = state.db(|db| async move { db.hosts().await }).await?;
    let brakes = state.parts.brakes.now();
    let told = |host: &HostRow| {
        let mut told = json!(host);
        let drained = brakes.host(host.record.id);
        told["drained"] = json!(drained.map(set_by));
        told
    };
    let hosts: Vec<Value> = hosts.iter().map(told).collect();
    Ok(respond(StatusCode::OK, &json!({"hosts": hosts})))
}

/// Tasks that are counted at most for a list of queues.
const WAITING: u32 = 100_000;

/// `GET /v1/queues`: what the broker counts, how many tasks wait in the database, and who paused it. Queues of this host and, while the database
/// responds, those of others, of waiting tasks and of brakes.
pub(super) async fn queues(State(state): State<Arc<ApiState>>, params: Params) -> Result<Response, Problem> {
    params.only(&[])?;
    let waiting = state.db(|db| async move { db.steering().waiting(WAITING).await }).await.ok();
    let hosts = state.db(|db| async move { db.hosts().await }).await.unwrap_or_default();
    let brakes = state.parts.brakes.now();
    let mut names: BTreeSet<String> = state.parts.queues.iter().cloned().collect();
    names.extend(hosts.into_iter().filter(|host| host.alive).flat_map(|host| host.record.queues));
    names.extend(waiting.iter().flat_map(|waiting| waiting.queues.iter().map(|(queue, _)| queue.clone())));
    let paused = brakes.held.iter().filter(|brake| brake.kind == BrakeKind::Queue);
    names.extend(paused.map(|brake| brake.target.clone()));
    let told = names.iter().map(|queue| queue_of(&state, queue, waiting.as_ref(), brakes.queue(queue)));
    let queues: Vec<Value> = join_all(told).await;
    Ok(respond(StatusCode::OK, &json!({"queues": queues})))
}

fn set_by(brake: &Brake) -> Value {
    json!({"by": brake.by, "reason": brake.reason, "since": brake.since})
}

async fn queue_of(state: &ApiState, queue: &str, waiting: Option<&WaitingByQueue>, paused: Option<&Brake>) -> Value {
    let name: Arc<str> = queue.into();
    let (tasks, returned, dead) = tokio::join!(
        facts(state, Source::Tasks(name.clone())),
        facts(state, Source::Returned(name.clone())),
        facts(state, Source::Dead(name)),
    );
    let error = [&tasks, &returned, &dead].into_iter().find_map(|answer| answer.as_ref().err().cloned());
    let ready = |answer: &Result<(u32, u32), String>| answer.as_ref().ok().map(|(ready, _)| *ready);
    let counted =
        |all: &WaitingByQueue| all.queues.iter().find(|(name, _)| name == queue).map_or(0, |(_, waiting)| *waiting);
    json!({
        "queue": queue,
        "ready": ready(&tasks),
        "consumers": tasks.as_ref().ok().map(|(_, consumers)| *consumers),
        "returned": ready(&returned),
        "dead": ready(&dead),
        "unacknowledged": Value::Null,
        "oldest_at": Value::Null,
        "reason": NO_MANAGEMENT,
        "error": error,
        "waiting": waiting.map(counted),
        "waiting_more": waiting.is_some_and(|all| all.more),
        "paused": paused.map(set_by),
    })
}

async fn facts(state: &ApiState, source: Source) -> Result<(u32, u32), String> {
    let broker = state.parts.broker.clone();
    // On a task of its own: a question to the broker is never dropped half-way.
    let asked = tokio::spawn(async move { broker.facts(source).await });
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(Ok(facts))) => Ok((facts.ready, facts.consumers)),
        Ok(Ok(Err(e))) => Err(e.to_string()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// `GET /v1/dead`
pub(super) async fn dead(State(state): State<Arc<ApiState>>, params: Params) -> Result<Response, Problem> {
    let params = params.only(&["task_id", "reason", "queue", "since", "waiting", "limit", "cursor"])?;
    let limit = params.number("limit", 1..=LONGEST_PAGE)?.unwrap_or(PAGE);
    let filter = DeadFilter {
        task: params.read("task_id", "a task id, which is a UUID", |text| text.parse().ok())?,
        reason: params.text("reason").map(str::to_owned),
        queue: params.text("queue").map(str::to_owned),
        since: params.since("since")?,
        waiting: params.read("waiting", "true or false", |text| text.parse().ok())?.unwrap_or(false),
        before: params.number("cursor", 1..=i64::MAX)?,
        limit,
    };
    let page = state.db(move |db| async move { db.dead_letters(&filter).await }).await?;
    let next_cursor = page.next(|row| row.id.to_string());
    Ok(respond(StatusCode::OK, &json!({"dead": page.rows, "next_cursor": next_cursor})))
}
