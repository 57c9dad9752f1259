//! The options of a live daemon's sockets, read by another process.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use e2e::{Mode, Site, Task};
use rustix::net::{getpeername, getsockname, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde_json::json;

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

/// Without TCP_NODELAY a statement that leaves in two writes waits some 40 ms for the server's delayed acknowledgement.
#[tokio::test]
async fn every_connection_to_broker_database_and_clients_has_nodelay() {
    let site = Site::new(Mode::Services).await;
    // Its files are looked at from outside, which only root may do otherwise.
    let daemon = site.setup().variable("AGENTRY_DEBUGGABLE", "1").start().await;
    let asked = Task::new("word-count", json!({"text": "one two"}));
    site.submit(&daemon, std::slice::from_ref(&asked)).await;
    daemon.http().ended(asked.id).await;
    let broker = port_of(site.broker_url());
    let database = port_of(&site.database_url());
    let api = port_of(daemon.http().base());
    let all = connections(daemon.pid());
    for (name, port) in [("broker", broker), ("database", database), ("API", api)] {
        let these: Vec<&Connection> =
            all.iter().filter(|c| (if name == "API" { c.own } else { c.peer }).port() == port).collect();
        assert!(!these.is_empty(), "the daemon has no connection of the {name} (port {port})");
        let slow: Vec<_> = these.iter().filter(|c| !c.nodelay).map(|c| (c.own, c.peer)).collect();
        assert!(slow.is_empty(), "connections of the {name} without TCP_NODELAY: {slow:?}");
    }
}
