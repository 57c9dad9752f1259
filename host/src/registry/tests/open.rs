//! One plugin by its path, for a single run.

use super::*;

#[tokio::test]
async fn one_plugin_can_be_opened_by_its_folder_or_its_component() {
    let dir = Dir::new();
    let path = dir.put("one", "one", "0.1.0", "", &component("1"));
    let by_folder = Registry::open(dir.config(), &path).await.unwrap();
    assert_eq!((&**by_folder.name(), by_folder.path()), ("one", path.as_path()));
    let by_file = Registry::open(dir.config(), &path.join("a.wasm")).await.unwrap();
    assert_eq!(&**by_file.name(), "one");
    let bare = path.join("Two_Words.wasm");
    fs::write(&bare, component("2")).unwrap();
    let by_file = Registry::open(dir.config(), &bare).await.unwrap();
    assert_eq!((&**by_file.name(), &**by_file.version(), by_file.path()), ("two-words", "0.0.0", bare.as_path()));
    assert_eq!(by_file.info().limits["memory_mib"].value, 128);
    let tight = dir.put("tight", "tight", "0.1.0", "[limits]\nmemory_mib = 2", &component("1"));
    assert_eq!(Registry::open(dir.config(), &tight).await.unwrap().memory_reserve(), 2 << 20, "never above the limit");
    fs::remove_file(path.join("a.wasm")).unwrap();
    let error = Registry::open(dir.config(), &path).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "open the plugin {}/a.wasm is missing: build it there, or name the right file as plugin.component in \
             plugin.toml",
            path.display()
        )
    );
    let error = Registry::open(dir.config(), Path::new("no/such")).await.unwrap_err();
    assert!(error.to_string().starts_with("open the plugin no/such cannot be read: "), "{error}");
}

#[tokio::test]
async fn a_task_s_own_timeout_holds_up_to_the_ceiling() {
    let dir = Dir::new();
    let path = dir.put("one", "one", "0.1.0", "", &component("1"));
    let one = Registry::open(dir.config(), &path).await.unwrap();
    let timeout = |seconds: Option<u64>| {
        one.limits_for(&Job { timeout: seconds.map(Duration::from_secs), ..job("1") }).timeout.as_secs()
    };
    assert_eq!((timeout(None), timeout(Some(5)), timeout(Some(800)), timeout(Some(9_999))), (300, 5, 800, 900));
}
