//! Never stops. The host must stop it, and say `cpu_limit`.

use agentry_sdk::{Failure, Task, log, plugin, serde_json::Value};

fn handle(task: &Task, _: Value) -> Result<u64, Failure> {
    log::info(format_args!("spinning for task {}, attempt {}", task.id, task.attempt));
    let mut turns = 0u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

plugin!(handle);
