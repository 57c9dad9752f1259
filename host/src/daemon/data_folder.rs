//! The data folder: one process at a time, and a record of which host it was.
//!
//! Whoever holds the lock knows that the folder's former owner is dead, however long its lease still runs: its tasks may
//! be taken over at once instead of after the lease.

use crate::task::HostId;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// Another process has it.
    #[error("data folder {0} is in use by another agentry process; give this one its own data.dir")]
    InUse(PathBuf),
    /// Its path without symbolic links is not UTF-8.
    #[error("data folder {} is not UTF-8; set data.dir to another folder, or rename this one", .0.display())]
    NotNamed(PathBuf),
    /// The system refused.
    #[error("data folder {path}: {source}; {}", remedy(source))]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Remedy for an error. Root reads and writes files of others by a capability, which a container may lack.
fn remedy(error: &io::Error) -> &'static str {
    #[cfg(target_os = "linux")]
    if error.kind() == io::ErrorKind::PermissionDenied
        && rustix::process::geteuid().is_root()
        && let Ok(sets) = rustix::thread::capabilities(None)
        && !sets.effective.contains(rustix::thread::CapabilitySet::DAC_OVERRIDE)
    {
        return "this process is root's and lacks CAP_DAC_OVERRIDE, so it may use its own files only: give data.dir to root, run \
                the daemon as the owner of data.dir, or start it with that capability (--cap-add=DAC_OVERRIDE of a container)";
    }
    let _ = error;
    "check data.dir and its permissions"
}

/// The folder, locked until dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    lock: File,
    former: Option<HostId>,
}

/// Makes the folder if it is missing, private to this user. One that exists keeps its mode: see [`super::exposed`].
pub fn make(path: &Path) -> Result<(), DataFolderError> {
    let io = |source| DataFolderError::Io { path: path.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)
}

impl DataFolder {
    /// Make the folder if it is missing, and take its lock.
    pub fn open(path: &Path) -> Result<DataFolder, DataFolderError> {
        let io = |source| DataFolderError::Io { path: path.to_owned(), source };
        make(path)?;
        let path = path.canonicalize().map_err(io)?;
        if path.to_str().is_none() {
            return Err(DataFolderError::NotNamed(path));
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("owner"))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataFolderError::InUse(path)),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let mut text = String::new();
        lock.read_to_string(&mut text).map_err(io)?;
        Ok(DataFolder { path, lock, former: text.trim().parse().ok() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The host that had it before, if one did.
    pub fn former(&self) -> Option<HostId> {
        self.former
    }

    /// From now on this host has it. Written before the host registers: a crash between the two leaves an id that no row
    /// knows, which harms nobody.
    pub fn own(&mut self, host: HostId) -> Result<(), DataFolderError> {
        let mut write = || {
            self.lock.set_len(0)?;
            self.lock.rewind()?;
            writeln!(self.lock, "{host}")?;
            self.lock.sync_all()
        };
        write().map_err(|source| DataFolderError::Io { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_and_remembers_the_last() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("deep/data");
        let mut first = DataFolder::open(&path).unwrap();
        assert_eq!(first.former(), None);
        let id = uuid::Uuid::now_v7();
        first.own(id).unwrap();
        assert!(matches!(DataFolder::open(&path), Err(DataFolderError::InUse(_))));
        drop(first);
        assert_eq!(DataFolder::open(&path).unwrap().former(), Some(id));
        use std::os::unix::ffi::OsStrExt;
        let odd = scratch.path().join(std::ffi::OsStr::from_bytes(b"d\xff"));
        std::fs::create_dir(&odd).unwrap();
        std::os::unix::fs::symlink(&odd, scratch.path().join("link")).unwrap();
        let refused = DataFolder::open(&scratch.path().join("link")).unwrap_err();
        assert!(
            matches!(refused, DataFolderError::NotNamed(_)) && refused.to_string().contains("data.dir"),
            "{refused}"
        );
    }

    /// Of a thread, as a container drops it for the whole process.
    #[cfg(target_os = "linux")]
    #[test]
    fn root_without_the_capability_to_use_files_of_others_is_told_so() {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        assert!(rustix::process::geteuid().is_root(), "it needs root; cargo xtask test skips it for other users");
        let scratch = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(scratch.path(), Some(65_534), Some(65_534)).unwrap();
        let path = scratch.path().to_owned();
        let opened = std::thread::spawn(move || {
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::DAC_OVERRIDE);
            set_capabilities(None, sets).unwrap();
            DataFolder::open(&path.join("data")).map(drop).map_err(|error| error.to_string())
        });
        let error = opened.join().unwrap().unwrap_err();
        assert!(error.contains("CAP_DAC_OVERRIDE") && error.contains("give data.dir to root"), "{error}");
    }
}
