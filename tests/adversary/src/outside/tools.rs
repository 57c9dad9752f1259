//! Calls of tools, and what tool servers give, that are more than was meant.

use e2e::outside::reach::call;
use serde_json::{Value, json};

use super::Attack;
use super::world::{OWN_SECRET, TOOL_SECRET};

fn of(server: &str, tool: &str, arguments: Value) -> Value {
    json!({"call": {"server": server, "tool": tool, "arguments": arguments}})
}

pub(super) fn all() -> Vec<Attack> {
    let free = |id, shows, steps, check| Attack::new(id, "free", shows, steps, check);
    vec![
        free(
            "arguments-of-another-kind",
            &["tool_arguments"],
            |_| vec![call("echo", json!({"text": 7})), call("echo", json!({"text": "a", "more": "b"}))],
            |judged| judged.completed().failed(0, "invalid_arguments").failed(1, "invalid_arguments"),
        ),
        free(
            "an-output-of-100-kb",
            &["tool_output"],
            |_| vec![call("say", json!({"bytes": 100_000}))],
            |judged| judged.completed().failed(0, "too_large"),
        ),
        free(
            "a-message-of-8-mb",
            &["tool_message"],
            // Its session ends with it, so that it has a server for itself.
            |_| vec![of("loud", "say", json!({"bytes": 8_000_000}))],
            |judged| judged.completed().failed(0, "unavailable").saying(0, "it sent a message of more than"),
        ),
        Attack::new(
            "a-thousand-and-one-tools",
            "crowded",
            &["tool_catalogue"],
            |_| vec![json!({"tools": {}})],
            |judged| judged.completed().failed(0, "unavailable").saying(0, "it lists more than"),
        ),
        free(
            "a-call-without-an-answer",
            &["tool_time"],
            |_| vec![call("wait", json!({}))],
            |judged| judged.completed().failed(0, "timed_out"),
        ),
        free(
            "the-daemons-environment",
            &["tool_environment"],
            |_| vec![call("environment", json!({}))],
            |judged| judged.completed().recorded(0, "ok", "").unseen(OWN_SECRET),
        ),
        free(
            "a-credential-said-back",
            &["tool_mask"],
            |_| vec![call("environment", json!({}))],
            |judged| {
                let masked = judged.told.task.to_string().contains("***");
                judged.completed().unseen(TOOL_SECRET).must(masked, || "its server did not have it".to_owned())
            },
        ),
    ]
}
