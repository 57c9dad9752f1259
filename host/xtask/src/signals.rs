//! Ctrl-C and its relatives: what runs is ended, what was started is cleaned up, and only then does xtask exit.

use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::{Ending, process};

static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// From here on SIGINT, SIGTERM and SIGHUP end the programs in the foreground, and [`check`] fails. The command then
/// returns by its ordinary way, which drops (and so stops) the services.
pub fn catch() -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("failed to listen for signals")?;
    std::thread::spawn(move || {
        for signal in &mut signals {
            CAUGHT.store(signal, Ordering::SeqCst);
            process::end_foreground();
        }
    });
    Ok(())
}

/// Whether to go on. Called between steps, and while waiting.
pub fn check() -> Result<(), Ending> {
    match CAUGHT.load(Ordering::SeqCst) {
        0 => Ok(()),
        signal => Err(Ending::Interrupted(signal)),
    }
}

/// Waits for a signal, which then is the ordinary end and no interruption.
pub fn wait() {
    while CAUGHT.swap(0, Ordering::SeqCst) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
