//! Attacks through what is granted: HTTP, language models, tools, buckets, memories, settings and folders. To add one: a line in
//! the file of its theme.
//!
//! ```text
//! World ─▶ Attack (steps of the guest `reach`) ─▶ Told ─▶ Judged ─▶ violations
//!   names · tools.py      a name server and a tool server that lie
//! ```

mod amounts;
mod grants;
mod models;
pub mod names;
mod stores;
mod tools;
mod web;
pub mod world;

use e2e::outside::Server;
use serde_json::Value;

pub use amounts::{ByHand, by_hand};
pub use world::World;

/// One task, and what must become of it.
#[derive(Clone)]
pub struct Attack {
    /// Its name.
    pub id: &'static str,
    /// Which of [`world::PLUGINS`] attacks.
    pub plugin: &'static str,
    /// What it does.
    pub steps: fn(&World) -> Vec<Value>,
    /// Attempts that its task may have.
    pub attempts: u32,
    /// How often it is handed over, all at once. The first is looked at.
    pub tasks: usize,
    /// The task is another's from the moment that `web` hears `/public/began`.
    pub taken_over: bool,
    /// What must hold.
    pub check: fn(Judged<'_>) -> Judged<'_>,
    /// Names of `agentry_defence::Defence` without which it must turn red.
    pub shows: &'static [&'static str],
}

impl Attack {
    fn new(
        id: &'static str,
        plugin: &'static str,
        shows: &'static [&'static str],
        steps: fn(&World) -> Vec<Value>,
        check: fn(Judged<'_>) -> Judged<'_>,
    ) -> Attack {
        Attack { id, plugin, steps, attempts: 1, tasks: 1, taken_over: false, check, shows }
    }
}

/// All of them.
pub fn all() -> Vec<Attack> {
    [grants::all(), amounts::all(), web::all(), models::all(), tools::all(), stores::all()]
        .into_iter()
        .flatten()
        .collect()
}

/// What became of one.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The task, once it had ended; `null`: it never did.
    pub task: Value,
    /// What was recorded of its calls.
    pub calls: Vec<Value>,
    /// How many calls were recorded, on whatever page.
    pub recorded: i64,
}

/// What is found wrong with it.
pub struct Judged<'a> {
    /// Where it was.
    pub world: &'a World,
    /// What became of it.
    pub told: &'a Told,
    wrong: Vec<String>,
}

impl<'a> Judged<'a> {
    /// Nothing yet.
    pub fn new(world: &'a World, told: &'a Told) -> Self {
        Self { world, told, wrong: Vec::new() }
    }

    /// All of it.
    pub fn wrong(self) -> Vec<String> {
        self.wrong
    }

    fn must(mut self, holds: bool, otherwise: impl FnOnce() -> String) -> Self {
        if !holds {
            self.wrong.push(otherwise());
        }
        self
    }

    /// The guest went on after what was refused, to its end.
    fn completed(self) -> Self {
        let told = self.told;
        self.must(told.task["state"] == "completed", || format!("{} {}", told.task["state"], told.task["failure"]))
    }

    /// What step `n` came to.
    fn result(&self, n: usize) -> &'a Value {
        &self.told.task["output"][n]
    }

    /// Step `n` gave this.
    fn gave(self, n: usize, value: &Value) -> Self {
        let result = self.result(n);
        self.must(result["ok"] == *value, || format!("step {n} gave {result} instead of {value}"))
    }

    /// Step `n` failed, and its error is of this kind.
    fn failed(self, n: usize, kind: &str) -> Self {
        let result = self.result(n);
        self.must(result["error"]["kind"] == kind, || format!("step {n} gave {result} instead of {kind}"))
    }

    /// Step `n` failed, however.
    fn refused(self, n: usize) -> Self {
        let result = self.result(n);
        self.must(result["error"].is_object(), || format!("step {n} gave {result}"))
    }

    /// The error of step `n` has these words.
    fn saying(self, n: usize, words: &str) -> Self {
        let result = self.result(n);
        let said = result["error"]["message"].as_str().is_some_and(|message| message.contains(words));
        self.must(said, || format!("step {n} gave {result}, and {words:?} is not said"))
    }

    /// Call `n` is recorded with this word, and these for a reason.
    fn recorded(self, n: usize, word: &str, reason: &str) -> Self {
        let call = self.told.calls.get(n).unwrap_or(&Value::Null);
        let fits = call["result"] == word && call["detail"].to_string().contains(reason);
        self.must(fits, || {
            format!("call {n} is recorded as {} {} instead of {word} {reason}", call["result"], call["detail"])
        })
    }

    /// A server was asked for what begins so, so many times at most.
    fn heard(self, server: fn(&World) -> &Server, path: &str, most: usize) -> Self {
        let heard = server(self.world).requests();
        let heard = heard.iter().filter(|request| request.target.starts_with(path)).count();
        self.must(heard <= most, || format!("a server was asked {heard} times for {path}"))
    }

    /// A model was asked this, so many times at most.
    fn asked(self, prompt: &str, most: usize) -> Self {
        let quoted = format!("\"{prompt}\"");
        let asked = self.world.models.requests();
        let asked = asked.iter().filter(|request| request.body.contains(&quoted)).count();
        self.must(asked <= most, || format!("a model was asked {asked} times for {prompt:?}"))
    }

    /// Nothing that the guest had holds this.
    fn unseen(self, secret: &str) -> Self {
        let task = self.told.task.to_string();
        self.must(!task.contains(secret), || format!("it had {secret}"))
    }
}
