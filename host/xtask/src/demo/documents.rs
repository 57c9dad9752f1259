//! What is submitted: the repository's Markdown, the READMEs of the crates in cargo's registry, and hostile guests.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::workspace;

/// Larger documents are left out.
const LARGEST: u64 = 256 << 10;

/// The hostile guests, and how each must end.
const HOSTILE: [(&str, &str); 3] = [("spin-forever", "cpu_limit"), ("eat-memory", "memory_limit"), ("panic", "trap")];

/// Tasks for each hostile guest.
const EACH: usize = 2;

/// A task.
pub struct Task {
    /// Its id.
    pub id: Uuid,
    /// Who runs it.
    pub plugin: &'static str,
    /// What it is about, for a person.
    pub name: String,
    /// On what.
    pub input: Value,
    /// How it must end.
    pub expected: Expected,
}

/// How a task must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Completed.
    Completes,
    /// Failed, with this kind: its guest is hostile.
    Fails(&'static str),
    /// In one way or another.
    Ends,
}

impl Task {
    /// Its wire form.
    pub fn body(&self) -> Value {
        json!({"id": self.id, "plugin": self.plugin, "input": self.input})
    }

    /// Whether its guest means harm.
    pub fn is_hostile(&self) -> bool {
        matches!(self.expected, Expected::Fails(_))
    }
}

/// The repository's own documents, by name.
pub fn own() -> Vec<(String, String)> {
    let root = workspace::root();
    let mut files = Vec::new();
    markdown(&root, 3, &mut files);
    let read = |file: &PathBuf| Some((named(file, &root), text(file)?));
    files.iter().filter_map(read).collect()
}

/// At most so many documents, with the hostile guests spread among them.
pub fn gather(most: usize) -> anyhow::Result<Vec<Task>> {
    let root = workspace::root();
    let mut files = Vec::new();
    markdown(&root, 3, &mut files);
    let own = files.len();
    readmes(&registry(), &mut files);
    let mut tasks: Vec<Task> = files.iter().filter_map(|file| document(file, &root)).take(most).collect();
    ensure!(!tasks.is_empty(), "failed to find any document in {} and {}", root.display(), registry().display());
    if files.len() == own {
        println!("tasks: cargo's registry at {} holds no README", registry().display());
    }
    let hostile = HOSTILE.iter().cycle().take(HOSTILE.len() * EACH).enumerate();
    let between = tasks.len() / (HOSTILE.len() * EACH + 1) + 1;
    for (n, (plugin, kind)) in hostile {
        let at = (between * (n + 1) + n).min(tasks.len());
        let name = format!("{plugin} {}", n / HOSTILE.len() + 1);
        tasks.insert(at, Task { id: Uuid::now_v7(), plugin, name, input: json!({}), expected: Expected::Fails(kind) });
    }
    Ok(tasks)
}

fn document(file: &Path, root: &Path) -> Option<Task> {
    let (name, text) = (named(file, root), text(file)?);
    let input = json!({"markdown": text, "path": name});
    Some(Task { id: Uuid::now_v7(), plugin: "outline", name, input, expected: Expected::Completes })
}

/// What it holds; one that is large or not UTF-8 is left out.
fn text(file: &Path) -> Option<String> {
    let small = file.metadata().is_ok_and(|metadata| metadata.len() <= LARGEST);
    small.then(|| std::fs::read_to_string(file).ok()).flatten()
}

/// Its path in the repository; else `crate-1.2.3/README.md`.
fn named(file: &Path, root: &Path) -> String {
    match file.strip_prefix(root) {
        Ok(own) => own.display().to_string(),
        Err(_) => {
            let mut parts: Vec<_> = file.iter().rev().take(2).map(|part| part.to_string_lossy()).collect();
            parts.reverse();
            parts.join("/")
        }
    }
}

/// Markdown files at most so many levels down, without what was built and what is hidden.
fn markdown(folder: &Path, levels: u32, files: &mut Vec<PathBuf>) {
    for path in sorted(folder) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() && levels > 0 {
            markdown(&path, levels - 1, files);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
}

/// Where cargo unpacks the crates that it builds.
fn registry() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    home.unwrap_or_default().join("registry/src")
}

fn readmes(registry: &Path, files: &mut Vec<PathBuf>) {
    let crates = sorted(registry).into_iter().flat_map(|index| sorted(&index));
    files.extend(crates.map(|folder| folder.join("README.md")).filter(|file| file.is_file()));
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_guests_are_spread_among_documents() {
        let tasks = gather(40).unwrap();
        let places: Vec<_> = (0..).zip(&tasks).filter(|(_, task)| task.is_hostile()).map(|(n, _)| n).collect();
        assert_eq!(places.len(), HOSTILE.len() * EACH);
        assert!(tasks.first().is_some_and(|task| !task.is_hostile()));
        assert!(places.windows(2).all(|pair: &[i32]| pair[0] < pair[1]));
    }

    #[test]
    fn a_document_of_the_registry_is_named_by_its_crate() {
        let folder = tempfile::tempdir().unwrap();
        let crate_folder = folder.path().join("index/serde-1.0.0");
        std::fs::create_dir_all(&crate_folder).unwrap();
        std::fs::write(crate_folder.join("README.md"), "# Serde").unwrap();
        let mut files = Vec::new();
        readmes(folder.path(), &mut files);
        let task = document(&files[0], Path::new("/elsewhere")).unwrap();
        assert_eq!(task.name, "serde-1.0.0/README.md");
        assert_eq!(task.input["markdown"], "# Serde");
    }

    #[test]
    fn built_and_hidden_folders_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.md", "target/b.md", ".git/c.md", "deep/d.md", "e.txt"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let mut files = Vec::new();
        markdown(folder.path(), 3, &mut files);
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_string_lossy()).collect();
        assert_eq!(names, ["a.md", "d.md"]);
    }
}
