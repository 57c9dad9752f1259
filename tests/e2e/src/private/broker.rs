//! A RabbitMQ of one's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use lapin::{Connection, ConnectionProperties};

use super::certificate::Certificate;
use super::{command_in, find, folder, free_port, seen, spawn};
use crate::daemon::run_command;
use crate::patience::eventually;
use crate::variables;

/// It runs, unless it was killed. Dropped: gone.
pub struct Broker {
    folder: tempfile::TempDir,
    /// The Debian that it runs in, if not the machine's own.
    root: Option<PathBuf>,
    /// As it sees them.
    programs: PathBuf,
    /// AMQP, Erlang distribution, Erlang's port mapper.
    ports: [u16; 3],
    /// AMQP over TLS.
    tls_port: u16,
    certificate: Certificate,
    mapper: Child,
    node: Child,
}

impl Broker {
    /// Starts one. `terms` are Erlang's for the application `rabbit`, such as `{consumer_timeout, 5000}`.
    pub async fn start(terms: &str) -> Self {
        let root = variables::rabbitmq_root();
        let folder = folder("rabbitmq", None, root.as_deref());
        let programs = match &root {
            Some(_) => PathBuf::from("/usr/lib/rabbitmq/bin"),
            None => find(
                ["/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin"].map(PathBuf::from),
                &["rabbitmq-server", "rabbitmqctl"],
            ),
        };
        let ports = [free_port(), free_port(), free_port()];
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("a setting is written");
        };
        let tls_port = free_port();
        let certificate = Certificate::make(folder.path(), None);
        write(
            "rabbitmq.conf",
            &format!(
                "listeners.tcp.1 = 127.0.0.1:{}\nlisteners.ssl.1 = 127.0.0.1:{tls_port}\nssl_options.certfile = {}\n\
                 ssl_options.keyfile = {}\n",
                ports[0],
                seen(&certificate.certificate, root.as_deref()).display(),
                seen(&certificate.key, root.as_deref()).display()
            ),
        );
        write("advanced.config", &format!("[{{rabbit, [{terms}]}}].\n"));
        write("rabbitmq-env.conf", "");
        write("plugins", "[].\n");
        // In the foreground, so that it ends: the node would start one that stays.
        let mapper = if root.is_some() { PathBuf::from("/usr/bin/epmd") } else { find([], &["epmd"]).join("epmd") };
        let mut mapper = command_in(root.as_deref(), &mapper, None);
        mapper.args(["-address", "127.0.0.1", "-port", &ports[2].to_string()]);
        let mapper = spawn(mapper, &folder.path().join("mapper.log"));
        let node = spawn(node(&programs, folder.path(), root.as_deref(), ports), &folder.path().join("server.log"));
        let broker = Self { folder, root, programs, ports, tls_port, certificate, mapper, node };
        broker.answers().await;
        broker
    }

    /// Its URL, as its administrator.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.ports[0])
    }

    /// The same, over TLS.
    pub fn tls_url(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/%2f", self.tls_port)
    }

    /// Its certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// SIGKILL, and it is gone; what it has on disk stays.
    pub fn kill(&mut self) {
        let _ = self.node.kill(); // it may have ended
        let _ = self.node.wait();
    }

    /// Starts it again, after [`Broker::kill`].
    pub async fn start_again(&mut self) {
        let node = node(&self.programs, self.folder.path(), self.root.as_deref(), self.ports);
        self.node = spawn(node, &self.folder.path().join("server.log"));
        self.answers().await;
    }

    /// `rabbitmqctl`, which must succeed; what it says.
    pub async fn control(&self, arguments: &[&str]) -> String {
        let root = self.root.as_deref();
        let mut command = command_in(root, &self.programs.join("rabbitmqctl"), None);
        environment(&mut command, &seen(self.folder.path(), root), root.is_some(), self.ports);
        command.arg("-n").arg(name(self.ports)).args(arguments);
        let ended = run_command(&mut command).await;
        assert_eq!(ended.code, Some(0), "rabbitmqctl {arguments:?}: {ended:?}");
        ended.stdout
    }

    async fn answers(&self) {
        eventually("the private broker answers", async || {
            let connection = Connection::connect(&self.url(), ConnectionProperties::default()).await;
            let connection = connection.map_err(|error| {
                let log = std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
                format!("{error}; {}", log.lines().rev().take(5).collect::<Vec<_>>().join(" | "))
            })?;
            let _ = connection.close(200, "done".into()).await; // it ends anyway
            Ok(())
        })
        .await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        for child in [&mut self.node, &mut self.mapper] {
            let _ = child.kill(); // it may have ended
            let _ = child.wait();
        }
    }
}

fn name(ports: [u16; 3]) -> String {
    format!("agentry-{}@localhost", ports[0])
}

fn node(programs: &Path, folder: &Path, root: Option<&Path>, ports: [u16; 3]) -> Command {
    let mut command = command_in(root, &programs.join("rabbitmq-server"), None);
    environment(&mut command, &seen(folder, root), root.is_some(), ports);
    command.current_dir(folder);
    command
}

/// Everything that makes it private.
fn environment(command: &mut Command, folder: &Path, elsewhere: bool, ports: [u16; 3]) {
    let [amqp, distribution, mapper] = ports.map(|port| port.to_string());
    let path = std::env::var_os("PATH").filter(|_| !elsewhere);
    command.env_clear().env("PATH", path.unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()));
    for (name, file) in [
        ("HOME", ""), // where Erlang keeps its cookie, and makes it if it is missing
        ("RABBITMQ_MNESIA_BASE", "mnesia"),
        ("RABBITMQ_LOG_BASE", "log"),
        ("RABBITMQ_CONFIG_FILE", "rabbitmq"),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
        ("RABBITMQ_CONF_ENV_FILE", "rabbitmq-env.conf"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "plugins"),
        ("RABBITMQ_GENERATED_CONFIG_DIR", "generated"),
    ] {
        command.env(name, folder.join(file));
    }
    command.envs([
        ("LANG", "C.UTF-8"),
        ("ERL_EPMD_ADDRESS", "127.0.0.1"),
        ("ERL_EPMD_PORT", &mapper),
        ("RABBITMQ_NODENAME", &name(ports)),
        ("RABBITMQ_NODE_PORT", &amqp),
        ("RABBITMQ_DIST_PORT", &distribution),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}"),
        ("RABBITMQ_CTL_ERL_ARGS", "-start_epmd false"),
        // The script becomes the server instead of waiting for it, so that a signal reaches it.
        ("RUNNING_UNDER_SYSTEMD", "true"),
    ]);
}
