//! The whole table of attacks, in one daemon over RabbitMQ and Postgres.
//!
//! `AGENTRY_TEST_CASE=loop-in` plays the cases whose name contains that.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use adversary::canary::Canary;
use adversary::neighbour::Neighbour;
use adversary::process::Held;
use adversary::{Case, Stage, Table, cases, install, oracle, patience};
use e2e::invariants::{self, Expected};
use e2e::{Daemon, Mode, Setup, Site, eventually, patience as most};

/// The plugin that echoes: for guests that cannot be honest, and the neighbour.
pub const ECHO: &str = "echo";

/// A daemon for these cases, and nothing else installed but [`ECHO`].
pub fn setup(site: &Site, cases: &[Case]) -> Setup {
    let plugins = site.folder().join("plugins");
    install::case(&plugins, &Case::new(ECHO, adversary::guest::Guest::default()));
    for case in cases {
        install::case(&plugins, case);
    }
    site.setup().plugins([plugins]).set("log.level", "info").set("database.pool", 4)
}

/// What is asked for by name.
pub fn wanted(id: &str) -> bool {
    id.contains(&std::env::var("AGENTRY_TEST_CASE").unwrap_or_default())
}

#[tokio::test]
async fn no_attack_harms_the_host_or_the_next_task() {
    let _beside = if adversary::full() { None } else { Some(adversary::MACHINE.read().await) };
    let _alone = if adversary::full() { Some(adversary::MACHINE.write().await) } else { None };
    let secret = Canary::new();
    let site = Site::new(Mode::Services).await;
    // A door that is open for everybody on this machine, but for guests.
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = door.local_addr().expect("its address").port();
    let cases: Vec<Case> =
        cases::all().into_iter().chain([cases::network(port)]).filter(|case| wanted(case.id)).collect();
    assert!(!cases.is_empty(), "no case has such a name");
    std::fs::write(site.folder().join("canary.txt"), secret.secret("file")).expect("a file");
    // Its open files are counted from outside, which only root may do otherwise.
    let setup = setup(&site, &cases).variable("AGENTRY_DEBUGGABLE", "1");
    let daemon = secret.plant(&site, setup).start().await;
    let mut stage = Stage::new(&site, &daemon, ECHO);
    let mut table = Table::new("attacks");

    warm(&mut stage).await;
    let held = stage.process.held();
    let before = if adversary::full() { Some(quiet(&mut stage).await) } else { None };
    let neighbour = before.map(|_| Neighbour::of(daemon.http(), ECHO));
    for case in &cases {
        let seen = stage.play(case).await;
        let violations = oracle::violations(case, &seen);
        let gone = seen.pid_changed;
        table.add(case, &seen, &violations);
        if gone {
            table.hold();
            return;
        }
    }
    if let (Some(neighbour), Some(before)) = (neighbour, before) {
        let (during, runs, ids) = neighbour.leave().await;
        stage.ids.extend(ids);
        let allowed = (before * 2).max(before + Duration::from_millis(30)).mul_f64(patience());
        let wrong = (during > allowed).then(|| format!("{during:.0?}, and {allowed:.0?} is the most"));
        table.row(
            "an honest neighbour",
            &format!("{runs} runs, p99 {before:.0?} before"),
            &format!("{during:.0?}"),
            wrong.as_slice(),
        );
    }
    let left = left(&stage, held).await;
    table.row("what is left behind", &format!("{held:?}"), "", &left);
    let said = daemon.said();
    let forged =
        said.lines().filter(|line| line.contains(cases::FORGED) && line.starts_with("1999")).map(str::to_owned);
    table.row("forged lines", "in the daemon's own log", "", &forged.collect::<Vec<_>>());
    let escapes = said.lines().filter(|line| line.contains('\u{1b}')).map(str::to_owned);
    table.row("escapes", "in the daemon's own log", "", &escapes.take(1).collect::<Vec<_>>());
    let leaks = secret.leaks(&site, &daemon, &stage.ids).await;
    table.row("secrets", "in the log, the API, the tables, the data", "", &leaks);
    let ids = std::mem::take(&mut stage.ids);
    drop(stage);
    table.hold();
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

/// Until every pool is as large as it will be.
pub async fn warm(stage: &mut Stage<'_>) {
    for _ in 0..20 {
        let (_, task) = stage.run(ECHO, serde_json::json!(1), Duration::from_secs(10)).await;
        assert_eq!(task.expect("it ends")["state"], "completed");
    }
}

/// How long the neighbour takes when nobody attacks.
async fn quiet(stage: &mut Stage<'_>) -> Duration {
    let neighbour = Neighbour::of(stage.daemon.http(), ECHO);
    tokio::time::sleep(Duration::from_secs(15)).await; // 150 runs of it: the 99th percentile of fewer says little
    let (before, _, ids) = neighbour.leave().await;
    stage.ids.extend(ids);
    before
}

/// Waits until the process holds no more than it did, but for what its pools may have grown by.
async fn left(stage: &Stage<'_>, held: Held) -> Vec<String> {
    // Connections of the tests' client and of the pool; the runtimes' threads for blocking work end after ten seconds.
    const FILES: usize = 8;
    const THREADS: usize = 4;
    let (began, within) = (Instant::now(), most() / 2);
    loop {
        let now = stage.process.held();
        if now.files <= held.files + FILES && now.threads <= held.threads + THREADS {
            return Vec::new();
        }
        if began.elapsed() > within {
            return vec![format!("{now:?}: {:?} {:?}", stage.process.threads(), stage.process.files())];
        }
        tokio::time::sleep(Duration::from_millis(100)).await; // between two looks
    }
}

/// Waits until a plugin is served.
pub async fn served(daemon: &Daemon, name: &str) {
    eventually(&format!("{name} is served"), async || {
        let answer = daemon.http().get(&format!("/v1/plugins/{name}")).await;
        if answer.status == 200 && answer.json()["state"] == "ready" { Ok(()) } else { Err(answer.text) }
    })
    .await;
}
