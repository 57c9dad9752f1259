//! A text that must not be seen, and what takes it out of the words of others.

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// A key, a token, a header's value. `Debug` and `Display` show nothing of it, and it cannot be serialised;
/// [`Secret::expose`] is the one way to it, for the request that carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for whoever sends it. Never print it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Shorter values are words of any text (`true`, `info`, a local server's `none`): taking them out would spoil it.
const SHORTEST: usize = 8;
/// What stands in a text where a secret stood.
const MASK: &str = "***";
/// What stands in place of each of its bytes, where no length may change.
const STAR: u8 = b'*';

/// Takes secrets out of what somebody else says: a server that repeats what it was sent would otherwise hand the operator's keys to
/// the guest, and to every record of the call.
///
/// A secret is found as it was configured, and as JSON, an address or base64 writes it, in the midst of other words as well, since
/// much of what servers say is JSON within JSON, and `Basic` is base64. One that is written otherwise (in hex, compressed, one
/// letter after the other) is not.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    /// None: there is nothing to look for.
    finder: Option<AhoCorasick>,
    spellings: Arc<[Vec<u8>]>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({})", self.spellings.len())
    }
}

impl Redactor {
    /// Looks for those values that are long enough to be secrets: each as a whole, and its lines, since a log is read by lines.
    pub fn new<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> Redactor {
        let mut spellings = BTreeSet::new();
        for value in values {
            let value = value.as_ref();
            let parts = std::iter::once(value).chain(value.lines()).map(str::trim);
            spellings.extend(parts.filter(|part| part.len() >= SHORTEST).flat_map(self::spellings));
        }
        // The longest of those that begin at one place goes, so that none is left with the rest of a longer one. Only a set of
        // gigabytes cannot be built.
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&spellings).ok();
        let finder = finder.filter(|_| !spellings.is_empty());
        Redactor { finder, spellings: spellings.into_iter().map(String::into_bytes).collect() }
    }

    /// Whether there is nothing to look for.
    pub fn is_idle(&self) -> bool {
        self.finder.is_none()
    }

    /// How long a text must be kept beyond what is shown of it, so that no secret is cut before it is recognised.
    pub fn longest(&self) -> usize {
        self.spellings.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The text without secrets.
    pub fn text(&self, text: &str) -> String {
        let Some(finder) = &self.finder else { return text.to_owned() };
        let mut clean = String::with_capacity(text.len());
        finder.replace_all_with(text, &mut clean, |_, _, clean| {
            clean.push_str(MASK);
            true
        });
        clean
    }

    /// Takes secrets out of every string of a JSON value, names of members included. Strings are looked at after their escapes
    /// were resolved, so that no spelling hides one.
    pub fn json(&self, value: &mut Value) {
        match value {
            Value::String(text) if self.is_in(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::Object(members) => {
                members.values_mut().for_each(|member| self.json(member));
                if members.keys().any(|name| self.is_in(name)) {
                    *members = std::mem::take(members).into_iter().map(|(k, v)| (self.text(&k), v)).collect();
                }
            }
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Replaces each byte of a secret that is there as a whole: no length changes.
    pub fn cover(&self, text: &mut [u8]) {
        let Some(finder) = &self.finder else { return };
        let found: Vec<_> = finder.find_iter(&*text).map(|found| found.range()).collect();
        for range in found {
            text[range].fill(STAR);
        }
    }

    /// How many bytes at the end may be the beginning of a secret.
    pub fn begun(&self, text: &[u8]) -> usize {
        let of = |word: &Vec<u8>| (1..word.len()).rev().find(|length| text.ends_with(&word[..*length])).unwrap_or(0);
        self.spellings.iter().map(of).max().unwrap_or(0)
    }

    fn is_in(&self, text: &str) -> bool {
        self.finder.as_ref().is_some_and(|finder| finder.is_match(text))
    }
}

/// What is secret in a header's value: it, its words, since `Bearer KEY` is one and so is the key, and what `Basic` encodes.
pub(crate) fn of_header(value: &str) -> Vec<String> {
    let mut found: Vec<String> = std::iter::once(value).chain(value.split_whitespace()).map(str::to_owned).collect();
    let basic = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
    let user = basic.and_then(|(_, encoded)| String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok());
    if let Some(user) = user {
        found.extend(user.split_once(':').map(|(_, password)| password.to_owned()));
        found.push(user);
    }
    found
}

/// How a value may be written: as it is, within JSON, within JSON within JSON, in an address, in base64.
fn spellings(value: &str) -> Vec<String> {
    let quoted = |value: &str| {
        let quoted = Value::from(value).to_string();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let ascii = |value: &str| {
        let mut units = [0; 2];
        let escape = |letter: char| match letter.is_ascii() {
            true => letter.to_string(),
            false => letter.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        };
        quoted(value).chars().map(escape).collect::<String>()
    };
    let address = url::form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>();
    let spaces = address.replace('+', "%20");
    let mut all = vec![value.to_owned(), quoted(value), quoted(&quoted(value)), ascii(value), address, spaces];
    all.extend((0..3).flat_map(|before| [STANDARD_NO_PAD, URL_SAFE_NO_PAD].map(|base| encoded(value, before, &base))));
    all
}

/// The letters of base64 that say this value and nothing else, where so many bytes (of each three) are before it. What is after
/// it has a part in the last one, if three do not divide them.
fn encoded(value: &str, before: usize, base: &impl Engine) -> String {
    let text = base.encode([vec![0; before], value.as_bytes().to_vec()].concat());
    let (from, rest) = ((before * 8).div_ceil(6), (before + value.len()) % 3);
    text[from..text.len() - usize::from(rest > 0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_secret_is_taken_out_of_every_string_and_name() {
        let redactor = Redactor::new(["hunter2-hunter2"]);
        let mut value = json!({"a": ["x hunter2-hunter2 y"], "hunter2-hunter2": {"b": 1}});
        redactor.json(&mut value);
        assert_eq!(value, json!({"a": ["x *** y"], "***": {"b": 1}}));
    }

    #[test]
    fn the_longer_of_two_secrets_goes_first() {
        let redactor = Redactor::new(["password", "password-of-root"]);
        assert_eq!(redactor.text("is password-of-root, or password"), "is ***, or ***");
    }

    #[test]
    fn each_line_of_a_secret_is_one() {
        let redactor = Redactor::new(["-----BEGIN KEY-----\nMIIEvQIBADANB\n-----END KEY-----\n"]);
        assert_eq!(redactor.text("read MIIEvQIBADANB"), "read ***");
    }

    #[test]
    fn a_secret_is_found_as_json_and_addresses_write_it() {
        let value = "pass \"wörd\"\\+1";
        let redactor = Redactor::new([value]);
        let json = |text: &str| serde_json::to_string(text).unwrap();
        for text in [
            json(value),
            json(&json(value)),
            "\"pass \\\"w\\u00f6rd\\\"\\\\+1\"".to_owned(),
            url::form_urlencoded::byte_serialize(value.as_bytes()).collect(),
        ] {
            let masked = redactor.text(&text);
            assert!(masked.contains(MASK) && !masked.contains("rd"), "{text} became {masked}");
        }
    }

    #[test]
    fn a_short_value_is_no_secret() {
        assert!(Redactor::new(["true", ""]).is_idle());
    }

    #[test]
    fn a_secret_is_found_in_what_base64_makes_of_it_and_what_is_around_it() {
        let redactor = Redactor::new(["hunter2-hünter2?"]);
        for around in ["", "a", "ab", "abc", "abcd"] {
            let said = format!("user{around}:hunter2-hünter2?{around}");
            for text in [STANDARD.encode(&said), URL_SAFE_NO_PAD.encode(&said)] {
                let masked = redactor.text(&text);
                assert!(masked.contains(MASK) && masked.len() + 15 <= text.len(), "{text} became {masked}");
            }
        }
        assert_eq!(redactor.text(&STANDARD.encode("hunter3-hünter2?")), STANDARD.encode("hunter3-hünter2?"));
    }

    #[test]
    fn what_basic_encodes_is_secret_as_well() {
        let found = of_header(&format!("Basic {}", STANDARD.encode("me:open sesame")));
        let redactor = Redactor::new(found);
        assert_eq!(redactor.text("open sesame, said me"), "***, said me");
        assert_eq!(of_header("Basic nonsense"), ["Basic nonsense", "Basic", "nonsense"]);
    }

    #[test]
    fn what_is_covered_keeps_its_length() {
        let redactor = Redactor::new(["hunter2-hunter2"]);
        let mut text = "ä hunter2-hunter2!".as_bytes().to_vec();
        redactor.cover(&mut text);
        assert_eq!(text, "ä ***************!".as_bytes());
        assert_eq!(
            (redactor.begun(b"a hunter2"), redactor.begun(b"a hunter3"), Redactor::default().begun(b"h")),
            (7, 0, 0)
        );
        assert_eq!(format!("{redactor:?}").find("hunter"), None);
    }
}
