//! fetch-summary: a page of one server, a model of another.

use e2e::peers::Peer;
use e2e::{Mode, Site, Task};
use serde_json::json;

use super::{publish, reply, with_model, with_plugins};

const PAGE: &str = "<!doctype html><title>Bread</title><h1>Bread</h1><p>Flour, water, salt and <b>time</b>.</p>";

#[tokio::test]
async fn a_page_is_fetched_and_summarised_on_every_vendors_shape() {
    let site = Site::new(Mode::Services).await;
    let pages = site.folder().join("pages");
    std::fs::create_dir(&pages).expect("a folder");
    std::fs::write(pages.join("bread.html"), PAGE).expect("a page");
    let files = Peer::files(&pages, &site.folder().join("files.log")).await;
    let llmock = Peer::llmock(site.folder()).await;
    let granted = [format!("GET {}", files.url(""))];
    let setup = with_plugins(&site, &["fetch-summary"])
        .set("http.private", [files.address()].as_slice())
        .set("plugins.fetch-summary.capabilities.http", granted.as_slice())
        .set("plugins.fetch-summary.capabilities.llm", ["default"].as_slice());
    let mut daemon = with_model(setup, "default", "openai", &llmock.url("/v1")).start().await;
    let summary = json!({"title": "Bread", "summary": "It takes time.", "points": ["flour", "time"]});
    for (kind, root) in [("openai", "/v1"), ("anthropic", "/anthropic/v1"), ("gemini", "/gemini/v1beta")] {
        assert_eq!(daemon.terminate().await, Some(0), "{}", daemon.said());
        daemon.change(|setup| with_model(setup, "default", kind, &llmock.url(root)));
        daemon.start_again().await;
        llmock.plays("default", [reply(&summary.to_string(), &[])]).await;
        let asked = Task::new("fetch-summary", json!({"url": files.url("/bread.html"), "max_words": 50}));
        let task = publish(&site, &daemon, &asked).await;
        assert_eq!(task["state"], "completed", "{kind}: {task:#}");
        let output = &task["output"];
        for member in ["title", "summary", "points"] {
            assert_eq!(output[member], summary[member], "{kind}: {task:#}");
        }
        assert_eq!((&output["status"], &output["cut"]), (&json!(200), &json!(false)), "{kind}: {task:#}");
        let asked = llmock.asked().await.pop().expect("a request")["body"].to_string();
        assert!(asked.contains("Flour, water, salt and time."), "{kind}: the page's text, not its marks: {asked}");
    }
    let asked = Task::new("fetch-summary", json!({"url": files.url("/none.html")}));
    let task = publish(&site, &daemon, &asked).await;
    assert_eq!(
        (&task["state"], &task["failure"]["detail"]["code"]),
        (&json!("failed"), &json!("http_404")),
        "{task:#}"
    );
    daemon.stop().await;
}
