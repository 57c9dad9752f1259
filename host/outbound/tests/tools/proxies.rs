//! Servers of the protocol behind a proxy of the operator's.

use super::connect::{Manner, Proxy};
use super::http::at;
use super::http_server::HttpServer;
use super::*;

/// `me:open sesame`.
const CREDENTIALS: &str = "me:open%20sesame@";
const BASIC: &str = "bWU6b3BlbiBzZXNhbWU=";

/// Settings for a name that only the proxy resolves.
fn behind(proxy: agentry_outbound::Proxy) -> ServerSettings {
    let mut settings = at("http://mcp.internal/mcp".parse().unwrap(), &[], None);
    let Transport::Http { proxy: own, .. } = &mut settings.transport else { unreachable!() };
    *own = Some(proxy);
    settings
}

#[tokio::test]
async fn session_goes_through_the_proxy() {
    let server = HttpServer::start("well").await;
    let proxy = Proxy::new(Manner::Wants(BASIC), server.address).await;
    let tools = only(behind(proxy.url(CREDENTIALS)));
    assert_eq!(text(&session(&tools), "echo", json!({"text": "a"})).await, "a");
    tools.close().await;
    assert!(proxy.asked().iter().any(|line| line == "POST http://mcp.internal/mcp HTTP/1.1"), "{:?}", proxy.asked());
}

#[tokio::test]
async fn failure_of_the_proxy_names_its_setting_and_no_credentials() {
    let server = HttpServer::start("well").await;
    let other = Proxy::new(Manner::Wants("bm90aGluZw=="), server.address).await;
    let nowhere = format!("http://{CREDENTIALS}127.0.0.1:1").parse().unwrap();
    for (proxy, why) in [(nowhere, "cannot be reached"), (other.url(CREDENTIALS), "407")] {
        let mut settings = behind(proxy);
        settings.start = std::time::Duration::from_secs(1);
        let error = call(&session(&only(settings)), "echo", json!({})).await.unwrap_err().to_string();
        assert!(error.contains("tools.NAME.proxy") && error.contains(why) && !error.contains("sesame"), "{error}");
    }
    assert_eq!(other.asked().len(), 1, "nothing else is tried");
}
