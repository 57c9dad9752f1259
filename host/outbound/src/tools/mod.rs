//! Tools of Model Context Protocol servers (all revisions to 2026-07-28), over standard streams and HTTP.
//!
//! ```text
//! Tools ─▶ Session (one per plugin) ─▶ Connection (one per plugin and server) ─▶ rmcp ─▶ stdio: a child process
//!   settings   grant, catalogue, call     start, back-off, end                        └▶ http: reqwest
//! ```
//!
//! **What a server gets.** A child has an empty environment but for `env`; not even `PATH` is inherited, so a program that
//! looks for its interpreter (`#!/usr/bin/env node`) needs `env.PATH`. The program itself is looked up in the daemon's `PATH`
//! and started by its absolute path, in `dir` or an empty folder of its own that goes with it. A server over HTTP gets the
//! configured headers, at the configured origin alone: no redirect leaves it, and no proxy is used but the configured one. A child runs as
//! the daemon's user, or as `user`, which the `user` module describes.
//!
//! **What is left of a child.** Nothing, when the host closes or a runtime ends: its process group is killed. When the daemon is
//! killed outright, the child's input ends, and its supervisor ends it ([`Tools::supervised`]). What leaves the process group
//! (`setsid`) is out of reach.
//!
//! **What a server may ask.** Nothing: the client declares no capability, and refuses sampling, roots and elicitation.
//!
//! **What a guest gets.** What the tool gave, its own name for the trouble, the last lines of a child that ended, and nothing else:
//! every configured value of 8 bytes or more (variables, headers, the address's query) is replaced by `***` in whatever comes from
//! the server, before anybody here sees or logs it. A server that encodes a credential before it shows it is not caught.

mod assembly;
mod backoff;
mod call;
mod catalogue;
mod connection;
mod content;
mod credentials;
mod descendants;
mod handler;
mod http;
mod intake;
mod last_words;
mod line;
mod link;
mod negotiation;
mod process;
mod settings;
mod stdio;
mod supervisor;
mod user;
mod words;

pub use supervisor::{Supervisor, supervise};

use crate::Secret;
use catalogue::allows;
use connection::Connection;
use futures_util::future::try_join_all;
use settings::Server;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use words::{Lines, bounded, printable};

/// The longest name of a guest's making that an error repeats.
const NAME_BYTES: usize = 128;

/// `[tools.NAME]`.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// How it is reached.
    pub transport: Transport,
    /// To its answer to `initialize`, a process's start included.
    pub start: Duration,
    /// To the answer to one call.
    pub call: Duration,
    /// The longest output of one call, in bytes.
    pub output_bytes: u64,
}

/// How a server is reached.
#[derive(Clone)]
pub enum Transport {
    /// A child process of the daemon, with nothing in its environment but `env`.
    Stdio {
        /// The program; looked up in the daemon's `PATH` if it has no `/`.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// All of its environment.
        env: BTreeMap<String, Secret>,
        /// Where it runs; `None`: an empty folder of its own.
        dir: Option<PathBuf>,
        /// The user that it runs as, by name or number; `None`: the daemon's own. Needs a supervisor.
        user: Option<String>,
    },
    /// Streamable HTTP.
    Http {
        /// Its endpoint.
        url: url::Url,
        /// Headers with every request.
        headers: BTreeMap<String, Secret>,
        /// The proxy that all requests go through; `None`: they go directly.
        proxy: Option<crate::Proxy>,
        /// Certificate authorities in addition to the system's: a PEM file.
        ca_file: Option<PathBuf>,
    },
}

impl fmt::Debug for Transport {
    /// Without the address's query, which may hold a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transport::Stdio { command, args, env, dir, user } => f
                .debug_struct("Stdio")
                .field("command", command)
                .field("args", args)
                .field("env", env)
                .field("dir", dir)
                .field("user", user)
                .finish(),
            Transport::Http { url, headers, proxy, ca_file } => f
                .debug_struct("Http")
                .field("origin", &url.origin().ascii_serialization())
                .field("path", &url.path())
                .field("headers", headers)
                .field("proxy", proxy)
                .field("ca_file", ca_file)
                .finish(),
        }
    }
}

/// Server → tools; `*` stands for all of them.
pub type ToolGrant = BTreeMap<String, Vec<String>>;

/// A tool as its server describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// The operator's name for the server.
    pub server: String,
    /// Its name there.
    pub name: String,
    /// For a model.
    pub description: String,
    /// A JSON Schema as text.
    pub input_schema: String,
}

/// One piece of an output.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Text.
    Text(String),
    /// Another block, as the protocol's JSON.
    Other(String),
}

/// What a tool gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// In its order.
    pub content: Vec<Content>,
    /// `structuredContent` as JSON text.
    pub structured: Option<String>,
    /// The tool says that it failed.
    pub failed: bool,
}

/// Why there is no output. The words may be the server's; they hold no credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the texts say they are")]
pub enum ToolError {
    #[error(
        "{server}.{tool} is not granted; ask for it in plugin.toml under [capabilities]: tools = {{ {server} = [\"{tool}\"] }}"
    )]
    Denied { server: String, tool: String },
    #[error("there is no tool {server}.{tool}")]
    Unknown { server: String, tool: String },
    #[error("the arguments of {server}.{tool} do not fit: {reason}")]
    InvalidArguments { server: String, tool: String, reason: String },
    #[error("no answer from {server} within {limit:?}{}", if *sent { "; whether it did what it was asked is not known" } else { "" })]
    TimedOut { server: String, limit: Duration, sent: bool },
    #[error("the tool server {server} is not available: {reason}")]
    Unavailable { server: String, reason: String },
    #[error("{server}.{tool} failed: {reason}")]
    Failed { server: String, tool: String, reason: String },
    #[error("{server}.{tool} gave more than {limit} bytes")]
    TooLarge { server: String, tool: String, limit: u64 },
}

/// The settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tools.{server}.{key}: {reason}")]
pub struct ToolSettingsError {
    /// Which server.
    pub server: String,
    /// Which of its keys.
    pub key: &'static str,
    /// What is wrong.
    pub reason: String,
}

/// Whether a server is well, for readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHealth {
    /// Its name.
    pub server: String,
    /// Why it is not, if it is not.
    pub trouble: Option<String>,
    /// How often it was started again.
    pub restarts: u64,
}

/// Every server that the operator configured. Cheap to clone. When the last clone is dropped, the children are ended as by
/// [`Tools::close`], with nobody waiting.
#[derive(Clone, Debug)]
pub struct Tools {
    shared: Arc<Shared>,
}

/// One plugin's sessions, one with each server that it was granted; opened when they are first needed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Session {
    shared: Arc<Shared>,
    plugin: Arc<str>,
    grant: Arc<ToolGrant>,
}

/// What sessions share: never a connection of another plugin.
struct Shared {
    servers: BTreeMap<String, Arc<Server>>,
    /// By plugin, then by server.
    connections: Mutex<BTreeMap<String, BTreeMap<String, Arc<Connection>>>>,
    closing: CancellationToken,
    tasks: TaskTracker,
    _close_on_drop: DropGuard,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tools").field("servers", &self.servers.keys()).finish_non_exhaustive()
    }
}

impl Tools {
    /// Checks the settings; starts nothing.
    ///
    /// # Errors
    /// A command that is not there; a URL that is none; a header that cannot be sent; a time-out of nothing.
    pub fn new(servers: BTreeMap<String, ServerSettings>) -> Result<Tools, ToolSettingsError> {
        Tools::build(servers, None)
    }

    /// The same, with a supervisor for every child, so that none outlives this process even if that is killed outright.
    ///
    /// # Errors
    /// As [`Tools::new`].
    pub fn supervised(
        servers: BTreeMap<String, ServerSettings>,
        supervisor: &Supervisor,
    ) -> Result<Tools, ToolSettingsError> {
        Tools::build(servers, Some(supervisor))
    }

    fn build(
        servers: BTreeMap<String, ServerSettings>,
        supervisor: Option<&Supervisor>,
    ) -> Result<Tools, ToolSettingsError> {
        let check = |(name, settings): (String, ServerSettings)| {
            let server = Server::check(&name, settings, supervisor)?;
            Ok((name, Arc::new(server)))
        };
        let servers = servers.into_iter().map(check).collect::<Result<BTreeMap<_, _>, ToolSettingsError>>()?;
        let closing = CancellationToken::new();
        let shared = Shared {
            servers,
            connections: Mutex::default(),
            tasks: TaskTracker::new(),
            _close_on_drop: closing.clone().drop_guard(),
            closing,
        };
        Ok(Tools { shared: Arc::new(shared) })
    }

    /// The names of the servers.
    pub fn servers(&self) -> Vec<String> {
        self.shared.servers.keys().cloned().collect()
    }

    /// For one plugin. Asked again with the same plugin and grant, it is the same session; with another grant, another
    /// filter before the same connections.
    pub fn session(&self, plugin: &str, grant: ToolGrant) -> Session {
        Session { shared: self.shared.clone(), plugin: plugin.into(), grant: grant.into() }
    }

    /// How the servers are that anybody uses: with the trouble of any plugin's connection, and the restarts of all.
    pub fn health(&self) -> Vec<ServerHealth> {
        let connections = self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = BTreeMap::<String, ServerHealth>::new();
        for health in connections.values().flat_map(BTreeMap::values).filter_map(|connection| connection.health()) {
            match found.get_mut(&health.server) {
                Some(known) => {
                    known.restarts += health.restarts;
                    known.trouble = known.trouble.take().or(health.trouble);
                }
                None => {
                    found.insert(health.server.clone(), health);
                }
            }
        }
        found.into_values().collect()
    }

    /// Ends every session and every child, and waits for them: a child has 2 s to go when its input ends, and 2 s after a
    /// `SIGTERM`; then its process group is killed. Calls under way fail, and later ones too.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Session {
    /// What was granted and exists, by server and name.
    ///
    /// # Errors
    /// A server that is not available: a list without its tools would look like all there is.
    pub async fn list(&self, until: Instant) -> Result<Vec<Tool>, ToolError> {
        let granted = self.grant.iter().filter_map(|(server, tools)| Some((self.connection(server)?, tools)));
        let lists = granted.map(|(connection, tools)| async move {
            let live = connection.live(until).await?;
            Ok(connection.catalogue(&live, until).await?.granted(tools))
        });
        Ok(try_join_all(lists).await?.concat())
    }

    /// Calls a tool, once. Dropping the future tells the server that the call is cancelled; the session goes on.
    ///
    /// # Errors
    /// See [`ToolError`].
    pub async fn call(&self, server: &str, tool: &str, arguments: &str, until: Instant) -> Result<Output, ToolError> {
        let shown = |name: &str| bounded(&printable(name, Lines::One), NAME_BYTES);
        let unknown = || ToolError::Unknown { server: shown(server), tool: shown(tool) };
        if !self.grant.get(server).is_some_and(|tools| allows(tools, tool)) {
            return Err(ToolError::Denied { server: shown(server), tool: shown(tool) });
        }
        let connection = self.connection(server).ok_or_else(unknown)?;
        let live = connection.live(until).await?;
        let catalogue = connection.catalogue(&live, until).await?;
        let entry = catalogue.get(tool).ok_or_else(unknown)?;
        call::call(&connection, &live, entry, arguments, until).await
    }

    /// This plugin's connection with a server; none if there is no such server.
    fn connection(&self, server: &str) -> Option<Arc<Connection>> {
        let configured = self.shared.servers.get(server)?;
        let mut connections = self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let own = connections.entry(self.plugin.to_string()).or_default();
        let connection = own.entry(server.to_owned()).or_insert_with(|| {
            let (closing, tasks) = (self.shared.closing.clone(), self.shared.tasks.clone());
            Arc::new(Connection::new(configured.clone(), &self.plugin, closing, tasks))
        });
        Some(connection.clone())
    }
}
