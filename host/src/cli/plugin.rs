//! `agentry plugin …`.

use super::client::{Client, encode, rows};
use super::output::{self, field};
use super::{Failed, Server, brake};
use serde_json::Value;

/// Which plugins a daemon serves.
#[derive(clap::Subcommand)]
pub enum Plugin {
    /// All of them, with what is wrong where something is.
    List(List),
    /// One with its versions, imports, grants and limits, and where each limit comes from.
    Inspect(Inspect),
    /// Run none of its tasks any more, on any host, or none of one version: NAME@VERSION. They wait in the database. What runs goes on.
    Disable(brake::Set),
    /// Let a disabled plugin go on: what waits for it begins, in order.
    Enable(brake::Release),
}

/// All.
#[derive(clap::Args)]
pub struct List {
    #[command(flatten)]
    server: Server,
}

/// One.
#[derive(clap::Args)]
pub struct Inspect {
    /// The plugin's name.
    name: String,
    #[command(flatten)]
    server: Server,
}

impl Plugin {
    pub async fn run(self) -> Result<(), Failed> {
        match self {
            Plugin::Disable(set) => set.run("plugins", "disable", "disabled").await,
            Plugin::Enable(release) => release.run("plugins", "enable", "enabled").await,
            Plugin::List(List { server }) => {
                let answer = Client::new(&server)?.page("/v1/plugins", "plugins").await?;
                if server.json {
                    return output::json(&answer);
                }
                let mut lines = Vec::new();
                for plugin in rows(&answer, "plugins") {
                    for version in rows(plugin, "versions") {
                        let cause = [&version["cause"], &plugin["cause"]].into_iter().find_map(Value::as_str);
                        let about = cause.map_or_else(|| field(version, "description"), super::escape::line);
                        let short: String = field(version, "digest").chars().take(19).collect();
                        lines.push(vec![
                            field(plugin, "name"),
                            field(version, "version"),
                            field(version, "state"),
                            short,
                            about,
                        ]);
                    }
                }
                output::data(&output::table(&["name", "version", "state", "digest", "about"], &lines))
            }
            Plugin::Inspect(Inspect { name, server }) => {
                let plugin = Client::new(&server)?.get(&format!("/v1/plugins/{}", encode(&name))).await?;
                match server.json {
                    true => output::json(&plugin),
                    false => output::data(&inspect(&plugin)),
                }
            }
        }
    }
}

fn inspect(plugin: &Value) -> String {
    let mut text = format!("{} ({})\n", field(plugin, "name"), field(plugin, "state"));
    if !plugin["cause"].is_null() {
        text += &format!("  cause        {}\n", field(plugin, "cause"));
    }
    if !plugin["concurrency"].is_null() {
        text += &format!("  concurrency  {}\n", field(plugin, "concurrency"));
    }
    for version in rows(plugin, "versions") {
        text += &format!("\nversion {} ({})\n", field(version, "version"), field(version, "state"));
        for name in ["cause", "description", "digest", "queue", "max_attempts", "path", "loaded_at"] {
            if !version[name].is_null() {
                text += &format!("  {name:<12} {}\n", field(version, name));
            }
        }
        for import in rows(version, "imports") {
            text += &format!("  imports      {}\n", super::escape::line(import.as_str().unwrap_or_default()));
        }
        for (name, grant) in version["grants"].as_object().into_iter().flatten() {
            text += &format!(
                "  grant        {name}: wishes {}, policy {}, granted {}\n",
                field(grant, "wish"),
                field(grant, "policy"),
                field(grant, "granted")
            );
        }
        if rows(version, "recorded_bodies").iter().any(Value::is_string) {
            text += &format!("  bodies       {} are recorded with its calls\n", field(version, "recorded_bodies"));
        }
        for (name, limit) in version["limits"].as_object().into_iter().flatten() {
            text += &format!(
                "  limit        {name} = {} (from {}, at most {})\n",
                field(limit, "value"),
                field(limit, "origin"),
                field(limit, "ceiling")
            );
        }
    }
    text
}
