//! By which index statements find their rows.

use super::*;

#[tokio::test]
async fn a_memory_is_searched_by_the_index_of_its_words() {
    let own = Own::new().await;
    let db = own.with(Own::options());
    db.migrate().await.unwrap();
    let mut connection = db.lines.path.pool.acquire().await.unwrap();
    let explain = sqlx::query(AssertSqlSafe(format!("EXPLAIN {}", memories::SEARCH)));
    let words = vec!["scope one".to_owned(), "scope two".to_owned()];
    let rows = explain.bind("p").bind("m").bind(words).bind(9i64).fetch_all(&mut *connection).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(plan.iter().any(|line| line.contains("Bitmap Index Scan on memories_found")), "{plan:#?}");
    assert!(!plan.iter().any(|line| line.contains("Filter: ") && line.contains("@@")), "{plan:#?}");
}

#[tokio::test]
async fn a_batch_finds_its_rows_by_id_even_in_a_table_that_was_never_analysed() {
    let own = Own::new().await;
    own.with(Own::options()).migrate().await.unwrap();
    // A connection of its own: the counts below are per connection, and building the indexes scans the table.
    let db = own.with(Own::options());
    let host = conformance::id();
    let me = conformance::steady(host);
    let arrivals: Vec<_> = (0..100).map(|_| arrival()).collect();
    let mut connection = db.lines.path.pool.acquire().await.unwrap();
    let mut batch = Vec::new();
    for (arrival, answer) in arrivals.iter().zip(claim::claim(&mut connection, me, &arrivals).await.unwrap()) {
        let ClaimAnswer::Run(claimed) = answer else { panic!("{answer:?}") };
        batch.push(settlement(arrival, &claimed, completed()));
    }
    let mut tx = connection.begin().await.unwrap();
    let answers = claim::claim(&mut tx, me, &arrivals).await.unwrap();
    assert!(answers.iter().all(|a| matches!(a, ClaimAnswer::Mine(_))));
    assert!(settle::settle(&mut tx, host, &batch).await.unwrap().iter().all(|a| *a == SettleAnswer::Settled));
    let scans = "SELECT seq_scan, pg_stat_get_xact_numscans('tasks_running'::regclass), idx_tup_fetch
        FROM pg_stat_xact_user_tables WHERE relid = 'tasks'::regclass";
    let row = sqlx::query(scans).fetch_one(&mut *tx).await.unwrap();
    let (whole, owned, by_index): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert_eq!((whole, owned), (0, 0), "the table was scanned {whole} times, the owner's index {owned} times");
    assert!(by_index >= 200, "{by_index}");
}

#[tokio::test]
async fn what_is_due_or_past_its_time_is_all_that_is_read_of_an_index() {
    let own = Own::new().await;
    let db = own.with(Own::options());
    db.migrate().await.unwrap();
    let mut connection = db.lines.path.pool.acquire().await.unwrap();
    let keep = || hosts::interval(Duration::from_secs(60));
    let explain = |text: &str| sqlx::query(AssertSqlSafe(format!("EXPLAIN {text}")));
    let none = || None::<String>;
    let never = || None::<chrono::DateTime<chrono::Utc>>;
    let waiting = explain(read::TASKS).bind(false).bind(false).bind("pending").bind(none()).bind(none()).bind(none());
    let waiting = waiting.bind(never()).bind(None::<TaskId>).bind(never()).bind(None::<TaskId>);
    let waiting = waiting.bind(501i64).bind(PAGE_BYTES);
    let taking = explain(outbox::TAKE).bind(500i64).bind(conformance::id()).bind(keep()).bind(1i64);
    let taking = taking.bind(Vec::<String>::new()).bind(Vec::<String>::new()).bind(keep()).bind(never());
    let letters = explain(dead::TAKE).bind("default").bind(500i64).bind(keep()).bind(1i64);
    for (query, bound) in [
        (explain(prune::COMPLETED).bind(keep()).bind(500i64).bind(1i64), "finished_at <"),
        (explain(prune::OTHERS).bind(keep()).bind(500i64).bind(1i64), "finished_at <"),
        (explain(prune::LETTERS).bind(keep()).bind(500i64), "at <"),
        (explain(prune::STAYING).bind(keep()), "finished_at <"),
        (explain(prune::PAST).bind("completed").bind(keep()), "finished_at <"),
        (explain(prune::PAST_LETTERS).bind(keep()), "at <"),
        (explain(duties::DUE).bind(500i64), "run_at <="),
        (explain(duties::EXPIRED).bind(500i64), "deadline <="),
        (waiting, "state = 'pending'"),
        (taking, "due_at <="),
        (letters, "publish_at <="),
    ] {
        let rows = query.fetch_all(&mut *connection).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(plan.iter().any(|line| line.contains("Index Cond: ") && line.contains(bound)), "{plan:#?}");
    }
}

/// However many tasks wait, and whatever the statistics say.
#[tokio::test]
async fn a_look_for_waiting_tasks_reads_no_more_than_its_bounds() {
    let own = Own::new().await;
    own.with(Own::options()).migrate().await.unwrap();
    let db = own.with(Own::options());
    let mut connection = db.lines.path.pool.acquire().await.unwrap();
    let many = "INSERT INTO tasks (id, plugin, plugin_name, queue, state, max_attempts, created_at, waiting_since, waiting_code)
        SELECT gen_random_uuid(), 'p', 'p' || n % 4, 'default', 'pending', 3, now(), now(),
            CASE WHEN n % 2 = 0 THEN 'no_plugin' END FROM generate_series(1, 4000) n";
    sqlx::query(many).execute(&mut *connection).await.unwrap();
    let look = WaitingLook { rows: 20, plugins: 10, of_plugin: 5, outbox: 10 };
    for analysed in [false, true] {
        if analysed {
            sqlx::query("ANALYZE tasks").execute(&mut *connection).await.unwrap();
        }
        let mut tx = connection.begin().await.unwrap();
        let found = waiting::waiting(&mut tx, look).await.unwrap();
        assert!((20..=30).contains(&found.tasks.len()), "{}", found.tasks.len());
        let reads = "SELECT idx_tup_fetch, seq_scan FROM pg_stat_xact_user_tables WHERE relid = 'tasks'::regclass";
        let row = sqlx::query(reads).fetch_one(&mut *tx).await.unwrap();
        let (fetched, scans): (i64, i64) = (row.get("idx_tup_fetch"), row.get("seq_scan"));
        assert!(fetched < 200 && scans == 0, "{fetched} rows fetched, {scans} scans, analysed: {analysed}");
        tx.rollback().await.unwrap();
    }
}
