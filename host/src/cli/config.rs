//! `agentry config …`.

use super::{Failed, output, settings};
use crate::daemon;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The settings, as they hold for `agentry up` in this folder and environment.
#[derive(clap::Subcommand)]
pub enum Config {
    /// Say what is wrong, or that nothing is. Connects to nothing.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Every setting, its value, and where it came from. Secrets are left out.
    Show {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Config {
    pub fn run(self, file: Option<PathBuf>) -> Result<(), Failed> {
        let settings = settings(file, Vec::new())?;
        settings.warnings.iter().for_each(|warning| output::say(&format!("warning: {warning}")));
        match self {
            Config::Check { json } => {
                daemon::check(&settings).map_err(Failed::usage)?;
                if json {
                    let (digest, warnings) = (settings.digest(), &settings.warnings);
                    return output::json(&json!({"file": settings.file, "digest": digest, "warnings": warnings}));
                }
                let file = settings.file.as_ref().map_or("no file".into(), |f| f.display().to_string());
                settings.recorded_bodies().iter().for_each(|line| output::say(line));
                output::data(&format!("settings are good ({file}, digest {})", settings.digest()))
            }
            Config::Show { json: true } => {
                let all: Vec<Value> = settings
                    .effective()
                    .iter()
                    .map(|s| json!({"key": s.key, "value": s.value, "origin": s.origin.to_string()}))
                    .collect();
                output::json(&json!({"settings": all, "digest": settings.digest()}))
            }
            Config::Show { json: false } => {
                let rows: Vec<_> =
                    settings.effective().iter().map(|s| vec![s.key.clone(), s.text(), s.origin.to_string()]).collect();
                output::data(&output::table(&["setting", "value", "from"], &rows))
            }
        }
    }
}
