//! What the services have in common: a folder, free ports, a start that is waited for.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::root::Root;
use super::user::{self, User};
use crate::process::{Guarded, Terms};
use crate::{signals, talk};

/// How long a service may take until it answers. A cold machine that compiles meanwhile needs a good part of it.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Ports are looked for here: below the range from which Linux takes ports for outgoing connections and for those who
/// ask for any, so that a port that is free now is most likely free in a second.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// How many times a start is tried: each with ports of its own, since another may have taken one.
const ATTEMPTS: u32 = 3;

/// Where a service keeps its files.
pub enum Place {
    /// In a folder that goes with it.
    Temporary,
    /// The same, but everything is synced to disk as in production: for measurements.
    Synced,
    /// In this folder, for longer than xtask lives. Everything that it needs to be durable is.
    Kept(PathBuf),
}

/// A service that answers.
pub struct Running {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    /// As it says itself.
    pub version: String,
    /// Where its program comes from, if that is worth saying.
    pub origin: &'static str,
    /// Ends it when dropped.
    pub guard: Guarded,
}

/// A folder for one start.
pub struct Folder {
    /// Its path.
    pub path: PathBuf,
    /// Whose it is.
    pub user: Option<User>,
    /// Whether it goes when the service ends.
    pub temporary: bool,
    /// The Debian that it is in, if that is not the machine's own.
    pub root: Option<Root>,
}

impl Folder {
    /// Makes the folder of `service` at its place, or in the root that it runs in.
    pub fn make(service: &str, place: &Place, user: Option<User>, root: Option<&Root>) -> anyhow::Result<Self> {
        let kept;
        let place = match (place, root) {
            (Place::Kept(path), Some(root)) => {
                kept = Place::Kept(root.kept(path));
                &kept
            }
            _ => place,
        };
        let (path, temporary) = match place {
            Place::Kept(path) => {
                std::fs::create_dir_all(path).with_context(|| format!("failed to make {}", path.display()))?;
                (path.clone(), false)
            }
            Place::Temporary | Place::Synced => {
                let mut parent = root.map_or_else(std::env::temp_dir, Root::data);
                if root.is_none() && user.is_some() && !user::reachable_by_others(&parent) {
                    parent = PathBuf::from("/tmp");
                }
                let folder = tempfile::Builder::new().prefix(&format!("agentry-{service}-")).tempdir_in(&parent);
                let folder = folder.with_context(|| format!("failed to make a folder in {}", parent.display()))?;
                (folder.keep(), true) // its guard removes it, which still happens when xtask is killed
            }
        };
        let folder = Self { path, user, temporary, root: root.cloned() };
        user::give(&folder.path, user)?;
        Ok(folder)
    }

    /// A path in it, as its service sees it.
    pub fn seen(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        self.root.as_ref().map_or(path.clone(), |root| root.inside(&path))
    }

    /// The terms on which a service lives in it. `stop` and `patience` are for a kept one: a temporary one has nothing to
    /// save.
    pub fn terms(&self, place: &Place) -> Terms {
        Terms {
            remove: if self.temporary { vec![self.path.clone()] } else { Vec::new() },
            // Only root may enter another root; there the service becomes its user.
            user: self.user.filter(|_| self.root.is_none()).map(|user| (user.id, user.group)),
            detached: detached(place),
            ..Terms::default()
        }
    }
}

/// The lock of a kept service.
pub fn detached(place: &Place) -> Option<PathBuf> {
    match place {
        Place::Temporary | Place::Synced => None,
        Place::Kept(folder) => Some(folder.with_extension("lock")),
    }
}

/// A service about to start.
pub struct Launch {
    /// What is started.
    pub command: Command,
    /// How it ends.
    pub terms: Terms,
    /// Where its output goes.
    pub log: PathBuf,
    /// Where it will listen.
    pub port: u16,
    /// Its version, once it answers at the port.
    pub probe: fn(u16) -> Option<String>,
    /// How long until it must.
    pub patience: Duration,
    /// See [`Running`].
    pub origin: &'static str,
}

impl Launch {
    /// Starts it and waits until it answers.
    pub fn start(self) -> anyhow::Result<Running> {
        let log = File::options().read(true).append(true).create(true).open(&self.log);
        let log = log.with_context(|| format!("failed to make {}", self.log.display()))?;
        let [output, errors] = [log.try_clone(), log.try_clone()].map(|log| log.context("failed to share a log file"));
        let mut guard = Guarded::start(&self.command, &self.terms, output?.into(), errors?.into())?;
        let deadline = Instant::now() + self.patience;
        loop {
            signals::check()?;
            if let Some(version) = (self.probe)(self.port) {
                return Ok(Running { port: self.port, version, origin: self.origin, guard });
            }
            // An ended service's folder is gone, but the log is open here.
            if let Some(status) = guard.ended().context("failed to look after a service")? {
                bail!("it ended ({status}) before it answered on port {}{}", self.port, tail(&log));
            }
            if Instant::now() > deadline {
                let (patience, log) = (talk::seconds(self.patience), tail(&log));
                bail!("it did not answer on port {} within {patience}{log}", self.port);
            }
            std::thread::sleep(Duration::from_millis(25));
        }
    }
}

/// Tries a start a few times, since a port that was free may be taken a moment later.
pub fn with_attempts<T>(mut start: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut attempt = 1;
    loop {
        match start() {
            Err(_) if attempt < ATTEMPTS && signals::check().is_ok() => attempt += 1,
            done => return done,
        }
    }
}

/// The end of a log, for an error.
fn tail(log: &File) -> String {
    let length = log.metadata().map_or(0, |metadata| metadata.len());
    let mut text = vec![0; 16 * 1024];
    let read = log.read_at(&mut text, length.saturating_sub(16 * 1024)).unwrap_or(0);
    let text = String::from_utf8_lossy(&text[..read]);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    match lines.len() {
        0 => String::new(),
        n => format!("; the end of its log:\n  {}", lines[n.saturating_sub(12)..].join("\n  ")),
    }
}

/// `N` free ports, each different: any for a temporary place; for a kept one those that it had before, if they are free.
pub fn free_ports<const N: usize>(place: &Place) -> anyhow::Result<[u16; N]> {
    free_ports_from(match place {
        Place::Kept(folder) => seed(folder),
        // Different on every call in every process, which is all that is needed.
        Place::Temporary | Place::Synced => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8),
    })
}

fn free_ports_from<const N: usize>(seed: u64) -> anyhow::Result<[u16; N]> {
    let width = u64::from(PORTS.end - PORTS.start);
    let candidates = (0..width).filter_map(|step| u16::try_from((seed % width + step) % width).ok());
    let mut free = candidates.map(|offset| PORTS.start + offset).filter(|port| is_free(*port));
    let mut ports = [0; N];
    for port in &mut ports {
        *port = free.next().with_context(|| format!("failed to find a free port in {PORTS:?}"))?;
    }
    Ok(ports)
}

/// A seed for the ports of a kept service, so that its address stays what it was: FNV-1a of the folder.
pub fn seed(folder: &Path) -> u64 {
    let bytes = folder.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_a_taken_one_is_passed_over() {
        let [first, second, third] = free_ports_from::<3>(77).unwrap();
        assert!(first != second && second != third && first != third);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert!(!free_ports_from::<3>(77).unwrap().contains(&first));
    }

    #[test]
    fn ports_at_the_end_of_the_range_wrap_around() {
        let width = u64::from(PORTS.end - PORTS.start);
        let ports = free_ports_from::<4>(width - 1).unwrap();
        assert!(ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
    }

    #[test]
    fn a_failed_start_is_tried_again_and_then_reported() {
        let mut tried = 0;
        let done: anyhow::Result<()> = with_attempts(|| {
            tried += 1;
            bail!("no {tried}")
        });
        assert_eq!((tried, done.unwrap_err().to_string().as_str()), (3, "no 3"));
        assert_eq!(with_attempts(|| Ok(7)).unwrap(), 7);
    }

    #[test]
    fn a_log_is_cut_to_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, (1..=40).map(|n| format!("line {n}\n\n")).collect::<String>()).unwrap();
        let tail = tail(&File::open(path).unwrap());
        assert!(tail.contains("line 29\n") && tail.ends_with("line 40") && !tail.contains("line 28"), "{tail}");
    }
}
