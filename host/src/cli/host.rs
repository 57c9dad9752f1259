//! `agentry host …`.

use super::client::{Client, rows};
use super::output::field;
use super::screen::{Screen, Tone};
use super::table::{Cell, Column, Table};
use super::watch::Watch;
use super::{Failed, Server, brake};
use serde_json::Value;

/// Which hosts share the database.
#[derive(clap::Subcommand)]
pub enum Host {
    /// All of them, with their leases.
    List(List),
    /// Begin no task on a host any more; others take them. What runs there goes on, and the host stays up.
    Drain(brake::Set),
    /// Let a drained host take tasks again.
    Undrain(brake::Release),
}

/// All.
#[derive(clap::Args)]
pub struct List {
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    server: Server,
}

impl Host {
    pub async fn run(self) -> Result<(), Failed> {
        let List { watch, server } = match self {
            Host::Drain(set) => return set.run("hosts", "drain", "drained").await,
            Host::Undrain(release) => return release.run("hosts", "undrain", "not drained").await,
            Host::List(list) => list,
        };
        let client = Client::new(&server)?;
        watch.show(server.json, async || client.page("/v1/hosts", "hosts").await, listed).await
    }
}

fn listed(answer: &Value, screen: &Screen) -> String {
    let mut table = Table::new(&[
        Column::new("name").least(24),
        Column::new("lease"),
        Column::new("busy"),
        Column::new("renewed"),
        Column::new("until").rank(1),
        Column::new("id").rank(2),
    ]);
    for host in rows(answer, "hosts") {
        let alive = match (host["alive"] == true, host["drained"].is_object()) {
            (true, true) => Cell::toned("drained", Tone::Waiting),
            (true, false) => Cell::toned("alive", Tone::Good),
            (false, _) => Cell::toned("gone", Tone::Bad),
        };
        let slots = format!("{}/{}", field(host, "busy"), field(host, "slots"));
        let [renewed, until] = ["renewed_at", "lease_until"].map(|name| screen.ago(&host[name]));
        table.row([
            field(host, "name").into(),
            alive,
            slots.into(),
            renewed.into(),
            until.into(),
            field(host, "id").into(),
        ]);
    }
    table.render(screen)
}
