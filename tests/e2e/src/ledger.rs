//! The independent log of side effects: one line for each time that a guest began to run, written by the process that it ran
//! in at that moment, and read by nobody but the tests. Neither database nor broker has a part in it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::daemon::Setup;

/// A ledger's file.
#[derive(Clone, Debug)]
pub struct Ledger(PathBuf);

impl Ledger {
    /// A ledger in this folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self(folder.join("ledger"))
    }

    /// A daemon with faults on demand that writes into it.
    #[must_use]
    pub fn kept_by(&self, setup: Setup) -> Setup {
        setup.faulty().variable("AGENTRY_LEDGER", OsString::from(&self.0))
    }

    /// Every beginning so far, in order: task and attempt.
    pub fn beginnings(&self) -> Vec<(Uuid, u32)> {
        self.lines().into_iter().map(|(id, attempt, _)| (id, attempt)).collect()
    }

    /// The same with whether it was under a claim.
    pub fn lines(&self) -> Vec<(Uuid, u32, bool)> {
        let text = match std::fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => panic!("the ledger is read: {error}"),
        };
        let line = |line: &str| {
            let mut words = line.split(' ');
            let (id, attempt) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some((id, attempt, words.nth(1) != Some("unclaimed")))
        };
        text.lines().map(|text| line(text).unwrap_or_else(|| panic!("a line of the ledger: {text:?}"))).collect()
    }

    /// How often each attempt of each task began.
    pub fn runs(&self) -> BTreeMap<(Uuid, u32), usize> {
        let mut runs = BTreeMap::new();
        for beginning in self.beginnings() {
            *runs.entry(beginning).or_default() += 1;
        }
        runs
    }
}
