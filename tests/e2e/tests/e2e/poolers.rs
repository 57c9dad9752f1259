//! PgBouncer between the daemon and its database, with the defaults of PgBouncer but for the mode.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use e2e::forward::free_port;
use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, eventually, probe, task, variables};

/// PgBouncer in front of the tests' server. Dropped: killed.
struct Pooler {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

impl Pooler {
    async fn start(mode: &str) -> Self {
        let places = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
        let program = places.iter().find(|place| Path::new(place).exists());
        let program = program.expect("pgbouncer is installed; cargo xtask test skips this test without it");
        let server = variables::postgres();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let (users, settings) = (folder.path().join("users"), folder.path().join("pgbouncer.ini"));
        let login = format!("\"{}\" \"{}\"\n", server.username(), server.password().unwrap_or_default());
        std::fs::write(&users, login).expect("the users are written");
        let text = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = {mode}\n",
            server.host_str().expect("a host"),
            server.port().unwrap_or(5432),
            users.display()
        );
        std::fs::write(&settings, text).expect("the settings are written");
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).expect("the folder is opened");
        let mut command = Command::new(program);
        command.arg(&settings).stdout(Stdio::null()).stderr(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.arg("--user=nobody"); // it refuses to run as root
        }
        let pooler = Self { child: command.spawn().expect("pgbouncer starts"), port, _folder: folder };
        eventually("pgbouncer listens", async || {
            let connected = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await;
        pooler
    }

    /// The site's database through it.
    fn url(&self, site: &Site) -> String {
        let mut url: reqwest::Url = site.database_url().parse().expect("an address");
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.set_port(Some(self.port)).expect("a port");
        url.to_string()
    }
}

#[tokio::test]
async fn fifty_tasks_run_through_a_pooler_in_session_mode() {
    let pooler = Pooler::start("session").await;
    let site = Site::new(Mode::Services).await;
    let daemon = site.setup().set("database.url", pooler.url(&site)).start().await;
    let mut tasks: Vec<_> = (0..30).map(|_| probe::echo("x".into())).collect();
    tasks.extend((0..20).map(|_| probe::sleep(300))); // these are claimed
    site.publish(&tasks).await;
    let ids = task::ids(&tasks);
    site.once_each(&daemon, &ids).await;
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

#[tokio::test]
async fn a_pooler_in_transaction_mode_ends_the_start_in_one_line() {
    let pooler = Pooler::start("transaction").await;
    let site = Site::new(Mode::Services).await;
    let ended = site.setup().set("database.url", pooler.url(&site)).run_to_end().await;
    ended.expect(2, &["PgBouncer", "pool_mode = session"]);
    let said: Vec<_> = ended.stderr.lines().filter(|line| line.contains("pool_mode")).collect();
    assert_eq!(said.len(), 1, "{ended:?}");
}
