//! Which build this is, and what its processes are called.

/// Version and, where the build knew it, commit.
pub const BUILD: &str = match option_env!("AGENTRY_COMMIT") {
    Some(commit) => commit,
    None => env!("CARGO_PKG_VERSION"),
};

/// `agentry/BUILD/HOST/PID`: the name of connections, consumers and rows.
pub fn host_name() -> String {
    // The kernel's own word, which no environment variable can bend.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let host = if host.is_empty() { "unknown" } else { host };
    format!("agentry/{BUILD}/{host}/{}", std::process::id())
}
