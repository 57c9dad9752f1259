//! A daemon that is killed outright takes its tool servers along, even those that do not hear their input end.
//!
//! This program plays three parts, told apart by its first argument: the test, the daemon that is killed, and the supervisor.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that panics is a test that failed; its parts talk"
)]

use agentry_outbound::tools::{Content, ServerSettings, Session, Supervisor, Tools, Transport, supervise};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How long what must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The parts besides the test's own, named so that no filter of a test runner is one of them.
const SUPERVISE: &str = "part=supervise";
const DAEMON: &str = "part=daemon";

/// The tests by name.
const TESTS: [(&str, fn()); 4] = [
    ("a_daemon_that_is_killed_takes_its_servers_along", a_daemon_that_is_killed_takes_its_servers_along),
    ("a_supervised_server_is_ended_like_any_other", a_supervised_server_is_ended_like_any_other),
    ("what_a_server_leaves_ends_with_it", what_a_server_leaves_ends_with_it),
    ("what_a_server_leaves_is_let_go_when_it_ends", what_a_server_leaves_is_let_go_when_it_ends),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_ref().and_then(|part| part.to_str()) {
        Some(SUPERVISE) => return supervise(arguments).into(),
        Some(DAEMON) => return daemon(),
        _ => {}
    }
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let skipped: Vec<&String> = asked.windows(2).filter(|pair| pair[0] == "--skip").map(|pair| &pair[1]).collect();
    let filters: Vec<&String> = asked.iter().filter(|a| !a.starts_with('-') && !skipped.contains(a)).collect();
    let wanted = |name: &str| {
        (filters.is_empty() || filters.iter().any(|filter| name.contains(*filter)))
            && !skipped.iter().any(|skip| name.contains(*skip))
    };
    if asked.iter().any(|argument| argument == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    // As the usual harness writes it, so that whoever counts tests counts these. One that panics ends the program.
    let chosen: Vec<_> = TESTS.iter().filter(|(name, _)| wanted(name)).collect();
    println!("\nrunning {} tests", chosen.len());
    for (name, test) in &chosen {
        test();
        println!("test {name} ... ok");
    }
    let out = TESTS.len() - chosen.len();
    println!("\ntest result: ok. {} passed; 0 failed; 0 ignored; 0 measured; {out} filtered out\n", chosen.len());
    ExitCode::SUCCESS
}

fn python() -> String {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    String::from_utf8(output.expect("this test needs python3 in PATH").stdout).unwrap().trim().to_owned()
}

/// A scripted server, supervised by this program.
fn tools(mode: &str) -> (Tools, Session) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/server.py");
    let settings = ServerSettings {
        transport: Transport::Stdio {
            command: python(),
            args: ["-I", "-S", script, mode].map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
            dir: None,
        },
        start: PATIENCE,
        call: PATIENCE,
        output_bytes: 64 << 10,
    };
    let supervisor = Supervisor { program: std::env::current_exe().unwrap(), arguments: vec![SUPERVISE.into()] };
    let tools = Tools::supervised(BTreeMap::from([("it".to_owned(), settings)]), &supervisor).unwrap();
    let session = tools.session("planner", BTreeMap::from([("it".to_owned(), vec!["*".to_owned()])]));
    (tools, session)
}

async fn text(session: &Session, tool: &str) -> String {
    called(session, tool, "{}").await
}

async fn called(session: &Session, tool: &str, arguments: &str) -> String {
    let output = session.call("it", tool, arguments, tokio::time::Instant::now() + PATIENCE).await.unwrap();
    match output.content.as_slice() {
        [Content::Text(text)] => text.clone(),
        other => panic!("{tool} gave {other:?}"),
    }
}

/// The ids of a server, and of what it started: a child, and one that left its group, its session and its parent.
async fn pids(session: &Session) -> [u32; 3] {
    let who: serde_json::Value = serde_json::from_str(&text(session, "whoami").await).unwrap();
    let server = u32::try_from(who["pid"].as_u64().unwrap()).unwrap();
    assert_ne!(who["group"].as_u64().unwrap(), u64::from(server), "the server has no supervisor");
    [server, text(session, "fork").await.parse().unwrap(), text(session, "daemonize").await.parse().unwrap()]
}

/// The daemon: says who its children are, and does nothing until it is killed.
fn daemon() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (_tools, session) = tools("deaf");
        let [server, child, gone] = pids(&session).await;
        println!("{server} {child} {gone}");
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

fn is_gone(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    matches!(stat.rsplit(") ").next().and_then(|rest| rest.chars().next()), Some('Z' | 'X'))
}

/// Waits until all of them ended.
fn all_end(pids: &[u32], otherwise: &str) {
    let began = Instant::now();
    while !pids.iter().all(|pid| is_gone(*pid)) {
        assert!(began.elapsed() < PATIENCE, "{otherwise}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Is killed with whoever waits for it.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_daemon_that_is_killed_takes_its_servers_along() {
    let mut daemon = Command::new(std::env::current_exe().unwrap());
    let mut daemon = Daemon(daemon.arg(DAEMON).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(daemon.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pids: Vec<u32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 3, "the daemon said {line:?}");
    assert!(pids.iter().all(|pid| !is_gone(*pid)), "they were gone before");
    drop(daemon);
    all_end(&pids, "a server outlives its daemon");
}

fn a_supervised_server_is_ended_like_any_other() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for mode in ["well", "deaf"] {
            let (tools, session) = tools(mode);
            let pids = pids(&session).await;
            tools.close().await;
            all_end(&pids, "a server is left after close");
        }
    });
}

/// Those of a server that ends by itself, and those of one that is dropped with everything else.
fn what_a_server_leaves_ends_with_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pids = runtime.block_on(async {
        let (tools, session) = tools("well");
        let left = pids(&session).await;
        let died = session.call("it", "die", "{}", tokio::time::Instant::now() + PATIENCE).await;
        assert!(died.is_err(), "{died:?}");
        all_end(&left, "what a server left outlives it");
        tools.close().await;
        let (tools, session) = self::tools("well");
        let left = pids(&session).await;
        std::mem::forget((tools, session)); // closed by nobody
        left
    });
    drop(runtime);
    all_end(&pids, "what a server left outlives its runtime");
}

/// Otherwise they were in the table of processes for as long as the server lives.
fn what_a_server_leaves_is_let_go_when_it_ends() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (tools, session) = tools("well");
        let short: u32 = called(&session, "daemonize", r#"{"for": 0.01}"#).await.parse().unwrap();
        let began = Instant::now();
        while std::path::Path::new(&format!("/proc/{short}")).exists() {
            assert!(began.elapsed() < PATIENCE, "a process that ended is still in the table");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        text(&session, "whoami").await;
        tools.close().await;
    });
}
