//! The demo's own daemon: its settings, its start, its sudden end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::api::Api;
use crate::guard::StopSignal;
use crate::process::{Guarded, Terms};
use crate::services::Services;
use crate::{signals, workspace};

/// How long it may take until it is ready. The first start compiles the plugins.
const PATIENCE: Duration = Duration::from_secs(120);

/// What stands around the daemon.
pub enum Around<'a> {
    /// Nothing.
    Embedded,
    /// RabbitMQ and PostgreSQL, and a program that publishes.
    Services { services: &'a Services, publisher: &'a Path },
}

/// A daemon that can be started again on the same data.
pub struct Setup {
    binary: PathBuf,
    folder: PathBuf,
    settings: PathBuf,
    log: PathBuf,
}

/// A daemon that is ready. Dropped: ended, in the way that was said at its start.
pub struct Daemon {
    _guard: Guarded,
    address: String,
    api: Api,
}

impl Setup {
    /// Writes the settings of a daemon that keeps everything in `folder`.
    pub fn write(
        folder: &Path,
        binary: &Path,
        around: &Around<'_>,
        more: Vec<(String, Value)>,
    ) -> anyhow::Result<Self> {
        let root = workspace::root();
        let mut settings = vec![
            ("api.listen", json!("127.0.0.1:0")),
            ("data.dir", json!(folder.join("data"))),
            ("plugins.dir", json!([root.join("plugins"), root.join("tests/guests")])),
            ("log.format", json!("json")), // read for the timeline
            ("log.level", json!("debug")),
        ];
        if let Around::Services { services, .. } = around {
            settings.push(("broker.url", json!(services.amqp_url)));
            settings.push(("database.url", json!(services.postgres_url)));
        }
        let settings = settings.into_iter().map(|(key, value)| (key.to_owned(), value)).chain(more);
        let line = |(key, value): (String, Value)| format!("{key} = {value}\n"); // such values are written alike in TOML
        let text: String = settings.map(line).collect();
        let path = folder.join("agentry.toml");
        std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        Ok(Self {
            binary: binary.to_owned(),
            folder: folder.to_owned(),
            settings: path,
            log: folder.join("daemon.log"),
        })
    }

    /// What all its daemons have said.
    pub fn log(&self) -> anyhow::Result<String> {
        let bytes = std::fs::read(&self.log).with_context(|| format!("failed to read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Starts a daemon and waits until it is ready. Dropped, it gets the signal `stop`.
    pub fn start(&self, stop: StopSignal) -> anyhow::Result<Daemon> {
        let mut command = Command::new(&self.binary);
        command.current_dir(&self.folder).arg("up").arg("--config").arg(&self.settings);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AGENTRY_")) {
            command.env_remove(name); // they are for the person's own daemon
        }
        let log = File::options().append(true).create(true).open(&self.log).context("failed to open the log")?;
        let before = usize::try_from(log.metadata().context("failed to look at the log")?.len()).unwrap_or(usize::MAX);
        let terms = Terms { stop, patience: Duration::from_secs(30), ..Terms::default() };
        let stdout = log.try_clone().context("failed to share the log")?;
        let mut guard = Guarded::start(&command, &terms, stdout.into(), log.into())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            signals::check()?;
            let said = self.log()?;
            let said = said.get(before..).unwrap_or_default();
            if let Some(address) = ready(said) {
                return Ok(Daemon { _guard: guard, api: Api::new(address), address: address.to_owned() });
            }
            if let Some(status) = guard.ended().context("failed to look after the daemon")? {
                bail!("it ended ({status}) before it was ready:\n{said}");
            }
            if Instant::now() > deadline {
                bail!("it was not ready within {PATIENCE:?}:\n{said}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Daemon {
    /// Its address, as a URL.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its API.
    pub fn api(&self) -> &Api {
        &self.api
    }
}

/// The address in the line that says that it takes tasks.
fn ready(said: &str) -> Option<&str> {
    // A line that is not whole yet may lack the end of the address.
    let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().find_map(|line| line.strip_prefix("ready ")).map(str::trim)
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_a_whole_line_says_where_the_daemon_is() {
        assert_eq!(super::ready("x\nready http://127.0.0.1:70"), None);
        assert_eq!(super::ready("x\nready http://127.0.0.1:7070\ny"), Some("http://127.0.0.1:7070"));
        assert_eq!(super::ready(""), None);
    }
}
