//! `cargo xtask chaos`: builds what it takes and starts the driver (`tests/e2e/src/chaos`), which starts a broker and a
//! database of its own, since it kills them.

use std::process::Command;

use crate::process::{self, Terms};
use crate::services::{self, Found};
use crate::test::hold;
use crate::workspace::{self, Workspace};
use crate::{Ending, guests, host, talk};

#[derive(clap::Args)]
pub struct Args {
    /// How long faults happen. A run of ten minutes can count; a shorter one shows less.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// Repeats the faults of the run that had this seed; without it, another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Tasks a second.
    #[arg(long, default_value_t = 110, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// No faults: run so many --tasks and tell whether memory, open files and dead tuples grow.
    #[arg(long, conflicts_with_all = ["minutes", "seed"])]
    soak: bool,
    /// For --soak.
    #[arg(long, requires = "soak", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    tasks: u64,
    #[command(flatten)]
    generation: services::Generation,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let found = match services::find_generation(&args.generation, false) {
        Ok(Ok(found)) => Some(found),
        Ok(Err(reason)) => return Err(Ending::Unprepared(reason).into()),
        Err(_) => None, // nothing is installed
    };
    let Some(found) = found.filter(Found::is_installed) else {
        let text = "chaos kills and restarts RabbitMQ and PostgreSQL, so both must be installed, not in Docker:\n  \
                    apt-get install postgresql rabbitmq-server        (as root, on Debian or Ubuntu)";
        return Err(Ending::Unprepared(text.to_owned()).into());
    };
    let workspace = Workspace::read()?;
    let components = || guests::build(&[], guests::Pace::Full);
    talk::phase("plugins", "building for the sandbox", components, |built| format!("{} components", built.len()))?;
    let build = |name: &'static str| move || host::build(name);
    let binary = talk::phase("build", "the daemon", build(host::BINARY), |binary| binary.display().to_string())?;
    let faulty = || host::build_with(host::FAULTY, &["agentry/failpoints"]);
    let faulty = talk::phase("build", "the daemon with a ledger", faulty, |binary| binary.display().to_string())?;
    let driver = talk::phase("build", "the driver", build("chaos"), |driver| driver.display().to_string())?;

    let (folder, [binary, faulty]) = hold(&[&binary, &faulty], &workspace.target)?;
    let mut command = Command::new(driver);
    command.current_dir(workspace::root());
    if args.soak {
        command.arg("soak").arg(args.tasks.to_string());
    } else {
        let seed = args
            .seed
            .unwrap_or_else(|| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8) % 1_000_000);
        println!("chaos: {} minutes, seed {seed}", args.minutes);
        command.arg("faults").arg((args.minutes * 60).to_string()).arg(seed.to_string());
    }
    command.arg(args.rate.to_string());
    command.env("AGENTRY_TEST_BIN", binary).env("AGENTRY_TEST_FAULTY_BIN", faulty).env("TMPDIR", &folder);
    command.envs(found.roots());
    command.env("AGENTRY_TEST_PLUGINS", workspace::root().join("plugins"));
    command.env("AGENTRY_TEST_GUESTS", workspace::root().join("tests/guests"));
    let status = process::run_on(&command, &Terms { remove: vec![folder], ..Terms::default() })?;
    if status.success() { Ok(()) } else { Err(Ending::Failed.into()) }
}
