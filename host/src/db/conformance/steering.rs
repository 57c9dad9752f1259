//! Brakes of operators, and the record of what operators changed.

use super::subject::*;
use crate::db::*;
use crate::task::{State, WaitCode};

fn brake(kind: BrakeKind, target: &str, set: bool) -> BrakeChange {
    BrakeChange { kind, target: target.into(), set, by: "ops".into(), reason: set.then(|| "a bad release".into()) }
}

fn entry(actor: &str, action: &str) -> AuditEntry {
    let target = "x".into();
    AuditEntry { actor: actor.into(), action: action.into(), target, count: Some(3), reason: Some("a\0b".into()) }
}

fn last_five(filter: AuditFilter) -> AuditFilter {
    AuditFilter { limit: 5, ..filter }
}

pub async fn brakes_hold_until_they_are_released(s: &Subject) {
    let steering = s.db.steering();
    assert_eq!(steering.brakes().await.unwrap(), Brakes::default());
    let set = async |change: &BrakeChange| s.db.steering().set_brake(change).await.unwrap();
    assert!(!set(&brake(BrakeKind::Queue, "q", false)).await.changed, "it does not hold");
    let answer = set(&brake(BrakeKind::Queue, "q", true)).await;
    assert!(answer.changed && answer.brakes.change == 1, "{answer:?}");
    let held = answer.brakes.queue("q").unwrap();
    assert_eq!((held.by.as_str(), held.reason.as_deref()), ("ops", Some("a bad release")));
    let again = set(&BrakeChange { by: "other".into(), reason: None, ..brake(BrakeKind::Queue, "q", true) }).await;
    assert_eq!(again, BrakeAnswer { changed: false, brakes: answer.brakes.clone() });
    let reason = BrakeChange { by: "other".into(), reason: Some("b\0".into()), ..brake(BrakeKind::Queue, "q", true) };
    let changed = set(&reason).await;
    let now = changed.brakes.queue("q").unwrap();
    assert_eq!((now.by.as_str(), now.reason.as_deref(), now.since), ("other", Some("b\u{FFFD}"), held.since));
    for (kind, target) in [(BrakeKind::Plugin, "a@1.0.0"), (BrakeKind::Host, "h"), (BrakeKind::Plugin, "a")] {
        assert!(set(&brake(kind, target, true)).await.changed);
    }
    let all = steering.brakes().await.unwrap();
    let targets: Vec<_> = all.held.iter().map(|brake| brake.target.as_str()).collect();
    assert_eq!((all.change, targets), (5, vec!["q", "a", "a@1.0.0", "h"]));
    assert!(set(&brake(BrakeKind::Queue, "q", false)).await.changed);
    assert!(!set(&brake(BrakeKind::Queue, "q", false)).await.changed);
    // Another connection sees the same, and so does a host that asks for what concerns it.
    let other = s.back_door.open();
    let news = other.steering().news(id()).await.unwrap();
    assert_eq!((news.to_end, news.brakes.change, news.brakes.held.len()), (Vec::new(), 6, 3));
    let actions = steering.audited(&last_five(AuditFilter::default())).await.unwrap();
    let actions: Vec<_> = actions.rows.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(actions, ["queue.resume", "plugin.disable", "host.drain", "plugin.disable", "queue.pause"]);
}

pub async fn recorded_changes_are_paged_filtered_and_forgotten(s: &Subject) {
    let steering = s.db.steering();
    for at in 0..7 {
        steering.audit(&entry(if at % 2 == 0 { "a" } else { "b" }, "task.cancel")).await.unwrap();
    }
    steering.audit(&AuditEntry { count: None, reason: None, ..entry("a", "prune") }).await.unwrap();
    let first = steering.audited(&last_five(AuditFilter::default())).await.unwrap();
    assert!(first.more && first.rows.len() == 5 && first.rows.is_sorted_by_key(|row| std::cmp::Reverse(row.id)));
    assert_eq!((first.rows[0].action.as_str(), first.rows[0].count, &first.rows[0].reason), ("prune", None, &None));
    assert_eq!((first.rows[1].count, first.rows[1].reason.as_deref()), (Some(3), Some("a\u{FFFD}b")));
    let next = AuditFilter { before: first.next(|row| row.id), ..last_five(AuditFilter::default()) };
    let next = steering.audited(&next).await.unwrap();
    assert_eq!((next.more, next.rows.len()), (false, 3));
    let only = async |filter: AuditFilter| s.db.steering().audited(&last_five(filter)).await.unwrap().rows.len();
    assert_eq!(only(AuditFilter { action: Some("prune".into()), ..AuditFilter::default() }).await, 1);
    assert_eq!(only(AuditFilter { actor: Some("b".into()), ..AuditFilter::default() }).await, 3);
    assert_eq!(only(AuditFilter { since: Some(at("2100-01-01T00:00:00Z")), ..AuditFilter::default() }).await, 0);
    assert_eq!(steering.prune_audit(LONG, 5).await.unwrap(), 0);
    assert_eq!(steering.prune_audit(Duration::ZERO, 5).await.unwrap(), 5);
    assert_eq!(steering.prune_audit(Duration::ZERO, 5).await.unwrap(), 3);
    // A brake that was released goes too, but for the last change, whose number the next one exceeds.
    for set in [true, false] {
        steering.set_brake(&brake(BrakeKind::Queue, "q", set)).await.unwrap();
        steering.set_brake(&brake(BrakeKind::Queue, "r", set)).await.unwrap();
    }
    steering.prune_audit(Duration::ZERO, 100).await.unwrap();
    assert_eq!(steering.set_brake(&brake(BrakeKind::Queue, "q", true)).await.unwrap().brakes.change, 5);
}

pub async fn what_a_brake_holds_is_neither_offered_nor_ended_as_unserved(s: &Subject) {
    let host = s.host().await;
    let park = |plugin: &str, queue: &str| {
        let arrival = arrival_of(message(id(), plugin, "1", Default::default()), elsewhere(WaitCode::NoPlugin));
        crate::task::Arrival { queue: queue.into(), ..arrival }
    };
    let (of_queue, of_plugin, of_version) = (park("x", "held"), park("y@^1", "default"), park("z", "default"));
    let free = park("x", "default");
    s.db.claim(steady(host), &[of_queue.clone(), of_plugin.clone(), of_version.clone(), free.clone()]).await.unwrap();
    let steering = s.db.steering();
    let brakes = [(BrakeKind::Queue, "held"), (BrakeKind::Plugin, "y"), (BrakeKind::Plugin, "z@1.0.0")];
    for (kind, target) in brakes {
        steering.set_brake(&brake(kind, target, true)).await.unwrap();
    }
    let names = ["x".to_owned(), "y".to_owned()];
    let look = ParkedLook { except_queues: vec!["held".into(), "other".into()], ..parked_of(&names, true, 10) };
    let offered: Vec<_> = s.db.parked(&look).await.unwrap().tasks.iter().map(|task| task.message.id).collect();
    assert_eq!(offered, [of_plugin.message.id, free.message.id]);
    assert_eq!(s.db.fail_unknown(Duration::ZERO, 10).await.unwrap(), 1);
    assert_eq!(s.row(free.message.id).await.state, State::Failed);
    for (kind, target) in brakes {
        steering.set_brake(&brake(kind, target, false)).await.unwrap();
    }
    // Time under a brake is no time in which it waited in vain.
    s.set("UPDATE tasks SET waiting_since = '2020-01-01T00:00:00.000000Z' WHERE waiting_since IS NOT NULL").await;
    assert_eq!(s.db.fail_unknown(LEASE, 10).await.unwrap(), 0);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(s.db.fail_unknown(Duration::ZERO, 10).await.unwrap(), 3);
}

pub async fn waiting_tasks_are_counted_by_queue(s: &Subject) {
    let mut tasks: Vec<NewTask> = (0..3).map(|_| new_task(id(), Default::default())).collect();
    tasks[0].queue = "other".into();
    s.db.submit(&tasks).await.unwrap();
    let host = s.host().await;
    s.end(host, &arrival(), completed()).await;
    let counted = s.db.steering().waiting(10).await.unwrap();
    assert_eq!(counted, WaitingByQueue { queues: vec![("default".into(), 2), ("other".into(), 1)], more: false });
    let counted = s.db.steering().waiting(2).await.unwrap();
    assert!(counted.more && counted.queues.iter().map(|(_, waiting)| waiting).sum::<i64>() == 2, "{counted:?}");
}

pub async fn host_says_which_brakes_it_heeds(s: &Subject) {
    for brakes in [None, Some(7)] {
        let host = HostRecord { brakes, ..record() };
        s.db.register_host(&host, LONG).await.unwrap();
        let listed = s.db.hosts().await.unwrap();
        assert_eq!(listed.iter().find(|row| row.record.id == host.id).unwrap().record.brakes, brakes);
    }
}
