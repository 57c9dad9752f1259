//! Brakes: queues that are paused, plugins that are disabled, hosts that are drained; and the record of what operators changed.

use super::body::{object, read, text};
use super::params::{Named, Params};
use super::problem::Problem;
use super::shapes::{AuditPage, BrakeChanged, BrakeList, BrakeRequest, Heeding};
use super::share::Share;
use super::tasks::{LONGEST_PAGE, PAGE};
use super::{ApiState, respond};
use crate::db::{AuditEntry, AuditFilter, Brake, BrakeChange, BrakeKind, Brakes, HostRow, TaskRow};
use crate::explain;
use crate::task::PluginRef;
use axum::body::Body;
use axum::extract::{Extension, FromRequest, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Characters of a reason.
const REASON: usize = 500;

/// The name of the caller, as the audit table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Actor(pub Arc<str>);

/// The parts of a request that changes a brake.
type With = (Extension<Actor>, Extension<Share>, HeaderMap, Params, Body);

/// Pause a queue: none of its tasks begins, on any host.
#[utoipa::path(post, path = "/v1/queues/{name}/pause", tag = "brakes", operation_id = "pause_queue",
    request_body(content = Option<BrakeRequest>, content_type = "application/json"),
    responses((status = 200, description = "The brake", body = BrakeChanged)))]
pub(super) async fn pause(State(s): State<Arc<ApiState>>, Named(name): Named, with: Request) -> Answer {
    with.change(&s, BrakeKind::Queue, name, true).await
}

/// Resume a queue.
#[utoipa::path(post, path = "/v1/queues/{name}/resume", tag = "brakes", operation_id = "resume_queue",
    request_body(content = Option<BrakeRequest>, content_type = "application/json"),
    responses((status = 200, description = "The brake", body = BrakeChanged)))]
pub(super) async fn resume(State(s): State<Arc<ApiState>>, Named(name): Named, with: Request) -> Answer {
    with.change(&s, BrakeKind::Queue, name, false).await
}

/// Disable a plugin, `NAME`, or one version of it, `NAME@VERSION`: none of its tasks begins, on any host.
#[utoipa::path(post, path = "/v1/plugins/{name}/disable", tag = "brakes", operation_id = "disable_plugin",
    request_body(content = Option<BrakeRequest>, content_type = "application/json"),
    responses((status = 200, description = "The brake", body = BrakeChanged)))]
pub(super) async fn disable(State(s): State<Arc<ApiState>>, Named(name): Named, with: Request) -> Answer {
    with.change(&s, BrakeKind::Plugin, name, true).await
}

/// Enable a plugin again.
#[utoipa::path(post, path = "/v1/plugins/{name}/enable", tag = "brakes", operation_id = "enable_plugin",
    request_body(content = Option<BrakeRequest>, content_type = "application/json"),
    responses((status = 200, description = "The brake", body = BrakeChanged)))]
pub(super) async fn enable(State(s): State<Arc<ApiState>>, Named(name): Named, with: Request) -> Answer {
    with.change(&s, BrakeKind::Plugin, name, false).await
}

/// Drain a host: no task begins there.
#[utoipa::path(post, path = "/v1/hosts/{id}/drain", tag = "brakes", operation_id = "drain_host",
    request_body(content = Option<BrakeRequest>, content_type = "application/json"),
    responses((status = 200, description = "The brake", body = BrakeChanged)))]
pub(super) async fn drain(State(s): State<Arc<ApiState>>, Named(id): Named, with: Request) -> Answer {
    with.change(&s, BrakeKind::Host, id, true).await
}

/// End the draining of a host.
#[utoipa::path(post, path = "/v1/hosts/{id}/undrain", tag = "brakes", operation_id = "undrain_host",
    request_body(content = Option<BrakeRequest>, content_type = "application/json"),
    responses((status = 200, description = "The brake", body = BrakeChanged)))]
pub(super) async fn undrain(State(s): State<Arc<ApiState>>, Named(id): Named, with: Request) -> Answer {
    with.change(&s, BrakeKind::Host, id, false).await
}

type Answer = Result<Response, Problem>;

/// A request that sets or releases a brake.
pub(super) struct Request(With);

impl FromRequest<Arc<ApiState>> for Request {
    type Rejection = Response;

    async fn from_request(request: axum::extract::Request, state: &Arc<ApiState>) -> Result<Request, Response> {
        With::from_request(request, state).await.map(Request)
    }
}

impl Request {
    async fn change(self, state: &ApiState, kind: BrakeKind, target: String, set: bool) -> Answer {
        let Request((Extension(actor), Extension(share), headers, params, body)) = self;
        params.only(&[])?;
        let reason = reason(state, &share, &headers, body).await?;
        let (brakes, hosts) = look(state).await?;
        let target = known(state, kind, target, &brakes, &hosts)?;
        let by = actor.0.to_string();
        let change = BrakeChange { kind, target: target.clone(), set, by, reason };
        let answer = state.change(move |db| async move { db.steering().set_brake(&change).await }).await?;
        state.parts.brakes.apply(answer.brakes.clone());
        if answer.changed {
            tracing::info!(kind = kind.as_str(), name = target, set, by = &*actor.0, "a brake was changed");
        }
        let heeding = heeding(&answer.brakes, &hosts);
        let brake = answer.brakes.held.into_iter().find(|brake| brake.is_of(kind, &target));
        Ok(respond(StatusCode::OK, &BrakeChanged { changed: answer.changed, brake, heeding }))
    }
}

/// The brakes that hold.
#[utoipa::path(get, path = "/v1/brakes", tag = "brakes", operation_id = "list_brakes",
    responses((status = 200, description = "The brakes", body = BrakeList)))]
pub(super) async fn brakes(State(state): State<Arc<ApiState>>, params: Params) -> Answer {
    params.only(&[])?;
    let (brakes, hosts) = look(&state).await?;
    let heeding = heeding(&brakes, &hosts);
    Ok(respond(StatusCode::OK, &BrakeList { brakes: brakes.held, heeding }))
}

/// List what operators changed, newest first.
#[utoipa::path(get, path = "/v1/audit", tag = "brakes", operation_id = "list_audit",
    params(
        ("action" = Option<String>, Query, example = "queue.pause", description = "Changes of this kind."),
        ("actor" = Option<String>, Query, description = "Changes by this token."),
        ("since" = Option<String>, Query, example = "7d", description = "Changes since then. A time, or a duration before now."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "Page size; default 50."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of another page."),
    ),
    responses((status = 200, description = "A page", body = AuditPage)))]
pub(super) async fn audit(State(state): State<Arc<ApiState>>, params: Params) -> Answer {
    let params = params.only(&["action", "actor", "since", "limit", "cursor"])?;
    let filter = AuditFilter {
        action: params.text("action").map(str::to_owned),
        actor: params.text("actor").map(str::to_owned),
        since: params.since("since")?,
        before: params.number("cursor", 1..=i64::MAX)?,
        limit: params.number("limit", 1..=LONGEST_PAGE)?.unwrap_or(PAGE),
    };
    let page = state.db(move |db| async move { db.steering().audited(&filter).await }).await?;
    let next_cursor = page.next(|row| row.id.to_string());
    Ok(respond(StatusCode::OK, &AuditPage { audit: page.rows, next_cursor }))
}

impl ApiState {
    /// A task's row as it is shown: one that a brake holds says so.
    pub(super) fn shown(&self, row: TaskRow) -> TaskRow {
        match self.parts.brakes.any() {
            true => explain::with_brake(row, &self.parts.brakes.now()),
            false => row,
        }
    }

    /// Record a change before it is made.
    pub(super) async fn audit(
        &self,
        Actor(actor): &Actor,
        action: &str,
        target: impl ToString,
        count: Option<usize>,
    ) -> Result<(), Problem> {
        let entry = AuditEntry {
            actor: actor.to_string(),
            action: action.to_owned(),
            target: target.to_string(),
            count: count.and_then(|count| count.try_into().ok()),
            reason: None,
        };
        self.change(move |db| async move { db.steering().audit(&entry).await }).await
    }
}

async fn look(state: &ApiState) -> Result<(Brakes, Vec<HostRow>), Problem> {
    let brakes = state.db(|db| async move { db.steering().brakes().await }).await?;
    Ok((brakes, state.db(|db| async move { db.hosts().await }).await?))
}

/// The live hosts that do not heed the last change yet, and those that never do.
fn heeding(brakes: &Brakes, hosts: &[HostRow]) -> Heeding {
    let named = |of: &dyn Fn(Option<i64>) -> bool| -> Vec<String> {
        let alive = hosts.iter().filter(|host| host.alive && of(host.record.brakes));
        alive.map(|host| host.record.name.clone()).collect()
    };
    Heeding {
        behind: named(&|heeds| heeds.is_some_and(|change| change < brakes.change)),
        unaware: named(&|heeds| heeds.is_none()),
    }
}

async fn reason(state: &ApiState, share: &Share, headers: &HeaderMap, body: Body) -> Result<Option<String>, Problem> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.map_or(!headers.contains_key(header::TRANSFER_ENCODING), |length| length == "0") {
        return Ok(None);
    }
    let body = read(state, share, headers, body).await?;
    let BrakeRequest { reason } = object("the request", text(&body)?)?;
    let reason = reason.map(|reason| reason.trim().to_owned()).filter(|reason| !reason.is_empty());
    if let Some(length) = reason.as_ref().map(|reason| reason.chars().count()).filter(|length| *length > REASON) {
        return Err(Problem::bad("bad_request", format!("reason has {length} characters; allowed are {REASON}")));
    }
    Ok(reason)
}

/// The target as it is stored. A name that nothing has is an error, and not a brake that waits for it: it is misspelt.
fn known(
    state: &ApiState,
    kind: BrakeKind,
    target: String,
    brakes: &Brakes,
    hosts: &[HostRow],
) -> Result<String, Problem> {
    let unprocessable = |code, detail: String, known: BTreeSet<String>| {
        Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail).with("known", Vec::from_iter(known)))
    };
    let braked = brakes.held.iter().any(|brake: &Brake| brake.is_of(kind, &target));
    match kind {
        _ if braked => Ok(target),
        BrakeKind::Queue => {
            let of_hosts = hosts.iter().flat_map(|host| host.record.queues.iter());
            let known: BTreeSet<String> = of_hosts.chain(&state.parts.queues).cloned().collect();
            match known.contains(&target) {
                true => Ok(target),
                false => unprocessable("unknown_queue", format!("no host consumes the queue {target:?}"), known),
            }
        }
        BrakeKind::Plugin => {
            let broken = |text: &String| text.split(':').next().unwrap_or_default().to_owned();
            let mut known: BTreeSet<String> =
                hosts.iter().flat_map(|host| host.record.plugins.iter().cloned()).collect();
            known.extend(hosts.iter().flat_map(|host| host.record.broken_plugins.iter().map(broken)));
            known.extend(state.parts.catalog.list().into_iter().map(|plugin| plugin.name));
            let names: BTreeSet<&str> = known.iter().filter_map(|text| text.split('@').next()).collect();
            let (name, version) = target.split_once('@').unwrap_or((&target, ""));
            let fits = PluginRef::is_name(name) && names.contains(name);
            match fits && (!target.contains('@') || !version.is_empty() && known.contains(&target)) {
                true => Ok(target),
                false => unprocessable("unknown_plugin", format!("no host has the plugin {target:?}"), known),
            }
        }
        BrakeKind::Host => {
            let Ok(id) = target.parse::<uuid::Uuid>() else {
                let detail = format!("{target:?} is not the id of a host, which is a UUID; see `agentry host list`");
                return Err(Problem::bad("bad_id", detail));
            };
            match hosts.iter().any(|host| host.alive && host.record.id == id) {
                true => Ok(id.to_string()),
                false => Err(Problem::not_found(format!("there is no live host {id}; see `agentry host list`"))),
            }
        }
    }
}
