//! What agents reach by grant, through the real daemon: HTTP, language models, tools, stores, settings and folders.

mod addresses;
mod bodies;
mod budgets;
mod by_hand;
mod cancellation;
mod crowd;
mod folders;
mod grants;
mod models;
mod outages;
mod planning;
mod records;
mod secrets;
mod stores;
mod tools;

use std::path::Path;

use e2e::{Daemon, Site, Task, patience};
use serde_json::Value;

/// Hands a task over and waits for its end.
async fn run(site: &Site, daemon: &Daemon, task: Task) -> Value {
    let id = task.id;
    site.submit(daemon, &[task]).await;
    daemon.http().ended(id).await
}

/// The guest `reach` once more, under another name.
fn install_as(name: &str, plugins: &Path) -> std::path::PathBuf {
    let aside = plugins.with_extension("aside");
    let folder = plugins.join(name);
    std::fs::create_dir_all(plugins).unwrap();
    std::fs::rename(e2e::plugin::install("reach", &aside), &folder).unwrap();
    e2e::plugin::edit(&folder, "name = \"reach\"", &format!("name = \"{name}\""));
    folder
}

/// What a host may take beyond what it promises; more on a slow machine.
fn slack() -> std::time::Duration {
    patience() / 60
}
