//! Tasks on their way to their queue: into the embedded queue if it is in this file, otherwise into the outbox.

use super::super::cells::{Cells, need, stamp};
use super::super::fault::Fault;
use super::super::queue_table::{Appended, Arrivals, Content};
use super::super::{NewTask, plan::Birth};
use super::many::json_ids;
use super::queue;
use super::transition::QUEUE;
use super::writer::After;
use crate::task::TaskId;
use chrono::{DateTime, Utc};
use sqlx::{SqliteConnection, query};
use std::sync::Arc;

statements! {
    QUEUES = "SELECT t.id, t.queue FROM json_each(?1) v CROSS JOIN tasks t ON t.id = v.value";
}

/// What an operation sends to queues.
pub(super) struct Outgoing {
    queues: Option<Arc<dyn Arrivals>>,
    appended: Vec<Appended>,
}

impl Outgoing {
    /// Nothing yet. `queues`: those in this file.
    pub fn new(queues: Option<Arc<dyn Arrivals>>) -> Outgoing {
        Outgoing { queues, appended: Vec::new() }
    }

    /// For a part of the operation, which may be undone.
    pub fn begin(&self) -> Outgoing {
        Outgoing::new(self.queues.clone())
    }

    /// The part is done.
    pub fn end(&mut self, part: Outgoing) {
        self.appended.extend(part.appended);
    }

    /// What is to follow the commit.
    pub fn after(self) -> Option<After> {
        let queues = self.queues.filter(|_| !self.appended.is_empty())?;
        Some(Box::new(move || queues.appended(self.appended)))
    }

    /// Send tasks that have rows.
    pub async fn enqueue(
        &mut self,
        connection: &mut SqliteConnection,
        ids: &[TaskId],
        now: DateTime<Utc>,
    ) -> Result<(), Fault> {
        if ids.is_empty() {
            return Ok(());
        }
        let Some(queues) = &self.queues else { return into_outbox(connection, ids.iter().copied(), now).await };
        let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
        for row in query(QUEUES).bind(json_ids(ids.iter().copied())).fetch_all(&mut *connection).await? {
            let id = need(row.id("id")?, "id")?;
            match queues.key(&need(row.text("queue")?, "queue")?) {
                Some(key) => here.push((key, id, Content::Stored)),
                None => elsewhere.push(id),
            }
        }
        self.append(connection, here).await?;
        into_outbox(connection, elsewhere, now).await
    }

    /// Send tasks that were inserted just now; those whose time is ahead stay where they are.
    pub async fn enqueue_new(
        &mut self,
        connection: &mut SqliteConnection,
        births: &[(&NewTask, Birth<'_>)],
        now: DateTime<Utc>,
    ) -> Result<(), Fault> {
        let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
        for (task, birth) in births.iter().filter(|(_, birth)| birth.outbox) {
            match self.queues.as_ref().and_then(|queues| queues.key(&task.queue)) {
                Some(key) => here.push((key, birth.id, Content::Task(Arc::new(task.message.clone())))),
                None => elsewhere.push(birth.id),
            }
        }
        self.append(connection, here).await?;
        into_outbox(connection, elsewhere, now).await
    }

    async fn append(
        &mut self,
        connection: &mut SqliteConnection,
        messages: Vec<(i64, TaskId, Content)>,
    ) -> Result<(), Fault> {
        if messages.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = messages.iter().map(|(key, id, _)| (key, id)).collect();
        let first = queue::append_tasks(connection, &rows).await?;
        let messages = messages.into_iter().zip(first..);
        self.appended.extend(messages.map(|((queue, _, content), id)| Appended { queue, id, content }));
        Ok(())
    }
}

async fn into_outbox(
    connection: &mut SqliteConnection,
    ids: impl IntoIterator<Item = TaskId>,
    now: DateTime<Utc>,
) -> Result<(), Fault> {
    let ids = json_ids(ids);
    if ids != "[]" {
        query(QUEUE).bind(ids).bind(stamp(now)).execute(connection).await?;
    }
    Ok(())
}
