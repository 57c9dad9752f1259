//! Hosts and their leases.

use super::subject::*;
use crate::db::HostRecord;
use std::time::Duration;

pub async fn a_lease_is_renewed_and_lapses(s: &Subject) {
    let host = record();
    s.db.register_host(&host, LONG).await.unwrap();
    assert!(!s.db.renew_lease(&host, LONG).await.unwrap().lapsed);
    s.db.end_lease(host.id).await.unwrap();
    assert!(!s.db.hosts().await.unwrap()[0].alive);
    assert!(s.db.renew_lease(&host, LONG).await.unwrap().lapsed);
    assert!(s.db.hosts().await.unwrap()[0].alive);
    assert!(!s.db.renew_lease(&host, Duration::ZERO).await.unwrap().lapsed);
    s.set("UPDATE hosts SET lease_until = '2020-01-01T00:00:00.000000Z'").await;
    assert!(s.db.renew_lease(&host, LONG).await.unwrap().lapsed);
    // Its row is gone.
    assert!(s.db.renew_lease(&record(), LONG).await.unwrap().lapsed);
    s.db.end_lease(id()).await.unwrap();
}

pub async fn hosts_are_listed_with_what_they_say(s: &Subject) {
    let first = record();
    s.db.register_host(&first, LONG).await.unwrap();
    let second = HostRecord { name: "agentry/0.1.0/there\0/2".into(), ..record() };
    s.db.register_host(&second, LONG).await.unwrap();
    let changed = HostRecord { busy: 3, plugins: vec!["a@1.0.0".into(), "b@2.0.0".into()], ..first.clone() };
    s.db.renew_lease(&changed, LONG).await.unwrap();
    let hosts = s.db.hosts().await.unwrap();
    assert_eq!(hosts.iter().map(|h| h.record.id).collect::<Vec<_>>(), [second.id, first.id]);
    assert_eq!(hosts[1].record, changed);
    assert_eq!(hosts[0].record.name, "agentry/0.1.0/there\u{FFFD}/2");
    assert!(hosts[1].renewed_at > hosts[1].started_at && hosts[1].lease_until > hosts[1].renewed_at);
    // Ended within the last day: still listed. Longer ago: not.
    s.db.end_lease(first.id).await.unwrap();
    assert_eq!(s.db.hosts().await.unwrap().iter().map(|h| h.alive).collect::<Vec<_>>(), [true, false]);
    s.set(&format!("UPDATE hosts SET lease_until = '2020-01-01T00:00:00.000000Z' WHERE id = '{}'", first.id)).await;
    assert_eq!(s.db.hosts().await.unwrap().len(), 1);
    assert!((s.db.ping().await.unwrap() - chrono::Utc::now()).abs() < chrono::TimeDelta::minutes(5));
}
