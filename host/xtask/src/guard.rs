//! The guard: a hidden command of xtask, started by [`crate::process`] around every program.
//!
//! It becomes the leader of a session (a terminal's Ctrl-C reaches only xtask, which then ends things in order) and, on
//! Linux, the reaper of its descendants: a daemon that detaches itself (`epmd`, a database's workers) becomes the
//! guard's child instead of being lost. When the program ends, or the lifeline does, nothing of it stays.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::process::Terms;

/// The guard's own failure, as `env` and shells say it: the program was not started.
const NOT_STARTED: u8 = 126;

/// How long killed processes may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// What asks a program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StopSignal {
    /// Interrupt.
    Int,
    /// Quit.
    Quit,
    /// Terminate.
    Term,
    /// Nothing asks; it is killed.
    Kill,
}

impl From<StopSignal> for Signal {
    fn from(signal: StopSignal) -> Self {
        match signal {
            StopSignal::Int => Self::INT,
            StopSignal::Quit => Self::QUIT,
            StopSignal::Term => Self::TERM,
            StopSignal::Kill => Self::KILL,
        }
    }
}

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, value_enum)]
    stop: StopSignal,
    #[arg(long)]
    patience_millis: u64,
    #[arg(long)]
    remove: Vec<PathBuf>,
    #[arg(long)]
    container: Option<String>,
    #[arg(long, requires = "group")]
    user: Option<u32>,
    #[arg(long)]
    group: Option<u32>,
    #[arg(long)]
    detached: Option<PathBuf>,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// The guard around `command`, as a command.
pub fn command(command: &Command, terms: &Terms) -> Command {
    // The link leads to this very program even when cargo has built another in its place meanwhile.
    let itself = if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() };
    let mut guard = Command::new(itself.unwrap_or_else(|_| "xtask".into()));
    guard.arg0("xtask").arg("guard");
    guard.arg("--stop").arg(format!("{:?}", terms.stop).to_lowercase());
    guard.arg("--patience-millis").arg(terms.patience.as_millis().to_string());
    for folder in &terms.remove {
        guard.arg("--remove").arg(folder);
    }
    if let Some(container) = &terms.container {
        guard.arg("--container").arg(container);
    }
    if let Some((user, group)) = terms.user {
        guard.args(["--user", &user.to_string(), "--group", &group.to_string()]);
    }
    if let Some(lock) = &terms.detached {
        guard.arg("--detached").arg(lock);
    }
    guard.arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => guard.env(name, value),
            None => guard.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        guard.current_dir(folder);
    }
    guard
}

/// Guards one program; answers with its exit code, or 128 + n when signal n ended it.
pub fn run(args: Args) -> ExitCode {
    let code = guard(&args).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        NOT_STARTED
    });
    if let Some(container) = &args.container {
        let remove =
            Command::new("docker").args(["rm", "--force", "--volumes", container]).stdin(Stdio::null()).output();
        if let Err(error) = remove {
            eprintln!("error: failed to remove the container {container}: {error}");
        }
    }
    for folder in &args.remove {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                eprintln!("error: failed to remove {}: {error}", folder.display());
            }
            _ => {}
        }
    }
    ExitCode::from(code)
}

/// What wakes the guard.
enum Event {
    /// The lifeline ended, or a signal asks to.
    End,
    /// A child ended.
    Child,
}

fn guard(args: &Args) -> anyhow::Result<u8> {
    // Fails only for the leader of a process group, which has what it needs already.
    let _ = rustix::process::setsid();
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("failed to become a reaper")?;
    let _lock = args.detached.as_deref().map(lock).transpose()?;
    let (events, wakes) = channel();
    listen(events, args.detached.is_some())?;
    let program = start(args)?;

    let mut deadline: Option<Instant> = None;
    let mut code = None;
    while code.is_none() {
        match next(&wakes, deadline) {
            Some(Event::End) if deadline.is_none() => {
                // It may have ended and not be reaped yet.
                let _ = kill_process(program, args.stop.into());
                deadline = Some(Instant::now() + Duration::from_millis(args.patience_millis));
            }
            Some(_) => {}
            None => break,
        }
        reap(|pid, status| {
            if pid == program {
                code = Some(exit_code(status));
            }
        });
    }
    if deadline.is_none() {
        let left: Vec<_> = descendants().into_iter().filter_map(name).collect();
        if !left.is_empty() {
            let program = Path::new(&args.command[0]).file_name().unwrap_or_default().to_string_lossy();
            eprintln!("xtask: {program} left processes behind, which are killed now: {}", left.join(", "));
        }
    }
    kill_descendants(program, &wakes)?;
    Ok(code.unwrap_or(128 + 9))
}

/// Locks the file that says that a detached program runs, and writes this process's id into it.
fn lock(path: &Path) -> anyhow::Result<File> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("failed to open {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!("failed to lock {}: it runs already", path.display());
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .context("failed to write the process id")?;
    Ok(file)
}

/// Turns the lifeline and signals into events.
fn listen(events: Sender<Event>, detached: bool) -> anyhow::Result<()> {
    // A signal that is caught here is back at its default in the program. Otherwise, if whoever started xtask ignores one
    // (a shell does, for what it starts in the background), the program would ignore it too.
    let mut signals =
        Signals::new([SIGCHLD, SIGTERM, SIGINT, SIGQUIT, SIGHUP]).context("failed to listen for signals")?;
    let ends = events.clone();
    std::thread::spawn(move || {
        for signal in &mut signals {
            let event = if signal == SIGCHLD { Event::Child } else { Event::End };
            if events.send(event).is_err() {
                break;
            }
        }
    });
    if !detached {
        std::thread::spawn(move || {
            let mut byte = [0];
            while !matches!(std::io::stdin().read(&mut byte), Ok(0) | Err(_)) {}
            let _ = ends.send(Event::End); // nobody listens: it ended anyway
        });
    }
    Ok(())
}

fn start(args: &Args) -> anyhow::Result<Pid> {
    let program = &args.command[0];
    let mut words = Vec::new();
    // Should the guard itself be killed, the program dies with it. Only then: what that leaves is not cleaned up.
    let dies_with_guard = ["setpriv", "--pdeathsig", "KILL", "--"];
    let available = Command::new(dies_with_guard[0])
        .args(&dies_with_guard[1..])
        .arg("true")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if available {
        words.extend(dies_with_guard.map(OsString::from));
    }
    words.extend(args.command.iter().cloned());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    // A group of its own, so that without a reaper the group can be killed instead.
    command.process_group(0);
    if let (Some(user), Some(group)) = (args.user, args.group) {
        command.uid(user).gid(group); // which also drops root's other groups
    }
    let child = command.spawn().with_context(|| format!("failed to start {}", program.to_string_lossy()))?;
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("failed to read a process id")
}

/// The next event; `None` when the deadline has passed.
fn next(wakes: &Receiver<Event>, deadline: Option<Instant>) -> Option<Event> {
    match deadline {
        None => wakes.recv().ok(),
        Some(deadline) => wakes.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok(),
    }
}

/// Collects every child that has ended.
fn reap(mut each: impl FnMut(Pid, WaitStatus)) {
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        each(pid, status);
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Kills all that is left, which had its time to end by itself.
fn kill_descendants(program: Pid, wakes: &Receiver<Event>) -> anyhow::Result<()> {
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        reap(|_, _| {});
        if !cfg!(target_os = "linux") {
            let _ = kill_process_group(program, Signal::KILL); // no such group: nothing is left
            return Ok(());
        }
        let left = descendants();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let left: Vec<_> = left.into_iter().filter_map(name).collect();
            bail!("failed to kill what was started: {} still there after {KILL_PATIENCE:?}", left.join(", "));
        }
        for pid in left {
            let _ = kill_process(pid, Signal::KILL); // it may be gone by now
        }
        // A process can start another while it is being killed, so look again when one has ended.
        let _ = wakes.recv_timeout(Duration::from_millis(20));
    }
}

/// Every process that descends from this one, whoever is its parent now.
fn descendants() -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let pid = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let stat = std::fs::read_to_string(process.path().join("stat")).ok();
        if let (Some(pid), Some(parent)) = (pid, stat.as_deref().and_then(parent_of)) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut ahead = vec![rustix::process::getpid().as_raw_nonzero().get()];
    while let Some(parent) = ahead.pop() {
        for &child in children.get(&parent).into_iter().flatten() {
            if found.insert(child) {
                ahead.push(child);
            }
        }
    }
    found.into_iter().filter_map(Pid::from_raw).collect()
}

/// The parent in a line of `/proc/PID/stat`: `PID (NAME) STATE PARENT …`, where the name may hold anything.
fn parent_of(stat: &str) -> Option<i32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// `NAME (PID)`, unless it has ended already.
fn name(pid: Pid) -> Option<String> {
    let pid = pid.as_raw_nonzero();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let ended = after.split_ascii_whitespace().next() == Some("Z");
    (!ended).then(|| format!("{name} ({pid})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_behind_any_process_name() {
        assert_eq!(parent_of("42 (postgres) S 7 42 42 0 -1"), Some(7));
        assert_eq!(parent_of("42 (a) b (c) 9) R 11 42"), Some(11));
        assert_eq!(parent_of("nonsense"), None);
    }

    #[test]
    fn a_child_of_this_process_is_a_descendant_until_it_is_reaped() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(descendants().contains(&pid));
        assert!(name(pid).is_some());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!descendants().contains(&pid));
    }

    #[test]
    fn the_guard_understands_the_command_that_starts_it() {
        use clap::Parser;
        let terms = Terms {
            stop: StopSignal::Quit,
            remove: vec!["/tmp/a b".into()],
            user: Some((3, 4)),
            detached: Some("/tmp/lock".into()),
            container: Some("name".to_owned()),
            ..Terms::default()
        };
        let mut inner = Command::new("program");
        inner.args(["--stop", "--", "x"]).env("A", "b");
        let outer = command(&inner, &terms);
        let words = std::iter::once("xtask".into()).chain(outer.get_args().map(OsString::from));
        let Ok(crate::Command::Guard(args)) = crate::Command::try_parse_from(words) else { panic!("not a guard") };
        assert_eq!(args.stop, StopSignal::Quit);
        assert_eq!((args.user, args.group, args.patience_millis), (Some(3), Some(4), 2000));
        assert_eq!(args.remove, terms.remove);
        assert_eq!(args.command, ["program", "--stop", "--", "x"]);
        assert_eq!(outer.get_envs().count(), 1);
    }
}
