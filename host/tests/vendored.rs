//! The vendored copy of a dependency, and when it has to go.

#![allow(clippy::unwrap_used)] // a test reports by panicking

use std::path::Path;

/// The version that is published without TCP_NODELAY.
const PATCHED: &str = "0.9.0";

#[test]
fn sqlx_is_patched_only_as_long_as_it_has_to_be() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let lock: toml::Table = std::fs::read_to_string(root.join("Cargo.lock")).unwrap().parse().unwrap();
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
