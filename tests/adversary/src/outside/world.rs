//! A daemon with everything that plugins may be granted: servers, models, tools, folders, and names that lie.

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::outside::{Play, Request, Server, llm, mcp};
use e2e::{Daemon, Mode, Setup, Site, plugin};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::names::{NOWHERE, Names};

/// What the host adds to requests to `web`, and to nobody else's.
pub const WEB_SECRET: &str = "canary-web-4f81b0c7";
/// What the host would add to requests to an address that nobody opened.
pub const PLAIN_SECRET: &str = "canary-plain-a90d33e2";
/// The key for the models' server.
pub const KEY: &str = "canary-key-7be6012d";
/// What the tool servers are given.
pub const TOOL_SECRET: &str = "canary-tool-58c2fe19";
/// What only the daemon's environment holds.
pub const OWN_SECRET: &str = "canary-own-c3d7a645";
/// A setting that nobody is granted.
pub const SETTING: &str = "canary-setting-02ee9f";

/// Limits of those that are to run into them.
const POOR: &[(&str, u64)] = &[
    ("http_requests", 4),
    ("http_in_flight", 2),
    ("http_request_kib", 1),
    ("http_response_kib", 1),
    ("llm_requests", 2),
    ("tool_calls", 2),
    ("store_calls", 2),
];

/// The guest `reach` under these names. `free` is granted all that there is, `narrow` one of each, and `poor` all in small amounts.
/// `daily` has a budget, `crowded` a server with too many tools. `many` and `large` have kept as many and as much as they may.
pub const PLUGINS: [(&str, &[(&str, u64)]); 7] = [
    ("free", &[("store_calls", 1_000)]),
    ("narrow", &[]),
    ("poor", POOR),
    ("daily", &[]),
    ("crowded", &[]),
    ("many", &[]),
    ("large", &[]),
];

/// Dropped in this order: the daemon before what it is in.
pub struct World {
    /// The daemon.
    pub daemon: Daemon,
    /// Its place.
    pub site: Site,
    /// Granted; to `narrow` below `/public` alone.
    pub web: Server,
    /// Opened by the operator, and granted to `free` alone.
    pub closed: Server,
    /// Opened by nobody.
    pub inside: Server,
    /// Answers for every model.
    pub models: Server,
    /// When the model `single` was asked.
    pub times: Arc<Mutex<Vec<Instant>>>,
    /// Opened, and says nothing: a handshake with it never ends.
    pub silent: TcpListener,
    _names: Names,
}

impl World {
    /// Starts it all, the daemon as `change` would have it, with those of the [`PLUGINS`] that have such a name.
    pub async fn start(change: &dyn Fn(Setup) -> Setup, plugins: &[&str]) -> World {
        let site = Site::new(Mode::Services).await;
        let (closed, inside) = (listens().await, listens().await);
        let (elsewhere, times) = (inside.url("/redirected"), Arc::<Mutex<Vec<Instant>>>::default());
        let web = Server::start(move |request| web(request, &elsewhere)).await;
        let asked = times.clone();
        let models = llm::start(move |prompt, request| model(prompt, request, &asked)).await;
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let names = Names::start().await;
        let opened = [web.port(), closed.port(), silent.local_addr().expect("its address").port()];
        let setup = tools(folders(settings(&site, &models, &web, plugins), site.folder()), site.folder())
            .set("http.private", opened.map(|port| format!("127.0.0.1:{port}")).to_vec())
            .set("http.nameservers", vec![names.address.to_string()]);
        let daemon = change(policies(setup, &web)).start().await;
        keep(&site).await;
        World { daemon, site, web, closed, inside, models, times, silent, _names: names }
    }
}

async fn listens() -> Server {
    Server::start(|_| Play::text(200, "here")).await
}

/// The head of an answer with so long a body.
fn head(length: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n").into_bytes()
}

fn web(request: &Request, elsewhere: &str) -> Play {
    match request.target.rsplit('/').next().unwrap_or_default() {
        "hang" => Play::Hang,
        "stall" => Play::Stall([head(100), b"some".to_vec()].concat()),
        "drip" => Play::Drip(head(100_000), Duration::from_millis(100)),
        "large" => Play::text(200, "x".repeat(2_000)),
        "echo" => Play::text(200, format!("{:?}", request.headers)),
        "away" => Play::Reply(302, vec![("location".into(), elsewhere.to_owned())], Vec::new()),
        _ => Play::text(200, "here"),
    }
}

fn model(prompt: &str, request: &Request, times: &Mutex<Vec<Instant>>) -> Play {
    match prompt {
        "hang" => Play::Hang,
        "single" => {
            times.lock().expect("no panic while it is held").push(Instant::now());
            Play::Hang
        }
        "stall" => Play::Stall([head(100), b"{".to_vec()].concat()),
        "drip" => Play::Drip(head(100_000), Duration::from_millis(100)),
        "break" => Play::Raw([head(100), b"{".to_vec()].concat()),
        "echo" => llm::says(&format!("{:?}", request.headers)),
        "json" => llm::says("\"aa\""),
        "large" => long(200, &llm::completion("@", "stop"), "x", 17 << 20),
        "values" => {
            let mut answer = llm::completion("hello", "stop");
            answer["junk"] = json!([0, "@"]);
            long(200, &answer, "\",\"", 1_100_000)
        }
        "error" => long(400, &json!({"error": {"message": "@"}}), "x", 8 << 20),
        _ => llm::says("hello"),
    }
}

/// An answer with a text many times in the place of `@`. Put together as text: in a debug build a large JSON value takes seconds.
fn long(status: u16, answer: &Value, text: &str, times: usize) -> Play {
    let body = answer.to_string().replace('@', &text.repeat(times));
    Play::Reply(status, vec![("content-type".into(), "application/json".into())], body.into_bytes())
}

fn settings(site: &Site, models: &Server, web: &Server, wanted: &[&str]) -> Setup {
    let plugins = site.folder().join("plugins");
    for (name, limits) in PLUGINS.into_iter().filter(|(name, _)| wanted.contains(name)) {
        install(&plugins, name, limits);
    }
    let mut setup = site.setup().plugins([plugins]).set("log.level", "info").set("worker.slots", 12);
    for (key, seconds) in [("connect", 2), ("first_byte", 2), ("idle", 2), ("total", 4)] {
        setup = setup.set(&format!("http.{key}_seconds"), seconds);
    }
    for (name, more) in
        [("default", json!({})), ("again", json!({"retries": 1})), ("single", json!({"concurrency": 1}))]
    {
        let provider = json!({
            "kind": "openai", "url": models.url("/v1"), "key": KEY, "retries": 0,
            "first_byte_seconds": 2, "idle_seconds": 2, "total_seconds": 4,
        });
        for (key, value) in provider.as_object().into_iter().chain(more.as_object()).flatten() {
            setup = setup.set(&format!("llm.providers.{name}.{key}"), value.clone());
        }
        for (key, value) in [("provider", json!(name)), ("model", json!("model-1")), ("max_output_tokens", json!(100))]
        {
            setup = setup.set(&format!("llm.models.{name}.{key}"), value);
        }
    }
    let secrets = [("web", web.url("/"), WEB_SECRET), ("plain", format!("http://[{NOWHERE}]"), PLAIN_SECRET)];
    for (name, requests, value) in secrets {
        setup = setup
            .set(&format!("http.secrets.{name}.requests"), format!("GET {requests}"))
            .set(&format!("http.secrets.{name}.header"), format!("x-{name}"))
            .set(&format!("http.secrets.{name}.value"), value);
    }
    setup
        .set("config.region", "north")
        .set("config.secret", SETTING)
        .set("plugins.daily.budgets.http_requests_per_day", 1)
        .variable("OWN_SECRET", OWN_SECRET)
}

fn folders(setup: Setup, folder: &Path) -> Setup {
    ["corpus", "theirs"].into_iter().fold(setup, |setup, name| {
        let path = folder.join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        std::fs::write(path.join("page"), name).expect("a file");
        setup.set(&format!("folders.{name}"), path.to_string_lossy().into_owned())
    })
}

fn tools(setup: Setup, folder: &Path) -> Setup {
    let file = folder.join("tools.py");
    std::fs::write(&file, include_str!("tools.py")).expect("the tool server's program is written");
    let python = mcp::command(folder).remove(0);
    let command = vec![python, file.to_string_lossy().into_owned()];
    let flood = [command.clone(), vec!["1001".to_owned()]].concat();
    [("mock", command.clone()), ("loud", command), ("flood", flood)].into_iter().fold(
        setup,
        |setup, (name, command)| {
            let key = |key: &str| format!("tools.{name}.{key}");
            let setup = setup.set(&key("command"), command).set(&key("env.TOOL_SECRET"), TOOL_SECRET);
            setup.set(&key("output_kib"), 64).set(&key("call_seconds"), 2)
        },
    )
}

fn policies(setup: Setup, web: &Server) -> Setup {
    let everything = [
        ("http", json!(["* http://*:*", "* https://*:*"])),
        ("llm", json!(["*"])),
        ("tools.mock", json!(["*"])),
        ("tools.loud", json!(["*"])),
        ("keyvalue", json!(["*"])),
        ("memory", json!(["*"])),
        ("config", json!(["region"])),
    ];
    let little = [
        ("http", json!([format!("GET {}", web.url("/public"))])),
        ("llm", json!(["default"])),
        ("tools.mock", json!(["echo"])),
        ("keyvalue", json!(["cache"])),
        ("memory", json!(["notes"])),
        ("config", json!(["region"])),
        ("folders", json!(["corpus"])),
    ];
    PLUGINS.into_iter().fold(setup, |setup, (name, _)| {
        let given = if name == "narrow" { &little } else { &everything };
        let policy = |setup: Setup, (capability, policy): &(&str, Value)| match (name, *capability) {
            ("crowded", "tools.mock") => setup.set("plugins.crowded.capabilities.tools.flood", policy.clone()),
            ("crowded", "tools.loud") => setup,
            _ => setup.set(&format!("plugins.{name}.capabilities.{capability}"), policy.clone()),
        };
        given.iter().fold(setup, policy)
    })
}

/// The guest `reach` under another name, which wishes for everything, with these limits besides.
pub fn install(plugins: &Path, name: &str, limits: &[(&str, u64)]) -> std::path::PathBuf {
    let (aside, folder) = (plugins.with_extension("aside"), plugins.join(name));
    std::fs::create_dir_all(plugins).expect("a folder");
    std::fs::rename(plugin::install("reach", &aside), &folder).expect("it is moved");
    let limits: String = limits.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    let wishes = "tools = { mock = [\"*\"], loud = [\"*\"], flood = [\"*\"] }";
    plugin::edit(&folder, "name = \"reach\"", &format!("name = \"{name}\""));
    plugin::edit(&folder, "timeout_seconds = 60\n", &format!("timeout_seconds = 8\n{limits}"));
    plugin::edit(&folder, "tools = { mock = [\"*\"] }", wishes);
    folder
}

/// What was kept before: written down, and not there.
async fn keep(site: &Site) {
    let mut connection = PgConnection::connect(&site.database_url()).await.expect("the test's database answers");
    let kept = "INSERT INTO agentry.stores (plugin, keys, bytes, memories) \
                VALUES ('many', 10000, 0, 10000), ('large', 0, 67108864, 0)";
    sqlx::query(kept).execute(&mut connection).await.expect("what was kept is written down");
}
