//! Newer services than this Debian has: Debian 13 in a folder, with RabbitMQ 4 or PostgreSQL 17 in it.
//!
//! `mmdebstrap` makes the folder, once, below the target folder. A service runs in it under `chroot`, as the user that its package
//! made, with data of its own below the folder's `srv`. RabbitMQ's memory alarm reads `/proc`, which is mounted in a namespace of
//! the service alone, and so ends with it. Nothing else is mounted.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use super::user::{self, User};
use super::{install, launch};
use crate::process::{self, Read, Terms};
use crate::talk;
use crate::workspace::Workspace;

/// The release of Debian.
const SUITE: &str = "trixie";

/// Enters the root `$1`; the rest is `chroot`'s. Each step becomes the next, so that the process is the service in the end.
const ENTER: &str = r#"mount -t proc proc "$1/proc"; exec chroot "$@""#;

/// A Debian in a folder, with one service.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

/// A root, or why this machine cannot make one.
pub type Made = Result<Root, String>;

impl Root {
    /// The root that has this package; made now if it is missing.
    pub fn with(package: &str, install: bool) -> anyhow::Result<Made> {
        let folder = Workspace::read()?.target.join("roots");
        let name = format!("{SUITE}-{package}");
        let whole = folder.join(&name);
        if !user::is_root() {
            return Ok(Err(format!("running {package} of Debian's {SUITE} needs root, for chroot")));
        }
        if !works("unshare", &["--mount", "true"]) {
            return Ok(Err(format!(
                "running {package} of Debian's {SUITE} needs a mount namespace, and `unshare --mount true` fails here"
            )));
        }
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
        // Two runs that share a target folder make it one after the other.
        let lock = std::fs::File::create(folder.join("lock")).context("failed to make a file to lock")?;
        lock.lock().context("failed to lock the folder of the roots")?;
        if whole.is_dir() {
            return Ok(Ok(Self(whole)));
        }
        if !has_mmdebstrap() && install {
            install::debian_packages(&["mmdebstrap"])?;
        }
        if !has_mmdebstrap() {
            return Ok(Err(format!(
                "making a Debian {SUITE} with {package} needs mmdebstrap; run `apt-get install mmdebstrap`, or add --install"
            )));
        }
        // Under another name until it is whole, so that a half-made one is never used.
        let half = folder.join(format!("{name}.new"));
        if half.exists() {
            std::fs::remove_dir_all(&half).with_context(|| format!("failed to remove {}", half.display()))?;
        }
        let mut failed = None;
        talk::phase(
            "services",
            &format!("Debian {SUITE} with {package}, by mmdebstrap"),
            || {
                failed = make(package, &half)?;
                match failed {
                    None => std::fs::rename(&half, &whole).context("failed to name the root"),
                    Some(_) => Ok(()),
                }
            },
            |()| whole.display().to_string(),
        )?;
        Ok(match failed {
            None => Ok(Self(whole)),
            Some(reason) => Err(reason),
        })
    }

    /// A folder at this path outside, as the path inside.
    pub fn inside(&self, path: &Path) -> PathBuf {
        Path::new("/").join(path.strip_prefix(&self.0).unwrap_or(path))
    }

    /// A path inside, as the path outside.
    pub fn outside(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The folder of this Debian.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where services keep their data; made if it is missing.
    pub fn data(&self) -> PathBuf {
        self.outside("srv")
    }

    /// Where a kept service keeps its data.
    pub fn kept(&self, place: &Path) -> PathBuf {
        self.data().join(format!("kept-{:016x}", launch::seed(place)))
    }

    /// A user of this Debian, by its `/etc/passwd`.
    pub fn user(&self, name: &str) -> anyhow::Result<User> {
        let path = self.outside("etc/passwd");
        let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        user_in(&text, name).with_context(|| format!("{} has no user {name}", path.display()))
    }

    /// `program` in this Debian, as this user. It ends with the process that started it.
    pub fn command(&self, user: User, program: &Path) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", ENTER, "sh"]).args(self.words(user, program));
        // Of the machine outside.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LANG", "C.UTF-8").env_remove("TMPDIR");
        command
    }

    /// The arguments of `chroot` for that.
    pub fn words(&self, user: User, program: &Path) -> Vec<String> {
        let User { id, group } = user;
        // Inside: a change of the user takes the signal away that was set before it.
        let words = ["setpriv", "--clear-groups", "--pdeathsig", "KILL"].map(str::to_owned);
        let who = [format!("--regid={group}"), format!("--reuid={id}"), "--".to_owned()];
        let (root, program) = (self.0.display().to_string(), program.display().to_string());
        [root].into_iter().chain(words).chain(who).chain([program]).collect()
    }
}

fn has_mmdebstrap() -> bool {
    works("mmdebstrap", &["--version"])
}

fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Makes it; returns the reason if mmdebstrap cannot.
fn make(package: &str, folder: &Path) -> anyhow::Result<Option<String>> {
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", &format!("--include={package}"), SUITE]).arg(folder);
    command.args(mirror());
    let mut output = Vec::new();
    // It mounts in a namespace of its own, which ends with it.
    let status = process::read(&command, &Terms::default(), Read::Both, |line| output.extend_from_slice(line))?;
    if status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output);
    let last: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = last[last.len().saturating_sub(4)..].join(" | ");
    Ok(Some(format!("mmdebstrap could not make a Debian {SUITE} with {package} ({status}): {last}")))
}

/// The mirror of Debian that this machine's apt uses; without one mmdebstrap has its own default.
fn mirror() -> Option<String> {
    let folder = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let mut files: Vec<_> = folder.map(|file| file.path()).collect();
    files.sort();
    files.push("/etc/apt/sources.list".into());
    files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).find_map(|text| mirror_in(&text))
}

/// The first address in apt's sources (either format) that ends in `/debian`.
fn mirror_in(sources: &str) -> Option<String> {
    let lines = sources.lines().map(str::trim).filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"));
    let is_debian = |word: &&str| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian");
    lines.flat_map(str::split_whitespace).find(is_debian).map(str::to_owned)
}

fn user_in(passwd: &str, name: &str) -> Option<User> {
    let mut fields = passwd.lines().map(|line| line.split(':')).find_map(|mut fields| {
        let found = fields.next()? == name;
        found.then_some(fields)
    })?;
    fields.next()?; // the password's place
    Some(User { id: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_is_the_one_of_apt() {
        let sources =
            "Types: deb\n# http://old.example/debian\nURIs: http://mirror.example/debian/\nSuites: bookworm\n";
        assert_eq!(mirror_in(sources).as_deref(), Some("http://mirror.example/debian/"));
        let list = "# deb http://no.example/debian x main\ndeb [trusted=yes] https://a.example/debian bookworm main\n";
        assert_eq!(mirror_in(list).as_deref(), Some("https://a.example/debian"));
        assert_eq!(mirror_in("deb http://security.example/debian-security bookworm-security main"), None);
    }

    #[test]
    fn user_is_read_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nrabbitmq:x:100:102::/var/lib/rabbitmq:/bin/false\n";
        assert_eq!(user_in(passwd, "rabbitmq"), Some(User { id: 100, group: 102 }));
        assert_eq!(user_in(passwd, "postgres"), None);
    }

    #[test]
    fn paths_lead_in_and_out() {
        let root = Root("/a/root".into());
        assert_eq!(root.inside(Path::new("/a/root/srv/x")), Path::new("/srv/x"));
        assert_eq!(root.outside("/usr/bin"), Path::new("/a/root/usr/bin"));
        let words = root.words(User { id: 1, group: 2 }, Path::new("/bin/sh")).join(" ");
        assert_eq!(words, "/a/root setpriv --clear-groups --pdeathsig KILL --regid=2 --reuid=1 -- /bin/sh");
    }
}
