//! Producers that know nothing of the daemon: messages as common clients send them, and replies as they await them.

use e2e::amqp::Outgoing;
use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, Task, eventually, probe};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, ByteArray, FieldArray, FieldTable};
use serde_json::{Value, json};
use uuid::Uuid;

/// A task with the properties of one client, and no other.
fn sent(task: &Task, properties: BasicProperties) -> Outgoing {
    Outgoing { body: task.body().to_string().into_bytes(), properties }
}

fn typed(content_type: &'static str, content_encoding: &'static str) -> BasicProperties {
    let mut properties = BasicProperties::default().with_delivery_mode(2);
    if !content_type.is_empty() {
        properties = properties.with_content_type(content_type.into());
    }
    if !content_encoding.is_empty() {
        properties = properties.with_content_encoding(content_encoding.into());
    }
    properties
}

/// A value of every type that a header may have.
fn every_type() -> FieldTable {
    let mut table = FieldTable::default();
    let decimal = lapin::types::DecimalValue { scale: 2, value: 275 };
    let mut deep = FieldTable::default();
    deep.insert("x".into(), AMQPValue::Void);
    for (name, value) in [
        ("boolean", AMQPValue::Boolean(true)),
        ("byte", AMQPValue::ShortShortInt(-1)),
        ("short", AMQPValue::ShortInt(-2)),
        ("int", AMQPValue::LongInt(-3)),
        ("long", AMQPValue::LongLongInt(-4)),
        ("float", AMQPValue::Float(1.5)),
        ("double", AMQPValue::Double(2.5)),
        ("decimal", AMQPValue::DecimalValue(decimal)),
        ("time", AMQPValue::Timestamp(1_700_000_000)),
        ("bytes", AMQPValue::ByteArray(ByteArray::from(vec![0xff, 0]))),
        ("text", AMQPValue::LongString(vec![0xff, b'a', 0].into())),
        ("list", AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Void, AMQPValue::Boolean(false)]))),
        ("table", AMQPValue::FieldTable(deep)),
        ("void", AMQPValue::Void),
        ("traceparent", AMQPValue::FieldArray(FieldArray::default())),
    ] {
        table.insert(name.into(), value);
    }
    table
}

#[tokio::test]
async fn messages_of_common_clients_run() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let properties = [
        typed("application/json", "utf-8"),
        typed("text/plain", "UTF-8"),
        typed("application/octet-stream", ""),
        typed("text/plain", ""),
        typed("application/data", "binary"),
        typed("", ""),
        typed("application/json;charset=UTF-8", "identity"),
        typed("application/vnd.example+json", "US-ASCII"),
        typed("application/json", "utf-8").with_headers(every_type()),
    ];
    let tasks: Vec<Task> = properties.iter().map(|_| probe::echo(json!("x"))).collect();
    let messages = tasks.iter().zip(properties).map(|(task, properties)| sent(task, properties));
    site.amqp().publish(site.prefix(), "default", messages).await;
    let mut ids: Vec<Uuid> = Vec::new();
    for task in &tasks {
        assert_eq!(daemon.http().ended(task.id).await["state"], "completed");
        ids.push(task.id);
    }
    // The plugin as bytes, the options as a table, an id that is not a UUID, and a byte order mark.
    let mut options = FieldTable::default();
    options.insert("priority".into(), AMQPValue::LongInt(3));
    let mut headers = FieldTable::default();
    headers.insert("agentry-plugin".into(), AMQPValue::ByteArray(ByteArray::from(b"word-count".to_vec())));
    headers.insert("agentry-options".into(), AMQPValue::FieldTable(options));
    let order = Uuid::new_v5(&"5b6f1f0e-6a5c-4f0b-9d0e-0c1d6f2a7e11".parse().expect("a UUID"), b"order-17");
    let headed = Outgoing {
        body: "\u{feff}{\"text\": \"a b\"}".into(),
        properties: typed("text/plain", "").with_headers(headers).with_message_id("order-17".into()),
    };
    site.amqp().publish(site.prefix(), "default", [headed.clone(), headed]).await;
    let task = daemon.http().ended(order).await;
    assert_eq!((&task["state"], &task["plugin"]), (&json!("completed"), &json!("word-count")), "{task}");
    ids.push(order);
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

#[tokio::test]
async fn a_redrive_repairs_what_a_letter_died_of() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let task = Task::new("word-count", json!({"text": "a b"}));
    let mut body = task.body();
    body["id"] = json!("order-17");
    let letter = Outgoing { body: body.to_string().into_bytes(), properties: typed("text/xml", "gzip") };
    site.amqp().publish(site.prefix(), "default", [letter]).await;
    let database = site.database().await;
    eventually("it is a dead letter", async || match database.dead_letters().await.len() {
        1 => Ok(()),
        n => Err(format!("{n} are")),
    })
    .await;
    let answer = daemon.http().post("/v1/dead/redrive", &json!({"limit": 10})).await.expect(200);
    let id: Uuid = serde_json::from_value(answer["letters"][0]["task_id"].clone()).expect("an id");
    let ended = daemon.http().ended(id).await;
    assert_eq!(ended["state"], "completed", "{ended}");
    invariants::hold(&site, daemon, &[id], Expected { dead_letters: 1, ..Expected::default() }).await;
}

fn reply(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("a reply is JSON")
}

#[tokio::test]
async fn a_producer_gets_the_ended_task_where_it_waits_for_it() {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let asked = |task: &Task| task.message().with(|p| p.with_correlation_id(format!("c-{}", task.id).into()));
    // Over the pseudo-queue that belongs to a channel of the producer.
    let mut ids = Vec::new();
    for (task, state) in [(probe::echo(json!({"b": 1.0})), "completed"), (probe::fail_permanent("no"), "failed")] {
        let taken = site.amqp().call(site.prefix(), "default", asked(&task)).await;
        let told = reply(&taken.body);
        assert_eq!((&told["id"], &told["state"]), (&json!(task.id), &json!(state)), "{told}");
        assert_eq!(taken.properties.correlation_id().as_ref().map(ToString::to_string), Some(format!("c-{}", task.id)));
        assert_eq!(taken.header("agentry-state"), state);
        ids.push(task.id);
    }
    // The same message again, of a producer that missed the reply.
    let again = Task { id: ids[0], ..probe::echo(json!({"b": 1.0})) };
    let told = reply(&site.amqp().call(site.prefix(), "default", asked(&again)).await.body);
    assert_eq!((&told["id"], &told["output"]), (&json!(ids[0]), &json!({"b": 1.0})), "{told}");
    // A queue that does not exist, one of the daemon's own, and a name that some versions of RabbitMQ end the channel for: dropped and
    // counted, and nothing waits for them.
    for name in [format!("{}-nowhere", site.prefix()), site.queue("default"), "amq.rabbitmq.reply-to.!!.x".into()] {
        let lost = probe::echo(json!(1));
        let nowhere = lost.message().with(|p| p.with_reply_to(name.into()));
        site.amqp().publish(site.prefix(), "default", [nowhere]).await;
        assert_eq!(daemon.http().ended(lost.id).await["state"], "completed");
        ids.push(lost.id);
    }
    eventually("it is counted", async || {
        let metrics = daemon.http().get("/metrics").await.text;
        match metrics.contains("agentry_replies_total{outcome=\"unroutable\"} 3") {
            true => Ok(()),
            false => Err(metrics),
        }
    })
    .await;
    assert!(daemon.http().metric("agentry_replies_total{outcome=\"published\"}").await >= 3.0);
    invariants::hold(&site, daemon, &ids, Expected::default()).await;
}

#[tokio::test]
async fn a_reply_outlives_the_daemon_and_comes_from_the_next() {
    let site = Site::new(Mode::Services).await;
    let mut daemon = site.start().await;
    let task = probe::echo(json!("x"));
    let queue = format!("{}-answers", site.prefix());
    let mut arguments = e2e::amqp::quorum();
    arguments.insert("x-expires".into(), lapin::types::AMQPValue::LongInt(600_000)); // it is none of the daemon's, which the site deletes
    site.amqp().declare_queue(&queue, arguments).await;
    let message = task.message().with(|p| p.with_reply_to(queue.as_str().into()).with_correlation_id("c-1".into()));
    site.amqp().publish(site.prefix(), "default", [message]).await;
    daemon.http().ended(task.id).await;
    daemon.kill();
    daemon.start_again().await;
    eventually("the reply is there", async || {
        let (ready, _) = site.amqp().count(&queue).await?;
        if ready >= 1 { Ok(()) } else { Err("none yet".to_owned()) }
    })
    .await;
    let taken = site.amqp().take_all(&queue).await;
    assert_eq!(reply(&taken[0].body)["state"], "completed");
    invariants::hold(&site, daemon, &[task.id], Expected::default()).await;
}

#[tokio::test]
async fn what_a_start_cannot_mend_ends_it_alike_in_up_and_config_check() {
    let site = Site::new(Mode::Services).await;
    for (key, value, says) in [
        ("broker.url", "amqps://guest:guest@127.0.0.1:5671?cacertfile=/missing/ca.pem", "/missing/ca.pem"),
        ("broker.url", "amqps://guest:guest@127.0.0.1:5671?verify=verify_none", "always verified"),
        ("database.url", "postgres://u:p4ss@127.0.0.1,127.0.0.2/db", "several hosts"),
        ("database.url", "postgres://u:p4ss@127.0.0.1/db?channel_binding=require", "sslmode=verify-full"),
        ("database.url", "postgres://u:p4ss@127.0.0.1/db?sslrootcert=/missing/ca.pem", "/missing/ca.pem"),
    ] {
        let up = site.setup().set(key, value).run_to_end().await;
        up.expect(2, &[key, says]);
        let command = site.setup().set(key, value).command();
        let file = command.get_args().skip_while(|argument| *argument != "--config").nth(1).expect("--config FILE");
        let file = file.to_string_lossy().into_owned();
        let check = e2e::daemon::run(site.folder(), &["config", "check", "--config", &file]).await;
        check.expect(2, &[key, says]);
        assert!(!up.stderr.contains("p4ss") && !check.stderr.contains("p4ss"), "{up:?} {check:?}");
    }
    // A port at which another protocol is spoken: the database's, and plain AMQP under amqps.
    let broker: reqwest::Url = site.broker_url().parse().expect("an address");
    let database: reqwest::Url = site.database_url().parse().expect("an address");
    let at = |scheme: &str, host: &str, port: u16| format!("{scheme}://guest:guest@{host}:{port}");
    let host = |url: &reqwest::Url| url.host_str().expect("a host").to_owned();
    let tls = at("amqps", &host(&broker), broker.port().unwrap_or(5672));
    site.setup().set("broker.url", tls).run_to_end().await.expect(2, &["does not speak TLS"]);
    let listener = tokio::net::TcpListener::bind((host(&database).as_str(), 0)).await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 8]).await;
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let http = at("amqp", &host(&database), port);
    site.setup().set("broker.url", http).run_to_end().await.expect(2, &["HTTP", "15672"]);
}

/// Runs a program that publishes one task with a client of others and prints the reply, and checks what became of both.
async fn published_by(program: &[&str], variables: &[(&str, &str)]) {
    let site = Site::new(Mode::Services).await;
    let daemon = site.start().await;
    let id = Uuid::now_v7();
    let mut command = std::process::Command::new(program[0]);
    command
        .args(&program[1..])
        .args([site.broker_url(), site.prefix(), "default", &id.to_string()])
        .envs(variables.iter().copied())
        .current_dir(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/clients"));
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ran");
    let output = output.expect("it is installed; cargo xtask test skips this test where it is not");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = reply(&output.stdout);
    assert_eq!((&told["id"], &told["state"]), (&json!(id), &json!("completed")), "{told}");
    let task = daemon.http().ended(id).await;
    assert_eq!(task["state"], "completed", "{task}");
    invariants::hold(&site, daemon, &[id], Expected::default()).await;
}

#[tokio::test]
async fn kombu_publishes_with_its_own_properties() {
    published_by(&["/usr/bin/python3", "kombu_publish.py"], &[]).await;
}

#[tokio::test]
async fn bunny_publishes_with_its_own_properties() {
    published_by(&["/usr/bin/ruby", "bunny_publish.rb"], &[]).await;
}

#[tokio::test]
async fn the_java_client_publishes_with_its_own_properties() {
    let classes = "/usr/share/java/amqp-client.jar:/usr/share/java/slf4j-api.jar";
    published_by(&["/usr/bin/java", "-cp", classes, "JavaPublish.java"], &[]).await;
}

#[tokio::test]
async fn the_go_client_publishes_with_its_own_properties() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let cache = cache.path().to_str().expect("a path of text");
    // Debian's sources of the client, and nothing from elsewhere.
    let variables = [("GOPATH", "/usr/share/gocode"), ("GO111MODULE", "off"), ("GOCACHE", cache)];
    published_by(&["/usr/bin/go", "run", "go_publish.go"], &variables).await;
}
