//! The reply to a task's producer: the ended task, as the API shows it.

use super::{Message, Publication, Target};
use crate::db::{Fields, ShownTask, TaskRow};

/// The largest body of a reply, in bytes. RabbitMQ 4 accepts messages of 16 MiB.
const BYTES: usize = 8 << 20;
/// Header with the state, for producers that do not read the body.
const STATE: &str = "agentry-state";
/// Header that names what was left out of a reply that would be larger.
const CUT: &str = "agentry-cut";

/// The publication of a task that has ended, to the default exchange with the key `reply_to`.
pub fn reply(task: &TaskRow, reply_to: String, correlation_id: Option<String>) -> Publication {
    reply_within(BYTES, task, reply_to, correlation_id)
}

fn reply_within(most: usize, task: &TaskRow, reply_to: String, correlation_id: Option<String>) -> Publication {
    let size = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let (input, output) = (size(&task.input), size(&task.output));
    // The producer has the input.
    let fields = Fields { input: input + output <= most, output: output <= most };
    let mut message = Message {
        // Plain data serialises.
        body: serde_json::to_vec(&ShownTask::new(task, fields)).unwrap_or_default().into(),
        content_type: Some("application/json".into()),
        message_id: Some(task.id.to_string()),
        correlation_id,
        ..Message::default()
    };
    message.headers.insert(STATE.into(), task.state.as_str().into());
    let cut: Vec<&str> = [("input", fields.input), ("output", fields.output)]
        .iter()
        .filter(|(_, kept)| !kept)
        .map(|(name, _)| *name)
        .collect();
    if !cut.is_empty() {
        message.headers.insert(CUT.into(), cut.join(", ").into());
    }
    if let Some(traceparent) = &task.traceparent {
        message.headers.insert("traceparent".into(), traceparent.as_str().into());
    }
    Publication { target: Target::Queue(reply_to), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::State;
    use serde_json::Value;

    fn task(input: &str, output: &str) -> TaskRow {
        let at = chrono::DateTime::UNIX_EPOCH;
        TaskRow {
            id: uuid::Uuid::nil(),
            plugin: "a".into(),
            version: None,
            digest: None,
            queue: "default".into(),
            state: State::Completed,
            waiting_for: None,
            input: Some(input.into()),
            output: Some(output.into()),
            failure: None,
            attempt: 1,
            max_attempts: 3,
            host: None,
            labels: Default::default(),
            priority: 0,
            created_at: at,
            run_at: None,
            started_at: Some(at),
            finished_at: Some(at),
            deadline: None,
            retry_of: None,
            traceparent: None,
            erased_at: None,
        }
    }

    #[test]
    fn a_reply_is_the_task_with_its_correlation_and_is_bounded() {
        let of = |most| reply_within(most, &task("[1, 2]", "{\"b\": 1.0}"), "answers".into(), Some("c-1".into()));
        let Publication { target, message } = of(100);
        assert_eq!((target, message.correlation_id.as_deref()), (Target::Queue("answers".into()), Some("c-1")));
        assert!(std::str::from_utf8(&message.body).unwrap().contains(r#""output":{"b": 1.0}"#), "byte for byte");
        assert_eq!((message.header("agentry-state"), message.header("agentry-cut")), (Some("completed"), None));
        for (most, cut) in [(10, "input"), (5, "input, output")] {
            let message = of(most).message;
            let body: Value = serde_json::from_slice(&message.body).unwrap();
            assert_eq!(message.header("agentry-cut"), Some(cut));
            assert!(body.get("input").is_none() && body["id"].is_string(), "{body}");
        }
    }
}
