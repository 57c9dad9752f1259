//! A task's first row and its first event.

use super::super::fault::Fault;
use super::super::storable;
use super::super::{DeadLetter, NewTask};
use super::{allowed, max_attempts};
use crate::task::{
    Arrival, Decision, Event, Failure, FailureKind, Fence, HostId, Runnable, State, TaskId, TaskMessage, WaitCode,
    decide, next, retry,
};
use chrono::{DateTime, Utc};
use serde_json::json;
use std::borrow::Cow;

/// The columns of a new row.
#[derive(Debug)]
pub(in crate::db) struct Birth<'a> {
    pub id: TaskId,
    pub plugin: Cow<'a, str>,
    pub plugin_name: Cow<'a, str>,
    pub queue: Cow<'a, str>,
    pub state: State,
    pub version: Option<&'a str>,
    pub digest: Option<&'a str>,
    pub input: Option<&'a str>,
    pub fingerprint: Option<&'a [u8]>,
    pub failure: Option<String>,
    pub max_attempts: u32,
    pub attempt: u32,
    pub fence: Fence,
    pub owner: Option<HostId>,
    /// Microseconds from its claim to the attempt's hard deadline.
    pub allowed: Option<i64>,
    pub priority: u8,
    pub labels: String,
    pub options: String,
    pub reply_to: Option<&'a str>,
    pub correlation_id: Option<&'a str>,
    pub traceparent: Option<&'a str>,
    pub run_at: Option<DateTime<Utc>>,
    pub deadline: Option<DateTime<Utc>>,
    pub retry_of: Option<TaskId>,
    pub waiting_code: Option<WaitCode>,
    pub waiting_detail: Option<String>,
    /// What its first event says.
    pub event: Event,
    /// The host that did it, if one did.
    pub host: Option<HostId>,
    /// More about it.
    pub detail: Option<String>,
    /// It goes to its queue from here.
    pub outbox: bool,
    /// When it happened; `None`: now.
    pub at: Option<DateTime<Utc>>,
}

impl<'a> Birth<'a> {
    /// What an arrival without a row becomes. `now` matters only where the message names a time.
    pub fn of_arrival(arrival: &'a Arrival, host: HostId, now: DateTime<Utc>) -> Result<(Decision, Birth<'a>), Fault> {
        let decision = decide(None, arrival, host, now);
        let mut birth = Birth::waiting(&arrival.message, &arrival.queue, Event::Pending)?;
        birth.host = Some(host);
        birth.max_attempts = max_attempts(arrival);
        match &decision {
            Decision::Run { event, attempt, .. } => {
                birth.event = *event;
                birth.attempt = *attempt;
                birth.fence = 1;
                birth.owner = Some(host);
                birth.allowed = allowed(arrival);
                if let Runnable::Here { version, digest, .. } = &arrival.runnable {
                    (birth.version, birth.digest) = (Some(&**version), Some(&**digest));
                }
            }
            Decision::Park { event, code, detail } => {
                birth.event = *event;
                birth.waiting_code = Some(*code);
                birth.waiting_detail = (!detail.is_null()).then(|| storable::json(detail));
                birth.detail = Some(storable::json(&json!({"code": code.as_str(), "detail": detail})));
            }
            Decision::Schedule => {
                birth.event = Event::Scheduled;
                birth.waiting_code = Some(WaitCode::Scheduled);
            }
            Decision::End { event, failure } => {
                birth.event = *event;
                birth.failure = failure.as_ref().map(stored);
                birth.detail = birth.failure.clone();
            }
            Decision::Mine | Decision::Keep(_) | Decision::Conflict => {
                return Err(Fault::Defect(format!("{decision:?} was decided for a task without a row")));
            }
        }
        birth.state = next(None, birth.event)?;
        Ok((decision, birth))
    }

    /// What a submitted task becomes: `scheduled` if its time is ahead, otherwise `pending` with an outbox row.
    pub fn of_submission(task: &'a NewTask, now: DateTime<Utc>) -> Result<Birth<'a>, Fault> {
        let ahead = task.message.options.run_at.is_some_and(|at| at > now);
        let event = if ahead { Event::Scheduled } else { Event::Pending };
        let mut birth = Birth::waiting(&task.message, &task.queue, event)?;
        birth.waiting_code = ahead.then_some(WaitCode::Scheduled);
        birth.outbox = !ahead;
        birth.max_attempts = task.max_attempts;
        birth.retry_of = task.retry_of;
        Ok(birth)
    }

    /// The `failed(rejected)` task of an unusable message.
    pub fn of_dead_letter(letter: &'a DeadLetter, id: TaskId) -> Result<Birth<'a>, Fault> {
        let plugin = storable::cut(letter.plugin.as_deref().unwrap_or_default(), 200);
        let plugin_name = match &plugin {
            Cow::Borrowed(text) => Cow::Borrowed(name_of(text)),
            Cow::Owned(text) => Cow::Owned(name_of(text).to_owned()),
        };
        let failure = Failure::fatal(FailureKind::Rejected, storable::text(&letter.detail))
            .with_detail(json!({"reason": storable::text(&letter.reason)}));
        let failure = stored(&failure);
        Ok(Birth {
            id,
            plugin,
            plugin_name,
            queue: storable::text(&letter.queue),
            state: next(None, Event::Failed)?,
            version: None,
            digest: None,
            input: None,
            fingerprint: None,
            failure: Some(failure.clone()),
            max_attempts: retry::DEFAULT_MAX_ATTEMPTS,
            attempt: 0,
            fence: 0,
            owner: None,
            allowed: None,
            priority: 0,
            labels: "{}".into(),
            options: "{}".into(),
            reply_to: property(letter, "reply_to"),
            correlation_id: property(letter, "correlation_id"),
            traceparent: None,
            run_at: None,
            deadline: None,
            retry_of: None,
            waiting_code: None,
            waiting_detail: None,
            event: Event::Failed,
            host: None,
            detail: Some(failure),
            outbox: false,
            at: None,
        })
    }

    /// A row with nothing but its message. Refuses what neither database can hold, so that both refuse alike.
    fn waiting(message: &'a TaskMessage, queue: &'a str, event: Event) -> Result<Birth<'a>, Fault> {
        let options = &message.options;
        let texts = [
            ("queue", Some(queue)),
            ("input", Some(&*message.input)),
            ("reply_to", message.reply_to.as_deref()),
            ("correlation_id", message.correlation_id.as_deref()),
            ("traceparent", message.traceparent.as_deref()),
        ];
        for (name, text) in texts {
            if text.is_some_and(|text| text.contains('\0')) {
                return Err(Fault::Data(format!("{name} holds a NUL character, which the database cannot store")));
            }
        }
        for (name, at) in [("options.run_at", options.run_at), ("options.deadline", options.deadline)] {
            if let Some(at) = at.filter(|at| !storable::is_storable(*at)) {
                return Err(Fault::Data(format!("{name} is {at}; the database stores the years 1 to 9999")));
            }
        }
        let json = |what: serde_json::Result<String>| what.map_err(|e| Fault::Defect(format!("options: {e}")));
        Ok(Birth {
            id: message.id,
            plugin: Cow::Owned(message.plugin.to_string()),
            plugin_name: Cow::Borrowed(&message.plugin.name),
            queue: Cow::Borrowed(queue),
            state: next(None, event)?,
            version: None,
            digest: None,
            input: Some(&message.input),
            fingerprint: Some(&message.fingerprint),
            failure: None,
            max_attempts: message.max_attempts(None),
            attempt: 0,
            fence: 0,
            owner: None,
            allowed: None,
            priority: options.priority.unwrap_or(0),
            labels: json(serde_json::to_string(&options.labels))?,
            options: json(serde_json::to_string(options))?,
            reply_to: message.reply_to.as_deref(),
            correlation_id: message.correlation_id.as_deref(),
            traceparent: message.traceparent.as_deref(),
            run_at: options.run_at,
            deadline: options.deadline,
            retry_of: None,
            waiting_code: None,
            waiting_detail: None,
            event,
            host: None,
            detail: None,
            outbox: false,
            at: None,
        })
    }

    /// Whether an arrival's fate depends on the clock.
    pub fn needs_clock(message: &TaskMessage) -> bool {
        message.options.run_at.is_some() || message.options.deadline.is_some()
    }
}

/// A property of an unusable message that the database can hold.
fn property<'a>(letter: &'a DeadLetter, name: &str) -> Option<&'a str> {
    letter.properties.get(name)?.as_str().filter(|text| !text.is_empty() && !text.contains('\0'))
}

fn name_of(plugin: &str) -> &str {
    plugin.split_once('@').map_or(plugin, |(name, _)| name)
}

/// A failure as JSON text.
pub(super) fn stored(failure: &Failure) -> String {
    // A failure is plain data; should it not serialise, its words are still worth keeping.
    let value = serde_json::to_value(failure).unwrap_or_else(
        |_| json!({"kind": failure.kind.as_str(), "message": failure.message, "retryable": failure.retryable}),
    );
    storable::json(&value)
}
