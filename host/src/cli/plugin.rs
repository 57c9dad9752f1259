//! `agentry plugin …`.

use super::client::{Client, encode, rows};
use super::output::{self, field};
use super::screen::{Screen, Tone};
use super::table::{Cell, Column, Table};
use super::watch::Watch;
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
    watch: Watch,
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
            Plugin::List(List { watch, server }) => {
                let client = Client::new(&server)?;
                watch.show(server.json, async || client.page("/v1/plugins", "plugins").await, listed).await
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

fn listed(answer: &Value, screen: &Screen) -> String {
    let mut table = Table::new(&[
        Column::new("name").least(12),
        Column::new("version"),
        Column::new("state"),
        Column::new("digest").rank(1),
        Column::new("about").least(16),
    ]);
    for plugin in rows(answer, "plugins") {
        for version in rows(plugin, "versions") {
            let cause = [&version["cause"], &plugin["cause"]].into_iter().find_map(Value::as_str);
            let about = cause.map_or_else(|| field(version, "description"), super::escape::line);
            let short: String = field(version, "digest").chars().take(19).collect();
            let state = field(version, "state");
            let tone = match state.as_str() {
                "ready" => Tone::Good,
                "broken" => Tone::Bad,
                _ => Tone::Waiting,
            };
            let named = |row, name| Cell::from(field(row, name));
            table.row([
                named(plugin, "name"),
                named(version, "version"),
                Cell::toned(state, tone),
                short.into(),
                about.into(),
            ]);
        }
    }
    table.render(screen)
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
