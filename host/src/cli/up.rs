//! `agentry up`.

use super::{Failed, load, sources};
use crate::config::{FlagValue, Log, LogFormat, Settings, Sources};
use crate::daemon::{self, isolation::Again};
use crate::telemetry::Telemetry;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How long running tasks may go on after the end of standard input, with `--while-stdin`.
const LAST_TASKS: Duration = Duration::from_secs(2);

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
    /// End when standard input does: for a program that started this one, and that this one must not outlive.
    #[arg(long, hide = true)]
    while_stdin: bool,
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
    /// Addresses may hold passwords, so they are given as variables and never in an argument list.
    fn again(&self, sources: &Sources, settings: &Settings) -> Again {
        let mut again = Again { arguments: Vec::new(), variables: settings.variables_of(&sources.env) };
        if let Some(file) = &sources.file {
            again.arguments.extend(["--config".into(), file.into()]);
        }
        again.arguments.push("isolate".into());
        for FlagValue { key, flag, values } in self.flags() {
            match key {
                "broker.url" | "database.url" => {
                    let name = format!("AGENTRY_{}", key.replace('.', "_").to_uppercase());
                    for value in values {
                        again.variables.retain(|(known, _)| *known != name);
                        again.variables.push((name.clone(), value));
                    }
                }
                "database.migrate" => {}
                _ => again.arguments.extend(values.into_iter().map(|value| format!("{flag}={value}").into())),
            }
        }
        again
    }

    /// The settings of this command line, with variables that a daemon gave.
    pub(super) fn settings_with(
        &self,
        file: Option<PathBuf>,
        variables: Vec<(OsString, OsString)>,
    ) -> Result<Settings, Failed> {
        load(&Sources { env: variables, ..sources(file, self.flags())? })
    }

    /// Runs the daemon; `readable` is the warning of a process that is open to others.
    pub fn run(self, file: Option<PathBuf>, readable: Option<String>) -> Result<(), Failed> {
        let sources = sources(file, self.flags())?;
        let mut settings = load(&sources)?;
        let again = self.again(&sources, &settings);
        settings.warnings.extend(readable);
        let Log { level, directives, format, .. } = &settings.log;
        let _log = Telemetry::start(level, directives.as_deref(), *format == LogFormat::Json).map_err(Failed::usage)?;
        if self.while_stdin {
            end_with_stdin();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("host")
            .enable_all()
            .build()
            .map_err(|e| Failed::usage(format!("failed to start the runtime: {e}")))?;
        let ended = runtime.block_on(daemon::run(settings, again));
        runtime.shutdown_timeout(daemon::LAST);
        ended.map_err(|error| Failed { code: error.exit_code(), message: error.to_string() })
    }
}

/// Ends this process once standard input ends: the process at the other side has ended, in whatever way.
fn end_with_stdin() {
    std::thread::spawn(|| {
        // An error is an end, too.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let own = rustix::process::getpid();
        // The first signal lets running tasks end, the second does not.
        let _ = rustix::process::kill_process(own, rustix::process::Signal::TERM);
        std::thread::sleep(LAST_TASKS);
        let _ = rustix::process::kill_process(own, rustix::process::Signal::TERM);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        up: Up,
    }

    #[test]
    fn a_child_of_the_lane_is_given_the_variables_of_its_settings_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agentry.toml");
        let provider = "[llm.providers.one]\nkind = \"openai\"\nkey = \"${LLM_KEY}\"\n";
        std::fs::write(&file, provider).unwrap();
        let line =
            Line::try_parse_from(["up", "--slots", "3", "--database-url", "postgres://u:flag@localhost/d"]).unwrap();
        let env = [
            ("AGENTRY_BROKER_URL", "amqp://u:p@localhost"),
            ("AGENTRY_DATABASE_URL", "postgres://u:p@localhost/d"),
            ("AGENTRY_TOKEN", "of a client"),
            ("CLOUD_KEY", "of another program"),
            ("LLM_KEY", "of a provider"),
            ("PATH", "/bin"),
        ];
        let env = env.map(|(name, value)| (name.into(), value.into())).into();
        let sources = Sources { env, ..sources(Some(file.clone()), line.up.flags()).unwrap() };
        let again = line.up.again(&sources, &load(&sources).unwrap());
        let given = [
            ("AGENTRY_BROKER_URL", "amqp://u:p@localhost"),
            ("LLM_KEY", "of a provider"),
            ("AGENTRY_DATABASE_URL", "postgres://u:flag@localhost/d"),
        ];
        assert_eq!(again.variables, given.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(again.arguments, ["--config".into(), file.into_os_string(), "isolate".into(), "--slots=3".into()]);
    }
}
