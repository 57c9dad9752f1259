//! The embedded queue's operations, as the database runs all others.

use super::super::queue_table::{Appended, Arrivals, Changes, Content, NewMessage, StoredMessage, StoredQueue};
use super::{DbError, SqliteDb, queue};
use std::sync::Arc;

impl SqliteDb {
    /// From now on, tasks of queues that `arrivals` knows are appended to them in the transaction that sends them.
    pub(in crate::db) fn attach(&self, arrivals: Arc<dyn Arrivals>) {
        // A second queue over one database would be a defect of its owner; the first one stays.
        let _ = self.queues.set(arrivals);
    }

    pub(in crate::db) async fn create_queues(&self) -> Result<(), DbError> {
        self.write("make the queue's tables", |c| Box::pin(queue::create(c))).await
    }

    pub(in crate::db) async fn declare_queues(&self, queues: &[(String, i64)]) -> Result<(), DbError> {
        let queues: Arc<[(String, i64)]> = queues.into();
        self.write("declare queues", move |c| {
            let queues = queues.clone();
            Box::pin(async move { queue::declare(c, &queues).await })
        })
        .await
    }

    pub(in crate::db) async fn queues(&self) -> Result<Vec<StoredQueue>, DbError> {
        self.read("read the queues", |c| Box::pin(queue::queues(c))).await
    }

    pub(in crate::db) async fn change_queues(
        &self,
        changes: Changes,
        arrivals: Option<Arc<dyn Arrivals>>,
    ) -> Result<(), DbError> {
        let changes = Arc::new(changes);
        self.write_then("write to the queue", move |c| {
            let (changes, arrivals) = (changes.clone(), arrivals.clone());
            Box::pin(async move {
                let first = queue::change(c, &changes).await?;
                let after = arrivals.filter(|_| !changes.append.is_empty()).map(|arrivals| {
                    let appended = move || {
                        let messages = changes.append.iter().zip(first..);
                        let appended = messages.map(|(message, id)| Appended {
                            queue: message.queue,
                            id,
                            content: Content::Message {
                                properties: message.properties.clone(),
                                body: message.body.clone(),
                            },
                        });
                        arrivals.appended(appended.collect());
                    };
                    Box::new(appended) as super::writer::After
                });
                Ok(((), after))
            })
        })
        .await
    }

    pub(in crate::db) async fn read_queue(
        &self,
        queue: i64,
        after: i64,
        limit: u32,
    ) -> Result<Vec<StoredMessage>, DbError> {
        self.read("read the queue", move |c| Box::pin(queue::read_after(c, queue, after, limit))).await
    }

    pub(in crate::db) async fn read_messages(&self, ids: Vec<i64>) -> Result<Vec<StoredMessage>, DbError> {
        let ids: Arc<[i64]> = ids.into();
        self.read("read messages", move |c| {
            let ids = ids.clone();
            Box::pin(async move { queue::read(c, &ids).await })
        })
        .await
    }

    pub(in crate::db) async fn message_ids(&self, queue: i64, upto: i64) -> Result<Vec<i64>, DbError> {
        self.read("read messages", move |c| Box::pin(queue::ids_upto(c, queue, upto))).await
    }

    pub(in crate::db) async fn imported(&self, file: &str) -> Result<i64, DbError> {
        let file: Arc<str> = file.into();
        self.read("read what was taken over", move |c| {
            let file = file.clone();
            Box::pin(async move { queue::imported(c, &file).await })
        })
        .await
    }

    pub(in crate::db) async fn import(
        &self,
        file: String,
        upto: i64,
        messages: Vec<(NewMessage, bool)>,
    ) -> Result<(), DbError> {
        let part = Arc::new((file, messages));
        self.write("take over messages", move |c| {
            let part = part.clone();
            Box::pin(async move { queue::import(c, &part.0, upto, &part.1).await })
        })
        .await
    }
}
