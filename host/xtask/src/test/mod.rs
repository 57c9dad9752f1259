//! `cargo xtask test`: everything that the tests need, the tests, and a line that says how they went.

mod needs;
pub mod peers;
mod previous;
mod tally;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use self::peers::Peers;
use self::tally::Tally;
use crate::process::{self, Read, Terms};
use crate::services::{self, Found, Generation, Services};
use crate::workspace::{self, Workspace};
use crate::{Ending, deny, guests, host, lint, talk};

#[derive(clap::Args)]
pub struct Args {
    /// Also run what takes long (tests marked `#[ignore]`, and more rounds of others), after the lints.
    #[arg(long)]
    full: bool,
    /// As root on Debian: install PostgreSQL and RabbitMQ if they are missing.
    #[arg(long)]
    install: bool,
    #[command(flatten)]
    generation: services::Generation,
    /// Run only tests whose name contains one of these.
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// For the test programs themselves, such as `--nocapture` or `--test-threads=1`.
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let found = services::find_named(&args.generation, args.install)?; // before minutes of building
    if args.full || std::env::var("CI").is_ok_and(|value| value == "true") {
        lint::run()?;
    }
    // With a filter only those tests are wanted.
    let unchecked = if args.filters.is_empty() { deny::run()? } else { 0 };
    let services = talk::phase("services", "starting", || found.start(), |services| services.description.clone())?;
    let workspace = Workspace::read()?;
    let components = || guests::build(&[], guests::Pace::Full);
    talk::phase("plugins", "building for the sandbox", components, |built| format!("{} components", built.len()))?;
    let previous = if args.full { previous::build(&workspace)? } else { None }; // first: it is built over today's
    let build = || host::build(host::BINARY);
    let binary = talk::phase("build", "the daemon", build, |binary| binary.display().to_string())?;
    let build = || host::build_with(host::FAULTY, &["agentry/failpoints"]);
    let faulty =
        talk::phase("build", "the daemon with faults on demand", build, |binary| binary.display().to_string())?;
    talk::phase("build", "the tests", || build_tests(&workspace), |()| "done".to_owned())?;
    let mut peers = peers::prepare(&workspace, &peers::wanted(&workspace, &args.filters, args.full)?)?;
    peers.skipped.extend(needs::lacking(&args.filters, args.install));
    let mut tally = Tally::default();
    let mut run = Run {
        args,
        workspace: &workspace,
        binaries: [&binary, &faulty],
        previous: previous.as_deref(),
        peers: &peers,
        only: Vec::new(),
    };
    let done = run.phase("running", &found, &services, &mut tally);
    drop(services);
    done?;
    if args.full && args.generation.is_installed() {
        run.only = newest_too(&peers::wanted(&workspace, &args.filters, true)?);
        run_on_newest(&run, &mut tally)?;
    }
    (0..unchecked).for_each(|_| tally.skip());
    for failure in tally.failures() {
        println!("failed: {failure}");
    }
    println!("{tally}");
    if tally.is_good() { Ok(()) } else { Err(Ending::Failed.into()) }
}

fn build_tests(workspace: &Workspace) -> anyhow::Result<()> {
    let mut command = workspace::cargo(&["test", "--no-run"]);
    command.args(workspace.native_selection());
    if !talk::watched() {
        command.arg("--quiet");
    }
    match process::run(&command)? {
        status if status.success() => Ok(()),
        status => bail!("failed to build the tests ({status}), see above"),
    }
}

/// One run of the tests.
struct Run<'a> {
    args: &'a Args,
    workspace: &'a Workspace,
    binaries: [&'a Path; 2],
    previous: Option<&'a Path>,
    peers: &'a Peers,
    /// These tests of the black box alone, by their whole names; empty: all.
    only: Vec<String>,
}

impl Run<'_> {
    fn phase(&self, what: &str, found: &Found, services: &Services, tally: &mut Tally) -> anyhow::Result<()> {
        let before = tally.programs();
        talk::phase(
            "tests",
            what,
            || run_tests(self, found, services, tally).map(|()| tally.programs()),
            |programs| format!("{} programs", programs - before),
        )
        .map(drop)
    }
}

/// Modules of the black box whose outcome depends on the versions of the services.
const VERSIONED: [&str; 6] =
    ["path::", "returned::", "broker_faults::", "database_faults::", "crash_matrix::", "chaos::"];

/// Those of the `tests` that `--full` runs against the newest services as well.
fn newest_too(tests: &[String]) -> Vec<String> {
    tests.iter().filter(|test| VERSIONED.iter().any(|module| test.starts_with(module))).cloned().collect()
}

fn run_on_newest(run: &Run<'_>, tally: &mut Tally) -> anyhow::Result<()> {
    if run.only.is_empty() {
        return Ok(());
    }
    match services::find_generation(&Generation::newest(), run.args.install)? {
        Ok(found) => {
            let start = || found.start();
            let services = talk::phase("services", "starting", start, |services| services.description.clone())?;
            run.phase("running on the newest services", &found, &services, tally)
        }
        Err(reason) => {
            // What does not run is not to read as passed.
            for test in &run.only {
                println!("skipped: {test} on the newest services: {reason}");
                tally.skip();
            }
            Ok(())
        }
    }
}

fn run_tests(run: &Run<'_>, found: &Found, services: &Services, tally: &mut Tally) -> anyhow::Result<()> {
    let Run { args, workspace, binaries, previous, peers, only } = run;
    let (folder, [binary, faulty]) = hold(binaries, &workspace.target)?;
    let root = workspace::root();
    let mut command = workspace::cargo(&["test", "--no-fail-fast"]);
    command.args(workspace.native_selection());
    if !only.is_empty() {
        command.args(["--test", "e2e"]);
    }
    command.args(["--color", if talk::watched() { "always" } else { "never" }, "--"]);
    if talk::watched() {
        command.arg("--color=always");
    }
    if args.full {
        command.arg("--include-ignored").env("AGENTRY_TEST_FULL", "1");
    }
    if only.is_empty() {
        if args.full && previous.is_none() {
            // Said by name where it was found missing. What does not run is not to read as passed.
            command.args(["--skip", previous::TEST]);
            tally.skip();
        }
        for test in &peers.skipped {
            command.args(["--skip", test]);
            tally.skip();
        }
        command.args(&args.filters);
    } else {
        command.arg("--exact").args(only);
    }
    command.args(&args.arguments);
    command.envs(services.env()).envs(found.roots());
    command.env("AGENTRY_TEST_BIN", binary);
    command.env("AGENTRY_TEST_FAULTY_BIN", faulty);
    if let Some(previous) = previous {
        command.env("AGENTRY_TEST_PREVIOUS_BIN", previous);
    }
    command.envs(peers.variables.iter().map(|(name, path)| (name, path)));
    // What a test leaves when it is killed goes with everything else.
    command.env("TMPDIR", &folder);
    command.env("AGENTRY_TEST_PLUGINS", root.join("plugins"));
    command.env("AGENTRY_TEST_GUESTS", root.join("tests/guests"));
    let terms = Terms { remove: vec![folder], ..Terms::default() };
    let status = process::read(&command, &terms, Read::Both, |line| {
        process::pass(line);
        tally.read(&String::from_utf8_lossy(line));
    })?;
    tally.finish(status.success());
    Ok(())
}

/// Keeps the binaries as they are for as long as the tests run: a build meanwhile would put another in the place of one between
/// a test's kill of the daemon and its restart. Answers with the folder to remove, and the binaries in it.
pub fn hold<const N: usize>(binaries: &[&Path; N], target: &Path) -> anyhow::Result<(PathBuf, [PathBuf; N])> {
    let folder = tempfile::Builder::new().prefix("xtask-test-").tempdir_in(target);
    let folder = folder.with_context(|| format!("failed to make a folder in {}", target.display()))?;
    let mut held = std::array::from_fn(|_| PathBuf::new());
    for (binary, held) in binaries.iter().zip(&mut held) {
        let name = binary.file_name().context("failed to read the name of the daemon's binary")?;
        *held = folder.path().join(name);
        let linked = std::fs::hard_link(binary, &*held).or_else(|_| std::fs::copy(binary, &*held).map(drop));
        linked.with_context(|| format!("failed to copy {}", binary.display()))?;
    }
    Ok((folder.keep(), held)) // from here on the guard of the tests removes it
}
