//! The order in which statements lock rows of the outbox. Two that lock several in different orders deadlock.

use super::*;
use crate::db::OutboxReason;
use crate::db::conformance::{LONG, arrival_of, here, id, new_task, record, retrying, steady};
use crate::task::settle::Ended;

const ROWS: usize = 300;

/// Submitted tasks in the order of their ids, whose outbox rows are stored in the opposite order.
struct Crowd {
    own: Own,
    db: Arc<PostgresDb>,
    tasks: Vec<NewTask>,
    token: uuid::Uuid,
}

async fn crowd(options: Options) -> Crowd {
    let own = Own::new().await;
    let db = own.with(Own::options());
    db.migrate().await.unwrap();
    let tasks: Vec<NewTask> = (0..ROWS).map(|_| new_task(id(), options.clone())).collect();
    db.submit(&tasks).await.unwrap();
    let token = uuid::Uuid::new_v4();
    let reversed = format!(
        "INSERT INTO outbox (task_id, created_at, due_at, token)
        SELECT id, now(), now(), '{token}' FROM tasks ORDER BY id DESC"
    );
    own.execute("TRUNCATE outbox").await.unwrap();
    own.execute(&reversed).await.unwrap();
    // Whatever the planner chooses. Connections that are made from now on read by bitmaps, in the order of the table.
    own.execute(&format!("ALTER DATABASE {} SET enable_indexscan = off", own.name)).await.unwrap();
    let db = Arc::new(own.with(Own::options()));
    Crowd { own, db, tasks, token }
}

impl Crowd {
    fn ids(&self) -> Vec<TaskId> {
        self.tasks.iter().map(|task| task.message.id).collect()
    }

    /// Claims all of them for a host whose lease is valid.
    async fn claimed(&self) -> (HostId, Vec<(Arrival, Claimed)>) {
        let host = record();
        self.db.register_host(&host, LONG).await.unwrap();
        let arrivals: Vec<Arrival> = self.tasks.iter().map(|t| arrival_of(t.message.clone(), here())).collect();
        let claimed = self.db.claim(steady(host.id), &arrivals).await.unwrap().into_iter().map(|answer| match answer {
            ClaimAnswer::Run(claimed) => claimed,
            other => panic!("{other:?}"),
        });
        let claimed = claimed.collect::<Vec<_>>();
        (host.id, arrivals.into_iter().zip(claimed).collect())
    }

    /// Claims all and ends each in the same way.
    async fn ended(&self, ended: impl Fn() -> Ended) {
        let (host, claimed) = self.claimed().await;
        let batch: Vec<_> = claimed.iter().map(|(a, c)| settlement(a, c, ended())).collect();
        self.db.settle(host, &batch).await.unwrap();
    }

    /// Whether an operation that waits for the first row has locked no other by then.
    async fn locks_by_id<T, F>(&self, what: &str, operation: impl FnOnce(Arc<PostgresDb>) -> F) -> T
    where
        F: Future<Output = Result<T, DbError>> + Send + 'static,
        T: Send + 'static,
    {
        let first = self.ids()[0];
        let mut blocker = self.own.raw.begin().await.unwrap();
        let lock = format!("SELECT FROM outbox WHERE task_id = '{first}' FOR UPDATE");
        raw_sql(AssertSqlSafe(lock)).execute(&mut *blocker).await.unwrap();
        let waiting = tokio::spawn(operation(self.db.clone()));
        until_waiting(&self.own, 1).await;
        let others = format!("SELECT FROM outbox WHERE task_id <> '{first}'");
        let free = format!("{others} FOR UPDATE SKIP LOCKED");
        let others = raw_sql(AssertSqlSafe(others)).fetch_all(&mut *blocker).await.unwrap().len();
        let free = raw_sql(AssertSqlSafe(free)).fetch_all(&mut *blocker).await.unwrap().len();
        blocker.rollback().await.unwrap();
        let result = waiting.await.unwrap().unwrap();
        assert_eq!(free, others, "{what} holds other rows while it waits for the first");
        result
    }
}

#[tokio::test]
async fn a_relay_locks_outbox_rows_by_id() {
    let c = crowd(Options::default()).await;
    let (token, ids) = (c.token, c.ids());
    let given = ids.clone();
    c.locks_by_id("defer", |db| async move {
        db.defer_outbox(token, &given, OutboxReason::NotPublished, Duration::ZERO).await
    })
    .await;
    c.own.execute(&format!("UPDATE outbox SET token = '{token}'")).await.unwrap();
    c.locks_by_id("drop", |db| async move { db.drop_outbox(token, &ids).await }).await;
    assert_eq!(c.own.number("SELECT count(*) FROM outbox").await, 0);
}

#[tokio::test]
async fn a_settlement_locks_outbox_rows_by_id() {
    let c = crowd(Options::default()).await;
    let (host, claimed) = c.claimed().await;
    let interrupted = || Ended::Interrupted { reason: "stop".into() };
    let batch: Vec<_> = claimed.iter().rev().map(|(a, cl)| settlement(a, cl, interrupted())).collect();
    c.locks_by_id("settle", |db| async move { db.settle(host, &batch).await }).await;
}

#[tokio::test]
async fn a_submission_locks_outbox_rows_by_id() {
    let c = crowd(Options::default()).await;
    c.own.execute("TRUNCATE tasks, task_events").await.unwrap();
    let batch: Vec<NewTask> = c.tasks.iter().rev().cloned().collect();
    c.locks_by_id("submit", |db| async move { db.submit(&batch).await }).await;
}

#[tokio::test]
async fn a_sweep_of_due_tasks_locks_outbox_rows_by_id() {
    let c = crowd(Options::default()).await;
    c.ended(retrying).await;
    // The youngest is due first.
    let due = "UPDATE tasks t SET run_at = now() - n * interval '1 second'
        FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM tasks) o WHERE o.id = t.id";
    c.own.execute(due).await.unwrap();
    let woken = c.locks_by_id("wake_due", |db| async move { db.wake_due(ROWS as u32).await }).await;
    assert_eq!(woken, ROWS as u64);
}

#[tokio::test]
async fn a_sweep_of_expired_tasks_locks_outbox_rows_by_id() {
    let deadline = Some(Utc::now() + chrono::TimeDelta::hours(1));
    let c = crowd(Options { deadline, ..Options::default() }).await;
    let first = c.ids()[0];
    // The first one is called off, which is looked for after those that have expired.
    let past = format!("UPDATE tasks SET deadline = now() - interval '1 hour' WHERE id <> '{first}'");
    c.own.execute(&past).await.unwrap();
    c.own.execute(&format!("UPDATE tasks SET cancel_requested = true WHERE id = '{first}'")).await.unwrap();
    let swept = c.locks_by_id("fail_expired", |db| async move { db.fail_expired(ROWS as u32).await }).await;
    assert_eq!(swept, ROWS as u64);
}

#[tokio::test]
async fn a_rescue_locks_outbox_rows_by_id() {
    let c = crowd(Options::default()).await;
    let (host, _) = c.claimed().await;
    c.db.end_lease(host).await.unwrap();
    // Stored in the opposite order too.
    c.own.execute("CREATE TABLE kept AS SELECT * FROM tasks").await.unwrap();
    c.own.execute("TRUNCATE tasks").await.unwrap();
    c.own.execute("INSERT INTO tasks SELECT * FROM kept ORDER BY id DESC").await.unwrap();
    let rescued = c.locks_by_id("rescue", |db| async move { db.rescue(true, LONG, true, ROWS as u32).await }).await;
    assert_eq!(rescued, ROWS as u64);
}

#[tokio::test]
async fn a_deletion_of_old_tasks_locks_outbox_rows_by_id() {
    let c = crowd(Options::default()).await;
    c.ended(completed).await;
    c.own.execute("UPDATE tasks SET finished_at = now() - interval '1 day'").await.unwrap();
    let keep = Retention { completed: Duration::from_secs(60), failed: LONG, dead: LONG, audit: LONG };
    let pruned = c.locks_by_id("prune", |db| async move { db.prune(&keep, ROWS as u32).await }).await;
    assert_eq!(pruned, ROWS as u64);
}
