//! What a plugin's author may write into `plugin.toml`.

use crate::{Share, assert_fit_to_show, draw, while_testing};
use agentry::registry::Manifest;
use agentry::task::PluginRef;
use agentry::task::limits::MAX_ATTEMPTS;
use bolero::{Driver, ValueGenerator};
use std::path::{Component, Path};
use std::time::Duration;

const WHOLE: &str = r#"manifest = 1
[plugin]
name = "word-count"
version = "0.1.0"
component = "word_count.wasm"
description = "Counts words."
queue = "default"
[limits]
timeout_seconds = 30
memory_mib = 64
memory_reserve_mib = 8
[retry]
max_attempts = 5
base_seconds = 0.5
factor = 3
max_seconds = 60
on = ["trap", "timeout"]
[capabilities]
http = ["GET https://api.example.com"]
tools = { search = ["web_search"] }
[config]
region = "eu"
"#;
const LEAST: &str = "manifest = 1\n[plugin]\nname = \"a\"\nversion = \"0.1.0\"\ncomponent = \"a.wasm\"\n";
const PIECES: &[&str] = &[
    "manifest = 2\n",
    "[plugin]\n",
    "[limits]\n",
    "[retry]\n",
    "[[plugin]]\n",
    "[capabilities.tools]\n",
    "[config]\n",
    "factor = nan\n",
    "factor = -inf\n",
    "base_seconds = 2592000\n",
    "max_seconds = 1e308\n",
    "max_attempts = 0x7fffffff\n",
    "component = \"../a.wasm\"\n",
    "component = '/a'\n",
    "component = 'a//./b'\n",
    "name = 1979-05-27\n",
    "queue = \"\"\n",
    "on = [\"host_lost\"]\n",
    "a.b.c.d = 1\n",
    "\"\" = 1\n",
    "\"\\u001b\" = \"\\u001b\"\n",
    "= ",
    "'''",
    "\"",
    "[",
    "{ a = {",
    "# \u{7f}\n",
    "\\U0010FFFF",
    "99999999999999999999",
    "-1",
    "0.0000000001",
];

struct NearlyToml;

impl ValueGenerator for NearlyToml {
    type Output = String;

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<String> {
        let whole = draw::one_of(driver, &[WHOLE, WHOLE, LEAST, ""])?;
        let mut lines: Vec<String> = whole.lines().map(|line| format!("{line}\n")).collect();
        for _ in 0..draw::below(driver, 3)? {
            let at = draw::below(driver, lines.len() + 1)?;
            match draw::below(driver, 3)? {
                0 => lines.insert(at, draw::one_of(driver, PIECES)?.to_owned()),
                1 if at < lines.len() => drop(lines.remove(at)),
                _ => lines.insert(at, format!("{} = {}\n", draw::string(driver)?, draw::json(driver, 3)?)),
            }
        }
        draw::bent(driver, lines.concat(), PIECES)
    }
}

fn is_one_line(text: &str) -> bool {
    !text.is_empty() && text.len() <= 1_024 && !text.chars().any(char::is_control)
}

/// The rules in the comments of [`Manifest`].
fn assert_within_its_rules(manifest: &Manifest) {
    assert!(PluginRef::is_name(&manifest.name), "{manifest:?}");
    assert!(manifest.component.components().all(|part| matches!(part, Component::Normal(_))), "{manifest:?}");
    assert!(manifest.component.components().next().is_some(), "{manifest:?}");
    assert!(manifest.description.len() <= 1_024 && !manifest.description.contains('\n'), "{manifest:?}");
    assert!((1..=128).contains(&manifest.queue.len()) && manifest.queue.is_ascii(), "{manifest:?}");
    let retry = &manifest.retry;
    let month = Duration::from_secs(30 * 86_400);
    assert!(retry.max_attempts.is_none_or(|n| MAX_ATTEMPTS.contains(&n)), "{retry:?}");
    assert!(retry.base.is_none_or(|base| base <= month) && retry.max.is_none_or(|max| max <= month), "{retry:?}");
    assert!(retry.factor.is_none_or(|factor| (1.0..=100.0).contains(&factor)), "{retry:?}");
    assert!(manifest.limits.memory_mib != Some(0) && manifest.memory_reserve_mib != Some(0), "{manifest:?}");
    let wishes = &manifest.capabilities;
    for list in [&wishes.http, &wishes.llm, &wishes.keyvalue, &wishes.memory, &wishes.config] {
        assert!(list.iter().all(|text| is_one_line(text)), "{wishes:?}");
    }
    assert!(wishes.tools.values().flatten().all(|text| is_one_line(text)), "{wishes:?}");
}

#[test]
fn any_plugin_toml_is_a_manifest_within_its_rules_or_an_error_that_names_the_file() {
    let share = Share::default();
    bolero::check!().with_test_time(while_testing()).with_generator(NearlyToml).for_each(|text| {
        let parsed = Manifest::parse(Path::new("p/plugin.toml"), text);
        share.count(parsed.is_ok());
        match parsed {
            Ok(manifest) => assert_within_its_rules(&manifest),
            Err(error) => {
                let shown = error.to_string();
                assert!(shown.starts_with("p/plugin.toml: ") && shown.len() > "p/plugin.toml: ".len(), "{shown}");
                assert_fit_to_show(&shown, 2_048);
            }
        }
    });
    share.assert_fair();
}
