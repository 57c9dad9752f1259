//! What nobody granted.

use e2e::outside::reach::{call, chat, get};
use serde_json::{Value, json};

use super::Attack;
use super::world::SETTING;

pub(super) fn all() -> Vec<Attack> {
    let narrow = |id, shows, steps, check| Attack::new(id, "narrow", shows, steps, check);
    vec![
        narrow(
            "a-request-to-another",
            &["http_grant"],
            |world| {
                vec![get(world.closed.url("/another")), get(world.web.url("/private")), get(world.web.url("/public"))]
            },
            |judged| {
                let judged =
                    judged.completed().recorded(0, "denied", "").recorded(1, "denied", "").recorded(2, "ok", "");
                judged.heard(|world| &world.closed, "/another", 0).heard(|world| &world.web, "/private", 0)
            },
        ),
        narrow(
            "another-model",
            &["model_grant", "policy"],
            |_| vec![json!({"chat": {"model": "again", "prompt": "another-model"}}), chat("hello")],
            |judged| judged.completed().failed(0, "denied").recorded(1, "ok", "").asked("another-model", 0),
        ),
        narrow(
            "another-tool",
            &["tool_grant", "policy"],
            |_| vec![call("environment", json!({})), call("echo", json!({"text": "a"})), json!({"tools": {}})],
            |judged| {
                let judged = judged.completed().failed(0, "denied").gave(1, &json!({"text": "a", "failed": false}));
                judged.gave(2, &json!(["mock.echo"]))
            },
        ),
        narrow(
            "another-bucket",
            &["bucket_grant", "policy"],
            |_| {
                let in_bucket = |bucket: &str| json!({"set": {"bucket": bucket, "key": "k", "value": "v"}});
                vec![in_bucket("theirs"), in_bucket("cache")]
            },
            |judged| judged.completed().failed(0, "denied").gave(1, &Value::Null),
        ),
        narrow(
            "another-memory",
            &["memory_grant", "policy"],
            |_| vec![json!({"remember": {"memory": "theirs", "text": "a fox"}}), json!({"search": {"query": "fox"}})],
            |judged| judged.completed().failed(0, "denied").gave(1, &json!([])),
        ),
        narrow(
            "another-setting",
            &["config_grant", "policy"],
            |_| vec![json!({"config": "secret"}), json!({"config": "region"})],
            |judged| judged.completed().gave(0, &Value::Null).gave(1, &json!("north")).unseen(SETTING),
        ),
        narrow(
            "another-folder",
            &["folder_grant", "policy"],
            |_| vec![json!({"read": "/theirs/page"}), json!({"read": "/corpus/page"})],
            |judged| judged.completed().refused(0).gave(1, &json!("corpus")),
        ),
        narrow(
            "a-folder-written",
            &["folder_read_only"],
            |_| vec![json!({"write": "/corpus/new"}), json!({"write": "/corpus/page"})],
            |judged| {
                let corpus = judged.world.site.folder().join("corpus");
                let kept = std::fs::read_to_string(corpus.join("page")).is_ok_and(|page| page == "corpus");
                let judged = judged.completed().refused(0).refused(1);
                judged.must(kept && !corpus.join("new").exists(), || "a folder was written to".to_owned())
            },
        ),
    ]
}
