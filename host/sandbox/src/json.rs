//! JSON from a stranger, no deeper than its readers can follow.

use serde::de::IgnoredAny;

/// The deepest nesting that is let through. Parsers with a stack (serde_json's own, Postgres') give up near 128, and what is let
/// through is then read within a task, and a task within a list of them.
pub(crate) const DEPTH: usize = 100;

/// What is wrong with a text.
#[derive(Debug)]
pub(crate) enum NotJson {
    Syntax(serde_json::Error),
    Depth(usize),
}

/// Whether a text is JSON of bounded depth. Neither its value nor a copy is made, so that whatever the grammar allows is taken as
/// it is.
pub(crate) fn check(text: &str) -> Result<(), NotJson> {
    let depth = depth(text.as_bytes());
    if depth > DEPTH {
        return Err(NotJson::Depth(depth));
    }
    serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(NotJson::Syntax)
}

/// The deepest nesting in a text that may be JSON, counted no further than is too deep.
fn depth(text: &[u8]) -> usize {
    let (mut now, mut most) = (0usize, 0usize);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                now += 1;
                most = most.max(now);
                if most > DEPTH {
                    break;
                }
            }
            b']' | b'}' => now = now.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    most
}
