//! `agentry compile`: the compiler's child process. Started by this program, never by hand.

use crate::registry;
use std::process::ExitCode;

/// Compile one component; the order comes on standard input.
#[derive(clap::Args)]
pub struct Compile {}

impl Compile {
    pub fn run(self) -> ExitCode {
        ExitCode::from(registry::compile())
    }
}
