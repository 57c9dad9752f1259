//! Panics. The host must say `trap`, with the message.

use agentry_sdk::{Failure, Task, log, plugin, serde_json::Value};

fn handle(task: &Task, _: Value) -> Result<(), Failure> {
    log::info(format_args!("panicking for task {}, attempt {}", task.id, task.attempt));
    panic!("nobody expects task {}", task.id);
}

plugin!(handle);
