//! A guest in Python that reaches HTTP through the one function of its SDK.

use e2e::{Mode, Site, Task, variables};
use serde_json::json;

use super::javascript::{copy, kept, server};
use super::publish;

const MANIFEST: &str = r#"manifest = 1
[plugin]
name = "py-fetch"
version = "0.1.0"
component = "py_fetch.wasm"
[capabilities]
http = ["GET http://*:*"]
"#;

#[tokio::test]
async fn the_function_of_the_sdk_reaches_what_is_granted_and_nothing_else() {
    let site = Site::new(Mode::Services).await;
    let folder = site.folder().join("plugins/py-fetch");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::copy(variables::python(), folder.join("py_fetch.wasm")).expect("a copy of the component");
    std::fs::write(folder.join("plugin.toml"), MANIFEST).expect("a plugin.toml");
    let (address, serving) = server();
    let granted = [format!("GET http://{address}/allowed/")];
    let kept = kept(&variables::python());
    copy(&kept, &site.data("data").join("compiled"));
    let daemon = site
        .setup()
        .set("limits.max.compile_seconds", 600)
        .plugins([site.folder().join("plugins")])
        .set("http.private", [address.as_str()].as_slice())
        .set("plugins.py-fetch.capabilities.http", granted.as_slice())
        .start()
        .await;
    copy(&site.data("data").join("compiled"), &kept);
    let asked = Task::new("py-fetch", json!({"url": format!("http://{address}/secret")})).option("max_attempts", 1);
    let task = publish(&site, &daemon, &asked).await;
    assert_eq!((&task["state"], &task["failure"]["kind"]), (&json!("failed"), &json!("plugin_error")), "{task:#}");
    let words = task["failure"]["message"].as_str().expect("a message");
    assert!(words.contains(&format!("http = [\"GET http://{address}\"]")), "it names the grant: {words}");
    let url = format!("http://{address}/allowed/page?a=1");
    let task = publish(&site, &daemon, &Task::new("py-fetch", json!({"url": url}))).await;
    assert_eq!(task["state"], "completed", "{task:#}");
    assert_eq!(task["output"], json!({"status": 203, "type": null, "body": "gr\u{fc}\u{df}e"}), "{task:#}");
    let head = serving.join().expect("the server");
    assert!(head.starts_with("GET /allowed/page?a=1 HTTP/1.1\r\n"), "{head}");
    daemon.stop().await;
}
