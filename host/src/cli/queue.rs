//! `agentry queue …`.

use super::client::{Client, rows};
use super::output::field;
use super::screen::{Screen, Tone};
use super::table::{Cell, Column, Table};
use super::watch::Watch;
use super::{Failed, Server, brake};
use serde_json::Value;

/// Queues: what waits in them; pause one, and let it go on.
#[derive(clap::Subcommand)]
pub enum Queue {
    /// All that are known, with what waits, who consumes, and who paused it.
    List(List),
    /// Begin nothing of a queue any more, on any host. What runs goes on; tasks are accepted and wait.
    Pause(brake::Set),
    /// Let a paused queue go on.
    Resume(brake::Release),
}

/// All.
#[derive(clap::Args)]
pub struct List {
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    server: Server,
}

impl Queue {
    pub async fn run(self) -> Result<(), Failed> {
        let List { watch, server } = match self {
            Queue::Pause(set) => return set.run("queues", "pause", "paused").await,
            Queue::Resume(release) => return release.run("queues", "resume", "not paused").await,
            Queue::List(list) => list,
        };
        let client = Client::new(&server)?;
        watch.show(server.json, async || client.page("/v1/queues", "queues").await, listed).await?;
        // An earlier daemon has no brakes.
        if !server.json
            && let Ok(brakes) = client.get("/v1/brakes").await
            && !rows(&brakes, "brakes").is_empty()
        {
            brake::warn(&brakes);
        }
        Ok(())
    }
}

fn listed(answer: &Value, screen: &Screen) -> String {
    let mut table = Table::new(&[
        Column::new("queue").least(12),
        Column::new("waiting"),
        Column::new("ready"),
        Column::new("consumers").rank(1),
        Column::new("dead").rank(2),
        Column::new("paused").least(16),
    ]);
    for queue in rows(answer, "queues") {
        let more = if queue["waiting_more"] == true { "+" } else { "" };
        let paused = &queue["paused"];
        let paused = match paused.is_object() {
            false => Cell::from("-"),
            true => {
                let reason = paused["reason"].as_str().map(super::escape::line);
                let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                let text = format!("by {} since {}{reason}", field(paused, "by"), screen.ago(&paused["since"]));
                Cell::toned(text, Tone::Waiting)
            }
        };
        let named = |name| Cell::from(field(queue, name));
        table.row([
            named("queue"),
            format!("{}{more}", field(queue, "waiting")).into(),
            named("ready"),
            named("consumers"),
            named("dead"),
            paused,
        ]);
    }
    table.render(screen)
}
