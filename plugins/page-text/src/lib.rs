//! What a page says: the text of HTML, and of whatever else is text. One pass over the bytes, no tree; so that a page costs what
//! its length costs, however it is nested.

mod charset;
mod html;

use std::fmt;

/// What a page says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The title of HTML.
    pub title: Option<String>,
    /// The text: a line for each paragraph, heading, list item or row.
    pub text: String,
}

/// A page that is no text, or text in letters that nobody here knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported(String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}

/// Reads a page. `content_type` is the header's value; without one the bytes decide.
///
/// # Errors
/// What is neither HTML nor other text, or is in another encoding than UTF-8 and windows-1252.
pub fn read(content_type: Option<&str>, body: &[u8]) -> Result<Page, Unsupported> {
    let kind = match content_type.map(Kind::of) {
        Some(Kind::Other(name)) => return Err(Unsupported(format!("it is {name}, which is no text"))),
        Some(kind) => kind,
        None => Kind::Unknown,
    };
    let html = match kind {
        Kind::Html => true,
        Kind::Plain => false,
        Kind::Unknown | Kind::Other(_) => looks_like_html(body),
    };
    let text = charset::decode(content_type, body, html).map_err(Unsupported)?;
    if text.contains('\0') && !html {
        return Err(Unsupported("it has NUL bytes, which no text has".into()));
    }
    Ok(if html { html::read(&text) } else { Page { title: None, text: printable(&text) } })
}

enum Kind<'a> {
    Html,
    Plain,
    Unknown,
    Other(&'a str),
}

impl Kind<'_> {
    fn of(content_type: &str) -> Kind<'_> {
        let name = content_type.split(';').next().unwrap_or_default().trim();
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "text/html" | "application/xhtml+xml" => Kind::Html,
            "" => Kind::Unknown,
            "application/json" | "application/xml" | "application/yaml" | "application/javascript" => Kind::Plain,
            _ if lower.starts_with("text/") || lower.ends_with("+json") || lower.ends_with("+xml") => Kind::Plain,
            _ => Kind::Other(name),
        }
    }
}

fn looks_like_html(body: &[u8]) -> bool {
    let start = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    let begins = |with: &[u8]| start.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    [&b"<!doctype html"[..], b"<html", b"<head", b"<body", b"<!--"].into_iter().any(begins)
}

/// Without control characters, which are for terminals and not for readers.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content_type: Option<&str>, body: &[u8]) -> Result<String, String> {
        read(content_type, body).map(|page| page.text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_text_is_read_as_it_is() {
        for kind in
            ["text/plain", "TEXT/Markdown; charset=utf-8", "application/json", "application/ld+json", "text/xml"]
        {
            assert_eq!(text(Some(kind), b"<b>a</b>\r\n\x1b[1m"), Ok("<b>a</b>\n[1m".into()), "{kind}");
        }
    }

    #[test]
    fn what_is_html_is_read_as_its_text() {
        assert_eq!(text(Some("text/html"), b"<b>a</b>"), Ok("a".into()));
        assert_eq!(text(Some("application/xhtml+xml; charset=\"UTF-8\""), b"<b>a</b>"), Ok("a".into()));
        assert_eq!(text(None, b"\xef\xbb\xbf \n<!DOCTYPE HTML><b>a</b>"), Ok("a".into()), "by its look");
        assert_eq!(text(None, b"<b>a</b>"), Ok("<b>a</b>".into()), "not by its look");
    }

    #[test]
    fn what_is_no_text_is_refused_by_name() {
        let error = text(Some("image/png"), b"\x89PNG").unwrap_err();
        assert!(error.contains("image/png"), "{error}");
        let error = text(None, b"GIF\0\0").unwrap_err();
        assert!(error.contains("NUL"), "{error}");
    }
}
