//! `agentry queue …`.

use super::client::{Client, rows};
use super::output::{self, field};
use super::{Failed, Server, brake};

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
    server: Server,
}

impl Queue {
    pub async fn run(self) -> Result<(), Failed> {
        let server = match self {
            Queue::Pause(set) => return set.run("queues", "pause", "paused").await,
            Queue::Resume(release) => return release.run("queues", "resume", "not paused").await,
            Queue::List(List { server }) => server,
        };
        let client = Client::new(&server)?;
        let answer = client.page("/v1/queues", "queues").await?;
        if server.json {
            return output::json(&answer);
        }
        let lines: Vec<_> = rows(&answer, "queues")
            .iter()
            .map(|queue| {
                let more = if queue["waiting_more"] == true { "+" } else { "" };
                let paused = &queue["paused"];
                let paused = match paused.is_object() {
                    false => "-".to_owned(),
                    true => {
                        let reason = paused["reason"].as_str().map(super::escape::line);
                        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                        format!("by {} since {}{reason}", field(paused, "by"), field(paused, "since"))
                    }
                };
                let waiting = format!("{}{more}", field(queue, "waiting"));
                vec![
                    field(queue, "queue"),
                    waiting,
                    field(queue, "ready"),
                    field(queue, "consumers"),
                    field(queue, "dead"),
                    paused,
                ]
            })
            .collect();
        output::data(&output::table(&["queue", "waiting", "ready", "consumers", "dead", "paused"], &lines))?;
        // An earlier daemon has no brakes.
        if let Ok(brakes) = client.get("/v1/brakes").await
            && !rows(&brakes, "brakes").is_empty()
        {
            brake::warn(&brakes);
        }
        Ok(())
    }
}
