//! Plugin folders for tests that change them.

use std::path::{Path, PathBuf};

use crate::variables;

/// Where a plugin or guest of this name was built.
pub fn built(name: &str) -> PathBuf {
    let folders = [variables::plugins(), variables::guests()];
    let mut found = folders.iter().map(|folder| folder.join(name)).filter(|folder| folder.join("plugin.toml").exists());
    found.next().unwrap_or_else(|| panic!("no plugin {name} in {folders:?}"))
}

/// Copies a built plugin below `plugins`, the component first, as a careful person does; answers with its new folder.
pub fn install(name: &str, plugins: &Path) -> PathBuf {
    let (from, to) = (built(name), plugins.join(name));
    std::fs::create_dir_all(&to).expect("a folder");
    let component = component(&from);
    std::fs::copy(from.join(&component), to.join(&component))
        .expect("the component is built: run `cargo xtask plugins`");
    std::fs::copy(from.join("plugin.toml"), to.join("plugin.toml")).expect("a copy of plugin.toml");
    to
}

/// The name of the component's file in a plugin's folder.
pub fn component(folder: &Path) -> String {
    let manifest = std::fs::read_to_string(folder.join("plugin.toml")).expect("plugin.toml is readable");
    let line = manifest.lines().find(|line| line.trim_start().starts_with("component")).expect("a component is named");
    line.split('"').nth(1).expect("its name is quoted").to_owned()
}

/// Changes the text of an installed plugin's `plugin.toml`.
pub fn edit(folder: &Path, from: &str, to: &str) {
    let path = folder.join("plugin.toml");
    let text = std::fs::read_to_string(&path).expect("plugin.toml is readable");
    assert!(text.contains(from), "{from:?} is not in {text}");
    std::fs::write(path, text.replace(from, to)).expect("plugin.toml is writable");
}
