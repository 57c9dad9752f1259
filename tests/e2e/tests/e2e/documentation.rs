//! The requests of `host/docs/http.md`, sent one after the other to a daemon.

use std::path::Path;

use e2e::{Mode, Site, variables};

/// A request as the page has it, with the status that the page promises.
struct Example {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
    status: u16,
    code: Option<String>,
}

/// Each block of the language `http`, and the line below it: "Answer: `STATUS`", or "Answer: `STATUS` `CODE`" for a problem.
fn examples(page: &str) -> Vec<Example> {
    let blocks = page.split("\n```http\n").skip(1);
    blocks
        .map(|rest| {
            let (block, below) = rest.split_once("\n```\n").expect("the end of a block");
            let answer = below.trim_start().lines().next().unwrap_or_default();
            let answer = answer.strip_prefix("Answer: ").unwrap_or_else(|| panic!("no answer below {block}"));
            let words: Vec<&str> = answer.split('`').collect();
            let status = words[1].parse().unwrap_or_else(|_| panic!("no status in {answer:?}"));
            let code = (words[2] == " ").then(|| words[3].to_owned());
            let (head, body) = block.split_once("\n\n").unwrap_or((block, ""));
            let mut lines = head.lines();
            let (method, path) = lines.next().and_then(|line| line.split_once(' ')).expect("METHOD PATH");
            let headers = lines.map(|line| line.split_once(": ").expect("NAME: VALUE"));
            Example {
                method: method.to_owned(),
                path: path.to_owned(),
                headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                body: body.to_owned(),
                status,
                code,
            }
        })
        .collect()
}

/// `{id}` is the task of the last answer that had one, once it has ended or waits for a later time.
#[tokio::test]
async fn every_request_of_the_documentation_returns_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../host/docs/http.md");
    let examples = examples(&std::fs::read_to_string(page).expect("host/docs/http.md"));
    assert!(examples.len() > 20, "{} requests were found", examples.len());
    let site = Site::new(Mode::Embedded).await;
    let daemon = site.setup().plugins([variables::plugins()]).start().await;
    let mut id = String::new();
    for example in &examples {
        let path = example.path.replace("{id}", &id);
        let headers: Vec<(&str, &str)> = example.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let answer = daemon.http().send(&example.method, &path, &headers, example.body.clone()).await;
        let what = format!("{} {path}: {answer:?}", example.method);
        assert_eq!(answer.status, example.status, "{what}");
        if let Some(code) = &example.code {
            assert_eq!(answer.json()["code"], code.as_str(), "{what}");
        }
        if answer.content_type == "application/json"
            && let Some(found) = answer.json()["id"].as_str().filter(|_| example.path.starts_with("/v1/tasks"))
        {
            id = found.to_owned();
            if answer.json()["state"] != "scheduled" {
                daemon.http().ended(id.parse().expect("a UUID")).await;
            }
        }
    }
    daemon.stop().await;
}
