//! Tells the binary which build it is: `0.1.0+1a2b3c4d5e6f`, and `.debug` behind it if it is not optimised, so that a debug
//! build never runs unnoticed. A packager may set `AGENTRY_COMMIT` instead.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=AGENTRY_COMMIT");
    if std::env::var_os("AGENTRY_COMMIT").is_some() {
        return; // rustc sees it itself
    }
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let debug = std::env::var("PROFILE").is_ok_and(|profile| profile == "debug");
    let mut parts = Vec::new();
    // A tree that was copied into another repository has none of its own, and that one's commit would be a lie.
    let top = git(&["rev-parse", "--show-toplevel"]);
    let ours = Path::new("..").canonicalize().ok().zip(top).is_some_and(|(root, top)| root == Path::new(&top));
    if ours && let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        parts.push(commit);
        // Grows with every commit and checkout.
        if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
            println!("cargo::rerun-if-changed={log}");
        }
    }
    if debug {
        parts.push("debug".to_owned());
    }
    let build = if parts.is_empty() { version } else { format!("{version}+{}", parts.join(".")) };
    println!("cargo::rustc-env=AGENTRY_COMMIT={build}");
}

/// What git answers, if there is one and it does.
fn git(arguments: &[&str]) -> Option<String> {
    let answer = Command::new("git").args(arguments).output().ok().filter(|answer| answer.status.success())?;
    String::from_utf8(answer.stdout).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}
