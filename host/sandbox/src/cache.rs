//! Compiled code on disk, so that a restart does not compile everything again.
//!
//! Loading compiled code runs whatever it holds, outside the sandbox. So the folder belongs to the daemon's user alone, a
//! file that somebody else owns or may write is ignored, and each file ends with a checksum of itself, which finds what
//! disks do. It is no defence against the daemon's own user, who needs none of this to run code.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use agentry_defence::Defence;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use tracing::{debug, warn};
use wasmtime::Engine;
use wasmtime::component::Component;

/// What the end of a file looks like: the checksum of all before it, and these bytes. At the end and not at the start,
/// because the engine maps the file, and code begins at a page.
const MARK: &[u8; 16] = b"agentry code  1\n";
/// What files are called that are not whole yet.
const DRAFT: &str = "tmp";
/// Longer than any compiler takes.
const DRAFTS_LIVE: Duration = Duration::from_secs(24 * 60 * 60);
/// What files of compiled code are called.
const CODE: &str = "cwasm";
/// What nobody loaded for so long goes: another plugin's, another build's.
const CODE_LIVES: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const TRAILER_BYTES: u64 = 32 + MARK.len() as u64;

/// A folder of compiled components that fit one engine.
pub(crate) struct Cache {
    dir: PathBuf,
    /// The folder goes with the process.
    _passing: Option<tempfile::TempDir>,
    /// Tells engines of other versions, settings and machines apart.
    engine: u64,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It could not be made or looked at.
    #[error("use the folder for compiled code {}: {source}", dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else owns it, and with it what the daemon would run.
    #[error("use the folder for compiled code {}: it belongs to user {owner}, not to this process's user {user}; remove it or choose another", dir.display())]
    Owner {
        /// The folder.
        dir: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who this is.
        user: u32,
    },
}

impl Cache {
    /// Opens the folder, making it if it is missing, readable for its owner alone.
    pub(crate) fn open(dir: &Path, engine: &Engine) -> Result<Cache, CacheError> {
        let io = |source| CacheError::Io { dir: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let found = fs::metadata(dir).map_err(io)?;
        let user = rustix::process::geteuid().as_raw();
        if found.uid() != user {
            return Err(CacheError::Owner { dir: dir.to_owned(), owner: found.uid(), user });
        }
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(io)?;
        }
        Cache::tidy(dir);
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Cache { dir: dir.to_owned(), _passing: None, engine: hasher.finish() })
    }

    /// A folder for this process alone: what is compiled elsewhere has to come here through a file.
    pub(crate) fn passing(engine: &Engine) -> Result<Cache, CacheError> {
        let made = tempfile::Builder::new().prefix("agentry-compiled-").tempdir();
        let made = made.map_err(|source| CacheError::Io { dir: std::env::temp_dir(), source })?;
        let cache = Cache::open(made.path(), engine)?;
        Ok(Cache { _passing: Some(made), ..cache })
    }

    /// Removes what a process left that died while it wrote, and what nobody has loaded for long. Whoever runs from a file that
    /// is removed keeps what is mapped.
    fn tidy(dir: &Path) {
        let past = |path: &Path| {
            let lives = match path.extension()?.to_str()? {
                DRAFT => DRAFTS_LIVE,
                CODE => CODE_LIVES,
                _ => return None,
            };
            let age = fs::symlink_metadata(path).and_then(|found| found.modified()).ok()?.elapsed().ok()?;
            Some(age > lives)
        };
        let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in files.filter(|path| past(path) == Some(true)) {
            match fs::remove_file(&path) {
                Ok(()) => debug!(path = %path.display(), "removed compiled code that nobody uses"),
                Err(error) => debug!(path = %path.display(), %error, "could not remove old compiled code"),
            }
        }
    }

    fn path(&self, digest: &str) -> PathBuf {
        let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
        self.dir.join(format!("{digest}-{:016x}.{CODE}", self.engine))
    }

    /// The compiled form of the component with this digest, if it is here and whole. Anything doubtful is as good as
    /// absent: it is compiled again and replaced.
    pub(crate) fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let path = self.path(digest);
        match trusted(&path) {
            _ if !Defence::CompiledCode.stands() => {}
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                warn!(path = %path.display(), %error, "ignored compiled code");
                return None;
            }
        }
        match deserialize(engine, &path) {
            Ok(component) => {
                debug!(path = %path.display(), "took compiled code from the cache");
                // Its age counts from its last use. A file system that does not take it: then from when it was compiled.
                let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                Some(component)
            }
            Err(error) => {
                warn!(path = %path.display(), %error, "ignored compiled code");
                None
            }
        }
    }

    /// Keeps a compiled component for the next time. A failure costs that next time, and nothing now.
    pub(crate) fn store(&self, digest: &str, component: &Component) {
        let path = self.path(digest);
        let stored = component.serialize().map_err(io::Error::other).and_then(|code| {
            let draft = self.draft()?;
            seal(&mut draft.output()?, &code)?;
            self.keep(&draft, &path)
        });
        if let Err(error) = stored {
            warn!(path = %path.display(), %error, "could not keep compiled code");
        }
    }

    /// What another process of this program wrote into a draft: looked at like any file here, kept, and loaded.
    pub(crate) fn adopt(&self, engine: &Engine, digest: &str, draft: &Draft) -> Result<Component, Unfit> {
        let path = self.path(digest);
        if !trusted(&draft.path)? {
            return Err(io::Error::other("the compiler left nothing").into());
        }
        self.keep(draft, &path)?;
        deserialize(engine, &path).map_err(Unfit::Engine)
    }

    /// A file to write compiled code to, under another name than it will have, so that a crash leaves either the whole or
    /// nothing.
    pub(crate) fn draft(&self) -> io::Result<Draft> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!(".{}-{count}.{DRAFT}", std::process::id()));
        let _ = fs::remove_file(&path); // of a process that had this one's number
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Draft { file, path })
    }

    fn keep(&self, draft: &Draft, path: &Path) -> io::Result<()> {
        draft.file.sync_all()?;
        fs::rename(&draft.path, path)?;
        File::open(&self.dir)?.sync_all()
    }
}

/// See [`Cache::draft`]. Dropped: gone, unless it was kept.
pub(crate) struct Draft {
    file: File,
    path: PathBuf,
}

impl Draft {
    /// Where to write it.
    pub(crate) fn output(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // kept, it has another name
    }
}

/// Why what the compiler wrote is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    /// It could not be kept.
    #[error("keep compiled code: {0}")]
    Io(#[from] io::Error),
    /// The engine does not take it.
    #[error("{0:#}")]
    Engine(wasmtime::Error),
}

/// Compiled code as it stands in a file here.
pub(crate) fn seal(output: &mut impl Write, code: &[u8]) -> io::Result<()> {
    output.write_all(code)?;
    output.write_all(&Sha256::digest(code))?;
    output.write_all(MARK)
}

/// Whether the file is there, ours alone, and what was written. The answer stays true afterwards because only this user
/// can write to the folder, and this program only ever replaces whole files.
fn trusted(path: &Path) -> io::Result<bool> {
    let opened = OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let found = file.metadata()?;
    if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    if found.mode() & 0o022 != 0 {
        return Err(io::Error::other("others may write it"));
    }
    let Some(length) = found.len().checked_sub(TRAILER_BYTES) else {
        return Err(io::Error::other("it is too short"));
    };
    let mut hasher = Sha256::new();
    io::copy(&mut (&mut file).take(length), &mut HashWriter(&mut hasher))?;
    let mut trailer = Vec::with_capacity(TRAILER_BYTES as usize);
    file.read_to_end(&mut trailer)?;
    if trailer[..] != [&hasher.finalize()[..], &MARK[..]].concat() {
        return Err(io::Error::other("its checksum is wrong"));
    }
    Ok(true)
}

/// Feeds a reader into a hash.
struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[allow(unsafe_code, reason = "the engine cannot know that it made the file itself; the cache does")]
fn deserialize(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the code must come from `Component::serialize` and must not change while it is mapped. The folder is
    // writable for this user alone (`Cache::open`), the file is owned and writable by this user alone and carries the
    // checksum of what this program wrote (`trusted`), and this program never writes to a file in place (`draft`). That
    // it fits this very engine is checked by the engine.
    unsafe { Component::deserialize_file(engine, path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> Engine {
        Engine::default()
    }

    fn component(engine: &Engine) -> Component {
        Component::from_binary(engine, &wat::parse_str("(component)").unwrap()).unwrap()
    }

    const DIGEST: &str = "sha256:00ff";

    #[test]
    fn what_was_kept_is_found_again_by_the_same_engine() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(&dir.path().join("code"), &engine).unwrap();
        assert!(cache.load(&engine, DIGEST).is_none());
        cache.store(DIGEST, &component(&engine));
        assert!(cache.load(&engine, DIGEST).is_some());
        assert_eq!(fs::metadata(&cache.dir).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(cache.path(DIGEST)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&cache.dir).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn another_engines_code_has_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), &engine()).unwrap();
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let other = Cache::open(dir.path(), &Engine::new(&config).unwrap()).unwrap();
        assert_ne!(cache.path(DIGEST), other.path(DIGEST));
    }

    #[test]
    fn a_damaged_file_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(dir.path(), &engine).unwrap();
        cache.store(DIGEST, &component(&engine));
        let whole = fs::read(cache.path(DIGEST)).unwrap();
        for damage in [0, whole.len() / 2, whole.len() - 20] {
            let mut damaged = whole.clone();
            damaged[damage] ^= 1;
            fs::write(cache.path(DIGEST), damaged).unwrap();
            assert!(cache.load(&engine, DIGEST).is_none(), "byte {damage}");
        }
        for length in [0, 10, whole.len() - 1] {
            fs::write(cache.path(DIGEST), &whole[..length]).unwrap();
            assert!(cache.load(&engine, DIGEST).is_none(), "length {length}");
        }
        cache.store(DIGEST, &component(&engine));
        assert!(cache.load(&engine, DIGEST).is_some(), "it is replaced");
    }

    #[test]
    fn what_nobody_uses_goes_and_what_was_used_lately_stays() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(dir.path(), &engine).unwrap();
        let aged = |path: &Path, days: u64| {
            let at = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
            File::options().create(true).append(true).open(path).and_then(|file| file.set_modified(at)).unwrap();
        };
        cache.store(DIGEST, &component(&engine));
        aged(&cache.path(DIGEST), 40);
        cache.load(&engine, DIGEST).unwrap();
        let (old, draft, fresh, others) = ("old.cwasm", ".1-1.tmp", ".2-1.tmp", "notes.txt");
        for (name, days) in [(old, 31), (draft, 2), (fresh, 0), (others, 99)] {
            aged(&dir.path().join(name), days);
        }
        Cache::open(dir.path(), &engine).unwrap();
        let there = |name: &str| dir.path().join(name).exists();
        assert!(cache.path(DIGEST).exists(), "it was used today");
        assert_eq!([old, draft, fresh, others].map(there), [false, false, true, true]);
    }

    #[test]
    fn a_file_that_others_may_write_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(dir.path(), &engine).unwrap();
        cache.store(DIGEST, &component(&engine));
        fs::set_permissions(cache.path(DIGEST), fs::Permissions::from_mode(0o622)).unwrap();
        assert!(cache.load(&engine, DIGEST).is_none());
    }

    #[test]
    fn a_link_to_a_file_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine();
        let cache = Cache::open(dir.path(), &engine).unwrap();
        cache.store(DIGEST, &component(&engine));
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(cache.path(DIGEST), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, cache.path(DIGEST)).unwrap();
        assert!(cache.load(&engine, DIGEST).is_none());
    }

    #[test]
    fn a_folder_that_others_could_enter_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Cache::open(dir.path(), &engine()).unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o700);
    }
}
