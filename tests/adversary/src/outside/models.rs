//! Questions to language models, and answers, that are more than was meant.

use std::time::Duration;

use e2e::outside::reach::chat;
use serde_json::{Value, json};

use super::Attack;
use super::world::KEY;

/// How much of an error's body may be read: 64 KiB, and what comes in one piece with the last of it.
const MOST_OF_AN_ERROR: u64 = 4 << 20;

fn of(model: &str, prompt: &str) -> Value {
    json!({"chat": {"model": model, "prompt": prompt}})
}

fn fitting(schema: &Value) -> Value {
    json!({"chat": {"model": "default", "prompt": "json", "schema": schema}})
}

/// Small as it is written, and more than a quarter of a million parts with all references written out.
fn exponential() -> Value {
    const LEVELS: usize = 18;
    let level = |n: usize| {
        let next = json!({"$ref": format!("#/$defs/l{}", n + 1)});
        (format!("l{n}"), if n == LEVELS { json!({"type": "string"}) } else { json!({"allOf": [next, next]}) })
    };
    let levels: serde_json::Map<String, Value> = (0..=LEVELS).map(level).collect();
    json!({"$ref": "#/$defs/l0", "$defs": levels})
}

/// The same growth within a part of another draft, whose references lead into it; beside it, the names lead to nothing.
fn two_drafts() -> Value {
    const LEVELS: usize = 24;
    let level = |n: usize| {
        let next = json!({"$ref": format!("#/definitions/l{}", n + 1)});
        (format!("l{n}"), if n == LEVELS { json!({"type": "string"}) } else { json!({"allOf": [next, next]}) })
    };
    let seen: serde_json::Map<String, Value> = (0..=LEVELS).map(|n| (format!("l{n}"), json!(true))).collect();
    let levels: serde_json::Map<String, Value> = (0..=LEVELS).map(level).collect();
    let inner = json!({"$schema": "http://json-schema.org/draft-04/schema#", "id": "http://example.com/inner",
        "definitions": levels, "allOf": [{"$ref": "#/definitions/l0"}]});
    json!({"definitions": seen, "allOf": [inner]})
}

pub(super) fn all() -> Vec<Attack> {
    let free = |id, shows, steps, check| Attack::new(id, "free", shows, steps, check);
    let two_at_once = Attack {
        tasks: 2,
        ..free(
            "questions-at-once",
            &["llm_concurrency"],
            |_| vec![of("single", "single")],
            |judged| {
                let times = judged.world.times.lock().expect("no panic while it is held").clone();
                let apart = times.windows(2).all(|two| two[1].duration_since(two[0]) > Duration::from_millis(1_000));
                judged.completed().must(!times.is_empty() && apart, || "two were under way at once".to_owned())
            },
        )
    };
    vec![
        free(
            "an-answer-longer-than-any-may-be",
            &["llm_max_tokens"],
            |_| vec![json!({"chat": {"model": "default", "prompt": "long-answer", "max_tokens": 100_000}})],
            |judged| {
                let asked = judged.world.models.requests();
                let long = asked.iter().filter(|r| r.body.contains("long-answer") && r.body.contains("100000")).count();
                judged
                    .completed()
                    .recorded(0, "ok", "")
                    .must(long == 0, || "a model was asked for 100000 tokens".to_owned())
            },
        ),
        free(
            "an-answer-of-17-mib",
            &["llm_answer"],
            |_| vec![chat("large")],
            |judged| judged.completed().failed(0, "unparsable").saying(0, "longer than"),
        ),
        free(
            "an-answer-of-a-million-values",
            &["llm_values"],
            |_| vec![chat("values")],
            |judged| judged.completed().failed(0, "unparsable").saying(0, "values"),
        ),
        free(
            "an-error-of-8-mib",
            &["llm_error"],
            |_| vec![chat("error")],
            |judged| {
                let read = judged.told.calls.first().and_then(|call| call["response_bytes"].as_u64());
                let judged = judged.completed().refused(0);
                judged.must(read.is_some_and(|read| read < MOST_OF_AN_ERROR), || {
                    format!("{read:?} bytes of it were read")
                })
            },
        ),
        free(
            "an-answer-that-never-begins",
            &["llm_first_byte_time"],
            |_| vec![chat("hang")],
            |judged| judged.completed().failed(0, "timed_out").saying(0, "no response"),
        ),
        free(
            "an-answer-that-stops",
            &["llm_idle_time"],
            |_| vec![chat("stall")],
            |judged| judged.completed().failed(0, "timed_out").saying(0, "no further bytes"),
        ),
        free(
            "an-answer-that-drips",
            &["llm_total_time"],
            |_| vec![chat("drip")],
            |judged| judged.completed().failed(0, "timed_out").saying(0, "no end"),
        ),
        free(
            "an-answer-that-breaks-off",
            &["llm_asked_once"],
            |_| vec![of("again", "break")],
            |judged| judged.completed().refused(0).asked("break", 1),
        ),
        two_at_once,
        free(
            "a-key-said-back",
            &["llm_mask"],
            |_| vec![chat("echo")],
            |judged| {
                let masked = judged.told.task.to_string().contains("***");
                judged.completed().unseen(KEY).must(masked, || "its server did not have it".to_owned())
            },
        ),
        free(
            "a-schema-that-grows",
            &["schema_size"],
            |_| vec![fitting(&exponential())],
            |judged| judged.completed().failed(0, "invalid_request").saying(0, "too large"),
        ),
        free(
            "a-schema-of-two-drafts",
            &["schema_size"],
            |_| vec![fitting(&two_drafts())],
            |judged| judged.completed().failed(0, "invalid_request").saying(0, "below its root"),
        ),
        free(
            "a-schema-that-looks-back",
            &["schema_patterns"],
            |_| vec![fitting(&json!({"type": "string", "pattern": "^(a+)\\1$"}))],
            |judged| judged.completed().failed(0, "invalid_request").saying(0, "is no JSON Schema"),
        ),
    ]
}
