//! An input no deeper than its readers can follow. The sandbox judges outputs alike, and neither of the two knows the other.

use serde::de::IgnoredAny;

/// The deepest nesting that is let through. Parsers with a stack give up near 128, and an input is read within a task, and a task
/// within a list of them.
pub(super) const DEPTH: usize = 100;

/// Whether a text is JSON of bounded depth. Neither its value nor a copy is made, so that whatever the grammar allows is taken as
/// it is. What is wrong is said.
pub(super) fn check(text: &str) -> Result<(), String> {
    let depth = depth(text.as_bytes());
    if depth > DEPTH {
        return Err(format!("it is nested {depth} deep or more, and {DEPTH} is the most"));
    }
    serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(|error| error.to_string())
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
