//! Which user a service runs as. PostgreSQL refuses root; so as root it gets the user that its package made.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

/// A user and its group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub id: u32,
    pub group: u32,
}

/// Whether xtask runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user that a service's package made, if xtask is root and can be that user; else `None`: as you are.
pub fn of_service(name: &str) -> Option<User> {
    if !is_root() {
        return None;
    }
    Some(User { id: id("-u", name)?, group: id("-g", name)? })
}

/// Asks `id` rather than /etc/passwd: users may come from elsewhere.
fn id(what: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([what, name]).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Makes `folder` the user's.
pub fn give(folder: &Path, user: Option<User>) -> anyhow::Result<()> {
    let Some(user) = user else { return Ok(()) };
    std::os::unix::fs::chown(folder, Some(user.id), Some(user.group))
        .with_context(|| format!("failed to give {} to its service's user", folder.display()))
}

/// Whether another user can reach what is in `folder`: a service that does not run as root cannot live below `/root`.
pub fn reachable_by_others(folder: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    folder.ancestors().all(|folder| match folder.metadata() {
        Ok(metadata) => metadata.permissions().mode() & 0o001 != 0,
        Err(_) => true, // not made yet
    })
}
