use super::*;

const ID: &str = "01920c3e-0000-7000-8000-000000000001";

fn limits() -> MessageLimits {
    MessageLimits { timeout_seconds: 600, body_bytes: 4096 }
}

fn decode_body(body: &str) -> Result<TaskMessage, Rejection> {
    TaskMessage::decode(&Envelope { body: body.as_bytes(), ..Envelope::default() }, &limits())
}

fn refused(body: &str, code: &str, words: &str) -> Rejection {
    let rejection = decode_body(body).expect_err(body);
    assert_eq!(rejection.code, code, "{rejection}");
    assert!(rejection.detail.contains(words), "{rejection} does not say {words:?}");
    rejection
}

#[test]
fn the_input_is_kept_byte_for_byte() {
    let message = decode_body(r#"{"plugin":"a","input":{"b" : 1.0, "a":"\u00e9", "b":2}}"#).unwrap();
    assert_eq!(&*message.input, r#"{"b" : 1.0, "a":"\u00e9", "b":2}"#);
}

#[test]
fn a_null_input_is_an_input() {
    assert_eq!(&*decode_body(r#"{"plugin":"a","input":null}"#).unwrap().input, "null");
}

#[test]
fn what_is_encoded_reads_back_the_same() {
    let body = format!(
        r#"{{"id":"{ID}","plugin":"a@^1.2","input":{{"x":[1, 2]}},"options":{{"priority":5,"labels":{{"t":"s"}},"deadline":"2030-01-01T00:00:00Z"}}}}"#
    );
    let message = decode_body(&body).unwrap();
    let again = TaskMessage::decode(&Envelope { body: &message.encode(), ..Envelope::default() }, &limits()).unwrap();
    assert_eq!(message, again);
}

#[test]
fn unknown_and_duplicate_keys_are_refused_by_name() {
    refused(r#"{"plugin":"a","input":1,"prompt":"x"}"#, "bad_message", "prompt");
    refused(r#"{"plugin":"a","plugin":"b","input":1}"#, "bad_message", "duplicate field `plugin`");
    refused(r#"{"plugin":"a","input":1,"options":{"retries":3}}"#, "bad_message", "retries");
    refused(r#"{"plugin":"a","input":1,"options":{"labels":{"k":"1","k":"2"}}}"#, "bad_message", "duplicate label");
}

#[test]
fn what_is_required_is_named() {
    refused(r#"{"plugin":"a"}"#, "bad_message", "`input`");
    refused(r#"{"input":1}"#, "bad_message", "`plugin`");
    refused("", "not_json", "empty");
    refused(r#"[null, "a", 1]"#, "bad_message", "expected an object");
    refused("7", "bad_message", "expected an object");
    refused(r#"{"plugin":"a","input":1,"options":[30]}"#, "bad_message", "options: expected an object");
    assert!(decode_body(r#"{"plugin":"a","input":1,"options":null}"#).is_ok());
    refused("[1", "not_json", "EOF");
}

#[test]
fn wrong_types_and_ranges_are_refused_with_what_is_allowed() {
    refused(r#"{"plugin":7,"input":1}"#, "bad_message", "expected a string");
    refused(r#"{"plugin":"A B","input":1}"#, "bad_plugin", "not a plugin name");
    refused(r#"{"plugin":"a@one","input":1}"#, "bad_plugin", "semver");
    refused(r#"{"plugin":"a","input":1,"options":{"timeout_seconds":601}}"#, "bad_options", "1 to 600");
    refused(r#"{"plugin":"a","input":1,"options":{"timeout_seconds":0}}"#, "bad_options", "1 to 600");
    refused(r#"{"plugin":"a","input":1,"options":{"max_attempts":101}}"#, "bad_options", "1 to 100");
    refused(r#"{"plugin":"a","input":1,"options":{"priority":10}}"#, "bad_options", "0 to 9");
    refused(
        r#"{"plugin":"a","input":1,"options":{"timeout_seconds":"30"}}"#,
        "bad_message",
        r#"timeout_seconds is "30""#,
    );
    refused(r#"{"plugin":"a","input":1,"options":{"timeout_seconds":1.5}}"#, "bad_message", "timeout_seconds is 1.5");
    refused(r#"{"plugin":"a","input":1,"options":{"priority":-1}}"#, "bad_message", "priority is -1");
    refused(r#"{"plugin":"a","input":1,"options":{"priority":256}}"#, "bad_message", "0 to 9");
    assert_eq!(
        decode_body(r#"{"plugin":"a","input":1,"options":{"priority":3.0}}"#).unwrap().options.priority,
        Some(3)
    );
    refused(
        r#"{"plugin":"a","input":1,"options":{"run_at":"2030-01-02T00:00:00Z","deadline":"2030-01-01T00:00:00Z"}}"#,
        "bad_options",
        "not after",
    );
    let long = "x".repeat(65);
    refused(
        &format!(r#"{{"plugin":"a","input":1,"options":{{"labels":{{"k":"{long}"}}}}}}"#),
        "bad_options",
        "64 bytes",
    );
}

#[test]
fn a_refusal_carries_the_id_where_one_can_be_read() {
    let rejection = refused(&format!(r#"{{"id":"{ID}","plugin":"a","wrong":1}}"#), "bad_message", "wrong");
    assert_eq!(rejection.id, Some(ID.parse().unwrap()));
    assert_eq!(rejection.plugin.as_deref(), Some("a"));
    assert_eq!(refused(r#"{"id":"seven","plugin":"a","input":1}"#, "bad_id", "not a UUID").id, None);
}

#[test]
fn two_different_ids_are_refused_and_neither_is_believed() {
    let body = format!(r#"{{"id":"{ID}","plugin":"a","input":1}}"#);
    let mut envelope = Envelope { body: body.as_bytes(), message_id: Some(ID), ..Envelope::default() };
    assert!(TaskMessage::decode(&envelope, &limits()).is_ok());
    envelope.message_id = Some("01920c3e-0000-7000-8000-000000000002");
    let rejection = TaskMessage::decode(&envelope, &limits()).unwrap_err();
    assert_eq!((rejection.code, rejection.id), ("id_mismatch", None));
}

#[test]
fn with_the_plugin_in_a_header_the_body_is_the_input() {
    let envelope = Envelope {
        body: br#"{"text": "x"}"#,
        plugin_header: Some("word-count@0.1"),
        options_header: Some(r#"{"priority": 3}"#),
        message_id: Some(ID),
        ..Envelope::default()
    };
    let message = TaskMessage::decode(&envelope, &limits()).unwrap();
    assert_eq!((&*message.input, message.options.priority), (r#"{"text": "x"}"#, Some(3)));
    assert_eq!(message.plugin.to_string(), "word-count@^0.1");
}

#[test]
fn encodings_types_and_sizes_are_refused_before_parsing() {
    let code = |envelope: Envelope<'_>| TaskMessage::decode(&envelope, &limits()).unwrap_err().code;
    let body = br#"{"plugin":"a","input":1}"#;
    assert_eq!(code(Envelope { body, content_encoding: Some("gzip"), ..Envelope::default() }), "content_encoding");
    assert_eq!(code(Envelope { body, content_type: Some("text/xml"), ..Envelope::default() }), "content_type");
    assert_eq!(code(Envelope { body: &[b' '; 5000], ..Envelope::default() }), "too_large");
    assert_eq!(code(Envelope { body: b"\xff\xfe", ..Envelope::default() }), "not_utf8");
    let json = Envelope { body, content_type: Some("Application/JSON; charset=utf-8"), ..Envelope::default() };
    assert!(TaskMessage::decode(&json, &limits()).is_ok());
}

#[test]
fn a_time_is_refused_with_its_field_its_value_and_what_is_missing() {
    for field in ["run_at", "deadline"] {
        let options = |value: &str| format!(r#"{{"plugin":"a","input":1,"options":{{"{field}":{value}}}}}"#);
        for (value, says) in [
            (r#""2030-01-01T00:00:00""#, "its offset from UTC is missing"),
            (r#""2030-01-01""#, "the time of day and the offset from UTC are missing"),
            (r#""tomorrow""#, "not a time"),
            ("1893456000", "seconds or milliseconds"),
            ("1893456000.5", "seconds or milliseconds"),
            ("true", "expected a time as text"),
            ("[]", "expected a time as text"),
            ("{}", "expected a time as text"),
        ] {
            let detail = refused(&options(value), "bad_message", says).detail;
            assert!(detail.contains(&format!("options: {field} is ")), "{detail}");
            assert!(detail.contains(r#"for example "2030-01-01T00:00:00Z""#), "{detail}");
        }
        for value in
            [r#""2030-01-01 00:00:00z""#, r#""2030-01-01T02:00:00+0200""#, r#""2030-01-01T00:00:00.000000000000+00""#]
        {
            let options = decode_body(&options(value)).unwrap().options;
            let at = options.run_at.or(options.deadline).unwrap();
            assert_eq!(at.to_rfc3339(), "2030-01-01T00:00:00+00:00", "{value}");
        }
        assert!(decode_body(&options("null")).is_ok());
    }
}

#[test]
fn properties_that_clients_set_on_their_own_are_taken() {
    let body = br#"{"plugin":"a","input":1}"#;
    // Celery and kombu, Spring AMQP (text and JSON), Java, Ruby, Go, kombu for bytes.
    for (content_type, content_encoding) in [
        (Some("application/json"), Some("utf-8")),
        (Some("text/plain"), Some("UTF-8")),
        (Some("application/json"), Some("UTF-8")),
        (Some("application/octet-stream"), None),
        (Some("application/octet-stream"), Some("")),
        (Some("text/plain"), None),
        (Some("application/data"), Some("binary")),
        (Some(""), Some("us-ascii")),
        (None, Some("identity")),
        (Some("application/vnd.example+json; charset=utf-8"), None),
    ] {
        let envelope = Envelope { body, content_type, content_encoding, ..Envelope::default() };
        assert!(TaskMessage::decode(&envelope, &limits()).is_ok(), "{content_type:?} {content_encoding:?}");
    }
    let marked = [b"\xef\xbb\xbf \r\n".as_slice(), body].concat();
    let message = TaskMessage::decode(&Envelope { body: &marked, ..Envelope::default() }, &limits()).unwrap();
    assert_eq!(&*message.input, "1");
    let headed = Envelope { body: "\u{feff}{\"x\": 1}\n".as_bytes(), plugin_header: Some("a"), ..Envelope::default() };
    assert_eq!(&*TaskMessage::decode(&headed, &limits()).unwrap().input, r#"{"x": 1}"#);
}

#[test]
fn a_message_id_that_is_no_uuid_stands_for_one_and_a_bodys_id_must_be_one() {
    let body = br#"{"plugin":"a","input":1}"#;
    let with =
        |id: &str| TaskMessage::decode(&Envelope { body, message_id: Some(id), ..Envelope::default() }, &limits());
    let (one, again, other) = (with("order-17").unwrap(), with("order-17").unwrap(), with("order-18").unwrap());
    assert!(one.id_given && one.id == again.id && one.id != other.id);
    for form in [ID.to_uppercase(), format!("{{{ID}}}"), format!("urn:uuid:{ID}"), ID.replace('-', "")] {
        assert_eq!(with(&form).unwrap().id.to_string(), ID, "{form}");
    }
    assert!(!with("").unwrap().id_given);
    assert_eq!(with("\u{1a}\u{1a}").unwrap_err().code, "bad_id");
    let rejected = Envelope { body: b"{", message_id: Some("order-17"), ..Envelope::default() };
    assert_eq!(TaskMessage::decode(&rejected, &limits()).unwrap_err().id, Some(one.id), "found under its id");
    refused(r#"{"id":"seven","plugin":"a","input":1}"#, "bad_id", "message_id");
}

#[test]
fn a_header_that_is_not_text_is_named_and_a_foreign_one_costs_nothing() {
    let body = b"{}";
    let odd = Envelope { body, odd_header: Some(("agentry-plugin", "an array")), ..Envelope::default() };
    let refused = TaskMessage::decode(&odd, &limits()).unwrap_err();
    assert_eq!(
        (refused.code, &*refused.detail),
        ("bad_message", "the header agentry-plugin is an array; publish it as text")
    );
    let foreign = Envelope {
        body,
        plugin_header: Some("a"),
        options_header: Some(""),
        compression: Some("fast"),
        traceparent: Some("\0"),
        ..Envelope::default()
    };
    assert_eq!(TaskMessage::decode(&foreign, &limits()).unwrap().traceparent, None);
}

#[test]
fn plugin_input_and_options_make_the_fingerprint() {
    let base = decode_body(r#"{"plugin":"a","input":1}"#).unwrap().fingerprint;
    assert_eq!(decode_body(r#"{"input":1,"plugin":"a","options":{}}"#).unwrap().fingerprint, base);
    for other in [
        r#"{"plugin":"b","input":1}"#,
        r#"{"plugin":"a","input":2}"#,
        r#"{"plugin":"a","input":1,"options":{"priority":1}}"#,
    ] {
        assert_ne!(decode_body(other).unwrap().fingerprint, base);
    }
}

#[test]
fn input_nested_beyond_its_readers_is_refused_and_else_taken_as_it_is() {
    let nested = |deep: usize| format!("{}1{}", "[".repeat(deep), "]".repeat(deep));
    let decode = |input: &str| {
        let body = format!(r#"{{"plugin":"a","input":{input}}}"#);
        let roomy = MessageLimits { body_bytes: 1 << 20, ..limits() };
        TaskMessage::decode(&Envelope { body: body.as_bytes(), ..Envelope::default() }, &roomy)
    };
    assert_eq!(&*decode(&nested(100)).unwrap().input, nested(100));
    for input in ["1e999", r#""\ud800""#] {
        assert_eq!(&*decode(input).unwrap().input, input);
    }
    for input in [nested(101), nested(100_000)] {
        let refused = decode(&input).unwrap_err();
        assert_eq!(refused.code, "bad_input", "{refused:?}");
    }
}

#[test]
fn a_detail_quotes_no_more_than_a_person_reads() {
    let long = "é".repeat(50_000);
    for body in [format!(r#"{{"plugin":"{long}","input":1}}"#), format!(r#"{{"{long}":1}}"#)] {
        let roomy = MessageLimits { body_bytes: 1 << 20, ..limits() };
        let refused =
            TaskMessage::decode(&Envelope { body: body.as_bytes(), ..Envelope::default() }, &roomy).unwrap_err();
        assert!(refused.detail.len() < 1_100 && refused.detail.ends_with('…'), "{}", refused.detail.len());
    }
}

#[test]
fn a_refusal_is_short_and_on_one_line_whatever_it_is_about() {
    let long = "x".repeat(3_000);
    for body in [
        format!(r#"{{"plugin":"a","input":1,"{long}":2}}"#),
        format!(r#"{{"plugin":"{long}","input":1}}"#),
        r#"{"plugin":"a","input":1,"\u001b[2J\n":2}"#.to_owned(),
        r#"{"plugin":"a","input":1,"options":{"\u001b[2J\n":2}}"#.to_owned(),
        r#"{"plugin":"\u001b[2J\n","input":1}"#.to_owned(),
    ] {
        let rejection = decode_body(&body).unwrap_err();
        let plugin = rejection.plugin.clone().unwrap();
        assert!(rejection.detail.len() <= Rejection::DETAIL_BYTES && plugin.len() <= Rejection::PLUGIN_BYTES, "{body}");
        assert!(!rejection.detail.chars().chain(plugin.chars()).any(char::is_control), "{rejection}");
    }
    refused(r#"{"plugin":"a","input":1,"\u001b":2}"#, "bad_message", r"unknown field `\u{1b}`");
}

#[test]
fn a_time_out_above_the_ceiling_of_its_plugin_is_refused_with_both_named() {
    let of = |options: &str| {
        decode_body(&format!(r#"{{"id":"{ID}","plugin":"a@1","input":1,"options":{options}}}"#)).unwrap()
    };
    let minute = Some(std::time::Duration::from_secs(60));
    let rejection = of(r#"{"timeout_seconds":61}"#).check_timeout(minute).unwrap_err();
    assert_eq!(
        rejection.detail,
        "options.timeout_seconds is 61; allowed are 1 to 60 (limits.max.timeout_seconds of the operator's policy for a)"
    );
    assert_eq!((rejection.code, rejection.plugin.as_deref()), ("bad_options", Some("a")));
    assert_eq!(rejection.id.map(|id| id.to_string()).as_deref(), Some(ID));
    for (options, ceiling) in
        [(r#"{"timeout_seconds":60}"#, minute), (r#"{"timeout_seconds":61}"#, None), ("{}", minute)]
    {
        assert_eq!(of(options).check_timeout(ceiling), Ok(()), "{options}");
    }
}
