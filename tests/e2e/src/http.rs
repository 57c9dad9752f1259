//! The daemon's HTTP API, as any client sees it.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;
use uuid::Uuid;

use crate::patience::{eventually, patience};

/// A client of one daemon.
#[derive(Clone)]
pub struct Http {
    base: String,
    client: reqwest::Client,
}

/// What a request was answered with.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The content type.
    pub content_type: String,
    /// The body, as it came.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// The body as JSON, of an answer with this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }
}

impl Http {
    /// A client of the daemon at `base`, such as `http://127.0.0.1:7070`.
    pub fn new(base: &str) -> Self {
        Self::of(base, None, None)
    }

    /// The same, of one that asks for a token, or that this authority vouches for.
    pub fn of(base: &str, token: Option<&str>, authority: Option<&Path>) -> Self {
        static PROVIDER: OnceLock<()> = OnceLock::new();
        PROVIDER.get_or_init(|| {
            // Another test may have installed one, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let bearer = token.map(|token| {
            format!("Bearer {token}").parse::<reqwest::header::HeaderValue>().expect("a token is a header's value")
        });
        let headers = bearer.map(|bearer| (reqwest::header::AUTHORIZATION, bearer)).into_iter().collect();
        let client = reqwest::Client::builder().timeout(patience()).no_proxy().default_headers(headers);
        let authority = authority.map(|file| {
            let pem = std::fs::read(file).expect("the authority's certificate is read");
            reqwest::Certificate::from_pem(&pem).expect("a certificate")
        });
        let client = client.tls_certs_merge(authority).build().expect("an HTTP client");
        Self { base: base.trim_end_matches('/').to_owned(), client }
    }

    /// Where the daemon listens.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.unwrap_or_else(|error| panic!("GET {path}: {error:?}"))
    }

    /// `GET path`, of a daemon that may be away.
    pub async fn try_get(&self, path: &str) -> Result<Answer, reqwest::Error> {
        answer(self.client.get(format!("{}{path}", self.base))).await
    }

    /// `POST path` with JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, body.to_string(), &[]).await
    }

    /// The same, where the daemon may be gone or go.
    pub async fn try_post(&self, path: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        let request = self.client.post(format!("{}{path}", self.base)).header("content-type", "application/json");
        answer(request.body(body.to_string())).await
    }

    /// `POST path` with a body as it is, and headers.
    pub async fn post_text(&self, path: &str, body: String, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.client.post(format!("{}{path}", self.base)).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.body(body)).await.unwrap_or_else(|error| panic!("POST {path}: {error:?}"))
    }

    /// Any request, with exactly these headers.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
        let method = method.parse().unwrap_or_else(|error| panic!("{method}: {error}"));
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.body(body)).await.unwrap_or_else(|error| panic!("{path}: {error:?}"))
    }

    /// The value of a line of `GET /metrics`, by everything that stands before it.
    pub async fn metric(&self, name: &str) -> f64 {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let value = answer.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in\n{}", answer.text))
    }

    /// The task as it is now.
    pub async fn task(&self, id: Uuid) -> Value {
        self.get(&format!("/v1/tasks/{id}")).await.expect(200)
    }

    /// The task once it is terminal. It may not even be known yet: a message takes its time.
    pub async fn ended(&self, id: Uuid) -> Value {
        eventually(&format!("task {id} ends"), async || {
            let answer = self.get(&format!("/v1/tasks/{id}")).await;
            match answer.status {
                200 if is_terminal(answer.json()["state"].as_str().unwrap_or_default()) => Ok(answer.json()),
                _ => Err(answer.text),
            }
        })
        .await
    }

    /// The task's history.
    pub async fn events(&self, id: Uuid) -> Vec<Value> {
        list(self.get(&format!("/v1/tasks/{id}/events")).await.expect(200), "events")
    }

    /// What its guests logged.
    pub async fn logs(&self, id: Uuid) -> Vec<Value> {
        list(self.get(&format!("/v1/tasks/{id}/logs")).await.expect(200), "logs")
    }

    /// Its ended attempts.
    pub async fn attempts(&self, id: Uuid) -> Vec<Value> {
        list(self.get(&format!("/v1/tasks/{id}/attempts")).await.expect(200), "attempts")
    }

    /// Its calls of capabilities.
    pub async fn calls(&self, id: Uuid) -> Vec<Value> {
        list(self.get(&format!("/v1/tasks/{id}/calls")).await.expect(200), "calls")
    }
}

/// Whether a state never changes again.
pub fn is_terminal(state: &str) -> bool {
    matches!(state, "completed" | "failed" | "cancelled")
}

/// A list, in an object under its name.
fn list(body: Value, name: &str) -> Vec<Value> {
    body[name].as_array().unwrap_or_else(|| panic!("no {name} in {body}")).clone()
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = content_type.to_owned();
    Ok(Answer { status, content_type, text: response.text().await? })
}
