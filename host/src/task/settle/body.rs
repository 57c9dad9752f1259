//! The body of a call, where the operator asked for it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serializer};

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
    let text: std::borrow::Cow<'de, str> = Deserialize::deserialize(deserializer)?;
    BASE64_STANDARD.decode(&*text).map_err(serde::de::Error::custom)
}
