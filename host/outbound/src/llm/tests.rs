//! Values in, values out; what needs a socket is in `tests/llm`.

mod requests;
mod schemas;
mod settings;

use super::*;
use crate::Secret;
use std::time::{Duration, SystemTime};

/// A provider as an operator would set it up.
fn provider(kind: ProviderKind, url: &str) -> ProviderSettings {
    ProviderSettings {
        kind,
        url: url.parse().unwrap(),
        key: Some(Secret::new("sk-0123456789")),
        headers: BTreeMap::new(),
        proxy: None,
        ca_file: None,
        connect: Duration::from_secs(10),
        first_byte: Duration::from_secs(120),
        idle: Duration::from_secs(60),
        total: Duration::from_secs(300),
        retries: 2,
        concurrency: 8,
    }
}

fn model(max_output_tokens: u32) -> ModelSettings {
    ModelSettings { provider: "lab".into(), model: "model-1".into(), max_output_tokens }
}

fn local(models: impl IntoIterator<Item = (&'static str, ModelSettings)>) -> LlmSettings {
    let provider = provider(ProviderKind::OpenAi, "http://127.0.0.1:1/v1");
    LlmSettings {
        providers: [("lab".to_owned(), provider)].into(),
        models: models.into_iter().map(|(alias, model)| (alias.to_owned(), model)).collect(),
    }
}

#[test]
fn the_models_are_known_by_the_operators_names() {
    let llm = Llm::new(local([("small", model(10)), ("default", model(10))])).unwrap();
    assert_eq!(llm.models(), ["default", "small"]);
}

#[test]
fn an_estimate_has_all_texts_and_the_longest_answer() {
    let llm = Llm::new(local([("default", model(100))])).unwrap();
    let mut request = ChatRequest {
        model: "default".into(),
        messages: vec![Message::User("1234567".into())],
        ..ChatRequest::default()
    };
    assert_eq!(llm.estimate(&request), 3 + 100);
    request.max_tokens = Some(10);
    assert_eq!(llm.estimate(&request), 3 + 10);
    request.max_tokens = Some(1000);
    assert_eq!(llm.estimate(&request), 3 + 100);
    let call = ToolCall { id: "c".into(), name: "abc".into(), arguments: "{}".into(), opaque: Some("x".into()) };
    request.messages.push(Message::Assistant(Assistant { text: Some("abc".into()), tool_calls: vec![call] }));
    let result = ToolResult { id: "c".into(), name: "abc".into(), content: "abc".into(), failed: false };
    request.messages.extend([Message::System("abc".into()), Message::Tool(result)]);
    request.tools.push(Tool { name: "abc".into(), description: "abc".into(), parameters: "{}1".into() });
    request.response_format = ResponseFormat::JsonSchema { name: "abc".into(), schema: "{}1".into() };
    // 7 + 9 of the assistant's + 9 of the others' + 9 of the tool + 6 of the schema.
    assert_eq!(llm.estimate(&request), 14 + 100);
    let unknown = ChatRequest { model: "gpt".into(), ..request };
    assert_eq!(llm.estimate(&unknown), 14 + 1000);
}

#[test]
fn a_pause_grows_and_is_never_shorter_than_the_provider_wants() {
    let longest = |n| (0..200).map(|_| retry::pause(n, None)).max().unwrap_or_default();
    assert!(longest(0) <= Duration::from_millis(500) && longest(0) > Duration::from_millis(250));
    assert!(longest(3) <= Duration::from_secs(4) && longest(3) > Duration::from_secs(2));
    assert!(longest(u32::MAX) <= Duration::from_secs(30));
    let after = Duration::from_secs(7);
    for n in 0..50 {
        let pause = retry::pause(n, Some(after));
        assert!(pause >= after && pause <= after + Duration::from_millis(500), "{pause:?}");
    }
}

#[test]
fn when_to_come_again_is_read_in_each_form_and_nonsense_is_not() {
    let read = |name: &'static str, value: &str| {
        retry::after(&http::HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())]))
    };
    assert_eq!(read("retry-after", "120"), Some(Duration::from_secs(120)));
    assert_eq!(read("retry-after", " 1.5 "), Some(Duration::from_millis(1500)));
    assert_eq!(read("retry-after-ms", "250"), Some(Duration::from_millis(250)));
    let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
    let after = read("retry-after", &soon).unwrap();
    assert!(after > Duration::from_secs(30) && after <= Duration::from_secs(60), "{after:?}");
    assert_eq!(read("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
    for nonsense in ["", "-1", "soon", "NaN", "inf", "-1e300"] {
        assert_eq!(read("retry-after", nonsense), None, "{nonsense}");
    }
    for far in ["2592001", "1e19", "1e300", "Fri, 31 Dec 9999 23:59:59 GMT"] {
        assert_eq!(read("retry-after", far), Some(Duration::from_secs(30 * 86_400)), "{far}");
    }
}

#[test]
fn words_are_cut_where_a_character_ends() {
    assert_eq!(answer::told(" short "), "short");
    let told = answer::told(&"ä".repeat(1000));
    assert_eq!((told.chars().count(), told.ends_with('…')), (501, true));
}
