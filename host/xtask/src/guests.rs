//! Components: the example plugins and the test guests, built for wasm32-wasip2 and put beside their `plugin.toml`.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::workspace::{self, Artifact};
use crate::{Ending, process, talk};

const TARGET: &str = "wasm32-wasip2";

/// Where guests are found, and how deep.
const FOLDERS: [(&str, usize); 2] = [("plugins", 2), ("tests/guests", 1)];

#[derive(clap::Args)]
pub struct Args {
    /// Only these packages.
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
}

/// A component in its place.
#[derive(Debug, PartialEq, Eq)]
pub struct Component {
    /// The package, which is the folder's name.
    pub name: String,
    /// The component beside its `plugin.toml`.
    pub path: PathBuf,
    /// Whether it differs from what was there before.
    pub changed: bool,
}

/// `cargo xtask plugins`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    for component in build(&args.only, Pace::Full)? {
        let path = component.path.strip_prefix(workspace::root()).unwrap_or(&component.path);
        println!("{}{}", path.display(), if component.changed { "" } else { " (unchanged)" });
    }
    Ok(())
}

/// How a build shares the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// It has the processors and the terminal.
    Full,
    /// Beside another build, with the processor time that this one leaves, and without progress on the terminal.
    Beside,
}

/// Builds the guests, and puts the components of those called `only`, or of all if it is empty, in their places.
pub fn build(only: &[String], pace: Pace) -> anyhow::Result<Vec<Component>> {
    let guests = find(&workspace::root())?;
    let selected = select(&guests, only)?;
    if guests.is_empty() {
        return Ok(Vec::new());
    }
    ensure_target()?;
    let arguments = ["build", "--profile=guest", "--target", TARGET];
    let mut command = match pace {
        Pace::Full => workspace::cargo(&arguments),
        Pace::Beside => workspace::cargo_beside(&arguments),
    };
    command.arg("--message-format=json-render-diagnostics");
    if !talk::watched() || pace == Pace::Beside {
        command.arg("--quiet");
    }
    // All of them, whatever is asked for: cargo unites the features of the packages that it builds together, so a component
    // built alone would have other bytes, and so another digest under the same version.
    command.args(guests.iter().map(|guest| format!("--package={}", guest.name)));
    let mut artifacts = Vec::new();
    let terms = process::Terms::default();
    let status = process::read(&command, &terms, process::Read::Stdout, |line| {
        artifacts.extend(std::str::from_utf8(line).ok().and_then(Artifact::parse));
    })?;
    if !status.success() {
        bail!("failed to build the plugins ({status}), see above");
    }
    selected.into_iter().map(|guest| guest.place(&artifacts)).collect()
}

/// Adds the compiler's target if it is missing.
fn ensure_target() -> anyhow::Result<()> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).current_dir(workspace::root()).args(["--print", "sysroot"]).output();
    let output = output.context("failed to run rustc")?;
    let sysroot = String::from_utf8(output.stdout).context("failed to read rustc's sysroot")?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).is_dir() {
        return Ok(());
    }
    let mut command = Command::new("rustup");
    command.current_dir(workspace::root()).args(["target", "add", TARGET]);
    match process::run(&command)? {
        status if status.success() => Ok(()),
        status => Err(Ending::Unprepared(format!(
            "the compiler lacks the target {TARGET}, and `rustup target add {TARGET}` did not add it ({status}); add it by \
             the means by which Rust was installed"
        ))
        .into()),
    }
}

/// A package that is built into a component.
#[derive(Debug, PartialEq, Eq)]
struct Guest {
    name: String,
    folder: PathBuf,
    /// The file's name, as its `plugin.toml` says.
    component: String,
}

impl Guest {
    /// The guest in `folder`, if there is one in Rust: the others are built by their own tools.
    fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
        let manifest = folder.join("plugin.toml");
        if !manifest.is_file() || !folder.join("Cargo.toml").is_file() {
            return Ok(None);
        }
        let text =
            std::fs::read_to_string(&manifest).with_context(|| format!("failed to read {}", manifest.display()))?;
        let component = component_of(&text);
        let component =
            component.with_context(|| format!("failed to find plugin.component in {}", manifest.display()))?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Some(Self { name, folder: folder.to_path_buf(), component: component.to_owned() }))
    }

    /// Copies its component beside its `plugin.toml`, if it changed. By renaming: a daemon that watches the folder sees
    /// the old or the new one, never half of one.
    fn place(&self, artifacts: &[Artifact]) -> anyhow::Result<Component> {
        let of_guest = artifacts.iter().filter(|artifact| artifact.manifest == self.folder.join("Cargo.toml"));
        let mut files = of_guest.flat_map(|artifact| &artifact.files);
        let built = files.find(|file| file.extension().is_some_and(|extension| extension == "wasm"));
        let built = built.with_context(|| {
            format!("failed to find the component of {}; its Cargo.toml needs `crate-type = [\"cdylib\"]`", self.name)
        })?;
        let bytes = std::fs::read(built).with_context(|| format!("failed to read {}", built.display()))?;
        let path = self.folder.join(&self.component);
        let changed = std::fs::read(&path).map_or(true, |there| there != bytes);
        if changed {
            let writing = || -> anyhow::Result<()> {
                let mut file = tempfile::Builder::new().prefix(".component-").tempfile_in(&self.folder)?;
                file.write_all(&bytes)?;
                // Made for its owner's eyes only, as temporary files are; the daemon may be somebody else.
                file.as_file().set_permissions(PermissionsExt::from_mode(0o644))?;
                file.persist(&path)?;
                Ok(())
            };
            writing().with_context(|| format!("failed to write {}", path.display()))?;
        }
        Ok(Component { name: self.name.clone(), path, changed })
    }
}

fn find(root: &Path) -> anyhow::Result<Vec<Guest>> {
    let mut guests = Vec::new();
    for (folder, depth) in FOLDERS {
        find_below(&root.join(folder), depth, &mut guests)?;
    }
    Ok(guests)
}

fn find_below(folder: &Path, depth: usize, guests: &mut Vec<Guest>) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(());
    };
    let mut folders: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    for folder in folders {
        match Guest::read(&folder)? {
            Some(guest) => guests.push(guest),
            None if depth > 1 => find_below(&folder, depth - 1, guests)?,
            None => {}
        }
    }
    Ok(())
}

fn select<'a>(guests: &'a [Guest], only: &[String]) -> anyhow::Result<Vec<&'a Guest>> {
    if let Some(unknown) = only.iter().find(|name| guests.iter().all(|guest| guest.name != **name)) {
        let known: Vec<_> = guests.iter().map(|guest| guest.name.as_str()).collect();
        return Err(Ending::Unprepared(format!("no guest is called {unknown}; there are {}", known.join(", "))).into());
    }
    Ok(guests.iter().filter(|guest| only.is_empty() || only.contains(&guest.name)).collect())
}

/// The value of `component` in the table `[plugin]`. Everything else about a `plugin.toml` is the daemon's to judge, so
/// one key is read by hand here rather than a parser compiled for it.
fn component_of(manifest: &str) -> Option<&str> {
    let mut table = "";
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            table = line.split(']').next().unwrap_or_default().trim_start_matches('[').trim();
        } else if table == "plugin"
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == "component"
        {
            let value = value.trim();
            let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
            return value[1..].split(quote).next().filter(|name| !name.is_empty() && !name.contains('/'));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(root: &Path, folder: &str, manifest: Option<&str>, cargo: bool) -> PathBuf {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        if let Some(manifest) = manifest {
            std::fs::write(folder.join("plugin.toml"), manifest).unwrap();
        }
        if cargo {
            std::fs::write(folder.join("Cargo.toml"), "").unwrap();
        }
        folder
    }

    #[test]
    fn the_component_is_read_from_the_table_plugin() {
        let manifest = "manifest = 1\n[plugin] # x\nname = \"a\"\ncomponent = \"word_count.wasm\" # built\n";
        assert_eq!(component_of(manifest), Some("word_count.wasm"));
        assert_eq!(component_of("[ plugin ]\ncomponent='a.wasm'"), Some("a.wasm"));
        assert_eq!(component_of("[limits]\ncomponent = \"a.wasm\""), None);
        assert_eq!(component_of("[plugin]\ncomponent = \"../a.wasm\""), None);
        assert_eq!(component_of("[plugin]\ncomponent = 3"), None);
    }

    #[test]
    fn guests_are_folders_with_both_manifests() {
        let root = tempfile::tempdir().unwrap();
        let manifest = "[plugin]\ncomponent = \"x.wasm\"";
        package(root.path(), "plugins/word-count", Some(manifest), true);
        package(root.path(), "plugins/agents/researcher", Some(manifest), true);
        package(root.path(), "plugins/in-python", Some(manifest), false);
        package(root.path(), "plugins/sdk/rust", None, true);
        package(root.path(), "tests/guests/panic", Some(manifest), true);
        let names: Vec<_> = find(root.path()).unwrap().into_iter().map(|guest| guest.name).collect();
        assert_eq!(names, ["researcher", "word-count", "panic"]);
    }

    #[test]
    fn a_manifest_without_component_is_named() {
        let root = tempfile::tempdir().unwrap();
        package(root.path(), "plugins/bad", Some("[plugin]"), true);
        let error = find(root.path()).unwrap_err().to_string();
        assert!(error.contains("plugin.component") && error.contains("plugins/bad/plugin.toml"), "{error}");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let guest = |name: &str| Guest { name: name.into(), folder: "f".into(), component: "c".into() };
        let guests = [guest("a"), guest("b")];
        let error = select(&guests, &["c".into()]).unwrap_err().to_string();
        assert_eq!(error, "no guest is called c; there are a, b");
        assert_eq!(select(&guests, &["b".into()]).unwrap(), [&guests[1]]);
        assert_eq!(select(&guests, &[]).unwrap(), [&guests[0], &guests[1]]);
    }

    #[test]
    fn a_component_is_written_only_when_it_changed() {
        let root = tempfile::tempdir().unwrap();
        let folder = package(root.path(), "plugins/a", Some("[plugin]\ncomponent = \"a.wasm\""), true);
        let built = root.path().join("built.wasm");
        std::fs::write(&built, b"one").unwrap();
        let artifacts = [Artifact {
            manifest: folder.join("Cargo.toml"),
            target: "a".into(),
            executable: None,
            files: vec![built.clone()],
        }];
        let guest = Guest::read(&folder).unwrap().unwrap();
        assert!(guest.place(&artifacts).unwrap().changed);
        assert!(!guest.place(&artifacts).unwrap().changed);
        std::fs::write(&built, b"two").unwrap();
        let component = guest.place(&artifacts).unwrap();
        assert!(component.changed);
        assert_eq!(std::fs::read(component.path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3, "nothing temporary stays");
    }
}
