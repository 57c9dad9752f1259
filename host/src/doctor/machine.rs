//! This machine: disk, open files and memory against what the settings ask for.

use super::{Check, PATIENCE, count, size, within};
use crate::config::{Machine, Settings, mappings};
use crate::daemon;
use serde_json::json;
use std::path::Path;

/// Free disk below which results may not be kept.
const LEAST_DISK: u64 = 64 << 20;
/// Free disk that is worth a word.
const LITTLE_DISK: u64 = 1 << 30;

pub(super) async fn checks(settings: &Settings) -> Vec<Check> {
    let (worker, folder) = (settings.worker, settings.data.dir.clone());
    let needed = daemon::needed_files(worker.slots, settings.api.connections);
    let place = folder.clone();
    // A file system behind a network may hang.
    let looked = tokio::task::spawn_blocking(move || (free(&place), spooled(&place.join("spool"))));
    let (free, spooled) = match within(PATIENCE, looked).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => (Err(error.to_string()), 0),
        Err(late) => (Err(format!("{}: {late}", folder.display())), 0),
    };
    vec![
        disk(free, spooled, &folder),
        files(daemon::raised_files(), needed),
        memory(Machine::here(), worker.memory_mib, worker.slots),
    ]
}

/// Free and all bytes of the file system of a folder, or of the one that it would be made in.
fn free(folder: &Path) -> Result<(u64, u64), String> {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let found = rustix::fs::statvfs(there).map_err(|error| format!("{}: {error}", there.display()))?;
    Ok((found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize)))
}

/// Files with results that wait for the database.
fn spooled(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "json")).count()
}

/// Free disk at the data folder, and results that wait there.
pub(super) fn disk(free: Result<(u64, u64), String>, spooled: usize, folder: &Path) -> Check {
    let name = "machine.disk";
    let place = folder.display();
    let (free, all) = match free {
        Ok(found) => found,
        Err(why) => return Check::failed(name, why, "correct data.dir and its permissions"),
    };
    let mut check = Check::new(name, format!("{} of {} free at {place}", size(free), size(all)))
        .with(json!({"folder": folder, "free_bytes": free, "bytes": all, "spooled_files": spooled}));
    let remedy = "free disk there, or name another folder in data.dir";
    let text = format!("{} are free at {place}, where results wait while the database is away", size(free));
    if free < LEAST_DISK {
        check.fail(text, remedy);
    } else if free < LITTLE_DISK {
        check.warn(text, remedy);
    }
    if spooled > 0 {
        let files = count(
            i64::try_from(spooled).unwrap_or(i64::MAX),
            "file with results of tasks is",
            "files with results of tasks are",
        );
        check.warn(
            format!("{files} in {place}/spool and not recorded in the database"),
            "start a daemon with this data.dir, which records them; a running one does it once the database responds",
        );
    }
    check
}

/// The limit of open files; `None`: no limit.
pub(super) fn files(limit: Option<u64>, needed: u64) -> Check {
    let shown = limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
    let mut check = Check::new("machine.files", format!("{shown}, {needed} needed if all is in use"))
        .with(json!({"limit": limit, "needed": needed}));
    if limit.is_some_and(|limit| limit < needed) {
        check.warn(
            format!(
                "the hard limit of open files is {shown}; with all slots and connections in use {needed} are needed"
            ),
            "raise it (`ulimit -Hn`, LimitNOFILE= of systemd), or lower worker.slots or api.connections",
        );
    }
    check
}

/// Memory and mappings against `worker.memory_mib` and `worker.slots`.
pub(super) fn memory(machine: Machine, memory_mib: u64, slots: u32) -> Check {
    let needed = mappings(slots);
    let summary = format!("guests may use {memory_mib} of {} MiB, {slots} slots", machine.memory_mib);
    let mut check = Check::new("machine.memory", summary).with(json!({
        "memory_mib": machine.memory_mib, "worker_memory_mib": memory_mib, "cores": machine.cores, "slots": slots,
        "max_map_count": machine.mappings, "mappings_needed": needed,
    }));
    if memory_mib > machine.memory_mib {
        check.fail(
            format!(
                "worker.memory_mib is {memory_mib}, and this machine or its control group has {} MiB",
                machine.memory_mib
            ),
            "lower worker.memory_mib, or raise the limit of the control group (MemoryMax= of systemd)",
        );
    } else if memory_mib > machine.memory_mib / 10 * 9 {
        check.warn(
            format!(
                "worker.memory_mib is {memory_mib} of {} MiB, which leaves the host's own work too little",
                machine.memory_mib
            ),
            "lower worker.memory_mib to nine tenths of the memory or less",
        );
    }
    if needed > machine.mappings {
        check.fail(
            format!("vm.max_map_count is {}, and {slots} slots need {needed} mappings", machine.mappings),
            format!("run `sysctl -w vm.max_map_count={needed}`, or lower worker.slots"),
        );
    }
    check
}
