//! More than was allowed, of what is granted.

use e2e::outside::reach::{call, chat, get, must};
use serde_json::{Value, json};

use super::{Attack, World};

/// As the sandbox has it, with room for what says that it was cut.
const MOST_RECORDED: i64 = 1_000;
const MOST_TARGET: usize = 512 + 16;
const MOST_LISTED: usize = 16;

pub(super) fn all() -> Vec<Attack> {
    let poor = |id, shows, steps, check| Attack::new(id, "poor", shows, steps, check);
    let all_attempts = Attack {
        attempts: 4,
        ..poor(
            "more-over-all-attempts",
            &["task_budget"],
            // Each attempt asks once, so that none by itself is over the limit.
            |_| vec![must(chat("over-all-attempts")), must(json!({"retry_until_attempt": 4}))],
            |judged| {
                let kind = &judged.told.task["failure"]["kind"];
                judged
                    .must(kind == "budget_exceeded", || format!("{kind} instead of budget_exceeded"))
                    .asked("over-all-attempts", 2)
            },
        )
    };
    vec![
        poor(
            "more-requests",
            &["http_requests"],
            |world| (0..5).map(|_| get(world.web.url("/more-requests"))).collect(),
            |judged| {
                judged.completed().recorded(4, "budget_exceeded", "http_requests").heard(
                    |world| &world.web,
                    "/more-requests",
                    4,
                )
            },
        ),
        poor(
            "more-requests-at-once",
            &["http_in_flight"],
            // A response that nobody reads keeps its place, however soon it came.
            |world| {
                let authority = format!("127.0.0.1:{}", world.web.port());
                vec![json!({"hold": {"authority": authority, "path": "/more-at-once", "count": 4, "ms": 1_500}})]
            },
            |judged| judged.completed().gave(0, &json!(4)).heard(|world| &world.web, "/more-at-once", 2),
        ),
        poor(
            "more-calls-of-tools",
            &["tool_calls"],
            |_| vec![call("echo", json!({"text": "a"})); 3],
            |judged| judged.completed().recorded(1, "ok", "").failed(2, "budget_exceeded"),
        ),
        poor(
            "more-calls-of-stores",
            &["store_calls"],
            |_| vec![json!({"get": {"key": "k"}}), json!({"search": {"query": "fox"}}), json!({"get": {"key": "k"}})],
            |judged| judged.completed().recorded(1, "ok", "").refused(2).recorded(2, "budget_exceeded", "store_calls"),
        ),
        all_attempts,
        Attack::new(
            "more-in-a-day",
            "daily",
            &["day_budget"],
            |world| vec![get(world.web.url("/more-in-a-day")); 2],
            |judged| {
                let judged =
                    judged.completed().recorded(0, "ok", "").recorded(1, "budget_exceeded", "http_requests_per_day");
                judged.heard(|world| &world.web, "/more-in-a-day", 1)
            },
        ),
        poor(
            "calls-to-fill-the-records",
            &["call_records"],
            // All but two are refused, and each is a record.
            |_| vec![json!({"repeat": {"times": 1_100, "step": {"get": {"key": "k"}}}})],
            |judged| {
                let recorded = judged.told.recorded;
                let judged = judged.completed().gave(0, &json!(2));
                judged.must(recorded <= MOST_RECORDED, || format!("{recorded} calls are recorded"))
            },
        ),
        Attack::new(
            "a-call-to-fill-its-record",
            "narrow",
            &["call_targets"],
            |world: &World| vec![get(world.closed.url(&format!("/{}", "a".repeat(20_000))))],
            |judged| {
                let target = judged.told.calls.first().and_then(|call| call["target"].as_str()).map_or(0, str::len);
                judged.completed().must(target <= MOST_TARGET, || format!("{target} bytes of a target are recorded"))
            },
        ),
        Attack::new(
            "refusals-to-fill-the-failure",
            "narrow",
            &["refusals"],
            |_| {
                let bucket = |n: usize| json!({"get": {"bucket": format!("b-{n}"), "key": "k"}});
                (0..40).map(bucket).chain([must(bucket(40))]).collect()
            },
            |judged| {
                let listed = judged.told.task["failure"]["detail"]["denied"].as_array().map_or(0, Vec::len);
                judged.must((1..=MOST_LISTED).contains(&listed), || format!("{listed} refusals are listed"))
            },
        ),
    ]
}

/// A run by hand, the last step of which is more than it may.
pub struct ByHand {
    /// The limit, and the defence.
    pub limit: &'static str,
    /// What it is set to.
    pub most: u64,
    /// What it does.
    pub steps: Vec<Value>,
}

/// What `agentry run` counts in the run alone: in a daemon the task's budget stands behind these two.
pub fn by_hand() -> [ByHand; 2] {
    [
        ByHand { limit: "llm_requests", most: 1, steps: vec![chat("first"), chat("second")] },
        ByHand { limit: "llm_tokens", most: 4_000, steps: vec![chat("first")] },
    ]
}
