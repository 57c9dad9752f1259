//! What was declared stays declared: after a reconnect, when a publication found no queue, and every now and then, since
//! nobody tells a client that a binding was removed, and a foreign producer does not notice.

use super::Shared;
use std::sync::Arc;
use std::time::Duration;

/// How long a binding can be missing without anybody publishing through this process.
const EVERY: Duration = Duration::from_secs(15);

pub(super) async fn run(shared: Arc<Shared>) {
    let mut live = shared.consuming.live.clone();
    let mut said = None;
    loop {
        tokio::select! {
            () = shared.nudge.notified() => {}
            changed = live.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(EVERY) => {}
            () = shared.closing.cancelled() => return,
        }
        let queues: Vec<String> = shared.wanted().iter().cloned().collect();
        let connection = live.borrow_and_update().clone();
        let (Some(connection), true, false) = (connection, shared.options.declare, queues.is_empty()) else { continue };
        let outcome = tokio::select! {
            outcome = shared.declare(&connection, &queues) => outcome.err().map(|e| e.to_string()),
            () = shared.closing.cancelled() => return,
        };
        if outcome != said {
            match &outcome {
                Some(reason) => tracing::error!(reason, "what belongs at RabbitMQ could not be declared"),
                None => tracing::info!("everything that belongs at RabbitMQ is declared again"),
            }
            said = outcome;
        }
    }
}
