//! A guest in JavaScript that calls the language's own `fetch`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use e2e::{Mode, Site, Task, daemon, variables};
use serde_json::json;

use super::publish;

const MANIFEST: &str = r#"manifest = 1
[plugin]
name = "js-fetch"
version = "0.1.0"
component = "js_fetch.wasm"
[capabilities]
http = ["GET http://*:*"]
"#;

/// Puts the component that JavaScript's compiler made into a plugin's folder.
fn install(folder: &Path, manifest: &str) {
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::copy(variables::javascript(), folder.join("js_fetch.wasm")).expect("a copy of the component");
    std::fs::write(folder.join("plugin.toml"), manifest).expect("a plugin.toml");
}

/// The folder of compiled code, from one run of the tests to the next: the engine in the component is 12 MB, and an unoptimised
/// compiler takes long over it. It is the daemon that decides whether what is there fits.
pub(super) fn kept(component: &Path) -> PathBuf {
    component.with_file_name("compiled")
}

/// Copies what is in a folder into another, for its owner alone, as the daemon wants it. What is not there is not copied.
pub(super) fn copy(from: &Path, to: &Path) {
    let Ok(entries) = std::fs::read_dir(from) else { return };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(to).expect("a folder");
    for entry in entries {
        let entry = entry.expect("an entry");
        // Under its own name only when it is whole: another run may be reading.
        let (half, whole) = (to.join(format!(".half-{}", std::process::id())), to.join(entry.file_name()));
        if entry.path().is_file() {
            std::fs::copy(entry.path(), &half).and_then(|_| std::fs::rename(&half, whole)).expect("a copy");
        }
    }
}

/// Answers one request; the thread's result is the request's head.
pub(super) fn server() -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut head = String::new();
        let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).expect("a line") > 0, "the request ends: {head}");
        }
        let body = "grüße";
        let answer = format!("HTTP/1.1 203 Yes\r\nX-Peer: seen\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).expect("an answer");
        head
    });
    (address, serving)
}

#[tokio::test]
async fn fetch_works_unchanged_where_it_is_granted_and_nowhere_else() {
    let site = Site::new(Mode::Services).await;
    install(&site.folder().join("plugins/js-fetch"), MANIFEST);
    let (address, serving) = server();
    let granted = [format!("GET http://{address}/allowed/")];
    copy(&kept(&variables::javascript()), &site.data("data").join("compiled"));
    let daemon = site
        .setup()
        .set("limits.max.compile_seconds", 600)
        .plugins([site.folder().join("plugins")])
        .set("http.private", [address.as_str()].as_slice())
        .set("plugins.js-fetch.capabilities.http", granted.as_slice())
        .start()
        .await;
    copy(&site.data("data").join("compiled"), &kept(&variables::javascript()));
    // First what is refused: the server answers one request, and it has to be the other.
    for url in [format!("http://{address}/secret"), "http://169.254.169.254/latest".to_owned()] {
        let task = publish(&site, &daemon, &Task::new("js-fetch", json!({"url": url})).option("max_attempts", 1)).await;
        assert_eq!(
            (&task["state"], &task["failure"]["detail"]["code"]),
            (&json!("failed"), &json!("fetch_failed")),
            "{task:#}"
        );
        let denied = &task["failure"]["detail"]["denied"];
        assert!(denied.as_array().is_some_and(|denied| !denied.is_empty()), "{task:#}");
    }
    let url = format!("http://{address}/allowed/page?a=1");
    let task = publish(&site, &daemon, &Task::new("js-fetch", json!({"url": url}))).await;
    assert_eq!(task["state"], "completed", "{task:#}");
    assert_eq!(task["output"], json!({"status": 203, "header": "seen", "body": "grüße"}), "{task:#}");
    let head = serving.join().expect("the server");
    assert!(head.starts_with("GET /allowed/page?a=1 HTTP/1.1\r\n"), "{head}");
    daemon.stop().await;
}

#[tokio::test]
async fn fetch_without_a_line_in_plugin_toml_is_refused_at_load_with_the_line_to_add() {
    let site = Site::new(Mode::Embedded).await;
    let folder = site.folder().join("js-fetch");
    install(&folder, MANIFEST.split("[capabilities]").next().expect("a text"));
    let arguments = ["run", &folder.to_string_lossy(), "--input", r#"{"url": "http://127.0.0.1:1/"}"#];
    daemon::run(site.folder(), &arguments).await.expect(2, &["wasi:http", "http = ["]);
}
