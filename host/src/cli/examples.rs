//! Examples in the help of each command, and the exit codes. A test parses every example.

use clap::Command;

/// Exit codes of all commands; `host/docs/cli.md` says more.
const EXIT_CODES: &str = "Exit codes:
  0    done; for run, task wait and submit --wait: the task completed
  1    a task failed or was cancelled, some of several failed, or a check did
  2    invalid usage or settings, or a request that the daemon rejects
  3    the daemon, the broker or the database cannot be reached
  4    the database's schema does not fit this build
  5    the daemon shut down without recording every result

AGENTRY_TOKEN holds the token of a daemon that has some, NO_COLOR turns colours off. Examples are in the help of each command.";

/// Command lines by command.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("up", &["agentry up", "agentry up --plugins /srv/plugins --listen 127.0.0.1:7070 --queue default --queue slow"]),
    (
        "run",
        &[
            "agentry run plugins/word-count --input '{\"text\": \"a b c\"}'",
            "agentry run plugins/fetch-summary --input @task.json --calls",
        ],
    ),
    (
        "submit",
        &[
            "agentry submit word-count --input '{\"text\": \"a b c\"}' --wait",
            "agentry submit word-count@^0.1 --input @task.json --label team=search --priority 7",
        ],
    ),
    ("task show", &["agentry task show 01920c3e-0000-7000-8000-000000000001"]),
    (
        "task list",
        &[
            "agentry task list --state failed,cancelled --since 1h",
            "agentry task list --label team=search --watch",
            "agentry task list --state pending --json",
        ],
    ),
    ("task explain", &["agentry task explain 01920c3e-0000-7000-8000-000000000001"]),
    ("task events", &["agentry task events 01920c3e-0000-7000-8000-000000000001 --follow"]),
    ("task logs", &["agentry task logs 01920c3e-0000-7000-8000-000000000001 --follow"]),
    ("task calls", &["agentry task calls 01920c3e-0000-7000-8000-000000000001 --bodies"]),
    ("task wait", &["agentry task wait 01920c3e-0000-7000-8000-000000000001 --timeout 60"]),
    (
        "task cancel",
        &[
            "agentry task cancel 01920c3e-0000-7000-8000-000000000001",
            "agentry task cancel --state pending --plugin word-count --dry-run",
        ],
    ),
    (
        "task retry",
        &[
            "agentry task retry 01920c3e-0000-7000-8000-000000000001",
            "agentry task retry --state failed --kind timeout --since 1d --rate 50/s",
        ],
    ),
    ("task erase", &["agentry task erase 01920c3e-0000-7000-8000-000000000001"]),
    ("bench", &["agentry bench --embedded --tasks 5000", "agentry bench --rate 200/s --for 30s"]),
    ("queue list", &["agentry queue list --watch"]),
    ("queue pause", &["agentry queue pause default --reason 'the model provider is down'"]),
    ("queue resume", &["agentry queue resume default"]),
    ("plugin list", &["agentry plugin list", "agentry plugin list --watch=5"]),
    ("plugin inspect", &["agentry plugin inspect word-count"]),
    ("plugin disable", &["agentry plugin disable word-count@0.1.0 --reason 'loops'"]),
    ("plugin enable", &["agentry plugin enable word-count@0.1.0"]),
    ("host list", &["agentry host list --watch"]),
    ("host drain", &["agentry host drain 01920c3e-0000-7000-8000-000000000001 --reason 'kernel update'"]),
    ("host undrain", &["agentry host undrain 01920c3e-0000-7000-8000-000000000001"]),
    ("dead list", &["agentry dead list --reason bad_message --since 7d"]),
    ("dead show", &["agentry dead show 17"]),
    ("dead redrive", &["agentry dead redrive 17 18", "agentry dead redrive --reason bad_options --since 1d --dry-run"]),
    ("audit", &["agentry audit --since 1d", "agentry audit --action queue.pause --json"]),
    ("prune", &["agentry prune --dry-run"]),
    ("migrate", &["agentry migrate"]),
    ("doctor", &["agentry doctor", "agentry doctor --config /etc/agentry.toml --json", "agentry doctor --outside"]),
    ("config check", &["agentry config check", "agentry --config /etc/agentry.toml config check"]),
    ("config show", &["agentry config show --json"]),
    (
        "completions",
        &["agentry completions bash > /etc/bash_completion.d/agentry", "agentry completions zsh > ~/.zfunc/_agentry"],
    ),
    ("man", &["agentry man /usr/local/share/man/man1"]),
    ("openapi", &["agentry openapi > openapi.json"]),
];

/// The command with the examples of each command below it, and the exit codes.
pub fn added(command: Command) -> Command {
    below(command, "").after_help(EXIT_CODES)
}

fn below(mut command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    for name in names {
        let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command = command.mut_subcommand(&name, |one| below(one, &path));
    }
    match EXAMPLES.iter().find(|(known, _)| *known == path) {
        Some((_, lines)) => {
            let more = command.get_after_help().map(|text| format!("\n\n{text}")).unwrap_or_default();
            let title = if lines.len() == 1 { "Example" } else { "Examples" };
            command.after_help(format!("{title}:\n  {}{more}", lines.join("\n  ")))
        }
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a line, as a shell splits it: spaces within single quotes are part of a word.
    fn split(line: &str) -> Vec<String> {
        let (mut words, mut quoted) = (vec![String::new()], false);
        for c in line.chars() {
            match (c, words.last_mut()) {
                ('\'', _) => quoted = !quoted,
                (' ', _) if !quoted => words.push(String::new()),
                (c, Some(word)) => word.push(c),
                (_, None) => unreachable!("there is always one"),
            }
        }
        assert!(!quoted, "{line}");
        words
    }

    #[test]
    fn every_example_is_a_command_that_parses() {
        for (path, lines) in EXAMPLES {
            for line in *lines {
                let line = line.split(" > ").next().unwrap();
                let words = split(line);
                let parsed = crate::cli::command().try_get_matches_from(&words);
                let parsed = parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
                let mut named = Vec::new();
                let mut matches = &parsed;
                while let Some((name, below)) = matches.subcommand() {
                    named.push(name);
                    matches = below;
                }
                assert_eq!(named.join(" "), *path, "{line}");
            }
        }
    }

    #[test]
    fn every_command_that_is_shown_has_an_example() {
        fn leaves(command: &Command, path: &str, into: &mut Vec<String>) {
            let mut below = command.get_subcommands().filter(|one| !one.is_hide_set()).peekable();
            if below.peek().is_none() {
                into.push(path.to_owned());
            }
            for one in below {
                leaves(one, format!("{path} {}", one.get_name()).trim(), into);
            }
        }
        let mut all = Vec::new();
        leaves(&crate::cli::command(), "", &mut all);
        let without: Vec<_> = all.iter().filter(|path| !EXAMPLES.iter().any(|(known, _)| known == path)).collect();
        assert!(all.len() > 20 && without.is_empty(), "no example: {without:?}");
    }
}
