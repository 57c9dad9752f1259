use super::*;
use crate::db::HostRecord;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_000_000 + seconds, 0).unwrap()
}

fn waits(queue: &str, code: WaitCode, since: i64) -> WaitingTask {
    WaitingTask { id: uuid::Uuid::now_v7(), queue: queue.into(), code, since: at(since) }
}

#[test]
fn tasks_are_grouped_by_queue_and_code_and_those_beyond_the_time_are_counted() {
    let tasks = vec![
        waits("a", WaitCode::NoPlugin, 90),
        waits("a", WaitCode::NoPlugin, 10),
        waits("a", WaitCode::NoPlugin, 40),
        waits("a", WaitCode::Queued, 99),
        waits("b", WaitCode::NoPlugin, 0),
    ];
    let found = WaitingNow { now: at(100), tasks: tasks.clone(), ..WaitingNow::default() };
    let by = groups(&found, Duration::from_secs(60));
    let of = |queue: &str, code| by[&(queue.to_owned(), code)].clone();
    assert_eq!(of("a", WaitCode::NoPlugin), Group { tasks: 3, overdue: 2, oldest: tasks[1].id, since: at(10) });
    assert_eq!((of("a", WaitCode::Queued).overdue, of("b", WaitCode::NoPlugin).overdue), (0, 1));
    assert!(groups(&found, Duration::ZERO).values().all(|group| group.overdue == 0), "it is turned off");
}

#[test]
fn one_host_of_each_build_warns() {
    let host = |n: u128, build: &str, alive| HostRow {
        record: HostRecord {
            id: uuid::Uuid::from_u128(n),
            name: String::new(),
            build: build.into(),
            settings_digest: String::new(),
            queues: vec![format!("q{n}")],
            plugins: vec![],
            broken_plugins: vec![],
            slots: 1,
            busy: 0,
            brakes: None,
        },
        started_at: at(0),
        renewed_at: at(0),
        lease_until: at(0),
        alive,
    };
    let hosts = [host(1, "old", true), host(2, "new", false), host(4, "new", true), host(3, "new", true)];
    let first: Vec<u128> = (1..=5).filter(|n| is_first(uuid::Uuid::from_u128(*n), &hosts)).collect();
    assert_eq!(first, [1, 3]);
    assert_eq!(queues(&["q1".into(), "own".into()], &hosts), ["q1", "own", "q2", "q4", "q3"]);
}

#[test]
fn the_same_is_said_once_in_a_while_and_again_after_it_was_over() {
    let (mut said, start) = (Said::default(), Instant::now());
    let subject = Subject::Tasks(("a".into(), WaitCode::NoPlugin));
    assert!(said.is_due(&subject, start));
    said.say(subject.clone(), start);
    assert!(!said.is_due(&subject, start + AGAIN / 2) && said.is_due(&subject, start + AGAIN));
    assert!(said.forget(&BTreeSet::from([subject.clone()])).is_empty());
    assert_eq!(said.forget(&BTreeSet::new()), std::slice::from_ref(&subject));
    assert!(said.is_due(&subject, start));
    let queue = Subject::Queue("a".into());
    let after = Duration::from_secs(60);
    assert!(!said.lasts(&queue, after, start) && said.lasts(&queue, after, start + after));
    said.forget(&BTreeSet::new());
    assert!(!said.lasts(&queue, after, start + after), "it was consumed in between");
}
