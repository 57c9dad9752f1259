//! What the operator wrote about a server, checked before anything starts.

use super::credentials::credentials;
use super::user::User;
use super::{ServerSettings, Supervisor, ToolSettingsError, Transport, http};
use crate::Secret;
use crate::secret::Redactor;
use agentry_defence::Defence;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Beside an output, a message may carry what JSON adds to it, and a list of tools.
const MARGIN: usize = 2 << 20;

impl ServerSettings {
    /// Whether it is to run as another user.
    pub fn has_user(&self) -> bool {
        matches!(&self.transport, Transport::Stdio { user: Some(_), .. })
    }
}

/// One server, checked.
pub(super) struct Server {
    /// The operator's name.
    pub(super) name: String,
    /// How it is reached.
    pub(super) reach: Reach,
    /// To its answer to `initialize`.
    pub(super) start: Duration,
    /// To the answer to one call.
    pub(super) call: Duration,
    /// The longest output.
    pub(super) output_bytes: u64,
    /// Knows its credentials.
    pub(super) redactor: Redactor,
}

/// How a server is reached, with everything looked up.
pub(super) enum Reach {
    /// A child process.
    Stdio(Program),
    /// Streamable HTTP.
    Http(http::Endpoint),
}

/// What is started.
pub(super) struct Program {
    /// An absolute path.
    pub(super) path: PathBuf,
    /// Its arguments.
    pub(super) args: Vec<String>,
    /// All of its environment.
    pub(super) env: BTreeMap<String, Secret>,
    /// Where it runs; `None`: an empty folder of its own.
    pub(super) dir: Option<PathBuf>,
    /// The user that it runs as; `None`: the daemon's own.
    pub(super) user: Option<User>,
    /// Who watches it.
    pub(super) supervisor: Option<Supervisor>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Server {
    /// Checks one server's settings; starts nothing and connects to nothing.
    pub(super) fn check(
        name: &str,
        settings: ServerSettings,
        supervisor: Option<&Supervisor>,
    ) -> Result<Server, ToolSettingsError> {
        let wrong = |key: &'static str, reason: String| ToolSettingsError { server: name.to_owned(), key, reason };
        check_name(name).map_err(|reason| wrong("name", reason))?;
        for (key, time) in [("start_seconds", settings.start), ("call_seconds", settings.call)] {
            if time.is_zero() {
                return Err(wrong(key, "a time-out of nothing lets nothing happen; give it a second or more".into()));
            }
        }
        if settings.output_bytes == 0 {
            return Err(wrong("output_kib", "no output fits into 0 bytes".into()));
        }
        let redactor =
            Redactor::new(credentials(&settings.transport).into_iter().filter(|_| Defence::ToolMask.stands()));
        let reach = match settings.transport {
            Transport::Stdio { command, args, env, dir, user } => {
                let user = user.map(|user| User::check(&user, dir.is_some())).transpose();
                let user = user.map_err(|reason| wrong("user", reason))?;
                // It reaches the supervisor first, which has the daemon's rights.
                let of_linker = |name: &&String| {
                    name.starts_with("LD_") || ["GLIBC_TUNABLES", "GCONV_PATH"].contains(&name.as_str())
                };
                if let Some(name) = user.as_ref().and_then(|_| env.keys().find(of_linker)) {
                    return Err(wrong(
                        "env",
                        format!(
                            "{name} would also change the program that starts the server, which runs as this process's user; set it in a \
                         script that command starts, or leave user out"
                        ),
                    ));
                }
                if user.is_some() && supervisor.is_none() {
                    return Err(wrong("user", "a server without a supervisor runs as this process's user".into()));
                }
                let program = Program::check(&command, args, env, dir).map_err(|(key, reason)| wrong(key, reason))?;
                Reach::Stdio(Program { user, supervisor: supervisor.cloned(), ..program })
            }
            Transport::Http { url, headers, proxy, ca_file } => {
                check_url(&url, !headers.is_empty()).map_err(|reason| wrong("url", reason))?;
                http::Endpoint::new(&url, &headers, (proxy.as_ref(), ca_file.as_deref()), settings.start)
                    .map(Reach::Http)
                    .map_err(|(key, reason)| wrong(key, reason))?
            }
        };
        let (start, call, output_bytes) = (settings.start, settings.call, settings.output_bytes);
        Ok(Server { name: name.to_owned(), reach, start, call, output_bytes, redactor })
    }

    /// The longest message that is taken from it, in bytes. JSON may write an output twice (as text and as structure) and
    /// escape it; what is longer is a server that went wrong.
    pub(super) fn message_bytes(&self) -> usize {
        usize::try_from(self.output_bytes).unwrap_or(usize::MAX).saturating_mul(2).saturating_add(MARGIN)
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let mut letters = name.chars();
    let first = letters.next().is_some_and(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    let rest = letters.all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '_' | '-'));
    if first && rest && name.len() <= 63 {
        return Ok(());
    }
    Err("a server's name has 1 to 63 letters of a-z, 0-9, _ and -, and begins with a letter or digit".into())
}

impl Program {
    fn check(
        command: &str,
        args: Vec<String>,
        env: BTreeMap<String, Secret>,
        dir: Option<PathBuf>,
    ) -> Result<Program, (&'static str, String)> {
        let path = find(command, std::env::var_os("PATH").as_deref()).map_err(|reason| ("command", reason))?;
        if args.iter().any(|arg| arg.contains('\0')) {
            return Err(("args", "an argument with a NUL cannot be passed on".into()));
        }
        for (name, value) in &env {
            if name.is_empty() || name.contains(['=', '\0']) || value.expose().contains('\0') {
                return Err(("env", format!("{name:?} cannot be a variable: a name has no = and nothing has a NUL")));
            }
        }
        if let Some(dir) = dir.as_ref().filter(|dir| !dir.is_dir()) {
            return Err(("dir", format!("{} is no folder; create it, or leave dir out", dir.display())));
        }
        Ok(Program { path, args, env, dir, user: None, supervisor: None })
    }
}

/// The program as an absolute path. A symbolic link stays one: what it is called by may matter to it.
fn find(command: &str, search: Option<&OsStr>) -> Result<PathBuf, String> {
    if command.is_empty() || command.contains('\0') {
        return Err("no program is named".into());
    }
    if command.contains('/') {
        let path = std::path::absolute(command).map_err(|error| format!("{command:?}: {error}"))?;
        return match runs(&path) {
            true => Ok(path),
            false => Err(format!("{} is no file that may be executed", path.display())),
        };
    }
    let folders = search.map(|search| std::env::split_paths(search).collect::<Vec<_>>()).unwrap_or_default();
    let found = folders.iter().filter(|folder| folder.is_absolute()).map(|folder| folder.join(command));
    found.into_iter().find(|path| runs(path)).ok_or_else(|| {
        format!("there is no program {command:?} in the daemon's PATH; install it, or write its whole path")
    })
}

fn runs(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// `https`, or `http` to where nobody listens in: this machine, a private address, a name that is not public. What a server
/// is asked and answers, and its credentials, are in clear over `http`.
fn check_url(url: &url::Url, credentials: bool) -> Result<(), String> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong into the address; put them into headers".into());
    }
    let Some(host) = url.host() else {
        return Err("the address names no host".into());
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if near(&host) => Ok(()),
        "http" => {
            let what = if credentials { "the headers' credentials" } else { "what is said" };
            Err(format!("http to {host} would show {what} to everybody on the way; use https"))
        }
        other => Err(format!("{other:?} is no scheme of streamable HTTP; use https, or http within a private network")),
    }
}

/// Whether a host can only be in a private network: addresses of RFC 1918, RFC 4193 and loopback, and names that the public
/// DNS does not have (one label; RFC 6761, RFC 6762, RFC 9476 and the clusters' own).
fn near(host: &url::Host<&str>) -> bool {
    let private = |address: IpAddr| match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_private(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
    };
    match host {
        url::Host::Ipv4(address) => private(IpAddr::V4(*address)),
        url::Host::Ipv6(address) => private(IpAddr::V6(*address)),
        url::Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            let own = [".localhost", ".local", ".internal", ".svc", ".test", ".home.arpa"];
            !name.contains('.') || own.iter().any(|end| name.ends_with(end))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_lower_case_and_short() {
        for good in ["a", "web_search", "9-lives", &"a".repeat(63)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "_a", "A", "a.b", "a b", "ä", &"a".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plain_http_stays_in_private_networks() {
        let check = |url: &str| check_url(&url.parse().unwrap(), true);
        for good in [
            "https://mcp.example.com/mcp",
            "http://127.0.0.1:3001/mcp",
            "http://[::1]/",
            "http://10.1.2.3/",
            "http://[fd00::1]/",
            "http://localhost:1/",
            "http://mcp:8080/mcp",
            "http://mcp.tools.svc.cluster.local/",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "http://mcp.example.com/",
            "http://93.184.216.34/",
            "http://169.254.169.254/",
            "http://localhost.example.com/",
            "https://user@mcp.example.com/",
            "https://:secret@mcp.example.com/",
            "ftp://mcp.example.com/",
            "file:///mcp",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_program_is_found_in_the_path_or_by_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (program, text) = (folder.path().join("server"), folder.path().join("text"));
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(&text, "").unwrap();
        let search = std::env::join_paths([Path::new("/nowhere"), folder.path()]).unwrap();
        assert_eq!(find("server", Some(&search)), Ok(program.clone()));
        assert_eq!(find(program.to_str().unwrap(), None), Ok(program));
        assert!(find("text", Some(&search)).unwrap_err().contains("\"text\""));
        assert!(find(text.to_str().unwrap(), None).is_err());
        assert!(find("", Some(&search)).is_err());
        assert!(find("server", None).is_err());
    }
}
