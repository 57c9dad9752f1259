//! An honest plugin that runs all the time, and how long it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::{Http, Task};
use serde_json::json;
use tokio::task::JoinHandle;

/// Between two runs.
const EVERY: Duration = Duration::from_millis(100);

/// How long its runs took, and the tasks they were.
pub struct Neighbour {
    over: Arc<AtomicBool>,
    running: JoinHandle<(Vec<Duration>, Vec<uuid::Uuid>)>,
}

impl Neighbour {
    /// Moves in.
    pub fn of(http: &Http, plugin: &'static str) -> Self {
        let (http, over) = (http.clone(), Arc::new(AtomicBool::new(false)));
        let end = over.clone();
        let running = tokio::spawn(async move {
            let (mut took, mut ids) = (Vec::new(), Vec::new());
            while !end.load(Ordering::Relaxed) {
                let began = Instant::now();
                let task = Task::new(plugin, json!(1));
                ids.push(task.id);
                http.post("/v1/tasks", &task.body()).await.expect(201);
                let ended = http.get(&format!("/v1/tasks/{}/wait?timeout=30", task.id)).await.expect(200);
                assert_eq!(ended["state"], "completed", "{ended}");
                took.push(began.elapsed());
                tokio::time::sleep(EVERY.saturating_sub(began.elapsed())).await; // its own pace
            }
            (took, ids)
        });
        Self { over, running }
    }

    /// Moves out: how long it took at the 99th percentile, over how many runs, and which tasks they were.
    pub async fn leave(self) -> (Duration, usize, Vec<uuid::Uuid>) {
        self.over.store(true, Ordering::Relaxed);
        let (mut took, ids) = self.running.await.expect("the neighbour is well");
        took.sort();
        let at = (took.len() * 99).div_ceil(100).clamp(1, took.len().max(1)) - 1;
        (took.get(at).copied().unwrap_or_default(), took.len(), ids)
    }
}
