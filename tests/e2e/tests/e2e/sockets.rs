//! The options of a live daemon's sockets, read by another process.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use e2e::private::{Broker, Server};
use e2e::{Daemon, Mode, Site, Task};
use rustix::net::{getpeername, getsockname, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde_json::json;
use sqlx::{Connection as _, PgConnection, query_scalar};

/// A TCP connection of another process.
struct Connection {
    own: SocketAddr,
    peer: SocketAddr,
    nodelay: bool,
}

/// Every TCP connection of a process.
fn connections(pid: u32) -> Vec<Connection> {
    let handle = Pid::from_raw(i32::try_from(pid).expect("a pid fits")).expect("a pid is not zero");
    let handle = pidfd_open(handle, PidfdFlags::empty()).expect("the daemon runs");
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its files are listed");
    let numbers = files.filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok());
    // A file that was closed meanwhile is none of its connections.
    let copies = numbers.filter_map(|number| pidfd_getfd(&handle, number, PidfdGetfdFlags::empty()).ok());
    copies.filter_map(|file| connection(&file)).collect()
}

fn connection(file: &OwnedFd) -> Option<Connection> {
    let own = SocketAddr::try_from(getsockname(file).ok()?).ok()?;
    let peer = SocketAddr::try_from(getpeername(file).ok()??).ok()?;
    Some(Connection { own, peer, nodelay: sockopt::tcp_nodelay(file).ok()? })
}

fn port_of(url: &str) -> u16 {
    let url: reqwest::Url = url.parse().expect("a URL");
    url.port().or_else(|| (url.scheme() == "amqp").then_some(5_672)).unwrap_or(5_432)
}

/// The peer of a connection.
#[derive(Clone, Copy, Debug)]
enum End {
    /// A service that it connected to, by the service's port.
    Service(u16),
    /// A client of its API, by its own port.
    Client(u16),
}

/// Without TCP_NODELAY a statement that leaves in two writes waits some 40 ms for the server's delayed acknowledgement.
fn all_have_nodelay(daemon: &Daemon, ends: &[End]) {
    let all = connections(daemon.pid());
    for end in ends {
        let these = all.iter().filter(|connection| match end {
            End::Service(port) => connection.peer.port() == *port,
            End::Client(port) => connection.own.port() == *port,
        });
        let these: Vec<&Connection> = these.collect();
        assert!(!these.is_empty(), "the daemon has no connection: {end:?}");
        let slow: Vec<_> = these.iter().filter(|c| !c.nodelay).map(|c| (c.own, c.peer)).collect();
        assert!(slow.is_empty(), "connections without TCP_NODELAY, {end:?}: {slow:?}");
    }
}

/// Runs a task, so that each part of the daemon has connected.
async fn use_all(site: &Site, daemon: &Daemon) {
    let asked = Task::new("word-count", json!({"text": "one two"}));
    site.submit(daemon, std::slice::from_ref(&asked)).await;
    daemon.http().ended(asked.id).await;
}

#[tokio::test]
async fn every_connection_to_broker_database_and_clients_has_nodelay() {
    let site = Site::new(Mode::Services).await;
    // Its files are looked at from outside, which only root may do otherwise.
    let daemon = site.setup().variable("AGENTRY_DEBUGGABLE", "1").start().await;
    use_all(&site, &daemon).await;
    let broker = End::Service(port_of(site.broker_url()));
    let database = End::Service(port_of(&site.database_url()));
    all_have_nodelay(&daemon, &[broker, database, End::Client(port_of(daemon.http().base()))]);
}

#[tokio::test]
async fn every_connection_over_tls_has_nodelay() {
    let (broker, server) = tokio::join!(Broker::start(""), Server::start());
    let site = Site::private(&broker.url(), &server.url()).await;
    let mut database: reqwest::Url = site.database_url().parse().expect("a URL");
    database.set_host(Some("localhost")).expect("a URL with a host");
    let [of_broker, of_server] = [broker.certificate(), server.certificate()];
    let authority = of_server.certificate.to_str().expect("a path that is text");
    database.query_pairs_mut().append_pair("sslmode", "verify-full").append_pair("sslrootcert", authority);
    let setup = site.setup().set("broker.url", broker.tls_url()).set("database.url", database.as_str());
    let setup = setup.https(of_broker).variable("SSL_CERT_FILE", &of_broker.certificate);
    let daemon = setup.variable("AGENTRY_DEBUGGABLE", "1").start().await;
    use_all(&site, &daemon).await;
    let plain = port_of(&broker.url());
    assert!(connections(daemon.pid()).iter().all(|connection| connection.peer.port() != plain));
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name LIKE 'agentry/%'";
    let mut outsider = PgConnection::connect(&site.database_url()).await.expect("its database answers");
    let encrypted: Option<bool> = query_scalar(encrypted).fetch_one(&mut outsider).await.expect("it answers");
    assert_eq!(encrypted, Some(true), "whether every connection to the database is encrypted");
    all_have_nodelay(&daemon, &[End::Service(port_of(&broker.tls_url())), End::Service(port_of(database.as_str()))]);
}
