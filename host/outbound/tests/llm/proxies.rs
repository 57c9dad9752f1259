//! Chats through a proxy of the operator's.

use super::connect::{Manner, Proxy};
use super::server::{Server, reply};
use super::site::*;
use super::tls;
use agentry_outbound::llm::ProviderKind::OpenAi;
use agentry_outbound::llm::*;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;

/// `me:open sesame`.
const CREDENTIALS: &str = "me:open%20sesame@";
const BASIC: &str = "bWU6b3BlbiBzZXNhbWU=";
/// A name that no resolver has (RFC 6761, section 6.4).
const NAME: &str = "model.invalid";

/// A provider behind TLS at a name that only the proxy knows.
fn settings(
    folder: &tempfile::TempDir,
    proxy: agentry_outbound::Proxy,
) -> (ProviderSettings, rcgen::CertifiedKey<rcgen::KeyPair>) {
    let (path, made) = tls::certificate_for(folder, NAME);
    let mut settings = provider(OpenAi, ([127, 0, 0, 1], 1).into());
    settings.url = format!("https://{NAME}/v1").parse().unwrap();
    settings.ca_file = Some(path);
    settings.proxy = Some(proxy);
    (settings, made)
}

/// The error of a chat through a proxy, with what must not be in it.
async fn refused(manner: Manner, change: impl FnOnce(&mut ProviderSettings)) -> ChatError {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::new(manner, ([127, 0, 0, 1], 1).into()).await;
    let (mut settings, _) = settings(&folder, proxy.url(CREDENTIALS));
    change(&mut settings);
    let error = error(llm(settings).chat(&question(), soon()).await);
    let shown = format!("{error:?} {error}");
    for secret in ["sesame", BASIC, &proxy.address.to_string()] {
        assert!(!shown.contains(secret), "{shown}");
    }
    error
}

#[tokio::test]
async fn chat_goes_through_the_tunnel_with_credentials_and_the_proxy_resolves() {
    let folder = tempfile::tempdir().unwrap();
    let (_, made) = tls::certificate_for(&folder, NAME);
    let target = tls::serve(&made).await;
    let proxy = Proxy::new(Manner::Wants(BASIC), target).await;
    let (mut settings, _) = settings(&folder, proxy.url(CREDENTIALS));
    // The certificate of the server, not the one that was just made over it.
    std::fs::write(settings.ca_file.as_ref().unwrap(), made.cert.pem()).unwrap();
    settings.connect = PATIENCE;
    let reply = llm(settings).chat(&question(), soon()).await.unwrap();
    assert_eq!(reply.message.text.as_deref(), Some("fine"));
    assert_eq!(proxy.asked(), [format!("CONNECT {NAME}:443 HTTP/1.1")]);
}

#[tokio::test]
async fn plain_http_goes_to_the_proxy_as_a_whole_request() {
    let fine = json!({"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]});
    let server = Server::new([reply(200, fine)]).await;
    let proxy = Proxy::new(Manner::Wants(BASIC), server.address).await;
    let mut settings = provider(OpenAi, server.address);
    settings.url = "http://model.internal:8080/v1".parse().unwrap();
    settings.proxy = Some(proxy.url(CREDENTIALS));
    let reply = llm(settings).chat(&question(), soon()).await.unwrap();
    assert_eq!(reply.message.text.as_deref(), Some("fine"));
    assert_eq!(proxy.asked(), ["POST http://model.internal:8080/v1/chat/completions HTTP/1.1"]);
    let headers = server.only().headers;
    assert_eq!((&*headers["host"], headers.get("proxy-authorization")), ("model.internal:8080", None));
}

#[tokio::test]
async fn each_failure_of_the_proxy_names_its_setting() {
    let cases = [
        (Manner::Wants("bm90aGluZw=="), "wants other credentials (407)"),
        (Manner::Refuses(403), "does not connect to the server"),
        (Manner::Refuses(502), "does not connect to the server"),
        (Manner::Closes, "broke the connection"),
    ];
    for (manner, why) in cases {
        let ChatError::Unavailable { reason } = refused(manner.clone(), |_| {}).await else { panic!("{manner:?}") };
        assert!(reason.contains("llm.providers.lab.proxy") && reason.contains(why), "{manner:?}: {reason}");
    }
    let nowhere: SocketAddr = ([127, 0, 0, 1], 1).into();
    for url in ["https://model.invalid/v1", "http://model.internal/v1"] {
        let gone = |settings: &mut ProviderSettings| {
            settings.url = url.parse().unwrap();
            settings.proxy = Some(format!("http://{CREDENTIALS}{nowhere}").parse().unwrap());
        };
        let ChatError::Unavailable { reason } = refused(Manner::Connects, gone).await else { panic!("{url}") };
        assert!(
            reason.contains("llm.providers.lab.proxy") && reason.contains("cannot be connected to"),
            "{url}: {reason}"
        );
    }
    let plain = |settings: &mut ProviderSettings| settings.url = "http://model.internal/v1".parse().unwrap();
    let ChatError::Unavailable { reason } = refused(Manner::Wants("bm90aGluZw=="), plain).await else { panic!() };
    assert!(reason.contains("llm.providers.lab.proxy wants other credentials (407)"), "{reason}");
}

#[tokio::test]
async fn proxy_that_never_answers_ends_at_connect() {
    let connect = Duration::from_millis(300);
    let error = refused(Manner::Hangs, |settings| settings.connect = connect).await;
    assert_eq!(error, ChatError::TimedOut { stage: "connection through its proxy", limit: connect });
}

#[tokio::test]
async fn failure_behind_the_proxy_is_not_the_proxys() {
    let folder = tempfile::tempdir().unwrap();
    let (_, made) = tls::certificate_for(&folder, NAME);
    let proxy = Proxy::new(Manner::Connects, tls::serve(&made).await).await;
    // It trusts another certificate than the server's.
    let other = tempfile::tempdir().unwrap();
    let (settings, _) = settings(&other, proxy.url(""));
    let ChatError::Unavailable { reason } = error(llm(settings).chat(&question(), soon()).await) else { panic!() };
    assert!(reason.contains("certificate") && !reason.contains("proxy"), "{reason}");
}

#[tokio::test]
async fn credentials_that_a_server_repeats_are_masked() {
    let proxy = Proxy::new(Manner::Refuses(400), ([127, 0, 0, 1], 1).into()).await;
    let mut settings = provider(OpenAi, ([127, 0, 0, 1], 1).into());
    settings.url = "http://model.internal/v1".parse().unwrap();
    settings.proxy = Some(proxy.url(CREDENTIALS));
    let failure = llm(settings).chat(&question(), soon()).await.unwrap_err();
    let shown = format!("{failure:?}");
    assert!(!shown.contains("sesame") && !shown.contains(BASIC), "{shown}");
}
