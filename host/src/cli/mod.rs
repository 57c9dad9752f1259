//! The command line: one file per command. Data goes to standard output, all else to standard error.
//!
//! Exit codes: 0 done (for `run` and `submit --wait`: completed) · 1 the task failed or was cancelled · 2 usage or
//! configuration · 3 the service could not be reached · 4 the schema does not fit · 5 drained dirtily.

mod address;
mod audit;
mod bench;
mod bodies;
mod brake;
mod bulk;
mod client;
mod compile;
mod config;
mod dead;
mod doctor;
/// Text from elsewhere on its way to a terminal.
pub mod escape;
mod examples;
mod explain;
mod follow;
mod generate;
#[cfg(test)]
mod help_tests;
mod host;
mod input;
mod isolate;
mod migrate;
mod output;
mod pace;
mod plugin;
mod prune;
mod queue;
mod run;
mod screen;
mod submit;
mod table;
mod task;
mod timeline;
mod tool_server;
mod up;
mod watch;

use crate::config::{FlagValue, Settings, Sources};
use crate::daemon;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs agents that teams ship as WebAssembly components, from a RabbitMQ queue, and records every step in Postgres.
#[derive(Parser)]
#[command(name = "agentry", version = daemon::BUILD, max_term_width = 110, propagate_version = true)]
struct Agentry {
    /// Settings file; otherwise AGENTRY_CONFIG, or ./agentry.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The daemon: takes tasks, runs them, serves the API.
    Up(up::Up),
    /// One attempt in a process of its own, for a daemon that started it.
    #[command(hide = true)]
    Isolate(isolate::Isolate),
    /// One component compiled in a process of its own, for one that started it.
    #[command(hide = true)]
    Compile(compile::Compile),
    /// One tool server beneath a process of its own, for one that started it.
    #[command(hide = true)]
    ToolServer(tool_server::ToolServer),
    /// One task, here and now: same sandbox, limits and grants; nothing needed around it.
    Run(run::Run),
    /// Hand a task to a daemon.
    Submit(submit::Submit),
    /// What became of tasks; and what is to become of them.
    #[command(subcommand)]
    Task(task::Task),
    /// Measure a daemon under load: throughput, latency and cost per task.
    Bench(Box<bench::Bench>),
    /// Which queues there are; pause and resume them.
    #[command(subcommand)]
    Queue(queue::Queue),
    /// Which plugins a daemon serves; disable and enable them.
    #[command(subcommand)]
    Plugin(plugin::Plugin),
    /// Which hosts share the database; drain them.
    #[command(subcommand)]
    Host(host::Host),
    /// Messages that could not be used.
    #[command(subcommand)]
    Dead(dead::Dead),
    /// Changes by operators, with who made them.
    Audit(audit::Audit),
    /// Forget what is past its time.
    Prune(prune::Prune),
    /// Bring the database's schema up to date.
    Migrate(migrate::Migrate),
    /// Check everything that a daemon needs, and name the remedy of what is wrong.
    Doctor(doctor::Doctor),
    /// The settings: check them, or show each with where it came from.
    #[command(subcommand)]
    Config(config::Config),
    /// Print completions for a shell.
    Completions(generate::Completions),
    /// Write manual pages, one for each command.
    Man(generate::Man),
    /// Print the OpenAPI document of the HTTP API; no daemon is needed.
    #[command(name = "openapi")]
    OpenApi(generate::OpenApi),
}

/// The daemon's address where none is given.
const DEFAULT_SERVER: &str = "http://127.0.0.1:7070";

/// Where a daemon is found.
#[derive(Args)]
struct Server {
    /// The daemon's address.
    #[arg(
        long,
        env = "AGENTRY_SERVER",
        hide_env_values = true,
        default_value = DEFAULT_SERVER,
        value_name = "URL"
    )]
    server: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Why a command did not do what it was asked, with its exit code.
#[derive(Debug)]
pub struct Failed {
    code: u8,
    message: String,
}

impl Failed {
    /// The task failed or was cancelled.
    fn task(message: impl fmt::Display) -> Failed {
        Failed { code: 1, message: message.to_string() }
    }
    /// Usage or configuration.
    fn usage(message: impl fmt::Display) -> Failed {
        Failed { code: 2, message: message.to_string() }
    }
    /// Whether the service could not be reached.
    fn is_unreachable(&self) -> bool {
        self.code == Failed::unreachable("").code
    }
    /// The service could not be reached.
    fn unreachable(message: impl fmt::Display) -> Failed {
        Failed { code: 3, message: message.to_string() }
    }
    /// The schema does not fit.
    fn schema(message: impl fmt::Display) -> Failed {
        Failed { code: 4, message: message.to_string() }
    }
}

/// Parse, do, and say how it went.
pub fn main() -> ExitCode {
    // One TLS stack, chosen once, before anything connects. A second call in one process would be harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let parsed = command().try_get_matches().and_then(|matches| Agentry::from_arg_matches(&matches));
    let Agentry { config, command } = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let error = error.format(&mut command());
            // Help and version are answers, on standard output; the rest are errors, and usage is 2.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    // A compiler has no secrets, and a supervisor only those of the server that it starts.
    let has_secrets = !matches!(command, Command::Compile(_) | Command::ToolServer(_));
    let readable = has_secrets.then(daemon::protect).flatten();
    // The daemon logs the warning, and its child does not repeat it.
    if let Some(warning) = &readable
        && !matches!(command, Command::Up(_) | Command::Isolate(_))
    {
        output::say(&format!("agentry: warning: {warning}"));
    }
    let done = match command {
        Command::Compile(compile) => return compile.run(),
        Command::ToolServer(server) => return server.run(),
        Command::Up(up) => up.run(config, readable),
        Command::Isolate(isolate) => isolate.run(config),
        Command::Run(run) => wait(run.run(config)),
        Command::Submit(submit) => wait(submit.run(config)),
        Command::Task(task) => wait(task.run(config)),
        Command::Bench(bench) => wait(bench.run(config)),
        Command::Queue(queue) => wait(queue.run()),
        Command::Plugin(plugin) => wait(plugin.run()),
        Command::Host(host) => wait(host.run()),
        Command::Dead(dead) => wait(dead.run()),
        Command::Audit(audit) => wait(audit.run()),
        Command::Prune(prune) => wait(prune.run(config)),
        Command::Migrate(migrate) => wait(migrate.run(config)),
        Command::Doctor(doctor) => wait(doctor.run(config)),
        Command::Config(command) => command.run(config),
        Command::Completions(shell) => shell.run(),
        Command::Man(man) => man.run(),
        Command::OpenApi(document) => document.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed { code, message }) => {
            if !message.is_empty() {
                output::say(&format!("agentry: {message}"));
            }
            ExitCode::from(code)
        }
    }
}

/// Clients need one thread.
fn wait(command: impl Future<Output = Result<(), Failed>>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failed::usage(format!("failed to start the runtime: {e}")))?;
    let done = runtime.block_on(command);
    // A look-up of a name that a dead resolver holds up is not waited for.
    runtime.shutdown_timeout(std::time::Duration::from_millis(100));
    done
}

/// Read the settings.
fn settings(file: Option<PathBuf>, flags: Vec<FlagValue>) -> Result<Settings, Failed> {
    load(&sources(file, flags)?)
}

/// Where the settings of this process come from.
fn sources(file: Option<PathBuf>, flags: Vec<FlagValue>) -> Result<Sources, Failed> {
    Sources::of_process(file, flags).map_err(Failed::usage)
}

fn load(sources: &Sources) -> Result<Settings, Failed> {
    Settings::load(sources).map_err(Failed::usage)
}

/// The whole command line, for tests of its help.
pub fn command() -> clap::Command {
    examples::added(Agentry::command())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
