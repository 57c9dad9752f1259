//! `agentry dead …`.

use super::client::{Client, encode};
use super::output::{self, field};
use super::task::rows;
use super::{Failed, Server};

/// Messages that could not be used.
#[derive(clap::Subcommand)]
pub enum Dead {
    /// The newest first, with the reason.
    List(List),
}

/// Which.
#[derive(clap::Args)]
pub struct List {
    /// Only with this reason.
    #[arg(long)]
    reason: Option<String>,
    /// Only from this queue.
    #[arg(long)]
    queue: Option<String>,
    /// At most so many, up to 500.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Go on where an earlier list ended.
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    server: Server,
}

impl Dead {
    pub async fn run(self) -> Result<(), Failed> {
        let Dead::List(list) = self;
        let mut path = format!("/v1/dead?limit={}", list.limit);
        for (name, value) in [("reason", &list.reason), ("queue", &list.queue), ("cursor", &list.cursor)] {
            if let Some(value) = value {
                path += &format!("&{name}={}", encode(value));
            }
        }
        let answer = Client::new(&list.server)?.get(&path).await?;
        if list.server.json {
            return output::json(&answer);
        }
        let lines: Vec<_> = rows(&answer, "dead")
            .iter()
            .map(|letter| ["id", "at", "queue", "reason", "task_id", "detail"].map(|name| field(letter, name)).to_vec())
            .collect();
        output::data(&output::table(&["id", "at", "queue", "reason", "task", "detail"], &lines))?;
        if !answer["next_cursor"].is_null() {
            output::say(&format!("more: --cursor {}", field(&answer, "next_cursor")));
        }
        Ok(())
    }
}
