//! No spelling of an address leads inside, unless the operator opened it.

use std::collections::BTreeMap;

use e2e::outside::reach::{self, grant, kind, ok, results};
use e2e::outside::{Play, Server};
use e2e::{Mode, Setup, Site};
use serde_json::{Value, json};

use super::run;

/// The machine itself, as an authority may spell it. Behind each comes the port of a server that listens.
const LOOPBACK: [&str; 36] = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7F.0.0.1",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "127.000.000.001",
    "127.0.0.1.",
    "127.8.8.8",
    "0.0.0.0",
    "0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "www.localhost",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "user@127.0.0.1",
    "example.com:80@127.0.0.1",
    "127.0.0.1\\@example.com",
    "%31%32%37.0.0.1",
    "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
    "\u{2460}\u{2461}\u{2466}.0.0.1",
    "127\u{3002}0\u{3002}0\u{3002}1",
    "\u{ff4c}ocalhost",
];

/// Metadata services, private networks, and what is no place to go. Nobody listens there, so that only the record tells
/// whether somebody tried.
const INSIDE: [&str; 20] = [
    "169.254.169.254",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "10.0.0.1",
    "0xa.1",
    "172.16.0.1",
    "192.168.0.1",
    "3232235521",
    "100.64.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "[ff02::1]",
];

/// Everything on the network that a pattern can say.
fn wide(site: &Site) -> Setup {
    grant(reach::setup(site), "http", json!(["GET http://*:*", "GET https://*:*"]))
}

/// A request whose path tells which it is.
fn raw(authority: &str, tls: bool, path: usize) -> Value {
    json!({"raw_http": {"tls": tls, "authority": authority, "path": format!("/{path}")}})
}

async fn listening() -> Server {
    Server::start(|_| Play::text(200, "inside")).await
}

#[tokio::test]
async fn with_the_widest_grant_no_spelling_of_an_address_leads_inside() {
    let site = Site::new(Mode::Services).await;
    let server = listening().await;
    let daemon = wide(&site).start().await;
    let with_port = LOOPBACK.iter().map(|host| format!("{host}:{}", server.port()));
    let authorities: Vec<String> = with_port.chain(INSIDE.map(str::to_owned)).collect();
    for tls in [false, true] {
        let steps = authorities.iter().enumerate().map(|(n, authority)| raw(authority, tls, n));
        let task = reach::reach(steps);
        let id = task.id;
        let results = results(&run(&site, &daemon, task).await);
        let records: BTreeMap<usize, Value> = daemon
            .http()
            .calls(id)
            .await
            .into_iter()
            .filter_map(|call| Some((call["target"].as_str()?.rsplit('/').next()?.parse().ok()?, call)))
            .collect();
        let mut recorded = 0;
        for (n, (authority, result)) in authorities.iter().zip(&results).enumerate() {
            let kind = kind(result);
            let Some(record) = records.get(&n) else {
                assert_eq!(kind, "invalid_request", "{authority}: it was no request, or it has a record: {result}");
                continue;
            };
            recorded += 1;
            let word = record["result"].as_str().unwrap_or_default();
            let expected: &[&str] = match authority {
                // A name may be unknown to the machine; an address is never asked for, nor connected to.
                name if name.contains("localhost.") => &["invalid"],
                name if name.contains("localhost") => &["forbidden_address", "dns"],
                user if user.contains('@') => &["invalid"],
                _ => &["forbidden_address"],
            };
            assert!(expected.contains(&word), "{authority}: {record}");
        }
        assert!(recorded >= 50, "most are requests for the host to judge: {recorded}");
    }
    assert_eq!(server.connections(), 0, "{:?}", server.requests());
    daemon.stop().await;
}

#[tokio::test]
async fn an_address_in_the_wishes_of_a_plugin_opens_nothing() {
    let site = Site::new(Mode::Services).await;
    let server = listening().await;
    let setup = wide(&site);
    let asking = site.folder().join("plugins/reach");
    e2e::plugin::edit(&asking, "\"* http://*:*\"", &format!("\"GET http://127.0.0.1:{}\"", server.port()));
    let daemon = setup.start().await;
    let task = reach::reach([reach::get(server.url("/")), raw(&format!("127.1:{}", server.port()), false, 1)]);
    let id = task.id;
    assert!(results(&run(&site, &daemon, task).await).iter().all(|result| result.get("error").is_some()));
    let calls = daemon.http().calls(id).await;
    assert!(calls.len() == 2 && calls.iter().all(|call| call["result"] == "forbidden_address"), "{calls:?}");
    assert_eq!(server.connections(), 0);
    daemon.stop().await;
}

#[tokio::test]
async fn what_the_operator_opens_is_reached_and_no_other_port() {
    let site = Site::new(Mode::Services).await;
    let (open, closed) = (listening().await, listening().await);
    let daemon = wide(&site).set("http.private", vec![format!("127.0.0.1:{}", open.port())]).start().await;
    // The spellings that would have led there, had it been open.
    let spellings = ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "[::ffff:127.0.0.1]"];
    let at = |server: &Server| {
        let port = server.port();
        spellings.iter().enumerate().map(|(n, host)| raw(&format!("{host}:{port}"), false, n)).collect::<Vec<_>>()
    };
    let other = format!("127.0.0.2:{}", open.port());
    let task = reach::reach([at(&open), at(&closed), vec![raw(&other, false, 99)]].concat());
    let id = task.id;
    let results = results(&run(&site, &daemon, task).await);
    let (reached, refused) = results.split_at(spellings.len());
    for (spelling, result) in spellings.iter().zip(reached) {
        assert_eq!(ok(result), &json!(200), "{spelling}: {result}");
    }
    assert!(refused.iter().all(|result| result.get("error").is_some()), "{refused:?}");
    assert!(open.connections() > 0);
    assert_eq!(closed.connections(), 0);
    let calls = daemon.http().calls(id).await;
    assert!(calls.iter().any(|call| call["result"] == "forbidden_address"), "{calls:?}");
    assert!(calls.iter().all(|call| !matches!(call["result"].as_str(), Some("connect" | "timed_out"))), "{calls:?}");
    daemon.stop().await;
}
