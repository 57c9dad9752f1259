//! `agentry tool-server`: stands between the daemon and a tool server that is its child. Started by this program, never by hand.

use std::ffi::OsString;
use std::process::ExitCode;

/// One tool server, ended when the process that started it is gone.
#[derive(clap::Args)]
pub struct ToolServer {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl ToolServer {
    pub fn run(self) -> ExitCode {
        ExitCode::from(agentry_outbound::tools::supervise(self.arguments.into_iter()))
    }
}
