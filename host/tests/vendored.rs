//! The vendored copy of a dependency, and when it has to go; and dependencies that must not come back.

#![allow(clippy::unwrap_used)] // a test reports by panicking

use std::path::Path;

/// The version that is published without TCP_NODELAY.
const PATCHED: &str = "0.9.0";

#[test]
fn sqlx_is_patched_only_as_long_as_it_has_to_be() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let lock = toml_of("Cargo.lock");
    let packages = lock["package"].as_array().unwrap();
    let version = |name: &str| packages.iter().find(|package| package["name"].as_str() == Some(name)).unwrap();
    assert_eq!(
        version("sqlx")["version"].as_str(),
        Some(PATCHED),
        "sqlx was updated: remove host/vendor/sqlx-core, its [patch.crates-io] and its `exclude` if the new release sets \
         TCP_NODELAY (transact-rs/sqlx#4336), and this test with them"
    );
    assert!(version("sqlx-core").get("source").is_none(), "the copy in host/vendor is not used");
    let socket = std::fs::read_to_string(root.join("host/vendor/sqlx-core/src/net/socket/mod.rs")).unwrap();
    assert!(socket.contains("stream.set_nodelay(true)?;"), "the copy lost its one change");
}

fn toml_of(file: &str) -> toml::Table {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join(file)).unwrap().parse().unwrap()
}

/// As `cargo deny check bans` does, also where that is not installed.
#[test]
fn no_denied_crate_is_in_the_tree() {
    let (lock, deny) = (toml_of("Cargo.lock"), toml_of(".cargo/deny.toml"));
    let denied = deny["bans"]["deny"].as_array().unwrap();
    assert!(denied.iter().any(|entry| entry["crate"].as_str() == Some("p12-keystore")), "the list is read: {denied:?}");
    for entry in denied {
        let name = entry["crate"].as_str().unwrap();
        let wrappers: Vec<_> = entry.get("wrappers").and_then(toml::Value::as_array).into_iter().flatten().collect();
        for package in lock["package"].as_array().unwrap() {
            let of = package["name"].as_str().unwrap();
            assert!(of != name || !wrappers.is_empty(), "{name} is in Cargo.lock: {entry}");
            let dependencies = package.get("dependencies").and_then(toml::Value::as_array).into_iter().flatten();
            let needs = dependencies.filter_map(toml::Value::as_str).any(|on| on.split(' ').next() == Some(name));
            assert!(!needs || wrappers.iter().any(|w| w.as_str() == Some(of)), "{of} depends on {name}: {entry}");
        }
    }
}
