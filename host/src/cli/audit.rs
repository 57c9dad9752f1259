//! `agentry audit`.

use super::client::{Client, encode, rows};
use super::output::{self, field};
use super::screen::Screen;
use super::table::{Cell, Column, Table};
use super::{Failed, Server};
use serde_json::Value;

/// Changes by operators, each with the name of the token, newest first.
#[derive(clap::Args)]
pub struct Audit {
    /// Only this action, such as queue.pause or task.cancel.
    #[arg(long)]
    action: Option<String>,
    /// Only by the token of this name.
    #[arg(long)]
    actor: Option<String>,
    /// Only since: a time, or a duration such as 1h.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// At most so many, up to 500.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Go on where an earlier list ended.
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    server: Server,
}

impl Audit {
    pub async fn run(self) -> Result<(), Failed> {
        let mut path = format!("/v1/audit?limit={}", self.limit);
        for (name, value) in
            [("action", &self.action), ("actor", &self.actor), ("since", &self.since), ("cursor", &self.cursor)]
        {
            if let Some(value) = value {
                path += &format!("&{name}={}", encode(value));
            }
        }
        let answer = Client::new(&self.server)?.page(&path, "audit").await?;
        if self.server.json {
            return output::json(&answer);
        }
        output::data(&listed(rows(&answer, "audit"), &Screen::stdout()))?;
        if !answer["next_cursor"].is_null() {
            output::say(&format!("more: --cursor {}", field(&answer, "next_cursor")));
        }
        Ok(())
    }
}

fn listed(changes: &[Value], screen: &Screen) -> String {
    let mut table = Table::new(&[
        Column::new("at"),
        Column::new("actor").least(8),
        Column::new("action"),
        Column::new("target").least(16),
        Column::new("count").rank(1),
        Column::new("reason").least(12).rank(2),
    ]);
    for change in changes {
        let named = |name| Cell::from(field(change, name));
        let at = screen.ago(&change["at"]).into();
        table.row([at, named("actor"), named("action"), named("target"), named("count"), named("reason")]);
    }
    table.render(screen)
}
