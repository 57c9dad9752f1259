//! Servers that fail on demand, of three vendors' shapes: what ends `completed` was answered, and nothing else is.

use e2e::peers::{Peer, everything_command};
use e2e::{Mode, Site, Task, plugin, task};
use serde_json::{Value, json};

use super::{granted_to_react, reply, with_model, with_plugins};

/// How a task has to end.
#[derive(Clone)]
enum End {
    /// With this answer.
    Answer(&'static str),
    /// As `plugin_error` with this code; it would be retried, or not.
    Code(&'static str, bool),
    /// With this kind.
    Kind(&'static str),
}

/// One model, what is the matter with it, and how a task ends that asks it.
#[derive(Clone)]
struct Case {
    model: String,
    kind: &'static str,
    url: String,
    /// What llmock plays.
    plays: Vec<Value>,
    /// Other settings of the provider.
    settings: Vec<(&'static str, Value)>,
    timeout: u32,
    end: End,
}

impl Case {
    fn new(model: &str, shape: (&'static str, &str), plays: Vec<Value>, end: End) -> Self {
        let (kind, url) = (shape.0, shape.1.to_owned());
        Self { model: model.to_owned(), kind, url, plays, settings: Vec::new(), timeout: 60, end }
    }

    fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.settings.push((key, value.into()));
        self
    }

    fn timeout(mut self, seconds: u32) -> Self {
        self.timeout = seconds;
        self
    }

    #[track_caller]
    fn judge(&self, task: &Value) {
        let (model, state, failure) = (&self.model, &task["state"], &task["failure"]);
        match &self.end {
            End::Answer(answer) => {
                assert_eq!(state, "completed", "{model}: {task:#}");
                assert_eq!(&task["output"]["answer"], answer, "{model}: {task:#}");
            }
            End::Code(code, retryable) => {
                assert_eq!((state, &failure["kind"]), (&json!("failed"), &json!("plugin_error")), "{model}: {task:#}");
                assert_eq!(&failure["detail"]["code"], code, "{model}: {task:#}");
                assert_eq!(failure["retryable"], *retryable, "{model}: {task:#}");
            }
            End::Kind(kind) => {
                assert_eq!((state, &failure["kind"]), (&json!("failed"), &json!(kind)), "{model}: {task:#}")
            }
        }
        if !matches!(self.end, End::Answer(_)) {
            assert_eq!(task["output"], json!(null), "{model}: {task:#}");
        }
    }
}

fn fail(status: u16, times: impl Into<Value>) -> Value {
    json!({"type": "fail", "status": status, "times": times.into()})
}

/// What may happen with every vendor.
fn of_every_vendor(llmock: &Peer) -> Vec<Case> {
    let shapes = [
        ("openai", llmock.url("/v1")),
        ("anthropic", llmock.url("/anthropic/v1")),
        ("gemini", llmock.url("/gemini/v1beta")),
    ];
    let cases = shapes.iter().flat_map(|(kind, url)| {
        let shape = (*kind, url.as_str());
        let name = |what: &str| format!("{kind}-{what}");
        let busy = json!({"type": "fail", "status": 429, "retry_after": 1});
        let fine = || reply("It is fine.", &[]);
        [
            Case::new(&name("busy"), shape, vec![busy, fine()], End::Answer("It is fine.")),
            Case::new(&name("broken-twice"), shape, vec![fail(500, 2), fine()], End::Answer("It is fine.")),
            Case::new(&name("broken"), shape, vec![fail(503, Value::Null)], End::Code("unavailable", true)),
            Case::new(&name("refuses-the-key"), shape, vec![fail(401, Value::Null)], End::Code("unavailable", true)),
            Case::new(&name("hangs"), shape, vec![json!({"type": "delay", "seconds": 3600})], End::Kind("timeout"))
                .timeout(2),
        ]
    });
    cases.collect()
}

/// What a model does rather than its server.
fn of_the_model(llmock: &Peer) -> Vec<Case> {
    let url = llmock.url("/v1");
    let shape = ("openai", url.as_str());
    let ended = |reason: &str| json!({"type": "reply", "text": "It is", "finish_reason": reason});
    // The fault is in the first of the two replies.
    let tool_fault = |kind: &str| {
        let call = reply("", &[("calculator", json!({"expression": "1 + 1"}))]);
        vec![json!({"type": "tool_fault", "kind": kind}), call, reply("I looked again.", &[])]
    };
    let words = "Error: failed, status 500, exception, null";
    vec![
        Case::new("cut", shape, vec![ended("length")], End::Code("truncated", false)),
        Case::new("filtered", shape, vec![ended("content_filter")], End::Code("blocked", false)),
        Case::new("half-arguments", shape, tool_fault("malformed_arguments"), End::Answer("I looked again.")),
        Case::new("no-such-tool", shape, tool_fault("unknown_tool"), End::Answer("I looked again.")),
        Case::new("speaks-of-errors", shape, vec![reply(words, &[])], End::Answer(words)),
        Case::new("slow", shape, vec![json!({"type": "delay", "seconds": 3600})], End::Code("timed_out", true))
            .with("first_byte_seconds", 1)
            .with("retries", 0),
    ]
}

/// What aimock does to the bytes.
fn of_the_bytes(aimock: &Peer) -> Vec<Case> {
    let openai = aimock.url("/v1");
    let gemini = aimock.url("/v1beta");
    let (openai, anthropic, gemini) =
        (("openai", openai.as_str()), ("anthropic", openai.as_str()), ("gemini", gemini.as_str()));
    let garbage = || End::Code("unparsable", false);
    vec![
        Case::new("openai-garbage", openai, vec![], garbage()).with("headers.X-AIMock-Chaos-Malformed", "1"),
        Case::new("anthropic-garbage", anthropic, vec![], garbage()).with("headers.X-AIMock-Chaos-Malformed", "1"),
        Case::new("gemini-garbage", gemini, vec![], garbage()).with("headers.X-AIMock-Chaos-Malformed", "1"),
        Case::new("hangs-up", openai, vec![], End::Code("unavailable", true))
            .with("headers.X-AIMock-Chaos-Disconnect", "1"),
        Case::new("limits", openai, vec![], End::Code("rate_limited", true))
            .with("headers.X-AIMock-Chaos-Ratelimit", "1")
            .with("retries", 1),
    ]
}

#[tokio::test]
async fn what_a_failing_server_of_models_causes_is_typed_and_garbage_is_never_an_answer() {
    let site = Site::new(Mode::Services).await;
    let fixtures = json!([{"match": {}, "response": {"content": "It is fine.",
        "toolCalls": [{"name": "calculator", "arguments": {"expression": "1 + 1"}}]}}]);
    let (aimock, llmock) = (Peer::aimock(site.folder(), &fixtures).await, Peer::llmock(site.folder()).await);
    let cases: Vec<_> = [of_every_vendor(&llmock), of_the_model(&llmock), of_the_bytes(&aimock)].concat();
    let models: Vec<_> = cases.iter().map(|case| case.model.as_str()).collect();
    let mut setup = granted_to_react(with_plugins(&site, &["react-agent"]), &models);
    let manifest = site.folder().join("plugins/react-agent");
    plugin::edit(&manifest, r#"llm = ["default"]"#, &format!("llm = {}", json!(models)));
    setup = setup.set("tools.search.command", everything_command()).set("worker.slots", cases.len());
    for case in &cases {
        setup = with_model(setup, &case.model, case.kind, &case.url);
        for (key, value) in &case.settings {
            setup = setup.set(&format!("llm.providers.{}.{key}", case.model), value.clone());
        }
        if !case.plays.is_empty() {
            llmock.plays(&case.model, case.plays.clone()).await;
        }
    }
    let daemon = setup.start().await;
    let asked: Vec<_> = cases
        .iter()
        .map(|case| Task::new("react-agent", json!({"question": "How is it?", "model": case.model})))
        .zip(&cases)
        .map(|(task, case)| task.option("max_attempts", 1).option("timeout_seconds", case.timeout))
        .collect();
    site.publish(&asked).await;
    site.at_rest(&task::ids(&asked)).await;
    for (case, asked) in cases.iter().zip(&asked) {
        case.judge(&daemon.http().task(asked.id).await);
    }
    // What the server itself thinks of its client: it waited as long as it was told, retried what may pass, and nothing else.
    let verdict = llmock.verdict().await;
    assert_eq!(verdict["errors"], 0, "{verdict:#}");
    daemon.stop().await;
}
