//! `cargo xtask lint`: what a reviewer should not have to say.

use crate::workspace::cargo;
use crate::{Ending, process, talk};

/// Checks formatting, then lints; warnings count.
pub fn run() -> anyhow::Result<()> {
    let quiet: &[&str] = if talk::watched() { &[] } else { &["--quiet"] };
    let clippy = [&["clippy"], quiet, &["--workspace", "--all-targets", "--", "-D", "warnings"]].concat();
    for (what, arguments) in [("formatting", &["fmt", "--all", "--check"][..]), ("lints", &clippy)] {
        talk::phase(
            "lint",
            what,
            || match process::run(&cargo(arguments))? {
                status if status.success() => Ok(()),
                _ => Err(Ending::Failed.into()),
            },
            |()| format!("{what} in order"),
        )?;
    }
    Ok(())
}
