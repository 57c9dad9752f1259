//! Words that the API and the decoder of messages write into their code are words of the contract: codes, keys, parameters.

use crate::page::{Page, code, quoted, root, sources};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// String literals of lower-case letters, digits and underscores.
fn words(paths: &[PathBuf]) -> BTreeSet<String> {
    paths.iter().flat_map(|path| literals(&code(path))).filter(|text| is_word(text)).collect()
}

fn is_word(text: &str) -> bool {
    text.len() > 2 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn literals(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut bytes = code.char_indices();
    while let Some((at, c)) = bytes.next() {
        // A character in quotes may be a quotation mark.
        if c == '\'' && code[at..].starts_with("'\"'") {
            bytes.nth(1);
            continue;
        }
        if c != '"' {
            continue;
        }
        let begin = at + 1;
        while let Some((at, c)) = bytes.next() {
            match c {
                '\\' => drop(bytes.next()),
                '"' => {
                    found.push(code[begin..at].to_owned());
                    break;
                }
                _ => {}
            }
        }
    }
    found
}

/// Literals that are no words of the API: names of functions, and of AMQP's properties.
const INTERNAL: &[&str] =
    &["bearer", "compression", "correlation_id", "expiration", "headers", "message_id", "present", "reply_to"];

#[test]
fn every_code_key_and_parameter_of_the_api_is_in_http_md() {
    let page = Page::of_docs("http.md");
    // What the document adds is written in the words of JSON Schema.
    let mut sources = sources("api");
    sources.retain(|path| !path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("openapi")));
    let words = words(&sources);
    for known in ["already_retried", "bad_query", "retry_of", "limit_bytes"] {
        assert!(words.contains(known), "the source was not read: {words:?}");
    }
    let missing: Vec<_> = words.iter().filter(|w| !INTERNAL.contains(&w.as_str()) && !page.has_word(w)).collect();
    assert!(missing.is_empty(), "host/docs/http.md does not have {missing:?}");
}

#[test]
fn every_reason_of_a_dead_letter_is_in_messages_md() {
    let page = Page::of_docs("messages.md");
    let src = root().join("host/src");
    let words = words(&["task/message.rs", "worker/dead.rs"].map(|path| src.join(path)));
    assert!(words.contains("id_mismatch") && words.contains("conflict"), "the source was not read: {words:?}");
    let missing: Vec<_> = words.iter().filter(|w| !INTERNAL.contains(&w.as_str()) && !page.has_word(w)).collect();
    assert!(missing.is_empty(), "host/docs/messages.md does not have {missing:?}");
    let rows = page.table("## Dead letters");
    assert!(rows.len() > 3, "the table of headers");
    let reasons = page.table("The property `user_id` is removed.");
    // Names of encodings stand there beside its reasons.
    let of_content = self::words(&[src.join("task/content.rs")]);
    let known = |reason: &&str| words.contains(*reason) || of_content.contains(*reason);
    let unknown: Vec<_> = reasons.iter().flat_map(|row| quoted(row[0])).filter(|r| !known(r)).collect();
    assert!(reasons.len() > 10 && unknown.is_empty(), "the code has no reason {unknown:?}");
}
