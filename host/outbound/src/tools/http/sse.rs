//! Server-sent events (WHATWG HTML, section 9.2), read from bytes: line ends of any kind, comments, a byte order mark, data over
//! several lines. `sse-stream`, which rmcp uses, holds an event of any length in memory, and drops one that the end of the stream ends.

use std::collections::VecDeque;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Its name; `None` if it has none.
    pub(super) name: Option<String>,
    /// Its lines of data, joined; `None` if it has none.
    pub(super) data: Option<Vec<u8>>,
    /// The id to go on from when the stream breaks.
    pub(super) id: Option<String>,
    /// How long to wait until then, in milliseconds.
    pub(super) retry: Option<u64>,
}

/// An event has more than the bytes that are allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Makes events of bytes as they come.
pub(super) struct Parser {
    line: Vec<u8>,
    event: Event,
    ready: VecDeque<Event>,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    returned: bool,
    is_first_line: bool,
    most: usize,
}

impl Parser {
    /// Events of at most so many bytes.
    pub(super) fn new(most: usize) -> Parser {
        Parser {
            line: Vec::new(),
            event: Event::default(),
            ready: VecDeque::new(),
            returned: false,
            is_first_line: true,
            most,
        }
    }

    /// The next event that is whole.
    pub(super) fn next(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    /// Takes bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), TooLarge> {
        while let Some((first, rest)) = bytes.split_first() {
            if std::mem::take(&mut self.returned) && *first == b'\n' {
                bytes = rest;
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            let kept = self.event.data.as_ref().map_or(0, Vec::len) + self.line.len();
            if kept + part.len() > self.most {
                return Err(TooLarge);
            }
            self.line.extend_from_slice(part);
            bytes = rest;
            if let Some((end, rest)) = rest.split_first() {
                self.returned = *end == b'\r';
                bytes = rest;
                self.end_line();
            }
        }
        Ok(())
    }

    /// Ends the stream: an event without its empty line at the end is taken as whole.
    pub(super) fn finish(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.end_event();
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if std::mem::take(&mut self.is_first_line) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            return self.end_event();
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = match colon {
            Some(0) => return, // a comment
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = || String::from_utf8_lossy(value).into_owned();
        match field {
            b"data" => match &mut self.event.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                none => *none = Some(value.to_vec()),
            },
            b"event" => self.event.name = Some(text()),
            b"id" if !value.contains(&0) => self.event.id = Some(text()),
            b"retry" => self.event.retry = text().parse().ok(),
            _ => {}
        }
    }

    fn end_event(&mut self) {
        let event = std::mem::take(&mut self.event);
        if event != Event::default() {
            self.ready.push_back(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(parts: &[&str]) -> Vec<(Option<String>, String)> {
        let mut parser = Parser::new(1_000);
        for part in parts {
            parser.push(part.as_bytes()).unwrap();
        }
        parser.finish();
        let text = |data: Option<Vec<u8>>| String::from_utf8(data.unwrap_or_default()).unwrap();
        std::iter::from_fn(|| parser.next()).map(|event| (event.name, text(event.data))).collect()
    }

    #[test]
    fn events_are_the_same_with_every_line_end_and_cut() {
        let stream =
            "\u{feff}: hello\nevent: message\ndata: {\"a\":\ndata: 1}\n\nevent: ping\n\n:\n\ndata:no space\nid: 7\n\n";
        let expected = [
            (Some("message".to_owned()), "{\"a\":\n1}".to_owned()),
            (Some("ping".to_owned()), String::new()),
            (None, "no space".to_owned()),
        ];
        for end in ["\n", "\r\n", "\r"] {
            let stream = stream.replace('\n', end);
            assert_eq!(events(&[&stream]), expected, "{end:?}");
            for cut in (0..stream.len()).filter(|cut| stream.is_char_boundary(*cut)) {
                assert_eq!(events(&[&stream[..cut], &stream[cut..]]), expected, "{end:?} {cut}");
            }
        }
    }

    #[test]
    fn last_event_needs_no_empty_line() {
        assert_eq!(events(&["data: a"]), [(None, "a".to_owned())]);
    }

    #[test]
    fn event_that_is_too_large_is_an_error() {
        let mut parser = Parser::new(10);
        assert_eq!(parser.push(b"data: 0123456789"), Err(TooLarge));
        let mut parser = Parser::new(16);
        assert_eq!(parser.push(b"data: 012345\ndata: 6789ab\n"), Err(TooLarge));
    }
}
