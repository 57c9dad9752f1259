//! What there is: plugins, hosts, queues, dead letters; and what was counted.

use super::params::{Named, Params};
use super::problem::Problem;
use super::shapes::{DeadPage, HostJson, HostList, PluginList, QueueCount, QueueList, SetBy};
use super::tasks::{LONGEST_PAGE, PAGE};
use super::{ApiState, respond};
use crate::broker::Source;
use crate::db::{Brake, BrakeKind, DeadFilter, HostRow, WaitingByQueue};
use crate::metrics;
use crate::registry::PluginInfo;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// What only RabbitMQ's management API knows.
const NO_MANAGEMENT: &str = "only RabbitMQ's management API knows; `agentry doctor` asks it at broker.management_url";
/// How long a queue may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The plugins of this host.
#[utoipa::path(get, path = "/v1/plugins", tag = "hosts", operation_id = "list_plugins",
    responses((status = 200, description = "The plugins", body = PluginList)))]
pub(super) async fn plugins(State(state): State<Arc<ApiState>>, params: Params) -> Result<Response, Problem> {
    params.only(&[])?;
    Ok(respond(StatusCode::OK, &PluginList { plugins: state.parts.catalog.list() }))
}

/// One plugin of this host.
#[utoipa::path(get, path = "/v1/plugins/{name}", tag = "hosts", operation_id = "get_plugin",
    responses((status = 200, description = "The plugin", body = PluginInfo)))]
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

/// What this process has counted, for Prometheus; in the older text form for those that accept no other.
#[utoipa::path(get, path = "/metrics", tag = "health", operation_id = "get_metrics",
    responses((status = 200, description = "OpenMetrics text, or the older text form where it is not accepted", content(
        (String = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (String = "text/plain; version=0.0.4; charset=utf-8")))))]
pub(super) async fn metrics(State(state): State<Arc<ApiState>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let plain = metrics::is_plain(accept);
    let (metrics, brakes) = (state.parts.metrics.clone(), state.parts.brakes.now());
    for kind in BrakeKind::ALL {
        metrics.brakes(kind.as_str(), brakes.count(kind));
    }
    // It reads files of /proc and of the spool.
    let text = tokio::task::spawn_blocking(move || if plain { metrics.plain_text() } else { metrics.text() }).await;
    let media_type = if plain { metrics::PLAIN } else { metrics::MEDIA_TYPE };
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, media_type)], text).into_response(),
        // The runtime is going down.
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// All hosts of this database, with their leases.
#[utoipa::path(get, path = "/v1/hosts", tag = "hosts", operation_id = "list_hosts",
    responses((status = 200, description = "The hosts", body = HostList)))]
pub(super) async fn hosts(State(state): State<Arc<ApiState>>, params: Params) -> Result<Response, Problem> {
    params.only(&[])?;
    let hosts = state.db(|db| async move { db.hosts().await }).await?;
    let brakes = state.parts.brakes.now();
    let shown = |host: HostRow| HostJson { drained: brakes.host(host.record.id).map(SetBy::from), host };
    let hosts = hosts.into_iter().map(shown).collect();
    Ok(respond(StatusCode::OK, &HostList { hosts }))
}

/// Tasks that are counted at most for a list of queues.
const WAITING: u32 = 100_000;

/// The queues, with the broker's counts, the tasks that wait in the database, and who paused them.
///
/// Queues of this host and, while the database responds, those of other live hosts, of waiting tasks and of brakes.
#[utoipa::path(get, path = "/v1/queues", tag = "hosts", operation_id = "list_queues",
    responses((status = 200, description = "The queues", body = QueueList)))]
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
    let counted = names.iter().map(|queue| queue_count(&state, queue, waiting.as_ref(), brakes.queue(queue)));
    let queues = join_all(counted).await;
    Ok(respond(StatusCode::OK, &QueueList { queues }))
}

async fn queue_count(
    state: &ApiState,
    queue: &str,
    waiting: Option<&WaitingByQueue>,
    paused: Option<&Brake>,
) -> QueueCount {
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
    QueueCount {
        queue: queue.to_owned(),
        ready: ready(&tasks),
        consumers: tasks.as_ref().ok().map(|(_, consumers)| *consumers),
        returned: ready(&returned),
        dead: ready(&dead),
        unacknowledged: None,
        oldest_at: None,
        reason: Some(NO_MANAGEMENT.to_owned()),
        error,
        waiting: waiting.map(counted),
        waiting_more: waiting.is_some_and(|all| all.more),
        paused: paused.map(SetBy::from),
    }
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

/// List dead letters, the last recorded first.
#[utoipa::path(get, path = "/v1/dead", tag = "dead letters", operation_id = "list_dead_letters",
    params(
        ("task_id" = Option<uuid::Uuid>, Query, description = "Letters with this task id."),
        ("reason" = Option<String>, Query, description = "Letters with this reason."),
        ("queue" = Option<String>, Query, description = "Letters of this queue."),
        ("since" = Option<String>, Query, example = "7d", description =
            "Letters recorded since then: a time, or a duration before now."),
        ("waiting" = Option<bool>, Query, description = "`true`: only those that were not redriven and can be."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "Page size; default 50."),
        ("cursor" = Option<i64>, Query, minimum = 1, description = "`next_cursor` of another page: letters below this id."),
    ),
    responses((status = 200, description = "A page", body = DeadPage)))]
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
    Ok(respond(StatusCode::OK, &DeadPage { dead: page.rows, next_cursor }))
}
