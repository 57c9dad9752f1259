//! One plugin's connection with one server: opened when it is first needed, kept, and opened again when it breaks.
//!
//! ```text
//! idle ──▶ starting ──▶ up ──▶ down ──▶ starting …        closed, from everywhere
//!              └────────────────▲
//! ```

use super::backoff::Backoff;
use super::catalogue::Catalogue;
use super::http::{self, Endpoint};
use super::last_words;
use super::link::Link;
use super::negotiation;
use super::process::Process;
use super::settings::{Program, Reach, Server};
use super::stdio::StdioTransport;
use super::{ServerHealth, ToolError};
use crate::tools::handler::Handler;
use rmcp::ServiceExt;
use rmcp::service::{ClientInitializeError, Peer, RoleClient, RunningService};
use rmcp::transport::Transport;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the good-bye of a session may take.
const GOODBYE: Duration = Duration::from_secs(3);

/// How a start that took too long is reported.
const LATE: &str = "it did not answer initialize within";

/// One plugin's connection with one server.
pub(super) struct Connection {
    server: Arc<Server>,
    plugin: String,
    phase: watch::Sender<Phase>,
    trouble: Mutex<Option<String>>,
    restarts: AtomicU64,
    closing: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Clone)]
enum Phase {
    Idle,
    Starting,
    Up(Arc<Live>),
    Down { reason: String, until: Instant },
    Closed,
}

/// A session that is open.
pub(super) struct Live {
    pub(super) peer: Peer<RoleClient>,
    pub(super) link: Arc<Link>,
    /// The tools, and how often they had changed when they were asked for.
    catalogue: tokio::sync::Mutex<Option<(u64, Arc<Catalogue>)>>,
}

/// Why a session ended: in words that a guest may read, and in more for the operator.
struct Fallen {
    reason: String,
    trouble: String,
}

impl Connection {
    /// One that is opened later; its tasks end when `closing` does.
    pub(super) fn new(server: Arc<Server>, plugin: &str, closing: CancellationToken, tasks: TaskTracker) -> Connection {
        Connection {
            server,
            plugin: plugin.to_owned(),
            phase: watch::Sender::new(Phase::Idle),
            trouble: Mutex::default(),
            restarts: AtomicU64::new(0),
            closing,
            tasks,
        }
    }

    /// The server at the other end.
    pub(super) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The session, opened if need be. Who comes while it is down is told so at once.
    pub(super) async fn live(self: &Arc<Self>, until: Instant) -> Result<Arc<Live>, ToolError> {
        self.open();
        let mut phases = self.phase.subscribe();
        let (until, limit) = bound(until, Duration::MAX);
        let settled = phases.wait_for(|phase| !matches!(phase, Phase::Idle | Phase::Starting));
        let Ok(phase) = tokio::time::timeout_at(until, settled).await else {
            return Err(ToolError::TimedOut { server: self.server.name.clone(), limit, sent: false });
        };
        match phase.as_deref() {
            Ok(Phase::Up(live)) => Ok(live.clone()),
            Ok(Phase::Down { reason, until }) => {
                let wait = until.saturating_duration_since(Instant::now()).as_secs_f64();
                Err(self.unavailable(&format!("{reason}; it is tried again in {wait:.1} s")))
            }
            _ => Err(self.unavailable("the host is shutting down")),
        }
    }

    /// Its tools: asked for once, and again when they changed.
    pub(super) async fn catalogue(&self, live: &Live, until: Instant) -> Result<Arc<Catalogue>, ToolError> {
        let (until, limit) = bound(until, self.server.call);
        let ask = async {
            let mut known = live.catalogue.lock().await;
            let changes = live.link.changes();
            if let Some((_, catalogue)) =
                known.as_ref().filter(|(at, catalogue)| *at == changes && catalogue.is_fresh())
            {
                return Ok(catalogue.clone());
            }
            let asked = Catalogue::ask(&live.peer, &live.link, &self.server.name).await;
            let catalogue = Arc::new(asked.map_err(|reason| self.unavailable(&reason))?);
            *known = Some((changes, catalogue.clone()));
            Ok(catalogue)
        };
        tokio::select! {
            biased;
            asked = tokio::time::timeout_at(until, ask) => {
                asked.unwrap_or_else(|_| Err(ToolError::TimedOut { server: self.server.name.clone(), limit, sent: false }))
            }
            () = live.link.ended() => Err(self.broken(live)),
        }
    }

    /// The error of a request that was under way when the session ended.
    pub(super) fn broken(&self, live: &Live) -> ToolError {
        let reason = live.link.reason().unwrap_or("it ended");
        self.unavailable(&format!("{reason} before it answered; whether it did what it was asked is not known"))
    }

    /// An error with a reason that may have the server's words.
    pub(super) fn unavailable(&self, reason: &str) -> ToolError {
        ToolError::Unavailable { server: self.server.name.clone(), reason: self.server.redactor.reason(reason) }
    }

    /// How it is; nothing if nobody used it.
    pub(super) fn health(&self) -> Option<ServerHealth> {
        if matches!(*self.phase.borrow(), Phase::Idle) {
            return None;
        }
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let restarts = self.restarts.load(Ordering::Relaxed);
        Some(ServerHealth { server: self.server.name.clone(), trouble, restarts })
    }

    /// Begins to keep it open, if nobody does.
    fn open(self: &Arc<Self>) {
        let first = self.phase.send_if_modified(|phase| {
            let idle = matches!(phase, Phase::Idle);
            if idle {
                *phase = if self.closing.is_cancelled() { Phase::Closed } else { Phase::Starting };
            }
            idle && matches!(phase, Phase::Starting)
        });
        if first {
            self.tasks.spawn(self.clone().keep());
        }
    }

    /// Keeps it open until everything closes.
    async fn keep(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        // Who comes while everything closes may be too late to be waited for.
        while !self.closing.is_cancelled() {
            let began = Instant::now();
            let Some(fallen) = self.run().await else { break };
            let wait = backoff.after(began.elapsed(), rand::random());
            tracing::warn!(
                server = %self.server.name, plugin = %self.plugin, trouble = %fallen.trouble,
                again_in_ms = wait.as_millis(), "a tool server is down"
            );
            self.say(Some(fallen.trouble));
            self.phase.send_replace(Phase::Down { reason: fallen.reason, until: Instant::now() + wait });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.closing.cancelled() => break,
            }
            self.restarts.fetch_add(1, Ordering::Relaxed);
            self.phase.send_replace(Phase::Starting);
        }
        self.phase.send_replace(Phase::Closed);
    }

    fn say(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// One session from its start to its end; nothing if it ended because everything closes.
    async fn run(&self) -> Option<Fallen> {
        let link = Arc::new(Link::new(&self.server.name, self.server.redactor.clone()));
        match &self.server.reach {
            Reach::Stdio(program) => self.run_stdio(program, link).await,
            Reach::Http(endpoint) => self.run_http(endpoint, link).await,
        }
    }

    async fn run_stdio(&self, program: &Program, link: Arc<Link>) -> Option<Fallen> {
        let (process, pipes) = match Process::start(&self.server, program, &self.plugin) {
            Ok(started) => started,
            Err(error) => {
                let why = last_words::cannot_start(&program.path, &error);
                return Some(self.fallen(&format!("it cannot be started: {why}"), &link));
            }
        };
        let most = self.server.message_bytes();
        let transport = StdioTransport::new(pipes, link.clone(), most, self.server.call);
        let reason = self.converse(transport, &link).await;
        link.end("it was closed"); // its input with it
        let ended = process.end().await;
        reason.map(|reason| {
            let (status, last, name) = (ended.status, &ended.last_words, &self.server.name);
            self.fallen(&last_words::explained(&reason, status, last, name, program), &link)
        })
    }

    async fn run_http(&self, endpoint: &Endpoint, link: Arc<Link>) -> Option<Fallen> {
        let transport = endpoint.transport(link.clone(), self.server.message_bytes());
        let reason = self.converse(transport, &link).await;
        link.end("it was closed"); // streams of the old transport with it, also of a start that failed
        reason.map(|reason| self.fallen(&reason, &link))
    }

    fn fallen(&self, reason: &str, link: &Link) -> Fallen {
        let mut reason = self.server.redactor.reason(reason);
        if reason.starts_with(LATE) {
            reason = format!("{reason}; if it needs longer to start, raise tools.{}.start_seconds", self.server.name);
        }
        let more = link.explanation();
        let trouble = if more.is_empty() { reason.clone() } else { format!("{reason}; {more}") };
        Fallen { reason, trouble }
    }

    /// Opens the session and waits for its end. Why it ended; nothing if everything closes.
    async fn converse<T: Transport<RoleClient> + 'static>(&self, transport: T, link: &Arc<Link>) -> Option<String> {
        let opened = tokio::select! {
            opened = tokio::time::timeout(self.server.start, open(transport)) => opened,
            () = self.closing.cancelled() => return None,
        };
        let mut service = match opened {
            Err(_) => return Some(format!("{LATE} {:?}", self.server.start)),
            Ok(Err(error)) => return Some(link.reason().map_or(error, str::to_owned)),
            Ok(Ok(service)) => service,
        };
        let live = Live { peer: service.peer().clone(), link: link.clone(), catalogue: tokio::sync::Mutex::default() };
        self.say(None);
        self.phase.send_replace(Phase::Up(Arc::new(live)));
        let closes = tokio::select! {
            () = link.ended() => false,
            () = self.closing.cancelled() => true,
        };
        // Nobody new may find it.
        self.phase.send_replace(Phase::Starting);
        if service.close_with_timeout(GOODBYE).await.is_err() {
            tracing::debug!(server = %self.server.name, "a session's task failed");
        }
        (!closes).then(|| link.reason().unwrap_or("it ended").to_owned())
    }
}

/// Shakes hands. What went wrong is told in words.
async fn open<T: Transport<RoleClient> + 'static>(transport: T) -> Result<RunningService<RoleClient, Handler>, String> {
    let service = Handler.serve(transport).await.map_err(|error| match error {
        ClientInitializeError::JsonRpcError(error) => {
            format!("it refused initialize: {} {}", error.code.0, error.message)
        }
        ClientInitializeError::TransportError { error, .. } => http::words(&*error.error),
        ClientInitializeError::ConnectionClosed(_) => "it ended before it answered initialize".to_owned(),
        error => format!("its answer to initialize is none of the protocol: {error}"),
    })?;
    let version = service.peer().peer_info().map(|info| info.protocol_version.clone());
    match version {
        Some(version) if negotiation::speaks(version.as_str()) => Ok(service),
        version => {
            let version = version.map(|version| version.to_string()).unwrap_or_default();
            let spoken = negotiation::spoken();
            Err(format!(
                "it speaks revision {version:?} of the protocol, and this host {spoken}: update the older of both"
            ))
        }
    }
}

/// The earlier of a deadline and a time-out, and how far away it is.
pub(super) fn bound(until: Instant, most: Duration) -> (Instant, Duration) {
    let now = Instant::now();
    let limit = until.saturating_duration_since(now).min(most);
    (now + limit, limit)
}
