//! From settings to running parts: which database, which broker, which plugins.

use super::data_folder::DataFolder;
use super::grants::policies;
use super::readiness::Readiness;
use super::{DaemonError, configuration, failed};
use crate::api;
use crate::broker::amqp::{AmqpAddress, AmqpBroker, AmqpOptions};
use crate::broker::embedded::EmbeddedBroker;
use crate::broker::{Broker, BrokerError};
use crate::config::{LimitSet, SecretUrl, Services, Settings};
use crate::db::postgres::PostgresDb;
use crate::db::sqlite::SqliteDb;
use crate::db::{Db, DbError, DbOptions};
use crate::registry::{self, Ceilings, Compiler, LimitSettings, LimitWishes, Reach, RegistryConfig, SandboxSettings};
use crate::worker;
use agentry_outbound::egress::Egress;
use agentry_outbound::llm::Llm;
use agentry_outbound::tools::{Supervisor, Tools};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The embedded database's file in the data folder.
pub const FILE: &str = "agentry.sqlite";
/// The folders of plugins, in the data folder.
const ORIGINS: &str = "plugin-folders.json";

/// The two seams, as settings chose them.
pub struct Connections {
    /// Where everything is recorded.
    pub db: Arc<dyn Db>,
    /// Where deliveries come from.
    pub broker: Arc<dyn Broker>,
}

/// Open both. What does not answer yet is no error here: see [`prepare`].
pub async fn open(settings: &Settings, folder: &DataFolder, name: &str) -> Result<Connections, DaemonError> {
    let (db, broker): (Arc<dyn Db>, Arc<dyn Broker>) = match settings.services() {
        Services::Embedded => {
            let db = sqlite(&folder.path().join(FILE), &options(settings, name)?)?;
            let broker = EmbeddedBroker::open(&db, folder.path()).await.map_err(configuration)?;
            (Arc::new(db), Arc::new(broker))
        }
        Services::External { broker, .. } => {
            let options = amqp(settings, broker, name)?;
            let db = database(settings, folder.path(), name).await?;
            (db, Arc::new(AmqpBroker::start(options).map_err(configuration)?))
        }
    };
    #[cfg(feature = "failpoints")]
    let (db, broker) = (crate::failpoints::database(db), crate::failpoints::broker(broker));
    Ok(Connections { db, broker })
}

/// How to connect to the broker.
pub fn amqp(settings: &Settings, broker: &SecretUrl, name: &str) -> Result<AmqpOptions, DaemonError> {
    let address = broker.expose().parse::<AmqpAddress>().map_err(configuration)?;
    let mut options = AmqpOptions::new(address, &settings.broker.prefix, name);
    options.declare = settings.broker.declare;
    options.trust = settings.broker.trust.clone();
    Ok(options)
}

/// The broker that the settings name, to publish to: connected, and with nothing declared or consumed.
///
/// # Errors
/// Embedded settings, which name none; a broker that cannot be reached.
pub async fn publisher(settings: &Settings) -> Result<Arc<dyn Broker>, DaemonError> {
    let Services::External { broker, .. } = settings.services() else {
        return Err(DaemonError::Configuration("broker.url is missing".into()));
    };
    let options = amqp(settings, broker, &super::build::host_name())?;
    match AmqpBroker::connect(options).await {
        Ok(broker) => Ok(Arc::new(broker)),
        Err(BrokerError::Unavailable(why) | BrokerError::Refused(why)) => {
            Err(DaemonError::Configuration(format!("failed to connect to the broker: {why}")))
        }
    }
}

/// The database that the settings name; embedded, its file in the data folder.
pub async fn database(settings: &Settings, folder: &Path, name: &str) -> Result<Arc<dyn Db>, DbError> {
    let options = options(settings, name)?;
    Ok(match settings.services() {
        Services::Embedded => Arc::new(sqlite(&folder.join(FILE), &options)?),
        Services::External { database, .. } => Arc::new(PostgresDb::connect(database.expose(), &options)?),
    })
}

/// An embedded database in a file of its own.
pub fn file(settings: &Settings, file: &Path) -> Result<Arc<dyn Db>, DbError> {
    Ok(Arc::new(sqlite(file, &options(settings, &super::build::host_name())?)?))
}

/// An embedded database. Its file is made for this user alone if it is missing; SQLite gives its other files the same mode.
fn sqlite(file: &Path, options: &DbOptions) -> Result<SqliteDb, DbError> {
    let db = SqliteDb::connect(file, options)?;
    // One that exists is left as it is. What else prevents this is reported by the first operation, in SQLite's words.
    let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    Ok(db)
}

/// How to connect to the database.
pub fn options(settings: &Settings, name: &str) -> Result<DbOptions, DbError> {
    Ok(DbOptions {
        max_connections: settings.database.pool,
        timeout: settings.database.timeout,
        schema: settings.database.schema.parse()?,
        name: name.to_owned(),
    })
}

/// How the registry is to work; `slots` sizes the sandbox's pool, and `source_lines` are for an author's eyes.
pub fn registry(
    settings: &Settings,
    cache: Option<PathBuf>,
    slots: u32,
    source_lines: bool,
    reach: Reach,
) -> Result<RegistryConfig, DaemonError> {
    let defaults = limits(&settings.limits.default);
    let max = Ceilings {
        message_kib: settings.limits.message_kib,
        component_mib: settings.limits.component_mib,
        compile_seconds: settings.limits.compile_seconds,
        compile_memory_mib: settings.limits.compile_memory_mib,
        ..Ceilings::default()
    }
    .with(limits(&settings.limits.max));
    let compiler =
        Compiler::Child { program: super::again::program().map_err(configuration)?, arguments: vec!["compile".into()] };
    let sandbox = SandboxSettings { cache_dir: cache, slots, compile_concurrency: 2, compiler, source_lines };
    Ok(RegistryConfig {
        dirs: settings.plugins.dirs.clone(),
        mutable: settings.plugins.mutable,
        sandbox: registry::sandbox(sandbox, &defaults, &max).map_err(failed)?,
        defaults,
        max,
        retry: settings.retry.policy.clone(),
        policies: policies(settings)?,
        calls: settings.calls.clone(),
        reach,
        origins: Some(settings.data.dir.join(ORIGINS)),
    })
}

/// Whether a daemon would start with these settings, as far as that can be said without connecting to anything.
///
/// # Errors
/// What is wrong, where, and the remedy.
pub fn check(settings: &Settings) -> Result<(), DaemonError> {
    reach(settings, None)?;
    if let Some(tls) = &settings.api.tls {
        api::Certificate::load(&tls.certificate, &tls.key).map_err(failed)?;
    }
    api::Tokens::load(settings.api.tokens_file.as_deref()).map_err(failed)?;
    policies(settings).map(drop)
}

/// What is behind the grants. Nothing is connected to and nothing is started before a plugin asks.
pub fn reach(settings: &Settings, db: Option<Arc<dyn Db>>) -> Result<Reach, DaemonError> {
    let outside = &settings.outside;
    let supervisor = Supervisor {
        program: super::again::program().map_err(configuration)?,
        arguments: vec!["tool-server".into(), "--".into()],
    };
    Ok(Reach {
        egress: Some(Egress::new(outside.http.clone()).map_err(configuration)?),
        secrets: Arc::new(outside.secrets.iter().map(|s| (s.plugins.clone(), s.header.clone())).collect()),
        llm: Some(Llm::new(outside.llm.clone()).map_err(configuration)?),
        tools: Some(Tools::supervised(outside.tools.clone(), &supervisor).map_err(configuration)?),
        config: Arc::new(outside.config.clone()),
        folders: Arc::new(outside.folders.clone()),
        db,
    })
}

/// Until both answer: the schema fits, the former owner's lease is over, the topology stands.
pub async fn prepare(
    settings: &Settings,
    db: &dyn Db,
    broker: &dyn Broker,
    folder: &DataFolder,
    readiness: &Readiness,
) -> Result<(), DaemonError> {
    until_answered(readiness, "check the connection to the database", || db.check_service()).await?;
    if settings.database.migrate {
        let migrated = until_answered(readiness, "bring the schema up to date", || db.migrate()).await?;
        if migrated.from != migrated.to {
            tracing::info!(from = migrated.from, to = migrated.to, "schema brought up to date");
        }
    }
    until_answered(readiness, "check the schema", || db.check_schema()).await?;
    // Before anybody may take over what it is about.
    let replay = || worker::spool::replay(db, folder.path().join("spool"));
    let replayed = until_answered(readiness, "record what the former owner spooled", replay).await?;
    if replayed > 0 {
        tracing::info!(replayed, "results of the data folder's former owner recorded");
    }
    if let Some(former) = folder.former() {
        // This process has the data folder's lock: its former owner is dead, however long its lease still runs.
        until_answered(readiness, "end the former owner's lease", || db.end_lease(former)).await?;
    }
    let mut pause = Duration::from_millis(100);
    loop {
        match broker.declare(&settings.broker.queues).await {
            Ok(()) => return Ok(()),
            Err(BrokerError::Unavailable(why)) => waiting(readiness, "broker", &why, &mut pause).await,
            Err(BrokerError::Refused(why)) => return Err(DaemonError::Configuration(why)),
        }
    }
}

/// Call the database until it answers, or says what cannot mend itself.
pub async fn until_answered<T, F>(readiness: &Readiness, what: &str, call: impl Fn() -> F) -> Result<T, DaemonError>
where
    F: Future<Output = Result<T, DbError>>,
{
    let mut pause = Duration::from_millis(100);
    loop {
        match call().await {
            Err(DbError::Unavailable(why) | DbError::TimedOut(why)) => {
                waiting(readiness, "database", &format!("failed to {what}: {why}"), &mut pause).await;
            }
            answer => return Ok(answer?),
        }
    }
}

async fn waiting(readiness: &Readiness, code: &'static str, why: &str, pause: &mut Duration) {
    tracing::warn!("waiting for the {code}: {why}");
    readiness.not(code, why);
    tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
    *pause = (*pause * 2).min(Duration::from_secs(5));
}

/// How much less urgent guests are than the host's own work: however much they compute, leases are renewed, ends recorded and
/// others' tasks taken in.
const LESS_URGENT: i32 = 5;

/// The runtime on which guests run: as many threads as cores, apart from the host's own, so that the kernel can tell the two
/// apart. However the daemon ends, it waits for none of them: what is not interrupted by then is
/// delivered again.
pub struct Guests {
    /// Where guests are spawned.
    pub handle: tokio::runtime::Handle,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Guests {
    /// Starts its threads.
    pub fn start() -> std::io::Result<Guests> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("guests")
            .on_thread_start(|| {
                // A priority is a thread's own on Linux alone. A system that refuses it runs guests as urgently as the rest.
                if cfg!(target_os = "linux") {
                    let _ = rustix::process::nice(LESS_URGENT);
                }
            })
            .enable_all()
            .build()?;
        Ok(Guests { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Guests {
    /// A runtime that is dropped where others run asynchronously panics, since it waits for its threads.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn limits(set: &LimitSet) -> LimitSettings {
    // Both are made from tables of the same names; a test holds them together.
    let mut wishes = LimitWishes::default();
    for (name, value) in set.numbers() {
        wishes.set(name, value);
    }
    LimitSettings::default().with(&wishes)
}
