//! A daemon that is killed outright takes its tool servers along, even those that do not hear their input end.
//!
//! This program plays three parts, told apart by its first argument: the test, the daemon that is killed, and the supervisor.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that panics is a test that failed; its parts talk"
)]

use agentry_outbound::Secret;
use agentry_outbound::tools::{
    Content, ServerSettings, Session, Supervisor, ToolSettingsError, Tools, Transport, supervise,
};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How long what must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The parts besides the test's own, named so that no filter of a test runner is one of them.
const SUPERVISE: &str = "part=supervise";
const DAEMON: &str = "part=daemon";
const ORDINARY: &str = "part=ordinary";

/// A test; returns the reason if it was skipped.
type Test = fn() -> Option<&'static str>;

/// The tests by name.
const TESTS: [(&str, Test); 10] = [
    ("a_daemon_that_is_killed_takes_its_servers_along", || ran(a_daemon_that_is_killed_takes_its_servers_along)),
    ("a_supervised_server_is_ended_like_any_other", || ran(a_supervised_server_is_ended_like_any_other)),
    ("a_server_that_cannot_be_started_is_told_the_same", || ran(a_server_that_cannot_be_started_is_told_the_same)),
    ("what_a_server_leaves_ends_with_it", || ran(what_a_server_leaves_ends_with_it)),
    ("what_a_server_leaves_is_let_go_when_it_ends", || ran(what_a_server_leaves_is_let_go_when_it_ends)),
    ("a_server_of_another_user_has_none_of_the_daemons_rights", || {
        as_root(a_server_of_another_user_has_none_of_the_daemons_rights)
    }),
    ("a_server_without_a_user_inherits_no_capability", a_server_without_a_user_inherits_no_capability),
    ("a_user_without_the_name_stops_the_start", || ran(a_user_without_the_name_stops_the_start)),
    ("a_variable_of_the_linker_beside_a_user_stops_the_start", || {
        as_root(a_variable_of_the_linker_beside_a_user_stops_the_start)
    }),
    ("a_user_without_the_right_stops_the_start", || as_root(a_user_without_the_right_stops_the_start)),
];

fn ran(test: fn()) -> Option<&'static str> {
    test();
    None
}

fn as_root(test: fn()) -> Option<&'static str> {
    if is_root() { ran(test) } else { Some("it needs root") }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_ref().and_then(|part| part.to_str()) {
        Some(SUPERVISE) => return supervise(arguments).into(),
        Some(DAEMON) => return daemon(),
        Some(ORDINARY) => return ordinary(),
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
    let mut ignored = 0;
    for (name, test) in &chosen {
        match test() {
            None => println!("test {name} ... ok"),
            Some(reason) => {
                ignored += 1;
                println!("test {name} ... ignored, {reason}");
            }
        }
    }
    let (passed, out) = (chosen.len() - ignored, TESTS.len() - chosen.len());
    println!("\ntest result: ok. {passed} passed; 0 failed; {ignored} ignored; 0 measured; {out} filtered out\n");
    ExitCode::SUCCESS
}

/// One that other users may run too. That of a person may be in a home folder.
fn python_for_all() -> String {
    let system = "/usr/bin/python3";
    if std::path::Path::new(system).exists() { system.to_owned() } else { python() }
}

fn python() -> String {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    String::from_utf8(output.expect("this test needs python3 in PATH").stdout).unwrap().trim().to_owned()
}

/// A scripted server, supervised by this program.
fn tools(mode: &str) -> (Tools, Session) {
    let tools = tools_of(mode, None).unwrap();
    let session = tools.session("planner", BTreeMap::from([("it".to_owned(), vec!["*".to_owned()])]));
    (tools, session)
}

fn tools_of(mode: &str, user: Option<&str>) -> Result<Tools, ToolSettingsError> {
    tools_with(mode, user, BTreeMap::new())
}

fn tools_with(mode: &str, user: Option<&str>, env: BTreeMap<String, Secret>) -> Result<Tools, ToolSettingsError> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/server.py");
    let settings = ServerSettings {
        transport: Transport::Stdio {
            command: if user.is_some() { python_for_all() } else { python() },
            args: ["-I", "-S", script, mode].map(str::to_owned).to_vec(),
            env,
            dir: None,
            user: user.map(str::to_owned),
        },
        start: PATIENCE,
        call: PATIENCE,
        output_bytes: 64 << 10,
    };
    let supervisor = Supervisor { program: std::env::current_exe().unwrap(), arguments: vec![SUPERVISE.into()] };
    Tools::supervised(BTreeMap::from([("it".to_owned(), settings)]), &supervisor)
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

/// Whether a supervisor starts it or the daemon itself.
fn a_server_that_cannot_be_started_is_told_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    let supervisor = Supervisor { program: std::env::current_exe().unwrap(), arguments: vec![SUPERVISE.into()] };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for lines in ["#!/no/such/interpreter\n", "no program", "#!/usr/bin/env no-such-command-x\n"] {
        std::fs::write(&path, lines).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let settings = || {
            let command = path.to_str().unwrap().to_owned();
            let transport = Transport::Stdio { command, args: Vec::new(), env: BTreeMap::new(), dir: None, user: None };
            let settings = ServerSettings { transport, start: PATIENCE, call: PATIENCE, output_bytes: 64 << 10 };
            BTreeMap::from([("it".to_owned(), settings)])
        };
        let told = |tools: Tools| {
            runtime.block_on(async {
                let session = tools.session("planner", BTreeMap::from([("it".to_owned(), vec!["*".to_owned()])]));
                let error = session.list(tokio::time::Instant::now() + PATIENCE).await.unwrap_err().to_string();
                tools.close().await;
                error.split_once("; it is tried again in ").unwrap().0.to_owned()
            })
        };
        let alone = told(Tools::new(settings()).unwrap());
        assert_eq!(told(Tools::supervised(settings(), &supervisor).unwrap()), alone);
        assert!(alone.contains("cannot be started") || alone.contains("no-such-command-x"), "{alone}");
    }
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

/// The user and the group that no file belongs to.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn a_server_of_another_user_has_none_of_the_daemons_rights() {
    // A supplementary group that the server must not inherit.
    nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(0), nix::unistd::Gid::from_raw(4)]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for name in ["nobody", "65534"] {
            let tools = tools_of("well", Some(name)).unwrap();
            let session = tools.session("planner", BTreeMap::from([("it".to_owned(), vec!["*".to_owned()])]));
            let who: serde_json::Value = serde_json::from_str(&text(&session, "whoami").await).unwrap();
            let pid = who["pid"].as_u64().unwrap();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let field = |name: &str| {
                let found = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                found.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
            };
            let all = |id: u32| vec![id.to_string(); 4];
            let group = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(NOBODY)).unwrap().unwrap().gid.as_raw();
            assert_eq!(
                (field("Uid:"), field("Gid:")),
                (all(NOBODY), all(group)),
                "real, effective, saved and of files"
            );
            assert_eq!(field("Groups:"), Vec::<String>::new());
            for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
                assert_eq!(u64::from_str_radix(&field(set)[0], 16), Ok(0), "{set}");
            }
            assert_eq!(who["env"]["HOME"], nobodys_home());
            assert_eq!(who["files"], serde_json::json!([]), "its folder is its own and empty");
            let write = format!(r#"{{"path": "{}/note", "write": true}}"#, who["cwd"].as_str().unwrap());
            assert_eq!(called(&session, "file", &write).await, "ok");
            let own = format!("/proc/{}/environ", std::process::id());
            assert!(std::fs::read(&own).is_ok(), "the daemon's user can read it");
            let read = format!(r#"{{"path": "{own}"}}"#);
            assert_eq!(called(&session, "file", &read).await, "PermissionError");
            tools.close().await;
            all_end(&[u32::try_from(pid).unwrap()], "a server of another user is left after close");
        }
    });
}

/// As a daemon of an ordinary user is started that may start servers as other users.
fn a_server_without_a_user_inherits_no_capability() -> Option<&'static str> {
    const RIGHTS: &str = "+setuid,+setgid,+kill";
    let nobody = NOBODY.to_string();
    let started = |program: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            &nobody,
            "--regid",
            &nobody,
            "--clear-groups",
            "--inh-caps",
            RIGHTS,
            "--ambient-caps",
            RIGHTS,
        ]);
        command.args(program).stdin(Stdio::null()).output()
    };
    let ambient = |output: &std::process::Output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("CapAmb:")).map(str::trim).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{output:?}"))
    };
    if !is_root() || !started(&["true"]).is_ok_and(|ran| ran.status.success()) {
        return Some("it needs root and setpriv of util-linux");
    }
    let status = ["cat", "/proc/self/status"];
    assert_ne!(ambient(&started(&status).unwrap()), "0000000000000000", "this test gives capabilities");
    // That of this test may be in a folder that no other user may enter.
    let folder =
        tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    let program = folder.path().join("supervisor");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let (program, daemon) = (program.display().to_string(), std::process::id().to_string());
    for user in ["-", "65533:65533"] {
        let supervised = started(&[&program, SUPERVISE, &daemon, user, "/bin/cat", "/proc/self/status"]).unwrap();
        assert_eq!(ambient(&supervised), "0000000000000000", "{user}");
    }
    None
}

fn nobodys_home() -> String {
    nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(NOBODY)).unwrap().unwrap().dir.display().to_string()
}

fn a_user_without_the_name_stops_the_start() {
    let error = tools_of("well", Some("no-such-user")).unwrap_err().to_string();
    assert!(error.starts_with("tools.it.user: there is no user \"no-such-user\""), "{error}");
}

fn a_variable_of_the_linker_beside_a_user_stops_the_start() {
    for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "GCONV_PATH"] {
        let env = || BTreeMap::from([(name.to_owned(), Secret::new("/tmp/x"))]);
        let error = tools_with("well", Some("nobody"), env()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("tools.it.env: {name} would also change")), "{error}");
        assert!(tools_with("well", None, env()).is_ok(), "the server has the rights of its supervisor");
    }
}

fn a_user_without_the_right_stops_the_start() {
    let mut ordinary = Command::new(std::env::current_exe().unwrap());
    let output = ordinary.arg(ORDINARY).uid(NOBODY).gid(NOBODY).output().unwrap();
    let error = String::from_utf8(output.stdout).unwrap();
    assert!(error.starts_with("tools.it.user: a program is started as another user only by root"), "{error:?}");
    assert!(error.contains("or leave user out"), "{error}");
}

/// Errors for a daemon of an ordinary user.
fn ordinary() -> ExitCode {
    println!("{}", tools_of("well", Some("0")).unwrap_err());
    ExitCode::SUCCESS
}
