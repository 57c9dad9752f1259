//! A page of documentation, read by its parts.

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A Markdown file.
pub struct Page {
    /// Its path.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// A fenced block.
pub struct Block<'a> {
    /// The language, the first word after the fence.
    pub language: &'a str,
    /// The words after the language.
    pub tags: Vec<&'a str>,
    /// The content, with its last line break.
    pub text: &'a str,
}

impl Page {
    /// A page of `host/docs`.
    pub fn of_docs(name: &str) -> Page {
        Page::read(&root().join("host/docs").join(name))
    }

    /// Any page.
    pub fn read(path: &Path) -> Page {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Page { path: path.to_owned(), text }
    }

    /// All fenced blocks, in order.
    pub fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut rest = self.text.as_str();
        while let Some(at) = rest.find("\n```") {
            let opened = &rest[at + 4..];
            let (info, body) = opened.split_once('\n').unwrap_or_else(|| panic!("{}: a fence", self.path.display()));
            let end = match body.starts_with("```") {
                true => 0,
                false => body.find("\n```").unwrap_or_else(|| panic!("{}: unclosed {info}", self.path.display())) + 1,
            };
            let mut words = info.split(' ');
            let language = words.next().unwrap_or_default();
            blocks.push(Block { language, tags: words.collect(), text: &body[..end] });
            rest = &body[end + 3..];
        }
        blocks
    }

    /// The rows of the first table below a heading, the head left out. Cells are trimmed.
    pub fn table(&self, heading: &str) -> Vec<Vec<&str>> {
        let before = self.text.split_once(&format!("{heading}\n"));
        let (_, below) = before.unwrap_or_else(|| panic!("no {heading:?} in {}", self.path.display()));
        let lines = below.lines().skip_while(|line| !line.starts_with('|'));
        let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
        rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
    }

    /// Whether a word stands on the page, with no letter, digit or underscore beside it.
    pub fn has_word(&self, word: &str) -> bool {
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        self.text
            .match_indices(word)
            .any(|(at, _)| !self.text[..at].ends_with(part) && !self.text[at + word.len()..].starts_with(part))
    }

    /// Replaces a rendered part, or fails if it is out of date.
    pub fn render(&self, name: &str, rendered: &str) {
        let (begin, end) = (format!("<!-- rendered: {name} -->\n"), format!("<!-- end: {name} -->"));
        let find =
            |mark: &str| self.text.find(mark).unwrap_or_else(|| panic!("no {mark:?} in {}", self.path.display()));
        let (from, to) = (find(&begin) + begin.len(), find(&end));
        if self.text[from..to] == *rendered {
            return;
        }
        let command = "AGENTRY_RENDER=1 cargo test -p agentry --test docs";
        assert!(std::env::var_os("AGENTRY_RENDER").is_some(), "{} is out of date: {command}", self.path.display());
        let text = format!("{}{rendered}{}", &self.text[..from], &self.text[to..]);
        std::fs::write(&self.path, text).unwrap();
    }
}

/// The words in backticks of a cell.
pub fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The text of the only `.rs` file at a path below `host/src`, without comments and without its tests.
pub fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The source files of a folder below `host/src`, tests left out.
pub fn sources(folder: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "tests" {
                walk(&path, into);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                into.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join("host/src").join(folder), &mut paths);
    paths.sort();
    paths
}
