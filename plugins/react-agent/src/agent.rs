//! The loop: think, act, observe, until there is an answer or a reason why there is none.

use crate::trajectory::{Action, Step, Trajectory, Usage, cut, millis};
use crate::{native, text};
use agentry_sdk::llm::{self, Message, Reply, Request, ToolChoice};
use agentry_sdk::serde_json::{Map, Value};
use agentry_sdk::{Failure, log};
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest observation that a model is given, in bytes.
pub(crate) const OBSERVATION_BYTES: usize = 8 << 10;
/// Replies in a row that can be neither acted on nor taken for an answer.
const BROKEN_IN_A_ROW: u32 = 3;
/// How often the same call may be asked for; the last time it is not made, and the model is told so.
const SAME_CALLS: u32 = 3;
/// What is kept back of the time, so that the trajectory is told before the host ends the attempt: a tenth, at most this.
const RESERVE: Duration = Duration::from_secs(10);

/// A language model, or a script that stands in for one.
pub(crate) trait Model {
    fn chat(&self, request: &Request) -> Result<Reply, llm::Error>;
}

/// The tools that there are.
pub(crate) trait Toolbox {
    fn tools(&self) -> &[llm::Tool];
    /// Calls one of them, for at most `time`. That it failed, or is denied, is an observation as well.
    fn call(&self, name: &str, arguments: &Map<String, Value>, time: Duration) -> Observation;
}

/// The attempt's time.
pub(crate) trait Clock {
    /// Until the host ends the attempt.
    fn remaining(&self) -> Duration;
    /// Since some moment that does not change.
    fn now(&self) -> Duration;
}

/// What a tool gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) text: String,
    pub(crate) failed: bool,
}

impl Observation {
    pub(crate) fn of(text: impl Into<String>) -> Observation {
        Observation { text: text.into(), failed: false }
    }

    pub(crate) fn failed(text: impl Into<String>) -> Observation {
        Observation { text: text.into(), failed: true }
    }
}

/// How the model asks for tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// With the tool calls of its interface.
    #[default]
    Native,
    /// With lines of text, for models without them.
    Text,
}

/// What is to be done.
pub(crate) struct Job {
    pub(crate) question: String,
    pub(crate) model: String,
    pub(crate) max_steps: usize,
    pub(crate) mode: Mode,
}

/// What came of it.
#[derive(Debug, PartialEq, serde::Serialize)]
pub(crate) struct Answered {
    pub(crate) answer: String,
    /// What the model thought last; only in text mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) thought: Option<String>,
    pub(crate) steps: Vec<Step>,
    pub(crate) usage: Usage,
    pub(crate) model: String,
}

/// One reply of the model, in either mode.
#[derive(Debug, PartialEq)]
pub(crate) enum Turn {
    /// The end: a reply that asks for nothing.
    Answer { thought: Option<String>, text: String },
    /// Calls of tools; in text mode one.
    Act { thought: Option<String>, said: Message, calls: Vec<Call> },
    /// Neither. `said` is what the model is reminded of; `None`: nothing of it can be kept.
    Broken { said: Option<Message>, complaint: String },
}

/// A call that the model asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) tool: String,
    pub(crate) arguments: Map<String, Value>,
    /// What its result belongs to, in native mode.
    pub(crate) native: Option<llm::ToolCall>,
    /// What the model has to be told besides.
    pub(crate) note: Option<String>,
}

/// Answers the question.
///
/// # Errors
/// Everything that ends without an answer, with a code and the trajectory.
pub(crate) fn run<M: Model, T: Toolbox, C: Clock>(
    job: &Job,
    model: &M,
    toolbox: &T,
    clock: &C,
) -> Result<Answered, Failure> {
    let request = match job.mode {
        Mode::Native => native::request(job, toolbox.tools()),
        Mode::Text => text::request(job, toolbox.tools()),
    };
    let reserve = RESERVE.min(clock.remaining() / 10);
    let (trajectory, calls) = (Trajectory::default(), BTreeMap::new());
    let mut agent = Agent { job, model, toolbox, clock, request, trajectory, reserve, calls, broken: 0 };
    agent.work().map_err(|failure| failure.with_details(&agent.trajectory.details()))
}

struct Agent<'a, M, T, C> {
    job: &'a Job,
    model: &'a M,
    toolbox: &'a T,
    clock: &'a C,
    /// The conversation so far.
    request: Request,
    trajectory: Trajectory,
    reserve: Duration,
    /// How often each call was asked for.
    calls: BTreeMap<String, u32>,
    /// Replies in a row that could not be used.
    broken: u32,
}

impl<M: Model, T: Toolbox, C: Clock> Agent<'_, M, T, C> {
    fn work(&mut self) -> Result<Answered, Failure> {
        let mut told = false;
        loop {
            let out_of_steps = self.steps_left() == 0;
            if out_of_steps && !told {
                told = true;
                self.ask_for_the_answer();
            }
            match self.turn()? {
                Turn::Answer { thought, text } => return Ok(self.answered(thought, text)),
                Turn::Act { .. } if out_of_steps => return Err(self.step_limit()),
                Turn::Act { thought, said, calls } => self.act(thought, said, calls)?,
                Turn::Broken { said, complaint } => self.complain(said, &complaint)?,
            }
        }
    }

    fn steps_left(&self) -> usize {
        self.job.max_steps.saturating_sub(self.trajectory.steps.len())
    }

    /// Asks the model.
    fn turn(&mut self) -> Result<Turn, Failure> {
        self.check_time()?;
        let exchange = self.model.chat(&self.request);
        self.trajectory.count(&exchange);
        match exchange {
            Ok(reply) => Ok(match self.job.mode {
                Mode::Native => native::turn(reply),
                Mode::Text => text::turn(reply.text()),
            }),
            // The model's doing, not the provider's: it is told, like after any other reply that cannot be used.
            Err(llm::Error::Unparsable(why)) => {
                Ok(Turn::Broken { said: None, complaint: format!("your reply could not be read: {why}") })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn check_time(&self) -> Result<(), Failure> {
        if self.clock.remaining() > self.reserve {
            return Ok(());
        }
        Err(Failure::permanent("the time is nearly over and there is no answer yet").with_code("out_of_time"))
    }

    fn step_limit(&self) -> Failure {
        Failure::permanent(format!("there is no answer after {} steps", self.job.max_steps)).with_code("step_limit")
    }

    /// Makes the calls of one reply, as far as there are steps for them. Every call gets a result: providers want one for each.
    fn act(&mut self, thought: Option<String>, said: Message, calls: Vec<Call>) -> Result<(), Failure> {
        self.broken = 0;
        self.request.messages.push(said);
        let mut thought = thought;
        for call in calls {
            if self.steps_left() == 0 {
                self.tell(&call, "not called: there are no steps left", true);
                continue;
            }
            self.check_time()?;
            let key = format!("{} {}", call.tool, Value::Object(call.arguments.clone()));
            let times = self.calls.entry(key).or_default();
            *times += 1;
            let times = *times;
            if times > SAME_CALLS {
                let message = format!("the model asks for the same call of {} again and again", call.tool);
                return Err(Failure::permanent(message).with_code("no_progress"));
            }
            let began = self.clock.now();
            let observation = if times == SAME_CALLS { not_again(times) } else { self.call(&call) };
            let ms = millis(self.clock.now().saturating_sub(began));
            let mut text = cut(&observation.text, OBSERVATION_BYTES);
            if let Some(note) = &call.note {
                text = format!("{text}\n[{note}]");
            }
            self.tell(&call, &text, observation.failed);
            let action = Some(Action { tool: call.tool, arguments: Value::Object(call.arguments) });
            self.trajectory.steps.push(Step {
                // What was thought once is written down once.
                thought: thought.take(),
                action,
                observation: text,
                failed: observation.failed,
                ms,
            });
        }
        Ok(())
    }

    fn call(&mut self, call: &Call) -> Observation {
        let tools = self.toolbox.tools();
        if tools.iter().all(|tool| tool.name != call.tool) {
            let names: Vec<_> = tools.iter().map(|tool| tool.name.as_str()).collect();
            return Observation::failed(format!("there is no tool {:?}; there are {}", call.tool, names.join(", ")));
        }
        self.trajectory.usage.tool_calls += 1;
        log::info(format_args!("calling {}", call.tool));
        self.toolbox.call(&call.tool, &call.arguments, self.clock.remaining().saturating_sub(self.reserve))
    }

    /// Gives the model an observation.
    fn tell(&mut self, call: &Call, observation: &str, failed: bool) {
        self.request.messages.push(match &call.native {
            Some(native) => native.result(observation, failed),
            None => text::observation(observation, failed),
        });
    }

    /// Tells the model what is wrong with its reply. That is a step too: a model that never gets it right has an end.
    fn complain(&mut self, said: Option<Message>, complaint: &str) -> Result<(), Failure> {
        self.broken += 1;
        let thought = match &said {
            Some(Message::Assistant(llm::Assistant { text: Some(text), .. })) => Some(cut(text, OBSERVATION_BYTES)),
            _ => None,
        };
        let observation = complaint.to_owned();
        self.trajectory.steps.push(Step { thought, action: None, observation, failed: true, ms: 0 });
        if self.broken >= BROKEN_IN_A_ROW {
            let message = format!("{} replies in a row cannot be used; the last one: {complaint}", self.broken);
            return Err(Failure::permanent(message).with_code("unparsable"));
        }
        log::warn(format_args!("a reply that cannot be used: {complaint}"));
        self.request.messages.extend(said);
        let form = match self.job.mode {
            Mode::Native => native::FORM,
            Mode::Text => text::FORM,
        };
        self.request.messages.push(Message::User(format!("That cannot be used: {complaint}.\n\n{form}")));
        Ok(())
    }

    /// The last turn is for the answer.
    fn ask_for_the_answer(&mut self) {
        if !self.request.tools.is_empty() {
            self.request.tool_choice = Some(ToolChoice::None);
        }
        let text = match self.job.mode {
            Mode::Native => "There are no steps left. Answer the question now, with what you know.",
            Mode::Text => "There are no steps left. Write your `Final Answer:` now, with what you know.",
        };
        self.request.messages.push(Message::User(text.into()));
    }

    fn answered(&mut self, thought: Option<String>, answer: String) -> Answered {
        let Trajectory { steps, usage, model } = std::mem::take(&mut self.trajectory);
        Answered { answer, thought, steps, usage, model: model.unwrap_or_default() }
    }
}

fn not_again(times: u32) -> Observation {
    Observation::failed(format!(
        "not called: this is the same call with the same arguments for time {times}, and it would give the same; do something \
         else, or answer with what you know"
    ))
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
