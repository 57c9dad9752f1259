//! Headers of a message that the daemon reads. Producers and their libraries write them in several types of AMQP.

use super::Message;
use serde_json::Value;
use std::borrow::Cow;

/// A header that the daemon reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header<'a> {
    /// It is not there, or has no value.
    Missing,
    /// It is text, or stands for text.
    Text(Cow<'a, str>),
    /// It is of this kind.
    Odd(&'static str),
}

impl<'a> Header<'a> {
    /// The text, if it is one.
    pub fn text(&'a self) -> Option<&'a str> {
        match self {
            Header::Text(text) => Some(text),
            Header::Missing | Header::Odd(_) => None,
        }
    }

    /// Its kind, if it is not text.
    pub fn odd(&self) -> Option<&'static str> {
        match self {
            Header::Odd(kind) => Some(kind),
            Header::Missing | Header::Text(_) => None,
        }
    }
}

impl Message {
    /// A header's value. Names are compared without case where the exact one is missing.
    fn value(&self, name: &str) -> Option<&Value> {
        let alike = || self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        self.headers.get(name).or_else(alike)
    }

    /// A header that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.value(name).and_then(Value::as_str)
    }

    /// A header that is to be text. Numbers are taken as they are written.
    pub fn text_header(&self, name: &str) -> Header<'_> {
        match self.value(name) {
            None | Some(Value::Null) => Header::Missing,
            Some(Value::String(text)) if text.is_empty() => Header::Missing,
            Some(Value::String(text)) => Header::Text(Cow::Borrowed(text)),
            Some(Value::Number(number)) => Header::Text(Cow::Owned(number.to_string())),
            Some(Value::Bool(_)) => Header::Odd("a boolean"),
            Some(Value::Array(_)) => Header::Odd("an array"),
            Some(Value::Object(_)) => Header::Odd("a table"),
        }
    }

    /// A header that is to be a JSON object: as text, or as a table of AMQP.
    pub fn object_header(&self, name: &str) -> Header<'_> {
        match self.value(name) {
            Some(table @ Value::Object(_)) => Header::Text(Cow::Owned(table.to_string())),
            _ => self.text_header(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_header_is_read_in_each_type_that_has_one_meaning() {
        let Value::Object(headers) =
            json!({"a": "x", "b": 7, "c": null, "d": [1], "e": {"f": 1}, "g": true, "h": "", "I": "y"})
        else {
            unreachable!()
        };
        let message = Message { headers, ..Message::default() };
        let text = |text: &'static str| Header::Text(Cow::Borrowed(text));
        assert_eq!(message.text_header("a"), text("x"));
        assert_eq!(message.text_header("b"), text("7"));
        assert_eq!(message.text_header("i"), text("y"), "names without case");
        assert_eq!(message.object_header("e"), text(r#"{"f":1}"#));
        for missing in ["c", "h", "z"] {
            assert_eq!(message.text_header(missing), Header::Missing, "{missing}");
        }
        for (name, kind) in [("d", "an array"), ("e", "a table"), ("g", "a boolean")] {
            assert_eq!(message.text_header(name).odd(), Some(kind));
        }
        assert_eq!(message.object_header("d").odd(), Some("an array"));
    }
}
