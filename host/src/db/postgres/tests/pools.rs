//! Connections apart by use.

use super::*;
use crate::db::conformance::{LONG, here, record, steady};

#[tokio::test]
async fn reads_that_hang_keep_neither_the_lease_nor_tasks_nor_guests_waiting() {
    let own = Own::new().await;
    let options = DbOptions { max_connections: 2, timeout: Duration::from_secs(60), ..DbOptions::default() };
    let db = Arc::new(own.with(options));
    db.migrate().await.unwrap();
    let host = record();
    db.register_host(&host, LONG).await.unwrap();
    let mut blocker = own.raw.begin().await.unwrap();
    raw_sql("LOCK TABLE dead_letters").execute(&mut *blocker).await.unwrap();
    let mut reads = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let db = db.clone();
        reads.spawn(async move { db.dead_letters(&DeadFilter { limit: 1, ..DeadFilter::default() }).await });
    }
    until_waiting(&own, 2).await;
    let work = async {
        db.renew_lease(&host, LONG).await.unwrap();
        let arrival = arrival();
        let answers = db.claim(steady(host.id), std::slice::from_ref(&arrival)).await.unwrap();
        let ClaimAnswer::Run(claimed) = &answers[0] else { panic!("{answers:?}") };
        let settled = db.settle(host.id, &[settlement(&arrival, claimed, completed())]).await.unwrap();
        assert_eq!(settled, [SettleAnswer::Settled]);
        let place = Place { plugin: "p".into(), name: "b".into() };
        db.stores().bucket_get(&place, &["k".to_owned()]).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("reads leave connections to the rest");
    blocker.rollback().await.unwrap();
    while let Some(read) = reads.join_next().await {
        read.unwrap().unwrap();
    }
}

#[tokio::test]
async fn recordings_that_hang_leave_a_connection_for_claims() {
    let own = Own::new().await;
    let options = DbOptions { max_connections: 2, timeout: Duration::from_secs(60), ..DbOptions::default() };
    let db = Arc::new(own.with(options));
    db.migrate().await.unwrap();
    let host = record();
    db.register_host(&host, LONG).await.unwrap();
    let mut blocker = own.raw.begin().await.unwrap();
    // Written by recordings, and by claims only when they take a task over.
    raw_sql("LOCK TABLE task_attempts").execute(&mut *blocker).await.unwrap();
    let mut recordings = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (db, host, arrival) = (db.clone(), host.id, arrival());
        let claimed = Claimed {
            fence: 1,
            standing: crate::task::settle::Standing {
                attempt: 1,
                max_attempts: 3,
                snoozes: 0,
                child_losses: 0,
                isolated: false,
            },
            at: Utc::now(),
        };
        let settlement = settlement(&arrival, &claimed, completed());
        recordings
            .spawn(async move { db.record(host, &[Recording { arrival, settlement, ran: Duration::ZERO }]).await });
    }
    until_waiting(&own, 1).await;
    let arrival = crate::db::conformance::arrival_with(Options::default(), here());
    let claim = db.claim(steady(host.id), std::slice::from_ref(&arrival));
    let answers = tokio::time::timeout(Duration::from_secs(20), claim).await.expect("a connection is left").unwrap();
    assert!(matches!(answers[0], ClaimAnswer::Run(_)), "{answers:?}");
    blocker.rollback().await.unwrap();
    while let Some(recorded) = recordings.join_next().await {
        assert_eq!(recorded.unwrap().unwrap(), [RecordAnswer::Recorded]);
    }
}
