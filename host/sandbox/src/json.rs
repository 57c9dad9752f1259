//! JSON from a stranger that everybody can read afterwards: a grammar allows what readers refuse.

use serde::de::IgnoredAny;

/// The deepest nesting that is let through. Parsers with a stack (serde_json's own, Postgres') give up near 128, and what is let
/// through is then read within a task, and a task within a list of them.
pub(crate) const DEPTH: usize = 100;

/// What is wrong with a text.
#[derive(Debug)]
pub(crate) enum NotJson {
    Syntax(serde_json::Error),
    Depth(usize),
    HalfPair,
}

/// Whether a text is JSON of bounded depth whose texts can be held: no half of a surrogate pair, which the grammar allows. Numbers
/// may be of any size. Neither its value nor a copy is made.
pub(crate) fn check(text: &str) -> Result<(), NotJson> {
    let (depth, half) = walk(text.as_bytes());
    if depth > DEPTH {
        return Err(NotJson::Depth(depth));
    }
    serde_json::from_str::<IgnoredAny>(text).map_err(NotJson::Syntax)?;
    if half { Err(NotJson::HalfPair) } else { Ok(()) }
}

/// The deepest nesting in a text that may be JSON, and whether there is half of a surrogate pair in it. Walked no further than is too deep.
fn walk(text: &[u8]) -> (usize, bool) {
    let (mut at, mut now, mut most, mut half) = (0, 0usize, 0, false);
    let mut quoted = false;
    while at < text.len() && most <= DEPTH {
        let length = match (text[at], quoted) {
            (b'\\', true) => match (unit(&text[at..]), unit(text.get(at + 6..).unwrap_or_default())) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
                (unit, _) => {
                    half |= matches!(unit, Some(0xd800..=0xdfff));
                    2
                }
            },
            (b'"', _) => {
                quoted = !quoted;
                1
            }
            (b'[' | b'{', false) => {
                now += 1;
                most = most.max(now);
                1
            }
            (b']' | b'}', false) => {
                now = now.saturating_sub(1);
                1
            }
            _ => 1,
        };
        at += length;
    }
    (most, half)
}

/// The sixteen bits that an escape at the start of this writes.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = std::str::from_utf8(text.strip_prefix(b"\\u")?.get(..4)?).ok()?;
    u16::from_str_radix(digits, 16).ok()
}
