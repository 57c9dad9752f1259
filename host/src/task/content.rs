//! Checks whether the properties of a message, and its body, are those of JSON in UTF-8.
//!
//! Client libraries set properties on their own: Celery, kombu and Spring AMQP a character set as `content_encoding`, Java's and
//! Ruby's clients a type that stands for any bytes. A claim that fits JSON in UTF-8 is accepted. Any other is rejected, since a body
//! that is read in another way than it was written is another body.

use super::Rejection;
use std::borrow::Cow;

/// Meaning of one word of `content_encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// None, or a character set whose text is UTF-8.
    Plain,
    /// A compression.
    Compressed,
    /// Text that stands for other bytes, such as base64.
    Transfer,
    /// A character set that is not UTF-8.
    Charset,
    Unknown,
}

/// No encoding, and character sets of which each text is UTF-8. Without punctuation.
const PLAIN: &[&str] = &[
    "",
    "identity",
    "binary",
    "8bit",
    "7bit",
    "none",
    "null",
    "nil",
    "plain",
    "text",
    "json",
    "utf8",
    "utf8sig",
    "utf8bom",
    "utf8mb4",
    "csutf8",
    "xutf8",
    "unicode11utf8",
    "cp65001",
    "usascii",
    "ascii",
    "iso646us",
    "ansix341968",
];
/// Compressions, without punctuation and without a leading `x-`.
const COMPRESSED: &[&str] = &[
    "gzip",
    "gz",
    "deflate",
    "zlib",
    "br",
    "brotli",
    "zstd",
    "zst",
    "zstandard",
    "compress",
    "bzip2",
    "bz2",
    "bzip",
    "lzma",
    "xz",
    "lz4",
    "lzo",
    "snappy",
    "zip",
    "aws128gcm",
];
const TRANSFER: &[&str] = &["base64", "base64url", "b64", "base32", "quotedprintable", "uuencode", "hex"];
/// Beginnings of names of character sets that are not UTF-8.
const CHARSETS: &[&str] = &[
    "iso", "latin", "windows", "win12", "cp", "utf16", "utf32", "utf7", "ucs", "unicode", "koi8", "shiftjis", "sjis",
    "gb", "big5", "euc", "mac", "ibm", "ebcdic", "tis", "viscii", "hz", "johab", "ansi", "ks",
];
/// Types that say nothing about the body; clients set them where the producer sets none.
const SILENT: &[&str] = &[
    "text/plain",
    "text",
    "text/*",
    "application/octet-stream",
    "binary/octet-stream",
    "application/binary",
    "application/x-binary",
    "application/data",
    "application/bytes",
    "application/*",
    "*/*",
    "application/unknown",
    "unknown/unknown",
    "unknown",
    "binary",
    "bytes",
    "none",
    "null",
    "nil",
];

/// A name in lower case without punctuation: `UTF_8`, `utf-8` and `Utf8` are one.
fn bare(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn coding(word: &str) -> Coding {
    let word = word.trim().trim_matches(['"', '\'']).trim();
    let lower = word.to_ascii_lowercase();
    let name = lower.strip_prefix("charset=").unwrap_or(&lower).trim_matches(['"', '\'']);
    if matches!(media(name), Media::Json | Media::Silent) {
        return Coding::Plain; // a media type in the wrong property
    }
    let name = name.rsplit('/').next().unwrap_or(name); // kombu names compressions as application/x-gzip
    let (bare, short) = (bare(name), bare(name.strip_prefix("x-").unwrap_or(name)));
    match () {
        () if PLAIN.contains(&bare.as_str()) => Coding::Plain,
        () if COMPRESSED.contains(&short.as_str()) => Coding::Compressed,
        () if TRANSFER.contains(&short.as_str()) => Coding::Transfer,
        () if CHARSETS.iter().any(|begin| short.starts_with(begin)) => Coding::Charset,
        () => Coding::Unknown,
    }
}

/// Whether a `content_encoding` leaves the body as it is. The error says what it is, and the remedy.
///
/// Several words may stand there: Spring AMQP writes `gzip:UTF-8`.
pub fn check_encoding(encoding: &str) -> Result<(), &'static str> {
    for word in encoding.split([',', ':', ';', ' ', '\t']) {
        return Err(match coding(word) {
            Coding::Plain => continue,
            Coding::Compressed => "a compression; publish the body uncompressed",
            Coding::Transfer => "text in place of the body's bytes; publish the body as it is",
            Coding::Charset => "a character set other than UTF-8; publish the body in UTF-8",
            Coding::Unknown => {
                "not known; allowed are utf-8, us-ascii, identity, binary, 8bit, or none: publish the body as it is"
            }
        });
    }
    Ok(())
}

/// Whether a text names a compression, as the header `compression` of kombu does.
fn is_compression(text: &str) -> bool {
    coding(text) == Coding::Compressed
}

/// Meaning of a media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    Json,
    Silent,
    Other,
}

fn media(essence: &str) -> Media {
    let lower = essence.to_ascii_lowercase();
    let is_json = match lower.split_once('/') {
        Some((_, subtype)) => matches!(subtype, "json" | "x-json") || subtype.ends_with("+json"),
        None => lower == "json",
    };
    match () {
        () if is_json => Media::Json,
        () if lower.is_empty() || SILENT.contains(&lower.as_str()) => Media::Silent,
        () => Media::Other,
    }
}

/// The media type without parameters, and the value of its parameter `charset`.
fn parts(content_type: &str) -> (&str, Option<&str>) {
    let content_type = content_type.trim().trim_matches(['"', '\'']).trim();
    let (essence, parameters) = content_type.split_once([';', ' ', '\t']).unwrap_or((content_type, ""));
    let charset = parameters.split([';', ' ', '\t']).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches(['"', '\'']))
    });
    (essence.trim(), charset)
}

/// Whether a `content-type` names JSON in UTF-8, and not only any bytes.
pub fn is_json(content_type: &str) -> bool {
    let (essence, charset) = parts(content_type);
    media(essence) == Media::Json && charset.is_none_or(|charset| coding(charset) == Coding::Plain)
}

/// Character sets that do not contain ASCII, so that a body in one might look like other UTF-8. Without punctuation.
const WIDE: [&str; 7] = ["utf16", "utf32", "utf7", "ucs", "ebcdic", "iso2022", "hz"];
/// The code pages of EBCDIC; those from 1140 on, with the euro, besides.
const EBCDIC: [&str; 21] = [
    "037", "273", "277", "278", "280", "284", "285", "297", "420", "424", "500", "870", "871", "875", "930", "933",
    "935", "937", "939", "1026", "1047",
];

/// Whether a character set does not contain ASCII.
fn is_wide(charset: &str) -> bool {
    let name = bare(charset);
    let page = name.strip_prefix("ibm").or_else(|| name.strip_prefix("cp"));
    WIDE.iter().any(|begin| name.starts_with(begin))
        || page.is_some_and(|page| EBCDIC.contains(&page) || page.len() == 4 && page.starts_with("114"))
}

/// Whether a body with this `content_type` may be JSON in UTF-8. The error says what it is, and the remedy.
fn check_type(content_type: &str) -> Result<(), Cow<'static, str>> {
    let (essence, charset) = parts(content_type);
    if media(essence) == Media::Other {
        let client = match bare(essence).as_str() {
            kind if kind.contains("python") || kind.contains("yaml") => " (Celery and kombu: serializer json)",
            kind if kind.contains("java") => " (Spring AMQP: Jackson2JsonMessageConverter)",
            _ => "",
        };
        return Err(Cow::Owned(format!(
            "publish JSON{client} as application/json, as a type that says nothing (text/plain, application/octet-stream), or without a type"
        )));
    }
    match charset {
        // JSON has no such parameter and is UTF-8 (RFC 8259, sections 8.1 and 11): with a set that contains ASCII it is noise. A body that
        // is not UTF-8 is found by its bytes.
        Some(charset) if media(essence) == Media::Json && !is_wide(charset) => Ok(()),
        Some(charset) if coding(charset) != Coding::Plain => {
            Err(Cow::Borrowed("its charset is not UTF-8; publish the body in UTF-8"))
        }
        _ => Ok(()),
    }
}

/// Whether the two properties fit JSON in UTF-8.
pub(super) fn check(content_type: Option<&str>, content_encoding: Option<&str>) -> Result<(), Rejection> {
    if let Some(encoding) = content_encoding
        && let Err(why) = check_encoding(encoding)
    {
        return Err(Rejection::new("content_encoding", format!("content_encoding is {encoding:?}: {why}")));
    }
    if let Some(content_type) = content_type
        && let Err(why) = check_type(content_type)
    {
        return Err(Rejection::new("content_type", format!("content_type is {content_type:?}; {why}")));
    }
    Ok(())
}

/// The text without a byte order mark, which JSON does not know and editors and .NET write.
pub fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body)
}

/// The text of a body. `compression`: the header of that name, which kombu sets.
pub(super) fn text<'a>(body: &'a [u8], compression: Option<&str>) -> Result<&'a str, Rejection> {
    std::str::from_utf8(without_mark(body)).map_err(|e| {
        if let Some(compression) = compression.filter(|name| is_compression(name)) {
            let detail = format!("the header compression is {compression:?}: publish the body uncompressed");
            return Rejection::new("content_encoding", detail);
        }
        let hint = known(body).map_or(String::new(), |what| format!("; it begins like {what}"));
        Rejection::new("not_utf8", format!("the body is not UTF-8 at byte {}{hint}", e.valid_up_to()))
    })
}

/// Known format of a body that is not UTF-8, with the remedy.
fn known(body: &[u8]) -> Option<&'static str> {
    const BEGINNINGS: &[(&[u8], &str)] = &[
        (b"\x1f\x8b", "gzip: publish it uncompressed"),
        (b"\x78\x9c", "zlib: publish it uncompressed"),
        (b"\x78\x01", "zlib: publish it uncompressed"),
        (b"\x78\xda", "zlib: publish it uncompressed"),
        (b"\x28\xb5\x2f\xfd", "zstd: publish it uncompressed"),
        (b"BZh", "bzip2: publish it uncompressed"),
        (b"\xfd7zXZ", "xz: publish it uncompressed"),
        (b"\xff\xfe", "UTF-16: publish it in UTF-8"),
        (b"\xfe\xff", "UTF-16: publish it in UTF-8"),
        (b"\xac\xed\x00\x05", "a serialized Java object: publish JSON"),
        (b"\x80\x02", "a Python pickle: publish JSON"),
        (b"\x80\x03", "a Python pickle: publish JSON"),
        (b"\x80\x04", "a Python pickle: publish JSON"),
        (b"\x80\x05", "a Python pickle: publish JSON"),
    ];
    BEGINNINGS.iter().find(|(begin, _)| body.starts_with(begin)).map(|(_, what)| *what)
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
