//! A file of tokens that changes while the daemon runs; and the threads that serve the API.

use std::path::Path;

use e2e::{Mode, Site, eventually};

const OLD: &str = "0123456789abcdef";
const NEW: &str = "fedcba9876543210";

/// Replaces the file as a whole.
fn write(folder: &Path, text: &str) {
    std::fs::write(folder.join("new"), text).expect("a file");
    std::fs::rename(folder.join("new"), folder.join("tokens")).expect("the file is replaced");
}

#[tokio::test]
async fn a_changed_file_of_tokens_is_used_without_a_restart_and_a_broken_one_is_not() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.setup().token(OLD).start().await;
    let with = async |token: &str, path: &str| {
        let bearer = format!("Bearer {token}");
        daemon.http().send("GET", path, &[("authorization", &bearer)], String::new()).await
    };
    let is = async |token: &str, status: u16| {
        let answer = with(token, "/v1/hosts").await;
        if answer.status == status { Ok(()) } else { Err(format!("{answer:?}")) }
    };
    is(OLD, 200).await.expect("the first token");
    is(NEW, 401).await.expect("a token that is not there yet");

    write(site.folder(), &format!("test full {NEW}\n"));
    eventually("the new token is accepted", async || is(NEW, 200).await).await;
    is(OLD, 401).await.expect("the former one is gone");

    write(site.folder(), &format!("test full {OLD}\nbroken\n"));
    eventually("the broken file is a reason", async || {
        let ready = with(NEW, "/readyz").await;
        let reasons = ready.json()["reasons"].to_string();
        let told = reasons.contains("\"tokens\"") && reasons.contains("line 2 is not");
        if ready.status == 200 && told && !reasons.contains(OLD) { Ok(()) } else { Err(format!("{ready:?}")) }
    })
    .await;
    is(NEW, 200).await.expect("the former tokens stay");
    is(OLD, 401).await.expect("nothing of the broken file is used");
    daemon.says("the former tokens of the API stay in use").await;

    write(site.folder(), &format!("test full {OLD}\n"));
    eventually("the repaired file is used", async || is(OLD, 200).await).await;
    eventually("the reason is gone", async || {
        let reasons = with(OLD, "/readyz").await.json()["reasons"].to_string();
        if reasons.contains("\"tokens\"") { Err(reasons) } else { Ok(()) }
    })
    .await;
    assert!(!daemon.said().contains(OLD) && !daemon.said().contains(NEW), "a token is in the log");
    daemon.stop().await;
}

#[tokio::test]
async fn the_api_has_threads_of_its_own() {
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.start().await;
    let names: Vec<String> = std::fs::read_dir(format!("/proc/{}/task", daemon.pid()))
        .expect("the threads of a process")
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect();
    for name in ["api", "guests"] {
        assert!(names.iter().any(|found| found == name), "no thread is called {name}: {names:?}");
    }
    daemon.stop().await;
}
