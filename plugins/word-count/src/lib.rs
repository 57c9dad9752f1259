//! The smallest plugin; the one to copy.

use agentry_sdk::{Failure, Task, log, plugin};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    text: String,
}

#[derive(serde::Serialize)]
struct Output {
    words: usize,
    lines: usize,
    characters: usize,
}

fn handle(_: &Task, Input { text }: Input) -> Result<Output, Failure> {
    log::info("counting");
    Ok(Output { words: text.split_whitespace().count(), lines: text.lines().count(), characters: text.chars().count() })
}

plugin!(handle);
