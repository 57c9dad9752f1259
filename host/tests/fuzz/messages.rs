//! What a producer may publish: a delivery's body and properties, nearly right.

use crate::{Share, assert_fit_to_show, draw, while_testing};
use agentry::task::limits::{LABEL_BYTES, LABELS, MAX_ATTEMPTS, MessageLimits, PRIORITY};
use agentry::task::message::Envelope;
use agentry::task::{PluginRef, Rejection, TaskMessage, content};
use bolero::{Driver, ValueGenerator};
use serde_json::value::RawValue;

const LIMITS: MessageLimits = MessageLimits { timeout_seconds: 600, body_bytes: 64 << 10 };
/// Every code that a message can be refused with. Programs match on them.
const CODES: &[&str] = &[
    "too_large",
    "content_encoding",
    "content_type",
    "not_utf8",
    "bad_input",
    "bad_options",
    "bad_message",
    "not_json",
    "bad_id",
    "id_mismatch",
    "bad_plugin",
];
const IDS: &[&str] = &[
    "01920c3e-0000-7000-8000-000000000001",
    "01920C3E000070008000000000000001",
    "{01920c3e-0000-7000-8000-000000000001}",
    "urn:uuid:01920c3e-0000-7000-8000-000000000001",
    "00000000-0000-0000-0000-000000000000",
    "7",
    "order-17",
    " ",
    "\u{1a}",
    "",
];
const PLUGINS: &[&str] =
    &["word-count", "a", "a@1", "a@^1.2", "a@*", "a@=0.1.0-rc.1", "a@>=1, <2", "a@", "a@1.x", "@", "A"];
const TIMES: &[&str] = &[
    "2030-01-01T00:00:00Z",
    "2016-12-31T23:59:60Z",
    "2030-01-01 00:00:00.123456789+14:00",
    "9999-12-31T23:59:59-23:59",
    "0000-01-01T00:00:00Z",
    "+262142-12-31T23:59:59Z",
    "-262143-01-01T00:00:00Z",
    "2030-02-30T00:00:00Z",
    "2030-01-01T00:00:00",
    "2030-01-01 00:00:00+0000 UTC",
    "20300101T000000Z",
];

/// A delivery as it came.
#[derive(Debug, Default)]
struct Delivered {
    body: Vec<u8>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    message_id: Option<String>,
    plugin: Option<String>,
    options: Option<String>,
    reply_to: Option<String>,
}

impl Delivered {
    fn decode(&self) -> Result<TaskMessage, Rejection> {
        let envelope = Envelope {
            body: &self.body,
            content_type: self.content_type.as_deref(),
            content_encoding: self.content_encoding.as_deref(),
            message_id: self.message_id.as_deref(),
            plugin_header: self.plugin.as_deref(),
            options_header: self.options.as_deref(),
            reply_to: self.reply_to.as_deref(),
            correlation_id: self.reply_to.as_deref(),
            traceparent: self.reply_to.as_deref(),
            ..Envelope::default()
        };
        TaskMessage::decode(&envelope, &LIMITS)
    }
}

fn options<D: Driver>(driver: &mut D) -> Option<String> {
    let mut members = Vec::new();
    for _ in 0..draw::below(driver, 5)? {
        let number =
            |driver: &mut D| draw::text_or(driver, &["0", "1", "5", "30", "100", "601", "4294967296", "1.0", "null"]);
        members.push(match draw::below(driver, 7)? {
            0 => format!("\"timeout_seconds\":{}", number(driver)?),
            1 => format!("\"max_attempts\": {}", number(driver)?),
            2 => format!("\"priority\":{}", number(driver)?),
            3 => format!("\"run_at\":\"{}\"", draw::one_of(driver, TIMES)?),
            4 => format!("\"deadline\":\"{}\"", draw::one_of(driver, TIMES)?),
            5 => {
                let label = |driver: &mut D| Some(format!("{}:{}", draw::string(driver)?, draw::string(driver)?));
                let labels = (0..draw::below(driver, 20)?).map(|_| label(driver)).collect::<Option<Vec<_>>>()?;
                format!("\"labels\":{{{}}}", labels.join(","))
            }
            _ => format!("{}:{}", draw::string(driver)?, draw::json(driver, 2)?),
        });
    }
    Some(format!("{{{}}}", members.join(",")))
}

/// Anything, most of it nearly a message.
struct Nearly;

impl ValueGenerator for Nearly {
    type Output = Delivered;

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<Delivered> {
        let split = draw::once_in(driver, 3)?;
        let mut delivered = Delivered {
            content_type: draw::perhaps(
                driver,
                &[
                    "application/json",
                    "Application/JSON; charset=utf-8",
                    "text/plain",
                    "text/xml",
                    "text/plain; charset=",
                    "",
                ],
            )?,
            content_encoding: draw::perhaps(driver, &["utf-8", "UTF8", "gzip", "latin-1", ""])?,
            message_id: draw::perhaps(driver, IDS)?,
            reply_to: draw::perhaps(driver, &["answers"])?,
            ..Delivered::default()
        };
        let body = if split {
            delivered.plugin = Some(draw::text_or(driver, PLUGINS)?);
            delivered.options = if draw::once_in(driver, 2)? { Some(options(driver)?) } else { None };
            draw::json(driver, 4)?
        } else {
            let mut members = Vec::new();
            for key in ["id", "plugin", "input", "options"] {
                // Sometimes missing, sometimes twice.
                let times = [1, 1, 1, 1, 1, 1, 0, 2][draw::below(driver, 8)?];
                for _ in 0..times {
                    let value = match key {
                        _ if draw::once_in(driver, 12)? => draw::json(driver, 3)?,
                        "plugin" if draw::once_in(driver, 8)? => draw::string(driver)?,
                        "id" | "plugin" if draw::once_in(driver, 2)? => {
                            format!("\"{}\"", if key == "id" { IDS[0] } else { PLUGINS[0] })
                        }
                        "id" => format!("\"{}\"", draw::one_of(driver, IDS)?),
                        "plugin" => format!("\"{}\"", draw::one_of(driver, PLUGINS)?),
                        "input" => draw::json(driver, 4)?,
                        _ => options(driver)?,
                    };
                    members.push(format!("\"{key}\":{value}"));
                }
            }
            if draw::once_in(driver, 12)? {
                members.push(format!("{}:{}", draw::string(driver)?, draw::json(driver, 1)?));
            }
            let shift = draw::below(driver, members.len().max(1))?;
            members.rotate_left(shift);
            format!("{{{}}}", members.join(", "))
        };
        let pieces = ["\"id\":", "\"plugin\":\"a\",", "\"input\":", "null", "{", "}", "\u{feff}", "[[[[[[", "\\u", ","];
        let body = if draw::once_in(driver, 4)? { draw::bent(driver, body, &pieces)? } else { body };
        delivered.body = body.into_bytes();
        for _ in 0..[0, 0, 0, 0, 0, 1, 2][draw::below(driver, 7)?] {
            let at = draw::below(driver, delivered.body.len().max(1))?;
            if let Some(byte) = delivered.body.get_mut(at) {
                *byte = (0..=255u8).generate(driver)?;
            }
        }
        Some(delivered)
    }
}

fn assert_taken_as_asked(delivered: &Delivered, message: &TaskMessage) {
    let body = std::str::from_utf8(&delivered.body).unwrap();
    assert!(body.contains(&*message.input), "the input is none of the body: {:?}", message.input);
    let json: &RawValue = serde_json::from_str(&message.input).unwrap();
    assert_eq!(json.get(), &*message.input, "the input is one JSON value and nothing around it");
    if delivered.plugin.as_deref().is_some_and(|plugin| !plugin.is_empty()) {
        let text = body.strip_prefix('\u{feff}').unwrap_or(body);
        assert_eq!(text.trim_matches([' ', '\t', '\r', '\n']), &*message.input, "the body is the input");
    }
    assert!(delivered.content_encoding.as_deref().is_none_or(|encoding| content::check_encoding(encoding).is_ok()));
    assert!(delivered.body.len() <= LIMITS.body_bytes);

    let options = &message.options;
    assert!(options.timeout_seconds.is_none_or(|s| (1..=LIMITS.timeout_seconds).contains(&s)));
    assert!(options.max_attempts.is_none_or(|n| MAX_ATTEMPTS.contains(&n)));
    assert!(options.priority.is_none_or(|n| PRIORITY.contains(&n)));
    assert!(options.run_at.zip(options.deadline).is_none_or(|(run_at, deadline)| run_at < deadline));
    assert!(options.labels.len() <= LABELS);
    assert!(options.labels.iter().flat_map(|(k, v)| [k, v]).all(|text| text.len() <= LABEL_BYTES));
    assert!(PluginRef::is_name(&message.plugin.name));
    assert_eq!(message.plugin.to_string().parse(), Ok(message.plugin.clone()));

    // On its way through an outbox it stays the same task.
    let again = Delivered { body: message.encode(), ..Delivered::default() };
    let envelope = Envelope { body: &again.body, ..Envelope::default() };
    let relayed = TaskMessage::decode(&envelope, &MessageLimits { body_bytes: usize::MAX, ..LIMITS }).unwrap();
    let expected =
        TaskMessage { id_given: true, reply_to: None, correlation_id: None, traceparent: None, ..message.clone() };
    assert_eq!(relayed, expected);
    if message.id_given {
        assert_eq!(delivered.decode().as_ref(), Ok(message), "the same delivery, the same task");
    }
}

fn assert_refused_well(delivered: &Delivered, rejection: &Rejection) {
    assert!(CODES.contains(&rejection.code), "{}", rejection.code);
    assert!(!rejection.detail.is_empty());
    assert_fit_to_show(&rejection.detail, Rejection::DETAIL_BYTES);
    assert_fit_to_show(rejection.plugin.as_deref().unwrap_or_default(), Rejection::PLUGIN_BYTES);
    if rejection.code == "id_mismatch" {
        assert_eq!(rejection.id, None, "neither can be trusted");
    }
    assert_eq!(delivered.decode().as_ref(), Err(rejection), "the same delivery, the same refusal");
}

#[test]
fn any_delivery_is_the_task_that_it_asks_for_or_a_refusal_that_can_be_shown() {
    let share = Share::default();
    bolero::check!().with_test_time(while_testing()).with_generator(Nearly).for_each(|delivered| {
        let decoded = delivered.decode();
        share.count(decoded.is_ok());
        match decoded {
            Ok(message) => assert_taken_as_asked(delivered, &message),
            Err(rejection) => assert_refused_well(delivered, &rejection),
        }
    });
    share.assert_fair();
}

/// A message with nothing wrong in it, and its parts.
#[derive(Debug)]
struct WellFormed {
    body: String,
    input: String,
    plugin: &'static str,
}

struct Right;

impl ValueGenerator for Right {
    type Output = WellFormed;

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<WellFormed> {
        let input = draw::json(driver, 5)?;
        let plugin = draw::one_of(driver, &["a", "word-count@1", "x-1@>=1, <2"])?;
        let mut members = vec![format!("\"plugin\":\"{plugin}\""), format!("\"input\": {input}\n")];
        if draw::once_in(driver, 2)? {
            members.push(format!("\"id\":\"{}\"", IDS[0]));
        }
        if draw::once_in(driver, 2)? {
            members
                .push("\"options\" : {\"priority\":9,\"labels\":{\"\\u0061\":\"\"},\"max_attempts\":100}".to_owned());
        }
        let shift = draw::below(driver, members.len())?;
        members.rotate_left(shift);
        Some(WellFormed { body: format!(" {{{}}}\r\n", members.join(",\t")), input, plugin })
    }
}

/// How deep a JSON text is nested.
fn nesting(json: &str) -> usize {
    let (mut now, mut most, mut quoted, mut escaped) = (0usize, 0usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                now += 1;
                most = most.max(now);
            }
            b']' | b'}' if !quoted => now -= 1,
            _ => {}
        }
    }
    most
}

#[test]
fn a_message_with_nothing_wrong_is_taken_whatever_its_input_is() {
    bolero::check!().with_test_time(while_testing()).with_generator(Right).for_each(|right| {
        let delivered = Delivered { body: right.body.clone().into_bytes(), ..Delivered::default() };
        if right.body.len() > LIMITS.body_bytes {
            assert_eq!(delivered.decode().unwrap_err().code, "too_large");
            return;
        }
        if nesting(&right.input) > 100 {
            assert_eq!(delivered.decode().unwrap_err().code, "bad_input", "deeper than its readers can follow");
            return;
        }
        let message = delivered.decode().unwrap();
        assert_eq!(*message.input, *right.input);
        assert_eq!(Ok(&message.plugin), right.plugin.parse().as_ref());
        assert_taken_as_asked(&delivered, &message);
    });
}
