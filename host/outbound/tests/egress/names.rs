//! A name server that lies, changes its mind, or says nothing.

use crate::house::*;
use agentry_outbound::Secret;
use agentry_outbound::egress::{Egress, EgressSettings, HttpError, HttpGrant, SecretHeader, Stage};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpListener, UdpSocket};

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// What is answered to one question.
enum Says {
    Addresses(Vec<IpAddr>),
    /// Another name, with that name's addresses.
    Alias(&'static str, Vec<IpAddr>),
    Code(u8),
    Bytes(Vec<u8>),
    Nothing,
}

fn addresses(texts: &[&str]) -> Says {
    Says::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
}

/// A name server (RFC 1035, section 4) that asks `answer` what to say to the name's n-th question for an address of IPv4.
async fn name_server(answer: impl Fn(usize) -> Says + Send + Sync + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut packet = [0; 1_500];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            let question = &packet[..length];
            let name_end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
            let kind = u16::from_be_bytes([question[name_end], question[name_end + 1]]);
            // IPv6 is asked for at the same time, and hears the same.
            let nth = if kind == A { count.fetch_add(1, Ordering::SeqCst) } else { count.load(Ordering::SeqCst) };
            if let Some(reply) = reply(&question[..name_end + 4], kind, answer(nth)) {
                socket.send_to(&reply, peer).await.unwrap();
            }
        }
    });
    (address, asked)
}

fn reply(question: &[u8], kind: u16, says: Says) -> Option<Vec<u8>> {
    let (code, alias, addresses) = match says {
        Says::Addresses(addresses) => (0, None, addresses),
        Says::Alias(name, addresses) => (0, Some(name), addresses),
        Says::Code(code) => (code, None, Vec::new()),
        Says::Bytes(bytes) => return Some([&question[..2], &bytes].concat()),
        Says::Nothing => return None,
    };
    let mut records = Vec::new();
    // The question's name, or the alias.
    let mut owner = vec![0xc0, 0x0c];
    let mut record = |owner: &[u8], kind: u16, data: &[u8]| {
        records.push([owner, &kind.to_be_bytes(), &[0, 1], &[0; 4], &(data.len() as u16).to_be_bytes(), data].concat());
    };
    if let Some(alias) = alias {
        let labels = alias.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
        let target: Vec<u8> = labels.chain([0]).collect();
        record(&owner, CNAME, &target);
        owner = target;
    }
    for address in addresses {
        match address {
            IpAddr::V4(address) if kind == A => record(&owner, A, &address.octets()),
            IpAddr::V6(address) if kind == AAAA => record(&owner, AAAA, &address.octets()),
            _ => {}
        }
    }
    let count = (records.len() as u16).to_be_bytes();
    let head = [&question[..2], &[0x81, 0x80 | code], &[0, 1], &count, &[0; 4], &question[12..]].concat();
    Some([head, records.concat()].concat())
}

/// The good one, at 127.0.0.2, which is opened; and a forbidden one at the same port of 127.0.0.1. Each closes its connections, so
/// that a name is asked for with every request.
struct Pair {
    good: Server,
    bad: Server,
}

impl Pair {
    async fn new() -> Pair {
        let answer = |mut stream| async move {
            head(&mut stream).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.0 200 OK\r\n\r\nok").await;
        };
        loop {
            let good = TcpListener::bind("127.0.0.2:0").await.unwrap();
            let bad = TcpListener::bind(("127.0.0.1", good.local_addr().unwrap().port())).await;
            // Somebody else may have that port.
            if let Ok(bad) = bad {
                return Pair { good: Server::on(good, answer), bad: Server::on(bad, answer) };
            }
        }
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/", self.good.address.port())
    }

    fn settings(&self, nameserver: SocketAddr) -> EgressSettings {
        EgressSettings { nameservers: vec![nameserver], private: vec![network("127.0.0.2/32", None)], ..closed() }
    }
}

#[tokio::test]
async fn a_name_that_moves_inward_is_not_followed() {
    let pair = Pair::new().await;
    let (server, asked) = name_server(|nth| addresses(if nth == 0 { &["127.0.0.2"] } else { &["127.0.0.1"] })).await;
    let client = client(pair.settings(server));
    assert_eq!(get(&client, pair.url("moves.test")).await.unwrap().body, "ok");
    for _ in 0..3 {
        let error = get(&client, pair.url("moves.test")).await.unwrap_err();
        assert_eq!(error, HttpError::ForbiddenAddress { host: "moves.test".into() });
    }
    assert_eq!((pair.good.accepted(), pair.bad.accepted()), (1, 0));
    assert_eq!(asked.load(Ordering::SeqCst), 4, "a name is asked for once for each connection");
}

#[tokio::test]
async fn a_name_is_asked_for_once_and_connected_to_what_was_judged() {
    let pair = Pair::new().await;
    // Whoever asked again would get the other address.
    let (server, asked) =
        name_server(|nth| addresses(if nth % 2 == 0 { &["127.0.0.2"] } else { &["127.0.0.1"] })).await;
    let client = client(pair.settings(server));
    for round in 0..6 {
        let answer = get(&client, pair.url("turns.test")).await;
        assert_eq!(answer.is_ok(), round % 2 == 0, "{round}: {answer:?}");
    }
    assert_eq!((pair.good.accepted(), pair.bad.accepted(), asked.load(Ordering::SeqCst)), (3, 0, 6));
}

#[tokio::test]
async fn of_good_and_bad_addresses_only_the_good_are_connected_to() {
    let pair = Pair::new().await;
    let both = ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.0.0.2", "10.0.0.1", "169.254.169.254"];
    let (server, _) = name_server(move |_| addresses(&both)).await;
    let client = client(pair.settings(server));
    for _ in 0..3 {
        assert_eq!(get(&client, pair.url("both.test")).await.unwrap().body, "ok");
    }
    assert_eq!((pair.good.accepted(), pair.bad.accepted()), (3, 0));
}

#[tokio::test]
async fn a_name_for_an_inner_address_is_refused() {
    let pair = Pair::new().await;
    let inner = [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::1",
        "fd00:ec2::254",
        "fe80::1",
        "::127.0.0.1",
    ];
    for address in inner {
        let (server, _) = name_server(move |_| addresses(&[address])).await;
        let error = get(&client(pair.settings(server)), pair.url("inner.test")).await.unwrap_err();
        assert_eq!(error, HttpError::ForbiddenAddress { host: "inner.test".into() }, "{address}");
    }
    assert_eq!(pair.bad.accepted(), 0);
}

#[tokio::test]
async fn an_alias_of_localhost_is_localhost() {
    let pair = Pair::new().await;
    let (server, _) = name_server(|_| Says::Alias("localhost", vec!["127.0.0.1".parse().unwrap()])).await;
    let error = get(&client(pair.settings(server)), pair.url("alias.test")).await.unwrap_err();
    assert_eq!(error, HttpError::ForbiddenAddress { host: "alias.test".into() });
    // An alias as such is nothing bad.
    let (server, _) = name_server(|_| Says::Alias("good.test", vec!["127.0.0.2".parse().unwrap()])).await;
    assert_eq!(get(&client(pair.settings(server)), pair.url("alias.test")).await.unwrap().body, "ok");
    assert_eq!(pair.bad.accepted(), 0);
}

#[tokio::test]
async fn a_secret_in_plain_text_goes_to_no_name_outside() {
    let pair = Pair::new().await;
    let secret = SecretHeader {
        requests: pattern("* http://*:*"),
        name: http::HeaderName::from_static("x-key"),
        value: Secret::new("canary"),
    };
    let grant = || HttpGrant { secrets: vec![secret.clone()], ..any() };
    // The last network is global, and nobody's; it is never connected to.
    let answers: [(&[&str], bool); 3] =
        [(&["127.0.0.2"], true), (&["192.31.196.1", "127.0.0.2"], true), (&["192.31.196.1"], false)];
    for (answer, goes) in answers {
        let (server, _) = name_server(move |_| addresses(answer)).await;
        let client = Egress::new(pair.settings(server)).unwrap().client(grant());
        match get(&client, pair.url("secret.test")).await {
            Ok(_) => assert!(goes, "{answer:?}"),
            Err(HttpError::Invalid { reason }) => assert!(!goes && reason.contains("plain text"), "{reason}"),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((pair.good.accepted(), pair.bad.accepted()), (2, 0));
}

#[tokio::test]
async fn an_opened_port_opens_no_other_for_a_name() {
    let pair = Pair::new().await;
    let port = pair.good.address.port();
    let (server, _) = name_server(|_| addresses(&["127.0.0.2"])).await;
    let only = |port| EgressSettings { private: vec![network("127.0.0.2/32", Some(port))], ..pair.settings(server) };
    assert_eq!(get(&client(only(port)), pair.url("port.test")).await.unwrap().body, "ok");
    let error = get(&client(only(port - 1)), pair.url("port.test")).await.unwrap_err();
    assert_eq!(error, HttpError::ForbiddenAddress { host: "port.test".into() });
    assert_eq!(pair.good.accepted(), 1);
}

#[tokio::test]
async fn a_name_without_an_address_is_an_error_that_says_so() {
    let pair = Pair::new().await;
    let none: fn() -> Says = || Says::Code(3);
    let answers = [
        (none, "there is no such name"),
        (|| addresses(&[]), "the name has no address"),
        (|| Says::Code(2), "the name servers give no usable answer"),
        (|| Says::Code(5), "the name servers give no usable answer"),
        (|| Says::Alias("none.test", Vec::new()), "the name has no address"),
    ];
    for (says, expected) in answers {
        let (server, _) = name_server(move |_| says()).await;
        let error = get(&client(pair.settings(server)), pair.url("none.test")).await.unwrap_err();
        let HttpError::Dns { host, reason } = &error else { panic!("{error:?}") };
        assert_eq!((host.as_str(), reason.as_str()), ("none.test", expected));
        assert!(!error.to_string().contains("127.0.0"), "{error}");
    }
}

#[tokio::test]
async fn a_name_server_that_is_silent_or_raves_is_given_up_on() {
    let pair = Pair::new().await;
    let answers: [fn() -> Says; 3] = [
        || Says::Nothing,
        || Says::Bytes(vec![0xff; 40]),
        || Says::Bytes(b"\x81\x80\0\x01\xff\xff\0\0\0\0\xc0\x0c".to_vec()),
    ];
    for says in answers {
        let (server, _) = name_server(move |_| says()).await;
        let client = client(EgressSettings { connect: SHORT, ..pair.settings(server) });
        let error = get(&client, pair.url("silent.test")).await.unwrap_err();
        let given_up = error == timed_out(Stage::Resolve, SHORT);
        assert!(given_up || matches!(error, HttpError::Dns { .. }), "{error:?}");
    }
    let (server, _) = name_server(|_| Says::Nothing).await;
    let client = client(EgressSettings { connect: SHORT, ..pair.settings(server) });
    assert_eq!(get(&client, pair.url("silent.test")).await.unwrap_err(), timed_out(Stage::Resolve, SHORT));
}

#[tokio::test]
async fn only_the_operators_name_servers_are_asked() {
    let pair = Pair::new().await;
    let (server, asked) = name_server(|_| addresses(&["127.0.0.2"])).await;
    let client = client(pair.settings(server));
    // The system's file of hosts has no say, and neither have its search domains.
    let own =
        std::fs::read_to_string("/etc/hostname").map_or_else(|_| "host".into(), |name| name.trim().to_lowercase());
    get(&client, pair.url(&own)).await.unwrap();
    get(&client, pair.url("plain")).await.unwrap();
    assert_eq!((asked.load(Ordering::SeqCst), pair.good.accepted(), pair.bad.accepted()), (2, 2, 0));
}

#[tokio::test]
async fn the_systems_names_are_judged_as_well() {
    let (server, _requests) = listening().await;
    let error = get(&client(closed()), format!("http://localhost:{}/", server.address.port())).await.unwrap_err();
    assert_eq!(error, HttpError::ForbiddenAddress { host: "localhost".into() });
    // Never a name (RFC 6761).
    let error = get(&client(closed()), "http://no-such-name.invalid/").await.unwrap_err();
    assert!(matches!(&error, HttpError::Dns { host, .. } if host == "no-such-name.invalid"), "{error:?}");
    assert_eq!(server.accepted(), 0);
}
