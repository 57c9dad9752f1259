//! A server's words, made fit for a log, an error or a guest: without credentials, printable, of bounded length.

use agentry_defence::Defence;
use serde_json::Value;

/// What stands where a credential stood.
const MASK: &str = "***";
/// Shorter values are words of any text (`true`, `info`), and replacing them would spoil it.
const SHORTEST: usize = 8;
/// The longest reason in an error.
const REASON_BYTES: usize = 1_024;

/// Knows one server's configured credentials, and takes them out of whatever comes from it.
///
/// A value is found as it was configured, and as JSON or an address writes it, since much of what servers say is JSON within
/// JSON. One that is encoded otherwise (base64, one letter after the other) is not.
#[derive(Clone, Default)]
pub(super) struct Redactor {
    /// The longest first, so that none is left with the rest of a longer one.
    values: Vec<String>,
}

impl Redactor {
    /// Keeps what is long enough to be a credential: each value as a whole, and its lines, since a log is read by lines.
    pub(super) fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Redactor {
        let mut kept: Vec<String> = values
            .into_iter()
            .flat_map(|value| std::iter::once(value).chain(value.lines()))
            .map(str::trim)
            .filter(|value| value.len() >= SHORTEST && Defence::ToolMask.stands())
            .flat_map(spellings)
            .collect();
        kept.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        kept.dedup();
        Redactor { values: kept }
    }

    /// How long a text must be kept beyond what is shown of it, so that no credential is cut before it is recognised.
    pub(super) fn longest(&self) -> usize {
        self.values.first().map_or(0, String::len)
    }

    /// Whether there is nothing to look for.
    pub(super) fn is_idle(&self) -> bool {
        self.values.is_empty()
    }

    /// The text without credentials.
    pub(super) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        self.mask(&mut text);
        text
    }

    /// Takes credentials out of every string of a JSON value, names of members included. Strings are looked at after their
    /// escapes were resolved, so that no spelling hides one.
    pub(super) fn json(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.mask(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::Object(members) => {
                members.values_mut().for_each(|member| self.json(member));
                if members.keys().any(|name| self.hits(name)) {
                    *members = std::mem::take(members).into_iter().map(|(k, v)| (self.text(&k), v)).collect();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// A reason for an error or a log line: without credentials, on one line, printable, bounded.
    pub(super) fn reason(&self, words: &str) -> String {
        bounded(&printable(&self.text(words), Lines::One), REASON_BYTES)
    }

    fn hits(&self, text: &str) -> bool {
        self.values.iter().any(|value| text.contains(value.as_str()))
    }

    fn mask(&self, text: &mut String) {
        for value in &self.values {
            if text.contains(value.as_str()) {
                *text = text.replace(value.as_str(), MASK);
            }
        }
    }
}

/// How a value may be written: as it is, within JSON, within JSON within JSON, in an address.
fn spellings(value: &str) -> [String; 6] {
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
    [value.to_owned(), quoted(value), quoted(&quoted(value)), ascii(value), address, spaces]
}

/// Whether a text may have lines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// Line ends are escaped like other control characters.
    One,
    /// Line ends and tabs stay.
    Many,
}

/// The text with control characters escaped, and with them those that turn the direction of what follows.
pub(super) fn printable(text: &str, lines: Lines) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        let stays = lines == Lines::Many && matches!(letter, '\n' | '\t');
        let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (letter.is_control() || turns) && !stays {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// At most so many bytes of the text; an ellipsis says that it was cut.
pub(super) fn bounded(text: &str, most: usize) -> String {
    const CUT: &str = "…";
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most.saturating_sub(CUT.len()));
    format!("{}{CUT}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_credential_is_taken_out_of_every_string_and_name() {
        let redactor = Redactor::new(["hunter2-hunter2"]);
        let mut value = json!({"a": ["x hunter2-hunter2 y"], "hunter2-hunter2": {"b": 1}});
        redactor.json(&mut value);
        assert_eq!(value, json!({"a": ["x *** y"], "***": {"b": 1}}));
    }

    #[test]
    fn the_longer_of_two_credentials_goes_first() {
        let redactor = Redactor::new(["password", "password-of-root"]);
        assert_eq!(redactor.text("is password-of-root, or password"), "is ***, or ***");
    }

    #[test]
    fn each_line_of_a_credential_is_one() {
        let redactor = Redactor::new(["-----BEGIN KEY-----\nMIIEvQIBADANB\n-----END KEY-----\n"]);
        assert_eq!(redactor.text("read MIIEvQIBADANB"), "read ***");
    }

    #[test]
    fn a_credential_is_found_as_json_and_addresses_write_it() {
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
    fn a_short_value_is_no_credential() {
        assert!(Redactor::new(["true", ""]).is_idle());
    }

    #[test]
    fn control_characters_are_escaped_and_lines_stay_where_they_may() {
        assert_eq!(printable("a\u{1b}[31m\nb\u{202e}", Lines::One), "a\\u{1b}[31m\\nb\\u{202e}");
        assert_eq!(printable("a\n\tb\r", Lines::Many), "a\n\tb\\r");
    }

    #[test]
    fn a_long_text_is_cut_between_letters() {
        assert_eq!(bounded("äöü", 6), "äöü");
        assert_eq!(bounded("äöüß", 6), "ä…");
    }
}
