//! An agent that thinks, acts and observes until it can answer a question (ReAct: Yao et al., 2022).

mod agent;
mod calculator;
mod mcp;
mod native;
mod text;
mod toolbox;
mod trajectory;

use agent::{Answered, Clock, Job, Mode, Model};
use agentry_sdk::llm::{self, Reply, Request};
use agentry_sdk::{Failure, Task, context, log, plugin};
use std::time::{Duration, Instant};
use toolbox::Granted;

/// Steps where the input does not say.
const STEPS: u32 = 8;
/// The most steps.
const MAX_STEPS: u32 = 32;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    /// What is to be answered.
    question: String,
    /// The operator's name for the model; `default` where nothing is said.
    model: Option<String>,
    /// Calls of tools at most, 1 to 32.
    max_steps: Option<u32>,
    /// How the model asks for tools.
    #[serde(default)]
    mode: Mode,
}

impl Input {
    fn job(self) -> Result<Job, Failure> {
        let Input { question, model, max_steps, mode } = self;
        if question.trim().is_empty() {
            return Err(Failure::invalid_input("the question is empty").with_pointer("/question"));
        }
        let max_steps = max_steps.unwrap_or(STEPS);
        if !(1..=MAX_STEPS).contains(&max_steps) {
            let message = format!("max_steps is {max_steps}; it must be 1 to {MAX_STEPS}");
            return Err(Failure::invalid_input(message).with_pointer("/max_steps"));
        }
        Ok(Job { question, model: model.unwrap_or_else(|| "default".into()), max_steps: max_steps as usize, mode })
    }
}

struct Host;

impl Model for Host {
    fn chat(&self, request: &Request) -> Result<Reply, llm::Error> {
        llm::chat(request)
    }
}

struct Attempt {
    began: Instant,
}

impl Clock for Attempt {
    fn remaining(&self) -> Duration {
        context::remaining()
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

fn handle(task: &Task, input: Input) -> Result<Answered, Failure> {
    let job = input.job()?;
    let toolbox = Granted::open()?;
    log::info(format_args!("task {}, attempt {}: at most {} steps", task.id, task.attempt, job.max_steps));
    agent::run(&job, &Host, &toolbox, &Attempt { began: Instant::now() })
}

plugin!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use agentry_sdk::json;

    fn refused(input: &str) -> (String, Option<String>) {
        match json::read::<Input>(input).and_then(|input| handle(&Task::default(), input)) {
            Err(Failure::InvalidInput { message, pointer }) => (message, pointer),
            other => panic!("{input}: {other:?}"),
        }
    }

    #[test]
    fn an_input_is_a_question_and_little_else() {
        let job = json::read::<Input>(r#"{"question": "Why?"}"#).and_then(Input::job).unwrap();
        assert_eq!(
            (job.question.as_str(), job.model.as_str(), job.max_steps, job.mode),
            ("Why?", "default", 8, Mode::Native)
        );
        let all = r#"{"question": "Why?", "model": "big", "max_steps": 32, "mode": "text"}"#;
        let job = json::read::<Input>(all).and_then(Input::job).unwrap();
        assert_eq!((job.model.as_str(), job.max_steps, job.mode), ("big", 32, Mode::Text));
    }

    #[test]
    fn an_input_out_of_range_is_refused_with_the_place() {
        for (input, why, place) in [
            (r#"{"question": " "}"#, "empty", "/question"),
            (r#"{"question": "a", "max_steps": 0}"#, "1 to 32", "/max_steps"),
            (r#"{"question": "a", "max_steps": 33}"#, "1 to 32", "/max_steps"),
            (r#"{"question": "a", "max_steps": -1}"#, "-1", "/max_steps"),
            (r#"{"question": "a", "mode": "magic"}"#, "magic", "/mode"),
            (r#"{"question": "a", "steps": 3}"#, "steps", "/steps"),
        ] {
            let (message, pointer) = refused(input);
            assert!(message.contains(why), "{input}: {message}");
            assert_eq!(pointer.as_deref(), Some(place), "{input}");
        }
    }

    #[test]
    fn outside_a_component_there_is_nothing_to_work_with_and_the_failure_says_so() {
        let input = json::read::<Input>(r#"{"question": "Why?"}"#).unwrap();
        let failure = handle(&Task::default(), input).unwrap_err();
        assert!(matches!(failure, Failure::Permanent { message, .. } if message.contains("inside a component")));
    }
}
