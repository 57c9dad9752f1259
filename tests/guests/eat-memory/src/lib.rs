//! Allocates, and touches what it got, until the host refuses. The host must say `memory_limit`.

use agentry_sdk::{Failure, Task, log, plugin, serde_json::Value};

fn handle(task: &Task, _: Value) -> Result<usize, Failure> {
    log::info(format_args!("eating for task {}, attempt {}", task.id, task.attempt));
    let mut eaten = Vec::new();
    loop {
        eaten.push(std::hint::black_box(vec![0xAA_u8; 1 << 20]));
    }
}

plugin!(handle);
