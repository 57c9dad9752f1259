//! The agents among the documents: questions to `react-agent`, what they may reach, and how they found their answers.

use std::fmt::Write;

use anyhow::ensure;
use serde_json::{Value, json};
use uuid::Uuid;

use super::documents::{Expected, Task};
use super::report::{Entry, cut};
use super::stand_in::{StandIn, question};
use super::{count, documents, talk};

/// The plugin.
pub const PLUGIN: &str = "react-agent";
/// One question about each.
const WORDS: [&str; 4] = ["sandbox", "lease", "broker", "grant"];

/// Another model than the one that plays its part.
#[derive(clap::Args)]
pub struct Model {
    /// A server whose model the agents think with, in place of the demo's own that plays its part: openai, anthropic or
    /// gemini, and its address, such as openai=http://127.0.0.1:11434/v1. Its key, if it wants one, is in the variable LLM_KEY.
    #[arg(long, value_name = "KIND=URL", requires = "model", value_parser = kind_and_url)]
    llm: Option<(String, String)>,
    /// What that server calls the model.
    #[arg(long, value_name = "MODEL", requires = "llm")]
    model: Option<String>,
}

/// Read before anything is built: a mistake is not to be told minutes later.
fn kind_and_url(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((kind @ ("openai" | "anthropic" | "gemini"), url)) if !url.is_empty() => Ok((kind.into(), url.into())),
        Some((kind, url)) if !url.is_empty() => Err(format!("the kind is openai, anthropic or gemini, not {kind:?}")),
        _ => Err("it takes KIND=URL, such as openai=http://127.0.0.1:11434/v1".into()),
    }
}

/// What the agents reach.
pub struct World {
    stand_in: StandIn,
    provider: Provider,
    /// It is nobody's that was written for this.
    real: bool,
}

/// Who thinks.
struct Provider {
    kind: String,
    url: String,
    model: String,
}

impl World {
    /// Serves the project's own documents to them.
    pub fn start(model: &Model) -> anyhow::Result<Self> {
        let stand_in = StandIn::start(documents::own())?;
        let provider = match (&model.llm, &model.model) {
            (Some((kind, url)), Some(model)) => Provider { kind: kind.clone(), url: url.clone(), model: model.clone() },
            _ => Provider { kind: "openai".into(), url: stand_in.url("/v1"), model: "stand-in".into() },
        };
        Ok(Self { stand_in, provider, real: model.llm.is_some() })
    }

    /// Who thinks.
    pub fn model(&self) -> String {
        match self.real {
            true => format!("{} of {}", self.provider.model, self.provider.url),
            false => "a stand-in that plays its part; --llm for a real one".into(),
        }
    }

    /// The daemon's settings: what there is, and what of it `react-agent` may use.
    pub fn settings(&self) -> Vec<(String, Value)> {
        let Provider { kind, url, model } = &self.provider;
        let mut settings = vec![
            ("llm.providers.demo.kind".to_owned(), json!(kind)),
            ("llm.providers.demo.url".to_owned(), json!(url)),
            ("llm.models.default.provider".to_owned(), json!("demo")),
            ("llm.models.default.model".to_owned(), json!(model)),
            ("tools.search.url".to_owned(), json!(self.stand_in.url("/mcp"))),
        ];
        if self.real && std::env::var_os("LLM_KEY").is_some() {
            settings.push(("llm.providers.demo.key".to_owned(), json!("${LLM_KEY}"))); // read by the daemon
        }
        let pages = format!("GET {}", self.stand_in.url(""));
        for (capability, granted) in [
            ("http", json!([pages])),
            ("llm", json!(["default"])),
            ("memory", json!(["notes"])),
            ("tools.search", json!(["find"])),
        ] {
            settings.push((format!("plugins.{PLUGIN}.capabilities.{capability}"), granted));
        }
        settings
    }

    /// Puts the questions among the first documents: they are being answered when half of all has ended.
    pub fn join(&self, tasks: &mut Vec<Task>) -> anyhow::Result<()> {
        let half = tasks.len() / 2;
        ensure!(half >= WORDS.len(), "there are too few documents to be among");
        // A real model may find nothing, and says so in its own way.
        let expected = if self.real { Expected::Ends } else { Expected::Completes };
        for (n, word) in WORDS.iter().enumerate() {
            let input = json!({"question": question(word)});
            let task = Task { id: Uuid::now_v7(), plugin: PLUGIN, name: (*word).to_owned(), input, expected };
            tasks.insert(half / WORDS.len() * n, task);
        }
        // Of what was submitted at once, the lowest id runs first.
        tasks.iter_mut().for_each(|task| task.id = Uuid::now_v7());
        Ok(())
    }
}

/// How one found its answer.
pub fn told(entry: &Entry<'_>) -> String {
    let output = &entry.row["output"];
    let mut text = match output["answer"].as_str() {
        Some(answer) => format!("  {}\n", cut(answer, 140)),
        None => format!("  {}: {}\n", entry.task.name, cut(&entry.row["failure"].to_string(), 140)),
    };
    let steps = output["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let acts = steps.iter().map(|step| {
        let (action, failed) = (&step["action"], step["failed"] == true);
        let arguments = cut(&action["arguments"].to_string(), 60);
        format!("{} {arguments}{}", action["tool"].as_str().unwrap_or("?"), if failed { " failed" } else { "" })
    });
    let (mut calls, mut time) = (std::collections::BTreeMap::<&str, usize>::new(), 0);
    for call in &entry.calls {
        *calls.entry(call["capability"].as_str().unwrap_or("?")).or_default() += 1;
        time += call["duration_us"].as_u64().unwrap_or_default();
    }
    let calls: Vec<_> = calls.iter().map(|(capability, number)| format!("{number} {capability}")).collect();
    let tokens = ["input_tokens", "output_tokens"].iter().filter_map(|key| output["usage"][key].as_u64()).sum::<u64>();
    let attempts = usize::try_from(entry.row["attempt"].as_u64().unwrap_or_default()).unwrap_or_default();
    let runs = attempts + entry.taken_over();
    // Writing to a text does not fail.
    let _ = writeln!(text, "    {}", acts.collect::<Vec<_>>().join(" → "));
    let _ = writeln!(
        text,
        "    {} recorded ({}, {tokens} tokens in its answer) in {}; {}",
        count(entry.calls.len(), "call"),
        calls.join(", "),
        talk::seconds(std::time::Duration::from_micros(time)),
        match entry.taken_over() {
            0 => "one run".to_owned(),
            _ => format!("{}, one of them ended by the kill", count(runs, "run")),
        },
    );
    text
}

#[cfg(test)]
mod tests {
    use super::kind_and_url;

    #[test]
    fn a_model_is_a_kind_and_an_address() {
        let read = kind_and_url("openai=http://127.0.0.1:1/v1?a=b").unwrap();
        assert_eq!(read, ("openai".to_owned(), "http://127.0.0.1:1/v1?a=b".to_owned()));
        assert!(kind_and_url("ollama=http://127.0.0.1").unwrap_err().contains("openai, anthropic or gemini"));
        for wrong in ["openai", "openai=", ""] {
            assert!(kind_and_url(wrong).unwrap_err().contains("KIND=URL"), "{wrong}");
        }
    }
}
