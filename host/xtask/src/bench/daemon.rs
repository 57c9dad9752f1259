//! Daemons that are measured: default settings, over the services.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::stage::Stage;
use crate::process::{Guarded, Terms};
use crate::signals;

/// How long a start may take; the first one compiles the plugins.
const START: Duration = Duration::from_secs(180);
/// The settings file in a daemon's folder.
const SETTINGS: &str = "agentry.toml";
/// Clock ticks per second in `/proc/PID/stat`, fixed in Linux's interface to user space.
const TICKS: f64 = 100.0;

/// A daemon about to be started, again and again on the same data.
pub struct Setup {
    binary: PathBuf,
    folder: PathBuf,
    /// The broker's address, the database's, and the broker's prefix.
    addresses: [String; 3],
    plugins: PathBuf,
    more: String,
}

/// A daemon that takes tasks. Dropped: stopped.
pub struct Daemon {
    /// Its address, as a URL.
    pub address: String,
    /// From its start until it was ready.
    pub took: Duration,
    agent: ureq::Agent,
    folder: PathBuf,
    _guard: Guarded,
}

impl Setup {
    /// A daemon over the services, in this database, whose name is the broker's prefix as well.
    pub fn new(stage: &Stage, database: &str, name: &str, plugins: &Path) -> anyhow::Result<Self> {
        let addresses = [stage.services.amqp_url.clone(), stage.database_url(database), database.to_owned()];
        Ok(Self {
            binary: stage.program("agentry")?.to_owned(),
            folder: stage.folder.path().join(format!("{database}-{name}")),
            addresses,
            plugins: plugins.to_owned(),
            more: String::new(),
        })
    }

    /// The same with lines of a settings file.
    #[must_use]
    pub fn with(self, more: &str) -> Self {
        Self { more: more.to_owned(), ..self }
    }

    /// Variables that name the services, for the daemon and for `agentry bench --via amqp`.
    pub fn environment(&self) -> [(&'static str, &str); 3] {
        let [broker, database, prefix] = &self.addresses;
        [("AGENTRY_BROKER_URL", broker), ("AGENTRY_DATABASE_URL", database), ("AGENTRY_BROKER_PREFIX", prefix)]
    }

    /// Starts it and waits until it is ready.
    pub fn start(&self) -> anyhow::Result<Daemon> {
        std::fs::create_dir_all(&self.folder).with_context(|| format!("failed to make {}", self.folder.display()))?;
        let settings = self.folder.join(SETTINGS);
        std::fs::write(&settings, &self.more).context("failed to write the settings")?;
        // As many files as the system allows: thousands of connections are open at once.
        let script = "ulimit -n $(ulimit -Hn); exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&self.binary).args(["up", "--listen", "127.0.0.1:0", "--data-dir", "data"]);
        command.arg("--plugins").arg(&self.plugins).arg("--config").arg(&settings).current_dir(&self.folder);
        without_settings(&mut command);
        command.envs(self.environment());
        let log = self.folder.join("log");
        let file = File::create(&log).context("failed to make the log")?;
        let terms = Terms { patience: Duration::from_secs(30), ..Terms::default() };
        let begun = Instant::now();
        let output = file.try_clone().context("failed to share the log")?;
        let mut guard = Guarded::start(&command, &terms, output.into(), file.into())?;
        loop {
            signals::check()?;
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if let Some(address) = ready(&said) {
                let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(30))).proxy(None);
                let agent = config.build().into();
                let (address, folder) = (address.to_owned(), self.folder.clone());
                return Ok(Daemon { address, took: begun.elapsed(), agent, folder, _guard: guard });
            }
            if let Some(status) = guard.ended().context("failed to look after the daemon")? {
                bail!("the daemon ended ({status}) before it was ready:\n{said}");
            }
            if begun.elapsed() > START {
                bail!("the daemon was not ready within {START:?}:\n{said}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The person's own settings do not count here.
pub fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AGENTRY_")) {
        command.env_remove(name);
    }
}

fn ready(said: &str) -> Option<&str> {
    let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().find_map(|line| line.strip_prefix("ready ")).map(str::trim)
}

impl Daemon {
    /// An answer of its API, as text.
    pub fn get(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.agent.get(format!("{}{path}", self.address)).call();
        let mut answer = answer.with_context(|| format!("failed to ask the daemon for {path}"))?;
        answer.body_mut().read_to_string().with_context(|| format!("failed to read the answer to {path}"))
    }

    /// How many tasks it has ended.
    pub fn ended(&self) -> anyhow::Result<u64> {
        Ok(ended(&self.get("/metrics")?))
    }

    /// Its process id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        let hosts: Value = serde_json::from_str(&self.get("/v1/hosts")?).context("failed to read the hosts")?;
        let alive = hosts["hosts"].as_array().into_iter().flatten().filter(|host| host["alive"] == true);
        let pids: Vec<u32> = alive
            .filter_map(|host| host["name"].as_str()?.rsplit('/').next()?.parse().ok())
            .filter(|pid| self.is_own(*pid))
            .collect();
        match pids[..] {
            [pid] => Ok(pid),
            _ => bail!("failed to find the daemon's process among {hosts}"),
        }
    }

    /// Whether a process was started with this daemon's settings file: others may share the database. Its arguments may be read by
    /// every user, its folder may not.
    fn is_own(&self, pid: u32) -> bool {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let own = self.folder.join(SETTINGS);
        arguments.split(|byte| *byte == 0).any(|argument| argument == own.as_os_str().as_encoded_bytes())
    }

    /// Processor time so far, in seconds.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        cpu(self.pid()?)
    }

    /// Resident memory now, in MiB.
    pub fn resident(&self) -> anyhow::Result<f64> {
        let pid = self.pid()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("failed to read /proc")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.context("failed to read the resident memory")? / 1_024.0)
    }
}

/// Waits until these daemons together have ended `tasks`; returns whether they did before `patience`.
pub fn wait(daemons: &[&Daemon], tasks: u64, patience: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        signals::check()?;
        let mut all = 0;
        for daemon in daemons {
            all += daemon.ended()?;
        }
        if all >= tasks {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Processor time of a process so far, in seconds.
fn cpu(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("failed to read /proc")?;
    ticks(&stat).map(|ticks| ticks / TICKS).context("failed to read the processor time")
}

fn ticks(stat: &str) -> Option<f64> {
    // The second field is a name in parentheses, which may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
}

/// Ended tasks in a daemon's counters.
fn ended(metrics: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with("agentry_attempts_total{"));
    let ends = ["completed", "failed", "cancelled"].map(|end| format!("ended=\"{end}\""));
    let counts = lines.filter(|line| ends.iter().any(|end| line.contains(end)));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_attempts_that_end_a_task_are_counted() {
        let metrics = "agentry_attempts_total{plugin=\"a\",ended=\"completed\",kind=\"\"} 3\n\
            agentry_attempts_total{plugin=\"a\",ended=\"retrying\",kind=\"trap\"} 9\n\
            agentry_attempts_total{plugin=\"b\",ended=\"failed\",kind=\"trap\"} 2\n# EOF\n";
        assert_eq!(ended(metrics), 5);
    }

    #[test]
    fn processor_time_is_read_whatever_the_program_is_called() {
        assert_eq!(ticks("7 (a b) c) S 1 7 7 0 -1 4 1 0 0 0 150 50 0 0 20"), Some(200.0));
        assert_eq!(ticks("7 (a"), None);
    }
}
