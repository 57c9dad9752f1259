//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// How long anything may take, before a test gives up on it. `AGENTRY_TEST_PATIENCE` multiplies it for slow machines.
pub fn patience() -> Duration {
    let factor = std::env::var("AGENTRY_TEST_PATIENCE").ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(1.0);
    Duration::from_secs_f64(60.0 * factor)
}

/// Looks again and again until `look` answers `Ok`; its last `Err` says what was seen instead.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(instead) if began.elapsed() > patience() => {
                panic!("{what}: not within {:?}; instead: {instead}", patience())
            }
            // The pause between two looks, not a guess of how long it takes.
            Err(_) => tokio::time::sleep(Duration::from_millis(15)).await,
        }
    }
}

/// `Ok` if it holds, otherwise what was seen instead.
pub fn holds(condition: bool, instead: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(instead()) }
}
