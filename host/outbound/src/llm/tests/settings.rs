//! What stops the start.

use super::*;

/// The error that a change to a good provider brings about.
fn refused(kind: ProviderKind, url: &str, change: impl FnOnce(&mut ProviderSettings)) -> String {
    match checked(kind, url, change) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{kind:?} {url} was to be refused"),
    }
}

fn checked(kind: ProviderKind, url: &str, change: impl FnOnce(&mut ProviderSettings)) -> Result<(), LlmSettingsError> {
    let mut settings = provider(kind, url);
    change(&mut settings);
    let settings = LlmSettings { providers: [("lab".to_owned(), settings)].into(), models: BTreeMap::new() };
    // Without the system's certificates, which are not what is tested here.
    crate::llm::settings::check(&settings)
}

const PUBLIC: &str = "https://api.openai.com/v1";

#[test]
fn a_model_of_an_unknown_provider_is_told_with_those_that_are_known() {
    let stray = ModelSettings { provider: "labb".into(), ..model(10) };
    let error = Llm::new(local([("default", stray)])).unwrap_err();
    let text = "llm.models.default.provider is \"labb\", and there is no such provider; configured are lab";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_model_without_a_name_or_an_answer_is_refused() {
    let error = |model| Llm::new(local([("default", model)])).unwrap_err().to_string();
    assert!(error(ModelSettings { model: " ".into(), ..model(1) }).starts_with("llm.models.default.model: "));
    assert!(error(model(0)).starts_with("llm.models.default.max_output_tokens: "));
    let mut settings = local([("default", ModelSettings { model: "models/gemini-pro".into(), ..model(1) })]);
    settings.providers.get_mut("lab").unwrap().kind = ProviderKind::Gemini;
    assert!(Llm::new(settings).unwrap_err().to_string().contains("leave it out"));
}

#[test]
fn a_public_provider_wants_a_key_and_a_local_one_does_not() {
    let missing = "llm.providers.lab.key is missing; write it like \"${OPENAI_API_KEY}\" or \"${file:PATH}\"";
    let without = |settings: &mut ProviderSettings| settings.key = None;
    for (kind, url) in [
        (ProviderKind::OpenAi, PUBLIC),
        (ProviderKind::OpenAi, "https://openrouter.ai/api/v1"),
        (ProviderKind::Anthropic, "https://api.anthropic.com/v1"),
        (ProviderKind::Gemini, "https://generativelanguage.googleapis.com/v1beta"),
        (ProviderKind::Gemini, "https://8.8.8.8/v1beta"),
    ] {
        assert_eq!(refused(kind, url, without), missing, "{url}");
    }
    for (kind, url) in [
        (ProviderKind::OpenAi, "https://llm.example.com/v1"),
        (ProviderKind::OpenAi, "http://ollama:11434/v1"),
        (ProviderKind::Anthropic, "http://127.0.0.1:1/v1"),
        (ProviderKind::Gemini, "http://[::1]:1/v1beta"),
        (ProviderKind::Anthropic, "http://10.1.2.3/v1"),
    ] {
        assert_eq!(checked(kind, url, without), Ok(()), "{url}");
    }
}

#[test]
fn a_key_in_its_own_header_is_a_key_and_two_are_one_too_many() {
    let header = |settings: &mut ProviderSettings| {
        settings.headers.insert("Authorization".into(), Secret::new("Bearer sk-abcdefgh"));
    };
    let only = |settings: &mut ProviderSettings| {
        settings.key = None;
        header(settings);
    };
    assert_eq!(checked(ProviderKind::OpenAi, PUBLIC, only), Ok(()));
    let error = refused(ProviderKind::OpenAi, PUBLIC, header);
    assert!(error.starts_with("llm.providers.lab.key: ") && error.contains("Authorization"), "{error}");
}

#[test]
fn a_key_that_no_header_can_carry_is_refused_and_not_shown() {
    for key in ["sk-secret\n", "sk-secret\u{7f}", " "] {
        let error = refused(ProviderKind::OpenAi, PUBLIC, |settings| settings.key = Some(Secret::new(key)));
        assert!(error.starts_with("llm.providers.lab.key: ") && !error.contains("secret"), "{error}");
    }
}

#[test]
fn plain_http_is_for_what_is_local() {
    for url in [
        "http://127.0.0.1/v1",
        "http://localhost:8080",
        "http://[::1]/",
        "http://192.168.0.7/v1",
        "http://172.16.0.1/v1",
        "http://[fd00::1]/v1",
        "http://[::ffff:10.0.0.1]/v1",
        "http://ollama:11434/v1",
        "http://gpu.local/v1",
        "http://llm.internal/v1",
    ] {
        assert_eq!(checked(ProviderKind::OpenAi, url, |_| {}), Ok(()), "{url}");
    }
    for url in [
        "http://api.openai.com/v1",
        "http://8.8.8.8/v1",
        "http://[2001:4860:4860::8888]/v1",
        "http://[::ffff:8.8.8.8]/",
    ] {
        let error = refused(ProviderKind::OpenAi, url, |_| {});
        assert!(error.starts_with("llm.providers.lab.url: ") && error.contains("use https"), "{error}");
    }
}

#[test]
fn an_address_that_is_none_is_refused() {
    for (url, why) in [
        ("ftp://example.com/", "scheme"),
        ("https://user@example.com/v1", "user or password"),
        ("https://:hunter2@example.com/v1", "user or password"),
        ("https://example.com/v1#top", "fragment"),
        ("data:text/plain,x", "no host"),
    ] {
        let error = refused(ProviderKind::OpenAi, url, |_| {});
        assert!(error.starts_with("llm.providers.lab.url: ") && error.contains(why), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_header_that_cannot_be_sent_is_refused_and_its_value_not_shown() {
    for (name, value) in
        [("bad name", "x"), ("", "x"), ("Host", "x"), ("content-length", "1"), ("x-ok", "hunter2\r\nx-evil: 1")]
    {
        let error = refused(ProviderKind::OpenAi, PUBLIC, |settings| {
            settings.headers.insert(name.into(), Secret::new(value));
        });
        assert!(error.starts_with("llm.providers.lab.headers: ") && error.contains(&format!("{name:?}")), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn times_that_contradict_each_other_are_refused() {
    let second = Duration::from_secs(1);
    type Field = fn(&mut ProviderSettings) -> &mut Duration;
    let changes: [(&str, Field); 4] = [
        ("connect", |settings| &mut settings.connect),
        ("first_byte", |settings| &mut settings.first_byte),
        ("idle", |settings| &mut settings.idle),
        ("total", |settings| &mut settings.total),
    ];
    for (key, field) in changes {
        let start = format!("llm.providers.lab.{key}: ");
        for time in [Duration::ZERO, Duration::from_secs(100_000)] {
            let error = refused(ProviderKind::OpenAi, PUBLIC, |settings| *field(settings) = time);
            assert!(error.starts_with(&start), "{error}");
        }
        if key != "total" {
            let error = refused(ProviderKind::OpenAi, PUBLIC, |settings| *field(settings) = settings.total + second);
            assert!(error.starts_with(&start) && error.contains("raise total"), "{error}");
        }
    }
}

#[test]
fn numbers_have_their_ranges() {
    let error = refused(ProviderKind::OpenAi, PUBLIC, |settings| settings.retries = 21);
    assert!(error.starts_with("llm.providers.lab.retries: "), "{error}");
    for concurrency in [0, 10_001] {
        let error = refused(ProviderKind::OpenAi, PUBLIC, |settings| settings.concurrency = concurrency);
        assert!(error.starts_with("llm.providers.lab.concurrency: "), "{error}");
    }
}

#[test]
fn the_longest_answer_has_the_name_that_the_server_knows() {
    let name = |url: &str| {
        let (shape, request) = (openai::OpenAi::new(&url.parse().unwrap()), question());
        let model = model(5);
        let prompt = Prompt::check(&request, &model, None, "openai:").unwrap();
        let body = shape::Shape::body(&shape, &prompt);
        let names = ["max_tokens", "max_completion_tokens"].into_iter().filter(|name| body[name] == 5);
        names.collect::<Vec<_>>().join(" ")
    };
    for url in [PUBLIC, "https://eu.api.openai.com/v1", "https://me.openai.azure.com/openai/v1"] {
        assert_eq!(name(url), "max_completion_tokens", "{url}");
    }
    for url in ["https://openrouter.ai/api/v1", "http://127.0.0.1:1/v1", "https://notopenai.com/v1"] {
        assert_eq!(name(url), "max_tokens", "{url}");
    }
}

#[test]
fn an_address_keeps_its_path_and_its_query() {
    let shape = openai::OpenAi::new(&PUBLIC.parse().unwrap());
    let endpoint = |root: &str| shape::Shape::endpoint(&shape, &root.parse().unwrap(), "m").to_string();
    assert_eq!(endpoint("https://x.org/v1/"), "https://x.org/v1/chat/completions");
    assert_eq!(endpoint("https://x.org"), "https://x.org/chat/completions");
    assert_eq!(endpoint("https://x.org/a/v1?api-version=2"), "https://x.org/a/v1/chat/completions?api-version=2");
}

fn question() -> ChatRequest {
    ChatRequest { messages: vec![Message::User("hi".into())], ..ChatRequest::default() }
}
