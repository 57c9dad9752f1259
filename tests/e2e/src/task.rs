//! Tasks to submit.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::amqp::Outgoing;

/// A task, as a producer writes it.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its id.
    pub id: Uuid,
    /// Who shall run it.
    pub plugin: String,
    /// On what.
    pub input: Value,
    /// How; an empty object is left out.
    pub options: Value,
}

impl Task {
    /// A task with a new id.
    pub fn new(plugin: &str, input: Value) -> Self {
        Self { id: Uuid::now_v7(), plugin: plugin.to_owned(), input, options: json!({}) }
    }

    /// The same with an option.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.options[name] = value.into();
        self
    }

    /// Its wire form.
    pub fn body(&self) -> Value {
        let mut body = json!({"id": self.id, "plugin": self.plugin, "input": self.input});
        if self.options != json!({}) {
            body["options"] = self.options.clone();
        }
        body
    }

    /// Its message.
    pub fn message(&self) -> Outgoing {
        Outgoing::json(self.body().to_string())
    }
}

/// The ids of tasks.
pub fn ids(tasks: &[Task]) -> Vec<Uuid> {
    tasks.iter().map(|task| task.id).collect()
}
