//! `--watch`: the same answer again and again.

use super::screen::Screen;
use super::{Failed, output};
use serde_json::Value;
use std::time::Duration;

/// How often, unless asked otherwise.
const EVERY: &str = "2";

/// Whether a list is shown once or for as long as it is looked at.
#[derive(clap::Args)]
pub struct Watch {
    /// Show it again every so many seconds, until Ctrl-C. With --json: one line of JSON each time.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = EVERY,
        value_parser = crate::task::span::seconds)]
    watch: Option<u64>,
}

impl Watch {
    /// Whether it is shown again and again.
    pub fn is_on(&self) -> bool {
        self.watch.is_some()
    }

    /// Shows what `ask` returns: as JSON, or as the text that `text` makes of it. A daemon that does not respond is an error the first
    /// time, and is waited for later.
    pub async fn show(
        &self,
        json: bool,
        ask: impl AsyncFn() -> Result<Value, Failed>,
        text: impl Fn(&Value, &Screen) -> String,
    ) -> Result<(), Failed> {
        let Some(seconds) = self.watch else {
            let answer = ask().await?;
            return match json {
                true => output::json(&answer),
                false => output::data(&text(&answer, &Screen::stdout())),
            };
        };
        let mut first = true;
        loop {
            let screen = Screen::stdout();
            let shown = match ask().await {
                Ok(answer) if json => answer.to_string() + "\n",
                Ok(answer) => text(&answer, &screen),
                Err(failed) if first || !failed.is_unreachable() => return Err(failed),
                Err(failed) => {
                    output::say(&format!("agentry: {}; trying again", failed.message));
                    String::new()
                }
            };
            let begin = match (screen.now, json || shown.is_empty()) {
                // Home, and the rest of the old picture away.
                (Some(_), false) => "\x1b[H\x1b[2J\x1b[3J",
                (None, false) if !first => "\n",
                _ => "",
            };
            if !shown.is_empty() && !output::written(&format!("{begin}{shown}"))? {
                return Ok(());
            }
            first = false;
            tokio::time::sleep(Duration::from_secs(seconds.max(1))).await;
        }
    }
}
