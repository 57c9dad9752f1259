//! Submissions at the same time as deletions.

use super::*;
use crate::db::conformance::{id, new_task};

#[tokio::test]
async fn task_that_is_pruned_while_it_is_submitted_again_is_created_anew() {
    let own = Own::new().await;
    let db = own.with(Own::options());
    db.migrate().await.unwrap();
    let task = new_task(id(), Options::default());
    let submit = async || db.submit(std::slice::from_ref(&task)).await.unwrap();
    assert_eq!(submit().await, [Submitted::Created]);
    // Once, between the two statements of a submission.
    let prune = "CREATE TABLE pruned AS SELECT id FROM tasks WHERE false;
        CREATE FUNCTION prune_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NOT EXISTS (SELECT FROM pruned) THEN
                INSERT INTO pruned SELECT id FROM tasks;
                DELETE FROM task_events;
                DELETE FROM tasks;
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER prune_once AFTER INSERT ON tasks FOR EACH STATEMENT EXECUTE FUNCTION prune_once()";
    own.execute(prune).await.unwrap();
    assert_eq!(submit().await, [Submitted::Created]);
    assert_eq!(own.number("SELECT count(*) FROM pruned").await, 1);
    assert!(db.task(task.message.id, Fields::default()).await.unwrap().is_some(), "it was told that it is created");
    assert_eq!(submit().await, [Submitted::Exists]);
}
