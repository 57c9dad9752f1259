//! An input that everybody can read afterwards: the grammar allows what readers refuse. The sandbox judges outputs alike, and
//! neither of the two knows the other.

use serde::de::IgnoredAny;

/// The deepest nesting that is let through. Parsers with a stack give up near 128, and an input is read within a task, and a task
/// within a list of them.
pub(super) const DEPTH: usize = 100;

/// Whether a text is JSON of bounded depth whose texts can be held: no half of a surrogate pair, which the grammar allows. Numbers
/// may be of any size. Neither its value nor a copy is made. What is wrong is said.
pub(super) fn check(text: &str) -> Result<(), String> {
    let (depth, half) = walk(text.as_bytes());
    if depth > DEPTH {
        return Err(format!("it is nested {depth} deep or more, and {DEPTH} is the most"));
    }
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| error.to_string())?;
    if half { Err("it has half of a surrogate pair in it, which no text can hold".to_owned()) } else { Ok(()) }
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
