//! A key is for the provider alone, whatever the provider does with it.

use super::server::{Play, Server, raw};
use super::site::*;
use agentry_outbound::Secret;
use agentry_outbound::llm::ProviderKind::{Anthropic, Gemini, OpenAi};
use agentry_outbound::llm::*;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span;

const TOKEN: &str = "token-abcdef-98765";

/// A subscriber that keeps all that anybody says, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0.lock().unwrap(), "{field}={value:?} ").unwrap();
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        attributes.record(&mut self.clone());
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn secretive(kind: ProviderKind, server: &Server) -> ProviderSettings {
    let headers = [("x-extra".to_owned(), Secret::new(format!("Token {TOKEN}")))].into();
    ProviderSettings { headers, retries: 1, ..provider(kind, server.address) }
}

#[tokio::test]
async fn a_server_that_echoes_its_request_gives_no_key_away() {
    let log = Log::default();
    // While there is one subscriber alone, tracing asks the thread that comes to a line first whether anybody listens: another
    // test's, where nobody does, would silence the line for good. Of two it asks both.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let _kept = tracing::subscriber::set_default(log.clone());
    for kind in [OpenAi, Anthropic, Gemini] {
        for status in [200, 400, 401, 404, 429, 500] {
            let server = Server::new([Play::Echo { status }, Play::Echo { status }]).await;
            let settings = secretive(kind, &server);
            let shown_settings = format!("{settings:?}");
            let llm = llm(settings);
            let outcome = llm.chat(&question(), soon()).await;
            let display = outcome.as_ref().map_or_else(|failure| failure.error.to_string(), |_| String::new());
            let shown = format!("{outcome:?} {display} {llm:?} {shown_settings}");
            for secret in [CANARY, TOKEN] {
                let sent = format!("{:?}", server.recorded());
                assert!(sent.contains(secret), "{kind:?}: the server was to be sent {secret}");
                assert!(!shown.contains(secret), "{kind:?} {status}: {shown}");
            }
            // What was taken out can be seen to have been there.
            assert!(
                status == 401 || shown.contains(": ***") || shown.contains("Bearer ***"),
                "{kind:?} {status}: {shown}"
            );
        }
    }
    let log = log.0.lock().unwrap();
    assert!(log.contains("asking again"), "{log}");
    assert!(!log.contains(CANARY) && !log.contains(TOKEN), "{log}");
}

#[tokio::test]
async fn no_escape_hides_a_key() {
    let hidden = format!("\\u0073{}", &CANARY[1..]);
    let body = format!(r#"{{"choices": [{{"message": {{"content": "it is {hidden}"}}, "finish_reason": "stop"}}]}}"#);
    let reply = ask(OpenAi, raw(200, "application/json", &body), &question()).await.unwrap();
    assert_eq!(reply.message.text.as_deref(), Some("it is ***"));
}

#[tokio::test]
async fn a_header_that_everybody_may_know_does_not_spoil_an_answer() {
    let body = r#"{"choices": [{"message": {"content": "Agentry Works"}, "finish_reason": "stop"}]}"#;
    let server = Server::new([raw(200, "application/json", body)]).await;
    let headers = [("X-Title".to_owned(), Secret::new("Agentry Works"))].into();
    let settings = ProviderSettings { headers, ..provider(OpenAi, server.address) };
    let reply = llm(settings).chat(&question(), soon()).await.unwrap();
    assert_eq!(reply.message.text.as_deref(), Some("Agentry Works"));
    assert_eq!(server.only().headers["x-title"], "Agentry Works");
}
