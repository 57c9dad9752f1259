//! What a run called: one record a call, bounded, and the counters that its allowances are held against.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use agentry_defence::Defence;
use serde_json::Value;

use crate::bodies::{Bodies, Body, Copied, Copies};
use crate::streams::{lock, visible};

/// The most calls of one attempt that are kept; beyond, they are counted.
pub(crate) const KEPT: usize = 1_000;
/// The longest target that is kept, in bytes.
const TARGET_BYTES: usize = 512;
/// The most refusals of an attempt that are listed in its failure.
const DENIED: usize = 16;
/// The mark of a refusal that is recorded already.
const AGAIN: &str = "denied again";

/// One call of a capability. Holds no secret of the host's.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// From 1.
    pub seq: u32,
    /// When it began.
    pub at: SystemTime,
    /// `http`, `llm`, `tools`, `keyvalue`, `memory`, `config`.
    pub capability: &'static str,
    /// What was asked of it.
    pub operation: String,
    /// Of what.
    pub target: String,
    /// How long it took.
    pub duration: Duration,
    /// Bytes that went out.
    pub request_bytes: u64,
    /// Bytes that came in.
    pub response_bytes: u64,
    /// `ok`, or a stable word for why not.
    pub result: &'static str,
    /// What else is known.
    pub detail: Value,
    /// What the guest sent; `None`: nothing, or nobody asked for it.
    pub request_body: Option<Body>,
    /// What the guest was answered; as the above.
    pub response_body: Option<Body>,
}

/// What is said of a call when it is over.
#[derive(Debug, Default)]
pub(crate) struct Over {
    pub(crate) result: &'static str,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) detail: Value,
}

/// All calls of a run. Shared with bodies that outlive the call that made them.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    kept: Vec<Call>,
    copies: Copies,
    /// Copies of bodies, by the place of their call in `kept`.
    copied: Vec<(usize, Side, Copied)>,
    all: u64,
    refused: BTreeSet<(&'static str, String)>,
    /// Which allowance was used up first, in words.
    exhausted: Option<String>,
    pub(crate) llm_tokens: u64,
}

/// Which of a call's two bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

/// A call that has begun. Dropped before it is over, it stays `unfinished`, with the time until then.
#[derive(Debug)]
pub(crate) struct Begun {
    calls: Arc<Mutex<Calls>>,
    index: Option<usize>,
    since: Instant,
}

impl Calls {
    /// None yet; of those that come these bodies are kept.
    pub(crate) fn keeping(bodies: Bodies) -> Arc<Mutex<Calls>> {
        Arc::new(Mutex::new(Calls { copies: Copies::new(bodies), ..Calls::default() }))
    }

    /// A call begins.
    pub(crate) fn begin(calls: &Arc<Mutex<Calls>>, capability: &'static str, operation: &str, target: &str) -> Begun {
        let mut guard = lock(calls);
        guard.all += 1;
        let room = guard.kept.len() < KEPT || !Defence::CallRecords.stands();
        let index = room.then_some(guard.kept.len());
        if index.is_some() {
            let call = Call {
                // Counted when the run is over: what is refused again and again is recorded once.
                seq: 0,
                at: SystemTime::now(),
                capability,
                operation: visible(operation, 64),
                target: visible(target, if Defence::CallTargets.stands() { TARGET_BYTES } else { usize::MAX }),
                duration: Duration::ZERO,
                request_bytes: 0,
                response_bytes: 0,
                result: "unfinished",
                detail: Value::Null,
                request_body: None,
                response_body: None,
            };
            guard.kept.push(call);
        }
        Begun { calls: calls.clone(), index, since: Instant::now() }
    }

    /// A call was refused for want of a grant, before it began. Whether it is the first for this target.
    pub(crate) fn denied(calls: &Arc<Mutex<Calls>>, capability: &'static str, operation: &str, target: &str) -> bool {
        Calls::begin(calls, capability, operation, target).denied()
    }

    /// An allowance is used up: the first is remembered.
    pub(crate) fn exhausted(calls: &Arc<Mutex<Calls>>, what: &str) {
        lock(calls).exhausted.get_or_insert_with(|| what.to_owned());
    }

    /// What the failure of the run lists: `capability target`.
    pub(crate) fn refusals(&self) -> Vec<String> {
        self.refused.iter().map(|(capability, target)| format!("{capability} {target}")).collect()
    }

    pub(crate) fn used_up(&self) -> Option<&str> {
        self.exhausted.as_deref()
    }

    /// The call in which the run is, for a failure that ends it there.
    pub(crate) fn unfinished(&self) -> Option<String> {
        let call = self.kept.iter().rev().find(|call| call.result == "unfinished")?;
        Some(format!("{} {} {}", call.capability, call.operation, call.target))
    }

    /// The records and the number of all calls.
    pub(crate) fn finish(&mut self) -> (Vec<Call>, u64) {
        let mut kept = std::mem::take(&mut self.kept);
        for (index, side, copied) in self.copied.drain(..) {
            if let Some(call) = kept.get_mut(index) {
                let body = match side {
                    Side::Request => &mut call.request_body,
                    Side::Response => &mut call.response_body,
                };
                *body = copied.take();
            }
        }
        kept.retain(|call| call.result != AGAIN);
        for (call, seq) in kept.iter_mut().zip(1..) {
            call.seq = seq;
        }
        (kept, self.all)
    }
}

impl Begun {
    /// Where a copy of what the guest sends goes, if it is to be kept.
    pub(crate) fn request_body(&self) -> Option<Copied> {
        self.copy(Side::Request)
    }

    /// Where a copy of what the guest is answered goes, if it is to be kept.
    pub(crate) fn response_body(&self) -> Option<Copied> {
        self.copy(Side::Response)
    }

    fn copy(&self, side: Side) -> Option<Copied> {
        let index = self.index?;
        let mut calls = lock(&self.calls);
        let copied = calls.copies.of(calls.kept.get(index)?.capability)?;
        calls.copied.push((index, side, copied.clone()));
        Some(copied)
    }

    /// It is over; the last word counts.
    pub(crate) fn over(self, over: Over) {
        self.note(over);
    }

    /// It was refused for want of a grant. A guest that tries again and again is recorded once for each target; answers
    /// whether this is the first time.
    pub(crate) fn denied(self) -> bool {
        let mut calls = lock(&self.calls);
        let call = self.index.and_then(|index| calls.kept.get(index));
        let Some(what) = call.map(|call| (call.capability, call.target.clone())) else { return false };
        let room = calls.refused.len() < DENIED || !Defence::Refusals.stands();
        let first = room && calls.refused.insert(what);
        // Nobody was asked anything.
        calls.copied.retain(|(at, _, copied)| {
            let other = Some(*at) != self.index;
            if !other {
                copied.forget();
            }
            other
        });
        drop(calls);
        self.over(Over { result: if first { "denied" } else { AGAIN }, ..Over::default() });
        first
    }

    fn note(&self, over: Over) {
        let Some(index) = self.index else { return };
        if let Some(call) = lock(&self.calls).kept.get_mut(index) {
            call.duration = self.since.elapsed();
            call.result = over.result;
            call.request_bytes = over.request_bytes;
            call.response_bytes = over.response_bytes;
            call.detail = over.detail;
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some(index) = self.index else { return };
        if let Some(call) = lock(&self.calls).kept.get_mut(index)
            && call.result == "unfinished"
        {
            call.duration = self.since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls() -> Arc<Mutex<Calls>> {
        Arc::default()
    }

    #[test]
    fn a_refusal_is_recorded_once_however_often_it_is_tried() {
        let calls = calls();
        assert!(Calls::denied(&calls, "http", "GET", "https://a.example/"));
        assert!(!Calls::denied(&calls, "http", "GET", "https://a.example/"));
        assert!(Calls::denied(&calls, "llm", "chat", "gpt"));
        Calls::begin(&calls, "http", "GET", "b").over(Over { result: "ok", ..Over::default() });
        let refusals = lock(&calls).refusals();
        assert_eq!(refusals, ["http https://a.example/", "llm gpt"]);
        let (kept, all) = lock(&calls).finish();
        let told: Vec<_> = kept.iter().map(|call| (call.seq, call.target.as_str(), call.result)).collect();
        assert_eq!(told, [(1, "https://a.example/", "denied"), (2, "gpt", "denied"), (3, "b", "ok")]);
        assert_eq!(all, 4);
    }

    #[test]
    fn a_call_that_never_came_back_stays_unfinished_and_is_named() {
        let calls = calls();
        drop(Calls::begin(&calls, "llm", "chat", "default"));
        assert_eq!(lock(&calls).unfinished().as_deref(), Some("llm chat default"));
        assert_eq!(lock(&calls).finish().0[0].result, "unfinished");
    }

    fn bodies_of(calls: &Arc<Mutex<Calls>>) -> Vec<[Option<String>; 2]> {
        let text = |body: &Option<Body>| body.as_ref().map(|body| String::from_utf8(body.bytes.clone()).unwrap());
        let kept = lock(calls).finish().0;
        kept.iter().map(|call| [text(&call.request_body), text(&call.response_body)]).collect()
    }

    #[test]
    fn a_call_keeps_what_passed_until_it_was_dropped() {
        let calls = Calls::keeping(Bodies { http: true, body_bytes: 9, run_bytes: 9, ..Bodies::default() });
        let begun = Calls::begin(&calls, "http", "POST", "a");
        let (request, response) = (begun.request_body().unwrap(), begun.response_body().unwrap());
        request.pass(b"sent");
        drop(begun);
        response.pass(b"read");
        assert!(Calls::begin(&calls, "keyvalue", "set", "b").request_body().is_none());
        assert_eq!(bodies_of(&calls), [[Some("sent".into()), Some("read".into())], [None, None]]);
    }

    #[test]
    fn a_refused_call_keeps_no_body_and_takes_no_room_from_others() {
        let calls = Calls::keeping(Bodies { tools: true, body_bytes: 4, run_bytes: 4, ..Bodies::default() });
        for _ in 0..2 {
            let begun = Calls::begin(&calls, "tools", "call", "a");
            begun.request_body().unwrap().pass(b"lots");
            begun.denied();
        }
        let begun = Calls::begin(&calls, "tools", "call", "b");
        begun.request_body().unwrap().pass(b"some");
        begun.over(Over::default());
        assert_eq!(bodies_of(&calls), [[None, None], [Some("some".into()), None]]);
    }

    #[test]
    fn calls_beyond_what_is_kept_have_no_bodies_either() {
        let calls = Calls::keeping(Bodies { llm: true, body_bytes: 4, run_bytes: 4, ..Bodies::default() });
        for _ in 0..KEPT {
            Calls::begin(&calls, "llm", "chat", "a").over(Over::default());
        }
        assert!(Calls::begin(&calls, "llm", "chat", "a").request_body().is_none());
    }

    #[test]
    fn calls_beyond_what_is_kept_are_counted() {
        let calls = calls();
        for _ in 0..KEPT + 5 {
            Calls::begin(&calls, "keyvalue", "get", "b").over(Over { result: "ok", ..Over::default() });
        }
        let (kept, all) = lock(&calls).finish();
        assert_eq!((kept.len(), all), (KEPT, KEPT as u64 + 5));
    }

    #[test]
    fn what_a_guest_names_is_bounded_and_on_one_line() {
        let calls = calls();
        Calls::begin(&calls, "tools", "call\n", &"x\u{1b}".repeat(9_999)).over(Over::default());
        let (kept, _) = lock(&calls).finish();
        assert!(kept[0].target.len() <= TARGET_BYTES + 8 && !kept[0].target.contains('\u{1b}'));
        assert!(!kept[0].operation.contains('\n'));
    }
}
