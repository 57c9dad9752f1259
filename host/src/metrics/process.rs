//! What this process uses, from `/proc`. On other systems these families are absent.

use super::levels::Out;
use std::fmt;
use std::fs;

/// Clock ticks per second of `/proc/self/stat`: fixed in Linux's interface to user space.
const TICKS: f64 = 100.0;

#[derive(Debug, Default, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    resident_bytes: i64,
    virtual_bytes: i64,
    threads: i64,
    /// Since the machine was started.
    started_seconds: f64,
}

pub(super) fn encode(out: &mut Out<'_, '_>) -> fmt::Result {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).ok();
    if let (Some(stat), Some(status)) = (read("stat"), read("status"))
        && let Some(usage) = parse(&stat, &status)
    {
        out.counter("process_cpu", usage.cpu_seconds)?;
        out.int("process_resident_memory", usage.resident_bytes)?;
        out.int("process_virtual_memory", usage.virtual_bytes)?;
        out.int("process_threads", usage.threads)?;
        let booted = fs::read_to_string("/proc/stat").ok();
        if let Some(booted) = booted.as_deref().and_then(booted_at) {
            out.float("process_start_time", booted + usage.started_seconds)?;
        }
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // Without the one that reads the folder.
        out.int("process_open_fds", (entries.count() as i64 - 1).max(0))?;
    }
    if let Some(most) = read("limits").as_deref().and_then(most_files) {
        out.int("process_max_fds", most)?;
    }
    Ok(())
}

fn parse(stat: &str, status: &str) -> Option<Usage> {
    // The second field is the program's name in parentheses, which may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<i64>().ok()? * 1_024)
    };
    Some(Usage {
        cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS,
        threads: fields.get(17)?.parse().ok()?,
        started_seconds: ticks(19)? / TICKS,
        resident_bytes: kib("VmRSS:")?,
        virtual_bytes: kib("VmSize:")?,
    })
}

/// Unix time of the machine's start, from `/proc/stat`.
fn booted_at(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The soft limit of open files, from `/proc/self/limits`; `None`: it has none.
fn most_files(limits: &str) -> Option<i64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_whatever_the_program_is_called() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 9 0 4200 1 1";
        let status = "Name:\ta\nVmSize:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let expected = Usage {
            cpu_seconds: 2.0,
            resident_bytes: 1 << 20,
            virtual_bytes: 2 << 20,
            threads: 9,
            started_seconds: 42.0,
        };
        assert_eq!(parse(stat, status), Some(expected));
        assert_eq!(parse("7 (a) S 1", status), None);
        assert_eq!(booted_at("cpu 1\nbtime 1700000000\n"), Some(1.7e9));
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288  files\n";
        assert_eq!(most_files(limits), Some(1_024));
        assert_eq!(most_files(&limits.replace("1024  ", "unlimited")), None);
    }
}
