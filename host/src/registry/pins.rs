//! Pins: where the plugins of a name may come from.
//!
//! A folder gives its plugin a name, so every folder below `plugins.dir` can claim the name of another with a higher version,
//! and gets what is granted to that name. A pin refuses it. Without one, a change of the folder is logged.

use super::installed::Installed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// `dir` and `digest` of `[plugins."…"]`; `None`: any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pins {
    /// Folders in or below which the plugin's own must be.
    pub dir: Option<Vec<PathBuf>>,
    /// Digests that its component may have.
    pub digest: Option<Vec<String>>,
}

impl Pins {
    /// These, and where they are silent the others.
    pub(super) fn or(&self, others: &Pins) -> Pins {
        Pins {
            dir: self.dir.clone().or_else(|| others.dir.clone()),
            digest: self.digest.clone().or_else(|| others.digest.clone()),
        }
    }

    /// Whether it is settled where plugins of this name come from.
    pub(super) fn is_set(&self) -> bool {
        self.dir.is_some() || self.digest.is_some()
    }

    /// Checks a plugin's folder (without symbolic links) and the digest of its component.
    ///
    /// # Errors
    /// Which of them differs, what is allowed, and the remedy.
    pub(super) fn check(&self, name: &str, folder: &Path, digest: &str) -> Result<(), String> {
        if let Some(dirs) = &self.dir {
            // A pin may go through a link, which is followed as it is now.
            let within = |dir: &PathBuf| folder.starts_with(dir.canonicalize().as_ref().unwrap_or(dir));
            if !dirs.iter().any(within) {
                let allowed: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
                return Err(format!(
                    "{} holds a plugin named {name}, and the operator's policy for {name} has dir = {}: move the folder \
                     there, give the plugin another name, or change dir",
                    folder.display(),
                    allowed.join(" or "),
                ));
            }
        }
        match &self.digest {
            Some(digests) if !digests.iter().any(|allowed| allowed == digest) => Err(format!(
                "{} holds a component with the digest {digest}, and the operator's policy for {name} has digest = {}: \
                 install that build, or change digest",
                folder.display(),
                digests.join(" or "),
            )),
            _ => Ok(()),
        }
    }
}

/// The build of a name's newest version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Newest {
    pub(super) path: PathBuf,
    pub(super) version: String,
    pub(super) digest: String,
}

impl Newest {
    fn of(build: &Installed) -> Newest {
        Newest { path: build.path.clone(), version: build.version_text.to_string(), digest: build.digest.to_string() }
    }
}

/// Where the newest version of each name came from when it was last served. It outlives the process in a file, since a folder
/// may be added while none runs.
#[derive(Debug, Default)]
pub(super) struct Origins {
    newest: BTreeMap<String, Newest>,
    /// Where it is kept; `None`: nowhere.
    file: Option<PathBuf>,
    unsaved: bool,
}

impl Origins {
    /// Reads what an earlier process left. A file that is missing or damaged counts as empty.
    pub(super) fn read(file: Option<PathBuf>) -> Origins {
        let text = file.as_ref().and_then(|file| std::fs::read(file).ok());
        let newest = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Origins { newest, file, unsaved: false }
    }

    /// Notes the newest builds that are served now. Returns those that replace another build from another folder, each with the
    /// former one. A name that is not served for a while is remembered.
    pub(super) fn note<'a>(
        &mut self,
        builds: impl Iterator<Item = &'a Arc<Installed>>,
    ) -> Vec<(&'a Installed, Newest)> {
        let mut moved = Vec::new();
        for build in builds {
            let now = Newest::of(build);
            let before = self.newest.insert(build.name.to_string(), now.clone());
            self.unsaved |= before.as_ref() != Some(&now);
            moved.extend(before.filter(|b| b.path != now.path && b.digest != now.digest).map(|b| (&**build, b)));
        }
        moved
    }

    /// Writes the file anew if something changed: whole, or not at all.
    pub(super) async fn save(&mut self) {
        let Some(file) = self.file.clone().filter(|_| std::mem::take(&mut self.unsaved)) else { return };
        let text = serde_json::to_vec_pretty(&self.newest).unwrap_or_default(); // a map of texts always has one
        let beside = file.with_extension("new");
        let place = file.display().to_string();
        let write = move || std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &file));
        let written = spawn_blocking(write).await.unwrap_or_else(|error| Err(error.into()));
        if let Err(error) = written {
            tracing::warn!("failed to record the folders of plugins in {place}: {error}");
        }
    }
}
