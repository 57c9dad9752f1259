//! The body of a call, where the operator asked for it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serializer};
use std::borrow::Cow;

/// What was kept of a body: the guest's own words, or what it was answered. It may hold any byte.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Body {
    /// Its beginning; all of it if it is as long as `size`.
    #[serde(serialize_with = "written", deserialize_with = "read")]
    pub bytes: Vec<u8>,
    /// How long it was.
    pub size: u64,
}

/// In a spool and between processes it is text: an array of numbers would be four times as long.
fn written<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text: Cow<'de, str> = Deserialize::deserialize(deserializer)?;
    BASE64_STANDARD.decode(&*text).map_err(serde::de::Error::custom)
}

/// The recorded part of a body.
#[derive(Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = CallBody)]
pub struct BodyText<'a> {
    /// `utf-8` or `base64`.
    pub encoding: &'static str,
    /// What is kept.
    pub content: Cow<'a, str>,
    /// Its full length in bytes.
    pub bytes: u64,
    /// `content` is only its beginning.
    pub cut: bool,
}

impl<'a> BodyText<'a> {
    /// Of what is kept of a body that was `size` bytes long.
    pub fn new(kept: &'a [u8], size: u64) -> BodyText<'a> {
        let (encoding, content) = match std::str::from_utf8(kept) {
            Ok(text) => ("utf-8", text.into()),
            Err(_) => ("base64", BASE64_STANDARD.encode(kept).into()),
        };
        BodyText { encoding, content, bytes: size, cut: (kept.len() as u64) < size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_body_is_text_where_it_is_text_and_says_what_it_is_and_whether_it_is_whole() {
        let body = |kept: &'static [u8], size| serde_json::to_value(BodyText::new(kept, size)).unwrap();
        let expected = json!({"encoding": "utf-8", "content": "a\u{0}é", "bytes": 4, "cut": false});
        assert_eq!(body("a\0é".as_bytes(), 4), expected);
        let expected = json!({"encoding": "base64", "content": "/wA=", "bytes": 9, "cut": true});
        assert_eq!(body(b"\xff\0", 9), expected);
        assert_eq!(body(b"", 9)["cut"], true);
    }

    #[test]
    fn a_body_reads_back_as_it_was_and_never_as_something_else() {
        let body = Body { bytes: vec![0, 0xff, b'a'], size: 7 };
        let text = serde_json::to_string(&body).unwrap();
        assert_eq!(serde_json::from_str::<Body>(&text).unwrap(), body);
        assert!(serde_json::from_str::<Body>(r#"{"bytes": "no base64", "size": 7}"#).is_err());
    }
}
