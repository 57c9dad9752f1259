//! What strangers and operators write, made up by the thousand: messages, manifests, settings, text for a terminal, and
//! the order in which things happen to a task. Each target holds what the code promises, not only that it does not panic.
//!
//! On a stable compiler these are tests: random cases for a moment, for longer under `cargo xtask test --full`. A failure prints
//! the case, made small, and the `BOLERO_RANDOM_SEED` that makes it again. With a nightly compiler the same targets are
//! coverage-guided: `cargo bolero test --package agentry --toolchain nightly TARGET`, the target named as the test is.

#![allow(clippy::unwrap_used, missing_docs)] // a test reports by panicking

mod draw;
mod escaper;
mod lives;
mod manifests;
mod messages;
mod settings;
mod steps;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How long a target looks for something new. `BOLERO_RANDOM_TEST_TIME_MS` overrules it.
fn while_testing() -> Duration {
    match std::env::var_os("AGENTRY_TEST_FULL") {
        Some(_) => Duration::from_secs(20),
        None => Duration::from_millis(1_500),
    }
}

/// How many cases were taken, of how many: a target whose cases are all refused at the door tests the door.
#[derive(Default)]
struct Share {
    tried: AtomicU64,
    taken: AtomicU64,
}

impl Share {
    fn count(&self, taken: bool) {
        self.tried.fetch_add(1, Relaxed);
        self.taken.fetch_add(taken.into(), Relaxed);
    }

    #[track_caller]
    fn assert_fair(&self) {
        let (taken, tried) = (self.taken.load(Relaxed), self.tried.load(Relaxed));
        eprintln!("{taken} of {tried} were taken");
        // Under one seed, or a debugger, there are too few to tell.
        assert!(tried < 5_000 || (tried / 200..tried).contains(&taken), "{taken} of {tried} were taken");
    }
}

/// Whether a person may be shown it as it is: of bounded length, on one line, and nothing in it steers a terminal.
#[track_caller]
fn assert_fit_to_show(text: &str, longest: usize) {
    assert!(text.len() <= longest, "{} bytes, {longest} are the most: {:?}…", text.len(), start_of(text));
    assert!(!text.chars().any(char::is_control), "a control character in {:?}", start_of(text));
}

fn start_of(text: &str) -> String {
    text.chars().take(200).collect()
}
