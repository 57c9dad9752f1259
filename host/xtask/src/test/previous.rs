//! The previous version of the daemon, for the test of a rolling upgrade: the last commit that had another set of migrations.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::workspace::{self, Workspace};
use crate::{host, process, talk};

/// The test that needs it.
pub const TEST: &str = "the_previous_version_and_this_one_work_side_by_side";

/// Builds it, once per commit; `None`, said by name, where the history is not there.
///
/// It shares the target folder, and so the compiled dependencies; whoever wants today's daemon builds it afterwards.
pub fn build(workspace: &Workspace) -> anyhow::Result<Option<PathBuf>> {
    let Some(commit) = commit() else {
        println!("skipped: {TEST}: no commit with other migrations is in this checkout's history");
        return Ok(None);
    };
    let kept = workspace.target.join("previous").join(format!("agentry-{commit}"));
    if kept.is_file() {
        return Ok(Some(kept));
    }
    let what = format!("the daemon of commit {}", &commit[..commit.len().min(12)]);
    let built = talk::phase("build", &what, || build_at(workspace, &commit, &kept), |()| kept.display().to_string());
    built.map(|()| Some(kept))
}

fn commit() -> Option<String> {
    // A migration that was released never changes; one that was not yet may, and is no version's.
    let changed = git(&["log", "-1", "--format=%H", "--diff-filter=A", "--", "migrations/*/*.sql"])?;
    git(&["rev-parse", "--verify", "--quiet", &format!("{changed}^")])
}

/// What git says, if it says anything.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(workspace::root()).args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !said.is_empty()).then_some(said)
}

fn build_at(workspace: &Workspace, commit: &str, kept: &Path) -> anyhow::Result<()> {
    let folder = kept.parent().context("failed to name a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let checkout = tempfile::Builder::new().prefix("checkout-").tempdir_in(folder);
    let checkout = checkout.context("failed to make a folder for a checkout")?;
    let tree = checkout.path().join("tree");
    let path = tree.display().to_string();
    git(&["worktree", "prune"]);
    git(&["worktree", "add", "--detach", "--force", &path, commit]);
    if !tree.join("Cargo.toml").is_file() {
        bail!("failed to check {commit} out in {path}");
    }
    let mut command = workspace::cargo(&["build", "--quiet", "--bin", host::BINARY]);
    command.args(workspace.native_selection()).current_dir(&tree).env("CARGO_TARGET_DIR", &workspace.target);
    let status = process::run(&command);
    let built = workspace.target.join("debug").join(host::BINARY);
    let copied = match status {
        Ok(status) if status.success() => std::fs::copy(&built, kept).map(drop).context("failed to keep it"),
        Ok(status) => Err(anyhow::anyhow!("failed to build {commit} ({status}), see above")),
        Err(error) => Err(error),
    };
    git(&["worktree", "remove", "--force", &path]);
    copied
}
