//! No credential is seen by a guest, nor in a log: neither where a server shows it, nor where we fail.

use crate::http::at;
use crate::http_server::HttpServer;
use crate::*;
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};

/// Has letters that JSON escapes.
const CANARY: &str = "canary-\"7f3a\"\\9d1e";
/// Of an HTTP header.
const TOKEN: &str = "canary-token-c0ffee-1234";
/// Of an address.
const KEY: &str = "canary-key-deadbeef-5678";

/// A log that keeps everything, of everybody.
#[derive(Clone, Default)]
pub struct Everything(Arc<Mutex<Vec<u8>>>);

impl Everything {
    /// All that was logged.
    pub fn words(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Everything {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// While there is one subscriber alone, tracing asks the thread that comes to a line first whether anybody listens: another
/// test's, where nobody does, would silence the line for good. Of two it asks both.
static SECOND: LazyLock<tracing::Dispatch> =
    LazyLock::new(|| tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default()));

/// Logs what the rest of a test does, at the finest level, on this thread.
pub fn log() -> (Everything, tracing::subscriber::DefaultGuard) {
    LazyLock::force(&SECOND);
    let log = Everything::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}

/// Nothing of a credential is in these words, not even as JSON or Rust would write it.
fn assert_clean(what: &str, words: &str) {
    for part in ["7f3a", "9d1e", "c0ffee", "deadbeef"] {
        assert!(!words.contains(part), "a credential is in {what}: {}", around(words, part));
    }
}

fn around<'a>(words: &'a str, part: &str) -> &'a str {
    let at = words.find(part).unwrap();
    &words[words.floor_char_boundary(at.saturating_sub(400))..words.ceil_char_boundary((at + 100).min(words.len()))]
}

#[tokio::test]
async fn a_servers_variables_are_in_no_output_error_log_or_debug() {
    let (log, _guard) = log();
    let settings = with_env(scripted("well"), &[("SECRET", CANARY)]);
    assert_clean("the settings", &format!("{settings:?}"));
    let tools = only(settings);
    let session = session(&tools);
    assert_eq!(whoami(&session).await["env"]["SECRET"], "***", "the server did not show its environment");
    for (tool, arguments) in [("refuse", json!({})), ("garbage", json!({})), ("die", json!({}))] {
        assert_clean(tool, &format!("{:?}", call(&session, tool, arguments).await));
    }
    assert_clean("the handles", &format!("{tools:?} {session:?}"));
    tools.close().await;
    let log = log.words();
    assert!(log.contains("my environment is"), "the server's standard error was not logged");
    assert_clean("the log", &log);
}

#[tokio::test]
async fn a_server_that_fails_with_its_variables_at_its_start_shows_nobody() {
    for mode in ["die_at_start", "env_in_error"] {
        let (log, _guard) = log();
        let tools = only(with_env(scripted(mode), &[("SECRET", CANARY)]));
        let error = session(&tools).list(later()).await.unwrap_err();
        let words = format!("{error} {error:?}");
        assert_clean(mode, &words);
        assert!(mode == "die_at_start" || words.contains("***"), "{words}");
        let health = format!("{:?}", tools.health());
        assert!(health.contains("***"), "{health}");
        assert_clean("health", &health);
        tools.close().await;
        assert_clean("the log", &log.words());
    }
}

#[tokio::test]
async fn headers_and_the_addresss_query_are_in_no_output_error_log_or_debug() {
    let (log, _guard) = log();
    let server = HttpServer::start("well").await;
    let mut url = server.url();
    url.set_query(Some(&format!("api_key={KEY}")));
    let settings = at(url.clone(), &[("authorization", &format!("Bearer {TOKEN}"))], None);
    assert_clean("the settings", &format!("{settings:?}"));
    let tools = only(settings);
    let session = session(&tools);
    for tool in ["headers", "stream"] {
        let shown = text(&session, tool, json!({})).await;
        assert!(shown.contains("authorization: ***;"), "{tool} did not show its headers: {shown}");
        assert_clean(tool, &shown);
    }
    for tool in ["bad", "cut"] {
        let error =
            eventually("it fails with words of the server", || async { call(&session, tool, json!({})).await.err() })
                .await;
        assert_clean(tool, &format!("{error} {error:?} {:?}", tools.health()));
    }
    assert_clean("the handles", &format!("{tools:?} {session:?}"));
    tools.close().await;
    server.stop().await;

    let gone = only(at(url, &[("authorization", &format!("Bearer {TOKEN}"))], None));
    let error = crate::session(&gone).list(later()).await.unwrap_err();
    assert_clean("an error of connecting", &format!("{error} {error:?} {:?}", gone.health()));
    gone.close().await;
    assert_clean("the log", &log.words());
}

#[tokio::test]
async fn a_challenge_that_repeats_the_credentials_is_not_passed_on() {
    let (log, _guard) = log();
    let server = HttpServer::start("unauthorized").await;
    let mut url = server.url();
    url.set_query(Some(KEY));
    let tools = only(at(url, &[("authorization", &format!("Bearer {TOKEN}"))], None));
    let error = session(&tools).list(later()).await.unwrap_err();
    assert_clean("an error", &format!("{error} {error:?} {:?}", tools.health()));
    tools.close().await;
    assert_clean("the log", &log.words());
}
