//! One provider, set up: its client, its key, its places.

use super::answer::{self, Place};
use super::anthropic::Anthropic;
use super::deadlines::Deadlines;
use super::exchange;
use super::gemini::Gemini;
use super::openai::OpenAi;
use super::prompt::Prompt;
use super::responses::Responses;
use super::retry::{self, Setback};
use super::shape::{Reading, Shape};
use super::types::{ChatError, ChatTrace, LlmSettingsError, ProviderKind, ProviderSettings};
use crate::secret::{self, Redactor};
use crate::{Proxy, tls};
use agentry_defence::Defence;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

/// Headers that an operator sets and everybody may know. Their values are words that an answer may have, too.
const PUBLIC: [&str; 8] = [
    "anthropic-beta",
    "http-referer",
    "openai-beta",
    "openai-organization",
    "referer",
    "user-agent",
    "x-openrouter-title",
    "x-title",
];

/// See the module.
pub(super) struct Provider {
    pub name: String,
    pub shape: Box<dyn Shape>,
    pub client: reqwest::Client,
    pub proxy: Option<Proxy>,
    pub root: Url,
    pub headers: HeaderMap,
    pub redactor: Redactor,
    pub connect: Duration,
    pub first_byte: Duration,
    pub idle: Duration,
    pub total: Duration,
    pub retries: u32,
    pub places: Semaphore,
}

impl Provider {
    /// Sets one up from settings that were checked.
    pub fn new(name: &str, settings: &ProviderSettings) -> Result<Provider, LlmSettingsError> {
        let fault = |key, reason| LlmSettingsError::Invalid { provider: name.to_owned(), key, reason };
        let shape: Box<dyn Shape> = match settings.kind {
            ProviderKind::OpenAi => Box::new(OpenAi::new(&settings.url)),
            ProviderKind::OpenAiResponses => Box::new(Responses::new(&settings.url)),
            ProviderKind::Anthropic => Box::new(Anthropic),
            ProviderKind::Gemini => Box::new(Gemini),
        };
        let is_https = settings.url.scheme() == "https" || settings.proxy.as_ref().is_some_and(Proxy::is_tls);
        let tls = tls::client_of(is_https, settings.ca_file.as_deref());
        let tls = tls.map_err(|reason| fault("ca_file", reason))?;
        let through =
            settings.proxy.as_ref().map(Proxy::of_client).transpose().map_err(|reason| fault("proxy", reason))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .connect_timeout(settings.connect)
            .user_agent(concat!("agentry/", env!("CARGO_PKG_VERSION")));
        let client = match through {
            Some(proxy) => client.proxy(proxy),
            None => client,
        };
        let client =
            client.build().map_err(|error| fault("url", format!("no client can be set up for it: {error}")))?;
        Ok(Provider {
            name: name.to_owned(),
            headers: headers(shape.as_ref(), settings).map_err(|reason| fault("headers", reason))?,
            shape,
            client,
            proxy: settings.proxy.clone(),
            root: settings.url.clone(),
            redactor: Redactor::new(secrets(settings).into_iter().filter(|_| Defence::LlmMask.stands())),
            connect: settings.connect,
            first_byte: settings.first_byte,
            idle: settings.idle,
            total: settings.total,
            retries: settings.retries,
            places: Semaphore::new(match Defence::LlmConcurrency.stands() {
                true => settings.concurrency as usize,
                false => Semaphore::MAX_PERMITS,
            }),
        })
    }

    /// Asks, and asks again where that may help, within the task's time.
    pub async fn ask(
        &self,
        alias: &str,
        prompt: &Prompt<'_>,
        until: Instant,
        trace: &mut ChatTrace,
    ) -> Result<Reading, ChatError> {
        let url = self.shape.endpoint(&self.root, prompt.model);
        let body = Bytes::from(self.shape.body(prompt).to_string());
        trace.request_bytes = body.len() as u64;
        let mut headers = self.headers.clone();
        if let Some((name, value)) = self.shape.header(prompt) {
            headers.entry(name).or_insert(value);
        }
        let asked = self.asked(prompt);
        let place = self.place(alias, prompt, &asked);
        let deadlines = Deadlines { began: Instant::now(), until, total: None };
        let mut setbacks = 0;
        loop {
            let setback = match exchange::once(self, &place, (&url, &headers, &body), deadlines, trace).await {
                Ok(body) => return Ok(self.shape.read(&body)),
                Err(setback) => setback,
            };
            let pause = self.pause(setback, setbacks, until)?;
            tracing::debug!(provider = self.name, model = prompt.model, tries = trace.tries, ?pause, "asking again");
            tokio::time::sleep(pause).await;
            setbacks += 1;
        }
    }

    /// The method and the path of a question, without the host, which guests do not see.
    pub fn asked(&self, prompt: &Prompt<'_>) -> String {
        format!("POST {}", self.redactor.text(self.shape.endpoint(&self.root, prompt.model).path()))
    }

    /// Where a question goes, without the query, which may have a key.
    pub fn address(&self, prompt: &Prompt<'_>) -> String {
        let mut url = self.shape.endpoint(&self.root, prompt.model);
        url.set_query(None);
        self.redactor.text(url.as_str())
    }

    /// For errors.
    pub fn place<'a>(&'a self, alias: &'a str, prompt: &'a Prompt<'_>, asked: &'a str) -> Place<'a> {
        let (tag, example) = ((self.shape.tag(), self.shape.marks_made_ids()), self.shape.example());
        Place { provider: &self.name, alias, model: prompt.model, tag, asked, example }
    }

    /// How long to wait before the next try; an error if there is none.
    fn pause(&self, setback: Setback, setbacks: u32, until: Instant) -> Result<Duration, ChatError> {
        if !setback.may_retry || setbacks >= self.retries {
            return Err(setback.error);
        }
        let pause = retry::pause(setbacks, setback.after);
        if pause < until.saturating_duration_since(Instant::now()) {
            return Ok(pause);
        }
        // Nobody waits for what cannot come in time. If it is the provider that names the time, the guest is told it.
        match (setback.error, setback.after) {
            (ChatError::Unavailable { reason }, Some(after)) => {
                Err(ChatError::RateLimited { reason: answer::told(&reason), after: Some(after) })
            }
            (error, _) => Err(error),
        }
    }
}

/// What every request carries, whatever it asks. Values are marked, so that no `Debug` shows them and no index of HTTP/2 keeps them.
fn headers(shape: &dyn Shape, settings: &ProviderSettings) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str, is_sensitive: bool| {
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no header's name"))?;
        let mut value =
            HeaderValue::from_str(value).map_err(|_| format!("the value of {name:?} is no header's value"))?;
        value.set_sensitive(is_sensitive);
        headers.insert(parsed, value);
        Ok::<(), String>(())
    };
    add("content-type", "application/json", false)?;
    add("accept", "application/json", false)?;
    // Without it a server may compress as it likes (RFC 9110, section 12.5.3).
    add("accept-encoding", "identity", false)?;
    if let Some(key) = &settings.key {
        let (name, value) = shape.key_header(key.expose());
        add(name, &value, true)?;
    }
    for (name, value) in &settings.headers {
        add(name, value.expose(), true)?;
    }
    Ok(headers)
}

/// What is to come back to no guest.
fn secrets(settings: &ProviderSettings) -> Vec<String> {
    let is_secret = |name: &&String| !PUBLIC.contains(&name.to_ascii_lowercase().as_str());
    let headers = settings.headers.iter().filter(|(name, _)| is_secret(name)).map(|(_, value)| value);
    let proxy = settings.proxy.iter().flat_map(Proxy::secrets);
    settings.key.iter().chain(headers).flat_map(|secret| secret::of_header(secret.expose())).chain(proxy).collect()
}
