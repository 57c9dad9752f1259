//! More than a plugin may keep, and what is kept by whom it is no longer asked of.

use e2e::outside::reach::get;
use serde_json::{Value, json};

use super::Attack;

fn set(key: &str, bytes: usize) -> Value {
    json!({"set": {"key": key, "value": "x".repeat(bytes)}})
}

fn remember(bytes: usize) -> Value {
    json!({"remember": {"text": "x".repeat(bytes)}})
}

pub(super) fn all() -> Vec<Attack> {
    let of = Attack::new;
    let taken_over = Attack {
        taken_over: true,
        ..of(
            "a-writer-who-was-taken-over",
            "free",
            &["write_fence"],
            |world| {
                let key = json!({"increment": {"bucket": "late", "key": "late"}});
                vec![
                    get(world.web.url("/public/began")),
                    json!({"sleep_ms": 1_000}),
                    key,
                    get(world.web.url("/public/wrote")),
                ]
            },
            |judged| {
                let written = judged.told.recorded;
                judged.must(written == 0, || "it has written".to_owned())
            },
        )
    };
    vec![
        of(
            "101-keys-at-once",
            "free",
            &["keys_at_once"],
            |_| vec![json!({"get_many": {"keys": 101}}), json!({"get_many": {"keys": 100}})],
            |judged| judged.completed().refused(0).saying(0, "101 keys").gave(1, &json!(0)),
        ),
        of(
            "a-key-of-513-bytes",
            "free",
            &["key_bytes"],
            |_| vec![set(&"k".repeat(513), 1), set(&"k".repeat(512), 1)],
            |judged| judged.completed().refused(0).recorded(0, "invalid", "513 bytes").gave(1, &Value::Null),
        ),
        of(
            "a-bucket-with-a-name-of-129-bytes",
            "free",
            &["held_bytes"],
            |_| [129, 128].map(|bytes| json!({"get": {"bucket": "b".repeat(bytes), "key": "k"}})).to_vec(),
            |judged| judged.completed().refused(0).saying(0, "129 bytes").gave(1, &Value::Null),
        ),
        of(
            "a-value-of-more-than-256-kib",
            "free",
            &["value_bytes"],
            |_| vec![set("large", (256 << 10) + 1)],
            |judged| judged.completed().refused(0).recorded(0, "invalid", "262145 bytes"),
        ),
        of(
            "a-key-beyond-the-last",
            "many",
            &["bucket_keys"],
            |_| vec![set("k", 1)],
            |judged| judged.completed().refused(0).recorded(0, "full", "keys"),
        ),
        of(
            "a-byte-beyond-the-last",
            "large",
            &["bucket_bytes"],
            |_| vec![set("k", 1)],
            |judged| judged.completed().refused(0).recorded(0, "full", "bytes"),
        ),
        of(
            "a-text-of-more-than-16-kib",
            "free",
            &["memory_text"],
            |_| vec![remember((16 << 10) + 1)],
            |judged| judged.completed().refused(0).recorded(0, "invalid", "16385 bytes"),
        ),
        of(
            "a-memory-beyond-the-last",
            "many",
            &["memory_entries"],
            |_| vec![remember(10)],
            |judged| judged.completed().refused(0).recorded(0, "full", "entries"),
        ),
        taken_over,
    ]
}
