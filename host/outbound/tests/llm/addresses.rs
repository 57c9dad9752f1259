//! Addresses as operators write them, and those at which nothing speaks a provider's API.

use super::server::{Server, raw, reply};
use super::site::*;
use agentry_outbound::llm::ProviderKind::{Anthropic, Gemini, OpenAi};
use agentry_outbound::llm::*;
use serde_json::json;

/// The path and query that a question goes to, where the address ends in something.
async fn target(kind: ProviderKind, ending: &str) -> String {
    let server = Server::new([]).await;
    let mut settings = provider(kind, server.address);
    settings.url = format!("http://{}{ending}", server.address).parse().unwrap();
    llm(settings).chat(&question(), soon()).await.unwrap_err();
    server.only().target
}

#[tokio::test]
async fn address_may_end_in_slashes_or_in_the_endpoint() {
    for ending in ["/v1", "/v1/", "/v1//", "/v1/chat/completions", "/v1/chat/completions/"] {
        assert_eq!(target(OpenAi, ending).await, "/v1/chat/completions", "{ending}");
    }
    assert_eq!(target(OpenAi, "").await, "/chat/completions");
    assert_eq!(target(OpenAi, "/a/v1?api-version=1").await, "/a/v1/chat/completions?api-version=1");
    assert_eq!(target(OpenAi, "/a/chat/completions?api-version=1").await, "/a/chat/completions?api-version=1");
    for ending in ["/v1", "/v1/", "/v1/messages", "/v1/messages/"] {
        assert_eq!(target(Anthropic, ending).await, "/v1/messages", "{ending}");
    }
    for ending in ["/v1beta", "/v1beta//", "/v1beta/models", "/v1beta/models/model-1:generateContent"] {
        assert_eq!(target(Gemini, ending).await, "/v1beta/models/model-1:generateContent", "{ending}");
    }
}

#[tokio::test]
async fn wrong_address_is_told_by_its_setting_and_the_whole_of_it_is_for_the_record_alone() {
    let plays = [
        raw(404, "text/html", "<html>not here</html>"),
        reply(404, json!({"detail": "Not Found"})),
        raw(405, "text/plain", "Method Not Allowed"),
        raw(200, "text/html", "<!doctype html><title>Sign in</title>"),
        reply(200, json!({"error": "Unexpected endpoint or method. (POST /chat/completions)"})),
        raw(302, "text/html", "").with("location", "https://login.example/?to=/chat/completions"),
    ];
    for play in plays {
        let server = Server::new([play.clone()]).await;
        let mut settings = provider(OpenAi, server.address);
        settings.retries = 3;
        settings.url = format!("http://{}/?key=hunter2", server.address).parse().unwrap();
        let failure = llm(settings).chat(&question(), soon()).await.unwrap_err();
        let shown = failure.error.to_string();
        for wanted in ["llm.providers.lab.url", "POST /chat/completions", "/v1"] {
            assert!(shown.contains(wanted), "{play:?}: {shown}");
        }
        assert!(!shown.contains(&server.address.to_string()), "a guest sees no address: {shown}");
        assert!(!shown.contains("has no model"), "{shown}");
        let address = failure.trace.address.unwrap();
        assert!(address.starts_with(&format!("http://{}/chat/completions", server.address)), "{address}");
        assert!(!address.contains("hunter2"), "{address}");
        assert_eq!((failure.trace.tries, failure.trace.tokens), (1, Tokens::default()), "{play:?}");
    }
}

#[tokio::test]
async fn wrong_model_is_told_by_its_own_setting() {
    let body = json!({"error": {"message": "The model `m` does not exist.", "type": "invalid_request_error"}});
    let failure = ask(OpenAi, reply(404, body), &question()).await.unwrap_err();
    let shown = failure.error.to_string();
    assert!(shown.contains("llm.models.default.model") && !shown.contains("llm.providers.lab.url"), "{shown}");
    assert_eq!(failure.trace.address, None);
}
