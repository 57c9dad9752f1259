//! Unusable messages: once in the table, on the wire with their reason, and never in the way of others.

use e2e::amqp::Outgoing;
use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, Task, eventually};
use serde_json::json;
use uuid::Uuid;

/// What is published, and a word that the detail must hold.
struct Case {
    what: &'static str,
    message: Outgoing,
    named: &'static str,
    /// With a usable id there is a `failed(rejected)` task too.
    id: Option<Uuid>,
}

fn case(what: &'static str, named: &'static str, message: Outgoing) -> Case {
    Case { what, message, named, id: None }
}

fn with_id(what: &'static str, named: &'static str, message: impl FnOnce(Uuid) -> Outgoing) -> Case {
    let id = Uuid::now_v7();
    Case { what, message: message(id), named, id: Some(id) }
}

const GOOD: &str = r#"{"plugin": "word-count", "input": {"text": "x"}}"#;

fn cases() -> Vec<Case> {
    let body = |rest: &str| Outgoing::json(format!(r#"{{"plugin": "word-count", "input": {{}}{rest}}}"#));
    let with_options = |options: &str| body(&format!(r#", "options": {options}"#));
    vec![
        case("not JSON", "", Outgoing::json("{\"plugin\": ")),
        case("empty", "", Outgoing::json("")),
        case("not UTF-8", "UTF-8", Outgoing::json(*b"{\"plugin\": \"\xff\"}")),
        case("an array", "object", Outgoing::json(r#"["word-count", {}]"#)),
        case("no plugin", "plugin", Outgoing::json(r#"{"input": {}}"#)),
        case("no input", "input", Outgoing::json(r#"{"plugin": "word-count"}"#)),
        case("a plugin that is a number", "", Outgoing::json(r#"{"plugin": 7, "input": {}}"#)),
        case("a bad name", "Word", Outgoing::json(r#"{"plugin": "Word Count", "input": {}}"#)),
        case("an unknown key", "prompt", body(r#", "prompt": "lost""#)),
        case("a duplicate key", "input", body(r#", "input": 1"#)),
        case("a bad id", "seven", body(r#", "id": "seven""#)),
        case(
            "two ids",
            "message_id",
            body(r#", "id": "01920c3e-0000-7000-8000-000000000001""#)
                .with(|p| p.with_message_id("01920c3e-0000-7000-8000-000000000002".into())),
        ),
        case("another type", "text/xml", Outgoing::json(GOOD).with(|p| p.with_content_type("text/xml".into()))),
        case("a charset", "UTF-8", Outgoing::json(GOOD).with(|p| p.with_content_encoding("latin-1".into()))),
        case("a time without an offset", "run_at", with_options(r#"{"run_at": "2030-01-01T00:00:00"}"#)),
        case("an encoding", "gzip", Outgoing::json(GOOD).with(|p| p.with_content_encoding("gzip".into()))),
        case("too large", "message_kib", Outgoing::json(format!(r#"{{"input": "{}"}}"#, "x".repeat(1_100_000)))),
        case("an unknown option", "prio", with_options(r#"{"prio": 1}"#)),
        case("a priority beyond its range", "priority", with_options(r#"{"priority": 10}"#)),
        case("no attempt", "max_attempts", with_options(r#"{"max_attempts": 0}"#)),
        case("a timeout beyond the ceiling", "timeout_seconds", with_options(r#"{"timeout_seconds": 4000000}"#)),
        case("a label that is a number", "", with_options(r#"{"labels": {"a": 1}}"#)),
        case("a label twice", "a", with_options(r#"{"labels": {"a": "1", "a": "2"}}"#)),
        case("a bad version", "one", Outgoing::json(r#"{"plugin": "word-count@one", "input": {}}"#)),
        case("header and broken input", "", Outgoing::json("{").header("agentry-plugin", "word-count")),
        case(
            "header and broken options",
            "agentry-options",
            Outgoing::json("{}").header("agentry-plugin", "word-count").header("agentry-options", "[]"),
        ),
        with_id("an unknown key and an id", "prompt", |id| body(&format!(r#", "id": "{id}", "prompt": "x""#))),
        with_id(
            "a timeout beyond its plugin's ceiling",
            "1 to 60 (limits.max.timeout_seconds of the operator's",
            |id| body(&format!(r#", "id": "{id}", "options": {{"timeout_seconds": 61}}"#)),
        ),
        with_id("a bad option and a message_id", "priority", |id| {
            with_options(r#"{"priority": 99}"#).with(|p| p.with_message_id(id.to_string().into()))
        }),
    ]
}

#[tokio::test]
async fn every_kind_of_unusable_message_is_dead_lettered_once_with_its_reason_and_an_unchanged_body() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.setup().set("plugins.word-count.limits.max.timeout_seconds", 60).start().await;
    let cases = cases();
    let good = Task::new("word-count", json!({"text": "among them"}));
    site.amqp().publish(site.prefix(), "default", cases.iter().map(|case| case.message.clone())).await;
    site.publish(std::slice::from_ref(&good)).await;
    assert_eq!(daemon.http().ended(good.id).await["state"], "completed", "a good one is not held up");

    let database = site.database().await;
    let letters = eventually("all are in the table", async || {
        let letters = database.dead_letters().await;
        if letters.len() >= cases.len() { Ok(letters) } else { Err(format!("{} are", letters.len())) }
    })
    .await;
    assert_eq!(letters.len(), cases.len(), "each once: {letters:?}");

    eventually("all are on the wire", async || {
        let (ready, _) = site.amqp().count(&site.queue("default.dead")).await?;
        if ready as usize >= cases.len() { Ok(()) } else { Err(format!("{ready} are")) }
    })
    .await;
    let mut wire = site.amqp().take_all(&site.queue("default.dead")).await;
    for Case { what, message, named, .. } in &cases {
        let at = wire.iter().position(|letter| {
            letter.body == message.body
                && letter.properties.message_id() == message.properties.message_id()
                && letter.properties.content_type() == message.properties.content_type()
                && letter.properties.content_encoding() == message.properties.content_encoding()
        });
        let letter = wire.remove(at.unwrap_or_else(|| panic!("{what}: not on the wire as it was published")));
        let (reason, detail) = (letter.header("agentry-reason"), letter.header("agentry-detail"));
        assert!(!reason.is_empty() && !detail.is_empty(), "{what}: {reason:?} {detail:?}");
        assert!(detail.contains(named), "{what}: {named:?} is not in {detail:?}");
        assert!(
            letters.iter().any(|row| row.reason == reason && row.detail == detail),
            "{what}: {reason:?} {detail:?} is not in the table"
        );
    }
    assert!(wire.is_empty(), "nothing else is there: {wire:?}");

    let rejected: Vec<_> = cases.iter().filter_map(|case| case.id).collect();
    for id in &rejected {
        let task = daemon.http().ended(*id).await;
        assert_eq!((&task["state"], &task["failure"]["kind"]), (&json!("failed"), &json!("rejected")), "{task}");
    }
    let ids: Vec<_> = rejected.into_iter().chain([good.id]).collect();
    let dead_letters = cases.len();
    invariants::hold(&site, daemon, &ids, Expected { dead_letters, ..Expected::default() }).await;
}

#[tokio::test]
async fn an_unusable_message_keeps_its_properties_and_headers() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let message = Outgoing::json("nonsense").header("x-team", "search").with(|properties| {
        properties.with_app_id("producer".into()).with_correlation_id("c-1".into()).with_type("job".into())
    });
    site.amqp().publish(site.prefix(), "default", [message]).await;
    eventually("it is on the wire", async || match site.amqp().count(&site.queue("default.dead")).await? {
        (0, _) => Err("it is not".to_owned()),
        _ => Ok(()),
    })
    .await;
    let letter = site.amqp().take_all(&site.queue("default.dead")).await.remove(0);
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
    assert_eq!(letter.header("x-team"), "search");
    assert_eq!(text(letter.properties.app_id()).as_deref(), Some("producer"));
    assert_eq!(text(letter.properties.correlation_id()).as_deref(), Some("c-1"));
    assert_eq!(text(letter.properties.kind()).as_deref(), Some("job"));
    invariants::hold(&site, daemon, &[], Expected { dead_letters: 1, ..Expected::default() }).await;
}

#[tokio::test]
async fn dead_letters_are_listed_over_http_and_on_the_command_line() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    site.amqp().publish(site.prefix(), "default", [Outgoing::json("nonsense")]).await;
    let database = site.database().await;
    eventually("it is in the table", async || {
        if database.dead_letters().await.len() == 1 { Ok(()) } else { Err("it is not".to_owned()) }
    })
    .await;
    let letters = daemon.http().get("/v1/dead").await.expect(200);
    assert!(letters.to_string().contains("nonsense"), "{letters}");
    let listed = e2e::daemon::run(site.folder(), &["dead", "list", "--json", "--server", daemon.http().base()]).await;
    listed.expect(0, &[]);
    assert!(listed.stdout.contains("nonsense"), "{listed:?}");
    invariants::hold(&site, daemon, &[], Expected { dead_letters: 1, ..Expected::default() }).await;
}
