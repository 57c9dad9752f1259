//! A daemon that has nothing to do, the size of its program, and the way from a clone to the demo.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use super::daemon::Setup;
use super::row::Row;
use super::stage::Stage;
use crate::{process, release, talk, workspace};

/// How long a daemon is left alone before it is measured, and while it is.
const SETTLE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(20);
const MIB: f64 = 1_048_576.0;

/// Processor time and memory of a daemon without tasks.
pub fn idle(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let database = stage.database()?;
    let setup = Setup::new(stage, &database, "one", &stage.plugins("plugins/word-count")?)?;
    setup.start()?; // compiles, which a later start does not
    let daemon = setup.start()?;
    std::thread::sleep(SETTLE);
    let (before, begun) = (daemon.cpu()?, Instant::now());
    std::thread::sleep(IDLE);
    let share = (daemon.cpu()? - before) / begun.elapsed().as_secs_f64() * 100.0;
    let resident = daemon.resident()?;
    drop(daemon);
    stage.drop_database(&database)?;
    Ok(vec![Row::new(
        "at rest, over 20 s",
        "≤ 0.5 % of a core, ≤ 64 MiB resident",
        format!("{share:.2} % of a core, {resident:.0} MiB resident"),
        share <= 0.5 && resident <= 64.0,
        json!({"percent_of_a_core": share, "resident_mib": resident}),
    )])
}

/// The size of the release binary, as `cargo xtask release` splits it.
pub fn binary(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let binary = stage.program("agentry")?;
    let size =
        |path: &std::path::Path| std::fs::metadata(path).map(|meta| meta.len() as f64).context("failed to read a size");
    let folder = stage.folder.path().join("dist"); // not where the program itself may be
    std::fs::create_dir_all(&folder).context("failed to make a folder")?;
    let [program, debug] = release::split(binary, &folder)?;
    let (whole, bare, beside) = (size(binary)?, size(&program)?, size(&debug)?);
    Ok(vec![Row::new(
        "the release binary",
        "≤ 60 MB, its debug information in a file beside it",
        format!("{:.0} MB, beside it {:.0} MB; as built {:.0} MB", bare / 1e6, beside / 1e6, whole / 1e6),
        bare <= 60e6,
        json!({"bytes": bare, "debug_bytes": beside, "as_built_bytes": whole}),
    )])
}

/// From a fresh clone to the demo's end.
pub fn cold() -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::Builder::new().prefix("agentry-cold-").tempdir().context("failed to make a folder")?;
    let clone = folder.path().join("clone");
    let mut command = Command::new("git");
    command.args(["clone", "--quiet"]).arg(workspace::root()).arg(&clone);
    let begun = Instant::now();
    if !process::run(&command)?.success() {
        bail!("failed to clone");
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(&clone).args(["xtask", "demo"]).env("CARGO_TARGET_DIR", folder.path().join("target"));
    command.env_remove("CARGO_MANIFEST_DIR");
    let mut last = String::new();
    let status = process::read(&command, &process::Terms::default(), process::Read::Both, |line| {
        last = String::from_utf8_lossy(line).trim().to_owned();
    })?;
    let took = begun.elapsed();
    if !status.success() {
        bail!("the demo failed ({status}): {last}");
    }
    let goal = "≤ 287 s (two thirds of 430 s)";
    let measured = talk::seconds(took).to_string();
    let holds = took.as_secs_f64() <= 287.0;
    let figures = json!({"seconds": took.as_secs_f64(), "mib": folder_size(folder.path()) / MIB});
    Ok(vec![Row::new("from a fresh clone to the demo's end", goal, measured, holds, figures)])
}

/// Bytes below a folder.
fn folder_size(folder: &std::path::Path) -> f64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => folder_size(&entry.path()),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0.0, |meta| meta.len() as f64),
        _ => 0.0,
    };
    entries.map(size).sum()
}
