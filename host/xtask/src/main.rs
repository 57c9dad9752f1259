//! `cargo xtask`: what a person types.
//!
//! ```text
//! main ─▶ demo ─▶ guests, host, services
//!      ├▶ bench ─▶ guests, services (and the programs in tests/bench)
//!      ├▶ chaos ─▶ guests, host (and the driver in tests/e2e)
//!      └▶ test ─▶ lint, deny, guests, host ─▶ process ─▶ guard (a child of its own, which cleans up)
//!           └───▶ services ─▶ postgres, rabbitmq | docker ─▶ process
//! ```
//!
//! Whatever a command starts, it starts through [`process`]: a guard stands between, and ends it when this program
//! ends, in whichever way.

#![allow(clippy::print_stdout, reason = "everything this program prints is for the person who typed the command")]

mod bench;
mod chaos;
mod demo;
mod deny;
mod guard;
mod guests;
mod host;
mod lint;
mod process;
mod release;
mod services;
mod signals;
mod talk;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_version_flag = true, max_term_width = 100)]
enum Command {
    /// See it work: hundreds of documents and some hostile guests, with a kill in the middle.
    Demo(demo::Args),
    /// Run every test, against a private RabbitMQ and PostgreSQL that are started for it and removed after it.
    Test(test::Args),
    /// Let three daemons work under load while everything fails at random, and prove that nothing is lost or doubled.
    Chaos(chaos::Args),
    /// Measure the goals for speed beside Dramatiq and a bare loop over the same parts, and draw host/bench.svg.
    Bench(bench::Args),
    /// Build the daemon for installation: small, with its debug information in a file beside it.
    Release,
    /// Check formatting and lints of the whole workspace.
    Lint,
    /// Build the example plugins and the test guests, and put each component beside its plugin.toml.
    Plugins(guests::Args),
    /// A RabbitMQ and a PostgreSQL for a person who develops.
    #[command(subcommand)]
    Services(services::developer::Command),
    #[command(hide = true)]
    Guard(guard::Args),
}

/// What ended a command, where that decides more than "it failed".
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// The machine lacks something; the text says what to install.
    Unprepared(String),
    /// Tests or lints failed and said so already.
    Failed,
    /// This signal arrived.
    Interrupted(i32),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unprepared(what) => f.write_str(what),
            Self::Failed => f.write_str("it failed, see above"),
            Self::Interrupted(signal) => write!(f, "interrupted by signal {signal}; everything is cleaned up"),
        }
    }
}

impl std::error::Error for Ending {}

impl Ending {
    /// 1 failed, 2 the machine is not prepared, 128 + n ended by signal n, as shells count.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Unprepared(_) => 2,
            Self::Failed => 1,
            Self::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(1),
        }
    }
}

fn main() -> ExitCode {
    let command = match Command::parse() {
        Command::Guard(args) => return guard::run(args),
        command => command,
    };
    let done = signals::catch().and_then(|()| match command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Release => release::run(),
        Command::Lint => lint::run(),
        Command::Plugins(args) => guests::run(&args),
        Command::Services(command) => services::developer::run(&command),
        Command::Guard(_) => Ok(()), // returned above: a guard must not catch signals as the others do
    });
    // A program that a signal ended fails in its own words; the signal is the truth.
    let done = signals::check().map_err(Into::into).and(done);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let ending = error.downcast_ref::<Ending>();
            if ending != Some(&Ending::Failed) {
                eprintln!("error: {error:#}");
            }
            ExitCode::from(ending.map_or(1, Ending::exit_code))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Command::command().debug_assert();
    }

    #[test]
    fn exit_codes_tell_the_endings_apart() {
        assert_eq!(Ending::Failed.exit_code(), 1);
        assert_eq!(Ending::Unprepared(String::new()).exit_code(), 2);
        assert_eq!(Ending::Interrupted(2).exit_code(), 130);
        assert_eq!(Ending::Interrupted(15).exit_code(), 143);
    }
}
