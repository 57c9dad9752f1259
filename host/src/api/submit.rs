//! `POST /v1/tasks` and `POST /v1/tasks/batch`: a task is accepted only if it can run.

use super::body::{object, read, text};
use super::params::Params;
use super::problem::Problem;
use super::render::TaskJson;
use super::shapes::{Batch, BatchTask};
use super::share::Share;
use super::warnings::{self, Warning};
use super::{ApiState, respond};
use crate::db::{Fields, HostRow, NewTask, Submitted};
use crate::registry::Resolved;
use crate::task::{DEFAULT_QUEUE, Options, PluginRef, TaskId, TaskMessage, identity};
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use utoipa::ToSchema;

/// Tasks in one batch.
const BATCH: usize = 10_000;

/// A task as submitted.
// Every key is checked: an error names an absent one that is needed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTask)]
struct Request<'a> {
    /// The task's id; a repeat with the same id and content is the same task.
    #[schema(value_type = Option<uuid::Uuid>)]
    id: Option<String>,
    /// `name` or `name@requirement`.
    #[schema(value_type = String)]
    plugin: Option<String>,
    /// Any JSON value, `null` too.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = serde_json::Value, required = true)]
    input: Option<&'a RawValue>,
    /// The logical queue; otherwise the plugin's.
    queue: Option<String>,
    /// Options of the task.
    #[serde(borrow)]
    #[schema(value_type = Option<Options>)]
    options: Option<&'a RawValue>,
}

/// Tasks that are submitted together.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewBatch)]
struct Many<'a> {
    /// 1 to 10,000 tasks: all are accepted, or none.
    #[serde(borrow)]
    #[schema(value_type = Vec<Request<'a>>, min_items = 1, max_items = 10_000)]
    tasks: Option<Vec<&'a RawValue>>,
}

/// `null` is an input; only an absent key is none.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Submit a task.
///
/// The task and its outbox entry are committed when this responds.
#[utoipa::path(post, path = "/v1/tasks", tag = "tasks", operation_id = "submit_task", request_body = Request<'_>,
    params(
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description =
            "Instead of `id`: a repeat with the same key is the same task."),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context, version 00; stored with the task."),
    ),
    responses(
        (status = 201, description = "The task", body = TaskJson<'_>, headers(("Location" = String, description = "Its path"))),
        (status = 200, description = "The task, which an earlier request created", body = TaskJson<'_>,
            headers(("Location" = String, description = "Its path"))),
    ))]
pub(super) async fn one(
    State(state): State<Arc<ApiState>>,
    Extension(share): Extension<Share>,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    params.only(&[])?;
    let body = read(&state, &share, &headers, body).await?;
    let mut hosts = Hosts::default();
    let key = idempotency_key(&headers)?;
    let (message, queue) = parse(&state, text(&body)?, &headers, key)?;
    let warning = warnings::of(&state, &mut hosts, &message.plugin).await?;
    let task = admit(&state, &mut hosts, message, queue).await?;
    let id = task.message.id;
    let answer = submit(&state, vec![task]).await?;
    let status = match answer.first() {
        Some(Submitted::Created) => StatusCode::CREATED,
        Some(Submitted::Exists) => StatusCode::OK,
        Some(Submitted::Conflict) | None => return Err(conflict(&id.to_string(), key.is_some())),
    };
    let row = state
        .db(move |db| async move { db.task(id, Fields::ALL).await })
        .await
        .map_err(|p| p.with("id", id.to_string()))?;
    match row {
        Some(row) => {
            let row = state.shown(row);
            let mut task = TaskJson::new(&row, Fields::ALL);
            task.warnings.extend(warning.filter(|_| !row.state.is_terminal()));
            let mut response = respond(status, &task);
            // A UUID is visible ASCII.
            if let Ok(location) = format!("/v1/tasks/{id}").parse() {
                response.headers_mut().insert(header::LOCATION, location);
            }
            Ok(response)
        }
        None => Err(Problem::internal(&format_args!("the task {id} was committed and is not there"))),
    }
}

/// Submit up to 10,000 tasks, all or none.
#[utoipa::path(post, path = "/v1/tasks/batch", tag = "tasks", operation_id = "submit_batch", request_body = Many<'_>,
    params(
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description =
            "Instead of ids: stands for each task by its place in `tasks`."),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context, version 00; stored with each task."),
    ),
    responses(
        (status = 201, description = "At least one task was created", body = Batch),
        (status = 200, description = "Every task existed", body = Batch),
    ))]
pub(super) async fn batch(
    State(state): State<Arc<ApiState>>,
    Extension(share): Extension<Share>,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    params.only(&[])?;
    let body = read(&state, &share, &headers, body).await?;
    let request: Many<'_> = object("the body", text(&body)?)?;
    let items = request.tasks.ok_or_else(|| Problem::bad("bad_message", "the body: missing field `tasks`"))?;
    if items.is_empty() || items.len() > BATCH {
        let detail = format!("tasks has {} entries; allowed are 1 to {BATCH}", items.len());
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_batch", detail));
    }
    let key = idempotency_key(&headers)?;
    let mut hosts = Hosts::default();
    let mut tasks = Vec::with_capacity(items.len());
    let mut seen = std::collections::HashSet::new();
    // One for each plugin, however many tasks ask for it.
    let mut warned = BTreeMap::<String, Option<Warning>>::new();
    for (at, item) in items.into_iter().enumerate() {
        let key = key.map(|key| key_of_batch(&key, at));
        let (message, queue) = parse(&state, item.get(), &headers, key).map_err(|p| p.at(at))?;
        if !seen.insert(message.id) {
            let detail = format!("the id {} stands there twice", message.id);
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_batch", detail).at(at));
        }
        if let Entry::Vacant(entry) = warned.entry(message.plugin.to_string()) {
            entry.insert(warnings::of(&state, &mut hosts, &message.plugin).await.map_err(|p| p.at(at))?);
        }
        tasks.push(admit(&state, &mut hosts, message, queue).await.map_err(|p| p.at(at))?);
    }
    let ids: Vec<_> = tasks.iter().map(|task| task.message.id).collect();
    let answer = submit(&state, tasks).await?;
    if let Some(at) = answer.iter().position(|a| *a == Submitted::Conflict) {
        return Err(conflict(&ids[at].to_string(), key.is_some()).at(at));
    }
    let status = if answer.contains(&Submitted::Created) { StatusCode::CREATED } else { StatusCode::OK };
    let tasks = ids
        .iter()
        .zip(&answer)
        .map(|(id, answer)| BatchTask { id: *id, created: *answer == Submitted::Created })
        .collect();
    let warnings = warned.into_values().flatten().collect();
    Ok(respond(status, &Batch { tasks, warnings }))
}

/// One task and the queue it asks for.
fn parse(
    state: &ApiState,
    text: &str,
    headers: &HeaderMap,
    key: Option<TaskId>,
) -> Result<(TaskMessage, Option<String>), Problem> {
    let limits = &state.parts.message_limits;
    if text.len() > limits.body_bytes {
        let detail =
            format!("the task has {} bytes and limits.max.message_kib allows {} bytes", text.len(), limits.body_bytes);
        let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail);
        return Err(problem.with("limit_bytes", limits.body_bytes));
    }
    let request: Request<'_> = object("the task", text)?;
    let missing = |field: &str| Problem::bad("bad_message", format!("the task: missing field `{field}`"));
    let plugin = request.plugin.ok_or_else(|| missing("plugin"))?;
    let input = request.input.ok_or_else(|| missing("input"))?;
    let id = match request.id {
        None => key,
        Some(_) if key.is_some() => {
            let detail = "the task has an id and the request an Idempotency-Key; give one of them";
            return Err(Problem::bad("bad_idempotency_key", detail));
        }
        Some(text) => {
            let remedy = "give a UUID, or any text in the header Idempotency-Key";
            let detail = || format!("id is {text:?}, which is not a UUID; {remedy}");
            Some(identity::uuid(&text).ok_or_else(|| Problem::bad("bad_id", detail()))?)
        }
    };
    let options: Options = match request.options.map(RawValue::get) {
        None | Some("null") => Options::default(),
        Some(text) => object("options", text)?,
    };
    let mut message = TaskMessage::assemble(id, &plugin, input.get(), options, limits)?;
    message.traceparent =
        headers.get("traceparent").and_then(|v| v.to_str().ok()).filter(|t| is_traceparent(t)).map(str::to_owned);
    Ok((message, request.queue))
}

/// The id that stands for an `Idempotency-Key`. A repeat is then recognised as any other message that comes twice.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<TaskId>, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    match key.as_bytes().len() {
        1..=255 => Ok(Some(identity::of_key(key.as_bytes()))),
        length => {
            let detail = format!("Idempotency-Key has {length} bytes; allowed are 1 to 255");
            Err(Problem::bad("bad_idempotency_key", detail))
        }
    }
}

/// The id of a task of a batch that has an `Idempotency-Key`: by its place, so that the same batch is the same tasks. The key
/// is the namespace: no other request's key makes the same id.
fn key_of_batch(key: &TaskId, at: usize) -> TaskId {
    TaskId::new_v5(key, at.to_string().as_bytes())
}

/// W3C Trace Context, version 00: anything else is ignored, as that recommendation says.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    matches!(parts[..], ["00", trace, parent, flags] if hex(trace, 32) && hex(parent, 16) && hex(flags, 2))
}

/// The live hosts, read at most once for a request.
#[derive(Default)]
pub(super) struct Hosts(Option<Vec<HostRow>>);

impl Hosts {
    pub(super) async fn live(&mut self, state: &ApiState) -> Result<&[HostRow], Problem> {
        if self.0.is_none() {
            let mut hosts = state.db(|db| async move { db.hosts().await }).await?;
            hosts.retain(|host| host.alive);
            self.0 = Some(hosts);
        }
        Ok(self.0.as_deref().unwrap_or_default())
    }
}

/// Accept a task if some live host can run it, now or once its plugin is mended.
pub(super) async fn admit(
    state: &ApiState,
    hosts: &mut Hosts,
    message: TaskMessage,
    queue: Option<String>,
) -> Result<NewTask, Problem> {
    let plugin = &message.plugin;
    let mut plugin_queue = None;
    let mut max_attempts = state.parts.max_attempts;
    match state.parts.catalog.resolve(plugin) {
        Resolved::Ready(runner) => {
            message.check_timeout(runner.timeout_ceiling())?;
            plugin_queue = Some(runner.queue().to_owned());
            max_attempts = runner.retry().max_attempts;
        }
        Resolved::Broken { .. } => {
            let listed = state.parts.catalog.list();
            let versions = listed.into_iter().filter(|info| *info.name == *plugin.name).flat_map(|info| info.versions);
            plugin_queue = versions.filter_map(|version| version.queue).next();
        }
        Resolved::Disabled => {
            if !served_elsewhere(hosts.live(state).await?, plugin) {
                let detail = format!("the plugin {plugin} is turned off here, and no other live host serves it");
                return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "plugin_disabled", detail));
            }
        }
        Resolved::Unknown { known } => {
            let live = hosts.live(state).await?;
            if !served_elsewhere(live, plugin) {
                return Err(unknown_plugin(plugin, known, live));
            }
        }
    }
    let queue = queue.or(plugin_queue).unwrap_or_else(|| DEFAULT_QUEUE.to_owned());
    if !state.parts.queues.contains(&queue) {
        let live = hosts.live(state).await?;
        if !live.iter().any(|host| host.record.queues.contains(&queue)) {
            let mut known: Vec<String> = state.parts.queues.clone();
            known.extend(live.iter().flat_map(|host| host.record.queues.clone()));
            known.sort();
            known.dedup();
            let detail = format!("no live host consumes the queue {queue:?}; consumed are {}", known.join(", "));
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_queue", detail).with("known", known));
        }
    }
    let max_attempts = message.max_attempts(Some(max_attempts));
    Ok(NewTask { message, queue, retry_of: None, max_attempts })
}

/// Whether one of these hosts has the plugin, be it broken: then the task waits for its repair.
fn served_elsewhere(hosts: &[HostRow], plugin: &PluginRef) -> bool {
    is_ready(hosts, plugin) || broken(hosts, plugin).is_some()
}

/// Whether one of these hosts serves the plugin.
pub(super) fn is_ready(hosts: &[HostRow], plugin: &PluginRef) -> bool {
    hosts.iter().any(|host| host.record.serves(plugin))
}

/// The first of these hosts on which the plugin failed to load, and the cause.
pub(super) fn broken<'h>(hosts: &'h [HostRow], plugin: &PluginRef) -> Option<(&'h str, &'h str)> {
    hosts.iter().find_map(|host| Some((&*host.record.name, host.record.broken(plugin)?)))
}

fn unknown_plugin(plugin: &PluginRef, mut known: Vec<String>, hosts: &[HostRow]) -> Problem {
    for other in hosts.iter().flat_map(|host| &host.record.plugins) {
        let name = other.split('@').next().unwrap_or(other);
        // Where the name is known, the catalogue lists versions; elsewhere names.
        let entry = if name == &*plugin.name { other.as_str() } else { name };
        if !known.iter().any(|k| k == entry || k.split('@').next() == Some(entry)) {
            known.push(entry.to_owned());
        }
    }
    let detail = if known.is_empty() {
        format!("no live host serves the plugin {plugin}, nor any other; `agentry plugin list` shows what is installed")
    } else {
        format!("no live host serves the plugin {plugin}; known are {}", known.join(", "))
    };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_plugin", detail).with("known", known)
}

async fn submit(state: &ApiState, tasks: Vec<NewTask>) -> Result<Vec<Submitted>, Problem> {
    let answer = state.change(move |db| async move { db.submit(&tasks).await }).await?;
    state.parts.outbox.notify_one();
    Ok(answer)
}

fn conflict(id: &str, keyed: bool) -> Problem {
    let (owner, remedy) = match keyed {
        true => ("this Idempotency-Key was used for the task", "another Idempotency-Key"),
        false => ("the id belongs to the task", "a new id"),
    };
    let detail = format!("{owner} {id}, which has another plugin, input or options; submit under {remedy}");
    Problem::new(StatusCode::CONFLICT, "conflict", detail).with("id", id)
}

#[cfg(test)]
#[path = "submit_tests.rs"]
mod tests;
