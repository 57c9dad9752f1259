//! `agentry host …`.

use super::client::{Client, rows};
use super::output::{self, field};
use super::{Failed, Server, brake};

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
    server: Server,
}

impl Host {
    pub async fn run(self) -> Result<(), Failed> {
        let server = match self {
            Host::Drain(set) => return set.run("hosts", "drain", "drained").await,
            Host::Undrain(release) => return release.run("hosts", "undrain", "not drained").await,
            Host::List(List { server }) => server,
        };
        let answer = Client::new(&server)?.page("/v1/hosts", "hosts").await?;
        if server.json {
            return output::json(&answer);
        }
        let lines: Vec<_> = rows(&answer, "hosts")
            .iter()
            .map(|host| {
                let alive = match (host["alive"] == true, host["drained"].is_object()) {
                    (true, true) => "drained",
                    (true, false) => "alive",
                    (false, _) => "gone",
                };
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
