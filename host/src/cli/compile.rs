//! `agentry compile`: the compiler's child process. Started by this program, never by hand.

use crate::{daemon, registry};
use std::process::ExitCode;

/// Compile one component; the order comes on standard input.
#[derive(clap::Args)]
pub struct Compile {}

impl Compile {
    pub fn run(self) -> ExitCode {
        if let Err(error) = daemon::drop_capabilities() {
            super::output::say(&format!("agentry: failed to give up capabilities: {error}"));
            return ExitCode::from(2);
        }
        ExitCode::from(registry::compile())
    }
}
