//! `agentry up`.

use super::{Failed, settings};
use crate::config::{FlagValue, Log, LogFormat, Settings};
use crate::daemon::{self, isolation::Again};
use crate::telemetry::Telemetry;
use std::path::{Path, PathBuf};

/// The daemon. Without broker and database it works alone, on a SQLite file and a durable queue of its own.
#[derive(clap::Args)]
pub struct Up {
    /// RabbitMQ, as amqp://… or amqps://…; a password in a flag is seen by every user of the machine.
    #[arg(long, value_name = "URL")]
    broker_url: Option<String>,
    /// Postgres, as postgres://….
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Check the schema, and do not change it.
    #[arg(long)]
    no_migrate: bool,
    /// Where this process keeps what is its own.
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// A folder with plugins; may be repeated.
    #[arg(long, value_name = "FOLDER")]
    plugins: Vec<String>,
    /// Address of the API; port 0 picks one.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// A logical queue to consume; may be repeated.
    #[arg(long, value_name = "NAME")]
    queue: Vec<String>,
    /// Guests that may be in memory at once.
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
}

impl Up {
    fn flags(&self) -> Vec<FlagValue> {
        let one = |key, flag, value: &Option<String>| FlagValue { key, flag, values: value.iter().cloned().collect() };
        vec![
            one("broker.url", "--broker-url", &self.broker_url),
            one("database.url", "--database-url", &self.database_url),
            one("database.migrate", "--no-migrate", &self.no_migrate.then(|| "false".into())),
            one("data.dir", "--data-dir", &self.data_dir),
            FlagValue { key: "plugins.dir", flag: "--plugins", values: self.plugins.clone() },
            one("api.listen", "--listen", &self.listen),
            FlagValue { key: "broker.queues", flag: "--queue", values: self.queue.clone() },
            one("worker.slots", "--slots", &self.slots.map(|n| n.to_string())),
        ]
    }

    /// The command that this process starts for a task in the isolation lane: the same settings, from the same places.
    /// Addresses may hold passwords, so they go into the environment and never into an argument list.
    fn again(&self, file: Option<&Path>) -> Again {
        let mut again = Again::default();
        if let Some(file) = file {
            again.arguments.extend(["--config".into(), file.into()]);
        }
        again.arguments.push("isolate".into());
        for FlagValue { key, flag, values } in self.flags() {
            match key {
                "broker.url" | "database.url" => {
                    let name = format!("AGENTRY_{}", key.replace('.', "_").to_uppercase());
                    again.environment.extend(values.into_iter().map(|value| (name.clone(), value)));
                }
                "database.migrate" => {}
                _ => again.arguments.extend(values.into_iter().map(|value| format!("{flag}={value}").into())),
            }
        }
        again
    }

    /// The settings of this command line.
    pub(super) fn settings(&self, file: Option<PathBuf>) -> Result<Settings, Failed> {
        settings(file, self.flags())
    }

    pub fn run(self, file: Option<PathBuf>) -> Result<(), Failed> {
        let again = self.again(file.as_deref());
        let settings = settings(file, self.flags())?;
        let Log { level, directives, format } = &settings.log;
        let _log = Telemetry::start(level, directives.as_deref(), *format == LogFormat::Json).map_err(Failed::usage)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("host")
            .enable_all()
            .build()
            .map_err(|e| Failed::usage(format!("failed to start the runtime: {e}")))?;
        let ended = runtime.block_on(daemon::run(settings, again));
        runtime.shutdown_timeout(std::time::Duration::from_secs(2));
        ended.map_err(|error| Failed { code: error.exit_code(), message: error.to_string() })
    }
}
