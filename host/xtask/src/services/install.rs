//! Installs Debian's packages, for machines that are there for tests alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::user;
use crate::{Ending, process, talk};

/// Debian asks this program whether a package may start its service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs `packages` with apt-get, as root, without starting their services.
pub fn debian_packages(packages: &[&str]) -> anyhow::Result<()> {
    let names = packages.join(" ");
    if !user::is_root() {
        return Err(Ending::Unprepared(format!(
            "--install needs root to install {names}; ask an administrator, or use sudo"
        ))
        .into());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        let text = format!("--install knows only apt-get, which this machine lacks; install {names} by its own means");
        return Err(Ending::Unprepared(text).into());
    }
    talk::phase(
        "install",
        &format!("{names}, by apt-get"),
        || {
            let _policy = Policy::set().context("failed to keep the packages from starting their services")?;
            apt(&["update"])?;
            apt(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
        },
        |()| "done".to_owned(),
    )
}

fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    command.args(["--quiet", "--option=DPkg::Lock::Timeout=300", "--option=Acquire::Retries=3"]).args(arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    let mut output = Vec::new();
    let mut errors_too = |line: &[u8]| output.extend_from_slice(line);
    let status = process::read(&command, &process::Terms::default(), process::Read::Both, &mut errors_too)?;
    if !status.success() {
        process::pass(&output);
        anyhow::bail!("failed to run apt-get {} ({status}), see above", arguments.join(" "));
    }
    Ok(())
}

/// A policy that says no to every start, where there is none; gone when dropped.
struct Policy(Option<PathBuf>);

impl Policy {
    fn set() -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let path = PathBuf::from(POLICY);
        if path.exists() {
            return Ok(Self(None));
        }
        std::fs::write(&path, "#!/bin/sh\nexit 101\n")?;
        let policy = Self(Some(path));
        std::fs::set_permissions(POLICY, PermissionsExt::from_mode(0o755))?;
        Ok(policy)
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = std::fs::remove_file(path)
        {
            eprintln!("error: failed to remove {}: {error}", path.display());
        }
    }
}
