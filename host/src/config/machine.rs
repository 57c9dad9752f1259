//! The machine that this process runs on, within its control group.

use std::path::Path;

/// Limits that are derived from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Processors that this process may use.
    pub cores: u32,
    /// Memory that this process may use, in MiB.
    pub memory_mib: u64,
    /// Mappings that a process may have: `vm.max_map_count`.
    pub mappings: u64,
}

impl Machine {
    /// The one this process runs on.
    pub fn here() -> Machine {
        let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let total = read("/proc/meminfo")
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
            .map(|kib| kib / 1_024);
        let group =
            group_limit(Path::new("/sys/fs/cgroup"), &read("/proc/self/cgroup")).map(|bytes| bytes / (1_024 * 1_024));
        let memory_mib = match (total, group) {
            (Some(total), Some(group)) => total.min(group),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => 2_048,
        };
        let mappings = read("/proc/sys/vm/max_map_count").trim().parse().unwrap_or(u64::MAX);
        Machine { cores, memory_mib, mappings }
    }
}

/// The least memory limit, in bytes, of the control group that this process is in and of those around it. `own`: the content of
/// `/proc/self/cgroup`.
///
/// A process that systemd or a batch system started is in a group below the root, and so is a container that shares the host's groups.
fn group_limit(root: &Path, own: &str) -> Option<u64> {
    // Version 2 has one line, `0::/path`; version 1 one for each controller, `4:memory:/path`.
    let of = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        match controllers {
            "" => Some((root.to_owned(), "memory.max", path.to_owned())),
            _ if controllers.split(',').any(|c| c == "memory") => {
                Some((root.join("memory"), "memory.limit_in_bytes", path.to_owned()))
            }
            _ => None,
        }
    };
    let mut places: Vec<_> = own.lines().filter_map(of).collect();
    // Where the path cannot be told, the root still holds for a container with groups of its own.
    places.extend([
        (root.to_owned(), "memory.max", String::new()),
        (root.join("memory"), "memory.limit_in_bytes", String::new()),
    ]);
    let limits = places.iter().flat_map(|(mount, file, path)| {
        let own = path.trim_start_matches('/');
        // A group outside of what is mounted here begins with `..`.
        let own = if own.split('/').any(|part| part == "..") { "" } else { own };
        let whole = mount.join(own);
        let groups: Vec<_> =
            whole.ancestors().take_while(|group| group.starts_with(mount)).map(Path::to_owned).collect();
        groups
            .into_iter()
            .filter_map(move |group| std::fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok())
    });
    // `max` is no number, and absurdly large numbers are no limit either: the machine's memory is less.
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn limit_of_a_nested_group_and_of_those_around_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(root, "system.slice/memory.max", "3000\n");
        write(root, "system.slice/agentry.service/memory.max", "max\n");
        assert_eq!(group_limit(root, "0::/system.slice/agentry.service\n"), Some(3000));
        write(root, "system.slice/agentry.service/memory.max", "2000\n");
        assert_eq!(group_limit(root, "0::/system.slice/agentry.service\n"), Some(2000));
        assert_eq!(group_limit(root, "0::/system.slice\n"), Some(3000));
        assert_eq!(group_limit(root, "0::/other\n"), None);
        write(root, "memory.max", "1000\n");
        for own in ["0::/\n", "0::/../elsewhere\n", "", "0::/system.slice/agentry.service\n"] {
            assert_eq!(group_limit(root, own), Some(1000), "{own}");
        }
    }

    #[test]
    fn limit_of_version_1_is_read_too() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(root, "memory/memory.limit_in_bytes", "9223372036854771712\n");
        write(root, "memory/jobs/seven/memory.limit_in_bytes", "5000\n");
        assert_eq!(group_limit(root, "5:cpu,cpuacct:/jobs\n4:memory:/jobs/seven\n"), Some(5000));
    }
}
