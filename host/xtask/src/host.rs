//! Programs of the workspace, the daemon's above all.

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::process;
use crate::talk;
use crate::workspace::{self, Artifact, Workspace};

/// The daemon.
pub const BINARY: &str = "agentry";

/// The daemon with faults on demand, for tests.
pub const FAULTY: &str = "agentry-faulty";

/// Whether the daemon was ever built.
pub fn was_built() -> anyhow::Result<bool> {
    Ok(Workspace::read()?.target.join("debug").join(BINARY).exists())
}

/// Builds a program of the workspace, such as [`BINARY`], and says where it is.
pub fn build(name: &str) -> anyhow::Result<PathBuf> {
    build_with(name, &[])
}

/// The same with features of packages, `package/feature`.
pub fn build_with(name: &str, features: &[&str]) -> anyhow::Result<PathBuf> {
    // The same selection of packages as for the tests, so that both share every compiled dependency.
    let mut command = workspace::cargo(&["build", "--bin", name, "--message-format=json-render-diagnostics"]);
    command.args(Workspace::read()?.native_selection());
    command.args(features.iter().map(|feature| format!("--features={feature}")));
    if !talk::watched() {
        command.arg("--quiet");
    }
    let mut binary = None;
    let status = process::read(&command, &process::Terms::default(), process::Read::Stdout, |line| {
        let artifact = std::str::from_utf8(line).ok().and_then(Artifact::parse);
        if let Some(Artifact { target, executable: Some(executable), .. }) = artifact
            && target == name
        {
            binary = Some(executable);
        }
    })?;
    if !status.success() {
        bail!("failed to build {name} ({status}), see above");
    }
    binary.with_context(|| format!("failed to find where cargo put {name}"))
}
