//! A host that serves one plugin, as the tests see it: a real socket, a real database, and nobody who works.

use crate::api::*;
use crate::broker::*;
use crate::db::sqlite::SqliteDb;
use crate::db::{ClaimAnswer, DbOptions, HostRecord};
use crate::metrics::Metrics;
use crate::registry::{Catalog, Job, MemoryBudget, PluginInfo, Resolved, Runner, Served, Turns};
use crate::task::settle::{Call, Report, Usage};
use crate::task::{Arrival, Ended, PluginRef, RetryPolicy, Runnable, Settlement};
use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Value, json};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// `api.connections` of a site.
pub const CONNECTIONS: usize = 80;

/// The API of a host that serves `word-count` 0.1.0, on a database of its own.
pub struct Site {
    pub base: String,
    pub http: reqwest::Client,
    pub db: Arc<SqliteDb>,
    pub host: uuid::Uuid,
    pub readiness: watch::Sender<Readiness>,
    pub metrics: Arc<Metrics>,
    pub outbox: Arc<Notify>,
    pub settled: watch::Sender<u64>,
    pub shutdown: CancellationToken,
    pub stopped: Arc<std::sync::Mutex<Vec<TaskId>>>,
    pub waiters: Arc<waiters::Waiters>,
    /// What went to the broker.
    pub published: Arc<std::sync::Mutex<Vec<Publication>>>,
    /// How the next publications end instead.
    pub refusals: Arc<std::sync::Mutex<Vec<PublishError>>>,
    pub served: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Site {
    pub async fn new() -> Site {
        Site::with(None).await
    }

    pub async fn with(tokens: Option<Tokens>) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let db = Arc::new(SqliteDb::connect(&folder.path().join("db.sqlite"), &DbOptions::default()).unwrap());
        db.migrate().await.unwrap();
        let host = uuid::Uuid::now_v7();
        db.register_host(&record(host), Duration::from_secs(60)).await.unwrap();
        let (readiness, ready) = watch::channel(Readiness { ready: true, reasons: vec![] });
        let (outbox, settled, shutdown) = (Arc::new(Notify::new()), watch::Sender::new(0), CancellationToken::new());
        let stopped = Arc::new(std::sync::Mutex::new(Vec::new()));
        let counting = Counting::default();
        let (published, refusals) = (counting.published.clone(), counting.refusals.clone());
        let metrics = Arc::new(Metrics::new(4, Arc::default(), MemoryBudget::new(1 << 30), Turns::new(2)));
        let state = ApiState::new(Parts {
            path: tokio::runtime::Handle::current(),
            db: db.clone(),
            catalog: Arc::new(OnePlugin),
            broker: Arc::new(counting),
            metrics: metrics.clone(),
            brakes: Default::default(),
            readiness: ready,
            queues: vec!["default".into()],
            message_limits: MessageLimits { timeout_seconds: 900, body_bytes: 64 * 1_024 },
            body_bytes: 128 * 1_024,
            connections: CONNECTIONS,
            max_attempts: 3,
            outbox: outbox.clone(),
            settled: settled.subscribe(),
            tokens,
        });
        let stops = stopped.clone();
        let state = state.stopping_with(Arc::new(move |id| stops.lock().unwrap().push(id)));
        let waiters = state.waiters.clone();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), CONNECTIONS, None).await.unwrap();
        let base = listener.url().unwrap();
        let served = tokio::spawn(serve(listener, state, shutdown.clone().cancelled_owned()));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Site {
            base,
            http,
            db,
            host,
            readiness,
            metrics,
            outbox,
            settled,
            shutdown,
            stopped,
            waiters,
            published,
            refusals,
            served,
            _folder: folder,
        }
    }

    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> (u16, Value) {
        let named = method.to_string();
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let kind = answer.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        let expected = if status < 400 || path == "/readyz" { "application/json" } else { "application/problem+json" };
        assert_eq!(kind, expected, "{path}");
        let text = answer.text().await.unwrap();
        super::contract::check(&named, path, status, &kind, &text);
        (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}")))
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path, &[], None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask(Method::POST, path, &[], Some(body.to_string())).await
    }

    /// Submit one task; answers its id.
    pub async fn submit(&self) -> TaskId {
        let (status, task) = self.post("/v1/tasks", &json!({"plugin": "word-count", "input": {}})).await;
        assert_eq!(status, 201, "{task}");
        task["id"].as_str().unwrap().parse().unwrap()
    }

    /// Claim a task, as the worker would.
    pub async fn claim(&self, id: TaskId) -> crate::db::Claimed {
        let row = self.db.task(id, Fields::ALL).await.unwrap().unwrap();
        let message = crate::task::TaskMessage::assemble(
            Some(id),
            &row.plugin,
            &row.input.unwrap(),
            crate::task::Options::default(),
            &MessageLimits::default(),
        );
        let runnable = Runnable::Here {
            version: "0.1.0".into(),
            digest: "sha256:ab".into(),
            max_attempts: 3,
            allowed: Duration::from_secs(600),
            lane: true,
        };
        let arrival = Arrival { message: Arc::new(message.unwrap()), queue: "default".into(), runnable, relayed: None };
        match self.db.claim(crate::db::Claimant { host: self.host, steady: true }, &[arrival]).await.unwrap().remove(0)
        {
            ClaimAnswer::Run(claimed) => claimed,
            other => panic!("{other:?}"),
        }
    }

    /// Complete a claimed task, as the worker would.
    pub async fn complete(&self, id: TaskId, fence: i64) {
        self.complete_with(id, fence, Usage::default(), vec![]).await;
    }

    /// Complete a claimed task whose guest called something.
    pub async fn complete_with(&self, id: TaskId, fence: i64, usage: Usage, calls: Vec<Call>) {
        let settlement = Settlement {
            id,
            fence,
            attempt: 1,
            ended: Ended::Completed { output: r#"{"words":  3}"#.into() },
            version: "0.1.0".into(),
            digest: "sha256:ab".into(),
            usage,
            logs: vec![],
            calls,
        };
        self.db.settle(self.host, &[settlement]).await.unwrap();
        self.settled.send_modify(|n| *n += 1);
    }
}

pub fn record(id: uuid::Uuid) -> HostRecord {
    HostRecord {
        id,
        name: "agentry/test/host/1".into(),
        build: "test".into(),
        settings_digest: "x".into(),
        queues: vec!["default".into()],
        plugins: vec!["word-count@0.1.0".into()],
        broken_plugins: vec![],
        slots: 1,
        busy: 0,
        brakes: Some(0),
    }
}

/// A catalogue with one plugin that nobody runs here.
struct OnePlugin;

impl Catalog for OnePlugin {
    fn resolve(&self, plugin: &PluginRef) -> Resolved {
        let fits = *plugin.name == *"word-count" && plugin.requirement.matches(&semver::Version::new(0, 1, 0));
        if fits {
            Resolved::Ready(Arc::new(WordCount("word-count".into())))
        } else if *plugin.name == *"broken" {
            Resolved::Broken { cause: "no component".into() }
        } else {
            Resolved::Unknown { known: vec!["word-count".into()] }
        }
    }
    fn changes(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
    fn list(&self) -> Vec<PluginInfo> {
        vec![]
    }
    fn served(&self) -> Served {
        Served::default()
    }
}

struct WordCount(Arc<str>);

#[async_trait]
impl Runner for WordCount {
    fn name(&self) -> &Arc<str> {
        &self.0
    }
    fn version(&self) -> &Arc<str> {
        &self.0
    }
    fn digest(&self) -> &Arc<str> {
        &self.0
    }
    fn queue(&self) -> &str {
        "default"
    }
    fn retry(&self) -> &RetryPolicy {
        const POLICY: &RetryPolicy = &RetryPolicy {
            max_attempts: 5,
            base: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_secs(60),
            on: None,
        };
        POLICY
    }
    fn concurrency(&self) -> Option<u32> {
        None
    }
    fn has_effects(&self) -> bool {
        true
    }
    fn timeout(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn timeout_ceiling(&self) -> Option<Duration> {
        Some(Duration::from_secs(600))
    }
    fn place(&self) -> &std::path::Path {
        std::path::Path::new(".")
    }

    fn memory_reserve(&self) -> u64 {
        0
    }
    fn memory_limit(&self) -> u64 {
        0
    }
    async fn run(&self, _: Job) -> Report {
        panic!("the API runs nothing")
    }
}

/// A broker that only counts, and keeps what is published.
#[derive(Default)]
struct Counting {
    published: Arc<std::sync::Mutex<Vec<Publication>>>,
    refusals: Arc<std::sync::Mutex<Vec<PublishError>>>,
}

#[async_trait]
impl Broker for Counting {
    async fn declare(&self, _: &[String]) -> Result<(), BrokerError> {
        panic!("the API declares nothing")
    }
    async fn subscribe(&self, _: Source, _: u16) -> Result<Subscription, BrokerError> {
        panic!("the API consumes nothing")
    }
    async fn acknowledge(&self, _: Vec<Receipt>) -> Acknowledged {
        panic!("the API acknowledges nothing")
    }
    async fn give_back(&self, _: Vec<Receipt>) -> Acknowledged {
        panic!("the API gives nothing back")
    }
    async fn publish(&self, batch: Vec<Publication>) -> Vec<Result<(), PublishError>> {
        let publish = |publication| match self.refusals.lock().unwrap().pop() {
            Some(refusal) => Err(refusal),
            None => {
                self.published.lock().unwrap().push(publication);
                Ok(())
            }
        };
        batch.into_iter().map(publish).collect()
    }
    async fn facts(&self, source: Source) -> Result<QueueFacts, BrokerError> {
        match source {
            Source::Tasks(_) => Ok(QueueFacts { ready: 7, consumers: 2 }),
            Source::Returned(_) => Ok(QueueFacts { ready: 0, consumers: 1 }),
            Source::Dead(_) => Err(BrokerError::Unavailable("gone".into())),
        }
    }
    fn health(&self) -> watch::Receiver<Health> {
        watch::channel(Health::Up(chrono::Utc::now())).1
    }
    fn describe(&self) -> String {
        "counting".into()
    }
    async fn close(&self) {}
}
