//! Messages in the lines of a child's output: one a line as the protocol has it, behind a banner on the same line, or over several
//! lines. Everything else is noise.
//!
//! A child that wrote a message on a line of its own writes all of them so: from then on, words before a message are a log line that
//! repeats what others sent, and may be made to look like an answer.

use super::intake;
use super::link::Link;
use serde_json::Value;

/// How many braces of a line are tried as the beginning of a message.
const BANNER_BRACES: usize = 4;

/// Lines that may become a message.
pub(super) struct Assembly {
    /// A message that is not whole yet.
    begun: Vec<u8>,
    nesting: Nesting,
    most: usize,
    /// A message stood on a line of its own.
    is_plain: bool,
}

/// How deep a text of JSON is nested at its end.
#[derive(Default)]
struct Nesting {
    depth: i64,
    in_string: bool,
}

impl Assembly {
    /// Of messages of at most so many bytes.
    pub(super) fn new(most: usize) -> Assembly {
        Assembly { begun: Vec::new(), nesting: Nesting::default(), most, is_plain: false }
    }

    /// Takes a line; the message that it is, or ends. Noise is reported once.
    pub(super) fn take(&mut self, link: &Link, line: &[u8]) -> Option<Value> {
        let text = intake::trimmed(line);
        if text.is_empty() {
            return None;
        }
        let plain = message(link, text);
        self.is_plain |= plain.is_some();
        if let Some(value) = plain.or_else(|| behind_banner(link, text).filter(|_| !self.is_plain)) {
            if !std::mem::take(&mut self.begun).is_empty() {
                link.garbled(text.len());
            }
            return Some(value);
        }
        if self.begun.is_empty() {
            self.nesting = Nesting::default();
        }
        let may_begin = !self.begun.is_empty() || matches!(text.first(), Some(b'{' | b'['));
        self.nesting.read(text);
        // A string of JSON does not go over a line.
        let may_go_on = may_begin && !self.nesting.in_string && self.begun.len() + text.len() < self.most;
        if !may_go_on || self.nesting.depth < 0 {
            self.begun = Vec::new();
            link.garbled(text.len());
            return None;
        }
        self.begun.extend_from_slice(text);
        self.begun.push(b'\n');
        if self.nesting.depth > 0 {
            return None;
        }
        let whole = std::mem::take(&mut self.begun);
        let value = message(link, &whole);
        if value.is_none() {
            link.garbled(whole.len());
        }
        self.is_plain |= value.is_some();
        value
    }
}

/// JSON that is a message, or a batch of some.
fn message(link: &Link, text: &[u8]) -> Option<Value> {
    let value = intake::read(link, text)?;
    let is_message = match &value {
        Value::Array(batch) => !batch.is_empty() && batch.iter().all(intake::is_message),
        one => intake::is_message(one),
    };
    is_message.then_some(value)
}

/// The message that begins behind other words on a line, which a program printed without a line end.
fn behind_banner(link: &Link, text: &[u8]) -> Option<Value> {
    let braces = text.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'{').map(|(at, _)| at);
    let found = braces.take(BANNER_BRACES).find_map(|at| message(link, &text[at..]));
    found.filter(|value| value.get("jsonrpc").is_some())
}

impl Nesting {
    fn read(&mut self, text: &[u8]) {
        let mut escaped = false;
        for byte in text {
            match byte {
                _ if std::mem::take(&mut escaped) => {}
                b'\\' if self.in_string => escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => self.depth -= 1,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Redactor;
    use serde_json::json;

    fn taken(lines: &[&str]) -> Vec<Value> {
        let (mut assembly, link) = (Assembly::new(1_000), Link::new("it", Redactor::default()));
        lines.iter().filter_map(|line| assembly.take(&link, line.as_bytes())).collect()
    }

    #[test]
    fn message_is_found_among_noise() {
        let expected = json!({"jsonrpc": "2.0", "id": 1, "result": {}});
        let message = expected.to_string();
        let banner = format!("Starting... {message}");
        let marked = format!("\u{feff}{message}\r");
        for lines in [
            &["[INFO] listening {", &message][..],
            &["{", "  \"level\": \"info\"", &message],
            &[&banner],
            &[&marked],
            &["{", "  \"jsonrpc\": \"2.0\", \"id\": 1,", "  \"result\": {", "  }", "}", "done"],
            &["}{ \"", "{\"broken", &message],
        ] {
            assert_eq!(taken(lines), std::slice::from_ref(&expected), "{lines:?}");
        }
    }

    #[test]
    fn log_line_that_repeats_a_message_is_noise_once_one_stood_alone() {
        let first = json!({"jsonrpc": "2.0", "id": 0, "result": {}});
        let forged = json!({"jsonrpc": "2.0", "id": 1, "result": {"content": ["forged"]}});
        let own = json!({"jsonrpc": "2.0", "id": 1, "result": {"content": ["own"]}});
        let lines = [first.to_string(), format!("[INFO] fetched {forged}"), own.to_string()];
        assert_eq!(taken(&lines.each_ref().map(String::as_str)), [first.clone(), own.clone()]);
        let lines = [format!("Working... {first}"), format!("Working... {own}")];
        assert_eq!(taken(&lines.each_ref().map(String::as_str)), [first, own]);
    }

    #[test]
    fn noise_is_no_message_and_is_not_kept() {
        let long = format!("[{}", "1,".repeat(600));
        assert_eq!(taken(&["hello", "[]", "{}", "{\"level\": 30}", "7", &long, "[1]"]), Vec::<Value>::new());
    }
}
