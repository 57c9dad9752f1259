//! What is on offer at one moment: immutable, shared, cheap to ask.

use super::installed::Installed;
use super::load::{Known, Offer, Problem};
use super::manifest::Manifest;
use super::policy::Policies;
use super::{PluginInfo, PluginState, Resolved, Runner, Served, VersionInfo};
use crate::task::PluginRef;
use semver::{Version, VersionReq};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything on offer, by name.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    plugins: BTreeMap<String, Entry>,
}

/// All of one name.
#[derive(Debug, Default)]
struct Entry {
    disabled: bool,
    concurrency: Option<u32>,
    /// The highest version first, each once.
    ready: Vec<Arc<Installed>>,
    /// What the operator turned off.
    off: Vec<(Arc<Manifest>, PathBuf)>,
    broken: Vec<Broken>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Broken {
    problem: Problem,
    path: PathBuf,
}

impl Snapshot {
    /// Put together what the folders offer. Where two offer the same version with different digests, the one that serves
    /// already goes on, or else the first; the other is a problem of its folder.
    pub(super) fn assemble(folders: &[Known], before: &Snapshot, policies: &Policies) -> Snapshot {
        let mut plugins: BTreeMap<String, Entry> = BTreeMap::new();
        let (serving, fresh): (Vec<_>, Vec<_>) = folders
            .iter()
            .filter_map(|known| match &known.offer {
                Offer::Ready(build) => Some(build),
                _ => None,
            })
            .partition(|build| before.serves(build));
        for build in serving.into_iter().chain(fresh) {
            let entry = plugins.entry(build.name.to_string()).or_default();
            match entry.ready.iter().find(|other| other.version == build.version) {
                None => entry.ready.push(build.clone()),
                Some(other) if other.digest == build.digest => {}
                Some(other) => entry.broken.push(conflict(build, other)),
            }
        }
        for known in folders {
            if let Offer::Disabled(manifest) = &known.offer {
                let entry = plugins.entry(manifest.name.clone()).or_default();
                entry.off.push((manifest.clone(), known.path.clone()));
            }
            if let Some(problem) = &known.problem {
                let broken = Broken { problem: problem.clone(), path: known.path.clone() };
                plugins.entry(problem.name.clone()).or_default().broken.push(broken);
            }
        }
        for (name, entry) in &mut plugins {
            let policy = policies.of(name);
            (entry.disabled, entry.concurrency) = (!policy.is_enabled(), policy.concurrency);
            entry.ready.sort_by(|a, b| b.version.cmp(&a.version));
            entry.off.sort_by(|(a, _), (b, _)| b.version.cmp(&a.version));
        }
        Snapshot { plugins }
    }

    /// The newest build of each name that is enabled.
    pub(super) fn newest(&self) -> impl Iterator<Item = &Arc<Installed>> {
        self.plugins.values().filter(|entry| !entry.disabled).filter_map(|entry| entry.ready.first())
    }

    fn serves(&self, build: &Arc<Installed>) -> bool {
        let entry = self.plugins.get(&*build.name);
        entry.is_some_and(|e| e.ready.iter().any(|b| b.version == build.version && b.digest == build.digest))
    }

    /// See [`super::Catalog::resolve`].
    pub(super) fn resolve(&self, plugin: &PluginRef) -> Resolved {
        let Some(entry) = self.plugins.get(&*plugin.name) else {
            return Resolved::Unknown { known: self.nearest(&plugin.name) };
        };
        if entry.disabled {
            return Resolved::Disabled;
        }
        if let Some(build) = entry.ready.iter().find(|build| plugin.requirement.matches(&build.version)) {
            return Resolved::Ready(build.clone());
        }
        if let Some(broken) = entry.broken.iter().find(|b| b.may_be(&plugin.requirement)) {
            return Resolved::Broken { cause: broken.problem.cause.clone() };
        }
        let versions = entry.ready.iter().map(|build| format!("{}@{}", build.name, build.version));
        Resolved::Unknown { known: versions.collect() }
    }

    /// The names that are ready, those most like `name` first.
    fn nearest(&self, name: &str) -> Vec<String> {
        let ready = self.plugins.iter().filter(|(_, entry)| !entry.disabled && !entry.ready.is_empty());
        let mut names: Vec<_> = ready.map(|(known, _)| (strsim::damerau_levenshtein(name, known), known)).collect();
        names.sort();
        names.into_iter().map(|(_, known)| known.clone()).collect()
    }

    /// See [`super::Catalog::served`].
    pub(super) fn served(&self) -> Served {
        let enabled = || self.plugins.iter().filter(|(_, entry)| !entry.disabled);
        Served {
            plugins: enabled()
                .flat_map(|(name, entry)| entry.ready.iter().map(move |build| format!("{name}@{}", build.version)))
                .collect(),
            broken: enabled()
                .flat_map(|(name, entry)| entry.broken.iter().map(move |b| format!("{name}: {}", b.problem.cause)))
                .collect(),
        }
    }

    /// See [`super::Catalog::list`].
    pub(super) fn list(&self) -> Vec<PluginInfo> {
        self.plugins.iter().map(|(name, entry)| entry.info(name)).collect()
    }

    /// The builds that `other` does not have, and likewise the problems.
    pub(super) fn beyond(&self, other: &Snapshot) -> (Vec<Arc<Installed>>, Vec<Problem>) {
        let (mut builds, mut problems) = (Vec::new(), Vec::new());
        for (name, entry) in &self.plugins {
            let before = other.plugins.get(name);
            let had = |build: &&Arc<Installed>| before.is_some_and(|e| e.ready.iter().any(|b| Arc::ptr_eq(b, build)));
            builds.extend(entry.ready.iter().filter(|build| !had(build)).cloned());
            let knew = |broken: &&Broken| before.is_some_and(|e| e.broken.contains(broken));
            problems.extend(entry.broken.iter().filter(|broken| !knew(broken)).map(|b| b.problem.clone()));
        }
        (builds, problems)
    }

    /// Whether both answer everything alike.
    pub(super) fn is_same(&self, other: &Snapshot) -> bool {
        self.plugins.len() == other.plugins.len()
            && self.plugins.iter().zip(&other.plugins).all(|((name, a), (other, b))| {
                let ready =
                    a.ready.len() == b.ready.len() && a.ready.iter().zip(&b.ready).all(|(a, b)| Arc::ptr_eq(a, b));
                name == other && ready && a.broken == b.broken && a.off == b.off
            })
    }
}

fn conflict(build: &Installed, other: &Installed) -> Broken {
    let cause = format!(
        "{} holds {}@{} with the digest {}, and {} holds the same version with {}, which serves: remove one of the \
         folders, or give one a new plugin.version",
        build.path.display(),
        build.name,
        build.version,
        build.digest,
        other.path.display(),
        other.digest,
    );
    let problem = Problem { name: build.name.to_string(), version: Some(build.version.clone()), cause };
    Broken { problem, path: build.path.clone() }
}

impl Broken {
    /// Whether it could be what is asked for, were it well.
    fn may_be(&self, requirement: &VersionReq) -> bool {
        self.problem.version.as_ref().is_none_or(|version| requirement.matches(version))
    }

    /// Whether it stands for what is in the folder of this build, and not for a version of its own.
    fn is_of(&self, version: &Version, path: &Path) -> bool {
        self.path == path && self.problem.version.as_ref().is_none_or(|v| v == version)
    }

    fn info(&self) -> VersionInfo {
        VersionInfo {
            version: self.problem.version.as_ref().map(Version::to_string),
            cause: Some(self.problem.cause.clone()),
            ..blank(PluginState::Broken, &self.path)
        }
    }
}

impl Entry {
    fn info(&self, name: &str) -> PluginInfo {
        let state = match (self.disabled, self.ready.is_empty()) {
            (true, _) => PluginState::Disabled,
            (false, true) => PluginState::Broken,
            (false, false) => PluginState::Ready,
        };
        let cause = match state {
            PluginState::Ready => None,
            PluginState::Broken => self.broken.first().map(|b| b.problem.cause.clone()),
            PluginState::Disabled => Some(format!("the operator's policy for {name} has enabled = false")),
        };
        let ready = self.ready.iter().map(|build| VersionInfo {
            cause: self.broken.iter().find(|b| b.is_of(&build.version, &build.path)).map(|b| b.problem.cause.clone()),
            ..ready(build)
        });
        let off = self.off.iter().map(|(manifest, path)| VersionInfo {
            version: Some(manifest.version.to_string()),
            description: manifest.description.clone(),
            queue: Some(manifest.queue.clone()),
            ..blank(PluginState::Disabled, path)
        });
        let own = |b: &&Broken| !self.ready.iter().any(|build| b.is_of(&build.version, &build.path));
        let broken = self.broken.iter().filter(own).map(Broken::info);
        let versions = ready.chain(off).chain(broken).collect();
        PluginInfo { name: name.to_owned(), state, cause, concurrency: self.concurrency, versions }
    }
}

/// A build as a person may see it.
pub(super) fn ready(build: &Installed) -> VersionInfo {
    VersionInfo {
        version: Some(build.version.to_string()),
        digest: Some(build.digest.to_string()),
        description: build.description.clone(),
        queue: Some(build.queue.clone()),
        max_attempts: Some(build.retry().max_attempts),
        imports: build.imports().to_vec(),
        grants: build.grants.clone(),
        recorded_bodies: build.calls.bodies().to_vec(),
        limits: build.limits.info.clone(),
        loaded_at: Some(build.loaded_at),
        ..blank(PluginState::Ready, &build.path)
    }
}

fn blank(state: PluginState, path: &Path) -> VersionInfo {
    VersionInfo {
        version: None,
        state,
        cause: None,
        digest: None,
        description: String::new(),
        queue: None,
        max_attempts: None,
        imports: Vec::new(),
        grants: BTreeMap::new(),
        recorded_bodies: Vec::new(),
        limits: BTreeMap::new(),
        path: path.display().to_string(),
        loaded_at: None,
    }
}
