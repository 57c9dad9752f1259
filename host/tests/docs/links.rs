//! Links between the pages lead somewhere.

use crate::page::{Page, root};
use std::path::PathBuf;

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md"), root().join("host/README.md"), root().join("host/CHANGELOG.md")];
    for folder in ["host/docs", ".github"] {
        let entries = std::fs::read_dir(root().join(folder)).unwrap();
        pages.extend(
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "md")),
        );
    }
    pages
}

/// Where a heading is linked to: lower case, spaces become hyphens, punctuation goes.
fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut wrong = Vec::new();
    for path in pages() {
        let page = Page::read(&path);
        for target in page.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.contains([' ', '\n']) {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            if !file.exists() {
                wrong.push(format!("{}: {target}: no such file", path.display()));
            } else if !heading.is_empty() {
                let there = Page::read(&file);
                let headings = there.text.lines().filter(|line| line.starts_with('#'));
                if !headings.map(|line| anchor(line.trim_start_matches('#').trim())).any(|found| found == heading) {
                    wrong.push(format!("{}: {target}: no such heading", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn both_readmes_link_to_every_page() {
    let entries = std::fs::read_dir(root().join("host/docs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for name in names.filter(|name| name.ends_with(".md")) {
        for (readme, link) in
            [("README.md", format!("(host/docs/{name})")), ("host/README.md", format!("(docs/{name})"))]
        {
            assert!(Page::read(&root().join(readme)).text.contains(&link), "{readme} does not link to {link}");
        }
    }
}
