//! JSON from a stranger that everybody can read afterwards: a grammar allows what readers refuse.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// The deepest nesting that is let through. Parsers with a stack (serde_json's own, Postgres') give up near 128, and what is let
/// through is then read within a task, and a task within a list of them.
pub(crate) const DEPTH: usize = 100;

/// What is wrong with a text.
#[derive(Debug)]
pub(crate) enum NotJson {
    Syntax(serde_json::Error),
    Depth(usize),
}

/// Whether a text is JSON of bounded depth that a strict reader takes: no half of a surrogate pair, no number out of range.
/// Its value is not made.
pub(crate) fn check(text: &str) -> Result<(), NotJson> {
    let depth = depth(text.as_bytes());
    if depth > DEPTH {
        return Err(NotJson::Depth(depth));
    }
    serde_json::from_str::<Readable>(text).map(drop).map_err(NotJson::Syntax)
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

/// Any value, read as strictly as if it were kept, and forgotten. (`IgnoredAny` skips what it does not look at.)
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Readable, D::Error> {
        deserializer.deserialize_any(Readable)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = Readable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Readable, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Readable, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Readable, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Readable, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Readable, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Readable, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Readable, A::Error> {
        while list.next_element::<Readable>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Readable, A::Error> {
        while object.next_entry::<Readable, Readable>()?.is_some() {}
        Ok(self)
    }
}
