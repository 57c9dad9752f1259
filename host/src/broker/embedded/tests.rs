use super::*;
use crate::broker::conformance::{self, Place, conformance_suite, message, next, publish, ready, soon, tasks};
use crate::db::DbOptions;

struct Folder(tempfile::TempDir);

async fn place() -> Folder {
    Folder(tempfile::tempdir().unwrap())
}

#[async_trait]
impl Place for Folder {
    async fn open(&self) -> Arc<dyn Broker> {
        Arc::new(open(self.0.path()).await)
    }

    async fn clean(&self) {}
}

fn database(folder: &Path) -> SqliteDb {
    SqliteDb::connect(&folder.join("agentry.sqlite"), &DbOptions::default()).unwrap()
}

async fn open(folder: &Path) -> EmbeddedBroker {
    EmbeddedBroker::open(&database(folder), folder).await.unwrap()
}

conformance_suite! { place() }

#[tokio::test]
async fn after_a_crash_everything_unacknowledged_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let broker = open(folder.path()).await;
    broker.declare(&["q".into()]).await.unwrap();
    publish(&broker, conformance::numbers(0..3)).await;
    let mut subscription = broker.subscribe(tasks(), 2).await.unwrap();
    let first = next(&mut subscription).await;
    let _second = next(&mut subscription).await;
    conformance::acknowledge(&broker, [first]).await;
    // What a crash leaves: the files as they are, write-ahead log and all, without any good-bye.
    for name in ["agentry.sqlite", "agentry.sqlite-wal"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    let after = open(copy.path()).await;
    ready(&after, 2).await;
    let mut subscription = after.subscribe(tasks(), 2).await.unwrap();
    let again = next(&mut subscription).await;
    assert_eq!((conformance::body(&again).as_str(), again.redelivered), ("1", true));
    assert_eq!(conformance::body(&next(&mut subscription).await), "2");
    after.close().await;
    broker.close().await;
}

#[tokio::test]
async fn a_queue_that_cannot_be_written_confirms_nothing_and_is_not_healthy() {
    let folder = tempfile::tempdir().unwrap();
    let db = database(folder.path());
    let broker = EmbeddedBroker::open(&db, folder.path()).await.unwrap();
    broker.declare(&["q".into()]).await.unwrap();
    // As a full disk or a broken file would do.
    db.close().await;
    let publication = Publication { target: Target::Tasks("q".into()), message: message("x") };
    let results = soon("an answer", broker.publish(vec![publication])).await;
    assert!(matches!(&results[..], [Err(PublishError::Unconfirmed(_))]), "{results:?}");
    soon("the news", broker.health().wait_for(|h| !h.is_up())).await.unwrap();
    broker.close().await;
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let db = database(folder.path());
    let error = EmbeddedBroker::open(&db, &folder.path().join("missing")).await.err().unwrap();
    assert!(matches!(&error, BrokerError::Refused(text) if text.contains("missing")), "{error}");
}
