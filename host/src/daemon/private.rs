//! Keeps other processes of the same user from reading this one, which holds secrets. Tool servers are such processes.
//!
//! The files below `/proc/PID` of a process that is not dumpable (`environ`, `mem`, `fd`, …) belong to root. It cannot be traced, and
//! leaves no core file (`PR_SET_DUMPABLE(2const)`, `proc(5)`). A program that it starts is dumpable again (`execve(2)`), so each
//! command protects itself. Root, and a process with CAP_SYS_PTRACE, can read it all the same.

use crate::config::DEBUGGABLE;
use rustix::process::{Resource, Rlimit, setrlimit};

/// Protects this process, unless [`DEBUGGABLE`] is set to 1. Call it before secrets are read and threads started. Returns a warning
/// if the process stays readable.
pub fn protect() -> Option<String> {
    if std::env::var_os(DEBUGGABLE).is_some_and(|value| value == "1") {
        return Some(format!(
            "{DEBUGGABLE} is 1: every process of this user, tool servers included, can read the secrets of this process; unset \
             it when you have finished debugging"
        ));
    }
    // Under an ordinary user this file cannot be opened later, and runs would be slower without it.
    crate::registry::open_pagemap();
    // Core files of tool servers and compilers would hold secrets and inputs as well: they inherit this limit.
    let core = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    match (not_dumpable(), core) {
        (Ok(()), Ok(())) => None,
        (Err(error), _) => Some(format!(
            "failed to close this process to others of this user: {error}; tool servers can read its secrets"
        )),
        (_, Err(error)) => Some(format!("failed to forbid core files: {error}; run `ulimit -c 0` before this command")),
    }
}

/// Gives up the capabilities with which the daemon of an ordinary user was started for `tools.NAME.user`. A child that handles what
/// others wrote has no use for them. Call it before threads are started, which have sets of their own. Root keeps what it has: its
/// files are read by it.
#[cfg(target_os = "linux")]
pub fn drop_capabilities() -> std::io::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let none = rustix::thread::CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// See above; other systems have none.
#[cfg(not(target_os = "linux"))]
pub fn drop_capabilities() -> std::io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn not_dumpable() -> rustix::io::Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
}

#[cfg(not(target_os = "linux"))]
fn not_dumpable() -> rustix::io::Result<()> {
    Err(rustix::io::Errno::NOSYS)
}
