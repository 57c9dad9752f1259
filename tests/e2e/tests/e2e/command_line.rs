//! What a person types.

use e2e::daemon::run;
use e2e::{Mode, Site, plugin, probe};
use serde_json::{Value, json};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("not JSON ({error}): {text:?}"))
}

#[tokio::test]
async fn run_prints_the_output_with_nothing_around() {
    let site = Site::new(Mode::Embedded).await;
    let folder = plugin::built("word-count");
    let ended = run(site.folder(), &["run", &folder.to_string_lossy(), "--input", r#"{"text": "a b c"}"#]).await;
    ended.expect(0, &[]);
    assert_eq!(json_of(&ended.stdout)["words"], 3, "{ended:?}");
}

#[tokio::test]
async fn run_takes_a_component_and_input_from_a_file() {
    let site = Site::new(Mode::Embedded).await;
    let folder = plugin::built("word-count");
    let component = folder.join(plugin::component(&folder));
    std::fs::write(site.folder().join("input.json"), r#"{"text": "from a file"}"#).expect("a file");
    let ended = run(site.folder(), &["run", &component.to_string_lossy(), "--input", "@input.json"]).await;
    ended.expect(0, &[]);
    assert_eq!(json_of(&ended.stdout)["words"], 3, "{ended:?}");
}

#[tokio::test]
async fn run_exits_with_1_when_the_task_fails_and_says_why() {
    let site = Site::new(Mode::Embedded).await;
    let folder = plugin::built("probe").to_string_lossy().into_owned();
    let failing = [
        (probe::fail_permanent("no such document"), "plugin_error"),
        (probe::invalid_input(), "invalid_input"),
        (probe::answer_with("{nonsense"), "invalid_output"),
        (probe::exit(0), "trap"),
    ];
    for (task, kind) in failing {
        let ended = run(site.folder(), &["run", &folder, "--input", &task.input.to_string()]).await;
        ended.expect(1, &[kind]);
        assert!(!ended.stdout.contains("completed"), "{ended:?}");
    }
}

#[tokio::test]
async fn run_refuses_what_it_cannot_use() {
    let site = Site::new(Mode::Embedded).await;
    let folder = plugin::built("word-count").to_string_lossy().into_owned();
    run(site.folder(), &["run", &folder, "--input", "{nonsense"]).await.expect(2, &["--input"]);
    run(site.folder(), &["run", "no-such-plugin", "--input", "{}"]).await.expect(2, &["no-such-plugin"]);
    let text = site.folder().join("text.wasm");
    std::fs::write(&text, "(component)").expect("a file");
    let ended = run(site.folder(), &["run", &text.to_string_lossy(), "--input", "{}"]).await;
    ended.expect(2, &["text.wasm"]);
}

#[tokio::test]
async fn the_version_is_the_build_that_stands_on_attempts() {
    let site = Site::new(Mode::Embedded).await;
    let version = run(site.folder(), &["--version"]).await;
    version.expect(0, &[]);
    let daemon = site.start().await;
    let asked = probe::echo(json!(1));
    site.submit(&daemon, std::slice::from_ref(&asked)).await;
    daemon.http().ended(asked.id).await;
    let build = daemon.http().attempts(asked.id).await[0]["build"].as_str().expect("a build").to_owned();
    assert_eq!(version.stdout.trim(), format!("agentry {build}"));
    daemon.stop().await;
}

e2e::in_both_modes! {
    submit_waits_for_the_end_and_exits_by_it
    task_commands_show_what_became_of_it
}

async fn submit_waits_for_the_end_and_exits_by_it(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let server = daemon.http().base();
    let good = ["submit", "word-count", "--input", r#"{"text": "a b"}"#, "--wait", "--json", "--server", server];
    let ended = run(site.folder(), &good).await;
    ended.expect(0, &[]);
    let task = json_of(&ended.stdout);
    assert_eq!((&task["state"], &task["output"]["words"]), (&json!("completed"), &json!(2)), "{ended:?}");

    let input = probe::fail_permanent("no such document").input.to_string();
    let bad = run(site.folder(), &["submit", "probe", "--input", &input, "--wait", "--server", server]).await;
    bad.expect(1, &["no such document"]);
    let unknown = run(site.folder(), &["submit", "word-cuont", "--input", "{}", "--server", server]).await;
    unknown.expect(2, &["word-cuont", "word-count"]);
    daemon.stop().await;

    let away = run(site.folder(), &["submit", "word-count", "--input", "{}", "--server", "http://127.0.0.1:1"]).await;
    away.expect(3, &["127.0.0.1:1"]);
}

async fn task_commands_show_what_became_of_it(mode: Mode) {
    let site = Site::new(mode).await;
    let daemon = site.start().await;
    let asked = probe::fail_until_attempt(2);
    site.submit(&daemon, std::slice::from_ref(&asked)).await;
    let ended = daemon.http().ended(asked.id).await;
    let id = asked.id.to_string();
    let data = async |words: &[&str]| {
        let mut arguments = words.to_vec();
        arguments.extend(["--json", "--server", daemon.http().base()]);
        let done = run(site.folder(), &arguments).await;
        done.expect(0, &[]);
        done.stdout
    };
    assert_eq!(json_of(&data(&["task", "show", &id]).await)["task"], ended);
    assert_eq!(json_of(&data(&["task", "wait", &id]).await)["state"], "completed");
    assert!(data(&["task", "list"]).await.contains(&id));
    assert!(data(&["task", "events", &id]).await.contains("retrying"));
    assert!(!data(&["task", "logs", &id]).await.trim().is_empty());
    assert!(data(&["plugin", "list"]).await.contains("word-count"));
    let inspected = data(&["plugin", "inspect", "word-count"]).await;
    assert!(inspected.contains("sha256:"), "{inspected}");
    // The same for a person, without --json.
    let shown = run(site.folder(), &["task", "show", &id, "--server", daemon.http().base()]).await;
    shown.expect(0, &[]);
    assert!(shown.stdout.contains("completed"), "{shown:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn settings_are_checked_and_shown_with_their_origin_and_without_secrets() {
    let site = Site::new(Mode::Embedded).await;
    let file = site.folder().join("agentry.toml");
    let text = "worker.slots = 3\nbroker.url = \"amqp://u:s3cret@localhost\"\ndatabase.url = \"postgres://u:s3cret@localhost/d\"\n";
    std::fs::write(&file, text).expect("a file");
    run(site.folder(), &["config", "check"]).await.expect(0, &[]);
    let shown = run(site.folder(), &["config", "show"]).await;
    shown.expect(0, &[]);
    assert!(shown.stdout.contains("slots") && shown.stdout.contains("agentry.toml"), "{shown:?}");
    assert!(!format!("{shown:?}").contains("s3cret"), "{shown:?}");
    std::fs::write(&file, "worker.slotz = 3\n").expect("a file");
    run(site.folder(), &["config", "check"]).await.expect(2, &["worker.slotz", "agentry.toml"]);
    for (lines, says) in
        [("tokens_file = 'none'", "api.tokens_file"), ("tls_cert = 'none.pem'\ntls_key = 'none.pem'", "api.tls_cert")]
    {
        std::fs::write(site.folder().join("agentry.toml"), format!("[api]\n{lines}\n")).unwrap();
        run(site.folder(), &["config", "check"]).await.expect(2, &[says]);
    }
}
