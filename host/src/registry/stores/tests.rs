//! Over the database in memory and over SQLite.

use super::*;
use crate::db::memory::MemoryDb;
use crate::db::sqlite::SqliteDb;
use crate::db::{ClaimAnswer, Claimant, DbOptions};
use crate::task::{Arrival, Options, Runnable, TaskId, TaskMessage};
use std::time::Duration;

/// Both databases, the second in a folder that goes away.
async fn databases() -> (Vec<Arc<dyn Db>>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = SqliteDb::connect(&folder.path().join("agentry.db"), &DbOptions::default()).unwrap();
    sqlite.migrate().await.unwrap();
    (vec![Arc::new(MemoryDb::new(Arc::new(chrono::Utc::now))), Arc::new(sqlite)], folder)
}

/// A database that answers nothing: its tables are missing.
fn broken(folder: &tempfile::TempDir) -> Arc<dyn Db> {
    Arc::new(SqliteDb::connect(&folder.path().join("empty.db"), &DbOptions::default()).unwrap())
}

/// A task that runs under its first claim.
async fn running(db: &dyn Db) -> TaskId {
    let id = TaskId::now_v7();
    claimed(db, id).await;
    id
}

/// The next claim of a task, by a host that never had a lease.
async fn claimed(db: &dyn Db, id: TaskId) {
    let message = TaskMessage::assemble(Some(id), "agent", "1", Options::default(), &Default::default()).unwrap();
    let runnable = Runnable::Here {
        version: "0.1.0".into(),
        digest: "sha256:0".into(),
        max_attempts: 3,
        allowed: Duration::from_secs(60),
        lane: true,
    };
    let arrival = Arrival { message: Arc::new(message), queue: "default".into(), runnable, relayed: None };
    let me = Claimant { host: Uuid::new_v4(), steady: true };
    let answers = db.claim(me, &[arrival]).await.unwrap();
    assert!(matches!(answers[0], ClaimAnswer::Run(_)), "{answers:?}");
}

fn stores(db: &Arc<dyn Db>, writer: Writer) -> TaskStores {
    with(db, writer, StoreLimits::default(), BudgetLimits::default())
}

fn with(db: &Arc<dyn Db>, writer: Writer, limits: StoreLimits, budgets: BudgetLimits) -> TaskStores {
    TaskStores::new(db.clone(), "agent".into(), writer, limits, budgets)
}

fn budgets(per_task: &[(Spending, u64)], per_day: &[(Spending, u64)]) -> BudgetLimits {
    BudgetLimits { per_task: per_task.iter().copied().collect(), per_day: per_day.iter().copied().collect() }
}

fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

#[tokio::test]
async fn an_attempt_keeps_values_while_its_task_is_its_own() {
    let (databases, _folder) = databases().await;
    for db in databases {
        let id = running(&*db).await;
        let own = stores(&db, Some((id, 1)));
        own.set("b", vec![("k".into(), b"4".to_vec()), ("l".into(), vec![])]).await.unwrap();
        assert_eq!(own.increment("b", "k", 38).await, Ok(42));
        let values = own.get("b", &keys(&["l", "k", "m"])).await.unwrap();
        assert_eq!(values, [Some(vec![]), Some(b"42".to_vec()), None]);
        assert_eq!((own.exists("b", "k").await, own.exists("b", "m").await), (Ok(true), Ok(false)));
        assert_eq!(own.keys("b", None).await, Ok((keys(&["k", "l"]), None)));
        own.delete("b", &keys(&["l"])).await.unwrap();
        assert_eq!(own.keys("b", None).await, Ok((keys(&["k"]), None)));
        let stale = stores(&db, Some((id, 2)));
        let gone = "keyvalue: this attempt is no longer the task's own, and nothing was written";
        assert_eq!(stale.increment("b", "k", 1).await, Err(StoreError::Unavailable(gone.into())));
        assert_eq!(stale.set("b", vec![]).await, Err(StoreError::Unavailable(gone.into())));
        // By hand there is no task to lose.
        assert_eq!(stores(&db, None).increment("b", "k", 1).await, Ok(43));
    }
}

#[tokio::test]
async fn long_lists_of_keys_come_in_pages() {
    let (databases, _folder) = databases().await;
    for db in databases {
        let own = stores(&db, None);
        for from in (0..1_100).step_by(100) {
            own.set("b", (from..from + 100).map(|n| (format!("k{n:04}"), vec![])).collect()).await.unwrap();
        }
        let (mut read, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            let (page, next) = own.keys("b", cursor).await.unwrap();
            read.extend(page);
            pages += 1;
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!((read.len(), pages), (1_100, 3));
        assert_eq!((read[0].as_str(), read[1_099].as_str()), ("k0000", "k1099"));
        assert_eq!(own.keys("b", Some(u64::MAX)).await, Ok((vec![], None)));
    }
}

#[tokio::test]
async fn a_refusal_names_the_limit_and_the_remedy() {
    let (databases, _folder) = databases().await;
    let limits = StoreLimits {
        value_bytes: 10,
        keys: 2,
        bytes: 30,
        text_bytes: 20,
        metadata_bytes: 10,
        memories: 1,
        ..StoreLimits::default()
    };
    for db in databases {
        let own = with(&db, None, limits, BudgetLimits::default());
        let set = async |key: &str, bytes: usize| {
            own.set("b", vec![(key.to_owned(), vec![b'x'; bytes])]).await.unwrap_err().to_string()
        };
        let long = "k".repeat(600);
        assert_eq!(set(&long, 1).await, "keyvalue: the key has 600 bytes, and at most 512 are allowed");
        for error in [
            own.get("b", std::slice::from_ref(&long)).await.unwrap_err(),
            own.delete("b", std::slice::from_ref(&long)).await.unwrap_err(),
            own.increment("b", &long, 1).await.unwrap_err(),
            own.exists("b", &long).await.unwrap_err(),
        ] {
            assert!(matches!(&error, StoreError::Invalid(text) if text.contains("600 bytes")), "{error:?}");
        }
        let told = "keyvalue: a value has 11 bytes, and at most 10 are allowed; split it over several keys";
        assert_eq!(set("k", 11).await, told);
        let told = "keyvalue: the key holds a NUL character, which cannot be stored: take it out or encode it";
        assert_eq!(set("k\0", 1).await, told);
        own.set("b", vec![("a".into(), vec![0; 9]), ("b".into(), b"x".to_vec())]).await.unwrap();
        let told =
            "keyvalue: the plugin agent would have 3 keys in all its buckets, and at most 2 are allowed; delete some";
        assert_eq!(own.set("b", vec![("c".into(), vec![])]).await, Err(StoreError::Full(told.into())));
        let error = own.increment("b", "b", 1).await.unwrap_err();
        assert!(matches!(&error, StoreError::Invalid(text) if text.contains("not a decimal number")), "{error:?}");
        let many = vec!["k".to_owned(); 101];
        let told = "keyvalue: 101 keys in one call, and at most 100 are allowed; ask for fewer at a time";
        assert_eq!(own.get("b", &many).await, Err(StoreError::Invalid(told.into())));

        let remember = async |text: &str, metadata: &str| own.remember("m", text, metadata).await.unwrap_err();
        let told = "memory: the text has 21 bytes, and at most 20 are allowed; shorten it";
        assert_eq!(remember(&"x".repeat(21), "{}").await, StoreError::Invalid(told.into()));
        let told = "memory: the metadata has 11 bytes, and at most 10 are allowed; shorten them";
        assert_eq!(remember("x", r#"{"abc": 12}"#).await, StoreError::Invalid(told.into()));
        for bad in ["", "[]", "1", "{", "null"] {
            let error = remember("x", bad).await;
            assert!(matches!(&error, StoreError::Invalid(text) if text.contains("no JSON object")), "{bad}: {error:?}");
        }
        own.remember("m", "one", "{}").await.unwrap();
        let told =
            "memory: the plugin agent would have 2 entries in all its memories, and at most 1 are allowed; forget some";
        assert_eq!(remember("two", "{}").await, StoreError::Full(told.into()));
        let told = "memory: the query has 21 bytes, and at most 20 are allowed; shorten it";
        assert_eq!(own.search("m", &"x".repeat(21), 1).await, Err(StoreError::Invalid(told.into())));
    }
}

#[tokio::test]
async fn what_is_remembered_is_found_and_forgotten() {
    let (databases, _folder) = databases().await;
    for db in databases {
        let id = running(&*db).await;
        let own = stores(&db, Some((id, 1)));
        let paris = own.remember("m", "Paris is the capital of France", r#"{"source": "atlas"}"#).await.unwrap();
        own.remember("m", "Rome is the capital of Italy", "{}").await.unwrap();
        let found = own.search("m", "capital france", 10).await.unwrap();
        assert_eq!((found.len(), found[0].id.as_str()), (2, paris.as_str()));
        assert_eq!(found[0].metadata, r#"{"source": "atlas"}"#);
        assert!(found[0].score > found[1].score, "{found:?}");
        assert!(found[0].at.ends_with('Z') && found[0].at.parse::<chrono::DateTime<chrono::Utc>>().is_ok());
        let stale = stores(&db, Some((id, 2)));
        assert!(matches!(stale.remember("m", "late", "{}").await, Err(StoreError::Unavailable(_))));
        assert!(matches!(stale.forget("m", &paris).await, Err(StoreError::Unavailable(_))));
        own.forget("m", "no id at all").await.unwrap();
        own.forget("m", &paris).await.unwrap();
        assert_eq!(own.search("m", "france", 10).await, Ok(vec![]));
    }
}

#[tokio::test]
async fn an_allowance_that_is_used_up_says_whose_it_is_and_who_can_raise_it() {
    let (databases, _folder) = databases().await;
    for db in databases {
        let limits = budgets(&[(Spending::LlmTokens, 100)], &[(Spending::LlmTokens, 150), (Spending::LlmRequests, 3)]);
        let of = |writer| with(&db, writer, StoreLimits::default(), limits.clone());
        let (one, two) = (running(&*db).await, running(&*db).await);
        let (first, second) = (of(Some((one, 1))), of(Some((two, 1))));
        first.take(&[(Spending::LlmRequests, 1), (Spending::LlmTokens, 70)]).await.unwrap();
        let told = "llm_tokens: 70 of 100 used for this task, and 40 more were asked for; raise limits.llm_tokens";
        assert_eq!(first.take(&[(Spending::LlmTokens, 40)]).await, Err(BudgetError::Exhausted(told.into())));
        first.correct(Spending::LlmTokens, 70, 100).await;
        // The next attempt finds what the one before has used.
        let again = of(Some((one, 2)));
        let told = "llm_tokens: 100 of 100 used up for this task; raise limits.llm_tokens";
        assert_eq!(again.take(&[(Spending::LlmTokens, 1)]).await, Err(BudgetError::Exhausted(told.into())));
        second.take(&[(Spending::LlmTokens, 50)]).await.unwrap();
        let told = "llm_tokens: 150 of 150 used up for today by the plugin agent; the operator can raise \
                    budgets.llm_tokens_per_day in [plugins.\"agent\"]";
        let both = [(Spending::LlmRequests, 1), (Spending::LlmTokens, 1)];
        assert_eq!(second.take(&both).await, Err(BudgetError::Exhausted(told.into())));
        second.correct(Spending::LlmTokens, 50, 20).await;
        second.take(&both).await.unwrap();
        // By hand only the day counts.
        let hand = of(None);
        hand.take(&[(Spending::LlmRequests, 1), (Spending::LlmTokens, 29)]).await.unwrap();
        let error = hand.take(&[(Spending::LlmRequests, 1)]).await.unwrap_err().to_string();
        assert!(error.starts_with("llm_requests: 3 of 3 used up for today"), "{error}");
    }
}

#[tokio::test]
async fn a_task_that_was_interrupted_too_often_is_told_so_and_a_lost_run_spends_nothing() {
    let (databases, _folder) = databases().await;
    for db in databases {
        let limits = budgets(&[(Spending::LlmTokens, 100)], &[]);
        let of = |writer| with(&db, writer, StoreLimits::default(), limits.clone());
        let id = running(&*db).await;
        of(Some((id, 1))).take(&[(Spending::LlmTokens, 100)]).await.unwrap();
        // The host of the first run is not known, so its lease has ended.
        claimed(&*db, id).await;
        of(Some((id, 2))).take(&[(Spending::LlmTokens, 100)]).await.unwrap();
        let told = "llm_tokens: 100 of 100 used up for this task, and 100 more by runs of it that were interrupted; raise \
                    limits.llm_tokens";
        let error = of(Some((id, 2))).take(&[(Spending::LlmTokens, 1)]).await;
        assert_eq!(error, Err(BudgetError::Exhausted(told.into())));
        let told = "this attempt is no longer the task's own, and may spend nothing";
        let error = of(Some((id, 1))).take(&[(Spending::LlmTokens, 1)]).await;
        assert_eq!(error, Err(BudgetError::Unavailable(told.into())));
    }
}

#[tokio::test]
async fn where_nothing_is_counted_beyond_the_run_the_database_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let db = broken(&folder);
    let of = |writer, limits| with(&db, writer, StoreLimits::default(), limits);
    let per_task = budgets(&[(Spending::HttpRequests, 1)], &[]);
    let hand = of(None, per_task.clone());
    hand.take(&[(Spending::HttpRequests, 5)]).await.unwrap();
    hand.correct(Spending::HttpRequests, 5, 1).await;
    let other = of(Some((TaskId::now_v7(), 1)), per_task.clone());
    other.take(&[(Spending::ToolCalls, 5)]).await.unwrap();
    assert!(!folder.path().join("empty.db").exists(), "it was connected to");
    // Where something is, it is.
    let error = other.take(&[(Spending::HttpRequests, 1)]).await.unwrap_err();
    assert!(matches!(error, BudgetError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn a_guest_hears_of_a_failing_database_and_nothing_about_it() {
    let folder = tempfile::tempdir().unwrap();
    let own = stores(&broken(&folder), None);
    for error in [
        own.get("b", &keys(&["k"])).await.unwrap_err(),
        own.set("b", vec![("k".into(), vec![])]).await.unwrap_err(),
        own.keys("b", None).await.unwrap_err(),
        own.increment("b", "k", 1).await.unwrap_err(),
        own.remember("m", "x", "{}").await.unwrap_err(),
        own.search("m", "x", 1).await.unwrap_err(),
        own.forget("m", &Uuid::new_v4().to_string()).await.unwrap_err(),
    ] {
        let StoreError::Unavailable(text) = &error else { panic!("{error:?}") };
        assert!(text.ends_with(": the database does not answer; try again later"), "{text}");
    }
}
