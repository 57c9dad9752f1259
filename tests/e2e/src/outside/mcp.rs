//! The tool server in Python.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Writes the server's program below `folder`, and answers with the command that starts it.
pub fn command(folder: &Path) -> Vec<String> {
    let file = folder.join("mcp_server.py");
    std::fs::write(&file, include_str!("mcp_server.py")).expect("the tool server's program is written");
    vec![python().to_owned(), file.to_string_lossy().into_owned()]
}

/// The interpreter itself: what is called `python3` may be a script that needs an environment to find it.
fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        let output = output.expect("these tests need python3 in PATH");
        String::from_utf8(output.stdout).expect("a path").trim().to_owned()
    })
}

/// Whether a process is there and not only waits for somebody to ask how it ended.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))).unwrap_or_default();
    // The state stands behind the name, which may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// A process with all its descendants, as far as they still belong to it.
pub fn family(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<u32> = children
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    [pid].into_iter().chain(children.into_iter().flat_map(family)).collect()
}
