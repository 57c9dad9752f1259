//! Open files: each guest that waits for a server has a connection.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the daemon itself has open, generously.
const OWN: u64 = 256;

/// Raises the limit of open files as far as this process may, and warns if that is not enough for all slots.
pub fn raise(slots: u32) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let mut limit = current;
    if current != maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => limit = maximum,
            Err(error) => tracing::warn!(%error, ?current, ?maximum, "failed to raise the limit of open files"),
        }
    }
    if let Some(limit) = too_few(limit, slots) {
        tracing::warn!(
            "the limit of open files is {limit} and worker.slots is {slots}: if every guest has a connection open, further ones fail; \
             raise the hard limit (`ulimit -Hn`, LimitNOFILE= of systemd), or lower worker.slots"
        );
    }
}

/// The limit, if it does not suffice for one connection of each slot. `None` is no limit.
fn too_few(limit: Option<u64>, slots: u32) -> Option<u64> {
    limit.filter(|limit| *limit < u64::from(slots) + OWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_needs_a_file_beside_those_of_the_daemon() {
        assert_eq!(too_few(Some(1_024), 1_000), Some(1_024));
        assert_eq!(too_few(Some(1_024), 768), None);
        assert_eq!(too_few(None, 10_000), None);
    }
}
