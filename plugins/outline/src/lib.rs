//! What a Markdown document is made of: headings, links, images, code, reading time.

mod anchor;
mod outline;
mod words;

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

fn handle(task: &Task, Input { markdown, path }: Input) -> Result<Output, Failure> {
    let name = path.as_deref().unwrap_or("a document");
    log::info(format_args!("outlining for task {}, attempt {}: {name}", task.id, task.attempt));
    Ok(Output { outline: Outline::of(&markdown), path })
}

plugin!(handle);
