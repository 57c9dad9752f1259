//! What a Markdown document is made of: headings, links, code, reading time.

mod outline;

use agentry_sdk::{Failure, Task, log, plugin};
use outline::Outline;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    /// The document.
    markdown: String,
    /// Where it came from; given back as it is.
    path: Option<String>,
}

#[derive(serde::Serialize)]
struct Output {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(flatten)]
    outline: Outline,
}

fn handle(task: &Task, input: Input) -> Result<Output, Failure> {
    log::info(&format!("outlining {} (attempt {})", input.path.as_deref().unwrap_or("a document"), task.attempt));
    Ok(Output { outline: Outline::of(&input.markdown), path: input.path })
}

plugin!(handle);
