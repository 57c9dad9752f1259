//! `cargo xtask services`: both services for a person who develops. They outlive xtask, and keep their data.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::launch::{self, Place};
use super::{Generation, find_named, user};
use crate::talk;
use crate::workspace::{self, Workspace};

const SERVICES: [&str; 2] = ["postgres", "rabbitmq"];

/// How long `down` waits: longer than the guards wait for their services.
const PATIENCE: Duration = Duration::from_secs(45);

#[derive(clap::Subcommand)]
pub enum Command {
    /// Start them, unless they run; then print their environment: eval "$(cargo xtask services up)".
    Up(Generation),
    /// Stop them; their data stays in target/services.
    Down,
    /// Say whether they run, and where; exit code 1 if they do not.
    Status,
    /// Print the environment variables by which tests find them.
    Env,
}

pub fn run(command: &Command) -> anyhow::Result<()> {
    let home = Home::new()?;
    match command {
        Command::Up(generation) => home.up(generation),
        Command::Down => home.down(),
        Command::Status => home.status(),
        Command::Env => home.env(),
    }
}

/// The folder of the services that outlive xtask.
struct Home(PathBuf);

impl Home {
    fn new() -> anyhow::Result<Self> {
        let beside_build = Workspace::read()?.target.join("services");
        let home = if user::is_root() && !user::reachable_by_others(&beside_build) {
            // The services do not run as root, and could not enter.
            let name = format!("agentry-services-{:016x}", launch::seed(&workspace::root()));
            PathBuf::from("/var/tmp").join(name)
        } else {
            beside_build
        };
        std::fs::create_dir_all(&home).with_context(|| format!("failed to make {}", home.display()))?;
        Ok(Self(home))
    }

    fn place(&self, service: &str) -> Place {
        Place::Kept(self.0.join(service))
    }

    /// Where the running services' addresses are written down.
    fn addresses(&self) -> PathBuf {
        self.0.join("env")
    }

    fn up(&self, generation: &Generation) -> anyhow::Result<()> {
        let one_at_a_time = open(&self.0.join("up.lock"))?;
        one_at_a_time.lock().context("failed to wait for another `services up`")?;
        if SERVICES.iter().all(|service| self.guard(service).is_some()) && self.addresses().exists() {
            if !generation.is_installed() {
                bail!("services run already, perhaps of another version; stop them with `cargo xtask services down`");
            }
            eprintln!("they run already");
            return self.env();
        }
        self.down()?; // one of them may run
        let services = find_named(generation, false)?.start_in(|service| Ok(self.place(service)))?;
        let text = exports(&services.env()) + "# " + &services.description + "\n";
        std::fs::write(self.addresses(), text).context("failed to write down their addresses")?;
        eprintln!("{}, data in {}", services.description, self.0.display());
        services.release();
        self.env()
    }

    fn down(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let guards: Vec<_> = SERVICES.iter().filter_map(|service| Some((service, self.guard(service)?))).collect();
        for (_, guard) in &guards {
            let _ = rustix::process::kill_process(*guard, rustix::process::Signal::TERM); // it may have just ended
        }
        for (service, _) in &guards {
            while self.guard(service).is_some() {
                if began.elapsed() > PATIENCE {
                    bail!("failed to stop {service} within {}", talk::seconds(PATIENCE));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            eprintln!("{service} stopped");
        }
        match std::fs::remove_file(self.addresses()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("failed to forget their addresses")
            }
            _ => Ok(()),
        }
    }

    fn status(&self) -> anyhow::Result<()> {
        let addresses = std::fs::read_to_string(self.addresses()).unwrap_or_default();
        for service in SERVICES {
            match self.guard(service) {
                Some(guard) => println!("{service}: runs (guarded by process {})", guard.as_raw_nonzero()),
                None => println!("{service}: does not run"),
            }
        }
        if let Some(description) = addresses.lines().find_map(|line| line.strip_prefix("# ")) {
            println!("{description}");
        }
        println!("data: {}", self.0.display());
        if SERVICES.iter().any(|service| self.guard(service).is_none()) {
            return Err(crate::Ending::Failed.into());
        }
        Ok(())
    }

    fn env(&self) -> anyhow::Result<()> {
        match std::fs::read_to_string(self.addresses()) {
            Ok(text) if SERVICES.iter().all(|service| self.guard(service).is_some()) => {
                print!("{text}")
            }
            _ => bail!("the services do not run; start them with `cargo xtask services up`"),
        }
        Ok(())
    }

    /// The guard of a running service. A process id can be another's by now, so it counts only while its file is locked.
    fn guard(&self, service: &str) -> Option<rustix::process::Pid> {
        let path = launch::detached(&self.place(service))?;
        let file = File::open(&path).ok()?;
        if file.try_lock_shared().is_ok() {
            return None;
        }
        let pid = std::fs::read_to_string(&path).ok()?.trim().parse().ok()?;
        rustix::process::Pid::from_raw(pid)
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    file.with_context(|| format!("failed to open {}", path.display()))
}

/// Lines for a shell.
fn exports(variables: &[(&str, &str)]) -> String {
    variables.iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_is_exported() {
        let text = exports(&[("A", "amqp://guest:guest@127.0.0.1:1/%2f"), ("B", "two words")]);
        let script = format!("{text}\nprintf '%s|%s' \"$A\" \"$B\"");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "amqp://guest:guest@127.0.0.1:1/%2f|two words");
    }

    #[test]
    fn a_stale_process_id_is_not_taken_for_a_running_service() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home(folder.path().to_owned());
        std::fs::write(folder.path().join("postgres.lock"), format!("{}\n", std::process::id())).unwrap();
        assert!(home.guard("postgres").is_none());
        let lock = open(&folder.path().join("postgres.lock")).unwrap();
        lock.lock().unwrap();
        assert_eq!(home.guard("postgres"), Some(rustix::process::getpid()));
    }
}
