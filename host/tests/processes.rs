//! The program as a process: what others of its user may read of it, which signals end it, and the modes of the files that it makes.

#![allow(clippy::unwrap_used, reason = "a test that panics is a test that failed")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

#[path = "../sandbox/tests/sandbox/guest.rs"]
#[allow(dead_code, reason = "the sandbox's own tests use all of it")]
mod guest;

use guest::Guest;

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A user without rights, where the test has all.
const USER: u32 = 65_534;
/// A value of the environment that must stay in it.
const CANARY: &str = "canary-4711";

/// A folder that belongs to the ordinary user, with the program in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("agentry");
        // The program may be where another user cannot go.
        std::fs::hard_link(env!("CARGO_BIN_EXE_agentry"), &program)
            .or_else(|_| std::fs::copy(env!("CARGO_BIN_EXE_agentry"), &program).map(|_| ()))
            .unwrap();
        let place = Place(folder);
        std::fs::create_dir(place.path("plugins")).unwrap();
        place.own("");
        place.own("plugins");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn own(&self, name: &str) {
        if geteuid().is_root() {
            chown(self.path(name), Some(USER), Some(USER)).unwrap();
        }
    }

    fn plugin(&self, name: &str, component: &[u8]) {
        let folder = self.path("plugins").join(name);
        std::fs::create_dir(&folder).unwrap();
        let manifest =
            format!("manifest = 1\n[plugin]\nname = \"{name}\"\nversion = \"0.1.0\"\ncomponent = \"{name}.wasm\"\n");
        std::fs::write(folder.join("plugin.toml"), manifest).unwrap();
        std::fs::write(folder.join(format!("{name}.wasm")), component).unwrap();
    }

    fn agentry(&self, arguments: &[&str]) -> Command {
        let mut command = ordinary(&self.path("agentry"));
        command.args(arguments).env_clear().env("CANARY", CANARY).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    fn up(&self) -> Command {
        self.agentry(&["up", "--listen", "127.0.0.1:0", "--data-dir", "data", "--plugins", "plugins"])
    }
}

/// A program under an ordinary user.
fn ordinary(program: &Path) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let (user, mut command) = (USER.to_string(), Command::new("setpriv"));
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(program);
    command
}

/// A process with what it writes to standard error. Dropped: killed.
struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (stderr, said) = (child.stderr.take().unwrap(), Arc::<Mutex<String>>::default());
        let keep = said.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                writeln!(keep.lock().unwrap(), "{line}").unwrap();
            }
        });
        Running { child, said }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn says(&mut self, part: &str) {
        until(&format!("{part:?} is logged"), || match self.child.try_wait().unwrap() {
            Some(status) => panic!("it ended ({status}):\n{}", self.said.lock().unwrap()),
            None => self.said.lock().unwrap().contains(part),
        });
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        until("it ends", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap()
    }

    /// Reads one of its files below `/proc` as another process of its user does.
    fn read(&self, file: &str) -> Output {
        let path = format!("/proc/{}/{file}", self.child.id());
        ordinary(Path::new("/bin/cat")).arg(path).stdin(Stdio::null()).output().unwrap()
    }

    /// Whether another process of its user finds a secret in its environment.
    fn is_readable(&self) -> bool {
        String::from_utf8_lossy(&self.read("environ").stdout).contains(CANARY)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_daemon_is_closed_to_other_processes_of_its_user() {
    let place = Place::new();
    let mut daemon = Running::start(place.up());
    daemon.says("ready http");
    assert!(!daemon.is_readable(), "its environment");
    let limits = daemon.read("limits");
    let limits = String::from_utf8_lossy(&limits.stdout);
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "core files");
    // Only root sees which files it has open. Without this one each run is slower.
    if geteuid().is_root() {
        let files = std::fs::read_dir(format!("/proc/{}/fd", daemon.child.id())).unwrap().flatten();
        let mut files = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        assert!(files.any(|file| file.ends_with("pagemap")), "its page map is open");
    }
}

#[test]
fn a_daemon_that_is_to_be_debugged_is_open_and_says_so() {
    let place = Place::new();
    let mut command = place.up();
    command.env("AGENTRY_DEBUGGABLE", "1");
    let mut daemon = Running::start(command);
    daemon.says("ready http");
    assert!(daemon.is_readable());
    daemon.says("AGENTRY_DEBUGGABLE is 1");
}

#[test]
fn the_process_of_the_isolation_lane_is_closed_as_well() {
    let place = Place::new();
    let mut command = place.agentry(&["isolate"]);
    command.stdin(Stdio::piped()); // and waits for its order
    let lane = Running::start(command);
    // Until it is started, and has begun.
    let is_itself = || std::fs::read_to_string(format!("/proc/{}/comm", lane.child.id())).unwrap().trim() == "agentry";
    until("it is closed", || is_itself() && !lane.is_readable());
}

#[test]
fn sighup_ends_no_daemon() {
    let place = Place::new();
    let mut daemon = Running::start(place.up());
    daemon.says("ready http");
    daemon.signal(Signal::HUP);
    daemon.says("SIGHUP ignored");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().code(), Some(0), "{}", daemon.said());
}

#[test]
fn signals_are_obeyed_while_plugins_are_compiled() {
    let place = Place::new();
    place.plugin("endless", &endless().build());
    let mut daemon = Running::start(place.up());
    until("it compiles", || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap().flatten();
        let mut lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
        lists.any(|list| !list.trim().is_empty())
    });
    daemon.signal(Signal::HUP);
    daemon.says("SIGHUP ignored");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().code(), Some(0), "{}", daemon.said());
    assert!(!daemon.said().contains("plugins loaded"), "it waited for the compiler: {}", daemon.said());
}

#[test]
fn what_is_made_is_for_its_user_alone() {
    let place = Place::new();
    std::fs::write(place.path("agentry.toml"), "data.dir = \"deep/data\"\n").unwrap();
    let migrated = place.agentry(&["migrate"]).output().unwrap();
    assert!(migrated.status.success() && migrated.stderr.is_empty(), "{migrated:?}");
    let mode = |name: &str| std::fs::metadata(place.path(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("deep/data"), mode("deep/data/agentry.sqlite")), (0o700, 0o600));
    // One that was there before keeps its mode, and the command that closes it is named.
    std::fs::set_permissions(place.path("deep/data"), PermissionsExt::from_mode(0o755)).unwrap();
    let migrated = place.agentry(&["migrate"]).output().unwrap();
    let said = String::from_utf8_lossy(&migrated.stderr);
    let remedy = format!("`chmod -R go= {}`", place.path("deep/data").display());
    assert!(migrated.status.success() && said.contains("mode 0755") && said.contains(&remedy), "{said}");
    assert_eq!(mode("deep/data"), 0o755);
    let mut daemon = Running::start({
        let mut command = place.agentry(&["up", "--listen", "127.0.0.1:0", "--plugins", "plugins"]);
        command.stdin(Stdio::null());
        command
    });
    daemon.says(&remedy);
    daemon.says("ready http");
    let open = walk(&place.path("deep/data")).into_iter().filter(|(_, mode)| mode & 0o077 != 0);
    let open: Vec<_> = open.filter(|(path, _)| *path != place.path("deep/data")).collect();
    assert!(open.is_empty(), "{open:?}");
}

/// Everything below a folder, itself included, with its mode.
fn walk(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = vec![(folder.to_owned(), std::fs::metadata(folder).unwrap().mode() & 0o777)];
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match std::fs::metadata(&path) {
            Ok(file) if file.is_dir() => found.extend(walk(&path)),
            Ok(file) => found.push((path, file.mode() & 0o777)),
            Err(_) => {} // removed meanwhile
        }
    }
    found
}

/// A guest with functions so large that no compiler is done with them soon.
fn endless() -> Guest {
    let mut core = String::from("(func (param i32) (result i32) (local i32 i32 i32 i32)\n");
    let blocks = 6_000;
    core.push_str(&"(block ".repeat(blocks));
    core.push_str("(br_table");
    for target in 0..blocks {
        write!(core, " {target}").unwrap();
    }
    core.push_str(" (local.get 0))");
    for n in 0..blocks {
        write!(core, ") (local.set {} (i32.add (local.get 2) (i32.const {n})))", n % 4 + 1).unwrap();
    }
    core.push_str("(local.get 1))\n");
    Guest { core: core.repeat(8), ..Guest::default() }
}
