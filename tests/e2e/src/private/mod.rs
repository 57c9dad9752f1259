//! Services of a test's own, which it may kill, restart, starve: they listen on loopback, on ports of their own, share nothing
//! with a system's, and end with the thread that started them.

mod broker;
mod certificate;
mod server;

pub use broker::Broker;
pub use certificate::Certificate;
pub use server::{Server, Stop};

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::daemon::run_command;

/// Ports are looked for here: below the range that Linux takes those of outgoing connections from. A client that tries a
/// port of that range on its own machine again and again, while nobody listens, connects to itself in the end.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let width = u64::from(PORTS.end - PORTS.start);
    let start = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8) % width;
    let candidates = (0..width).filter_map(|step| u16::try_from((start + step) % width).ok());
    let mut free = candidates.map(|offset| PORTS.start + offset);
    free.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).expect("a free port")
}

/// A folder that the service's user can reach, and which is his; in the Debian that the service runs in, if it has one.
fn folder(service: &str, user: Option<User>, root: Option<&Path>) -> tempfile::TempDir {
    let builder = || tempfile::Builder::new();
    let parent = root.map_or("/tmp".into(), |root| root.join("srv"));
    let made = builder().prefix(&format!("agentry-private-{service}-")).tempdir_in(parent);
    let folder = made.expect("a folder");
    if let Some(user) = user {
        chown(folder.path(), Some(user.id), Some(user.group)).expect("the folder is given away");
    }
    folder
}

/// A user, by number.
#[derive(Clone, Copy)]
pub(crate) struct User {
    id: u32,
    group: u32,
}

/// A path outside, as a service in another Debian sees it.
fn seen(path: &Path, root: Option<&Path>) -> PathBuf {
    root.and_then(|root| path.strip_prefix(root).ok()).map_or(path.to_owned(), |path| Path::new("/").join(path))
}

/// The user that a service's package made, where the tests run as root; else `None`: as you are.
async fn user_of(service: &str, root: Option<&Path>) -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let number = async |what| {
        let mut command = Command::new(if root.is_some() { "chroot" } else { "id" });
        if let Some(root) = root {
            command.arg(root).arg("id");
        }
        let ended = run_command(command.args([what, service])).await;
        ended.stdout.trim().parse().unwrap_or_else(|_| panic!("there is no user {service}: {ended:?}"))
    };
    Some(User { id: number("-u").await, group: number("-g").await })
}

/// `program` as that user, ending with the thread that starts it.
pub(crate) fn command(program: &Path, user: Option<User>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = user {
        command.arg(format!("--reuid={}", user.id)).arg(format!("--regid={}", user.group)).arg("--clear-groups");
    }
    command.arg("--").arg(program).stdin(Stdio::null());
    command
}

/// Enters the root `$1`; the rest is `chroot`'s. RabbitMQ's memory alarm reads `/proc`, which is mounted in a namespace that ends
/// with the service.
const ENTER: &str = r#"mount -t proc proc "$1/proc"; exec chroot "$@""#;

/// The same in another Debian, if there is one; `program` is its path there.
fn command_in(root: Option<&Path>, program: &Path, user: Option<User>) -> Command {
    let Some(root) = root else { return command(program, user) };
    let inner = command(program, user);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec", ENTER, "sh"])
        .arg(root)
        .arg(inner.get_program())
        .args(inner.get_args())
        .stdin(Stdio::null());
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env_remove("TMPDIR");
    command
}

/// Starts it, with what it says at the end of `log`.
pub(crate) fn spawn(mut command: Command, log: &Path) -> Child {
    let log = std::fs::File::options().append(true).create(true).open(log).expect("a log file");
    let errors = log.try_clone().expect("a log file");
    command.stdout(log).stderr(errors).spawn().expect("setpriv (util-linux) is installed, and so is the service")
}

/// The first folder of these that has all these programs.
fn find(folders: impl IntoIterator<Item = PathBuf>, programs: &[&str]) -> PathBuf {
    let in_path = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    let mut all = folders.into_iter().chain(in_path);
    let found = all.find(|folder| programs.iter().all(|program| folder.join(program).is_file()));
    found.unwrap_or_else(|| panic!("{programs:?} are not installed"))
}
