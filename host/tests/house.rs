//! The house rules that a machine can hold: who may import whom, which outside crate lives where, and the pictures in
//! `host/README.md` that are rendered from code.

#![allow(clippy::unwrap_used)] // a test reports by panicking

use agentry::task::{Event, State, next};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Layers from the top; a module may import only what stands below it. Modules of one row do not import each other.
const LAYERS: &[&[&str]] = &[
    &["main", "bin"],
    &["cli"],
    &["doctor"],
    &["daemon"],
    &["config"],
    &["failpoints", "simulation"],
    &["telemetry", "shutdown"],
    &["worker", "maintenance", "api"],
    &["metrics", "explain", "brakes"],
    &["registry"],
    &["broker"],
    &["db"],
    &["task"],
];

/// Imports that the rows above do not allow, each with its reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// One outside crate, one home.
const HOMES: &[(&str, &[&str])] = &[
    ("lapin", &["broker"]),
    ("sqlx", &["db"]),
    ("axum", &["api"]),
    ("utoipa_axum", &["api"]),
    ("clap", &["cli", "main"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("reqwest", &["cli", "doctor"]),
    ("agentry_defence", &["registry", "db"]),
    ("agentry_sandbox", &["registry"]),
    ("agentry_outbound", &["registry", "config", "daemon", "doctor", "cli"]),
    ("wasmtime", &[]),
    ("notify", &["registry"]),
    ("prometheus_client", &["metrics"]),
    ("anyhow", &["cli", "daemon", "main"]),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file with the module of the first level that it belongs to.
fn files() -> Vec<(String, PathBuf, String)> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&source(), &mut paths);
    assert!(paths.len() > 30, "the source tree was not found: {paths:?}");
    paths
        .into_iter()
        .filter(|path| !path.ends_with("lib.rs"))
        .map(|path| {
            let inside = path.strip_prefix(source()).unwrap();
            let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            (first.trim_end_matches(".rs").to_owned(), path, text)
        })
        .collect()
}

/// Lines of code: without comments, and without what follows `#[cfg(test)]` on a module at the file's end.
fn code(path: &Path, text: &str) -> Vec<String> {
    let name = path.file_name().unwrap().to_str().unwrap();
    if name == "tests.rs" || name.ends_with("_tests.rs") || name.starts_with("conformance") {
        return Vec::new();
    }
    if path.components().any(|c| c.as_os_str() == "tests" || c.as_os_str() == "conformance") {
        return Vec::new();
    }
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    text[..end].lines().map(|l| l.split("//").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn upper_layers_import_lower_ones_and_never_the_other_way() {
    let row = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let mut wrong = Vec::new();
    for (module, path, text) in files() {
        let own = row(&module).unwrap_or_else(|| panic!("{module} has no layer: {}", path.display()));
        for line in code(&path, &text) {
            for part in line.split("crate::").skip(1) {
                let other: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let Some(theirs) = row(&other) else { continue };
                let allowed = other == module
                    || theirs > own
                    || EXCEPTIONS.iter().any(|(from, to, _)| *from == module && *to == other);
                if !allowed {
                    wrong.push(format!("{}: {module} imports {other}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_outside_crate_has_one_home() {
    let mut wrong = Vec::new();
    for (module, path, text) in files() {
        for line in code(&path, &text) {
            for (outside, homes) in HOMES {
                let used = line.contains(&format!("use {outside}")) || line.contains(&format!("{outside}::"));
                let in_word = line.contains(&format!("_{outside}::")) || line.contains(&format!("::{outside}::"));
                if used && !in_word && !homes.contains(&module.as_str()) {
                    wrong.push(format!("{}: {outside} lives in {homes:?}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_sandbox_knows_nothing_of_tasks_queues_or_sql() {
    let manifest = std::fs::read_to_string(source().join("../sandbox/Cargo.toml")).unwrap();
    for crate_name in ["agentry", "lapin", "sqlx", "axum", "clap"] {
        let needs = manifest
            .lines()
            .any(|l| l.starts_with(&format!("{crate_name}.")) || l.starts_with(&format!("{crate_name} ")));
        assert!(!needs, "host/sandbox/Cargo.toml depends on {crate_name}");
    }
}

/// The state diagram, rendered from the transition function: it cannot lie.
fn diagram() -> String {
    let mut edges: BTreeSet<(String, String, Vec<&str>)> = BTreeSet::new();
    for from in [None].into_iter().chain(State::ALL.map(Some)) {
        for to in State::ALL {
            let events: Vec<&str> =
                Event::ALL.into_iter().filter(|e| next(from, *e) == Ok(to)).map(Event::as_str).collect();
            if !events.is_empty() {
                let from = from.map_or("[*]".to_owned(), |s| s.as_str().to_owned());
                edges.insert((from, to.as_str().to_owned(), events));
            }
        }
    }
    let mut text = String::from("```mermaid\nstateDiagram-v2\n");
    for (from, to, events) in edges {
        text += &format!("    {from} --> {to}: {}\n", events.join(", "));
    }
    for state in State::ALL.into_iter().filter(|s| s.is_terminal()) {
        text += &format!("    {state} --> [*]\n");
    }
    text + "```\n"
}

/// The layer table, rendered from what the tests above hold.
fn layers() -> String {
    let mut text = String::from("```text\n");
    for layer in LAYERS {
        text += &format!("{}\n", layer.join(" | "));
    }
    text + "```\n"
}

#[test]
fn the_pictures_in_the_readme_are_what_the_code_says() {
    let path = source().join("../README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let mut rendered = readme.clone();
    for (name, picture) in [("states", diagram()), ("layers", layers())] {
        let (begin, end) = (format!("<!-- rendered: {name} -->\n"), format!("<!-- end: {name} -->"));
        let from = rendered.find(&begin).unwrap_or_else(|| panic!("no {begin:?} in {}", path.display())) + begin.len();
        let to = rendered.find(&end).unwrap_or_else(|| panic!("no {end:?} in {}", path.display()));
        rendered.replace_range(from..to, &picture);
    }
    if std::env::var_os("AGENTRY_RENDER").is_some() {
        std::fs::write(&path, &rendered).unwrap();
        return;
    }
    assert!(readme == rendered, "host/README.md is out of date: AGENTRY_RENDER=1 cargo test -p agentry --test house");
}

#[test]
fn no_file_is_too_long_to_read_in_one_sitting() {
    let long: Vec<_> = files()
        .into_iter()
        .filter(|(_, path, text)| !code(path, text).is_empty())
        .map(|(_, path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > 400)
        .collect();
    assert!(long.is_empty(), "over 400 lines: {long:#?}");
}
