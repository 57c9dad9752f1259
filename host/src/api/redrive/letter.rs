//! A dead letter as a message under another id, with what it died of repaired where that has one meaning.

use crate::broker::{Header, Message};
use crate::db::Redrive;
use crate::task::{TaskId, content};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Headers that tell of a message's former death.
const DEATH: [&str; 9] = [
    "agentry-reason",
    "agentry-detail",
    "x-death",
    "x-delivery-count",
    "x-acquired-count",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-reason",
];

/// The message to be published: `message_id` is the new id, and so is the body's own `id`, where it has one. A body that is
/// no JSON object, or the input alone (`agentry-plugin`), goes as it is, without a byte order mark.
///
/// A body that is JSON in UTF-8 is published as that, whatever its properties said. Any other is read by the same rules as before.
pub(super) fn message(redrive: &Redrive) -> Message {
    let mut message = Message::with_properties(redrive.body.clone(), redrive.properties.clone());
    message.headers.retain(|name, _| !DEATH.contains(&name.as_str()) && !name.starts_with("x-last-death-"));
    // It had run out, or would again.
    message.other.remove("expiration");
    message.message_id = Some(redrive.id.to_string());
    let body = content::without_mark(&redrive.body);
    if std::str::from_utf8(body).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok()) {
        message.content_type = Some("application/json".into());
        message.content_encoding = None;
        message.headers.remove("compression");
    }
    let is_input = message.text_header("agentry-plugin") != Header::Missing;
    message.body = if is_input { body.to_vec().into() } else { under(redrive.id, body).into() };
    message
}

/// The body with every `id` of its own replaced, and no other byte.
fn under(id: TaskId, body: &[u8]) -> Vec<u8> {
    let Some(text) = std::str::from_utf8(body).ok() else { return body.to_vec() };
    let Ok(Ids(ids)) = serde_json::from_str::<Ids<'_>>(text) else { return body.to_vec() };
    let (mut new, mut end) = (Vec::with_capacity(body.len() + 40), 0);
    for old in ids {
        // A raw value is borrowed from the text it was read from.
        let start = old.get().as_ptr() as usize - text.as_ptr() as usize;
        new.extend_from_slice(&body[end..start]);
        new.extend_from_slice(format!("\"{id}\"").as_bytes());
        end = start + old.get().len();
    }
    new.extend_from_slice(&body[end..]);
    new
}

/// The values of an object's key `id`, in the order of the text.
struct Ids<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Ids<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Vec<&'de RawValue>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut ids = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                    if key == "id" {
                        ids.push(value);
                    }
                }
                Ok(ids)
            }
        }
        deserializer.deserialize_map(Keys).map(Ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NEW: &str = "01920c3e-0000-7000-8000-000000000009";

    fn of(body: &[u8], properties: Value) -> Message {
        let (id, queue) = (NEW.parse().unwrap(), "default".into());
        message(&Redrive { letter: 1, id, queue, body: body.to_vec(), properties })
    }

    #[test]
    fn the_id_is_replaced_and_no_other_byte() {
        let body = br#" { "input" : {"id": 1.00, "b":1},"id":"01920c3e-0000-7000-8000-000000000001" , "plugin":"a"} "#;
        let told = format!(r#" {{ "input" : {{"id": 1.00, "b":1}},"id":"{NEW}" , "plugin":"a"}} "#);
        let message = of(body, json!({"message_id": "01920c3e-0000-7000-8000-000000000001"}));
        assert_eq!((&message.body[..], message.message_id.as_deref()), (told.as_bytes(), Some(NEW)));
    }

    #[test]
    fn what_is_no_object_or_names_no_id_or_is_the_input_goes_as_it_is() {
        let headers = json!({"headers": {"agentry-plugin": "a"}});
        let cases: [(&[u8], Value); 5] = [
            (b"{\"plugin\": ", json!({})),
            (b"[\"id\", 1]", json!({})),
            (b"\xff", json!({})),
            (b"{\"plugin\": \"a\"}", json!({})),
            (b"{\"id\": \"the input's own\"}", headers),
        ];
        for (body, properties) in cases {
            let message = of(body, properties);
            assert_eq!((&message.body[..], message.message_id.as_deref()), (body, Some(NEW)));
        }
    }

    #[test]
    fn a_body_that_is_json_is_published_as_json_and_another_as_it_was() {
        let wrong = json!({"content_type": "text/xml", "content_encoding": "gzip", "headers": {"compression": "gzip"}});
        let message = of("\u{feff}{\"id\": \"seven\", \"plugin\": \"a\"}".as_bytes(), wrong.clone());
        assert_eq!(message.body, format!("{{\"id\": \"{NEW}\", \"plugin\": \"a\"}}"));
        let repaired = Message { content_type: Some("application/json".into()), ..Message::default() };
        assert_eq!(
            (message.content_type, message.content_encoding, message.headers),
            (repaired.content_type, repaired.content_encoding, repaired.headers)
        );
        let message = of(b"\x1f\x8b", wrong);
        assert_eq!(
            (message.content_type.as_deref(), message.content_encoding.as_deref()),
            (Some("text/xml"), Some("gzip"))
        );
        assert_eq!(message.body, &b"\x1f\x8b"[..]);
    }

    #[test]
    fn properties_stay_but_for_those_of_its_death() {
        let message = of(
            b"1",
            json!({
                "content_type": "text/plain", "correlation_id": "c", "expiration": "5", "priority": 3,
                "headers": {"x-death": [], "agentry-reason": "not_json", "traceparent": "t"},
            }),
        );
        assert_eq!(
            (message.content_type.as_deref(), message.correlation_id.as_deref()),
            (Some("application/json"), Some("c"))
        );
        assert_eq!(Value::Object(message.other), json!({"priority": 3}));
        assert_eq!(Value::Object(message.headers), json!({"traceparent": "t"}));
    }
}
