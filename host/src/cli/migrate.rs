//! `agentry migrate`.

use super::{Failed, output, settings};
use crate::daemon;
use serde_json::json;
use std::path::PathBuf;

/// Bring the database's schema up to date, and say from which version to which.
#[derive(clap::Args)]
pub struct Migrate {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Migrate {
    pub async fn run(self, file: Option<PathBuf>) -> Result<(), Failed> {
        let settings = settings(file, Vec::new())?;
        let migrated = daemon::migrate(&settings).await.map_err(failed)?;
        for warning in daemon::exposed(&settings) {
            output::say(&format!("agentry: warning: {warning}"));
        }
        match (self.json, migrated.from == migrated.to) {
            (true, _) => output::json(&json!({"from": migrated.from, "to": migrated.to})),
            (false, true) => output::data(&format!("schema {} is up to date", migrated.to)),
            (false, false) => output::data(&format!("schema {} -> {}", migrated.from, migrated.to)),
        }
    }
}

/// The end of a command that works on the database itself.
pub fn failed(error: daemon::MigrateError) -> Failed {
    match error {
        daemon::MigrateError::Schema(text) => Failed::schema(text),
        daemon::MigrateError::Unavailable(text) => Failed::unreachable(text),
        daemon::MigrateError::Configuration(text) => Failed::usage(text),
    }
}
