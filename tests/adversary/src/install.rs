//! Puts a case's component and its `plugin.toml` where the daemon finds them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use e2e::plugin;

use crate::case::{Case, Component};

/// The name of every component's file.
pub const FILE: &str = "guest.wasm";

/// What holds where a case says nothing: little, so that attacks end soon.
pub const LIMITS: &[(&str, u64)] = &[
    ("timeout_seconds", 20),
    ("cpu_seconds", 1),
    ("memory_mib", 16),
    ("table_elements", 1_000),
    ("instances", 20),
    ("memories", 4),
    ("hostcall_kib", 64),
    ("handles", 256),
    ("random_kib", 16),
    ("log_kib", 16),
    ("log_lines", 100),
    ("log_line_kib", 1),
    ("output_kib", 64),
];

/// The limits of a case, all of them.
pub fn limits(case: &Case) -> Vec<(&'static str, u64)> {
    let own = |name: &str| case.limits.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    LIMITS.iter().map(|(name, value)| (*name, own(name).unwrap_or(*value))).collect()
}

/// The value of one limit of a case.
pub fn limit(case: &Case, name: &str) -> u64 {
    limits(case).into_iter().find(|(known, _)| *known == name).expect("a limit's name").1
}

/// A manifest for a plugin of this name.
pub fn manifest(name: &str, limits: &[(&'static str, u64)]) -> String {
    let mut text = format!(
        "manifest = 1\n[plugin]\nname = \"{name}\"\nversion = \"0.1.0\"\ncomponent = \"{FILE}\"\n\
         [retry]\nmax_attempts = 1\n[limits]\n"
    );
    for (limit, value) in limits {
        let _ = writeln!(text, "{limit} = {value}"); // writing to a text does not fail
    }
    text
}

/// The bytes of a component.
pub fn bytes(component: &Component) -> Vec<u8> {
    match component {
        Component::Text(text) => wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}")),
        Component::Bytes(bytes) => bytes.clone(),
        Component::Built(name) => {
            let folder = plugin::built(name);
            fs::read(folder.join(plugin::component(&folder)))
                .expect("the component is built: run `cargo xtask plugins`")
        }
    }
}

/// Installs a plugin below `plugins`, the component first, as a careful person does; answers with its folder.
pub fn install(plugins: &Path, name: &str, limits: &[(&'static str, u64)], component: &[u8]) -> PathBuf {
    let folder = plugins.join(name);
    fs::create_dir_all(&folder).expect("a folder");
    replace(&folder, component);
    fs::write(folder.join("plugin.toml"), manifest(name, limits)).expect("a manifest");
    folder
}

/// Installs a case under its id.
pub fn case(plugins: &Path, case: &Case) -> PathBuf {
    install(plugins, case.id, &limits(case), &bytes(&case.component))
}

/// Puts other bytes in place of an installed component, at once.
pub fn replace(folder: &Path, component: &[u8]) {
    let temporary = folder.join(".new");
    fs::write(&temporary, component).expect("a file");
    fs::rename(temporary, folder.join(FILE)).expect("it takes the place of the old");
}
