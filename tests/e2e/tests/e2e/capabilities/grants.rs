//! What a plugin asks for and what the operator allows: only what both say is there.

use e2e::outside::reach::{self, call, chat, get, grant, kind, must, ok, results};
use e2e::outside::{Play, Server, llm};
use e2e::{Daemon, Mode, Setup, Site};
use serde_json::{Value, json};

use super::{install_as, run};

e2e::in_both_modes! {
    a_call_outside_its_grant_fails_in_the_guest_and_is_recorded_once
    a_failure_lists_what_was_denied
}

/// What the guest imports, and something of each that an operator could allow. A plugin with a `[config]` of its own may read
/// that without a grant, so that `config` is not here.
fn policies() -> [(&'static str, &'static str, Value); 5] {
    [
        ("http", "http", json!(["GET https://nowhere.invalid"])),
        ("llm", "llm", json!(["default"])),
        ("tools", "tools.mock", json!(["echo"])),
        ("keyvalue", "keyvalue", json!(["cache"])),
        ("memory", "memory", json!(["notes"])),
    ]
}

/// The same daemon with everything allowed to a plugin, one capability apart.
fn allowed_but(setup: Setup, plugin: &str, without: Option<&str>) -> Setup {
    let given = policies().into_iter().filter(|(capability, ..)| Some(*capability) != without);
    given.fold(setup, |setup, (_, key, policy)| setup.set(&format!("plugins.{plugin}.capabilities.{key}"), policy))
}

async fn inspected(daemon: &Daemon, name: &str) -> Value {
    daemon.http().get(&format!("/v1/plugins/{name}")).await.expect(200)
}

#[tokio::test]
async fn a_plugin_that_lacks_a_grant_is_refused_with_the_line_to_add() {
    let site = Site::new(Mode::Services).await;
    let plugins = site.folder().join("plugins");
    let mut setup = reach::setup(&site);
    for (capability, ..) in policies() {
        let (unwished, unallowed) = (format!("unwished-{capability}"), format!("unallowed-{capability}"));
        let folder = install_as(&unwished, &plugins);
        e2e::plugin::edit(&folder, &format!("\n{capability} = "), "\n# ");
        setup = allowed_but(setup, &unwished, None);
        install_as(&unallowed, &plugins);
        setup = allowed_but(setup, &unallowed, Some(capability));
        // Of two capabilities that nobody speaks of.
        let folder = install_as(&format!("neither-{capability}"), &plugins);
        e2e::plugin::edit(&folder, &format!("\n{capability} = "), "\n# ");
        setup = allowed_but(setup, &format!("neither-{capability}"), Some(capability));
    }
    let daemon = setup.start().await;
    for (capability, ..) in policies() {
        for (name, remedies) in [
            (format!("unwished-{capability}"), vec![format!("add {capability} to [capabilities]")]),
            (
                format!("unallowed-{capability}"),
                vec![format!("capabilities.{capability}"), format!("under [plugins.\"unallowed-{capability}\"]")],
            ),
            (format!("neither-{capability}"), vec!["[capabilities]".into(), format!("{capability} = ")]),
        ] {
            let plugin = inspected(&daemon, &name).await;
            let cause = plugin["cause"].as_str().unwrap_or_default();
            assert_eq!(plugin["state"], "broken", "{plugin}");
            assert!(remedies.iter().all(|remedy| cause.contains(remedy)), "{name}: {remedies:?} is not in {cause:?}");
        }
    }
    // The others are served as ever.
    let count = e2e::Task::new("word-count", json!({"text": "one two"}));
    assert_eq!(run(&site, &daemon, count).await["state"], "completed");
    daemon.stop().await;
}

#[tokio::test]
async fn wish_policy_and_what_is_left_are_shown() {
    let site = Site::new(Mode::Services).await;
    let setup = grant(reach::setup(&site), "http", json!(["GET,POST https://api.example.com/v1"]));
    let daemon = grant(setup, "tools.mock", json!(["echo", "process"])).start().await;
    let plugin = inspected(&daemon, "reach").await;
    let grants = &plugin["versions"][0]["grants"];
    for (capability, wish, policy, granted) in [
        (
            "http",
            json!(["* http://*:*", "* https://*:*"]),
            json!(["GET,POST https://api.example.com/v1"]),
            json!(["GET,POST https://api.example.com/v1"]),
        ),
        ("llm", json!(["*"]), json!(["default"]), json!(["default"])),
        ("tools", json!(["mock.*"]), json!(["mock.echo", "mock.process"]), json!(["mock.echo", "mock.process"])),
        ("keyvalue", json!(["*"]), json!(["cache"]), json!(["cache"])),
        ("memory", json!(["*"]), json!(["notes"]), json!(["notes"])),
        ("folders", json!(["*"]), json!([]), json!([])),
    ] {
        assert_eq!(grants[capability], json!({"wish": wish, "policy": policy, "granted": granted}), "{capability}");
    }
    let shown =
        e2e::daemon::run(site.folder(), &["plugin", "inspect", "reach", "--server", daemon.http().base()]).await;
    shown.expect(0, &[]);
    let line = shown.stdout.lines().find(|line| line.contains("grant        http:")).unwrap_or_default();
    assert!(
        line.contains("wishes") && line.contains("policy") && line.contains("https://api.example.com/v1"),
        "{line}"
    );
    daemon.stop().await;
}

/// Everything of which something is granted and something is not.
struct World {
    granted: Server,
    other: Server,
    models: Server,
    daemon: Daemon,
}

impl World {
    async fn start(site: &Site) -> World {
        let granted = Server::start(|_| Play::text(200, "here")).await;
        let other = Server::start(|_| Play::text(200, "here")).await;
        let models = llm::start(|_, _| llm::says("hello")).await;
        let setup = reach::with_llm(reach::setup(site), &models)
            .set("llm.models.expensive.provider", "lab")
            .set("llm.models.expensive.model", "model-9");
        let setup = grant(setup, "http", json!([format!("GET {}", granted.url("/open"))]));
        let daemon = grant(setup, "tools.mock", json!(["echo"])).start().await;
        World { granted, other, models, daemon }
    }

    /// Each step, the capability, and what its record names.
    fn outside(&self) -> Vec<(Value, &'static str, String)> {
        let closed = self.granted.url("/closed");
        let other_host = format!("http://localhost:{}/open", self.granted.port());
        vec![
            (get(&closed), "http", closed),
            (get(&other_host), "http", other_host),
            (
                json!({"http": {"method": "POST", "url": self.granted.url("/open/post"), "body": "x"}}),
                "http",
                self.granted.url("/open/post"),
            ),
            (get(self.other.url("/open")), "http", self.other.url("/open")),
            (json!({"chat": {"model": "expensive", "prompt": "hello"}}), "llm", "expensive".into()),
            (json!({"chat": {"model": "no-such", "prompt": "hello"}}), "llm", "no-such".into()),
            (call("die", json!({})), "tools", "mock.die".into()),
            (json!({"call": {"server": "other", "tool": "echo"}}), "tools", "other.echo".into()),
            (json!({"set": {"bucket": "theirs", "key": "k", "value": "v"}}), "keyvalue", "theirs".into()),
            (json!({"get": {"bucket": "theirs", "key": "k"}}), "keyvalue", "theirs".into()),
            (json!({"remember": {"memory": "theirs", "text": "t"}}), "memory", "theirs".into()),
        ]
    }
}

async fn a_call_outside_its_grant_fails_in_the_guest_and_is_recorded_once(mode: Mode) {
    let site = Site::new(mode).await;
    let world = World::start(&site).await;
    let outside = world.outside();
    let refused: Vec<Value> = outside.iter().map(|(step, ..)| step.clone()).collect();
    let within = [
        get(world.granted.url("/open")),
        get(world.granted.url("/open/a?q=1")),
        chat("hello"),
        call("echo", json!({"text": "hello"})),
        json!({"set": {"key": "k", "value": "v"}}),
        json!({"get": {"key": "k"}}),
        json!({"remember": {"text": "a fox in the snow"}}),
        json!({"search": {"query": "fox"}}),
        json!({"tools": {}}),
    ];
    // Twice: what is refused again is recorded once.
    let task = reach::reach([refused.clone(), within.to_vec(), refused].concat());
    let id = task.id;
    let ended = run(&site, &world.daemon, task).await;
    let results = results(&ended);
    let (first, rest) = results.split_at(outside.len());
    let (inside, again) = rest.split_at(within.len());
    for (result, (step, capability, _)) in first.iter().chain(again).zip(outside.iter().chain(&outside)) {
        assert_eq!(kind(result), "denied", "{step}: {result}");
        let message = result["error"]["message"].as_str().unwrap_or_default();
        let names = message.contains("not granted") && message.contains(&format!("{capability} = "));
        assert!(names, "{step}: {message:?} names no grant");
    }
    assert_eq!((ok(&inside[0])["status"].as_u64(), ok(&inside[1])["status"].as_u64()), (Some(200), Some(200)));
    assert_eq!((ok(&inside[2])["text"].as_str(), ok(&inside[3])["text"].as_str()), (Some("hello"), Some("hello")));
    assert_eq!((ok(&inside[5]), ok(&inside[7])), (&json!("v"), &json!(["a fox in the snow"])));
    assert_eq!(ok(&inside[8]), &json!(["mock.echo"]), "what is not granted is not listed");

    // Exactly that was reached.
    let asked: Vec<_> = world.granted.requests().into_iter().map(|r| format!("{} {}", r.method, r.target)).collect();
    assert_eq!(asked, ["GET /open", "GET /open/a?q=1"]);
    assert_eq!(world.other.connections(), 0);
    assert_eq!(world.models.requests().len(), 1);

    let calls = world.daemon.http().calls(id).await;
    let denied: Vec<_> = calls.iter().filter(|call| call["result"] == "denied").collect();
    let mut told: Vec<_> =
        denied.iter().map(|call| (call["capability"].as_str().unwrap(), call["target"].as_str().unwrap())).collect();
    let mut expected: Vec<_> = outside.iter().map(|(_, capability, target)| (*capability, target.as_str())).collect();
    told.sort_unstable();
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(told, expected, "each once");
    assert!(calls.iter().filter(|call| call["result"] != "denied").all(|call| call["result"] == "ok"), "{calls:?}");
    world.daemon.stop().await;
}

async fn a_failure_lists_what_was_denied(mode: Mode) {
    let site = Site::new(mode).await;
    let world = World::start(&site).await;
    let (closed, theirs) = (world.granted.url("/closed"), json!({"get": {"bucket": "theirs", "key": "k"}}));
    let task = reach::reach([theirs, must(get(&closed))]);
    let id = task.id;
    let ended = run(&site, &world.daemon, task).await;
    let failure = &ended["failure"];
    assert_eq!((&ended["state"], &failure["kind"]), (&json!("failed"), &json!("plugin_error")), "{ended}");
    assert_eq!(failure["detail"]["code"], "denied", "{ended}");
    assert_eq!(failure["detail"]["denied"], json!([format!("http {closed}"), "keyvalue theirs"]), "{ended}");
    assert!(failure["message"].as_str().unwrap_or_default().contains("http = "), "{ended}");
    assert_eq!(world.daemon.http().attempts(id).await.len(), 1, "no second attempt would have the grant");
    world.daemon.stop().await;
}
