//! Examples are read by what reads them in the daemon.

use crate::page::{Page, root};
use agentry::config::{Machine, Settings, Sources};
use agentry::task::limits::MessageLimits;
use agentry::task::message::Envelope;
use agentry::task::{Failure, Rejection, TaskMessage};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

const PAGES: [&str; 6] = ["messages.md", "http.md", "failures.md", "settings.md", "lifecycle.md", "words.md"];

fn decode(body: &str, tags: &[&str]) -> Result<TaskMessage, Rejection> {
    let tag = |name: &str| tags.iter().find_map(|tag| tag.strip_prefix(name)?.strip_prefix('='));
    let (plugin_header, options_header) = (tag("plugin"), tag("options"));
    let envelope = Envelope { body: body.as_bytes(), plugin_header, options_header, ..Envelope::default() };
    TaskMessage::decode(&envelope, &MessageLimits::default())
}

/// An object whose values are not read: one of them is a number that no value can hold.
type Written = BTreeMap<String, Box<RawValue>>;

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_example_is_what_its_tag_says() {
    let mut seen = BTreeSet::new();
    for page in PAGES.map(Page::of_docs) {
        for block in page.blocks().iter().filter(|block| block.language == "json") {
            let what = format!("{}: {}", page.path.display(), block.text);
            let value: Value = serde_json::from_str(block.text).unwrap_or_else(|e| panic!("{e}: {what}"));
            let tag = block.tags.first().copied().unwrap_or_else(|| panic!("no tag says what this is: {what}"));
            let name = tag.split('=').next().unwrap_or_default();
            seen.insert(name.to_owned());
            match name {
                "message" => drop(decode(block.text, &block.tags).unwrap_or_else(|e| panic!("{e}: {what}"))),
                "rejected" => {
                    let rejection = decode(block.text, &[]).expect_err(&what);
                    assert_eq!(format!("rejected={}", rejection.code), tag, "{what}");
                }
                "failure" => {
                    let failure: Failure =
                        serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{e}: {what}"));
                    assert_eq!(serde_json::to_value(failure).unwrap(), value, "{what}");
                }
                "task" => {
                    // A test beside the code holds this snapshot to what the API writes.
                    let snapshot = "agentry__api__render__tests__a_task_has_exactly_the_fields_of_the_contract.snap";
                    let text = std::fs::read_to_string(root().join("host/src/api/snapshots").join(snapshot)).unwrap();
                    let written: Written = serde_json::from_str(text.rsplit("---\n").next().unwrap()).unwrap();
                    assert_eq!(keys(&value), written.keys().cloned().collect(), "{what}");
                    let waiting: Value = serde_json::from_str(written["waiting_for"].get()).unwrap();
                    assert_eq!(keys(&value["waiting_for"]), keys(&waiting), "{what}");
                }
                "problem" => {
                    let all = ["type", "title", "status", "code", "detail"].map(str::to_owned);
                    assert!(keys(&value).is_superset(&all.into()), "{what}");
                }
                other => panic!("unknown tag {other:?}: {what}"),
            }
        }
    }
    let all = ["message", "rejected", "failure", "task", "problem"].map(str::to_owned);
    assert_eq!(seen, all.into(), "each kind has an example");
}

#[test]
fn the_largest_message_example_has_every_field() {
    let page = Page::of_docs("messages.md");
    let blocks = page.blocks();
    let first: Value = serde_json::from_str(blocks[0].text).unwrap();
    let documented = page.table("### Fields");
    let names: BTreeSet<String> = documented.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    let options = keys(&first["options"]).into_iter().map(|key| format!("options.{key}"));
    assert_eq!(keys(&first).into_iter().chain(options).collect::<BTreeSet<_>>(), names);
    // The decoder rejects unknown keys and lists the known ones.
    let listed = |body: &str| decode(body, &[]).unwrap_err().detail;
    let (body, options) = (listed(r#"{"x": 1}"#), listed(r#"{"plugin": "a", "input": 1, "options": {"x": 1}}"#));
    let expected = |text: &str| text.split('`').skip(1).step_by(2).filter(|w| *w != "x").map(str::to_owned).collect();
    let mut known: BTreeSet<String> = expected(&body);
    let of_options: BTreeSet<String> = expected(&options);
    known.extend(of_options.iter().map(|key| format!("options.{key}")));
    assert_eq!(known, names);
}

#[test]
fn the_settings_in_the_readme_load() {
    let page = Page::read(&root().join("README.md"));
    let blocks: Vec<_> = page.blocks().into_iter().filter(|block| block.language == "toml").collect();
    assert!(blocks.len() >= 2, "the README has examples of settings");
    for block in blocks {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("agentry.toml"), block.text).unwrap();
        let machine = Machine { cores: 4, memory_mib: 8_192, mappings: 65_530 };
        let sources = Sources { file: None, flags: vec![], env: vec![], cwd: folder.path().to_owned(), machine };
        Settings::load(&sources).unwrap_or_else(|e| panic!("{e}: {}", block.text));
    }
}
