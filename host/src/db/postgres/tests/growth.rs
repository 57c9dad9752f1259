//! How much statements read when tables are full: what they return, and not what is there.

use super::*;
use crate::db::conformance::{LONG, arrival_of, here, id, new_task, record, steady};
use crate::db::fault::Fault;
use crate::db::{CallCursor, Label, OutboxTake, TaskCursor};
use crate::task::{FailureKind, State, TaskId};

/// Tasks of the full table: a million with `--full`.
fn many() -> i64 {
    if std::env::var_os("AGENTRY_TEST_FULL").is_some() { 1_000_000 } else { 100_000 }
}

const HOST: &str = "01020304-0000-4000-8000-000000000001";
const RUN: &str = "0195d0a0aaaa7000800000000000000a";
/// Rows with a property that few have.
const RARE: i64 = 5;

/// Most tasks have completed, in one plugin and queue. A tenth waits for a plugin that another host serves.
fn fill() -> String {
    let many = many();
    format!(
        "INSERT INTO hosts (id, name, build, settings_digest, queues, plugins, broken_plugins, slots, busy, started_at, renewed_at,
            lease_until)
        VALUES ('{HOST}', 'h', '0.1.0', 's', '[\"default\"]', '[\"elsewhere@0.1.0\", \"common@0.1.0\"]', '[]', 4, 0, now(), now(),
            now() + interval '1 day');
        INSERT INTO tasks (id, plugin, plugin_name, queue, state, input, output, failure, fingerprint, max_attempts, burnt, attempt,
            fence, owner, labels, created_at, started_at, finished_at, run_at, deadline, waiting_code, waiting_since, priority)
        SELECT gen_random_uuid(), p, p, CASE WHEN n % ({many} / {RARE}) = 7 THEN 'rare' ELSE 'default' END, s, '1',
            CASE WHEN s = 'completed' THEN '1' END,
            CASE WHEN s IN ('failed', 'retrying') THEN format('{{\"kind\":\"%s\",\"message\":\"x\",\"retryable\":false}}',
                CASE WHEN n % ({many} / {RARE}) = 21 THEN 'timeout' ELSE 'trap' END) END,
            decode(repeat('00', 32), 'hex'), 3, 0, 1, 1, CASE WHEN s <> 'pending' THEN '{HOST}'::uuid END,
            CASE WHEN n % ({many} / {RARE}) = 9 THEN '{{\"team\":\"rare\"}}' WHEN n % 3 = 0 THEN '{{\"team\":\"common\"}}'
                WHEN n % 100 = 1 THEN '{{\"agentry-bench\":\"{RUN}\"}}' ELSE '{{}}' END,
            t, t, CASE WHEN s IN ('completed', 'failed', 'cancelled') THEN t END,
            CASE WHEN s IN ('scheduled', 'retrying') THEN now() + interval '1 day' END,
            CASE WHEN s = 'scheduled' THEN now() + interval '2 days' END,
            CASE s WHEN 'scheduled' THEN 'scheduled' WHEN 'retrying' THEN 'backoff' WHEN 'pending' THEN 'no_plugin' END,
            CASE WHEN s IN ('scheduled', 'retrying', 'pending') THEN t END, n % 10
        FROM (SELECT n, now() - n * interval '2 seconds' AS t,
                CASE WHEN n % 10 = 3 THEN 'elsewhere' WHEN n % ({many} / {RARE}) = 8 THEN 'rare' ELSE 'common' END AS p,
                CASE WHEN n % 10 = 3 THEN 'pending' WHEN n % ({many} / {RARE}) = 11 THEN 'cancelled'
                    WHEN n % ({many} / {RARE}) = 21 OR n % 50 = 12 THEN 'failed' WHEN n % 1000 = 15 THEN 'retrying'
                    WHEN n % 1000 = 16 THEN 'scheduled' WHEN n % 1000 = 17 THEN 'running' ELSE 'completed' END AS s
            FROM generate_series(1, {many}) AS n) AS drawn;
        INSERT INTO task_events (task_id, seq, at, event) SELECT id, 1, created_at, 'pending' FROM tasks;
        INSERT INTO task_attempts (task_id, fence, attempt, host, started_at, finished_at, ended)
            SELECT id, 1, 1, '{HOST}', created_at, created_at, 'completed' FROM tasks WHERE state = 'completed';
        INSERT INTO outbox (task_id, created_at, due_at) SELECT id, now(), now() + interval '1 day' FROM tasks;
        INSERT INTO dead_letters (at, reason, detail, queue, body, properties, content_hash, redriven_as, redriven_at)
            SELECT now() - n * interval '1 minute', CASE WHEN n = 77 THEN 'rare' ELSE 'not_json' END, '',
                CASE WHEN n = 78 THEN 'rare' ELSE 'default' END, '', '{{}}', sha256(n::text::bytea),
                CASE WHEN n <> 79 THEN gen_random_uuid() END, CASE WHEN n <> 79 THEN now() END
            FROM generate_series(1, {many} / 10) AS n;
        ANALYZE"
    )
}

/// Entries of indexes and rows of tables that this transaction has read, and scans of whole tables but those of a few rows.
const READ: &str = "SELECT sum(pg_stat_get_xact_tuples_returned(c.oid))::bigint,
        COALESCE(string_agg(c.relname::text, ', ') FILTER (WHERE c.relkind = 'r' AND c.relname NOT IN ('hosts', 'brakes')
            AND pg_stat_get_xact_numscans(c.oid) > 0), '')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'agentry' AND c.relkind IN ('r', 'i')";

/// A table with many tasks, and a connection to it.
struct Full {
    connection: PgConnection,
    own: Own,
    /// What read too much.
    wrong: Vec<String>,
}

impl Full {
    async fn new(own: Own) -> Full {
        // As the daemon's own, and of this test alone: what is read is counted by connection.
        let db = own.with(Own::options());
        db.migrate().await.unwrap();
        let connection = own.with(Own::options()).lines.path.pool.acquire().await.unwrap().detach();
        Full { connection, own, wrong: Vec::new() }
    }

    async fn filled() -> Full {
        let mut full = Full::new(Own::new().await).await;
        full.own.execute(&fill()).await.unwrap();
        raw_sql("SET statement_timeout = 0").execute(&mut full.connection).await.unwrap();
        full
    }

    /// What the connection has read so far.
    async fn counted(connection: &mut PgConnection) -> (i64, String) {
        let row = sqlx::query(READ).fetch_one(connection).await.unwrap();
        (row.get(0), row.get(1))
    }

    /// Runs an operation, undoes it, and notes it down if it read a whole table, or more than `most` entries.
    async fn reads<T>(
        &mut self,
        what: &str,
        most: i64,
        operation: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Fault>,
    ) -> T {
        let mut tx = self.connection.begin().await.unwrap();
        let before = Full::counted(&mut tx).await;
        let result = operation(&mut tx).await.unwrap_or_else(|fault| panic!("{what}: {fault:?}"));
        let after = Full::counted(&mut tx).await;
        tx.rollback().await.unwrap();
        let (read, scanned) = (after.0 - before.0, after.1);
        if read > most || scanned != before.1 {
            self.wrong.push(format!("{what} read {read} entries, of at most {most}; whole tables: {scanned:?}"));
        }
        result
    }
}

#[tokio::test]
async fn statements_read_what_they_return_and_not_the_whole_of_a_full_table() {
    let mut full = Full::filled().await;
    let some = |state: &str| format!("SELECT id::text FROM tasks WHERE state = '{state}' LIMIT 1");
    let mut of = std::collections::HashMap::new();
    for state in ["completed", "failed", "pending", "running"] {
        let row = raw_sql(AssertSqlSafe(some(state))).fetch_one(&full.own.raw).await.unwrap();
        of.insert(state, row.get::<String, _>(0).parse::<TaskId>().unwrap());
    }
    let (host, now) = (HOST.parse().unwrap(), Utc::now());

    // Lists: each row of a page is read twice, and its outbox row.
    let all = || TaskFilter { limit: 50, ..TaskFilter::default() };
    let label = |value: &str| Some(("team".to_owned(), value.to_owned()));
    let bench = |value: &str| Some(("agentry-bench".to_owned(), value.to_owned()));
    let text = |value: &str| Some(value.to_owned());
    let before = Some(TaskCursor { created_at: now - chrono::TimeDelta::days(1), id: id() });
    let rare = RARE as usize;
    let lists = [
        ("all", all(), 50),
        ("all behind a cursor", TaskFilter { before, ..all() }, 50),
        ("completed", TaskFilter { state: Some(State::Completed), ..all() }, 50),
        ("failed", TaskFilter { state: Some(State::Failed), ..all() }, 50),
        ("cancelled", TaskFilter { state: Some(State::Cancelled), ..all() }, rare),
        ("pending behind a cursor", TaskFilter { state: Some(State::Pending), before, ..all() }, 50),
        ("retrying", TaskFilter { state: Some(State::Retrying), ..all() }, 50),
        ("of a common plugin", TaskFilter { plugin: text("common"), before, ..all() }, 50),
        ("of a rare plugin", TaskFilter { plugin: text("rare"), ..all() }, rare),
        ("of an unknown plugin", TaskFilter { plugin: text("unknown"), ..all() }, 0),
        ("of a rare queue", TaskFilter { queue: text("rare"), ..all() }, rare),
        ("of an unknown queue", TaskFilter { queue: text("unknown"), ..all() }, 0),
        ("of a common kind", TaskFilter { kind: Some(FailureKind::Trap), ..all() }, 50),
        ("of a rare kind", TaskFilter { kind: Some(FailureKind::Timeout), ..all() }, rare),
        ("of an unknown kind", TaskFilter { kind: Some(FailureKind::Expired), ..all() }, 0),
        ("of a rare label", TaskFilter { label: label("rare"), ..all() }, rare),
        ("of an unknown label", TaskFilter { label: label("unknown"), ..all() }, 0),
        ("of a bench", TaskFilter { label: bench(RUN), ..all() }, 50),
        ("of a bench behind a cursor", TaskFilter { label: bench(RUN), before, ..all() }, 50),
        ("of an unknown bench", TaskFilter { label: bench("unknown"), ..all() }, 0),
        ("since then", TaskFilter { since: Some(now - chrono::TimeDelta::days(1)), ..all() }, 50),
        ("since a moment", TaskFilter { since: Some(now), ..all() }, 0),
        ("of no retries", TaskFilter { retry_of: Some(id()), ..all() }, 0),
    ];
    for (what, filter, expected) in lists {
        let what = format!("tasks {what}");
        let page = full.reads(&what, 1_000, async |c| read::tasks(c, &filter, Fields::default()).await).await;
        assert_eq!(page.rows.len(), expected, "{what}");
    }
    // It is counted whether few carry it, by an index that returns all at once.
    let filter = TaskFilter { label: label("common"), ..all() };
    let page =
        full.reads("tasks of a common label", many() / 2, async |c| read::tasks(c, &filter, Fields::ALL).await).await;
    assert_eq!(page.rows.len(), 50);

    let running = many() / 1_000;
    let filter = TaskFilter { state: Some(State::Running), ..all() };
    full.reads("tasks running", running + 1_000, async |c| read::tasks(c, &filter, Fields::default()).await).await;

    // Dead letters.
    let all = || DeadFilter { limit: 50, ..DeadFilter::default() };
    for (what, filter, expected) in [
        ("all", all(), 50),
        ("behind a cursor", DeadFilter { before: Some(many() / 20), ..all() }, 50),
        ("of a rare reason", DeadFilter { reason: text("rare"), ..all() }, 1),
        ("of a rare queue", DeadFilter { queue: text("rare"), ..all() }, 1),
        ("of an unknown reason", DeadFilter { reason: text("unknown"), ..all() }, 0),
        ("that wait", DeadFilter { waiting: true, ..all() }, 1),
        ("of an unknown task", DeadFilter { task: Some(TaskId::now_v7()), ..all() }, 0),
        ("since a moment", DeadFilter { since: Some(now), ..all() }, 0),
    ] {
        let what = format!("dead letters {what}");
        let page = full.reads(&what, 1_000, async |c| read::dead_letters(c, &filter).await).await;
        assert_eq!(page.rows.len(), expected, "{what}");
    }

    // One task.
    let done = of["completed"];
    full.reads("a task", 10, async |c| read::task(c, done, Fields::ALL).await).await;
    full.reads("events", 10, async |c| read::events(c, done, 0, 100).await).await;
    full.reads("logs", 10, async |c| read::logs(c, done, 0, 100).await).await;
    full.reads("attempts", 10, async |c| read::attempts(c, done).await).await;
    full.reads("calls", 10, async |c| read::calls(c, done, CallCursor::default(), 100, true).await).await;
    full.reads("ends", 10, async |c| read::terminal(c, &[done, of["running"]]).await).await;
    full.reads("what was asked", 10, async |c| retry::asked(c, done).await).await;
    full.reads("erase", 50, async |c| erase::erase(c, done).await).await;
    full.reads("cancel", 50, async |c| submit::cancel(c, of["pending"]).await).await;
    let again = NewTask { retry_of: Some(of["failed"]), ..new_task(id(), Options::default()) };
    full.reads("retry", 50, async |c| retry::retry(c, &again, true).await).await;

    // The path.
    let tasks: Vec<NewTask> = (0..100).map(|_| new_task(id(), Options::default())).collect();
    full.reads("submit", 2_000, async |c| submit::submit(c, &tasks).await).await;
    let arrivals: Vec<Arrival> = tasks.iter().map(|task| arrival_of(task.message.clone(), here())).collect();
    full.reads("claim and settle", 4_000, async |c| {
        let mut batch = Vec::new();
        for (arrival, answer) in arrivals.iter().zip(claim::claim(c, steady(host), &arrivals).await?) {
            let ClaimAnswer::Run(claimed) = answer else { panic!("{answer:?}") };
            batch.push(settlement(arrival, &claimed, completed()));
        }
        settle::settle(c, host, &batch).await
    })
    .await;

    // Duties.
    full.reads("next due", 20, async |c| duties::next_due(c).await).await;
    full.reads("wake what is due", 20, async |c| duties::wake_due(c, 500).await).await;
    full.reads("end what has expired", 20, async |c| duties::fail_expired(c, 500).await).await;
    full.reads("rescue", 20, async |c| duties::rescue(c, true, LONG, false, 500).await).await;
    full.reads("rescue, thoroughly", running * 3 + 20, async |c| duties::rescue(c, true, LONG, true, 500).await).await;
    let unknown =
        async |c: &mut PgConnection| duties::fail_unknown(c, Duration::from_secs(60), 500, String::new()).await;
    assert_eq!(full.reads("end what no host serves", 50, unknown).await.0, 0, "another host serves it");
    let mut look = conformance::parked_of(&["elsewhere".to_owned(), "common".to_owned()], true, 100);
    for page in ["what is parked", "what is parked behind it"] {
        let parked = full.reads(page, 1_000, async |c| read::parked(c, &look).await).await;
        assert_eq!(parked.tasks.len(), 100);
        look.after = parked.last;
    }
    // The index has an entry of each task that was submitted and claimed above.
    full.reads("take", 150, async |c| outbox::take(c, &OutboxTake::new(500, LONG)).await).await;
    full.reads("renew the lease", 20, async |c| hosts::renew(c, &record(), LONG).await).await;
    full.reads("what is to end", 20, async |c| steering::news(c, host).await).await;
    let keep = Retention { completed: LONG * 10_000, failed: LONG * 10_000, dead: LONG * 10_000, audit: LONG };
    full.reads("prune", 200, async |c| prune::prune(c, keep, 500).await).await;

    // Runs of `agentry bench`: all tasks of theirs, and no others.
    let benched = full.reads("benches", many() / 20, async |c| labelled::values(c, "agentry-bench", 100).await).await;
    assert_eq!(benched.len(), 1);
    let label = |value: &str| Label { key: "agentry-bench".into(), value: value.into() };
    let deleted = full.reads("delete a run", 20_000, async |c| labelled::delete(c, &label(RUN), 100).await).await;
    assert_eq!(deleted.deleted, 100);
    full.reads("delete no run", 20, async |c| labelled::delete(c, &label("none"), 100).await).await;
    assert!(full.wrong.is_empty(), "{:#?}", full.wrong);
}

#[tokio::test]
async fn statements_do_not_read_what_an_old_snapshot_keeps() {
    let mut full = Full::new(Own::new().await).await;
    let host = record();
    hosts::renew(&mut full.connection, &host, LONG).await.unwrap();
    // As a backup holds one.
    let mut snapshot = full.own.raw.begin().await.unwrap();
    raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM tasks")
        .execute(&mut *snapshot)
        .await
        .unwrap();
    let churn = format!(
        "INSERT INTO tasks (id, plugin, plugin_name, queue, state, input, fingerprint, max_attempts, attempt, fence, owner, created_at,
            started_at)
        SELECT gen_random_uuid(), 'p', 'p', 'q', 'running', '1', decode(repeat('00', 32), 'hex'), 3, 1, 1, '{}', now(), now()
            FROM generate_series(1, 5000);
        INSERT INTO outbox (task_id, created_at, due_at) SELECT id, now(), now() - interval '1 hour' FROM tasks;
        UPDATE tasks SET state = 'completed', output = '1', finished_at = now();
        DELETE FROM outbox",
        host.id
    );
    full.own.execute(&churn).await.unwrap();
    full.reads("what is to end", 50, async |c| steering::news(c, host.id).await).await;
    full.reads("renew the lease", 50, async |c| hosts::renew(c, &host, LONG).await).await;
    full.reads("rescue", 50, async |c| duties::rescue(c, true, LONG, false, 500).await).await;
    let take = OutboxTake { from: Some(Utc::now() - chrono::TimeDelta::minutes(1)), ..OutboxTake::new(500, LONG) };
    full.reads("take", 50, async |c| outbox::take(c, &take).await).await;
    snapshot.rollback().await.unwrap();
    assert!(full.wrong.is_empty(), "{:#?}", full.wrong);
}
