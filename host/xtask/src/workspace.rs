//! Where things are: the checkout, cargo's target folder, the packages.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

/// The checkout's top folder.
pub fn root() -> PathBuf {
    // Cargo sets it for `cargo run`. Compiled in is only where xtask was built, which may be another checkout when
    // several share a target folder.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| OsString::from(env!("CARGO_MANIFEST_DIR")));
    let package = PathBuf::from(package);
    package.ancestors().nth(2).map_or_else(|| package.clone(), Path::to_path_buf)
}

/// `cargo`, in the checkout's top folder, and the same cargo that runs xtask.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.current_dir(root()).args(arguments);
    command
}

/// The same with the lowest priority.
pub fn cargo_beside(arguments: &[&str]) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(program()).current_dir(root()).args(arguments);
    command
}

fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}

/// A package of the workspace.
pub struct Package {
    /// Its name.
    pub name: String,
    /// The folder of its `Cargo.toml`.
    pub folder: PathBuf,
}

/// What cargo knows of the workspace.
pub struct Workspace {
    /// Where cargo builds.
    pub target: PathBuf,
    /// Its members.
    pub packages: Vec<Package>,
}

impl Workspace {
    /// Asks `cargo metadata`.
    pub fn read() -> anyhow::Result<Self> {
        let output =
            cargo(&["metadata", "--no-deps", "--format-version=1"]).output().context("failed to run cargo metadata")?;
        if !output.status.success() {
            bail!("failed to read the workspace: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let metadata: Value =
            serde_json::from_slice(&output.stdout).context("failed to read cargo metadata's answer")?;
        Self::parse(&metadata).context("failed to find target_directory and packages in cargo metadata's answer")
    }

    fn parse(metadata: &Value) -> Option<Self> {
        let packages = metadata["packages"].as_array()?.iter().map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str()?);
            Some(Package { name: package["name"].as_str()?.to_owned(), folder: manifest.parent()?.to_path_buf() })
        });
        Some(Self {
            target: PathBuf::from(metadata["target_directory"].as_str()?),
            packages: packages.collect::<Option<_>>()?,
        })
    }

    /// Selects the packages that run on this machine's own processor: all but the test guests, which do nothing useful
    /// outside a sandbox. Everything is built with this one selection: cargo unites the features of the packages that
    /// it is asked for, so another selection would compile the dependencies once more.
    pub fn native_selection(&self) -> Vec<String> {
        let guests = root().join("tests/guests");
        let excluded = self.packages.iter().filter(|package| package.folder.starts_with(&guests));
        let mut selection = vec!["--workspace".to_owned()];
        selection.extend(excluded.map(|package| format!("--exclude={}", package.name)));
        selection
    }
}

/// One line of `--message-format=json`: an artifact that cargo built or found fresh.
pub struct Artifact {
    /// The `Cargo.toml` of its package.
    pub manifest: PathBuf,
    /// The name of the target within the package.
    pub target: String,
    /// The program, if it is one.
    pub executable: Option<PathBuf>,
    /// All files.
    pub files: Vec<PathBuf>,
}

impl Artifact {
    /// Reads a message; `None` if it is about something else.
    pub fn parse(line: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        if message["reason"] != "compiler-artifact" {
            return None;
        }
        Some(Self {
            manifest: PathBuf::from(message["manifest_path"].as_str()?),
            target: message["target"]["name"].as_str()?.to_owned(),
            executable: message["executable"].as_str().map(PathBuf::from),
            files: message["filenames"].as_array()?.iter().filter_map(Value::as_str).map(PathBuf::from).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_workspace_is_read_from_cargo_metadata() {
        let metadata = json!({
            "target_directory": "/t",
            "packages": [{"name": "agentry", "manifest_path": "/c/host/Cargo.toml", "id": "x"}],
        });
        let workspace = Workspace::parse(&metadata).unwrap();
        assert_eq!(workspace.target, Path::new("/t"));
        assert_eq!(workspace.packages[0].name, "agentry");
        assert_eq!(workspace.packages[0].folder, Path::new("/c/host"));
    }

    #[test]
    fn test_guests_are_not_built_for_this_processor() {
        let package = |name: &str, folder: &str| Package { name: name.to_owned(), folder: root().join(folder) };
        let workspace = Workspace {
            target: PathBuf::new(),
            packages: vec![
                package("agentry", "host"),
                package("panic", "tests/guests/panic"),
                package("e2e", "tests/e2e"),
            ],
        };
        assert_eq!(workspace.native_selection(), ["--workspace", "--exclude=panic"]);
    }

    #[test]
    fn only_artifact_messages_are_artifacts() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/p/Cargo.toml","target":{"name":"agentry"},
            "filenames":["/t/agentry"],"executable":"/t/agentry"}"#;
        let artifact = Artifact::parse(line).unwrap();
        assert_eq!(artifact.executable.as_deref(), Some(Path::new("/t/agentry")));
        assert_eq!((artifact.target.as_str(), artifact.files.len()), ("agentry", 1));
        assert!(Artifact::parse(r#"{"reason":"build-finished","success":true}"#).is_none());
        assert!(Artifact::parse("   Compiling agentry").is_none());
    }
}
