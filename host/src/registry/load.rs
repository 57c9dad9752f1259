//! From a folder to a build that serves, or to the reason why not.

use super::installed::Installed;
use super::limits::{self, Ceilings, LimitError, LimitSettings};
use super::manifest::{self, Manifest};
use super::policy::{self, CapabilityWishes, Policies};
use super::reach::{self, Reach};
use super::recording::CallsPolicy;
use super::scan::{self, FileError, Folder, Stamp};
use super::{GrantInfo, LimitInfo, Origin};
use crate::task::{PluginRef, RetryPolicy};
use agentry_sandbox::{LoadError, Plugin, Sandbox};
use chrono::Utc;
use semver::Version;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;

const MIB: u64 = 1 << 20;
/// What an attempt counts with beyond its initial memory, unless its plugin says: the store, buffers, some growth.
const RESERVE_BYTES: u64 = 4 * MIB;
/// The reservation's name among the limits.
const RESERVE: &str = "memory_reserve_mib";

/// What loading needs to know besides the folder.
#[derive(Clone)]
pub(super) struct Terms {
    pub(super) sandbox: Sandbox,
    pub(super) defaults: LimitSettings,
    pub(super) max: Ceilings,
    pub(super) retry: RetryPolicy,
    pub(super) policies: Policies,
    pub(super) calls: CallsPolicy,
    pub(super) reach: Reach,
    pub(super) mutable: bool,
}

/// What is known of one folder.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) root: usize,
    pub(super) path: PathBuf,
    /// What it gives to new attempts.
    pub(super) offer: Offer,
    /// Why what is in it now was not taken.
    pub(super) problem: Option<Problem>,
    /// It is worth another look soon, without any event.
    pub(super) again: bool,
    /// What was last looked at; the same needs no second look. `None`: look.
    seen: Option<Seen>,
    /// What was last loaded, or refused with a problem.
    tried: Option<(Tried, Option<Problem>)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Seen {
    manifest: String,
    component: Stamp,
}

#[derive(Clone, Debug, PartialEq)]
struct Tried {
    manifest: String,
    digest: String,
}

/// What a folder gives.
#[derive(Clone, Debug)]
pub(super) enum Offer {
    /// Nothing yet.
    Nothing,
    /// A plugin that the operator turned off: never compiled.
    Disabled(Arc<Manifest>),
    /// A build. It stays on offer while what replaces it is broken.
    Ready(Arc<Installed>),
}

/// What is wrong in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// The plugin's name, or the folder's if that could not be read.
    pub(super) name: String,
    /// The version, if it could be read.
    pub(super) version: Option<Version>,
    /// What is wrong, where, and the remedy.
    pub(super) cause: String,
}

/// Why a component was not taken.
enum Refusal {
    /// The same bytes will not be taken later either.
    Final(String),
    /// They may be.
    Passing(String),
}

impl Known {
    pub(super) fn new(root: usize, path: PathBuf) -> Known {
        Known { root, path, offer: Offer::Nothing, problem: None, again: false, seen: None, tried: None }
    }

    fn look_again(&mut self, error: &FileError) {
        self.seen = None;
        self.again = matches!(error, FileError::Changing(_));
    }

    /// The build on offer, if it has this name and version.
    fn serving(&self, manifest: &Manifest) -> Option<&Arc<Installed>> {
        match &self.offer {
            Offer::Ready(build) if *build.name == *manifest.name && build.version == manifest.version => Some(build),
            _ => None,
        }
    }
}

impl Terms {
    /// What is known of a folder after a look at it.
    pub(super) async fn examine(&self, folder: Folder, old: Option<Known>) -> Known {
        let Folder { root, path, manifest } = folder;
        let mut known = old.unwrap_or_else(|| Known::new(root, path));
        (known.root, known.again) = (root, false);
        let text = match manifest {
            Ok(text) => text,
            Err(error) => {
                known.problem = Some(nameless(&known, error.to_string()));
                known.look_again(&error);
                return known;
            }
        };
        let manifest = match Manifest::parse(&known.path.join(manifest::FILE), &text) {
            Ok(manifest) => manifest,
            Err(error) => {
                let (name, version) = manifest::gist(&text);
                let problem = nameless(&known, error.to_string());
                known.problem = Some(Problem { name: name.unwrap_or(problem.name), version, ..problem });
                known.seen = None;
                return known;
            }
        };
        if !self.policies.of(&manifest.name).is_enabled() {
            let offer = Offer::Disabled(Arc::new(manifest));
            return Known { offer, problem: None, seen: None, tried: None, ..known };
        }
        self.examine_component(known, manifest, text).await
    }

    async fn examine_component(&self, mut known: Known, manifest: Manifest, text: String) -> Known {
        let broken = |cause: String| {
            Some(Problem { name: manifest.name.clone(), version: Some(manifest.version.clone()), cause })
        };
        let file = match scan::find(&known.path, &manifest.component) {
            Ok(file) => file,
            Err(error) => {
                known.look_again(&error);
                known.problem = broken(match &error {
                    FileError::Missing(_) => format!("{error}: {}", scan::remedy(&known.path, &manifest.name)),
                    _ => error.to_string(),
                });
                return known;
            }
        };
        let seen = Seen { manifest: text, component: file.stamp.clone() };
        if known.seen.as_ref() == Some(&seen) {
            return known;
        }
        let component = file.path.clone();
        let limit = self.max.component_bytes();
        let (bytes, digest) = match read(file, limit).await {
            Ok(read) => read,
            Err(error) => {
                known.look_again(&error);
                known.problem = broken(error.to_string());
                return known;
            }
        };
        let tried = Tried { manifest: seen.manifest.clone(), digest };
        known.seen = seen.component.is_settled().then_some(seen);
        if let Some((_, problem)) = known.tried.as_ref().filter(|(before, _)| *before == tried) {
            known.problem = problem.clone();
            return known;
        }
        if let Some(serving) = known.serving(&manifest).filter(|b| *b.digest != *tried.digest && !self.mutable) {
            known.problem = broken(format!(
                "{} has the digest {}, and {}@{} is {} already, which keeps serving: give it a new plugin.version, or \
                 set plugins.mutable = true for development",
                component.display(),
                tried.digest,
                serving.name,
                serving.version,
                serving.digest,
            ));
            known.tried = Some((tried, known.problem.clone()));
            return known;
        }
        match self.load(&known.path, &component, &manifest, (bytes, &tried.digest)).await {
            Ok(build) => {
                (known.offer, known.problem) = (Offer::Ready(Arc::new(build)), None);
                known.tried = Some((tried, None));
            }
            Err(Refusal::Final(cause)) => {
                known.problem = broken(cause);
                known.tried = Some((tried, known.problem.clone()));
            }
            Err(Refusal::Passing(cause)) => {
                known.problem = broken(cause);
                (known.seen, known.tried) = (None, None);
            }
        }
        known
    }

    /// The build of one path, for a single run: a plugin's folder, or a component with or without a `plugin.toml`
    /// beside it that names it.
    pub(super) async fn open(&self, path: &Path) -> Result<Installed, String> {
        let asked = path.to_owned();
        let located = spawn_blocking(move || locate(&asked)).await;
        let Located { place, file, manifest } = located.map_err(|e| format!("{}: {e}", path.display()))??;
        let component = file.path.clone();
        let (bytes, digest) = read(file, self.max.component_bytes()).await.map_err(|e| e.to_string())?;
        self.load(&place, &component, &manifest, (bytes, &digest)).await.map_err(|refusal| match refusal {
            Refusal::Final(cause) | Refusal::Passing(cause) => cause,
        })
    }

    async fn load(
        &self,
        path: &Path,
        file: &Path,
        manifest: &Manifest,
        (bytes, digest): (Vec<u8>, &str),
    ) -> Result<Installed, Refusal> {
        let in_manifest = |error: LimitError| Refusal::Final(format!("{}: {error}", path.display()));
        let policy = self.policies.of(&manifest.name);
        policy.pins.check(&manifest.name, path, digest).map_err(Refusal::Final)?;
        let own = (&policy.limits, &policy.max);
        let mut limits = limits::resolve(&self.defaults, own, &manifest.limits, &self.max).map_err(in_manifest)?;
        let memory_mib = limits.values.memory_mib;
        if let Some(asked) = manifest.memory_reserve_mib.filter(|asked| *asked > memory_mib) {
            return Err(in_manifest(LimitError::ReserveAboveMemory { asked, memory_mib }));
        }
        let grants = policy.grants(&manifest.capabilities);
        let granted = self.reach.granted(
            &manifest.name,
            &grants,
            &manifest.config,
            reach::budgets(&limits.values, &policy.budgets),
        );
        let granted = granted.map_err(|missing| Refusal::Final(format!("{}: {missing}", path.display())))?;
        let mut capabilities = policy::to_sandbox(&grants);
        if !manifest.config.is_empty() {
            // What stands in its own plugin.toml it may read.
            capabilities.capabilities.insert("config".to_owned());
        }
        let loaded = self.sandbox.load(bytes.into(), &capabilities).await;
        let plugin = loaded.map_err(|error| refusal(file, &manifest.name, error, &grants))?;
        let allowed = memory_mib.saturating_mul(MIB);
        if plugin.initial_memory() > allowed {
            return Err(Refusal::Final(format!(
                "{} begins with {} MiB of memory, and its limits.memory_mib is {memory_mib}: ask for more in plugin.toml",
                file.display(),
                plugin.initial_memory().div_ceil(MIB),
            )));
        }
        let memory_reserve = reserve(manifest, &plugin).min(allowed);
        limits.info.insert(RESERVE.to_owned(), reserve_info(manifest, memory_reserve, memory_mib));
        Ok(Installed {
            name: manifest.name.as_str().into(),
            version_text: manifest.version.to_string().into(),
            version: manifest.version.clone(),
            digest: plugin.digest().into(),
            description: manifest.description.clone(),
            queue: manifest.queue.clone(),
            retry: manifest.retry.or(&self.retry),
            ceiling: Duration::from_secs(limits.timeout_ceiling()),
            concurrency: policy.concurrency,
            memory_reserve,
            limits,
            grants,
            granted,
            calls: policy.calls.or(&self.calls),
            path: path.to_owned(),
            loaded_at: Utc::now(),
            plugin,
        })
    }
}

fn refusal(file: &Path, name: &str, error: LoadError, grants: &BTreeMap<String, GrantInfo>) -> Refusal {
    let file = file.display();
    match error {
        // The sandbox knows that there is no grant, and not whose half of it is missing.
        LoadError::NotGranted { import, capability, .. } if grants.contains_key(capability) => {
            let GrantInfo { wish, .. } = &grants[capability];
            if wish.is_empty() {
                return Refusal::Final(format!(
                    "{file}: it imports {import}, which the operator allows and its plugin.toml does not ask for: add \
                     {capability} to [capabilities]"
                ));
            }
            Refusal::Final(format!(
                "{file}: it imports {import}, and the operator allows none of capabilities.{capability} = {wish:?} that \
                 its plugin.toml asks for: allow it in the settings under [plugins.\"{name}\"]"
            ))
        }
        error @ LoadError::Internal { .. } => Refusal::Passing(format!("{file}: failed to {error}")),
        error => Refusal::Final(format!("{file}: failed to {error}")),
    }
}

fn reserve(manifest: &Manifest, plugin: &Plugin) -> u64 {
    manifest.memory_reserve_mib.map_or(plugin.initial_memory() + RESERVE_BYTES, |mib| mib.saturating_mul(MIB))
}

/// As a person may see it: in whole MiB, upwards, and at most the plugin's own limit.
fn reserve_info(manifest: &Manifest, bytes: u64, memory_mib: u64) -> LimitInfo {
    let origin = if manifest.memory_reserve_mib.is_some() { Origin::Plugin } else { Origin::Derived };
    LimitInfo { value: bytes.div_ceil(MIB), origin, ceiling: memory_mib }
}

async fn read(file: scan::PluginFile, limit: u64) -> Result<(Vec<u8>, String), FileError> {
    let path = file.path.clone();
    let reading = spawn_blocking(move || {
        let bytes = scan::read(&file, limit, "limits.max.component_mib")?;
        let digest = agentry_sandbox::digest(&bytes);
        Ok((bytes, digest))
    });
    reading.await.unwrap_or_else(|e| Err(FileError::Io { path, error: e.into() }))
}

/// A problem of a folder whose plugin is not known: of the one on offer, or named after the folder.
fn nameless(known: &Known, cause: String) -> Problem {
    let name = match &known.offer {
        Offer::Ready(build) => build.name.to_string(),
        Offer::Disabled(manifest) => manifest.name.clone(),
        Offer::Nothing => known.path.file_name().unwrap_or(known.path.as_os_str()).to_string_lossy().into_owned(),
    };
    Problem { name, version: None, cause }
}

/// A plugin that somebody named by a path.
struct Located {
    /// Its folder, or the file of a component by itself.
    place: PathBuf,
    file: scan::PluginFile,
    manifest: Manifest,
}

/// What a plugin asks for, if its folder or the one of its component has a `plugin.toml` that can be read. What is wrong with
/// it is said when it is opened.
pub fn wishes_of(path: &Path) -> CapabilityWishes {
    locate(path).map(|located| located.manifest.capabilities).unwrap_or_default()
}

fn locate(path: &Path) -> Result<Located, String> {
    let absolute = path.canonicalize().map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
    if absolute.is_dir() {
        let text = scan::read_manifest(&absolute).map_err(|e| e.to_string())?;
        let manifest = Manifest::parse(&absolute.join(manifest::FILE), &text).map_err(|e| e.to_string())?;
        let file = scan::find(&absolute, &manifest.component).map_err(|e| match e {
            FileError::Missing(_) => format!("{e}: {}", scan::remedy(&absolute, &manifest.name)),
            e => e.to_string(),
        })?;
        return Ok(Located { place: absolute, file, manifest });
    }
    let folder = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    let name = absolute.file_name().unwrap_or_default();
    let file = scan::find(&folder, Path::new(name)).map_err(|e| e.to_string())?;
    if let Ok(text) = scan::read_manifest(&folder) {
        let manifest = Manifest::parse(&folder.join(manifest::FILE), &text).map_err(|e| e.to_string())?;
        if scan::find(&folder, &manifest.component).is_ok_and(|named| named.path == file.path) {
            return Ok(Located { place: folder, file, manifest });
        }
    }
    let manifest = Manifest::bare(&plain_name(&absolute));
    Ok(Located { place: absolute, file, manifest })
}

/// A plugin's name made of a file's.
fn plain_name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    if PluginRef::is_name(&name) { name } else { "component".into() }
}
