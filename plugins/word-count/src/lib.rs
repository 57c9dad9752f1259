//! The smallest plugin; the one to copy.

use agentry_sdk::{Failure, Task, log, plugin};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    text: String,
}

#[derive(Debug, PartialEq, serde::Serialize)]
struct Output {
    words: usize,
    lines: usize,
    characters: usize,
    bytes: usize,
}

fn handle(task: &Task, Input { text }: Input) -> Result<Output, Failure> {
    log::info(format_args!("counting for task {}, attempt {}", task.id, task.attempt));
    Ok(Output {
        words: text.split_whitespace().count(),
        lines: text.lines().count(),
        characters: text.chars().count(),
        bytes: text.len(),
    })
}

plugin!(handle);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lines_characters_and_bytes_are_counted() {
        let counted = |text: &str| handle(&Task::default(), Input { text: text.into() });
        assert_eq!(counted("zwei Wörter\n"), Ok(Output { words: 2, lines: 1, characters: 12, bytes: 13 }));
        assert_eq!(counted(""), Ok(Output { words: 0, lines: 0, characters: 0, bytes: 0 }));
    }
}
