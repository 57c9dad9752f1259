//! What `--help` says, command by command: public text, and so a snapshot.

use clap::Command;
use std::fmt::Write;

/// The help of a command and of everything below it.
fn tell(command: &mut Command, path: &str, into: &mut String) {
    // Writing to a text does not fail.
    let _ = writeln!(into, "$ {path} --help\n{}", command.render_long_help());
    let shown = command.get_subcommands().filter(|c| !c.is_hide_set());
    let names: Vec<String> = shown.map(|c| c.get_name().to_owned()).collect();
    for name in names.iter().filter(|name| *name != "help") {
        if let Some(below) = command.find_subcommand_mut(name) {
            tell(below, &format!("{path} {name}"), into);
        }
    }
}

#[test]
fn help_is_what_it_was() {
    let mut command = super::command().term_width(100);
    command.build();
    let mut text = String::new();
    tell(&mut command, "agentry", &mut text);
    insta::assert_snapshot!("help", text);
}

#[test]
fn only_what_is_built_is_listed() {
    let mut command = super::command();
    command.build();
    let shown = command.get_subcommands().filter(|c| !c.is_hide_set());
    let names: Vec<&str> = shown.map(Command::get_name).filter(|n| *n != "help").collect();
    assert_eq!(
        names,
        [
            "up",
            "run",
            "submit",
            "task",
            "bench",
            "queue",
            "plugin",
            "host",
            "dead",
            "audit",
            "prune",
            "migrate",
            "doctor",
            "config",
            "completions",
            "man",
            "openapi"
        ]
    );
}
