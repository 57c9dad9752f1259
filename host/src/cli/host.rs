//! `agentry host …`.

use super::client::{Client, rows};
use super::output::{self, field};
use super::{Failed, Server};

/// Which hosts share the database.
#[derive(clap::Subcommand)]
pub enum Host {
    /// All of them, with their leases.
    List(List),
}

/// All.
#[derive(clap::Args)]
pub struct List {
    #[command(flatten)]
    server: Server,
}

impl Host {
    pub async fn run(self) -> Result<(), Failed> {
        let Host::List(List { server }) = self;
        let answer = Client::new(&server)?.page("/v1/hosts", "hosts").await?;
        if server.json {
            return output::json(&answer);
        }
        let lines: Vec<_> = rows(&answer, "hosts")
            .iter()
            .map(|host| {
                let alive = if host["alive"] == true { "alive" } else { "gone" };
                let slots = format!("{}/{}", field(host, "busy"), field(host, "slots"));
                vec![
                    field(host, "name"),
                    alive.into(),
                    slots,
                    field(host, "renewed_at"),
                    field(host, "lease_until"),
                    field(host, "id"),
                ]
            })
            .collect();
        output::data(&output::table(&["name", "lease", "busy", "renewed", "until", "id"], &lines))
    }
}
