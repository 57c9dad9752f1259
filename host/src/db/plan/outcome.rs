//! The end of an attempt.

use super::super::SettleAnswer;
use super::super::fault::Fault;
use super::super::storable;
use super::birth::stored;
use super::bounded;
use crate::task::{
    Event, Failure, FailureKind, Fence, Settlement, State, TaskId, WaitCode, settle::Body, settle::Call, settle::Ended,
    settle::LogLine,
};
use chrono::TimeDelta;
use serde_json::json;

/// The columns that a settlement sets.
#[derive(Debug)]
pub(in crate::db) struct Outcome<'a> {
    pub id: TaskId,
    pub fence: Fence,
    pub state: State,
    pub event: Event,
    /// The attempt counts as used up.
    pub burns: bool,
    pub snoozed: bool,
    /// A child of the isolation lane died of it.
    pub child_lost: bool,
    pub output: Option<&'a str>,
    pub failure: Option<String>,
    /// Until it runs again.
    pub after: Option<TimeDelta>,
    pub waiting_code: Option<WaitCode>,
    pub waiting_detail: Option<String>,
    pub version: &'a str,
    pub digest: &'a str,
    pub usage: String,
    pub detail: Option<String>,
    pub outbox: bool,
    pub logs: &'a [LogLine],
    pub calls: &'a [Call],
}

impl<'a> Outcome<'a> {
    /// What a settlement writes.
    pub fn of(settlement: &'a Settlement) -> Result<Outcome<'a>, Fault> {
        let ended = &settlement.ended;
        let failure = ended.failure().map(stored);
        let after = ended.after().map(bounded);
        let (output, waiting_code, waiting_detail, detail) = match ended {
            Ended::Completed { output } => {
                if output.contains('\0') {
                    return Err(Fault::Data(
                        "the output holds a NUL character, which the database cannot store".into(),
                    ));
                }
                (Some(&**output), None, None, None)
            }
            Ended::Failed { .. } => (None, None, None, failure.clone()),
            Ended::Retrying { failure, after } => {
                let detail = json!({"failure": failure, "after_ms": millis(*after)});
                (None, Some(WaitCode::Backoff), None, Some(storable::json(&detail)))
            }
            Ended::Snoozed { message, after } => {
                let waiting = json!({"message": message});
                let detail = json!({"message": message, "after_ms": millis(*after)});
                (None, Some(WaitCode::Snoozed), Some(storable::json(&waiting)), Some(storable::json(&detail)))
            }
            Ended::Interrupted { reason } | Ended::ChildLost { reason } => {
                (None, None, None, Some(storable::json(&json!({"reason": reason}))))
            }
            Ended::Cancelled => (None, None, None, None),
        };
        Ok(Outcome {
            id: settlement.id,
            fence: settlement.fence,
            state: ended.state(),
            event: ended.event(),
            burns: ended.burns_attempt(),
            snoozed: matches!(ended, Ended::Snoozed { .. }),
            child_lost: matches!(ended, Ended::ChildLost { .. })
                || ended.failure().is_some_and(|failure| failure.kind == FailureKind::HostLost),
            output,
            failure,
            after,
            waiting_code,
            waiting_detail,
            version: &settlement.version,
            digest: &settlement.digest,
            usage: serde_json::to_string(&settlement.usage).map_err(|e| Fault::Defect(format!("usage: {e}")))?,
            detail,
            outbox: ended.state() == State::Pending,
            logs: &settlement.logs,
            calls: &settlement.calls,
        })
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// A number of a call as both databases hold it.
pub(in crate::db) fn counted(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What else is known of a call, as JSON text; `None`: nothing.
pub(in crate::db) fn call_detail(call: &Call) -> Option<String> {
    (!call.detail.is_null()).then(|| storable::json(&call.detail))
}

/// Whether a call has a row among the bodies.
pub(in crate::db) fn has_body(call: &Call) -> bool {
    call.request_body.is_some() || call.response_body.is_some()
}

/// How long a body was.
pub(in crate::db) fn body_bytes(body: &Option<Body>) -> Option<i64> {
    body.as_ref().map(|body| counted(body.size))
}

/// What was kept of a body.
pub(in crate::db) fn body(body: &Option<Body>) -> Option<&[u8]> {
    body.as_ref().map(|body| body.bytes.as_slice())
}

/// What is recorded in place of a settlement that the database refuses: the task ends, says why, and its logs and calls are
/// left out, since they may be what was refused.
pub(in crate::db) fn unstorable(settlement: &Settlement, reason: &str) -> Settlement {
    let failure = Failure::fatal(FailureKind::Internal, format!("its outcome could not be stored: {reason}"))
        .with_detail(json!({"event": settlement.ended.event().as_str()}));
    Settlement { ended: Ended::Failed { failure }, logs: Vec::new(), calls: Vec::new(), ..settlement.clone() }
}

/// The answer to a settlement that the database refuses, when [`unstorable`] was settled instead.
pub(in crate::db) fn refused(instead: Result<Vec<SettleAnswer>, Fault>) -> Result<SettleAnswer, Fault> {
    match instead {
        Ok(answers) if answers.first() == Some(&SettleAnswer::Fenced) => Ok(SettleAnswer::Fenced),
        Ok(_) => Ok(SettleAnswer::Refused),
        Err(fault) if fault.is_about_data() => Ok(SettleAnswer::Unwritten(fault.reason())),
        Err(fault) => Err(fault),
    }
}
