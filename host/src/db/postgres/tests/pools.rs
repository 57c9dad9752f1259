//! Connections apart by use.

use super::*;
use crate::db::conformance::{LONG, here, record, steady};

/// A database with `database.pool = 2`, and a registered host.
async fn with_two_connections() -> (Own, Arc<PostgresDb>, crate::db::HostRecord) {
    let own = Own::new().await;
    let options = DbOptions { max_connections: 2, timeout: Duration::from_secs(60), ..DbOptions::default() };
    let db = Arc::new(own.with(options));
    db.migrate().await.unwrap();
    let host = record();
    db.register_host(&host, LONG).await.unwrap();
    (own, db, host)
}

#[tokio::test]
async fn reads_that_hang_keep_neither_the_lease_nor_tasks_nor_guests_waiting() {
    let (own, db, host) = with_two_connections().await;
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
        db.task(arrival.message.id, Fields::ALL)
            .await
            .unwrap()
            .expect("a row: lists leave connections to single reads");
        db.stores().bucket_get(&place, &["k".to_owned()]).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("reads leave connections to the rest");
    blocker.rollback().await.unwrap();
    while let Some(read) = reads.join_next().await {
        read.unwrap().unwrap();
    }
}

/// A proxy before the server. Each change of the sender makes the connections of that moment fall silent, while both sides remain
/// connected.
async fn silenced(server: url::Url) -> (url::Url, tokio::sync::watch::Sender<u32>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut way = server.clone();
    way.set_host(Some("127.0.0.1")).unwrap();
    way.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    let (silence, _) = tokio::sync::watch::channel(0);
    let silenced = silence.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let address = (server.host_str().unwrap().to_owned(), server.port().unwrap_or(5_432));
            let mut silent = silenced.subscribe();
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(address).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    _ = silent.changed() => std::future::pending().await,
                }
            });
        }
    });
    (way, silence)
}

#[tokio::test]
async fn silent_connection_of_the_lease_is_replaced() {
    let own = Own::new().await;
    let (way, silence) = silenced(at(&own.server, &own.name).parse().unwrap()).await;
    let options = DbOptions { max_connections: 2, timeout: Duration::from_secs(20), ..DbOptions::default() };
    let db = PostgresDb::connect(way.as_str(), &options).unwrap();
    db.migrate().await.unwrap();
    let host = record();
    db.register_host(&host, LONG).await.unwrap();
    db.renew_lease(&host, LONG).await.unwrap();
    silence.send_modify(|times| *times += 1);
    // While the connection is given back, which tries it once more.
    db.renew_lease(&host, LONG).await.expect("the lease has a connection that answers");
    tokio::time::sleep(Duration::from_millis(300)).await;
    silence.send_modify(|times| *times += 1);
    // While it is in the pool.
    db.renew_lease(&host, LONG).await.expect("the lease has a connection that answers again");
}

#[tokio::test]
async fn writers_of_a_store_outwait_a_host_that_was_stopped() {
    let own = Own::new().await;
    let options = DbOptions { timeout: Duration::from_secs(2), ..DbOptions::default() };
    let (stopped, db) = (own.with(options.clone()), own.with(options));
    own.with(Own::options()).migrate().await.unwrap();
    // It has locked the plugin's row, and does nothing more.
    let mut tx = stopped.lines.stores.pool.begin().await.unwrap();
    buckets::enter(&mut tx, "p", None).await.unwrap();
    let place = Place { plugin: "p".into(), name: "b".into() };
    let pairs = vec![("k".to_owned(), b"v".to_vec())];
    db.stores()
        .bucket_set(&place, pairs, &StoreLimits::default(), None)
        .await
        .expect("its transaction is ended")
        .unwrap();
    let woken = raw_sql("SELECT 1").execute(&mut *tx).await.unwrap_err();
    assert!(crate::db::fault::Fault::from(woken).is_connection_lost(), "and it connects anew");
}

#[tokio::test]
async fn recordings_that_hang_leave_a_connection_for_claims() {
    let (own, db, host) = with_two_connections().await;
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
