//! What a daemon process on this machine uses, from `/proc`.

use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// Clock ticks per second of `/proc/PID/stat`: fixed in Linux's interface to user space on every platform that Rust's standard
/// library supports, whatever the kernel's own frequency.
pub const TICKS: u64 = 100;

/// Processor time and memory of a process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time since its start.
    pub cpu: Duration,
    /// Resident memory, in KiB.
    pub resident_kib: u64,
    /// The most resident memory since its start, in KiB.
    pub peak_kib: u64,
}

/// Reads what a process uses; `None` where the system has no `/proc` or the process has ended.
pub fn usage(pid: u32) -> Option<Usage> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    let status = std::fs::read_to_string(folder.join("status")).ok()?;
    parse(&stat, &status)
}

/// Whether a signal has stopped a process, until another lets it go on.
pub fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state(&stat).is_some_and(|state| matches!(state, "T" | "t"))
}

/// The field after the program's name in parentheses, which may hold anything.
fn state(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().next()
}

fn parse(stat: &str, status: &str) -> Option<Usage> {
    // The second field is the program's name in parentheses, which may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some(Usage {
        cpu: Duration::from_millis(ticks * 1_000 / TICKS),
        resident_kib: kib("VmRSS:")?,
        peak_kib: kib("VmHWM:")?,
    })
}

/// The process id of the one live daemon in the answer of `GET /v1/hosts`, if it runs on this machine; otherwise why not.
pub fn pid_of(hosts: &Value, machine: &str) -> Result<u32, String> {
    let alive: Vec<&Value> =
        hosts["hosts"].as_array().into_iter().flatten().filter(|host| host["alive"] == true).collect();
    let [host] = alive[..] else {
        return Err(format!("{} daemons share the database; resources are reported for a single one", alive.len()));
    };
    let name = host["name"].as_str().unwrap_or_default();
    // agentry/BUILD/HOST/PID
    let mut parts = name.rsplit('/');
    let pid = parts.next().and_then(|pid| pid.parse().ok());
    match (pid, parts.next()) {
        (Some(pid), Some(host)) if host == machine => Ok(pid),
        (Some(_), Some(host)) => {
            Err(format!("the daemon runs on {}, not on this machine", super::super::escape::line(host)))
        }
        _ => Err("the daemon's process id is unknown".to_owned()),
    }
}

/// The name of this machine, as daemons report it.
pub fn machine() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn usage_is_read_whatever_the_program_is_called() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 9 0 1 1 1";
        let status = "Name:\ta\nVmHWM:\t   2048 kB\nVmRSS:\t    1024 kB\n";
        let expected = Usage { cpu: Duration::from_secs(2), resident_kib: 1_024, peak_kib: 2_048 };
        assert_eq!(parse(stat, status), Some(expected));
        assert_eq!((state(stat), state("7 (T) S) T 1"), state("")), (Some("S"), Some("T"), None));
        assert_eq!(parse("7 (a) S 1", status), None);
        assert_eq!(parse(stat, "Name: a"), None);
    }

    #[test]
    fn a_pid_is_known_only_of_a_single_daemon_on_this_machine() {
        let host = |name: &str, alive: bool| json!({"name": name, "alive": alive});
        let hosts = |hosts: &[Value]| json!({ "hosts": hosts });
        let (here, gone) = (host("agentry/0.1.0 (a/b)/box/41", true), host("agentry/0.1.0/box/40", false));
        assert_eq!(pid_of(&hosts(&[here.clone(), gone.clone()]), "box"), Ok(41));
        assert!(pid_of(&hosts(std::slice::from_ref(&here)), "other").unwrap_err().contains("box"));
        assert!(pid_of(&hosts(&[here.clone(), here]), "box").unwrap_err().starts_with("2 daemons"));
        assert!(pid_of(&hosts(&[gone]), "box").unwrap_err().starts_with("0 daemons"));
    }
}
