//! What a model wrote in text mode, as one step: an action, an answer, or what is wrong with it. See `../../corpus`.
//!
//! One grammar, and nothing guessed: an argument that was repaired may be another than the one that was meant, so the model is
//! told what is wrong and writes it again.

use agentry_sdk::serde_json::{self, Map, Value};

/// One step as the model wrote it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Parsed {
    /// A tool is to be called.
    Act(Act),
    /// The question is answered.
    Answer { thought: Option<String>, text: String },
    /// Neither.
    Broken(Defect),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Act {
    pub(crate) thought: Option<String>,
    pub(crate) tool: String,
    pub(crate) arguments: Map<String, Value>,
    /// Further actions in the same reply: the first counts, since the others were written without its observation.
    pub(crate) ignored: usize,
    /// The model wrote an observation itself; it was cut off, with all that follows.
    pub(crate) invented: bool,
}

/// What is wrong with a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// There is nothing.
    Empty,
    /// Text without a label.
    NoLabel,
    /// A thought and nothing else.
    OnlyThought,
    /// It begins with an observation.
    Invented,
    /// Tags or JSON instead of lines.
    OtherForm,
    /// Arguments without an action.
    NoAction,
    /// What stands there is no name of a tool.
    BadName(String),
    /// An action without arguments.
    NoInput,
    /// The arguments do not parse.
    BadJson(String),
    /// The arguments are JSON, but no object.
    NotAnObject,
    /// An action and an answer.
    Both,
    /// `Final Answer:` with nothing behind it.
    EmptyAnswer,
}

impl Defect {
    /// For the model.
    pub(crate) fn complaint(&self) -> String {
        match self {
            Defect::Empty => "your reply was empty".into(),
            Defect::NoLabel => "your reply had neither an `Action:` line nor a `Final Answer:` line".into(),
            Defect::OnlyThought => "your reply had a thought, but neither an action nor a final answer".into(),
            Defect::Invented => "you wrote an observation yourself; observations come from tools only".into(),
            Defect::OtherForm => "tools are not called with tags or with JSON alone, but with the lines `Action:` and \
                                  `Action Input:`"
                .into(),
            Defect::NoAction => "there is an `Action Input:` line without an `Action:` line before it".into(),
            Defect::BadName(name) => format!("{name:?} is no name of a tool; `Action:` takes the name alone"),
            Defect::NoInput => {
                "the `Action:` line is not followed by an `Action Input:` line with a JSON object; write {} \
                                if the tool takes no arguments"
                    .into()
            }
            Defect::BadJson(why) => format!("the `Action Input:` is not valid JSON: {why}"),
            Defect::NotAnObject => "the `Action Input:` must be a JSON object, such as {\"name\": \"value\"}".into(),
            Defect::Both => "your reply had both an action and a final answer; write one of them".into(),
            Defect::EmptyAnswer => "the `Final Answer:` was empty".into(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Thought,
    Action,
    Input,
    Observation,
    Answer,
}

/// The longer name first where one begins with the other.
const LABELS: [(&str, Label); 5] = [
    ("action input", Label::Input),
    ("action", Label::Action),
    ("thought", Label::Thought),
    ("observation", Label::Observation),
    ("final answer", Label::Answer),
];

/// From a label to the next one.
struct Section<'a> {
    label: Label,
    /// Where its content begins.
    from: usize,
    content: &'a str,
}

/// Reads one reply.
pub(crate) fn parse(reply: &str) -> Parsed {
    let reply = reply.replace("\r\n", "\n");
    let text = unfenced(without_reasoning(reply.trim_start_matches('\u{feff}').trim()));
    if text.is_empty() {
        return Parsed::Broken(Defect::Empty);
    }
    let (text, invented) = before_observation(text);
    let (preamble, sections) = split(text);
    let answer = sections.iter().position(|section| section.label == Label::Answer);
    let action = sections.iter().position(|section| section.label == Label::Action);
    match (action, answer) {
        (Some(action), None) => act(preamble, &sections, action, invented),
        (Some(action), Some(answer)) if action < answer || called(&sections[answer..]) => Parsed::Broken(Defect::Both),
        (_, Some(answer)) => {
            // All that follows belongs to it, whatever its lines begin with.
            let answered = unfenced(text[sections[answer].from..].trim());
            let broken = answered.is_empty().then_some(Parsed::Broken(Defect::EmptyAnswer));
            let thought = thought(preamble, &sections[..answer]);
            broken.unwrap_or_else(|| Parsed::Answer { thought, text: answered.to_owned() })
        }
        (None, None) => Parsed::Broken(without_either(text, &sections, invented)),
    }
}

fn without_either(text: &str, sections: &[Section<'_>], invented: bool) -> Defect {
    let has = |label| sections.iter().any(|section| section.label == label);
    match () {
        () if has(Label::Input) => Defect::NoAction,
        () if looks_like_another_form(text) => Defect::OtherForm,
        () if text.trim().is_empty() || (invented && !has(Label::Thought)) => Defect::Invented,
        () if has(Label::Thought) => Defect::OnlyThought,
        () => Defect::NoLabel,
    }
}

fn act(preamble: &str, sections: &[Section<'_>], action: usize, invented: bool) -> Parsed {
    let written = sections[action].content.trim();
    let tool = written.trim_matches(['`', '"', '\'', '*', '[', ']', ' ']);
    let named = !tool.is_empty()
        && tool.len() <= 64
        && tool.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if !named {
        return Parsed::Broken(Defect::BadName(written.chars().take(100).collect()));
    }
    let Some(input) = sections.get(action + 1).filter(|section| section.label == Label::Input) else {
        return Parsed::Broken(Defect::NoInput);
    };
    match arguments(input.content) {
        Err(defect) => Parsed::Broken(defect),
        Ok(arguments) => Parsed::Act(Act {
            thought: thought(preamble, &sections[..action]),
            tool: tool.to_owned(),
            arguments,
            ignored: sections[action + 1..].iter().filter(|section| section.label == Label::Action).count(),
            invented,
        }),
    }
}

/// The first JSON value; what a model adds behind it is no part of it.
fn arguments(content: &str) -> Result<Map<String, Value>, Defect> {
    let content = content.trim().trim_start_matches('`');
    let content = content.strip_prefix("json").unwrap_or(content).trim_start();
    let mut values = serde_json::Deserializer::from_str(content).into_iter::<Value>();
    match values.next() {
        None => Err(Defect::NoInput),
        Some(Ok(Value::Object(arguments))) => Ok(arguments),
        Some(Ok(_)) => Err(Defect::NotAnObject),
        Some(Err(error)) => Err(Defect::BadJson(error.to_string())),
    }
}

fn thought(preamble: &str, sections: &[Section<'_>]) -> Option<String> {
    let thoughts =
        sections.iter().filter(|section| section.label == Label::Thought).map(|section| section.content.trim());
    let all: Vec<_> =
        [preamble.trim().trim_matches('`').trim()].into_iter().chain(thoughts).filter(|t| !t.is_empty()).collect();
    (!all.is_empty()).then(|| all.join("\n"))
}

/// Whether these call a tool: an action alone may be a word of the answer.
fn called(sections: &[Section<'_>]) -> bool {
    sections.windows(2).any(|pair| (pair[0].label, pair[1].label) == (Label::Action, Label::Input))
}

/// Everything before the first observation, and whether the model wrote one: the label alone is only where it should have stopped.
fn before_observation(text: &str) -> (&str, bool) {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if let Some((Label::Observation, rest)) = label(line) {
            let written = !rest.trim().is_empty() || !text[at + line.len()..].trim().is_empty();
            return (&text[..at], written);
        }
        at += line.len();
    }
    (text, false)
}

fn split(text: &str) -> (&str, Vec<Section<'_>>) {
    let mut starts = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if let Some((label, rest)) = label(line) {
            starts.push((label, at, at + line.len() - rest.len()));
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).map(|(_, at, _)| *at).chain([text.len()]);
    let sections =
        starts.iter().zip(ends).map(|(&(label, _, from), to)| Section { label, from, content: &text[from..to] });
    (starts.first().map_or(text, |(_, at, _)| &text[..*at]), sections.collect())
}

/// `Thought: …`, `**Action:** …`, `### Final Answer: …`, `action input 2: …`: the label and what follows it.
fn label(line: &str) -> Option<(Label, &str)> {
    let trimmed = line.trim_start();
    let bare = trimmed.trim_start_matches(['#', '>', ' ', '*', '_']);
    let emphasis: &[char] = if trimmed.len() == bare.len() { &[] } else { &['*', '_'] };
    let (label, rest) = LABELS.iter().find_map(|(name, label)| {
        let head = bare.get(..name.len())?;
        head.eq_ignore_ascii_case(name).then(|| (*label, &bare[name.len()..]))
    })?;
    let rest = rest.trim_start_matches([' ', '\t']).trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.trim_start_matches([' ', '\t']).trim_start_matches(emphasis);
    // The colon of Chinese and Japanese keyboards too.
    let rest = rest.strip_prefix(':').or_else(|| rest.strip_prefix('\u{ff1a}'))?;
    Some((label, rest.trim_start_matches(emphasis)))
}

/// Without the private reasoning that some models put before their reply.
fn without_reasoning(text: &str) -> &str {
    match text.strip_prefix("<think>").and_then(|inner| inner.split_once("</think>")) {
        Some((_, after)) => after.trim(),
        None => text,
    }
}

/// Without a code fence around the whole.
fn unfenced(text: &str) -> &str {
    let inner = text.strip_prefix("```").and_then(|inner| inner.strip_suffix("```"));
    match inner.and_then(|inner| inner.split_once('\n')) {
        Some((language, inner)) if !language.contains(' ') && !inner.contains("```") => inner.trim(),
        _ => text,
    }
}

/// The forms in which other prompts have tools called.
fn looks_like_another_form(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let tags = ["<tool", "<function", "<invoke", "<action", "[tool_calls]", "<|python_tag|>"];
    let keys = ["\"action\"", "\"tool\"", "\"arguments\"", "\"action_input\"", "\"function\""];
    tags.iter().any(|tag| lower.contains(tag)) || (lower.contains('{') && keys.iter().any(|key| lower.contains(key)))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
