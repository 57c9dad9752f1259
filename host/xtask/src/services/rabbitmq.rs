//! A private RabbitMQ, beside which a system's own may run.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::launch::{self, Folder, Launch, Place, Running};
use super::root::Root;
use super::{probe, user};
use crate::guard::StopSignal;
use crate::process::Terms;

/// RabbitMQ's own scripts.
#[derive(Debug)]
pub struct Programs {
    /// Their folder, in the root if there is one.
    bin: PathBuf,
    root: Option<Root>,
}

impl Programs {
    /// The installed one. Debian's `/usr/sbin/rabbitmq-server` is a wrapper that insists on root, on the user `rabbitmq` and
    /// on the system's folders, so the scripts behind it come first.
    pub fn find() -> Option<Self> {
        let packaged = ["/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin"].map(PathBuf::from);
        let complete = |bin: &PathBuf| ["rabbitmq-server", "rabbitmqctl"].iter().all(|name| bin.join(name).is_file());
        let in_path = || std::env::split_paths(&std::env::var_os("PATH")?).find(complete);
        packaged.into_iter().find(complete).or_else(in_path).map(|bin| Self { bin, root: None })
    }

    /// Those in another Debian.
    pub fn in_root(root: Root) -> Self {
        Self { bin: "/usr/lib/rabbitmq/bin".into(), root: Some(root) }
    }

    /// The Debian that they are in, if that is not the machine's own.
    pub fn root(&self) -> Option<&Root> {
        self.root.as_ref()
    }

    /// Starts one; with it, the command that steers it.
    pub fn start(&self, place: &Place) -> anyhow::Result<(Running, String)> {
        let user = match &self.root {
            Some(root) => Some(root.user("rabbitmq")?),
            None => user::of_service("rabbitmq"),
        };
        launch::with_attempts(|| {
            let folder = Folder::make("rabbitmq", place, user, self.root.as_ref())?;
            let node = Node { folder: &folder, place, ports: launch::free_ports(place)? };
            let steer = node.prepare(&self.bin)?;
            Ok((node.launch(&self.bin).start()?, steer))
        })
    }
}

struct Node<'a> {
    folder: &'a Folder,
    place: &'a Place,
    /// AMQP, Erlang distribution, Erlang's port mapper.
    ports: [u16; 3],
}

impl Node<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path.join(name)
    }

    /// The node's database has the name in it, so it stays the same where the folder does.
    fn name(&self) -> String {
        match self.place {
            Place::Temporary | Place::Synced => format!("agentry-{}@localhost", self.ports[0]),
            Place::Kept(_) => "agentry@localhost".to_owned(),
        }
    }

    /// Everything that makes it private.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let [amqp, distribution, mapper] = self.ports;
        let path = |name| self.folder.seen(name).display().to_string();
        vec![
            ("HOME", path("")), // where Erlang keeps its cookie, and makes it if missing
            ("LANG", "C.UTF-8".to_owned()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("ERL_EPMD_PORT", mapper.to_string()),
            ("RABBITMQ_NODENAME", self.name()),
            ("RABBITMQ_NODE_PORT", amqp.to_string()),
            ("RABBITMQ_DIST_PORT", distribution.to_string()),
            ("RABBITMQ_MNESIA_BASE", path("mnesia")),
            ("RABBITMQ_LOG_BASE", path("log")),
            ("RABBITMQ_CONFIG_FILE", path("rabbitmq")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config")),
            ("RABBITMQ_CONF_ENV_FILE", path("rabbitmq-env.conf")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins")),
            ("RABBITMQ_GENERATED_CONFIG_DIR", path("generated")),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}".to_owned()),
            // Else a rabbitmqctl that finds no node would leave a port mapper behind, which no guard knows.
            ("RABBITMQ_CTL_ERL_ARGS", "-start_epmd false".to_owned()),
            // The script becomes the server instead of waiting for it: one process less that can die alone.
            ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
        ]
    }

    /// Writes its files; answers with the path of a `rabbitmqctl` that steers this node, whoever calls it.
    fn prepare(&self, bin: &Path) -> anyhow::Result<String> {
        let rabbitmqctl = self.path("rabbitmqctl");
        let mut script = "#!/bin/sh\nexec env".to_owned();
        for (name, value) in self.environment() {
            let _ = write!(script, " \\\n    {name}={}", quoted(&value)); // writing to a text cannot fail
        }
        for word in self.words(&bin.join("rabbitmqctl")) {
            let _ = write!(script, " \\\n    {}", quoted(&word));
        }
        let _ = writeln!(script, " -n {} \"$@\"", quoted(&self.name()));
        let files = [
            (
                self.path("rabbitmq.conf"),
                format!("listeners.tcp.1 = 127.0.0.1:{}\nlog.console = true\n", self.ports[0]),
            ),
            (self.path("advanced.config"), "[].\n".to_owned()),
            (self.path("rabbitmq-env.conf"), String::new()),
            (self.path("plugins"), "[].\n".to_owned()),
            (rabbitmqctl.clone(), script),
        ];
        for (path, text) in &files {
            std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
            user::give(path, self.folder.user)?;
        }
        std::fs::set_permissions(&rabbitmqctl, PermissionsExt::from_mode(0o755)).context("failed to make a program")?;
        Ok(rabbitmqctl.display().to_string())
    }

    /// A program with what stands before it, in another Debian.
    fn words(&self, program: &Path) -> Vec<String> {
        match (&self.folder.root, self.folder.user) {
            (Some(root), Some(user)) => {
                let path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
                [path, "chroot".to_owned()].into_iter().chain(root.words(user, program)).collect()
            }
            _ => vec![program.display().to_string()],
        }
    }

    fn launch(&self, bin: &Path) -> Launch {
        let program = bin.join("rabbitmq-server");
        let mut command = match (&self.folder.root, self.folder.user) {
            (Some(root), Some(user)) => root.command(user, &program),
            _ => Command::new(program),
        };
        command.current_dir(&self.folder.path);
        let foreign = |name: &str| ["RABBITMQ_", "ERL_"].iter().any(|prefix| name.starts_with(prefix));
        for (name, _) in std::env::vars_os().filter(|(name, _)| foreign(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command.envs(self.environment());
        let (stop, patience) = match self.place {
            Place::Temporary | Place::Synced => (StopSignal::Kill, Duration::ZERO),
            Place::Kept(_) => (StopSignal::Term, Duration::from_secs(20)),
        };
        Launch {
            command,
            terms: Terms { stop, patience, ..self.folder.terms(self.place) },
            log: self.path("server.log"),
            port: self.ports[0],
            probe: probe::amqp,
            patience: launch::PATIENCE,
            origin: if self.folder.root.is_some() { " in a Debian of its own" } else { "" },
        }
    }
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_reaches_a_program_as_it_is() {
        for word in ["plain", "two words", "it's", "$HOME `id` \\ \""] {
            let output = Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(word))).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }
}
