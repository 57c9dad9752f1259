//! Addresses that a plugin may not reach, in every spelling. A server listens, so that a connection would be seen.

use crate::house::*;
use agentry_outbound::egress::{Egress, EgressSettings, HttpError, HttpGrant};
use tokio::net::TcpListener;

/// Of this host, as far as anybody reads them so.
const LOOPBACK: &[&str] = &[
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "127.0.0.2",
    "2130706433",
    "017700000001",
    "0177.0.0.1",
    "0177.1",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7F.1",
    "0x7f.0x0.0x0.0x1",
    "00000177.0.0.1",
    "127.0.0.1.",
    "0",
    "0.0.0.0",
    "0x0",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000::0001]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:7F00:0001]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::]",
    "[2002:7f00:1::1]",
    "[2001:0:7f00:1::1]",
    "[2001:0:808:808::80ff:fffe]",
    "localhost",
    "LOCALHOST",
    "LocalHost",
];

/// Of the network around, and of what answers for the machine there.
const INSIDE: &[&str] = &[
    "169.254.169.254",
    "2852039166",
    "0xA9FEA9FE",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fec0::1]",
    "[fc00::1]",
    "10.0.0.1",
    "10.1",
    "012.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "192.168.257",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "[ff02::1]",
    "[100::1]",
    "[::ffff:10.0.0.1]",
];

#[tokio::test]
async fn no_spelling_of_an_inner_address_is_reached() {
    let (server, _requests) = listening().await;
    let (client, port) = (client(closed()), server.address.port());
    for host in LOOPBACK.iter().chain(INSIDE) {
        for scheme in ["http", "https"] {
            let error = get(&client, format!("{scheme}://{host}:{port}/")).await.unwrap_err();
            assert!(matches!(error, HttpError::ForbiddenAddress { .. }), "{host}: {error:?}");
        }
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_url_that_two_readers_read_differently_is_not_sent() {
    let (server, _requests) = listening().await;
    let client = client(open());
    let port = server.address.port();
    let urls = [
        format!("http://allowed.test@127.0.0.1:{port}/"),
        format!("http://allowed.test:80@127.0.0.1:{port}/"),
        format!("http://@127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}@allowed.test/"),
        format!("http://a:b@127.0.0.1:{port}/"),
        "http://allowed.test./".into(),
        "http://127.0.0.1:0/".into(),
    ];
    for url in urls {
        // Some are no URL to the guest's own library already.
        let Ok(request) = http::Request::get(&url).body(empty()) else { continue };
        let error = send(&client, request, exchange()).await.unwrap_err();
        assert!(matches!(error, HttpError::Invalid { .. }), "{url}: {error:?}");
    }
    for url in ["/", "*", "127.0.0.1:80", "ftp://127.0.0.1/", "file://127.0.0.1/etc/passwd", "HTTPX://127.0.0.1/"] {
        let request = http::Request::builder().uri(url).body(empty()).unwrap();
        let error = send(&client, request, exchange()).await.unwrap_err();
        assert!(matches!(error, HttpError::Invalid { .. }), "{url}: {error:?}");
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn odd_hosts_never_become_a_request_to_loopback() {
    let (server, _requests) = listening().await;
    let client = client(closed());
    let port = server.address.port();
    let hosts = [
        "127.0.0.1\\@allowed.test",
        "allowed.test\\@127.0.0.1",
        "127.0.0.1%00.allowed.test",
        "127.0.0.1%2f",
        "%31%32%37.0.0.1",
        "①②⑦.⓪.⓪.①",
        "１２７.0.0.1",
        "127。0。0。1",
        "[::1%25lo]",
        "[::1%lo]",
        "127.0.0.1#@allowed.test",
        "ⓛocalhost",
        "localhost%2e",
        "[::ffff:127.0.0.1",
        "::1",
        "127.0.0.1:80",
        "256.0.0.1",
        "127.0.0.0.1",
        "0x7f.1.1.1.1",
    ];
    for host in hosts {
        let Ok(request) = http::Request::get(format!("http://{host}:{port}/")).body(empty()) else { continue };
        send(&client, request, exchange()).await.unwrap_err();
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn an_address_that_the_operator_opened_is_reached_on_its_port() {
    let (server, _requests) = listening().await;
    let (other, _none) = listening().await;
    let port = server.address.port();
    let client = client(EgressSettings { private: vec![network("127.0.0.1/32", Some(port))], ..closed() });
    for host in ["127.0.0.1", "127.1", "localhost"] {
        get(&client, format!("http://{host}:{port}/")).await.unwrap_or_else(|e| panic!("{host}: {e}"));
    }
    for url in
        [other.url("/"), format!("http://localhost:{}/", other.address.port()), format!("http://127.0.0.2:{port}/")]
    {
        let error = get(&client, &url).await.unwrap_err();
        assert!(matches!(error, HttpError::ForbiddenAddress { .. }), "{url}: {error:?}");
    }
    assert_eq!(other.accepted(), 0);
}

#[tokio::test]
async fn an_address_in_a_grant_opens_itself_if_the_operator_wrote_it() {
    let (server, _requests) = listening().await;
    let (url, port) = (server.url("/"), server.address.port());
    let egress = Egress::new(closed()).unwrap();
    let own = pattern(&format!("* http://127.0.0.1:{port}"));
    let with = |requests| egress.client(HttpGrant { requests, secrets: Vec::new() });
    // As a plugin wishes it, alone or under the operator's star.
    let wishes = [own.clone(), own.meet(&pattern("* http://*:*").by_operator()).unwrap()];
    for wish in wishes {
        let error = get(&with(vec![wish]), &url).await.unwrap_err();
        assert_eq!(error, HttpError::ForbiddenAddress { host: "127.0.0.1".into() });
    }
    assert_eq!(server.accepted(), 0);
    let granted = with(vec![pattern("* http://*:*").meet(&own.by_operator()).unwrap(), pattern("* http://*:*")]);
    get(&granted, &url).await.unwrap();
    get(&granted, format!("http://0x7f.1:{port}/")).await.unwrap();
    // That one, as a host that is written; no name for it, and no neighbour.
    for host in ["localhost", "127.0.0.2", "[::ffff:7f00:1]"] {
        let error = get(&granted, format!("http://{host}:{port}/")).await.unwrap_err();
        assert!(matches!(error, HttpError::ForbiddenAddress { .. }), "{host}: {error:?}");
    }
}

#[tokio::test]
async fn ipv6_works_where_it_is_opened() {
    let listener = TcpListener::bind("[::1]:0").await.expect("IPv6 on loopback");
    let (asked, _requests) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::on(listener, move |stream| keep(stream, asked.clone()));
    get(&client(open()), server.url("/")).await.unwrap();
    let error = get(&client(closed()), server.url("/")).await.unwrap_err();
    assert_eq!(error, HttpError::ForbiddenAddress { host: "[::1]".into() });
}
