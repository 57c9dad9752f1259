//! Every ending of the loop, with a scripted model, scripted tools and a scripted clock.

use super::*;
use agentry_sdk::llm::{Assistant, ToolCall, ToolResult};
use agentry_sdk::serde_json::{self, json};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// Gives its replies one after the other, and keeps what it was asked.
struct Script {
    replies: RefCell<VecDeque<Result<Reply, llm::Error>>>,
    asked: RefCell<Vec<Request>>,
}

impl Model for Script {
    fn chat(&self, request: &Request) -> Result<Reply, llm::Error> {
        self.asked.borrow_mut().push(request.clone());
        self.replies.borrow_mut().pop_front().expect("the model was asked more often than the script says")
    }
}

/// `add` adds, `break` fails, `flood` says much, `slow` takes 20 seconds.
struct Bench<'a> {
    tools: Vec<llm::Tool>,
    clock: &'a Ticking,
    called: RefCell<Vec<String>>,
}

impl Toolbox for Bench<'_> {
    fn tools(&self) -> &[llm::Tool] {
        &self.tools
    }

    fn call(&self, name: &str, arguments: &Map<String, Value>, _: Duration) -> Observation {
        self.called.borrow_mut().push(format!("{name} {}", Value::Object(arguments.clone())));
        let number = |key: &str| arguments.get(key).and_then(Value::as_i64).unwrap_or_default();
        match name {
            "add" => Observation::of((number("a") + number("b")).to_string()),
            "break" => Observation::failed("not granted"),
            "flood" => Observation::of("x".repeat(100_000)),
            "slow" => {
                self.clock.pass(20);
                Observation::of("late")
            }
            other => panic!("{other} is not in the box"),
        }
    }
}

struct Ticking {
    now: Cell<Duration>,
    limit: Duration,
}

impl Ticking {
    fn pass(&self, seconds: u64) {
        self.now.set(self.now.get() + Duration::from_secs(seconds));
    }
}

impl Clock for Ticking {
    fn remaining(&self) -> Duration {
        self.limit.saturating_sub(self.now.get())
    }

    fn now(&self) -> Duration {
        self.now.get()
    }
}

struct Ran {
    result: Result<Answered, Failure>,
    asked: Vec<Request>,
    called: Vec<String>,
    left: usize,
}

impl Ran {
    fn answered(&self) -> &Answered {
        self.result.as_ref().unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    /// Whether it is retried, its code, and its details.
    fn failed(&self) -> (bool, &str, Value) {
        let (retried, code, details) = match &self.result {
            Err(Failure::Permanent { code: Some(code), details: Some(details), .. }) => (false, code, details),
            Err(Failure::Retry { code: Some(code), details: Some(details), .. }) => (true, code, details),
            other => panic!("{other:?}"),
        };
        (retried, code, serde_json::from_str(details).unwrap())
    }
}

fn run_for(seconds: u64, mode: Mode, max_steps: usize, replies: Vec<Result<Reply, llm::Error>>) -> Ran {
    let clock = Ticking { now: Cell::default(), limit: Duration::from_secs(seconds) };
    let tool = |name: &str| llm::Tool::new(name, "A tool.", &json!({"type": "object"}));
    let tools = ["add", "break", "flood", "slow"].map(tool).to_vec();
    let bench = Bench { tools, clock: &clock, called: RefCell::default() };
    let script = Script { replies: RefCell::new(replies.into()), asked: RefCell::default() };
    let job = Job { question: "How much?".into(), model: "default".into(), max_steps, mode };
    let result = run(&job, &script, &bench, &clock);
    let left = script.replies.borrow().len();
    Ran { result, asked: script.asked.into_inner(), called: bench.called.into_inner(), left }
}

fn native(max_steps: usize, replies: Vec<Result<Reply, llm::Error>>) -> Ran {
    run_for(300, Mode::Native, max_steps, replies)
}

fn text(max_steps: usize, replies: &[&str]) -> Ran {
    run_for(300, Mode::Text, max_steps, replies.iter().map(|reply| says(reply)).collect())
}

fn reply(text: Option<&str>, tool_calls: Vec<ToolCall>) -> Result<Reply, llm::Error> {
    Ok(Reply {
        wants_tools: !tool_calls.is_empty(),
        message: Assistant { text: text.map(str::to_owned), tool_calls },
        model: "m-1".into(),
        usage: llm::Usage { input_tokens: 10, output_tokens: 2 },
    })
}

fn says(text: &str) -> Result<Reply, llm::Error> {
    reply(Some(text), Vec::new())
}

fn wants(name: &str, arguments: Value) -> ToolCall {
    ToolCall {
        id: format!("call-{name}"),
        name: name.into(),
        arguments: arguments.to_string(),
        opaque: Some("o".into()),
    }
}

fn calls(name: &str, arguments: Value) -> Result<Reply, llm::Error> {
    reply(Some("let me see"), vec![wants(name, arguments)])
}

#[test]
fn a_question_is_answered_after_two_calls_and_all_of_it_is_told() {
    let ran =
        native(8, vec![calls("add", json!({"a": 1, "b": 2})), calls("add", json!({"a": 3, "b": 4})), says(" 7 ")]);
    let step = |a: i64, b: i64| {
        json!({
            "thought": "let me see", "action": {"tool": "add", "arguments": {"a": a, "b": b}},
            "observation": (a + b).to_string(), "failed": false, "ms": 0,
        })
    };
    assert_eq!(
        serde_json::to_value(ran.answered()).unwrap(),
        json!({
            "answer": "7", "steps": [step(1, 2), step(3, 4)], "model": "m-1",
            "usage": {"input_tokens": 30, "output_tokens": 6, "llm_calls": 3, "tool_calls": 2},
        })
    );
}

#[test]
fn the_model_sees_its_calls_with_their_results() {
    let ran = native(8, vec![calls("add", json!({"a": 1, "b": 2})), says("3")]);
    let call = wants("add", json!({"a": 1, "b": 2}));
    let said = Assistant { text: Some("let me see".into()), tool_calls: vec![call] };
    let result = ToolResult { id: "call-add".into(), name: "add".into(), content: "3".into(), failed: false };
    assert_eq!(ran.asked[1].messages[2..], [Message::Assistant(said), Message::Tool(result)]);
    assert_eq!(ran.asked[0].tools.len(), 4);
    assert_eq!(ran.asked[0].tool_choice, None);
}

#[test]
fn a_question_is_answered_in_text_too() {
    let ran = text(
        8,
        &["Thought: Sum.\nAction: add\nAction Input: {\"a\": 1, \"b\": 2}", "Thought: I know.\nFinal Answer: 3"],
    );
    let answered = ran.answered();
    assert_eq!((answered.answer.as_str(), answered.thought.as_deref()), ("3", Some("I know.")));
    assert_eq!(answered.steps[0].thought.as_deref(), Some("Sum."));
    assert_eq!(answered.steps[0].observation, "3");
    assert!(ran.asked[0].tools.is_empty(), "tools are in the prompt");
    assert_eq!(ran.asked[0].stop, ["\nObservation:"]);
    assert!(matches!(&ran.asked[0].messages[0], Message::System(prompt) if prompt.contains("add: A tool.")));
    assert_eq!(ran.asked[1].messages.last(), Some(&Message::User("Observation: 3".into())));
}

#[test]
fn a_good_answer_with_the_word_error_is_an_answer() {
    let answer = "Error: that is what it printed; it failed and was denied.";
    assert_eq!(native(8, vec![says(answer)]).answered().answer, answer);
    assert_eq!(text(8, &[&format!("Final Answer: {answer}")]).answered().answer, answer);
}

#[test]
fn calls_of_one_reply_are_made_in_their_order_and_each_is_a_step() {
    let both = reply(None, vec![wants("add", json!({"a": 1})), wants("break", json!({}))]);
    let ran = native(8, vec![both, says("1")]);
    assert_eq!(ran.called, ["add {\"a\":1}", "break {}"]);
    assert_eq!(ran.answered().steps.len(), 2);
    let results = ran.asked[1].messages.iter().filter(|message| matches!(message, Message::Tool(_))).count();
    assert_eq!(results, 2);
}

#[test]
fn a_tool_that_fails_and_a_tool_that_is_not_there_are_observations() {
    let ran = native(8, vec![calls("break", json!({})), calls("fly", json!({})), says("I could not find out.")]);
    let steps = &ran.answered().steps;
    assert_eq!((steps[0].observation.as_str(), steps[0].failed), ("not granted", true));
    assert_eq!(
        (steps[1].observation.as_str(), steps[1].failed),
        ("there is no tool \"fly\"; there are add, break, flood, slow", true)
    );
    assert_eq!(ran.answered().usage.tool_calls, 1);
    let ran = text(8, &["Action: break\nAction Input: {}", "Final Answer: no"]);
    assert_eq!(ran.asked[1].messages.last(), Some(&Message::User("Observation: the tool failed: not granted".into())));
}

#[test]
fn a_long_observation_is_cut_and_marked() {
    let ran = native(8, vec![calls("flood", json!({})), says("much")]);
    let observation = &ran.answered().steps[0].observation;
    assert!(observation.ends_with("[cut: the first 8192 of 100000 bytes]"), "{}", &observation[8_000..]);
    assert!(matches!(ran.asked[1].messages.last(), Some(Message::Tool(result)) if result.content == *observation));
}

#[test]
fn the_last_reply_is_for_the_answer() {
    let ran = native(1, vec![calls("add", json!({"a": 1})), says("1")]);
    assert_eq!(ran.answered().answer, "1");
    assert_eq!(ran.asked[1].tool_choice, Some(ToolChoice::None));
    assert!(matches!(ran.asked[1].messages.last(), Some(Message::User(text)) if text.contains("no steps left")));
}

#[test]
fn an_agent_that_goes_on_beyond_its_steps_fails_with_what_it_did() {
    for max_steps in [1, 3] {
        let replies = (0..=max_steps as i64).map(|n| calls("add", json!({"a": n}))).collect();
        let ran = native(max_steps, replies);
        let (retried, code, details) = ran.failed();
        assert_eq!((retried, code), (false, "step_limit"));
        assert_eq!(details["steps"].as_array().map(Vec::len), Some(max_steps));
        assert_eq!(details["usage"]["llm_calls"], max_steps + 1);
        assert_eq!(ran.called.len(), max_steps);
    }
    let ran = text(1, &["Action: add\nAction Input: {}", "Action: add\nAction Input: {\"a\": 1}"]);
    assert_eq!(ran.failed().1, "step_limit");
}

#[test]
fn calls_beyond_the_steps_are_not_made_and_get_a_result_all_the_same() {
    let three = reply(None, (0..3).map(|n| wants("add", json!({"a": n}))).collect());
    let ran = native(2, vec![three, says("1")]);
    assert_eq!(ran.called.len(), 2);
    assert_eq!(ran.answered().steps.len(), 2);
    let results = ran.asked[1].messages.iter().filter_map(|message| match message {
        Message::Tool(result) => Some((result.content.as_str(), result.failed)),
        _ => None,
    });
    assert_eq!(
        results.collect::<Vec<_>>(),
        [("0", false), ("1", false), ("not called: there are no steps left", true)]
    );
}

#[test]
fn an_agent_whose_time_is_nearly_over_fails_with_what_it_did() {
    let ran = run_for(50, Mode::Native, 8, (0..3).map(|n| calls("slow", json!({"n": n}))).collect());
    let (retried, code, details) = ran.failed();
    assert_eq!((retried, code), (false, "out_of_time"));
    assert_eq!(details["steps"][1]["observation"], "late");
    assert_eq!(details["steps"][1]["ms"], 20_000);
    assert_eq!(ran.left, 0, "after 60 of 50 seconds");
    let ran = run_for(42, Mode::Native, 8, (0..3).map(|n| calls("slow", json!({"n": n}))).collect());
    assert_eq!((ran.failed().1, ran.left), ("out_of_time", 1), "2 of 42 seconds left are less than a tenth");
    assert_eq!(run_for(0, Mode::Native, 8, Vec::new()).failed().1, "out_of_time");
}

#[test]
fn three_broken_replies_in_a_row_are_the_end() {
    let ran = text(8, &["hello", "", "Thought: hm"]);
    let (retried, code, details) = ran.failed();
    assert_eq!((retried, code), (false, "unparsable"));
    assert_eq!(details["steps"].as_array().map(Vec::len), Some(3));
    assert_eq!(details["steps"][0]["thought"], "hello");
    assert_eq!(details["steps"][0]["action"], Value::Null);
    let nothing = || reply(None, Vec::new());
    assert_eq!(native(8, vec![nothing(), nothing(), nothing()]).failed().1, "unparsable");
    let unreadable = || Err(llm::Error::Unparsable("no JSON".into()));
    assert_eq!(native(8, vec![unreadable(), unreadable(), unreadable()]).failed().1, "unparsable");
}

#[test]
fn a_broken_reply_is_answered_with_what_was_wrong_and_forgiven() {
    let act = "Action: add\nAction Input: {\"a\": 1}";
    let ran = text(8, &["one", "two", act, "three", "four", "Final Answer: 1"]);
    assert_eq!(ran.answered().answer, "1");
    assert_eq!(ran.answered().steps.len(), 5, "broken replies are steps");
    let Some(Message::User(complaint)) = ran.asked[1].messages.last() else { panic!("nothing was said") };
    assert!(complaint.contains("neither an `Action:` line nor"), "{complaint}");
    assert!(complaint.contains("Action Input: its arguments"), "{complaint}");
    let ran = native(8, vec![reply(None, Vec::new()), says("1")]);
    assert_eq!(ran.answered().answer, "1");
    assert!(
        matches!(ran.asked[1].messages.last(), Some(Message::User(text)) if text.contains("neither text nor a tool call"))
    );
}

#[test]
fn broken_replies_use_up_steps_so_that_there_is_an_end() {
    let act = |n: u32| format!("Action: add\nAction Input: {{\"a\": {n}}}");
    let ran = text(4, &["no", &act(1), "no", &act(2), "Final Answer: 2"]);
    assert_eq!(ran.answered().answer, "2");
    assert!(matches!(ran.asked[4].messages.last(), Some(Message::User(text)) if text.contains("no steps left")));
}

#[test]
fn the_model_does_not_observe_for_itself() {
    let invented = "Action: add\nAction Input: {\"a\": 1}\nObservation: 5\nFinal Answer: 5";
    let ran = text(8, &[invented, "Final Answer: 1"]);
    assert_eq!(ran.answered().steps[0].observation, "1\n[the observation that you wrote yourself was ignored]");
    let Message::Assistant(said) = &ran.asked[1].messages[2] else { panic!("no reply") };
    assert_eq!(said.text.as_deref(), Some("Action: add\nAction Input: {\"a\":1}"), "nor does it see that it tried");
}

#[test]
fn of_several_actions_the_first_counts_and_the_model_is_told() {
    let two = "Action: add\nAction Input: {\"a\": 1}\nAction: break\nAction Input: {}";
    let ran = text(8, &[two, "Final Answer: 1"]);
    assert_eq!(ran.called, ["add {\"a\":1}"]);
    assert!(ran.answered().steps[0].observation.contains("only the first action was taken; 1 more"));
}

#[test]
fn the_same_call_is_refused_the_third_time_and_the_end_the_fourth() {
    let same = || calls("add", json!({"a": 1, "b": 2}));
    let ran = native(8, vec![same(), same(), same(), says("3")]);
    assert_eq!(ran.called.len(), 2);
    let told = &ran.answered().steps[2];
    assert!(told.failed && told.observation.contains("the same call"), "{told:?}");
    let other = calls("add", json!({"b": 2, "a": 1}));
    let ran = native(8, vec![same(), same(), other, same()]);
    let (retried, code, details) = ran.failed();
    assert_eq!((retried, code), (false, "no_progress"), "the order of arguments makes no other call");
    assert_eq!(details["steps"].as_array().map(Vec::len), Some(3));
}

#[test]
fn an_error_of_the_model_ends_as_its_kind_says_with_what_was_done() {
    let why = || "why".to_owned();
    for (error, retried, code) in [
        (llm::Error::Denied(why()), false, "denied"),
        (llm::Error::InvalidRequest(why()), false, "invalid_request"),
        (llm::Error::TooLong(why()), false, "too_long"),
        (llm::Error::RateLimited { message: why(), after: Some(Duration::from_secs(3)) }, true, "rate_limited"),
        (llm::Error::Unavailable(why()), true, "unavailable"),
        (llm::Error::TimedOut(why()), true, "timed_out"),
        (llm::Error::Blocked(why()), false, "blocked"),
        (llm::Error::BudgetExceeded(why()), false, "budget_exceeded"),
    ] {
        let ran = native(8, vec![calls("add", json!({"a": 1})), Err(error)]);
        let (found, said, details) = ran.failed();
        assert_eq!((found, said), (retried, code));
        assert_eq!(details["steps"][0]["observation"], "1");
        assert_eq!(details["usage"]["llm_calls"], 2);
    }
}

#[test]
fn an_answer_that_was_cut_is_no_answer_and_counts_its_tokens() {
    let usage = llm::Usage { input_tokens: 5, output_tokens: 4_096 };
    let ran = native(8, vec![Err(llm::Error::Truncated { text: "The answer is".into(), usage })]);
    let (retried, code, details) = ran.failed();
    assert_eq!((retried, code), (false, "truncated"));
    assert_eq!(details["usage"]["output_tokens"], 4_096);
}
