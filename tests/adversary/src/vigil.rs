//! A watchman: asks `/healthz` and `/readyz` again and again on a thread of its own, so that nothing the test does delays it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest that an answer is waited for.
const WAIT: Duration = Duration::from_secs(10);

/// What was noticed since the last time that somebody asked.
#[derive(Clone, Debug, Default)]
pub struct Noticed {
    /// The longest that `/healthz` took.
    pub slowest: Duration,
    /// Answers that were not 200, and questions that had none.
    pub bad: Vec<String>,
}

/// It watches until it is dropped.
pub struct Vigil {
    noticed: Arc<Mutex<Noticed>>,
    over: Arc<AtomicBool>,
    watching: Option<JoinHandle<()>>,
}

impl Vigil {
    /// Over the daemon at `http://ADDRESS`.
    pub fn over(base: &str) -> Self {
        let address: SocketAddr = base.trim_start_matches("http://").parse().expect("an address and a port");
        let (noticed, over) = (Arc::new(Mutex::new(Noticed::default())), Arc::new(AtomicBool::new(false)));
        let (into, end) = (noticed.clone(), over.clone());
        let watching = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                for path in ["/healthz", "/readyz"] {
                    let began = Instant::now();
                    let answer = ask(address, path);
                    if end.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut noticed = into.lock().unwrap_or_else(PoisonError::into_inner);
                    if path == "/healthz" {
                        noticed.slowest = noticed.slowest.max(began.elapsed());
                    }
                    match answer {
                        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => {}
                        Ok(answer) => noticed.bad.push(format!("{path}: {answer}")),
                        Err(error) => noticed.bad.push(format!("{path}: {error}")),
                    }
                }
                std::thread::sleep(PAUSE);
            }
        });
        Self { noticed, over, watching: Some(watching) }
    }

    /// What was noticed, which is forgotten with it.
    pub fn take(&self) -> Noticed {
        std::mem::take(&mut *self.noticed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(watching) = self.watching.take() {
            let _ = watching.join();
        }
    }
}

fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
