//! Unusable messages of tasks that have a row.

use super::*;
use crate::broker::{FENCE, Message, Receipt, Source};
use crate::db::memory::MemoryDb;
use crate::db::{Db, DeadFilter, Fields, NewTask, OutboxTake, ParkedLook};
use crate::task::{Options, State, TaskMessage, WaitCode};
use crate::worker::Parts;
use crate::worker::execute::tests::shared;
use crate::worker::lease::Lease;
use tokio::time::Instant;

struct World {
    db: MemoryDb,
    shared: Arc<Shared>,
}

impl World {
    fn new() -> World {
        let (db, some) = (MemoryDb::new(Arc::new(chrono::Utc::now)), shared());
        let parts = Parts { db: Arc::new(db.clone()), ..some.parts.clone() };
        let lease = Lease::new(Instant::now(), || Duration::ZERO);
        World { db, shared: Shared::new(parts, some.config.clone(), lease, Arc::default()) }
    }

    /// A task whose message was published.
    async fn published(&self) -> TaskMessage {
        let id = Some(uuid::Uuid::now_v7());
        let message = TaskMessage::assemble(id, "prompt", "1", Options::default(), &Default::default()).unwrap();
        let task = NewTask { message: message.clone(), queue: "default".into(), retry_of: None, max_attempts: 3 };
        self.db.submit(&[task]).await.unwrap();
        let batch = self.db.take_outbox(&OutboxTake::new(10, Duration::from_secs(10))).await.unwrap();
        self.db.drop_outbox(batch.token, &[message.id]).await.unwrap();
        message
    }

    /// Bury messages, and count those that are acknowledged.
    async fn bury(&self, burials: Vec<Burial>) -> usize {
        let ((send, burying), (acks, mut done)) = (mpsc::channel(burials.len()), mpsc::channel(burials.len()));
        for burial in burials {
            assert!(send.try_send(burial).is_ok());
        }
        drop(send);
        run(self.shared.clone(), burying, acks).await;
        let mut acknowledged = 0;
        while let Some(done) = done.recv().await {
            acknowledged += done.receipts.len();
        }
        acknowledged
    }

    async fn letters(&self) -> Vec<String> {
        let page = self.db.dead_letters(&DeadFilter { limit: 10, ..DeadFilter::default() }).await.unwrap();
        page.rows.into_iter().map(|row| row.reason).collect()
    }
}

fn delivery(message: Message) -> Delivery {
    Delivery {
        source: Source::Tasks("default".into()),
        message,
        redelivered: false,
        receipt: Receipt::new(1, 1),
        arrived: Instant::now(),
    }
}

fn unknown_option(id: TaskId) -> Rejection {
    let detail = "the body: options: unknown field `of_a_newer_build`".into();
    Rejection { code: "bad_message", detail, id: Some(id), plugin: Some("prompt".into()) }
}

#[tokio::test(start_paused = true)]
async fn relayed_message_that_is_unusable_here_leaves_its_task_to_hosts_that_can_use_it() {
    let w = World::new();
    let (rejected, conflict, refused) = (w.published().await, w.published().await, w.published().await);
    let relayed = |message: &TaskMessage| delivery(Message::from(message).relayed(0));
    let burials = vec![
        Burial::rejected(relayed(&rejected), unknown_option(rejected.id)),
        Burial::conflict(relayed(&conflict), conflict.id),
        Burial::refused(relayed(&refused), refused.id, "the plugin's name is refused".into()),
    ];
    assert_eq!(w.bury(burials).await, 3);
    assert_eq!(w.letters().await, Vec::<String>::new(), "each task goes on");
    let look = ParkedLook { plugins: vec!["prompt".into()], limit: 10, ..ParkedLook::default() };
    let parked = w.db.parked(&look).await.unwrap().tasks;
    assert_eq!(parked.iter().map(|task| task.message.id).collect::<Vec<_>>(), [rejected.id, conflict.id, refused.id]);
    let waiting = w.db.task(rejected.id, Fields::ALL).await.unwrap().unwrap().waiting_for.unwrap();
    assert_eq!(waiting.code, WaitCode::Held);
    assert_eq!(waiting.detail["reason"], "bad_message");
    assert!(waiting.detail["detail"].as_str().unwrap().contains("of_a_newer_build"), "{}", waiting.detail);
    // Its message comes once more.
    assert_eq!(w.bury(vec![Burial::rejected(relayed(&rejected), unknown_option(rejected.id))]).await, 1);
    assert_eq!(w.db.events(rejected.id, 0, 10).await.unwrap().rows.len(), 2, "nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn unusable_message_of_no_row_or_of_a_producer_is_a_dead_letter() {
    let w = World::new();
    let task = w.published().await;
    let mut unknown = Message::from(&task).relayed(0);
    let id = uuid::Uuid::now_v7();
    unknown.message_id = Some(id.to_string());
    assert!(unknown.header(FENCE).is_some());
    let burials = vec![
        Burial::rejected(delivery(unknown), unknown_option(id)),
        Burial::rejected(delivery(Message::from(&task)), unknown_option(task.id)),
    ];
    assert_eq!(w.bury(burials).await, 2);
    assert_eq!(w.letters().await, ["bad_message"; 2]);
    let row = w.db.task(task.id, Fields::ALL).await.unwrap().unwrap();
    assert_eq!((row.state, row.waiting_for.unwrap().code), (State::Pending, WaitCode::Queued));
}
