//! What a server started and left: on Linux its supervisor adopts it, whatever group or session it went to, and ends it. It takes no
//! privileges. `prctl(2)`, PR_SET_CHILD_SUBREAPER; `proc_pid_task(5)`, `children`, which every distribution's kernel has.

#[cfg(target_os = "linux")]
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};
#[cfg(target_os = "linux")]
use std::time::Duration;

/// How long they are killed if they go on starting others.
#[cfg(target_os = "linux")]
const LONGEST: Duration = Duration::from_secs(5);
/// Between two looks at who is left.
#[cfg(target_os = "linux")]
const LOOK: Duration = Duration::from_millis(5);

/// From now on whoever loses its parent below this process is its child.
#[cfg(target_os = "linux")]
pub(super) fn adopt() {
    let _ = set_child_subreaper(Some(getpid())); // every Linux has it since 3.4
}

/// Lets the adopted go that ended, so that no process table fills up. The `server` itself is waited for by others.
#[cfg(target_os = "linux")]
pub(super) fn let_go(server: Option<u32>) {
    for child in children().filter(|child| Some(child.as_raw_nonzero().get().unsigned_abs()) != server) {
        let _ = waitpid(Some(child), WaitOptions::NOHANG); // it may live on
    }
}

/// Ends all that are below this process; nobody may wait for one of them any more.
#[cfg(target_os = "linux")]
pub(super) async fn end() {
    let late = tokio::time::Instant::now() + LONGEST;
    loop {
        // Those of the ended are children by the next look.
        for child in children() {
            let _ = kill_process(child, Signal::KILL); // it may have ended
        }
        while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
        let none_left = waitpid(None, WaitOptions::NOHANG).is_err();
        if none_left || tokio::time::Instant::now() > late {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(target_os = "linux")]
fn children() -> impl Iterator<Item = Pid> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let all: Vec<Pid> = lists
        .flat_map(|list| list.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect::<Vec<_>>())
        .collect();
    all.into_iter()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn adopt() {}

#[cfg(not(target_os = "linux"))]
pub(super) fn let_go(_server: Option<u32>) {}

#[cfg(not(target_os = "linux"))]
#[allow(clippy::unused_async, reason = "it is one elsewhere")]
pub(super) async fn end() {}
