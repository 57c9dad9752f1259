//! Children that write in ways of their own, and those that cannot start.

use crate::*;
use std::os::unix::fs::PermissionsExt;

/// The odd server in a mode.
pub fn odd(mode: &str) -> ServerSettings {
    let mut settings = scripted(mode);
    if let Transport::Stdio { args, .. } = &mut settings.transport {
        args[2] = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/odd.py").to_owned();
    }
    settings.call = Duration::from_secs(20);
    settings
}

/// A program of these lines.
fn program(folder: &tempfile::TempDir, lines: &str) -> ServerSettings {
    let path = folder.path().join("server");
    std::fs::write(&path, lines).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut settings = scripted("well");
    if let Transport::Stdio { command, args, .. } = &mut settings.transport {
        (*command, *args) = (path.to_str().unwrap().to_owned(), Vec::new());
    }
    settings
}

async fn trouble(settings: ServerSettings) -> String {
    let tools = only(settings);
    let error = session(&tools).list(later()).await.unwrap_err().to_string();
    let trouble = tools.health()[0].trouble.clone().unwrap();
    let (told, _) = error.split_once("; it is tried again in ").unwrap_or_else(|| panic!("{error}"));
    assert!(told.contains(&trouble) || trouble.contains("no message of the protocol"), "{error} {trouble}");
    error
}

#[tokio::test]
async fn messages_are_found_however_a_child_writes_them() {
    for mode in [
        "banner",
        "unfinished_banner",
        "slow",
        "crlf",
        "bom",
        "pretty",
        "same_line",
        "noisy",
        "batch",
        "no_version",
        "text_id",
        "null_id",
    ] {
        let tools = only(odd(mode));
        let session = session(&tools);
        assert_eq!(text(&session, "echo", json!({"text": "a \" {\\ b"})).await, "a \" {\\ b", "{mode}");
        let failed = call(&session, "fail", json!({})).await.unwrap_err();
        assert!(
            matches!(&failed, ToolError::Failed { reason, .. } if reason == "-32000: no luck"),
            "{mode}: {failed:?}"
        );
        assert_eq!(text(&session, "echo", json!({"text": "b"})).await, "b", "{mode}");
        assert_eq!(tools.health()[0].restarts, 0, "{mode}");
        tools.close().await;
    }
}

#[tokio::test]
async fn child_that_ends_at_once_is_told_with_its_last_words() {
    let told = trouble(with_env(odd("ends"), &[("KEY", "secret-1234567890")])).await;
    assert!(told.contains("it ended (exit status: 1); it said last: "), "{told}");
    assert!(told.contains("Traceback") && told.contains("no module 'x' for ***"), "{told}");
    assert!(!told.contains("secret-1234567890") && !told.contains("PATH"), "{told}");
}

#[tokio::test]
async fn command_that_is_missing_without_a_path_is_told_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    for (lines, command) in [
        ("#!/usr/bin/env no-such-interpreter-x\n", "no-such-interpreter-x"),
        ("#!/bin/sh\nexec no-such-command-x --stdio\n", "no-such-command-x"),
    ] {
        let told = trouble(program(&folder, lines)).await;
        assert!(told.contains("exit status: 127") && told.contains(command), "{told}");
        assert!(told.contains("no PATH") && told.contains("tools.it") && told.contains("env = { PATH = "), "{told}");
        let told = trouble(with_env(program(&folder, lines), &[("PATH", "/usr/bin:/bin")])).await;
        assert!(told.contains(command) && told.contains("tools.it.env.PATH"), "{told}");
    }
}

#[tokio::test]
async fn program_that_cannot_be_started_is_told_by_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let told = trouble(program(&folder, "#!/no/such/interpreter -x\n")).await;
    assert!(told.contains("it cannot be started: ") && told.contains("\"/no/such/interpreter\""), "{told}");
    let told = trouble(program(&folder, "no program at all")).await;
    assert!(told.contains("it cannot be started: ") && told.contains("#!/bin/sh"), "{told}");
}

#[tokio::test]
async fn child_that_needs_longer_than_it_may_is_told_with_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = program(&folder, "#!/bin/sh\necho installing 300 packages >&2\nread line\nread line\n");
    settings.start = Duration::from_millis(900);
    let told = trouble(settings).await;
    assert!(told.contains("it did not answer initialize within 900ms"), "{told}");
    assert!(told.contains("installing 300 packages") && told.contains("tools.it.start_seconds"), "{told}");
}
