//! The memory that this process occupies.

/// Returns the bytes that this process has in memory or in swap and that are its own, if the system reports them
/// (`/proc/self/status`). Pages of files are not counted: they are shared by all guests of a plugin, and the system can drop them.
pub(super) fn measure() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<u64> {
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    Some((kib("RssAnon:")? + kib("RssShmem:")? + kib("VmSwap:")?) << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_and_swapped_memory_are_added_without_pages_of_files() {
        let status = "Name:\tx\nRssAnon:\t    2048 kB\nRssFile:\t 512 kB\nRssShmem:\t 1024 kB\nVmSwap:\t  1024 kB\n";
        assert_eq!(parse(status), Some(4 << 20));
    }

    #[test]
    fn a_status_without_one_of_the_numbers_is_no_measurement() {
        assert_eq!(parse("RssAnon:\t 2048 kB\nRssShmem:\t 0 kB\n"), None);
        assert_eq!(parse("RssAnon:\t many kB\nRssShmem:\t 0 kB\nVmSwap:\t 0 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_occupies_memory() {
        assert!(measure().is_some_and(|bytes| bytes > 1 << 20));
    }
}
