//! From facts to findings.

use super::*;
use crate::broker::QueueFacts;
use crate::broker::amqp::{Connected, Found, Presence};
use crate::config::Machine;
use crate::db::{
    ConnectionFacts, DbError, FileFacts, HolderFacts, HostRecord, HostRow, LetterFacts, RunningFacts, SchemaFacts,
    ServerFacts, TableFacts, WaitingFacts,
};
use crate::explain::{self, Facts, QueueError, QueueLook, Recorded};
use crate::registry::{PluginInfo, PluginState, VersionInfo};
use crate::task::TaskId;
use std::fmt::Write;
use std::path::Path;

fn now() -> DateTime<Utc> {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

/// The checks as a person reads them.
fn told(checks: impl IntoIterator<Item = Check>) -> String {
    let mut text = String::new();
    for check in checks {
        let _ = writeln!(text, "{} {}: {}", check.status.as_str(), check.name, check.summary);
        for Finding { status, message, remedy } in &check.findings {
            let remedy = remedy.as_deref().unwrap_or("-");
            let _ = writeln!(text, "  {} {message}\n    remedy: {remedy}", status.as_str());
        }
        assert!(
            check.findings.iter().all(|f| f.status == Status::Skipped || f.remedy.is_some()),
            "a finding without a remedy: {check:?}"
        );
        let worst = check.findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok);
        assert_eq!(check.status, worst, "{check:?}");
        assert!(CHECKS.contains(&check.name), "{check:?}");
    }
    text
}

fn server() -> ServerFacts {
    ServerFacts {
        version: "PostgreSQL 15.4".into(),
        encoding: "UTF8".into(),
        tls: Some(false),
        read_only: false,
        database: "agentry".into(),
        role: "agentry".into(),
    }
}

#[test]
fn way_to_the_database_is_judged() {
    let judge = |server: Result<ServerFacts, DbError>, service: Result<(), &str>| {
        database::connection(
            &server,
            service.map_err(str::to_owned),
            "agentry@db:5432/agentry",
            "database.url (env AGENTRY_DATABASE_URL)",
        )
    };
    insta::assert_snapshot!(told([
        judge(Ok(server()), Ok(())),
        judge(Ok(ServerFacts { tls: Some(true), read_only: true, ..server() }), Ok(())),
        judge(Ok(ServerFacts { encoding: "LATIN1".into(), ..server() }), Ok(())),
        judge(Ok(server()), Err("database.url leads to a pooler in transaction mode; use one in session mode")),
        judge(Err(DbError::Refused("password authentication failed for user \"agentry\"".into())), Ok(())),
        judge(Err(DbError::Unavailable("Connection refused".into())), Ok(())),
    ]));
}

#[test]
fn schema_is_judged_against_this_build() {
    let judge = |found, fits: Result<i64, &str>, migrates| {
        let fits = fits.map_err(|why| DbError::Schema(why.into()));
        database::schema(Ok(SchemaFacts { found, known: 16 }), fits, migrates)
    };
    insta::assert_snapshot!(told([
        judge(16, Ok(16), true),
        judge(17, Ok(17), true),
        judge(0, Err("the schema is at version 0"), true),
        judge(14, Err("the schema is at version 14 and agentry 0.1.0 needs version 16"), false),
        judge(18, Err("the schema is at version 18, whose migration 18 needs agentry 0.4.0"), true),
        database::schema(
            Err(DbError::Schema("it is another program's".into())),
            Err(DbError::Schema("the schema holds tables of another program".into())),
            true
        ),
    ]));
}

#[test]
fn clocks_may_differ_by_as_much_as_the_question_took() {
    let at = |seconds: i64| now() + TimeDelta::seconds(seconds);
    insta::assert_snapshot!(told([
        database::clock(at(0), at(0), at(0)),
        database::clock(at(0), at(4), at(5)),
        database::clock(at(0), at(90), at(1)),
        database::clock(at(0), at(-7_200), at(0)),
    ]));
}

#[test]
fn connections_that_are_left_are_those_of_the_least_limit() {
    let facts = ConnectionFacts {
        used: 20,
        used_by_role: 18,
        used_by_database: 19,
        of_server: 97,
        of_role: None,
        of_database: None,
    };
    insta::assert_snapshot!(told([
        database::connections_left(None, 10),
        database::connections_left(Some(facts), 10),
        database::connections_left(Some(ConnectionFacts { of_role: Some(30), ..facts }), 10),
        database::connections_left(Some(ConnectionFacts { used: 97, ..facts }), 10),
        database::connections_left(Some(ConnectionFacts { of_database: Some(20), ..facts }), 10),
    ]));
}

#[test]
fn tables_indexes_and_transactions_are_judged() {
    let table = |table: &str, rows, dead, vacuumed_at| TableFacts {
        table: table.into(),
        rows,
        bytes: 3 << 30,
        index_bytes: 1 << 30,
        dead: Some(dead),
        vacuumed_at,
    };
    let holder = |kind: &str, name: &str, age_seconds| HolderFacts {
        kind: kind.into(),
        name: name.into(),
        detail: "application psql, user me, idle in transaction".into(),
        age_seconds,
    };
    insta::assert_snapshot!(told([
        database::tables_of(&[table("tasks", 10_000_000, 90_000, None)], now()),
        database::tables_of(
            &[table("tasks", 1_000_000, 300_000, Some(now() - TimeDelta::hours(5))), table("hosts", -1, 200_000, None),],
            now()
        ),
        database::indexes_of(&[], "agentry"),
        database::indexes_of(&["tasks_newest".into()], "agentry"),
        database::holders_of(&[]),
        database::holders_of(&[holder("session", "process 7", Some(3))]),
        database::holders_of(&[
            holder("replication slot", "standby_b", None),
            holder("session", "process 7", Some(90_000)),
            holder("prepared transaction", "gid", Some(3_000)),
        ]),
    ]));
}

#[test]
fn embedded_file_is_judged() {
    let facts = FileFacts { bytes: 20 << 20, free_bytes: 0, log_bytes: 1 << 20 };
    let place = "/data/agentry.sqlite";
    insta::assert_snapshot!(told([
        database::file(&facts, Ok(vec![]), place),
        database::file(&facts, Ok(vec!["row 3 missing from index x".into()]), place),
        database::file(&FileFacts { log_bytes: 3 << 30, ..facts }, Err("no response within 5 s".into()), place),
    ]));
}

fn host(name: &str, build: &str, alive: bool) -> HostRow {
    let id = TaskId::from_u128(name.len() as u128);
    let record = HostRecord {
        id,
        name: name.into(),
        build: build.into(),
        settings_digest: "d".into(),
        queues: vec!["default".into()],
        plugins: vec![],
        broken_plugins: vec![],
        slots: 4,
        busy: 1,
        brakes: Some(0),
    };
    let until = if alive { now() + TimeDelta::seconds(20) } else { now() - TimeDelta::minutes(3) };
    HostRow { record, started_at: now(), renewed_at: until - TimeDelta::seconds(30), lease_until: until, alive }
}

#[test]
fn hosts_are_judged_by_leases_builds_plugins_and_running_tasks() {
    let mut broken = host("agentry/b", "0.1.0", true);
    broken.record.broken_plugins = vec!["fetch: it is no component".into()];
    let dead = host("agentry/dead", "0.1.0", false);
    let running = [RunningFacts { host: dead.record.id, tasks: 2 }];
    let unknown = [RunningFacts { host: TaskId::from_u128(99), tasks: 1 }];
    insta::assert_snapshot!(told([
        hosts::hosts(&[host("agentry/a", "0.1.0", true)], &[], now()),
        hosts::hosts(&[], &[], now()),
        hosts::hosts(std::slice::from_ref(&dead), &running, now()),
        hosts::hosts(&[host("agentry/a", "0.2.0", true), broken, dead.clone()], &running, now()),
        hosts::hosts(&[host("agentry/a", "0.1.0", true)], &unknown, now()),
    ]));
}

#[test]
fn tasks_that_wait_for_long_are_named_unless_an_operator_wants_it() {
    let waiting = |code: &str, minutes, tasks| WaitingFacts {
        code: code.into(),
        since: now() - TimeDelta::minutes(minutes),
        tasks,
    };
    let letters = LetterFacts { unpublished: 1_000, oldest: Some(now() - TimeDelta::minutes(2)) };
    insta::assert_snapshot!(told([
        hosts::tasks(&[], LetterFacts::default(), now()),
        hosts::tasks(&[waiting("pending", 4, 7), waiting("paused", 900, 7)], LetterFacts::default(), now()),
        hosts::tasks(
            &[waiting("pending", 60, 1), waiting("backoff", 6, 3), waiting("no_plugin", 3_000, 12)],
            letters,
            now()
        ),
    ]));
}

#[test]
fn topology_is_judged_by_who_should_have_declared_it() {
    let found = |state: Presence| {
        let exchange = Found { kind: "exchange", name: "agentry".into(), state: Presence::Fits };
        Ok(vec![exchange, Found { kind: "queue", name: "agentry.default".into(), state }])
    };
    let refused = "queue \"agentry.default\" in virtual host \"/\" has x-queue-type 'classic', and 'quorum' is needed";
    insta::assert_snapshot!(told([
        broker::topology(found(Presence::Fits), true, true),
        broker::topology(found(Presence::There), false, true),
        broker::topology(found(Presence::Missing), true, false),
        broker::topology(found(Presence::Missing), true, true),
        broker::topology(found(Presence::Missing), false, false),
        broker::topology(found(Presence::Refused(refused.into())), true, false),
        broker::topology(found(Presence::Unknown("no answer".into())), true, false),
        broker::topology(Err("no response within 5 s".into()), true, false),
        broker::connection(
            Ok(Connected {
                version: Some("4.0.5".into()),
                tls: true,
                address: "amqps://u@mq:5671/%2F".into(),
                vhost: "/".into()
            }),
            Some("a memory or disk alarm"),
            "broker.url (default)"
        ),
    ]));
}

/// Judges one queue as `explain` sees it.
fn queue(tasks: Result<(u32, u32), QueueError>, hosts: Vec<HostRow>) -> Check {
    let tasks = tasks.map(|(ready, consumers)| QueueFacts { ready, consumers });
    let facts = Facts {
        id: TaskId::nil(),
        now: now(),
        database: Ok(Recorded { hosts: hosts.clone(), ..Recorded::default() }),
        place: None,
        broker: None,
        refusal: None,
        queues: vec![QueueLook { queue: "default".into(), tasks, returned: Some(0), dead: Some(2) }],
        daemon: None,
        embedded: false,
    };
    broker::queues(&facts.queues, explain::of_queues(&facts), &hosts)
}

#[test]
fn queues_are_judged_against_the_hosts_of_the_database() {
    let live = || vec![host("agentry/a", "0.1.0", true)];
    insta::assert_snapshot!(told([
        queue(Ok((3, 1)), live()),
        queue(Ok((0, 0)), vec![]),
        queue(Ok((3, 0)), vec![]),
        queue(Ok((0, 0)), live()),
        queue(Ok((0, 2)), vec![]),
        queue(Err(QueueError::Refused("it does not exist".into())), vec![]),
    ]));
}

#[test]
fn management_shows_alarms_policies_types_and_strangers() {
    let queue = json!({
        "messages_ready": 1, "messages_unacknowledged": 7, "consumers": 2, "type": "quorum", "policy": "all",
        "effective_policy_definition": {"message-ttl": 60_000, "ha-mode": "all"},
        "consumer_details": [
            {"consumer_tag": "agentry/a/agentry.default#1", "channel_details": {"user": "u", "peer_host": "10.0.0.1"}},
            {"consumer_tag": "ctag-1", "channel_details": {"user": "other", "peer_host": "10.0.0.2"}},
        ],
    });
    let good = json!({"messages_ready": 0, "messages_unacknowledged": 0, "type": "quorum", "consumer_details": []});
    let classic = json!({"messages_ready": 0, "type": "classic"});
    let managed = |queue: &Value, node: Value| management::Managed {
        version: Some("4.0.5".into()),
        nodes: vec![node],
        queues: [("agentry.default".to_owned(), Ok(queue.clone()))].into(),
    };
    let healthy =
        || json!({"name": "rabbit@a", "mem_alarm": false, "disk_free_alarm": false, "running": true, "partitions": []});
    let hosts = [host("agentry/a", "0.1.0", true)];
    insta::assert_snapshot!(told([
        management::judge(&managed(&good, healthy()), &hosts),
        management::judge(&managed(&queue, healthy()), &hosts),
        management::judge(
            &managed(&classic, json!({"name": "rabbit@a", "mem_alarm": true, "disk_free_alarm": true})),
            &hosts
        ),
        management::judge(
            &managed(&good, json!({"name": "rabbit@b", "running": false, "partitions": ["rabbit@a"]})),
            &hosts
        ),
    ]));
}

#[test]
fn plugins_are_judged_by_what_was_loaded() {
    let version = |state, cause: Option<&str>| VersionInfo {
        version: Some("1.0.0".into()),
        state,
        cause: cause.map(str::to_owned),
        digest: None,
        description: String::new(),
        queue: None,
        max_attempts: None,
        imports: vec![],
        grants: BTreeMap::new(),
        recorded_bodies: vec![],
        limits: BTreeMap::new(),
        path: "/plugins/x".into(),
        loaded_at: None,
    };
    let plugin = |name: &str, state, cause: Option<&str>, versions| PluginInfo {
        name: name.into(),
        state,
        cause: cause.map(str::to_owned),
        concurrency: None,
        versions,
    };
    insta::assert_snapshot!(told([
        plugins::judge(&[]),
        plugins::judge(&[
            plugin("good", PluginState::Ready, None, vec![version(PluginState::Ready, None)]),
            plugin("off", PluginState::Disabled, None, vec![version(PluginState::Disabled, None)]),
        ]),
        plugins::judge(&[
            plugin("bad", PluginState::Broken, Some("its component is missing; build it there"), vec![]),
            plugin(
                "old",
                PluginState::Ready,
                None,
                vec![
                    version(PluginState::Ready, Some("plugin.toml is being written")),
                    version(PluginState::Broken, Some("it is no component")),
                ]
            ),
        ]),
    ]));
}

#[test]
fn machine_is_judged_against_the_settings() {
    let machine = Machine { cores: 4, memory_mib: 8_192, mappings: 65_530 };
    let folder = Path::new("/data");
    insta::assert_snapshot!(told([
        machine::disk(Ok((50 << 30, 100 << 30)), 0, folder),
        machine::disk(Ok((500 << 20, 100 << 30)), 1, folder),
        machine::disk(Ok((1 << 20, 100 << 30)), 0, folder),
        machine::disk(Err("/data: Permission denied".into()), 0, folder),
        machine::files(None, 20_000),
        machine::files(Some(1_024), 20_000),
        machine::memory(machine, 4_096, 1_000),
        machine::memory(machine, 8_000, 1_000),
        machine::memory(machine, 9_000, 10_000),
        machine::memory(Machine { mappings: 65_530, ..machine }, 4_096, 10_000),
        machine::memory(Machine { mappings: 10_000, ..machine }, 4_096, 4_096),
    ]));
}

#[test]
fn providers_and_servers_are_judged_by_what_they_list() {
    let list = |names: &[&str]| Ok(Some(names.iter().map(|name| (*name).to_owned()).collect()));
    let models = [("default", "a", "m-1"), ("other", "a", "m-9"), ("local", "b", "m-1")];
    insta::assert_snapshot!(told([
        outside::providers(&[], &[]),
        outside::providers(&[("a".into(), list(&["m-1"])), ("b".into(), Ok(None))], &models),
        outside::providers(&[("a".into(), Err("it rejects the key (status 401)".into()))], &models),
        outside::servers(&[("search".into(), list(&["find"]))]),
        outside::servers(&[("search".into(), Err("the tool server search is not available".into()))]),
    ]));
}

#[test]
fn daemon_is_judged_by_its_readiness() {
    let answers = |ready, reasons: &[(&str, &str)]| Daemon::Answers {
        address: "http://127.0.0.1:7070".into(),
        ready,
        reasons: reasons.iter().map(|(code, message)| ((*code).to_owned(), (*message).to_owned())).collect(),
    };
    insta::assert_snapshot!(told([
        daemon::judge(answers(true, &[])),
        daemon::judge(answers(true, &[("tools", "the tool server x is away")])),
        daemon::judge(answers(false, &[("stalled", "the queue default has messages ready")])),
        daemon::judge(answers(false, &[])),
        daemon::judge(Daemon::Silent { reason: "nothing listens".into(), listens: false }),
        daemon::judge(Daemon::Silent { reason: "no response within 4 s".into(), listens: true }),
    ]));
}

#[tokio::test]
async fn every_check_is_in_every_report_once() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine { cores: 1, memory_mib: 4_096, mappings: 65_530 };
    let examined = async |env: Vec<(&str, &str)>| {
        let sources = crate::config::Sources {
            file: None,
            flags: Vec::new(),
            env: env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            cwd: folder.path().to_owned(),
            machine,
        };
        let daemon = async { Daemon::Silent { reason: "none".into(), listens: false } };
        examine(Subject { settings: Settings::load(&sources), daemon: daemon.boxed(), outside: true }).await
    };
    let unreachable = [
        ("AGENTRY_BROKER_URL", "amqp://u:sekret-1@127.0.0.1:1"),
        ("AGENTRY_DATABASE_URL", "postgres://u:sekret-2@127.0.0.1:1/d"),
        ("AGENTRY_BROKER_MANAGEMENT_URL", "http://u:sekret-3@127.0.0.1:1"),
    ];
    for env in [vec![], unreachable.into(), vec![("AGENTRY_BROKER_PREFIX", "?")]] {
        let report = examined(env.clone()).await;
        assert!(report.checks.iter().map(|check| check.name).eq(CHECKS), "{report:?}");
        let status = |name: &str| report.checks.iter().find(|check| check.name == name).unwrap().status;
        match env.len() {
            0 => assert_eq!(status("database.connection"), Status::Skipped, "{report:?}"),
            1 => assert_eq!((status("settings"), status("plugins")), (Status::Failed, Status::Skipped), "{report:?}"),
            _ => {
                for name in ["database.connection", "broker.connection", "broker.management"] {
                    assert_eq!(status(name), Status::Failed, "{report:?}");
                }
                let text = serde_json::to_string(&report).unwrap();
                assert!(!text.contains("sekret"), "{text}");
            }
        }
        assert!(Duration::from_millis(report.took_ms) < LONGEST);
    }
    assert!(!folder.path().join(".agentry").exists(), "it made a data folder");
}
