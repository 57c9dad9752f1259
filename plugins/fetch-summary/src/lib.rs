//! Fetches a page and has it summarised.

mod summary;

use agentry_sdk::llm::{self, Reply, Request};
use agentry_sdk::{Failure, Task, context, http, log, plugin};
use std::time::Duration;
use summary::Summary;

/// The most that a page may have, in bytes, before its text is taken out.
const PAGE_BYTES: usize = 4 << 20;
/// The longest that the page may take.
const FETCH_TIME: Duration = Duration::from_secs(60);
/// Words of a summary where the input does not say.
const WORDS: u32 = 150;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    /// The page.
    url: String,
    /// The longest summary, in words: 20 to 1,000.
    max_words: Option<u32>,
}

#[derive(Debug, PartialEq, serde::Serialize)]
struct Output {
    url: String,
    status: u16,
    title: String,
    summary: String,
    points: Vec<String>,
    /// Only the beginning of the page was read, because it is long.
    cut: bool,
    usage: Usage,
    model: String,
}

#[derive(Debug, PartialEq, serde::Serialize)]
struct Usage {
    input_tokens: u32,
    output_tokens: u32,
}

/// What gets pages, or stands in for it.
trait Web {
    fn send(&self, request: &http::Request) -> Result<http::Response, http::Error>;
}

/// What summarises, or stands in for it.
trait Model {
    fn chat(&self, request: &Request) -> Result<Reply, llm::Error>;
}

struct Host;

impl Web for Host {
    fn send(&self, request: &http::Request) -> Result<http::Response, http::Error> {
        request.send()
    }
}

impl Model for Host {
    fn chat(&self, request: &Request) -> Result<Reply, llm::Error> {
        llm::chat(request)
    }
}

fn handle(task: &Task, input: Input) -> Result<Output, Failure> {
    summarise(task, input, &Host, &Host)
}

fn summarise(task: &Task, input: Input, web: &impl Web, model: &impl Model) -> Result<Output, Failure> {
    let Input { url, max_words } = input;
    let max_words = max_words.unwrap_or(WORDS);
    if !(20..=1_000).contains(&max_words) {
        let message = format!("max_words is {max_words}; it must be 20 to 1000");
        return Err(Failure::invalid_input(message).with_pointer("/max_words"));
    }
    let (status, page) = fetch(&url, web)?;
    let (request, cut) = summary::request(&page, max_words, &task.id);
    let reply = model.chat(&request)?;
    let Summary { title, summary, points } = reply.json()?;
    let usage = Usage { input_tokens: reply.usage.input_tokens, output_tokens: reply.usage.output_tokens };
    Ok(Output { url, status, title, summary, points, cut, usage, model: reply.model })
}

fn fetch(url: &str, web: &impl Web) -> Result<(u16, page_text::Page), Failure> {
    let request = http::Request::get(url)
        .header("accept", "text/html, text/*;q=0.9, application/json;q=0.5")
        // Half of what there is, so that the model has the other half.
        .timeout(FETCH_TIME.min(context::remaining() / 2))
        .max_body(PAGE_BYTES);
    let response = web.send(&request).map_err(|error| match error {
        // It is the submitter's URL that is none.
        http::Error::Invalid(why) => Failure::invalid_input(why).with_pointer("/url"),
        error => error.into(),
    })?;
    let response = response.error_for_status()?;
    log::info(format_args!("{} answered {}, {} bytes", response.request, response.status, response.body.len()));
    let page = page_text::read(response.header("content-type"), &response.body).map_err(|why| {
        Failure::permanent(format!("{} is no page to summarise: {why}", response.request))
            .with_code("unsupported_content")
    })?;
    if page.text.is_empty() {
        let message = format!("{} has no text; perhaps a script would write it", response.request);
        return Err(Failure::permanent(message).with_code("empty_page"));
    }
    Ok((response.status, page))
}

plugin!(handle);

#[cfg(test)]
mod tests;
