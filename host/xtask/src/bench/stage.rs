//! What all rows need: services that sync to disk, release builds, and programs that print one line of JSON.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::process::{self, Guarded, Terms};
use crate::services::{Found, Services};
use crate::workspace::{self, Artifact};
use crate::{guests, signals, talk};

/// The programs that are built in release mode.
const PROGRAMS: [&str; 4] = ["agentry", "bare-loop", "bench-tool", "fresh_run"];

/// Everything that is set up once.
pub struct Stage {
    /// RabbitMQ and PostgreSQL of this run.
    pub services: Services,
    /// Python with Dramatiq, or why there is none.
    pub dramatiq: Result<PathBuf, String>,
    /// Where files of this run are.
    pub folder: tempfile::TempDir,
    programs: Vec<PathBuf>,
    databases: AtomicU32,
}

impl Stage {
    /// Builds, installs and starts.
    pub fn set(found: &Found) -> anyhow::Result<Self> {
        let target = workspace::Workspace::read()?.target;
        let components = || guests::build(&[], guests::Pace::Full);
        talk::phase("plugins", "building for the sandbox", components, |built| format!("{} components", built.len()))?;
        let folder = tempfile::Builder::new().prefix("agentry-bench-").tempdir().context("failed to make a folder")?;
        let what = "the daemon, the bare loop and the tools, in release mode";
        let programs =
            talk::phase("build", what, || build(folder.path()), |built| format!("{} programs", built.len()))?;
        let dramatiq = talk::phase(
            "dramatiq",
            "an environment with Dramatiq",
            || Ok(install_dramatiq(&target)),
            |made| made.as_ref().map_or_else(|why| format!("not to be had: {why}"), |path| path.display().to_string()),
        )?;
        let services = talk::phase(
            "services",
            "starting, with fsync",
            || found.start_synced(),
            |services| services.description.clone(),
        )?;
        Ok(Self { services, dramatiq, folder, programs, databases: AtomicU32::new(0) })
    }

    /// A program of this run.
    pub fn program(&self, name: &str) -> anyhow::Result<&Path> {
        let found = self.programs.iter().find(|path| path.file_name() == Some(OsStr::new(name)));
        found.map(PathBuf::as_path).with_context(|| format!("failed to find the program {name}"))
    }

    /// A command that runs one of them, with the addresses of the services.
    pub fn command(&self, name: &str, database: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(self.program(name)?);
        command.current_dir(self.folder.path());
        self.addresses(&mut command, database);
        Ok(command)
    }

    /// Where the services are, in the environment: arguments are visible to every user.
    pub fn addresses(&self, command: &mut Command, database: &str) {
        command.env("BENCH_AMQP", &self.services.amqp_url).env("BENCH_DATABASE", self.database_url(database));
    }

    /// The address of a database of this run.
    pub fn database_url(&self, name: &str) -> String {
        let server = &self.services.postgres_url;
        server.rsplit_once('/').map_or_else(|| server.clone(), |(server, _)| format!("{server}/{name}"))
    }

    /// A new, empty database; its name is also the prefix of names in the broker.
    pub fn database(&self) -> anyhow::Result<String> {
        let name = format!("bench_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.tool("postgres", &["create", &name])?;
        Ok(name)
    }

    /// Removes a database.
    pub fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        self.tool("postgres", &["drop", name]).map(drop)
    }

    /// Runs `bench-tool` on a database and returns what it printed.
    pub fn tool(&self, database: &str, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = self.command("bench-tool", database)?;
        command.args(arguments);
        let result = json(&command, Duration::from_secs(300))?;
        result.with_context(|| format!("bench-tool {} did not end in time", arguments.join(" ")))
    }

    /// A folder of plugins with one of this checkout's.
    pub fn plugins(&self, from: &str) -> anyhow::Result<PathBuf> {
        let source = workspace::root().join(from);
        let name = source.file_name().context("a plugin's folder has no name")?.to_owned();
        let folder = self.folder.path().join(format!("plugins-{}", name.to_string_lossy()));
        let to = folder.join(&name);
        std::fs::create_dir_all(&to).with_context(|| format!("failed to make {}", to.display()))?;
        for entry in std::fs::read_dir(&source).with_context(|| format!("failed to read {}", source.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "wasm" || extension == "toml")
                && let Some(file) = path.file_name()
                && file != "Cargo.toml"
            {
                std::fs::copy(&path, to.join(file)).with_context(|| format!("failed to copy {}", path.display()))?;
            }
        }
        Ok(folder)
    }
}

/// Runs a command to its end and returns the last line of JSON that it printed; `None` if it did not end in time, and then it
/// is ended.
pub fn json(command: &Command, patience: Duration) -> anyhow::Result<Option<Value>> {
    let output = tempfile::NamedTempFile::new().context("failed to make a file")?;
    let errors = tempfile::NamedTempFile::new().context("failed to make a file")?;
    let open = |file: &tempfile::NamedTempFile| file.reopen().context("failed to open a file");
    let mut running = Guarded::start(command, &Terms::default(), open(&output)?.into(), open(&errors)?.into())?;
    let program = command.get_program().to_string_lossy().into_owned();
    let deadline = Instant::now() + patience;
    let status = loop {
        signals::check()?;
        if let Some(status) = running.ended().context("failed to wait for a program")? {
            break status;
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let read = |file: &tempfile::NamedTempFile| std::fs::read_to_string(file.path()).context("failed to read a file");
    let (output, errors) = (read(&output)?, read(&errors)?);
    if !status.success() {
        bail!("failed to run {program} ({status}): {}", errors.trim());
    }
    // One document over several lines, or one line each.
    let parsed = serde_json::from_str(output.trim()).or_else(|_| {
        let last = output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        serde_json::from_str(last)
    });
    parsed.map(Some).with_context(|| format!("failed to read what {program} printed: {output}"))
}

/// Builds everything in release mode with one command, and copies it: another build must not replace what is measured.
fn build(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut command = workspace::cargo(&["build", "--release", "--message-format=json-render-diagnostics"]);
    command.args(["--package=agentry", "--package=bench", "--package=agentry-sandbox"]);
    command.args(["--bin=agentry", "--bin=bare-loop", "--bin=bench-tool", "--example=fresh_run"]);
    if !talk::watched() {
        command.arg("--quiet");
    }
    let mut built = Vec::new();
    let status = process::read(&command, &Terms::default(), process::Read::Stdout, |line| {
        if let Some(Artifact { target, executable: Some(path), .. }) =
            std::str::from_utf8(line).ok().and_then(Artifact::parse)
        {
            built.push((target, path));
        }
    })?;
    if !status.success() {
        bail!("failed to build ({status}), see above");
    }
    let place = |name: &&str| -> anyhow::Result<PathBuf> {
        let found = built.iter().find(|(target, _)| target == name);
        let (_, path) = found.with_context(|| format!("failed to find where cargo put {name}"))?;
        let to = folder.join(name);
        std::fs::copy(path, &to).with_context(|| format!("failed to copy {}", path.display()))?;
        Ok(to)
    };
    PROGRAMS.iter().map(place).collect()
}

/// Makes the environment of Dramatiq, once per list of requirements. Returns its Python, or why there is none.
fn install_dramatiq(target: &Path) -> Result<PathBuf, String> {
    let list = workspace::root().join("tests/bench/dramatiq/requirements.txt");
    let bytes = std::fs::read(&list).map_err(|error| format!("failed to read {}: {error}", list.display()))?;
    let key = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &bytes).simple().to_string();
    let environment = target.join("peers").join(format!("dramatiq-{key}"));
    let (python, whole) = (environment.join("bin/python"), environment.join("whole"));
    if whole.is_file() {
        return Ok(python);
    }
    let parent = environment.parent().unwrap_or(target);
    std::fs::create_dir_all(parent).map_err(|error| format!("failed to make {}: {error}", parent.display()))?;
    quietly(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment), "python3 -m venv")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--only-binary=:all:", "--disable-pip-version-check", "--requirement"]);
    quietly(pip.arg(&list), "pip install dramatiq")?;
    std::fs::write(&whole, key).map_err(|error| format!("failed to write {}: {error}", whole.display()))?;
    Ok(python)
}

fn quietly(command: &mut Command, what: &str) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(format!("{what}: {}: {last}", output.status))
}
