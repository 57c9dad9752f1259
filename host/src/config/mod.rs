//! Settings: built-in defaults < file < `AGENTRY_*` environment < flags, each with where it came from.
//!
//! Reading them has no side effect. What comes out is checked: ranges, pairs that belong together, what this build can
//! do. An error is one line that names the setting, where it stands, and the remedy; secrets are in none of them.

mod assemble;
mod calls;
mod environment;
mod expand;
mod file;
mod layers;
mod limits;
mod machine;
mod origin;
mod outside;
mod plaintext;
mod plugins;
mod prices;
mod reader;
mod secret;
#[cfg(test)]
mod tests;

pub use assemble::mappings;
pub use environment::DEBUGGABLE;
pub use expand::References;
pub use layers::{DEFAULTS, FlagValue, Sources};
pub use limits::LimitSet;
pub use machine::Machine;
pub use origin::{ConfigError, Origin, Problem};
pub use outside::{Outside, PluginSecret, private_network};
pub use plugins::PluginRule;
pub use reader::Effective;
pub use secret::SecretUrl;

use crate::broker::amqp::Trust;
use crate::db::Retention;
use crate::metrics::Prices;
use crate::registry::CallsPolicy;
use crate::task::{RetryPolicy, limits::MessageLimits};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything an operator can decide, as it holds for this process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[broker]`.
    pub broker: Broker,
    /// `[database]`.
    pub database: Database,
    /// `[data]`.
    pub data: Data,
    /// `[plugins]`.
    pub plugins: Plugins,
    /// `[api]`.
    pub api: Api,
    /// `[worker]`.
    pub worker: Worker,
    /// `[lease]`.
    pub lease: Lease,
    /// `[shutdown]`.
    pub shutdown: Shutdown,
    /// `[retention]`.
    pub retention: Retention,
    /// `[retry]`.
    pub retry: Retry,
    /// `[limits.default]` and `[limits.max]`.
    pub limits: Limits,
    /// `[log]`.
    pub log: Log,
    /// `[metrics]`, with the prices of `[llm.models.NAME]`.
    pub prices: Prices,
    /// `[queues.NAME]`, for those that have one.
    pub queues: BTreeMap<String, Queue>,
    /// `[calls]`; every key says something.
    pub calls: CallsPolicy,
    /// What plugins may reach outside, once it is granted.
    pub outside: Outside,
    /// The settings file that was read.
    pub file: Option<PathBuf>,
    /// What secrets were read from: variables of the environment, and files.
    pub references: References,
    /// What an operator should know although it is no error.
    pub warnings: Vec<String>,
    effective: Vec<Effective>,
}

/// Where tasks come from and are remembered.
#[derive(Clone, Copy, Debug)]
pub enum Services<'a> {
    /// Neither is set: SQLite and an in-process queue in `data.dir`.
    Embedded,
    /// Both are set.
    External {
        /// RabbitMQ.
        broker: &'a SecretUrl,
        /// Postgres.
        database: &'a SecretUrl,
    },
}

/// `[broker]`.
#[derive(Clone, Debug)]
pub struct Broker {
    /// `broker.url`, or what `broker.url_file` holds. Set together with the database's, or neither.
    pub url: Option<SecretUrl>,
    /// `broker.management_url`, or what its file holds: RabbitMQ's management API, which `agentry doctor` asks.
    pub management_url: Option<SecretUrl>,
    /// TLS: `broker.ca_file`, `broker.cert_file` and `broker.key_file`, or what the URL says of them.
    pub trust: Trust,
    /// Names exchanges and queues.
    pub prefix: String,
    /// Logical queues to consume; at least one.
    pub queues: Vec<String>,
    /// Create what is missing; otherwise only check.
    pub declare: bool,
    /// What the operator says the broker's `consumer_timeout` is.
    pub consumer_timeout: Duration,
}

/// `[database]`.
#[derive(Clone, Debug)]
pub struct Database {
    /// `database.url`, or what `database.url_file` holds. Set together with the broker's, or neither.
    pub url: Option<SecretUrl>,
    /// The Postgres schema.
    pub schema: String,
    /// Bring the schema up to date on start.
    pub migrate: bool,
    /// Connections at most.
    pub pool: u32,
    /// The longest that one operation may take.
    pub timeout: Duration,
}

/// `[data]`.
#[derive(Clone, Debug)]
pub struct Data {
    /// Absolute.
    pub dir: PathBuf,
}

/// `[plugins]`.
#[derive(Clone, Debug)]
pub struct Plugins {
    /// Absolute; at least one.
    pub dirs: Vec<PathBuf>,
    /// The same version may come with other bytes.
    pub mutable: bool,
    /// How long a task may wait for a plugin that no live host serves.
    pub unknown_grace: Duration,
    /// `[plugins."PATTERN"]`, the most specific first.
    pub rules: Vec<PluginRule>,
}

/// `[api]`.
#[derive(Clone, Debug)]
pub struct Api {
    /// Where to listen; port 0 picks one.
    pub listen: SocketAddr,
    /// Who may call; set whenever `listen` is not loopback.
    pub tokens_file: Option<PathBuf>,
    /// The certificate that is shown; `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Connections at once.
    pub connections: usize,
    /// The largest request body, in bytes.
    pub body_bytes: usize,
}

/// `api.tls_cert` and `api.tls_key`, both absolute.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate, and those of its issuers after it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `[worker]`.
#[derive(Clone, Copy, Debug)]
pub struct Worker {
    /// Guests in memory at once, computing or waiting.
    pub slots: u32,
    /// Guests that compute before another may begin.
    pub computing: u32,
    /// Memory for all guests together, in MiB; at least the ceiling of one.
    pub memory_mib: u64,
    /// How long a first attempt without effects may run before it is claimed; zero: every task is claimed before it runs.
    pub claim_after: Duration,
}

/// `[lease]`.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// A host that has not renewed for so long is taken for dead.
    pub ttl: Duration,
}

/// `[shutdown]`.
#[derive(Clone, Copy, Debug)]
pub struct Shutdown {
    /// How long running tasks may go on after SIGTERM.
    pub grace: Duration,
}

/// `[retry]`.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Where neither message nor plugin says otherwise.
    pub policy: RetryPolicy,
    /// Snoozes of one task before it fails.
    pub max_snoozes: u32,
}

/// `[limits.default]` and `[limits.max]`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What holds for a plugin whose `plugin.toml` is silent.
    pub default: LimitSet,
    /// Ceilings.
    pub max: LimitSet,
    /// `limits.max.message_kib`: a message's body.
    pub message_kib: u64,
    /// `limits.max.component_mib`: a component's file.
    pub component_mib: u64,
    /// `limits.max.compile_seconds`: compiling one component.
    pub compile_seconds: u64,
    /// `limits.max.compile_memory_mib`: the same.
    pub compile_memory_mib: u64,
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: &'static str,
    /// `AGENTRY_LOG`: directives that stand in for the level.
    pub directives: Option<String>,
    /// How a line looks.
    pub format: LogFormat,
    /// How long due tasks may wait before a warning says so; zero: none does.
    pub warn_pending_after: Duration,
}

/// How a line of the daemon's log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[queues.NAME]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// When its deliveries are acknowledged.
    pub ack: Ack,
    /// At most so many of its tasks at once; `None`: all of `worker.slots`.
    pub slots: Option<u32>,
}

/// When a delivery is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// When its task's end is recorded: the broker notices a crash at once.
    #[default]
    Settled,
    /// When its task is claimed: the lease notices a crash, and the broker's consumer time-out bounds nothing.
    Claimed,
}

impl Settings {
    /// Read, merge and check. No side effect but reading files.
    pub fn load(sources: &Sources) -> Result<Settings, ConfigError> {
        assemble::assemble(layers::read(sources)?, sources.machine)
    }

    /// Which broker and database.
    pub fn services(&self) -> Services<'_> {
        match (&self.broker.url, &self.database.url) {
            (Some(broker), Some(database)) => Services::External { broker, database },
            // One alone is refused when settings are read.
            _ => Services::Embedded,
        }
    }

    /// The variables of an environment that settings are read from: `AGENTRY_*`, and those that secrets refer to. What is not text
    /// has been rejected.
    pub fn variables_of(&self, environment: &[(OsString, OsString)]) -> Vec<(String, String)> {
        let text = environment.iter().filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
        let is_read = |name: &str| environment::is_of_settings(name) || self.references.variables.contains(name);
        text.filter(|(name, _)| is_read(name)).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// What a message is checked against.
    pub fn message_limits(&self) -> MessageLimits {
        let body_bytes = usize::try_from(self.limits.message_kib * 1_024).unwrap_or(usize::MAX);
        MessageLimits { timeout_seconds: self.limits.max.timeout_seconds, body_bytes }
    }

    /// Every setting as it holds, by name, without secrets.
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// Where a setting came from.
    pub fn origin(&self, key: &str) -> &Origin {
        self.effective.iter().find(|e| e.key == key).map_or(&Origin::Default, |e| &e.origin)
    }

    /// A digest of every effective value that is no secret: two daemons with the same one behave alike.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for setting in &self.effective {
            hash.update(format!("{}={}\n", setting.key, setting.value));
        }
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// What is in use and where each came from, for the first lines of a daemon.
    pub fn startup_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = |what: &str, value: String, key: &str| {
            lines.push(format!("{what:<9} {value} ({})", self.origin(key)));
        };
        match self.services() {
            Services::External { broker, database } => {
                line("broker", broker.to_string(), "broker.url");
                line("queues", self.broker.queues.join(", "), "broker.queues");
                line("database", database.to_string(), "database.url");
            }
            Services::Embedded => {
                line("queues", self.broker.queues.join(", "), "broker.queues");
            }
        }
        line("data", self.data.dir.display().to_string(), "data.dir");
        let dirs: Vec<String> = self.plugins.dirs.iter().map(|d| d.display().to_string()).collect();
        line("plugins", dirs.join(", "), "plugins.dir");
        let scheme = if self.api.tls.is_some() { "https" } else { "http" };
        line("address", format!("{scheme}://{}", self.api.listen), "api.listen");
        lines.extend(self.recorded_bodies());
        let file = self.file.as_ref().map_or("no file".to_owned(), |f| f.display().to_string());
        lines.push(format!("{:<9} {file}, digest {}", "settings", self.digest()));
        if let Services::Embedded = self.services() {
            lines.insert(0, "EMBEDDED: this process alone; nothing consumes RabbitMQ".into());
        }
        lines
    }
}
