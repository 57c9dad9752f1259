//! Dead letters whose recording takes longer than a call waits for it.

use super::*;

#[tokio::test]
async fn letter_whose_recording_timed_out_and_goes_on_has_one_row() {
    let own = Own::new().await;
    own.with(Own::options()).migrate().await.unwrap();
    // Neither statement takes longer than it may, and both together take longer than the caller waits.
    own.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1.4); RETURN NEW; END $$;
        CREATE TRIGGER written BEFORE INSERT ON dead_letters FOR EACH ROW EXECUTE FUNCTION slow();
        CREATE CONSTRAINT TRIGGER committed AFTER INSERT ON dead_letters DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    .await
    .unwrap();
    let db = own.with(DbOptions { timeout: Duration::from_secs(2), ..DbOptions::default() });
    let letter = DeadLetter {
        reason: "not_json".into(),
        detail: "line 1".into(),
        queue: "default".into(),
        task_id: None,
        plugin: None,
        body: b"{"[..].into(),
        properties: serde_json::json!({}),
        redelivered: false,
    };
    let error = db.record_dead(std::slice::from_ref(&letter)).await.unwrap_err();
    assert!(error.is_timed_out(), "{error:?}");
    // It is under way.
    let again = [DeadLetter { redelivered: true, ..letter }];
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    let answers = loop {
        match db.record_dead(&again).await {
            Ok(answers) => break answers,
            Err(error) => assert!(error.is_transient() && std::time::Instant::now() < patience, "{error:?}"),
        }
    };
    assert!(matches!(answers[..], [DeadAnswer::Recorded(DeadRecorded { repeated: true, .. })]), "{answers:?}");
    assert_eq!(own.number("SELECT count(*) FROM dead_letters").await, 1);
}
