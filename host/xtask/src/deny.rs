//! Licences, advisories, duplicates and sources of the dependencies, by cargo-deny where it is installed.

use crate::workspace::cargo;
use crate::{Ending, process, talk};

/// Checks that need no network once the dependencies are there.
const LOCAL: [&str; 3] = ["bans", "licenses", "sources"];

/// Checks the dependencies against `.cargo/deny.toml`. Returns the number of checks that were skipped, each reported by name.
pub fn run() -> anyhow::Result<usize> {
    if !quietly(&["deny", "--version"])?.0 {
        println!("skipped: cargo deny check: cargo-deny is not installed (cargo install cargo-deny --locked)");
        return Ok(1);
    }
    let mut checks = LOCAL.to_vec();
    let mut skipped = 0;
    match quietly(&["deny", "fetch", "db"])? {
        (true, _) => checks.push("advisories"),
        (false, output) => {
            let why = output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no reason given");
            println!(
                "skipped: cargo deny check advisories: the advisory database could not be fetched: {}",
                why.trim()
            );
            skipped = 1;
        }
    }
    // Duplicates are warnings: `cargo deny check bans` lists them.
    let arguments = [&["deny", "--log-level", "error", "check"][..], &checks].concat();
    talk::phase(
        "dependencies",
        &checks.join(", "),
        || match process::run(&cargo(&arguments))? {
            status if status.success() => Ok(skipped),
            _ => Err(Ending::Failed.into()),
        },
        |_| "in order".to_owned(),
    )
}

/// Runs cargo without showing its output. Returns whether it succeeded, and the output.
fn quietly(arguments: &[&str]) -> anyhow::Result<(bool, String)> {
    let mut output = Vec::new();
    let mut keep = |line: &[u8]| output.extend_from_slice(line);
    let status = process::read(&cargo(arguments), &process::Terms::default(), process::Read::Both, &mut keep)?;
    Ok((status.success(), String::from_utf8_lossy(&output).into_owned()))
}
