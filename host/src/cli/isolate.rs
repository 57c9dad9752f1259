//! `agentry isolate`: the isolation lane's child process. Started by a daemon, never by hand.

use super::Failed;
use super::up::Up;
use crate::daemon::{self, isolation};
use std::path::PathBuf;

/// One attempt in a process of its own, for a daemon that started it: the order comes on standard input.
#[derive(clap::Args)]
pub struct Isolate {
    #[command(flatten)]
    up: Up,
}

impl Isolate {
    pub fn run(self, file: Option<PathBuf>) -> Result<(), Failed> {
        let variables =
            isolation::variables().map_err(|e| Failed::usage(format!("failed to read from the daemon: {e}")))?;
        let settings = self.up.settings_with(file, variables)?;
        // A guest of this process may call such a server, which is started from here.
        if !settings.outside.tools.values().any(|tool| tool.has_user()) {
            daemon::drop_capabilities().map_err(|e| Failed::usage(format!("failed to give up capabilities: {e}")))?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|e| Failed::usage(format!("failed to start the runtime: {e}")))?;
        let served = runtime.block_on(isolation::serve(&settings)).map_err(Failed::usage);
        // It may still be reading standard input, which nothing ends but the parent.
        runtime.shutdown_background();
        served
    }
}
