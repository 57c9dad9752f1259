//! Every way not to answer.

use super::server::{Event, Play, Server, raw, reply};
use super::site::*;
use agentry_outbound::llm::ProviderKind::{Anthropic, Gemini, OpenAi};
use agentry_outbound::llm::*;
use serde_json::json;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// A time that a test waits for, and that nothing on a busy machine takes by itself.
const SHORT: Duration = Duration::from_millis(300);

/// The error of one request, and the server that it was sent to.
async fn fault(play: Play, set: impl FnOnce(&mut ProviderSettings)) -> (ChatError, Server) {
    let server = Server::new([play]).await;
    let mut settings = provider(OpenAi, server.address);
    set(&mut settings);
    let outcome = llm(settings).chat(&question(), soon()).await;
    (error(outcome), server)
}

fn timed_out(stage: &'static str) -> ChatError {
    ChatError::TimedOut { stage, limit: SHORT }
}

#[tokio::test]
async fn a_server_that_never_answers_ends_at_the_first_byte() {
    let (error, server) = fault(Play::HangBeforeHead, |settings| settings.first_byte = SHORT).await;
    assert_eq!(error, timed_out("response"));
    assert_eq!(error.to_string(), "no response from the provider within 300ms");
    server.sees(Event::Gone).await;
}

#[tokio::test]
async fn a_server_that_stops_in_its_answer_ends_at_idle() {
    let (error, server) = fault(Play::HangInBody(b"{\"choices\": [".to_vec()), |settings| settings.idle = SHORT).await;
    assert_eq!(error, timed_out("further bytes"));
    server.sees(Event::Gone).await;
}

#[tokio::test]
async fn a_server_that_trickles_ends_at_total() {
    let (error, server) = fault(Play::Trickle, |settings| {
        settings.total = SHORT;
        settings.first_byte = SHORT;
        settings.idle = SHORT;
        settings.connect = SHORT;
    })
    .await;
    assert_eq!(error, timed_out("end"));
    server.sees(Event::Gone).await;
}

#[tokio::test]
async fn the_tasks_own_end_comes_before_all_others_and_says_so() {
    for play in [Play::HangBeforeHead, Play::HangInBody(b"{".to_vec()), Play::Trickle] {
        let server = Server::new([play]).await;
        let mut settings = provider(OpenAi, server.address);
        settings.retries = 5;
        let outcome = llm(settings).chat(&question(), Instant::now() + SHORT).await;
        let failure = outcome.unwrap_err();
        let ChatError::TimedOut { stage, limit } = &failure.error else { panic!("{failure:?}") };
        assert!(stage.contains("deadline") && *limit <= SHORT && *limit > SHORT / 2, "{failure:?}");
        assert_eq!(failure.trace.tries, 1);
        server.sees(Event::Gone).await;
    }
}

#[tokio::test]
async fn after_the_tasks_end_nothing_is_sent() {
    let server = Server::new([]).await;
    let outcome = llm(provider(OpenAi, server.address)).chat(&question(), Instant::now()).await;
    let failure = outcome.unwrap_err();
    assert!(matches!(failure.error, ChatError::TimedOut { .. }), "{failure:?}");
    assert_eq!((failure.trace.tries, server.recorded().len()), (0, 0));
}

#[tokio::test]
async fn a_chat_that_is_dropped_is_gone_at_once() {
    for play in [Play::HangBeforeHead, Play::HangInBody(b"{".to_vec()), Play::Trickle] {
        let server = Server::new([play]).await;
        let llm = llm(provider(OpenAi, server.address));
        let request = question();
        tokio::select! {
            outcome = llm.chat(&request, soon()) => panic!("{outcome:?}"),
            () = server.sees(Event::Asked) => {}
        }
        // The client lives on; its connection does not.
        server.sees(Event::Gone).await;
    }
}

#[tokio::test]
async fn nobody_at_home_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failure = llm(provider(OpenAi, address)).chat(&question(), soon()).await.unwrap_err();
    let shown = failure.error.to_string();
    assert!(shown.contains("cannot be connected to") && shown.contains("refused"), "{shown}");
    assert!(!shown.contains("http://"), "{shown}");
    assert_eq!((failure.trace.provider.as_str(), failure.trace.tries), ("lab", 1));
}

#[tokio::test]
async fn a_connection_that_breaks_is_unavailable_and_says_where() {
    let half = b"{\"choices\": [{\"message\": {\"content\": \"half".to_vec();
    let broke = format!("after {} bytes", half.len());
    let cases = [
        (Play::CloseBeforeHead, "before the answer"),
        (Play::Garbage(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()), "before the answer"),
        (Play::CloseInBody(half), broke.as_str()),
    ];
    for (play, place) in cases {
        match fault(play.clone(), |_| {}).await.0 {
            ChatError::Unavailable { reason } => assert!(reason.contains(place), "{play:?}: {reason}"),
            other => panic!("{play:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_is_unparsable_for_every_provider() {
    let bodies = [
        (raw(200, "application/json", ""), "it is empty"),
        (raw(200, "text/html", "<html>Bad Gateway</html>"), "content-type text/html"),
        (raw(200, "text/event-stream", "data: {\"choices\": []}\n\n"), "content-type text/event-stream"),
        (raw(200, "application/json", "{\"choices\": [{\"mess"), "no JSON"),
        (raw(200, "application/json", &"[".repeat(100_000)), "no JSON"),
        (raw(200, "application/json", "{} {}"), "no JSON"),
        (raw(200, "application/json", "\u{0}\u{1}").with("content-encoding", "gzip"), "content-encoding gzip"),
    ];
    for (play, why) in bodies {
        for kind in [OpenAi, Anthropic, Gemini] {
            match error(ask(kind, play.clone(), &question()).await) {
                ChatError::Unparsable { reason } => assert!(reason.contains(why), "{kind:?}: {reason}"),
                other => panic!("{kind:?} {play:?}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    let (error, server) = fault(Play::Flood, |_| {}).await;
    let ChatError::Unparsable { reason } = &error else { panic!("{error:?}") };
    assert!(reason.contains("longer than 16777216 bytes"), "{reason}");
    server.sees(Event::Gone).await;
}

#[tokio::test]
async fn a_body_of_countless_values_is_not_parsed() {
    let body = format!("[0{}]", ",0".repeat(1_000_000));
    let (error, _) = fault(raw(200, "application/json", &body), |_| {}).await;
    let ChatError::Unparsable { reason } = &error else { panic!("{error:?}") };
    assert!(reason.contains("more than 1000000 values"), "{reason}");
}

#[tokio::test]
async fn an_error_page_without_json_is_told_by_its_status() {
    let page = "<html>Service Unavailable</html>";
    for kind in [OpenAi, Anthropic, Gemini] {
        let shown = error(ask(kind, raw(503, "text/html", page), &question()).await).to_string();
        assert_eq!(shown, "the provider is not available: it failed: status 503");
    }
}

#[tokio::test]
async fn an_error_whose_body_never_ends_is_told_by_its_status() {
    let (error, _) = fault(raw(429, "text/plain", &"x".repeat(1_000_000)), |_| {}).await;
    assert_eq!(error, ChatError::RateLimited { reason: "status 429".into(), after: None });
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::new([reply(200, json!({}))]).await;
    for status in [301, 302, 307, 308] {
        let play = reply(status, json!({})).with("location", &format!("http://{}/v1", elsewhere.address));
        let (error, _) = fault(play, |settings| settings.retries = 3).await;
        let shown = error.to_string();
        assert!(shown.contains(&status.to_string()) && shown.contains("llm.providers.lab.url"), "{shown}");
    }
    assert_eq!(elsewhere.recorded().len(), 0);
}

/// Where the process of the next test finds its server.
const SERVER: &str = "AGENTRY_TEST_LLM_SERVER";

#[tokio::test]
#[ignore = "runs in a process with an environment of its own, for the test below"]
async fn a_process_with_proxies_asks_its_server() {
    let Ok(address) = std::env::var(SERVER) else { return };
    let outcome = llm(provider(OpenAi, address.parse().unwrap())).chat(&question(), soon()).await;
    assert_eq!(outcome.unwrap().message.text.as_deref(), Some("fine"));
}

#[tokio::test]
async fn no_proxy_of_the_environment_is_used() {
    let proxy = Server::new([]).await;
    let fine = json!({"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]});
    let server = Server::new([reply(200, fine)]).await;
    let mut process = tokio::process::Command::new(std::env::current_exe().unwrap());
    process.args(["--exact", "faults::a_process_with_proxies_asks_its_server", "--ignored"]);
    process.stdout(std::process::Stdio::null()).kill_on_drop(true).env(SERVER, server.address.to_string());
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        process.env(name, format!("http://{}", proxy.address));
    }
    process.env_remove("NO_PROXY").env_remove("no_proxy");
    let status = tokio::time::timeout(PATIENCE, process.status()).await.unwrap().unwrap();
    assert!(status.success());
    assert_eq!((server.recorded().len(), proxy.recorded().len()), (1, 0));
}

#[tokio::test]
async fn an_unknown_model_is_told_with_those_that_are_known() {
    let server = Server::new([]).await;
    let request = ChatRequest { model: "gpt".into(), ..question() };
    let error = error(llm(provider(OpenAi, server.address)).chat(&request, soon()).await);
    assert_eq!(error.to_string(), "there is no model \"gpt\"; configured are default");
    assert_eq!(server.recorded().len(), 0);
}
