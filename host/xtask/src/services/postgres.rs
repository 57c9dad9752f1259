//! A private PostgreSQL.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::launch::{self, Folder, Launch, Place, Running};
use super::root::Root;
use super::{probe, user};
use crate::Ending;
use crate::guard::StopSignal;
use crate::process::Terms;

/// Makes the data folder `$2` unless there is one, and becomes the server. `$1` holds the programs; the rest is the
/// server's arguments. A folder under construction has another name, so that a half-made one is never used.
///
/// A signal waits until `initdb` has ended: what that starts would leave its shared memory behind on any signal.
const START: &str = r#"
bin="$1" data="$2"; shift 2
if ! [ -d "$data" ]; then
    trap 'exit 1' INT QUIT TERM
    rm -rf "$data.new"
    "$bin/initdb" -D "$data.new" --auth=trust --username=postgres --encoding=UTF8 --locale=C --no-sync
    mv "$data.new" "$data"
    trap - INT QUIT TERM
fi
exec "$bin/postgres" -D "$data" "$@"
"#;

/// PostgreSQL's programs.
#[derive(Debug)]
pub struct Programs {
    /// Their folder, in the root if there is one.
    bin: PathBuf,
    root: Option<Root>,
}

impl Programs {
    /// The newest that is installed. Debian keeps them out of PATH.
    pub fn find() -> Option<Self> {
        let packaged = ["/usr/lib/postgresql", "/usr/pgsql"].iter().filter_map(|folder| std::fs::read_dir(folder).ok());
        let packaged = packaged.flatten().flatten().map(|version| version.path().join("bin"));
        let complete = |bin: &PathBuf| ["initdb", "postgres"].iter().all(|program| bin.join(program).is_file());
        let newest = packaged.filter(complete).max_by_key(|bin| version_of(bin));
        let in_path = || std::env::split_paths(&std::env::var_os("PATH")?).find(complete);
        newest.or_else(in_path).map(|bin| Self { bin, root: None })
    }

    /// Those of this version in another Debian.
    pub fn in_root(root: Root, version: &str) -> Self {
        Self { bin: format!("/usr/lib/postgresql/{version}/bin").into(), root: Some(root) }
    }

    /// The Debian that they are in, if that is not the machine's own.
    pub fn root(&self) -> Option<&Root> {
        self.root.as_ref()
    }

    /// Starts one.
    pub fn start(&self, place: &Place) -> anyhow::Result<Running> {
        let user = match &self.root {
            Some(root) => Some(root.user("postgres")?),
            None => user::of_service("postgres"),
        };
        if user.is_none() && user::is_root() {
            let text = "PostgreSQL refuses to run as root, and the user `postgres` does not exist, which Debian's package \
                        postgresql makes; install that, or run this as another user than root";
            return Err(Ending::Unprepared(text.to_owned()).into());
        }
        launch::with_attempts(|| {
            let folder = Folder::make("postgres", place, user, self.root.as_ref())?;
            let [port] = launch::free_ports(place)?;
            self.launch(&folder, place, port).start()
        })
    }

    fn launch(&self, folder: &Folder, place: &Place, port: u16) -> Launch {
        let mut command = match (&self.root, folder.user) {
            (Some(root), Some(user)) => root.command(user, Path::new("/bin/sh")),
            _ => Command::new("sh"),
        };
        command.args(["-ec", START, "sh"]).arg(&self.bin).arg(folder.seen("data")).current_dir(&folder.path);
        command.arg("-p").arg(port.to_string());
        let mut settings = vec!["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=300"];
        if matches!(place, Place::Temporary) {
            // Not synced to disk: that would cost half of the tests' time and protect only from a crash of the machine.
            // What the tests kill is the daemon, or the server's processes, and neither loses what the kernel holds.
            settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"]);
        }
        for setting in settings {
            command.arg("-c").arg(setting);
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name); // the server reads PGDATA, PGPORT and more
        }
        // An immediate stop skips only what the next start would need; it still gives shared memory back.
        let stop = if folder.temporary { StopSignal::Quit } else { StopSignal::Int };
        let terms = Terms { stop, patience: Duration::from_secs(30), ..folder.terms(place) };
        Launch {
            command,
            terms,
            log: folder.path.join("server.log"),
            port,
            probe: probe::postgres,
            patience: launch::PATIENCE,
            origin: if self.root.is_some() { " in a Debian of its own" } else { "" },
        }
    }
}

/// `/usr/lib/postgresql/15/bin` is 15.
fn version_of(bin: &Path) -> u32 {
    let folder = bin.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    folder.and_then(|name| name.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let newest = ["9", "16", "15"].map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
        assert_eq!(newest.iter().max_by_key(|bin| version_of(bin)), Some(&newest[1]));
    }
}
