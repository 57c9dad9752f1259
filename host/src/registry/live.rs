//! The registry of a running host: loads on start, follows the folders, and answers from the latest snapshot.

use super::folders::Folders;
use super::installed::Installed;
use super::limits::{self, Ceilings, LimitError, LimitSettings};
use super::load::{Known, Terms};
use super::pins::Origins;
use super::policy::Policies;
use super::reach::Reach;
use super::recording::CallsPolicy;
use super::scan::{self, Scan};
use super::snapshot::{Snapshot, ready};

use super::{Catalog, PluginInfo, Resolved, Runner, Served, VersionInfo};
use crate::task::{PluginRef, RetryPolicy};
use agentry_sandbox::{Compiler, Sandbox, SandboxConfig};
use futures_util::StreamExt;
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Component files read and loaded at once; each may have `limits.max.component_mib` in memory.
const LOADS: usize = 4;
/// No event for so long: what was being written is at rest.
const QUIET: Duration = Duration::from_millis(200);
/// Look even if events never cease.
const PATIENCE: Duration = Duration::from_secs(2);
/// Some file systems tell nobody of their changes.
const RESCAN: Duration = Duration::from_secs(30);
/// Scans until every folder is watched; a folder may appear between the look and the watch.
const WATCH_ROUNDS: usize = 3;

/// What the registry needs to know.
#[derive(Clone)]
pub struct RegistryConfig {
    /// `plugins.dir`.
    pub dirs: Vec<PathBuf>,
    /// `plugins.mutable`.
    pub mutable: bool,
    /// What runs plugins; see [`sandbox`].
    pub sandbox: Sandbox,
    /// `limits.default.*`.
    pub defaults: LimitSettings,
    /// `limits.max.*`.
    pub max: Ceilings,
    /// `[retry]`.
    pub retry: RetryPolicy,
    /// `[plugins."…"]`.
    pub policies: Policies,
    /// `[calls]`.
    pub calls: CallsPolicy,
    /// What is behind the grants.
    pub reach: Reach,
    /// File that records from which folder the newest version of each plugin came; `None`: for this process only.
    pub origins: Option<PathBuf>,
}

/// What the sandbox needs to know besides the ceilings.
#[derive(Clone, Debug)]
pub struct SandboxSettings {
    /// Where compiled plugins are kept; `None`: nowhere.
    pub cache_dir: Option<PathBuf>,
    /// Most guests alive at once.
    pub slots: u32,
    /// Components compiled at once.
    pub compile_concurrency: u32,
    /// Where they are compiled.
    pub compiler: Compiler,
    /// Traps tell their source lines, where the component carries them.
    pub source_lines: bool,
}

/// Why there is no registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A folder of `plugins.dir` is not there.
    #[error("open the plugin folder {}: {error}; create it, or name another as plugins.dir (--plugins)", dir.display())]
    Directory {
        /// The folder.
        dir: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The limits contradict themselves.
    #[error("settle the limits: {0}")]
    Limits(#[from] LimitError),
    /// The engine cannot be made.
    #[error("{0}")]
    Engine(#[from] agentry_sandbox::EngineError),
    /// The one plugin that was asked for is not usable.
    #[error("open the plugin {cause}")]
    Plugin {
        /// What is wrong, where, and the remedy.
        cause: String,
    },
}

/// The sandbox for [`RegistryConfig`]. It reserves address space for every slot, so a process makes one.
///
/// # Errors
/// Limits that contradict themselves; an engine or a cache folder that cannot be had.
pub fn sandbox(settings: SandboxSettings, defaults: &LimitSettings, max: &Ceilings) -> Result<Sandbox, RegistryError> {
    limits::check(defaults, max)?;
    let SandboxSettings { cache_dir, slots, compile_concurrency, compiler, source_lines } = settings;
    Ok(Sandbox::new(SandboxConfig {
        cache_dir,
        slots,
        ceilings: max.to_sandbox(),
        compile_concurrency,
        component_bytes: max.component_bytes(),
        compile_timeout: max.compile_timeout(),
        compile_memory: max.compile_memory(),
        compiler,
        source_lines,
    })?)
}

/// The plugins of this host. Cheap to clone; the folders are followed until the last clone is gone.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
    _following: Arc<DropGuard>,
}

struct Shared {
    dirs: Vec<PathBuf>,
    terms: Terms,
    current: RwLock<Arc<Snapshot>>,
    generation: watch::Sender<u64>,
    /// Held through a whole pass over the folders: one at a time.
    state: Mutex<State>,
    folders: Folders,
    wake: Arc<Notify>,
}

/// What the last pass found.
#[derive(Default)]
struct State {
    known: Vec<Known>,
    /// What could not be looked into, so that it is said once.
    unread: Vec<String>,
    origins: Origins,
}

impl Registry {
    /// Load everything, and follow the folders from now on. A plugin that cannot be loaded is logged and listed; it is no
    /// error.
    ///
    /// # Errors
    /// A plugin folder that is not there or cannot be read; limits that contradict themselves.
    pub async fn start(config: RegistryConfig) -> Result<Registry, RegistryError> {
        limits::check(&config.defaults, &config.max)?;
        for dir in &config.dirs {
            let error = match std::fs::read_dir(dir) {
                Ok(_) => continue,
                Err(error) => error,
            };
            return Err(RegistryError::Directory { dir: dir.clone(), error });
        }
        let wake = Arc::new(Notify::new());
        let state = State { origins: Origins::read(config.origins.clone()), ..State::default() };
        let shared = Arc::new(Shared {
            dirs: config.dirs.clone(),
            terms: terms(config),
            current: RwLock::default(),
            generation: watch::Sender::new(0),
            state: Mutex::new(state),
            folders: Folders::new(wake.clone()),
            wake,
        });
        shared.pass(true).await;
        let stop = CancellationToken::new();
        tokio::spawn(follow(shared.clone(), stop.clone()));
        Ok(Registry { shared, _following: Arc::new(stop.drop_guard()) })
    }

    /// One plugin for a single run, from its folder or its component file; nothing is followed. A component without a
    /// `plugin.toml` that names it wishes for nothing, and is version 0.0.0 under its file's name.
    ///
    /// # Errors
    /// What is wrong with it, where, and the remedy.
    pub async fn open(config: RegistryConfig, path: &Path) -> Result<Arc<Installed>, RegistryError> {
        limits::check(&config.defaults, &config.max)?;
        let opened = terms(config).open(path).await;
        opened.map(Arc::new).map_err(|cause| RegistryError::Plugin { cause })
    }

    /// Look at the folders now, and return when everything in them is loaded or refused.
    pub async fn reload(&self) {
        self.shared.pass(false).await;
    }
}

impl Installed {
    /// As a person may see it.
    pub fn info(&self) -> VersionInfo {
        ready(self)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("dirs", &self.shared.dirs).finish_non_exhaustive()
    }
}

impl Catalog for Registry {
    fn resolve(&self, plugin: &PluginRef) -> Resolved {
        self.shared.snapshot().resolve(plugin)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }

    fn list(&self) -> Vec<PluginInfo> {
        self.shared.snapshot().list()
    }

    fn served(&self) -> Served {
        self.shared.snapshot().served()
    }
}

fn terms(config: RegistryConfig) -> Terms {
    let RegistryConfig { dirs: _, mutable, sandbox, defaults, max, retry, policies, calls, reach, origins: _ } = config;
    Terms { sandbox, defaults, max, retry, policies, calls, reach, mutable }
}

impl Shared {
    fn snapshot(&self) -> Arc<Snapshot> {
        // Nothing can panic while it is locked.
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Look at every folder once. Answers whether one deserves another look soon.
    async fn pass(&self, first: bool) -> bool {
        let mut state = self.state.lock().await;
        let State { known, unread, origins } = &mut *state;
        let Some(scan) = self.scan().await else { return false };
        for there in scan.unread.iter().filter(|u| !unread.contains(&u.cause)) {
            tracing::warn!("failed to look for plugins, what was found there before stays: {}", there.cause);
        }
        *unread = scan.unread.iter().map(|u| u.cause.clone()).collect();
        retain(known, &scan);
        let mut work = Vec::new();
        for (place, folder) in scan.folders.into_iter().enumerate() {
            // Every folder gets its place before any is examined, so that the order is the folders' own.
            let old = known.iter().position(|k| k.path == folder.path).map(|at| known.remove(at));
            let fresh = || Known::new(folder.root, folder.path.clone());
            known.insert(place, old.clone().unwrap_or_else(fresh));
            work.push((place, folder, old));
        }
        if !first {
            self.publish(known, origins);
        }
        let looks =
            work.into_iter().map(|(place, folder, old)| async move { (place, self.terms.examine(folder, old).await) });
        let mut looks = futures_util::stream::iter(looks).buffer_unordered(LOADS);
        while let Some((place, examined)) = looks.next().await {
            known[place] = examined;
            if !first {
                // Nobody waits for a neighbour that takes a minute to compile.
                self.publish(known, origins);
            }
        }
        if first {
            // Of two folders with the same version the first one wins, and not the one that was quicker.
            self.publish(known, origins);
        }
        origins.save().await;
        known.iter().any(|k| k.again)
    }

    /// What is in the folders, once all of them are watched.
    async fn scan(&self) -> Option<Scan> {
        for _ in 1..WATCH_ROUNDS {
            let scan = self.scan_once().await?;
            if !self.folders.watch(&scan.watch) {
                return Some(scan);
            }
        }
        self.scan_once().await
    }

    async fn scan_once(&self) -> Option<Scan> {
        let dirs = self.dirs.clone();
        let scanned = spawn_blocking(move || scan::scan(&dirs)).await;
        scanned.inspect_err(|error| tracing::error!("failed to look for plugins: {error}")).ok()
    }

    fn publish(&self, known: &[Known], origins: &mut Origins) {
        let before = self.snapshot();
        let next = Snapshot::assemble(known, &before, &self.terms.policies);
        if next.is_same(&before) {
            return;
        }
        let (loaded, broken) = next.beyond(&before);
        let (gone, mended) = before.beyond(&next);
        for (build, before) in origins.note(next.newest()) {
            let name = build.name();
            // A pin has settled it.
            if !self.terms.policies.of(name).pins.is_set() {
                tracing::warn!(
                    plugin = %name, version = %build.version(), digest = %build.digest(), path = %build.path().display(),
                    before_version = %before.version, before_digest = %before.digest,
                    before_path = %before.path.display(),
                    "the newest version of a plugin comes from another folder than before: if it should not, set dir or \
                     digest in [plugins.\"{name}\"]"
                );
            }
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.generation.send_modify(|generation| *generation += 1);
        for build in loaded {
            tracing::info!(
                plugin = %build.name(), version = %build.version(), digest = %build.digest(),
                path = %build.path().display(), "plugin loaded"
            );
        }
        for build in gone {
            tracing::info!(
                plugin = %build.name(), version = %build.version(), digest = %build.digest(),
                "plugin build no longer offered to new attempts"
            );
        }
        for problem in broken {
            tracing::warn!(plugin = %problem.name, "plugin not loaded: {}", problem.cause);
        }
        for problem in mended {
            tracing::debug!(plugin = %problem.name, "no longer so: {}", problem.cause);
        }
    }
}

/// Forget the folders that are gone. What could not be looked into is not gone.
fn retain(known: &mut Vec<Known>, scan: &Scan) {
    let found: HashSet<&PathBuf> = scan.folders.iter().map(|f| &f.path).collect();
    known.retain(|k| {
        let unread =
            |u: &scan::Unread| u.root == k.root && u.under.as_ref().is_none_or(|under| k.path.starts_with(under));
        found.contains(&k.path) || scan.unread.iter().any(unread)
    });
}

/// Look again whenever something changed, until nobody asks any more.
async fn follow(shared: Arc<Shared>, stop: CancellationToken) {
    let mut again = false;
    loop {
        let pause = if again { QUIET } else { RESCAN };
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.wake.notified() => settle(&shared.wake).await,
            () = tokio::time::sleep(pause) => {}
        }
        // A dropped registry does not wait for a compiler.
        again = tokio::select! {
            () = stop.cancelled() => return,
            again = shared.pass(false) => again,
        };
    }
}

/// Wait until what happens has happened.
async fn settle(wake: &Notify) {
    let quiet = async { while tokio::time::timeout(QUIET, wake.notified()).await.is_ok() {} };
    // Events that never cease are no reason never to look.
    let _ = tokio::time::timeout(PATIENCE, quiet).await;
}
