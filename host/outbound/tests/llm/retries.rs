//! When a request is sent again, and when it is not.

use super::server::{Event, Play, Server, raw, reply};
use super::site::*;
use agentry_outbound::llm::ProviderKind::OpenAi;
use agentry_outbound::llm::*;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

fn fine() -> Play {
    reply(200, json!({"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}))
}

/// At once, as far as the server is concerned.
fn now(status: u16) -> Play {
    reply(status, json!({"error": {"message": "not now"}})).with("retry-after-ms", "1")
}

fn settings(server: &Server, retries: u32) -> ProviderSettings {
    ProviderSettings { retries, ..provider(OpenAi, server.address) }
}

#[tokio::test]
async fn what_passes_is_asked_again_with_the_same_words() {
    for status in [408, 409, 429, 500, 502, 503, 504, 529] {
        let server = Server::new([now(status), fine()]).await;
        let reply = llm(settings(&server, 1)).chat(&question(), soon()).await.unwrap();
        assert_eq!((reply.trace.tries, reply.message.text.as_deref()), (2, Some("fine")));
        let recorded = server.recorded();
        assert_eq!(recorded.len(), 2);
        assert_eq!((&recorded[0].body, &recorded[0].target), (&recorded[1].body, &recorded[1].target));
    }
}

#[tokio::test]
async fn what_will_be_wrong_again_is_not_asked_again() {
    let quota = json!({"error": {"message": "no money", "code": "insufficient_quota"}});
    let mut plays: Vec<Play> = [400, 401, 402, 403, 404, 413, 422].map(now).into();
    plays.push(reply(429, quota));
    plays.push(now(503).with("x-should-retry", "false"));
    for play in plays {
        let server = Server::new([play, fine()]).await;
        let failure = llm(settings(&server, 3)).chat(&question(), soon()).await.unwrap_err();
        assert_eq!((failure.trace.tries, server.recorded().len()), (1, 1), "{failure:?}");
    }
}

#[tokio::test]
async fn a_storm_ends_with_the_last_try_and_what_it_said() {
    let last = reply(503, json!({"error": {"message": "still not"}})).with("x-request-id", "req-3");
    let server = Server::new([now(503), now(503), last, fine()]).await;
    let failure = llm(settings(&server, 2)).chat(&question(), soon()).await.unwrap_err();
    assert_eq!(failure.error, ChatError::Unavailable { reason: "it failed: still not".into() });
    assert_eq!((failure.trace.tries, failure.trace.request_id.as_deref()), (3, Some("req-3")));
    assert_eq!(server.recorded().len(), 3);
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_is_tried_again() {
    let server = Server::new([Play::CloseBeforeHead, fine()]).await;
    let reply = llm(settings(&server, 1)).chat(&question(), soon()).await.unwrap();
    assert_eq!((reply.trace.tries, server.recorded().len()), (2, 2));
}

#[tokio::test]
async fn a_silence_before_the_answer_is_tried_again() {
    let server = Server::new([Play::HangBeforeHead, fine()]).await;
    let first_byte = Duration::from_millis(500);
    let settings = ProviderSettings { first_byte, ..settings(&server, 1) };
    assert_eq!(llm(settings).chat(&question(), soon()).await.unwrap().trace.tries, 2);
}

#[tokio::test]
async fn an_answer_that_has_begun_is_never_asked_for_again() {
    let idle = Duration::from_millis(300);
    for play in [
        Play::CloseInBody(b"{\"choices\"".to_vec()),
        Play::HangInBody(b"{".to_vec()),
        raw(200, "application/json", "{"),
        raw(200, "application/json", ""),
        reply(200, json!({"error": {"message": "upstream", "code": 503}})),
        reply(200, json!({"choices": [{"message": {"content": "half"}, "finish_reason": "length"}]})),
    ] {
        let server = Server::new([play, fine()]).await;
        let settings = ProviderSettings { idle, ..settings(&server, 3) };
        let failure = llm(settings).chat(&question(), soon()).await.unwrap_err();
        assert_eq!((failure.trace.tries, server.recorded().len()), (1, 1), "{failure:?}");
    }
}

#[tokio::test]
async fn retry_after_is_respected_in_each_of_its_forms() {
    // A date has whole seconds: this one is at least one away.
    let date = || httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2));
    let forms: [(&str, &dyn Fn() -> String, u64); 3] =
        [("retry-after-ms", &|| "700".into(), 700), ("retry-after", &|| "1".into(), 1000), ("retry-after", &date, 900)];
    for (name, value, least) in forms {
        let (began, value) = (Instant::now(), value());
        let server = Server::new([reply(429, Value::Null).with(name, &value), fine()]).await;
        llm(settings(&server, 1)).chat(&question(), soon()).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(least), "{name}: {value} took {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_retry_after_beyond_the_tasks_end_fails_at_once_and_names_the_time() {
    for status in [429, 503] {
        let play = reply(status, json!({"error": {"message": "come tomorrow"}})).with("retry-after", "86400");
        let server = Server::new([play, fine()]).await;
        let began = Instant::now();
        let llm = llm(settings(&server, 3));
        // Who waits for the provider's day is not waited for here.
        let outcome = tokio::time::timeout(PATIENCE, llm.chat(&question(), soon())).await.unwrap();
        let failure = outcome.unwrap_err();
        let ChatError::RateLimited { reason, after } = &failure.error else { panic!("{failure:?}") };
        assert!(reason.contains("come tomorrow"), "{reason}");
        assert_eq!((*after, failure.trace.tries), (Some(Duration::from_secs(86_400)), 1));
        assert!(began.elapsed() < PATIENCE / 2);
    }
}

#[tokio::test]
async fn retry_after_of_centuries_is_cut_to_thirty_days() {
    let month = Duration::from_secs(30 * 86_400);
    let rfc = "Fri, 31 Dec 9999 23:59:59 GMT";
    for (name, value) in [("retry-after", "1e19"), ("retry-after", rfc), ("retry-after-ms", "18446744073709551615")] {
        let play = reply(429, json!({"error": {"message": "later"}})).with(name, value);
        let failure = llm(settings(&Server::new([play]).await, 3)).chat(&question(), soon()).await.unwrap_err();
        let ChatError::RateLimited { after, .. } = &failure.error else { panic!("{failure:?}") };
        assert_eq!((*after, failure.trace.tries), (Some(month), 1), "{name}: {value}");
    }
}

#[tokio::test]
async fn no_more_than_the_operators_number_is_asked_at_once_and_waiting_takes_the_tasks_time() {
    let server = Server::new([Play::HangBeforeHead]).await;
    let llm = llm(ProviderSettings { concurrency: 1, ..settings(&server, 0) });
    let first = tokio::spawn({
        let llm = llm.clone();
        async move { llm.chat(&question(), soon()).await }
    });
    server.sees(Event::Asked).await;
    let failure = llm.chat(&question(), Instant::now() + Duration::from_millis(200)).await.unwrap_err();
    assert!(failure.error.to_string().starts_with("no free place before the task's deadline"), "{failure:?}");
    assert_eq!((failure.trace.tries, server.recorded().len()), (0, 1));
    // When the first is gone, its place is free.
    first.abort();
    server.sees(Event::Gone).await;
    let failure = llm.chat(&question(), soon()).await.unwrap_err();
    assert_eq!((failure.trace.tries, server.recorded().len()), (1, 2));
}
