//! Between AMQP's properties and ours.

use crate::broker::{Delivery, Message, Receipt, Source};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString};
use serde_json::{Map, Number, Value};

/// A delivery as the rest of the house knows it.
pub(super) fn delivery(source: &Source, channel: u64, from: lapin::message::Delivery) -> Delivery {
    let properties = &from.properties;
    let text = |value: &Option<ShortString>| value.as_ref().map(|v| v.to_string());
    let mut other = Map::new();
    for (name, value) in [
        ("expiration", properties.expiration()),
        ("type", properties.kind()),
        ("user_id", properties.user_id()),
        ("app_id", properties.app_id()),
        ("cluster_id", properties.cluster_id()),
    ] {
        if let Some(value) = value {
            other.insert(name.into(), value.to_string().into());
        }
    }
    for (name, value) in [("delivery_mode", properties.delivery_mode()), ("priority", properties.priority())] {
        if let Some(value) = value {
            other.insert(name.into(), (*value).into());
        }
    }
    if let Some(value) = properties.timestamp() {
        other.insert("timestamp".into(), (*value).into());
    }
    let message = Message {
        content_type: text(properties.content_type()),
        content_encoding: text(properties.content_encoding()),
        message_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        other,
        headers: properties.headers().as_ref().map(headers_of).unwrap_or_default(),
        body: from.data.into(),
    };
    Delivery {
        arrived: tokio::time::Instant::now(),
        source: source.clone(),
        message,
        redelivered: from.redelivered,
        receipt: Receipt::new(channel, from.delivery_tag),
    }
}

/// Properties to publish with: persistent, and never more headers than `room` bytes, since a content header is one frame
/// and a larger one costs the connection. What has to go goes largest first, and `agentry-headers-cut` names it.
pub(super) fn properties(message: &Message, room: usize) -> Result<BasicProperties, String> {
    let mut to = BasicProperties::default().with_delivery_mode(2);
    let short = |name: &str, value: &str| {
        ShortString::try_new(value).map_err(|_| format!("{name} has {} bytes and AMQP allows 255", value.len()))
    };
    if let Some(value) = &message.content_type {
        to = to.with_content_type(short("content_type", value)?);
    }
    if let Some(value) = &message.content_encoding {
        to = to.with_content_encoding(short("content_encoding", value)?);
    }
    if let Some(value) = &message.message_id {
        to = to.with_message_id(short("message_id", value)?);
    }
    if let Some(value) = &message.correlation_id {
        to = to.with_correlation_id(short("correlation_id", value)?);
    }
    if let Some(value) = &message.reply_to {
        to = to.with_reply_to(short("reply_to", value)?);
    }
    for (name, value) in &message.other {
        to = match (name.as_str(), value) {
            ("expiration", Value::String(v)) => to.with_expiration(short(name, v)?),
            ("type", Value::String(v)) => to.with_type(short(name, v)?),
            ("app_id", Value::String(v)) => to.with_app_id(short(name, v)?),
            ("cluster_id", Value::String(v)) => to.with_cluster_id(short(name, v)?),
            ("priority", v) => match v.as_u64().and_then(|v| u8::try_from(v).ok()) {
                Some(v) => to.with_priority(v),
                None => to,
            },
            ("timestamp", v) => match v.as_u64() {
                Some(v) => to.with_timestamp(v),
                None => to,
            },
            _ => to,
        };
    }
    if !message.headers.is_empty() {
        to = to.with_headers(headers(&message.headers, room));
    }
    Ok(to)
}

fn headers(from: &Map<String, Value>, room: usize) -> FieldTable {
    let mut entries: Vec<(ShortString, AMQPValue, usize)> = Vec::with_capacity(from.len());
    let mut cut = Vec::new();
    for (key, value) in from {
        match ShortString::try_new(key.as_str()) {
            Ok(name) => {
                let value = to_amqp(value);
                let size = 1 + key.len() + size(&value);
                entries.push((name, value, size));
            }
            Err(_) => cut.push(key.chars().take(60).collect::<String>()),
        }
    }
    let mut total: usize = entries.iter().map(|(_, _, size)| size).sum();
    // Ours say why a message is dead; they are the last to go.
    entries.sort_by_key(|(name, _, size)| (!name.as_str().starts_with("agentry-"), *size));
    while total > room
        && let Some((name, _, size)) = entries.pop()
    {
        total -= size;
        cut.push(name.to_string());
    }
    let mut table = FieldTable::default();
    for (name, value, _) in entries {
        table.insert(name, value);
    }
    if !cut.is_empty() {
        cut.truncate(16);
        table.insert("agentry-headers-cut".into(), AMQPValue::LongString(cut.join(", ").into()));
    }
    table
}

/// Bytes on the wire, with its type.
fn size(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::LongString(v) => 4 + v.len(),
        AMQPValue::FieldArray(v) => 4 + v.as_slice().iter().map(size).sum::<usize>(),
        AMQPValue::FieldTable(v) => 4 + v.inner().iter().map(|(k, v)| 1 + k.as_str().len() + size(v)).sum::<usize>(),
        _ => 8,
    }
}

fn to_amqp(value: &Value) -> AMQPValue {
    match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(v) => AMQPValue::Boolean(*v),
        Value::Number(v) => match v.as_i64() {
            Some(v) => AMQPValue::LongLongInt(v),
            None => AMQPValue::Double(v.as_f64().unwrap_or_default()),
        },
        Value::String(v) => AMQPValue::LongString(v.as_str().into()),
        Value::Array(v) => AMQPValue::FieldArray(FieldArray::from(v.iter().map(to_amqp).collect::<Vec<_>>())),
        Value::Object(v) => {
            let mut table = FieldTable::default();
            for (key, value) in v {
                if let Ok(key) = ShortString::try_new(key.as_str()) {
                    table.insert(key, to_amqp(value));
                }
            }
            AMQPValue::FieldTable(table)
        }
    }
}

/// Headers as JSON. In a table of options a timestamp is a time: AMQP counts seconds.
fn headers_of(table: &FieldTable) -> Map<String, Value> {
    let mut headers = object(table);
    for (name, value) in table {
        if let AMQPValue::FieldTable(options) = value
            && name.as_str().eq_ignore_ascii_case("agentry-options")
        {
            let times = options.into_iter().filter_map(|(key, value)| match value {
                AMQPValue::Timestamp(at) => Some((key.to_string(), time(*at)?)),
                _ => None,
            });
            if let Some(Value::Object(options)) = headers.get_mut(name.as_str()) {
                options.extend(times);
            }
        }
    }
    headers
}

fn time(seconds: u64) -> Option<Value> {
    let at = chrono::DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0)?;
    Some(at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true).into())
}

fn object(table: &FieldTable) -> Map<String, Value> {
    table.into_iter().map(|(key, value)| (key.to_string(), to_json(value))).collect()
}

fn to_json(value: &AMQPValue) -> Value {
    let float = |v: f64| Number::from_f64(v).map_or(Value::Null, Value::Number);
    match value {
        AMQPValue::Boolean(v) => (*v).into(),
        AMQPValue::ShortShortInt(v) => (*v).into(),
        AMQPValue::ShortShortUInt(v) => (*v).into(),
        AMQPValue::ShortInt(v) => (*v).into(),
        AMQPValue::ShortUInt(v) => (*v).into(),
        AMQPValue::LongInt(v) => (*v).into(),
        AMQPValue::LongUInt(v) => (*v).into(),
        AMQPValue::LongLongInt(v) => (*v).into(),
        AMQPValue::Float(v) => float(f64::from(*v)),
        AMQPValue::Double(v) => float(*v),
        AMQPValue::DecimalValue(v) => float(f64::from(v.value) / 10f64.powi(i32::from(v.scale))),
        AMQPValue::ShortString(v) => v.as_str().into(),
        AMQPValue::LongString(v) => lossy(v),
        AMQPValue::FieldArray(v) => v.as_slice().iter().map(to_json).collect(),
        AMQPValue::Timestamp(v) => (*v).into(),
        AMQPValue::FieldTable(v) => object(v).into(),
        AMQPValue::ByteArray(v) => match std::str::from_utf8(v.as_slice()) {
            // Some clients write text as bytes.
            Ok(text) if !text.chars().any(|c| c.is_control() && !c.is_whitespace()) => text.into(),
            _ => v.as_slice().iter().map(|b| Value::from(*b)).collect(),
        },
        AMQPValue::Void => Value::Null,
    }
}

fn lossy(text: &LongString) -> Value {
    String::from_utf8_lossy(text.as_bytes()).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with_headers(headers: Value) -> Message {
        let Value::Object(headers) = headers else { panic!("an object") };
        Message { headers, ..Message::default() }
    }

    #[test]
    fn headers_survive_the_way_there_and_back() {
        let there = json!({"text": "ü", "n": -3, "big": 1u64 << 40, "f": 1.5, "yes": true, "none": null,
            "list": [1, "two", {"three": 3}], "table": {"deep": {"deeper": [null]}}});
        let message = with_headers(there.clone());
        let properties = properties(&message, 100_000).unwrap();
        assert_eq!(Value::Object(object(properties.headers().as_ref().unwrap())), there);
    }

    #[test]
    fn headers_beyond_a_frame_are_cut_largest_first_and_named() {
        let message = with_headers(
            json!({"agentry-reason": "bad_json", "huge": "x".repeat(90_000), "large": "y".repeat(60_000)}),
        );
        let back = object(properties(&message, 100_000).unwrap().headers().as_ref().unwrap());
        assert_eq!(back.keys().collect::<Vec<_>>(), ["agentry-headers-cut", "agentry-reason", "large"]);
        assert_eq!(back["agentry-headers-cut"], "huge");
    }

    #[test]
    fn a_property_that_amqp_cannot_hold_is_told_by_name() {
        let message = Message { reply_to: Some("r".repeat(256)), ..Message::default() };
        assert_eq!(properties(&message, 1000).unwrap_err(), "reply_to has 256 bytes and AMQP allows 255");
    }

    #[test]
    fn values_without_a_json_likeness_become_the_nearest() {
        let decimal = lapin::types::DecimalValue { scale: 2, value: 275 };
        assert_eq!(to_json(&AMQPValue::DecimalValue(decimal)), json!(2.75));
        assert_eq!(to_json(&AMQPValue::Double(f64::NAN)), Value::Null);
        assert_eq!(to_json(&AMQPValue::LongString(vec![0xff, b'a'].into())), json!("\u{fffd}a"));
        assert_eq!(to_json(&AMQPValue::ByteArray(vec![1, 2].into())), json!([1, 2]));
        assert_eq!(to_json(&AMQPValue::ByteArray(b"word-count".to_vec().into())), json!("word-count"));
    }

    #[test]
    fn a_timestamp_among_options_is_a_time() {
        let mut options = FieldTable::default();
        options.insert("run_at".into(), AMQPValue::Timestamp(1_893_456_000));
        options.insert("priority".into(), AMQPValue::LongInt(3));
        let mut headers = FieldTable::default();
        headers.insert("agentry-options".into(), AMQPValue::FieldTable(options));
        headers.insert("sent".into(), AMQPValue::Timestamp(7));
        let expected = json!({"agentry-options": {"run_at": "2030-01-01T00:00:00Z", "priority": 3}, "sent": 7});
        assert_eq!(Value::Object(headers_of(&headers)), expected);
    }
}
