//! `settings.md`, rendered from the defaults file and from what the reader of settings says that it takes.

use crate::page::Page;
use agentry::config::{DEFAULTS, Machine, Settings, Sources};
use std::collections::BTreeSet;
use std::path::Path;

struct Setting<'a> {
    key: String,
    default: &'a str,
    comment: &'a str,
}

struct Section<'a> {
    name: &'a str,
    comment: &'a str,
    settings: Vec<Setting<'a>>,
}

/// The sections of the defaults file, and the comment after them, about tables that stand in a file only.
fn defaults() -> (Vec<Section<'static>>, String) {
    let (defaults, tables) = DEFAULTS.split_once("\n# [queues.NAME]").expect("the tables after the defaults");
    let mut sections: Vec<Section<'_>> = Vec::new();
    for line in defaults.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (content, comment) = line.split_once(" # ").unwrap_or((line, ""));
        match content.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(name) => sections.push(Section { name, comment, settings: Vec::new() }),
            None => {
                let (key, default) = content.split_once(" = ").unwrap_or_else(|| panic!("not `key = value`: {line}"));
                let section = sections.last_mut().expect("a section first");
                section.settings.push(Setting { key: format!("{}.{key}", section.name), default, comment });
            }
        }
    }
    let tables = format!("# [queues.NAME]{tables}");
    let lines = tables.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
    (sections, lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect())
}

fn load(folder: &Path, variable: Option<(&str, &str)>) -> Result<Settings, String> {
    let machine = Machine { cores: 4, memory_mib: 8_192, mappings: 65_530 };
    let env = variable.map(|(name, value)| (name.into(), value.into())).into_iter().collect();
    let sources = Sources { file: None, flags: vec![], env, cwd: folder.to_owned(), machine };
    Settings::load(&sources).map_err(|e| e.to_string())
}

fn variable(key: &str) -> String {
    format!("AGENTRY_{}", key.replace('.', "_").to_uppercase())
}

/// What a setting takes, in the words of the error for a value that nothing takes.
fn takes(folder: &Path, setting: &Setting<'_>) -> String {
    let name = variable(&setting.key);
    let text = match load(folder, Some((&name, "?"))) {
        Ok(settings) => {
            let origin = settings.origin(&setting.key).to_string();
            assert_eq!(origin, format!("env {name}"), "{name} is not the variable of {}", setting.key);
            let is_path = setting.key.ends_with("_file") || setting.key.ends_with("dir");
            match (setting.default.starts_with('['), is_path) {
                (true, true) => "paths".to_owned(),
                (false, true) => "path".to_owned(),
                _ => "text".to_owned(),
            }
        }
        Err(error) => {
            assert!(error.contains(&name), "{name} is not the variable of {}: {error}", setting.key);
            let marks = ["it takes ", " takes ", "; known are ", "\"?\" is not "];
            let said = marks.iter().find_map(|mark| Some(error.split_once(mark)?.1.to_owned()));
            match said {
                None if error.contains("cannot be read") || error.contains("set both, or neither") => {
                    "path of a file".to_owned()
                }
                Some(said) => said.replace("text such as ", ""),
                None if error.contains("not available in this build") => "nothing, in this build".to_owned(),
                None => panic!("the error does not say what {} takes: {error}", setting.key),
            }
        }
    };
    let list = if setting.default.starts_with('[') && text != "paths" { "a list of: " } else { "" };
    let auto = if setting.default == "\"auto\"" { ", or `auto`" } else { "" };
    let text = text.trim_end().replace("a whole number from", "whole number,").replace("a number from", "number,");
    let words: Vec<String> = text.split(' ').map(grouped).collect();
    format!("{list}{}{auto}", words.join(" "))
}

/// A long number with commas between its thousands.
fn grouped(word: &str) -> String {
    if word.len() < 4 || !word.bytes().all(|b| b.is_ascii_digit()) {
        return word.to_owned();
    }
    let first = (word.len() - 1) % 3 + 1;
    let mut text = word[..first].to_owned();
    for at in (first..word.len()).step_by(3) {
        text += &format!(",{}", &word[at..at + 3]);
    }
    text
}

/// The unit that a name ends with.
fn unit(key: &str) -> &'static str {
    let units = [("_seconds", "s"), ("_ms", "ms"), ("_days", "days"), ("_kib", "KiB"), ("_mib", "MiB")];
    units.iter().find(|(end, _)| key.ends_with(end)).map_or("", |(_, unit)| unit)
}

fn rendered() -> String {
    let folder = tempfile::tempdir().unwrap();
    let (sections, tables) = defaults();
    let all: Vec<&Setting<'_>> = sections.iter().flat_map(|section| &section.settings).collect();
    let meaning = |setting: &Setting<'_>| match setting.key.strip_prefix("limits.max.") {
        Some(name) if all.iter().any(|other| other.key == format!("limits.default.{name}")) => {
            let more = if setting.comment.is_empty() { String::new() } else { format!("; {}", setting.comment) };
            format!("ceiling of `limits.default.{name}`{more}")
        }
        _ => setting.comment.to_owned(),
    };
    let mut text = String::new();
    for section in &sections {
        text += &format!("\n### `[{}]`\n\n", section.name);
        if !section.comment.is_empty() {
            text += &format!("{}\n\n", section.comment);
        }
        text += "| setting | default | unit | takes | meaning |\n|---|---|---|---|---|\n";
        for setting in &section.settings {
            let cells = [
                format!("`{}`<br>`{}`", setting.key, variable(&setting.key)),
                format!("`{}`", setting.default),
                unit(&setting.key).to_owned(),
                takes(folder.path(), setting),
                meaning(setting),
            ];
            text += &format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
    }
    format!("{text}\n### Tables that stand in a file only\n\n```text\n{tables}```\n")
}

#[test]
fn settings_md_is_rendered_from_the_defaults() {
    Page::of_docs("settings.md").render("settings", &rendered());
}

#[test]
fn every_setting_is_rendered() {
    let folder = tempfile::tempdir().unwrap();
    let (sections, _) = defaults();
    let listed: BTreeSet<String> = sections.into_iter().flat_map(|s| s.settings).map(|s| s.key).collect();
    let read: BTreeSet<String> = load(folder.path(), None).unwrap().effective().iter().map(|e| e.key.clone()).collect();
    assert_eq!(listed, read);
}
