//! Plugin folders: found while running, broken ones named, several versions side by side.

use e2e::invariants::{self, Expected};
use e2e::{Daemon, Mode, Site, Task, eventually, plugin};
use serde_json::{Value, json};

e2e::in_both_modes! {
    a_plugin_that_appears_while_the_daemon_runs_is_served
    a_broken_component_is_reported_by_name_and_the_others_serve
    a_new_version_is_served_beside_the_old_one
}

async fn a_plugin_that_appears_while_the_daemon_runs_is_served(mode: Mode) {
    let site = Site::new(mode).await;
    let plugins = site.folder().join("plugins");
    plugin::install("outline", &plugins);
    let daemon = site.setup().plugins([plugins.clone()]).start().await;
    let asked = Task::new("word-count", json!({"text": "there now"}));
    daemon.http().post("/v1/tasks", &asked.body()).await.expect(422);
    plugin::install("word-count", &plugins);
    accepted(&daemon, &asked).await;
    assert_eq!(daemon.http().ended(asked.id).await["output"]["words"], 2);
    invariants::hold(&site, daemon, &[asked.id], Expected::default()).await;
}

async fn a_broken_component_is_reported_by_name_and_the_others_serve(mode: Mode) {
    let site = Site::new(mode).await;
    let plugins = site.folder().join("plugins");
    plugin::install("word-count", &plugins);
    let broken = plugin::install("outline", &plugins);
    std::fs::write(broken.join(plugin::component(&broken)), "not a component").expect("a broken file");
    let unbuilt = plugin::install("probe", &plugins);
    std::fs::remove_file(unbuilt.join(plugin::component(&unbuilt))).expect("no component");
    let manifest = plugin::install("panic", &plugins);
    std::fs::write(manifest.join("plugin.toml"), "manifest = 1\n[plugin]\nnmae = \"panic\"\n").expect("a bad manifest");

    let daemon = site.setup().plugins([plugins]).start().await;
    for name in ["outline", "probe", "panic"] {
        daemon.says(name).await;
    }
    daemon.says("nmae").await; // the key is named, and not only the file
    let listed = daemon.http().get("/v1/plugins").await.expect(200).to_string();
    assert!(listed.contains("word-count") && listed.contains("outline"), "{listed}");
    let asked = Task::new("word-count", json!({"text": "unharmed"}));
    daemon.http().post("/v1/tasks", &asked.body()).await.expect(201);
    assert_eq!(daemon.http().ended(asked.id).await["state"], "completed");
    invariants::hold(&site, daemon, &[asked.id], Expected::default()).await;
}

async fn a_new_version_is_served_beside_the_old_one(mode: Mode) {
    let site = Site::new(mode).await;
    let plugins = site.folder().join("plugins");
    plugin::install("word-count", &plugins);
    let daemon = site.setup().plugins([plugins.clone()]).start().await;
    // The outline under the name of the word count: what answers tells which version ran.
    let staged = plugin::install("outline", &site.folder().join("staged"));
    plugin::edit(&staged, "name = \"outline\"", "name = \"word-count\"");
    plugin::edit(&staged, "version = \"0.1.0\"", "version = \"0.2.0\"");
    std::fs::rename(&staged, plugins.join("word-count-2")).expect("it appears at once");

    let new = Task::new("word-count@0.2", json!({"markdown": "# Title\n"}));
    accepted(&daemon, &new).await;
    let old = Task::new("word-count@=0.1.0", json!({"text": "one two"}));
    let any = Task::new("word-count", json!({"markdown": "# Title\n"}));
    for task in [&old, &any] {
        daemon.http().post("/v1/tasks", &task.body()).await.expect(201);
    }
    let version = |ended: &Value| ended["version"].as_str().expect("a version").to_owned();
    let ended = [&new, &old, &any].map(|task| task.id);
    assert_eq!(version(&daemon.http().ended(ended[0]).await), "0.2.0");
    assert_eq!(version(&daemon.http().ended(ended[1]).await), "0.1.0");
    assert_eq!(version(&daemon.http().ended(ended[2]).await), "0.2.0", "without a requirement the newest");
    invariants::hold(&site, daemon, &ended, Expected::default()).await;
}

/// Submits until it is accepted.
async fn accepted(daemon: &Daemon, task: &Task) {
    eventually(&format!("{} is served", task.plugin), async || {
        let answer = daemon.http().post("/v1/tasks", &task.body()).await;
        if answer.status == 201 { Ok(()) } else { Err(answer.text) }
    })
    .await;
}
