//! The bytes of a response, to JSON. Gateways put white space, comments and a byte order mark around it.

use flate2::read::{MultiGzDecoder, ZlibDecoder};
use serde_json::Value;
use std::borrow::Cow;
use std::io::Read;

/// A body without its compression, and at most one byte longer than the limit. No server is asked to compress, and some do.
///
/// # Errors
/// The reason.
pub(super) fn plain<'a>(body: &'a [u8], encoding: &str, limit: usize) -> Result<Cow<'a, [u8]>, String> {
    let read = |decoder: &mut dyn Read| {
        let mut plain = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let read = decoder.take(most).read_to_end(&mut plain);
        read.map_err(|error| format!("it cannot be decompressed: {error}"))?;
        Ok(Cow::Owned(plain))
    };
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Cow::Borrowed(body)),
        "gzip" | "x-gzip" => read(&mut MultiGzDecoder::new(body)),
        "deflate" => read(&mut ZlibDecoder::new(body)),
        _ => {
            Err("it is compressed, and was not asked to be; turn that off at the server or at the gateway before it"
                .into())
        }
    }
}

/// The JSON of a body.
///
/// # Errors
/// It is not JSON; see [`is_page`] for what it may be instead.
pub(super) fn json(body: &[u8]) -> Result<Value, serde_json::Error> {
    let value = serde_json::from_slice(bare(body))?;
    Ok(match value {
        // Google's gateways write one answer as a list of one.
        Value::Array(mut items) if items.len() == 1 && items[0].is_object() => items.swap_remove(0),
        value => value,
    })
}

/// Whether a body is a page for a person: HTML or XML.
pub(super) fn is_page(body: &[u8]) -> bool {
    bare(body).first() == Some(&b'<')
}

/// Whether there is nothing in a body.
pub(super) fn is_empty(body: &[u8]) -> bool {
    bare(body).is_empty()
}

/// A body without a byte order mark, white space, and the comment lines (`: OPENROUTER PROCESSING`) that keep a connection alive.
fn bare(body: &[u8]) -> &[u8] {
    let mut rest = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    while rest.first() == Some(&b':') {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        rest = rest[end..].trim_ascii_start();
    }
    // No JSON ends with a line that begins with a colon, unless it is not whole.
    while let Some(at) = rest.iter().rposition(|byte| *byte == b'\n').filter(|at| rest.get(at + 1) == Some(&b':')) {
        rest = rest[..at].trim_ascii_end();
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_read_with_what_gateways_put_around_it() {
        for body in [
            "{\"a\":1}",
            "\u{feff}{\"a\":1}",
            "\n\n\n  {\"a\":1}\r\n",
            ": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n{\"a\":1}",
            "\n: keep-alive\n{\"a\":1}\n: keep-alive\n",
            "[{\"a\":1}]",
        ] {
            assert_eq!(json(body.as_bytes()).unwrap(), json!({"a": 1}), "{body}");
        }
        for body in ["", ": comment", "{\"a\":1} {}", "data: {\"a\":1}", "{\"a\"\n:1"] {
            assert!(json(body.as_bytes()).is_err(), "{body}");
        }
        assert!(is_page(b" \n<!DOCTYPE html>") && !is_page(b"{}") && is_empty(b" \n: x\n") && !is_empty(b"x"));
    }
}
