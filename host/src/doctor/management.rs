//! RabbitMQ's management API: what AMQP does not show. Asked only where `broker.management_url` is set.

use super::{Check, PATIENCE, within};
use crate::broker::amqp::AmqpAddress;
use crate::config::Settings;
use crate::db::HostRow;
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use url::Url;

const NAME: &str = "broker.management";
/// The longest answer that is read, in bytes.
const LONGEST: usize = 16 << 20;
/// Keys of a policy that change what becomes of messages in our queues, with what they do.
const CHANGING: [(&str, &str); 8] = [
    ("message-ttl", "messages expire in it"),
    ("expires", "it is deleted while it is not used"),
    ("max-length", "it rejects or drops messages"),
    ("max-length-bytes", "it rejects or drops messages"),
    ("delivery-limit", "messages leave it after fewer or more deliveries"),
    ("dead-letter-exchange", "what it returns goes elsewhere"),
    ("dead-letter-routing-key", "what it returns goes elsewhere"),
    ("overflow", "it rejects or drops messages"),
];

/// What the API returned.
#[derive(Clone, Debug, Default)]
pub(super) struct Managed {
    /// Version of the server.
    pub version: Option<String>,
    /// Nodes, as `/api/nodes` lists them.
    pub nodes: Vec<Value>,
    /// Queues at the broker, by name; an error says why one is not known.
    pub queues: BTreeMap<String, Result<Value, String>>,
}

/// Asks and judges.
pub(super) async fn check(settings: &Settings, queues: &[String], hosts: &[HostRow]) -> Check {
    let Some(url) = &settings.broker.management_url else {
        let mut check = Check::new(NAME, "");
        check.skip(
            "broker.management_url is not set: unacknowledged messages, policies, alarms and consumers are not known",
            Some(
                "set broker.management_url to http://user:password@host:15672, with a user that has the tag monitoring",
            ),
        );
        return check;
    };
    let origin = format!("broker.management_url ({})", settings.origin("broker.management_url"));
    let vhost = settings.broker.url.as_ref().and_then(|url| url.expose().parse::<AmqpAddress>().ok());
    let vhost = vhost.map_or_else(|| "/".to_owned(), |address| address.vhost().to_owned());
    let names = queues.iter().flat_map(|queue| {
        let name = format!("{}.{queue}", settings.broker.prefix);
        [name.clone(), format!("{name}.returned.v2"), format!("{name}.dead")]
    });
    let names: Vec<String> = names.collect();
    let asked = async {
        let client = Client::new(url.expose())?;
        ask(&client, &vhost, &names).await
    };
    match within(PATIENCE, asked).await {
        Ok(Ok(managed)) => judge(&managed, hosts),
        Ok(Err(why)) => Check::failed(
            NAME,
            format!("{url}: {why}"),
            format!(
                "correct {origin}, or enable the management plugin (`rabbitmq-plugins enable rabbitmq_management`)"
            ),
        ),
        Err(late) => Check::failed(
            NAME,
            format!("{url}: {late}"),
            format!("see whether the management plugin is busy, or correct {origin}"),
        ),
    }
}

async fn ask(client: &Client, vhost: &str, names: &[String]) -> Result<Managed, String> {
    let queues = names.iter().map(|name| async move { client.get(&["api", "queues", vhost, name]).await });
    let queues = join_all(queues);
    let (overview, nodes, queues) =
        tokio::join!(client.get(&["api", "overview"]), client.get(&["api", "nodes"]), queues);
    let found = overview?.ok_or("there is no management API: /api/overview was not found")?;
    // Without the tag monitoring the list of nodes is forbidden, and queues may still be seen.
    let nodes = nodes?.and_then(|nodes| nodes.as_array().cloned()).unwrap_or_default();
    let queue = |(name, answer): (&String, Result<Option<Value>, String>)| {
        let queue = answer.and_then(|queue| queue.ok_or_else(|| "it does not exist".to_owned()));
        (name.clone(), queue)
    };
    Ok(Managed {
        version: found["rabbitmq_version"].as_str().map(str::to_owned),
        nodes,
        queues: names.iter().zip(queues).map(queue).collect(),
    })
}

/// Alarms, policies and consumers.
pub(super) fn judge(managed: &Managed, hosts: &[HostRow]) -> Check {
    let queues = || managed.queues.iter().filter_map(|(name, queue)| Some((name, queue.as_ref().ok()?)));
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let unacknowledged: i64 = queues().map(|(_, queue)| number(&queue["messages_unacknowledged"])).sum();
    let listed: Vec<Value> = managed
        .queues
        .iter()
        .map(|(name, queue)| match queue {
            Ok(queue) => json!({
                "name": name, "ready": queue["messages_ready"], "unacknowledged": queue["messages_unacknowledged"],
                "consumers": queue["consumers"], "type": queue["type"], "state": queue["state"], "policy": queue["policy"],
                "operator_policy": queue["operator_policy"], "effective_policy": queue["effective_policy_definition"],
            }),
            Err(why) => json!({"name": name, "error": why}),
        })
        .collect();
    let mut check = Check::new(NAME, format!("{unacknowledged} unacknowledged, no alarm"))
        .with(json!({"version": managed.version, "queues": listed, "nodes": managed.nodes.len()}));
    for node in &managed.nodes {
        let name = node["name"].as_str().unwrap_or("a node");
        for (key, what) in [("mem_alarm", "memory"), ("disk_free_alarm", "disk")] {
            if node[key] == true {
                check.summary = format!("{unacknowledged} unacknowledged, an alarm is on");
                check.fail(
                    format!("{name} has a {what} alarm: the broker accepts no messages"),
                    format!("free {what} on {name}, or raise its limit; tasks wait in the database meanwhile"),
                );
            }
        }
        if node["running"] == false {
            check.warn(format!("{name} is not running"), "start it; a quorum queue needs most of its members");
        }
        if node["partitions"].as_array().is_some_and(|others| !others.is_empty()) {
            check.fail(
                format!("{name} is cut off from a part of the cluster"),
                "repair the network, and restart the node if it stays",
            );
        }
    }
    for (name, queue) in queues() {
        policies(&mut check, name, queue);
        consumers(&mut check, name, queue, hosts);
    }
    check
}

fn policies(check: &mut Check, name: &str, queue: &Value) {
    let names = ["policy", "operator_policy"].map(|key| queue[key].as_str().unwrap_or_default());
    let policy = names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(", ");
    let effective = queue["effective_policy_definition"].as_object();
    for (key, effect) in CHANGING {
        if let Some(value) = effective.and_then(|definition| definition.get(key)) {
            check.warn(
                format!("a policy ({policy}) sets {key} = {value} on the queue {name}: {effect}"),
                "exclude the queue from the policy's pattern, unless this is intended (`rabbitmqctl list_policies`)",
            );
        }
    }
    if queue["type"].as_str().is_some_and(|kind| kind != "quorum") {
        check.fail(
            format!("the queue {name} is of the type {}, and quorum is needed", queue["type"]),
            "set another broker.prefix, or let the queue run empty, delete it, and start the daemon",
        );
    }
}

/// Consumers of a queue of tasks that are no live host. A tag begins with the name of its host.
fn consumers(check: &mut Check, name: &str, queue: &Value, hosts: &[HostRow]) {
    let details = queue["consumer_details"].as_array().map(Vec::as_slice).unwrap_or_default();
    for consumer in details {
        let tag = consumer["consumer_tag"].as_str().unwrap_or_default();
        let is_known = hosts.iter().any(|host| {
            let name = host.record.name.as_bytes();
            // The names of connections and consumers are cut.
            let name = &name[..name.len().min(100)];
            tag.as_bytes().starts_with(name)
        });
        if !is_known {
            let user = consumer["channel_details"]["user"].as_str().unwrap_or("unknown");
            let peer = consumer["channel_details"]["peer_host"].as_str().unwrap_or("unknown");
            check.warn(
                format!(
                    "the queue {name} has a consumer that is no host of this database: {tag} (user {user}, from {peer})"
                ),
                "stop it, or give it another queue; a daemon with another database.url needs another broker.prefix",
            );
        }
    }
}

/// The API with its credentials, which stand in no address and no error.
struct Client {
    http: reqwest::Client,
    base: Url,
    user: String,
    password: String,
}

impl Client {
    fn new(address: &str) -> Result<Client, String> {
        let mut base = Url::parse(address).map_err(|error| error.to_string())?;
        let (user, password) = (decoded(base.username()), decoded(base.password().unwrap_or_default()));
        // Neither fails for an address that may have both.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        base.set_query(None);
        base.set_fragment(None);
        let tls = agentry_outbound::system_tls(&base)?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_backend_preconfigured(tls)
            .connect_timeout(PATIENCE)
            .build()
            .map_err(|error| error.without_url().to_string())?;
        Ok(Client { http, base, user, password })
    }

    /// The JSON at a path; `None`: there is nothing there.
    async fn get(&self, path: &[&str]) -> Result<Option<Value>, String> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let place = format!("/{}", path.join("/"));
        let asked = self.http.get(url).basic_auth(&self.user, Some(&self.password)).send().await;
        let mut response = asked.map_err(|error| format!("it does not respond ({})", innermost(error)))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(format!(
                    "{place} is forbidden to the user {:?}: wrong password, or the tag monitoring is missing",
                    self.user
                ));
            }
            status => return Err(format!("{place} returned {status}")),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| format!("{place}: {}", innermost(error)))? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST {
                return Err(format!("{place} is longer than {LONGEST} bytes"));
            }
        }
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|_| format!("{place} is not JSON: is it RabbitMQ's management API?"))
    }
}

/// The innermost reason, without the address.
fn innermost(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Text of which an address holds `%XX`.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                plain.push(byte);
                at += 3;
            }
            (byte, _) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

    /// A server that answers each path from a table, and only to these credentials. Returns its address with others in it.
    async fn serve(table: &'static [(&'static str, &'static str)], expected: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let mut socket = BufReader::new(socket);
                let (mut path, mut authorized) = (String::new(), false);
                loop {
                    let mut line = String::new();
                    socket.read_line(&mut line).await.unwrap();
                    match line.trim_end() {
                        "" => break,
                        line if path.is_empty() => path = line.split(' ').nth(1).unwrap().to_owned(),
                        line => authorized |= line.to_ascii_lowercase() == format!("authorization: {expected}"),
                    }
                }
                let found = table.iter().find(|(known, _)| *known == path);
                let (status, body) = match (authorized, found) {
                    (false, _) => ("401 Unauthorized", "{}"),
                    (true, None) => ("404 Not Found", "{}"),
                    (true, Some((_, body))) => ("200 OK", *body),
                };
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
                socket.get_mut().write_all(answer.as_bytes()).await.unwrap();
            }
        });
        format!("127.0.0.1:{port}")
    }

    const TABLE: &[(&str, &str)] = &[
        ("/rabbit/api/overview", r#"{"rabbitmq_version": "4.0.5"}"#),
        ("/rabbit/api/nodes", r#"[{"name": "rabbit@a", "mem_alarm": true}]"#),
        ("/rabbit/api/queues/%2Fteam/agentry.default", r#"{"messages_unacknowledged": 3, "type": "quorum"}"#),
    ];
    /// `u:p/w` as HTTP writes it, in lower case.
    const EXPECTED: &str = "basic dtpwl3c=";

    #[tokio::test]
    async fn api_is_asked_with_the_credentials_of_the_address() {
        let server = serve(TABLE, EXPECTED).await;
        let client = Client::new(&format!("http://u:p%2Fw@{server}/rabbit")).unwrap();
        let names = ["agentry.default".to_owned(), "agentry.default.dead".to_owned()];
        let managed = ask(&client, "/team", &names).await.unwrap();
        assert_eq!(managed.version.as_deref(), Some("4.0.5"));
        assert_eq!(managed.queues["agentry.default"].as_ref().unwrap()["messages_unacknowledged"], 3);
        assert_eq!(managed.queues["agentry.default.dead"], Err("it does not exist".into()));
        let check = judge(&managed, &[]);
        assert!(check.findings.iter().any(|finding| finding.message.contains("memory alarm")), "{check:?}");
        let wrong = Client::new(&format!("http://u:s3kret@{server}/rabbit")).unwrap();
        let why = ask(&wrong, "/team", &names).await.unwrap_err();
        assert!(why.contains("forbidden") && why.contains("monitoring") && !why.contains("s3kret"), "{why}");
        let elsewhere = Client::new(&format!("http://u:p%2Fw@{server}")).unwrap();
        let why = ask(&elsewhere, "/team", &names).await.unwrap_err();
        assert!(why.contains("no management API"), "{why}");
    }

    #[test]
    fn credentials_are_decoded_and_leave_the_address() {
        let client = Client::new("http://us%40er:p%2Fw%25d%zz@127.0.0.1:15672/rabbit?x=1").unwrap();
        assert_eq!((client.user.as_str(), client.password.as_str()), ("us@er", "p/w%d%zz"));
        assert_eq!(client.base.as_str(), "http://127.0.0.1:15672/rabbit");
    }
}
