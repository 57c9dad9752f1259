//! What the system knows of a process: `/proc`.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Between two looks where the system keeps no high-water mark that could be set back.
const LOOK: Duration = Duration::from_millis(10);

/// A process by its id.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

/// What it holds besides memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Open files, sockets among them.
    pub files: usize,
    /// Threads.
    pub threads: usize,
}

impl Process {
    /// Resident memory, in KiB.
    pub fn resident(self) -> u64 {
        self.status("VmRSS:").unwrap_or(0)
    }

    /// Open files and threads.
    pub fn held(self) -> Held {
        let count = |folder: &str| fs::read_dir(format!("/proc/{}/{folder}", self.0)).map_or(0, Iterator::count);
        Held { files: count("fd"), threads: count("task") }
    }

    /// The names of its threads, to say which are left.
    pub fn threads(self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0)).into_iter().flatten().flatten();
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
        tasks.filter_map(name).map(|name| name.trim().to_owned()).collect()
    }

    /// What its open files are, to say which are left.
    pub fn files(self) -> Vec<String> {
        let files = fs::read_dir(format!("/proc/{}/fd", self.0)).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).map(|file| file.display().to_string()).collect()
    }

    /// Bounds it to so many MiB more of memory of its own than it has: should a defence not hold, it ends, and not the machine.
    pub fn bound(self, mib: u64) {
        let most = (self.status("VmData:").expect("its memory") << 10) + (mib << 20);
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        let pid = i32::try_from(self.0).ok().and_then(Pid::from_raw).expect("a process id");
        prlimit(Some(pid), Resource::Data, limit).expect("its memory is bounded");
    }

    /// Begins to watch for the most memory that it has from now on.
    pub fn watch(self) -> Watch {
        let marked = fs::write(format!("/proc/{}/clear_refs", self.0), "5").is_ok()
            && self.status("VmHWM:").is_some_and(|most| most <= self.resident() + 1_024);
        let before = self.resident();
        let (most, over) = (Arc::new(AtomicU64::new(before)), Arc::new(AtomicBool::new(false)));
        let looking = (!marked).then(|| {
            let (most, over) = (most.clone(), over.clone());
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    most.fetch_max(self.resident(), Ordering::Relaxed);
                    std::thread::sleep(LOOK);
                }
            })
        });
        Watch { process: self, before, most, over, looking }
    }

    fn status(self, field: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

/// Watches over a process's memory: by the system's own high-water mark, or looking every 10 ms.
pub struct Watch {
    process: Process,
    before: u64,
    most: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    looking: Option<JoinHandle<()>>,
}

impl Watch {
    /// Resident memory when the watch began, in KiB.
    pub fn before(&self) -> u64 {
        self.before
    }

    /// By how much it has risen at most, in KiB.
    pub fn rise(&self) -> u64 {
        let most = match self.looking {
            Some(_) => self.most.load(Ordering::Relaxed),
            None => self.process.status("VmHWM:").unwrap_or(0),
        };
        most.saturating_sub(self.before)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(looking) = self.looking.take() {
            let _ = looking.join();
        }
    }
}
