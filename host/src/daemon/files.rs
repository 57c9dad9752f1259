//! Open files: each guest that waits for a server has a connection.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files of the daemon besides connections of guests and of the API.
const OWN: u64 = 256;

/// Raises the limit of open files as far as this process may. Warns if it is below one file for each slot and each connection to the
/// API.
pub fn raise(slots: u32, connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let mut limit = current;
    if current != maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => limit = maximum,
            Err(error) => tracing::warn!(%error, ?current, ?maximum, "failed to raise the limit of open files"),
        }
    }
    if let Some(limit) = too_few(limit, slots, connections) {
        tracing::warn!(
            "the limit of open files is {limit}, worker.slots is {slots} and api.connections is {connections}: if all of them are in use, \
             further connections fail; raise the hard limit (`ulimit -Hn`, LimitNOFILE= of systemd), or lower worker.slots"
        );
    }
}

/// Returns the limit if it does not suffice. `None` is no limit.
fn too_few(limit: Option<u64>, slots: u32, connections: usize) -> Option<u64> {
    limit.filter(|limit| *limit < needed(slots, connections))
}

/// Files that a daemon needs if all slots and all connections to its API are in use.
pub fn needed(slots: u32, connections: usize) -> u64 {
    u64::from(slots) + connections as u64 + OWN
}

/// The limit up to which a daemon that is started like this process may raise its own. `None` is no limit.
pub fn raised() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_and_each_connection_needs_a_file() {
        assert_eq!(too_few(Some(1_024), 1_000, 0), Some(1_024));
        assert_eq!(too_few(Some(1_024), 768, 0), None);
        assert_eq!(too_few(Some(1_024), 768, 8), Some(1_024));
        assert_eq!(too_few(None, 10_000, 1_024), None);
    }
}
