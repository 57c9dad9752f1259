//! Compiled code that outlives the process.

use std::path::Path;
use std::time::Duration;

use agentry_sandbox::{EngineError, Grants, Outcome, Plugin, Sandbox, SandboxConfig};

use crate::guest::Guest;
use crate::house::*;

fn cached(dir: &Path) -> Sandbox {
    let cache_dir = Some(dir.to_owned());
    Sandbox::new(SandboxConfig { cache_dir, slots: 1, compile_timeout: PATIENCE, ..SandboxConfig::default() }).unwrap()
}

async fn echoes(sandbox: &Sandbox) -> Plugin {
    let plugin = sandbox.load(Guest::default().build(), &Grants::default()).await.unwrap();
    assert_eq!(plugin.run(invocation("7")).await.outcome, Outcome::Output("7".to_owned()));
    plugin
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn compiled_code_is_kept_and_taken_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    echoes(&cached(dir.path())).await;
    assert_eq!(files(dir.path()).len(), 1);
    // The second engine may not compile anything, and need not.
    let config = SandboxConfig {
        cache_dir: Some(dir.path().to_owned()),
        slots: 1,
        compile_timeout: Duration::ZERO,
        ..SandboxConfig::default()
    };
    echoes(&Sandbox::new(config).unwrap()).await;
}

#[tokio::test]
async fn damaged_compiled_code_is_compiled_anew_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    echoes(&cached(dir.path())).await;
    let file = files(dir.path()).remove(0);
    let whole = std::fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 3] ^= 0xff;
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, damaged).unwrap();
    echoes(&cached(dir.path())).await;
    assert_eq!(std::fs::read(&file).unwrap().len(), whole.len());
    let config = SandboxConfig {
        cache_dir: Some(dir.path().to_owned()),
        slots: 1,
        compile_timeout: Duration::ZERO,
        ..SandboxConfig::default()
    };
    echoes(&Sandbox::new(config).unwrap()).await;
}

#[tokio::test]
async fn a_cache_folder_that_cannot_be_made_is_refused_by_path() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let config = SandboxConfig { cache_dir: Some(file.join("code")), slots: 1, ..SandboxConfig::default() };
    let error = Sandbox::new(config).err().unwrap();
    assert!(matches!(error, EngineError::Cache(_)) && error.to_string().contains("file/code"), "{error}");
}
