//! A PostgreSQL of one's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};

use super::certificate::Certificate;
use super::{User, command_in, find, folder, free_port, seen, spawn, user_of};
use crate::daemon::{exited_quietly, run_command};
use crate::patience::eventually;
use crate::variables;

/// How a server is stopped.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// Connections are ended, everything is written (`pg_ctl stop -m fast`).
    Fast,
    /// As a crash: the next start recovers from the log (`pg_ctl stop -m immediate`).
    Immediate,
}

/// It runs, unless it was stopped. Dropped: gone.
pub struct Server {
    folder: tempfile::TempDir,
    /// The Debian that it runs in, if not the machine's own.
    root: Option<PathBuf>,
    /// As it sees them.
    programs: PathBuf,
    user: Option<User>,
    port: u16,
    certificate: Certificate,
    process: Child,
}

impl Server {
    /// Starts one.
    pub async fn start() -> Self {
        let root = variables::postgres_root();
        let user = user_of("postgres", root.as_deref()).await;
        let folder = folder("postgres", user, root.as_deref());
        let all = root.as_deref().unwrap_or(Path::new("/")).join("usr/lib/postgresql");
        let versions = std::fs::read_dir(all).into_iter().flatten().flatten();
        let programs = find(versions.map(|version| version.path().join("bin")), &["initdb", "postgres"]);
        let programs = seen(&programs, root.as_deref());
        let mut init = command_in(root.as_deref(), &programs.join("initdb"), user);
        init.arg("-D").arg(seen(&folder.path().join("data"), root.as_deref())).current_dir(folder.path());
        init.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        let ended = run_command(&mut init).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let port = free_port();
        let certificate = Certificate::make(folder.path(), user);
        let command = server(&programs, &folder, root.as_deref(), user, port, &certificate);
        let process = spawn(command, &folder.path().join("server.log"));
        let server = Self { folder, root, programs, user, port, certificate, process };
        server.answers().await;
        server
    }

    /// Its URL, as its superuser.
    pub fn url(&self) -> reqwest::Url {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", self.port);
        url.parse().expect("a URL")
    }

    /// Its certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Stops it; what it has on disk stays.
    pub async fn stop(&mut self, how: Stop) {
        self.signal(match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        });
        exited_quietly(&mut self.process).await;
    }

    /// Starts it again, after [`Server::stop`].
    pub async fn start_again(&mut self) {
        let (root, user) = (self.root.as_deref(), self.user);
        let command = server(&self.programs, &self.folder, root, user, self.port, &self.certificate);
        self.process = spawn(command, &self.folder.path().join("server.log"));
        self.answers().await;
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a process id");
        let _ = kill_process(pid, signal); // it may have ended
    }

    async fn answers(&self) {
        eventually("the private server answers", async || {
            let connection = PgConnection::connect(self.url().as_str()).await.map_err(|error| error.to_string())?;
            let _ = connection.close().await; // it ends anyway
            Ok(())
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            self.signal(Signal::QUIT); // which still gives shared memory back
        }
        let _ = self.process.wait();
    }
}

fn server(
    programs: &Path,
    folder: &tempfile::TempDir,
    root: Option<&Path>,
    user: Option<User>,
    port: u16,
    certificate: &Certificate,
) -> Command {
    let mut command = command_in(root, &programs.join("postgres"), user);
    command.arg("-D").arg(seen(&folder.path().join("data"), root)).arg("-p").arg(port.to_string());
    command.current_dir(folder.path());
    // Not synced to disk, which protects only from a crash of the machine. But written before it is called committed: an
    // immediate stop loses what a server has not given to the kernel.
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=300",
        "fsync=off",
        "full_page_writes=off",
    ] {
        command.arg("-c").arg(setting);
    }
    command.args(["-c", "ssl=on"]);
    command.arg("-c").arg(format!("ssl_cert_file={}", seen(&certificate.certificate, root).display()));
    command.arg("-c").arg(format!("ssl_key_file={}", seen(&certificate.key, root).display()));
    command
}
