//! What happens while the host runs.

use super::*;

/// Wait until `found` answers, asking again whenever the registry changes.
async fn wait<T>(registry: &Registry, found: impl Fn(Resolved) -> Option<T>, plugin: &str) -> T {
    let mut changes = registry.changes();
    let waiting = async {
        loop {
            if let Some(found) = found(resolve(registry, plugin)) {
                return found;
            }
            changes.changed().await.unwrap();
        }
    };
    let last = || format!("{plugin} is still {:?}", resolve(registry, plugin));
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{}", last()))
}

async fn wait_for_digest(registry: &Registry, plugin: &str, bytes: &[u8]) -> Arc<dyn Runner> {
    let digest = agentry_sandbox::digest(bytes);
    let this = |resolved| match resolved {
        Resolved::Ready(runner) if **runner.digest() == *digest => Some(runner),
        _ => None,
    };
    wait(registry, this, plugin).await
}

#[tokio::test]
async fn a_new_folder_is_heard_of_and_loaded() {
    let dir = Dir::new();
    let registry = dir.start().await;
    assert!(unknown(&registry, "one").is_empty());
    dir.put("deep/one", "one", "0.1.0", "", &component("1"));
    let runner = wait_for_digest(&registry, "one", &component("1")).await;
    assert_eq!(says(&runner).await, "1");
}

#[tokio::test]
async fn a_new_version_beside_the_old_one_is_heard_of_and_both_serve() {
    let dir = Dir::new();
    dir.put("a", "x", "0.1.0", "", &component("1"));
    let registry = dir.start().await;
    dir.put("b", "x", "0.2.0", "", &component("2"));
    wait_for_digest(&registry, "x", &component("2")).await;
    assert_eq!(says(&ready(&registry, "x@0.1")).await, "1");
    assert_eq!(says(&ready(&registry, "x@0.2")).await, "2");
}

#[tokio::test]
async fn the_same_version_with_other_bytes_is_refused_and_the_loaded_one_serves() {
    let dir = Dir::new();
    let path = dir.put("x", "x", "0.1.0", "", &component("1"));
    let registry = dir.start().await;
    dir.put("x", "x", "0.1.0", "", &component("2"));
    registry.reload().await;
    assert_eq!(says(&ready(&registry, "x")).await, "1");
    let digest = |output| agentry_sandbox::digest(&component(output));
    let cause = format!(
        "{}/a.wasm has the digest {}, and x@0.1.0 is {} already, which keeps serving: give it a new plugin.version, or \
         set plugins.mutable = true for development",
        path.display(),
        digest("2"),
        digest("1")
    );
    let info = &registry.list()[0];
    assert_eq!((info.state, info.versions.len()), (PluginState::Ready, 1));
    assert_eq!(info.versions[0].cause.as_deref(), Some(&*cause));
    assert_eq!(registry.served(), Served { plugins: vec!["x@0.1.0".into()], broken: vec![format!("x: {cause}")] });

    dir.put("x", "x", "0.1.0", "", &component("1"));
    registry.reload().await;
    assert_eq!(registry.list()[0].versions[0].cause, None, "the former bytes are back");
    dir.put("x", "x", "0.1.1", "", &component("2"));
    registry.reload().await;
    assert_eq!(says(&ready(&registry, "x")).await, "2");
    assert_eq!(unknown(&registry, "x@=0.1.0"), ["x@0.1.1"], "a folder offers what it holds");
}

#[tokio::test]
async fn with_mutable_plugins_the_same_version_is_replaced_and_a_run_in_flight_keeps_its_own() {
    let dir = Dir::new();
    dir.put("x", "x", "0.1.0", "", &component("1"));
    let registry = Registry::start(RegistryConfig { mutable: true, ..dir.config() }).await.unwrap();
    let held = ready(&registry, "x");
    dir.put("x", "x", "0.1.0", "", &component("2"));
    let new = wait_for_digest(&registry, "x", &component("2")).await;
    assert_eq!(says(&new).await, "2");
    assert_eq!(says(&held).await, "1");
}

#[tokio::test]
async fn a_removed_folder_is_not_offered_and_a_run_in_flight_finishes() {
    let dir = Dir::new();
    let path = dir.put("x", "x", "0.1.0", "", &component("1"));
    let registry = dir.start().await;
    let held = ready(&registry, "x");
    fs::remove_dir_all(path).unwrap();
    wait(&registry, |resolved| matches!(resolved, Resolved::Unknown { .. }).then_some(()), "x").await;
    assert_eq!(says(&held).await, "1");
    assert!(registry.list().is_empty());
}

#[tokio::test]
async fn a_half_written_component_is_taken_once_it_is_whole() {
    let dir = Dir::new();
    let whole = component("1");
    let path = dir.put("x", "x", "0.1.0", "", &whole[..whole.len() / 2]);
    let registry = dir.start().await;
    broken(&registry, "x");
    fs::write(path.join("a.wasm"), &whole).unwrap();
    wait_for_digest(&registry, "x", &whole).await;
    assert!(registry.served().broken.is_empty());
}

#[tokio::test]
async fn what_replaces_a_build_must_be_well_before_the_build_goes() {
    let dir = Dir::new();
    let path = dir.put("x", "x", "0.1.0", "", &component("1"));
    let registry = dir.start().await;
    let spoilt: [&dyn Fn(); 4] = [
        &|| drop(dir.put("x", "x", "0.2.0", "", b"garbage")),
        &|| fs::write(path.join("plugin.toml"), "manifest").unwrap(),
        &|| drop(dir.put("x", "x", "0.2.0", "queue = 1", &component("2"))),
        &|| {
            dir.put("x", "x", "0.1.0", "", b"");
            fs::remove_file(path.join("a.wasm")).unwrap();
        },
    ];
    for (i, spoil) in spoilt.iter().enumerate() {
        spoil();
        registry.reload().await;
        assert_eq!(says(&ready(&registry, "x")).await, "1", "{i}");
        assert_eq!(registry.served().broken.len(), 1, "{i}");
        dir.put("x", "x", "0.1.0", "", &component("1"));
        registry.reload().await;
        assert_eq!(registry.served(), Served { plugins: vec!["x@0.1.0".into()], broken: vec![] }, "{i}");
    }
}

#[tokio::test]
async fn other_wishes_under_the_same_version_hold_for_new_attempts() {
    let dir = Dir::new();
    dir.put("x", "x", "0.1.0", "", &component("1"));
    let registry = dir.start().await;
    let held = ready(&registry, "x");
    dir.put("x", "x", "0.1.0", "[limits]\ntimeout_seconds = 7", &component("1"));
    registry.reload().await;
    assert_eq!(ready(&registry, "x").timeout(), Duration::from_secs(7));
    assert_eq!(held.timeout(), Duration::from_secs(300));
}

#[tokio::test]
async fn a_directory_that_is_away_takes_nothing_with_it() {
    let dir = Dir::new();
    dir.put("x", "x", "0.1.0", "", &component("1"));
    dir.put("y", "y", "0.1.0", "", b"garbage");
    let registry = dir.start().await;
    let away = dir.path.with_extension("away");
    fs::rename(&dir.path, &away).unwrap();
    registry.reload().await;
    assert_eq!(says(&ready(&registry, "x")).await, "1");
    broken(&registry, "y");
    fs::rename(&away, &dir.path).unwrap();
    registry.reload().await;
    ready(&registry, "x");
}

#[tokio::test]
async fn a_look_that_finds_nothing_new_changes_nothing() {
    let dir = Dir::new();
    dir.put("x", "x", "0.1.0", "", &component("1"));
    dir.put("y", "y", "0.1.0", "", b"garbage");
    let registry = dir.start().await;
    let (before, build) = (*registry.changes().borrow(), ready(&registry, "x"));
    registry.reload().await;
    dir.put("x", "x", "0.1.0", "", &component("1"));
    registry.reload().await;
    assert_eq!(*registry.changes().borrow(), before);
    assert!(Arc::ptr_eq(&ready(&registry, "x"), &build), "the same bytes written again are no new build");
}
