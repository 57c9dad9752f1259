//! The command line against `cli.md`.

use crate::page::{Page, quoted};
use std::collections::BTreeSet;

/// Words of every command, with those that it takes.
fn commands() -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut pending = vec![(String::new(), agentry::cli::command())];
    while let Some((path, command)) = pending.pop() {
        let options = command.get_arguments().filter_map(|option| option.get_long().map(str::to_owned)).collect();
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            pending.push((format!("{path} {}", below.get_name()).trim().to_owned(), below.clone()));
        }
        found.push((path, options));
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

fn with(option: &str) -> BTreeSet<String> {
    let has = |options: &[String]| options.iter().any(|known| known == option);
    commands().into_iter().filter(|(_, options)| has(options)).map(|(path, _)| path).collect()
}

#[test]
fn every_command_with_json_says_what_it_prints() {
    let page = Page::of_docs("cli.md");
    let rows = page.table("## JSON");
    let listed: BTreeSet<String> = rows.iter().flat_map(|row| quoted(row[0])).map(str::to_owned).collect();
    assert_eq!(listed, with("json"));
}

#[test]
fn every_command_that_watches_or_follows_is_listed() {
    let page = Page::of_docs("cli.md");
    let (_, section) = page.text.split_once("## Watch and follow\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    for (option, paths) in [("watch", with("watch")), ("follow", with("follow"))] {
        assert!(!paths.is_empty(), "no command has --{option}");
        for path in paths {
            assert!(
                section.contains(&format!("`{path}`")) || section.contains(&format!("`{path} --{option}`")),
                "{path}"
            );
        }
    }
}

#[test]
fn the_exit_codes_are_those_of_the_help() {
    let page = Page::of_docs("cli.md");
    let help = agentry::cli::command().render_long_help().to_string();
    let (_, listed) = help.split_once("Exit codes:\n").unwrap();
    let codes: Vec<&str> = listed
        .lines()
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let documented: Vec<&str> = page.table("## Exit codes").iter().map(|row| quoted(row[0])[0]).collect();
    assert_eq!(codes, documented);
}
