//! `agentry run`: the same capabilities for an author, with neither broker nor database.

use std::path::Path;

use e2e::daemon::{Ended, command, run_command};
use e2e::outside::reach::{self, call, chat, get, grant, kind, ok, results};
use e2e::outside::{Play, Server, llm, mcp};
use e2e::{Mode, Site};
use serde_json::{Value, json};

use super::run;

/// One run in a folder without settings.
async fn by_hand(folder: &Path, steps: &[Value], flags: &[String]) -> Ended {
    let input = Value::from(steps).to_string();
    run_command(command(folder).arg("run").arg(reach::folder()).args(["--input", &input]).args(flags)).await
}

fn output(ended: &Ended) -> Vec<Value> {
    ended.expect(0, &[]);
    let output: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    output.as_array().expect("results").clone()
}

fn flags<const N: usize>(pairs: [(&str, String); N]) -> Vec<String> {
    pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

/// A web, models, and a folder, with the flags that open them.
struct World {
    folder: tempfile::TempDir,
    web: Server,
    models: Server,
}

impl World {
    async fn start() -> World {
        let folder = tempfile::Builder::new().prefix("agentry-e2e-").tempdir().unwrap();
        std::fs::create_dir(folder.path().join("corpus")).unwrap();
        std::fs::write(folder.path().join("corpus/a"), "the text of a").unwrap();
        let web = Server::start(|_| Play::text(200, "a page")).await;
        World { folder, web, models: llm::start(|_, _| llm::says("hello")).await }
    }

    fn flags(&self) -> Vec<String> {
        flags([
            ("--llm", format!("openai={}", self.models.url("/v1"))),
            ("--allow-http", format!("GET {}", self.web.url("/open"))),
            ("--tool", format!("mock={}", mcp::command(self.folder.path()).join(" "))),
            ("--var", "region=north".into()),
            ("--folder", format!("corpus={}", self.folder.path().join("corpus").display())),
        ])
    }

    fn steps(&self) -> Vec<Value> {
        vec![
            get(self.web.url("/open/a")),
            get(self.web.url("/closed")),
            chat("hello"),
            call("echo", json!({"text": "hello"})),
            call("nothing", json!({})),
            json!({"tools": {}}),
            json!({"config": "region"}),
            json!({"config": "colour"}),
            json!({"read": "/corpus/a"}),
            json!({"read": "/corpus/../mcp_server.py"}),
            json!({"set": {"key": "k", "value": "v"}}),
            json!({"get": {"key": "k"}}),
            json!({"increment": {"key": "n", "delta": 3}}),
            json!({"search": {"query": "fox"}}),
        ]
    }
}

#[tokio::test]
async fn a_run_by_hand_gives_what_the_daemon_gives() {
    let world = World::start().await;
    let alone = output(&by_hand(world.folder.path(), &world.steps(), &world.flags()).await);
    let site = Site::new(Mode::Services).await;
    let setup = reach::with_llm(reach::setup(&site), &world.models)
        .set("config.region", "north")
        .set("folders.corpus", world.folder.path().join("corpus").to_string_lossy().into_owned());
    let setup = grant(setup, "folders", json!(["corpus"]));
    let daemon = grant(setup, "http", json!([format!("GET {}", world.web.url("/open"))])).start().await;
    let served = results(&run(&site, &daemon, reach::reach(world.steps())).await);
    for ((step, alone), served) in world.steps().iter().zip(&alone).zip(&served) {
        assert_eq!(alone, served, "{step}");
    }
    assert_eq!(alone.iter().filter(|result| result.get("error").is_some()).count(), 3, "{alone:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_run_by_hand_remembers_in_its_file_and_nowhere_else() {
    let world = World::start().await;
    let here = world.folder.path();
    let keep =
        |file: &str| [world.flags(), flags([("--memory", here.join(file).to_string_lossy().into_owned())])].concat();
    let write = [
        json!({"set": {"key": "colour", "value": "red"}}),
        json!({"increment": {"key": "visits"}}),
        json!({"remember": {"text": "a fox in the snow"}}),
    ];
    let read = [
        json!({"get": {"key": "colour"}}),
        json!({"increment": {"key": "visits"}}),
        json!({"search": {"query": "fox"}}),
    ];
    let found = |ended: &Ended| output(ended).iter().map(|result| ok(result).clone()).collect::<Vec<_>>();
    found(&by_hand(here, &write, &keep("one")).await);
    let remembered = [json!("red"), json!(2), json!(["a fox in the snow"])];
    assert_eq!(found(&by_hand(here, &read, &keep("one")).await), remembered);
    let nothing = [Value::Null, json!(1), json!([])];
    assert_eq!(found(&by_hand(here, &read, &keep("two")).await), nothing, "another file knows nothing");
    found(&by_hand(here, &write, &world.flags()).await);
    assert_eq!(found(&by_hand(here, &read, &world.flags()).await), nothing, "without a file it is gone with the run");
}

#[tokio::test]
async fn a_run_by_hand_shows_what_was_sent_and_answered() {
    let world = World::start().await;
    let (steps, flags) = ([chat("how are you?"), get(world.web.url("/open/a"))], world.flags());
    let ended = by_hand(world.folder.path(), &steps, &[&flags[..], &["--calls".into()]].concat()).await;
    output(&ended);
    for part in ["1.1 llm chat default ok\n  request (", "content: how are you?\n", "1.2 http GET", "    a page\n"] {
        assert!(ended.stderr.contains(part), "{part:?} is not in\n{}", ended.stderr);
    }
    let ended = by_hand(world.folder.path(), &steps, &flags).await;
    output(&ended);
    assert!(!ended.stderr.contains("how are you?"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_key_of_a_run_by_hand_is_heard_by_the_model_and_by_nobody_else() {
    const KEY: &str = "canary-by-hand-83d1f0";
    let folder = tempfile::Builder::new().prefix("agentry-e2e-").tempdir().unwrap();
    let models = llm::start(|prompt, request| match prompt {
        "answer" => llm::says(&format!("{:?}", request.headers)),
        _ => Play::json(401, &json!({"error": {"message": format!("{:?}", request.headers)}})),
    })
    .await;
    let input =
        json!([chat("answer"), chat("refuse"), get("http://127.0.0.1:9/"), {"tell": {}}, {"must": chat("refuse")}]);
    let flags = flags([
        ("--llm", format!("openai={}", models.url("/v1"))),
        ("--llm-key", "MODEL_KEY".into()),
        ("--model", "model-7".into()),
        ("--allow-http", "GET https://nowhere.invalid".into()),
        ("--tool", format!("mock={}", mcp::command(folder.path()).join(" "))),
        ("--var", "region=north".into()),
    ]);
    let mut run = command(folder.path());
    run.arg("run").arg(reach::folder()).args(["--input", &input.to_string()]).args(flags).env("MODEL_KEY", KEY);
    let ended = run_command(&mut run).await;
    ended.expect(1, &["unavailable", "***"]);
    let heard = models.requests();
    assert!(
        !heard.is_empty() && heard.iter().all(|r| r.header("authorization") == format!("Bearer {KEY}")),
        "{heard:?}"
    );
    assert!(heard.iter().all(|request| request.body.contains("model-7")), "{heard:?}");
    assert!(!format!("{ended:?}").contains("83d1f0"), "{ended:?}");
}

#[tokio::test]
async fn what_no_flag_opens_is_closed_in_a_run_by_hand() {
    let world = World::start().await;
    let here = world.folder.path();
    // Nothing at all: the component imports what nobody grants.
    let refused = by_hand(here, &[get(world.web.url("/open"))], &[]).await;
    refused.expect(2, &["the operator allows none of capabilities.", "[plugins.\"reach\"]"]);
    let refused = by_hand(here, &[get(world.web.url("/open"))], &world.flags()[2..]).await;
    refused.expect(2, &["capabilities.llm"]);
    let results =
        output(&by_hand(here, &[get(world.web.url("/closed")), json!({"read": "/theirs/a"})], &world.flags()).await);
    assert_eq!(kind(&results[0]), "denied");
    assert!(results[1].get("error").is_some());
    assert_eq!(world.web.connections(), 0);
}
