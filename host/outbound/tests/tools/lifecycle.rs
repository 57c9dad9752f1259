//! How children live and die.

use crate::*;
use agentry_outbound::tools::ToolSettingsError;

/// The reason of an [`ToolError::Unavailable`].
fn reason(error: ToolError) -> String {
    match error {
        ToolError::Unavailable { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

/// Calls until it works.
async fn works_again(session: &Session) {
    eventually("the server works again", || async { call(session, "echo", json!({"text": "a"})).await.ok() }).await;
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_by_name_and_nothing_starts() {
    let refused = |server: &str, settings: ServerSettings| -> ToolSettingsError {
        Tools::new(BTreeMap::from([(server.to_owned(), settings)])).unwrap_err()
    };
    let stdio = |command: &str| {
        let mut settings = scripted("well");
        if let Transport::Stdio { command: named, .. } = &mut settings.transport {
            *named = command.to_owned();
        }
        settings
    };
    let timed = |start, call, output_bytes| ServerSettings { start, call, output_bytes, ..scripted("well") };
    let second = Duration::from_secs(1);
    for (server, settings, key) in [
        ("Search", scripted("well"), "name"),
        ("search", stdio("no-such-program"), "command"),
        ("search", stdio("/etc/passwd"), "command"),
        ("search", stdio(""), "command"),
        ("search", timed(Duration::ZERO, second, 1), "start_seconds"),
        ("search", timed(second, Duration::ZERO, 1), "call_seconds"),
        ("search", timed(second, second, 0), "output_kib"),
        ("search", within(scripted("well"), "/no/such/folder".into()), "dir"),
        ("search", with_env(scripted("well"), &[("A=B", "c")]), "env"),
    ] {
        let error = refused(server, settings);
        assert_eq!((error.server.as_str(), error.key), (server, key), "{error}");
        assert!(error.to_string().starts_with(&format!("tools.{server}.{key}: ")), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_dies_at_its_start_is_told_with_its_status_and_tried_later() {
    let tools = only(scripted("die_at_start"));
    let session = session(&tools);
    let first = reason(call(&session, "echo", json!({"text": "a"})).await.unwrap_err());
    assert!(first.starts_with("it ended (exit status: 3); it said last: no such database:"), "{first}");
    assert!(first.contains("; it is tried again in "), "{first}");
    // While it waits, callers hear so at once.
    let second = reason(session.list(later()).await.unwrap_err());
    assert!(second.contains("it is tried again in "), "{second}");
    let health = tools.health();
    let trouble = health[0].trouble.as_deref().unwrap();
    assert!(trouble.starts_with("it ended (exit status: 3); it said last: no such database"), "{trouble}");
    eventually("it is tried again and again", || async { (tools.health()[0].restarts >= 2).then_some(()) }).await;
}

#[tokio::test]
async fn a_server_that_never_answers_initialize_is_given_up_at_its_time_out_and_ended() {
    let mut settings = scripted("mute");
    settings.start = Duration::from_millis(700);
    let tools = only(settings);
    let began = Instant::now();
    let told = reason(session(&tools).list(later()).await.unwrap_err());
    assert!(told.starts_with("it did not answer initialize within 700ms (exit status: 0)"), "{told}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_caller_waits_for_a_start_no_longer_than_it_may() {
    let tools = only(scripted("mute"));
    let limit = Duration::from_millis(300);
    match session(&tools).list(Instant::now() + limit).await {
        Err(ToolError::TimedOut { server, limit: told, .. }) => {
            assert_eq!(server, "it");
            assert!(told <= limit);
        }
        other => panic!("{other:?}"),
    }
    tools.close().await;
}

#[tokio::test]
async fn a_server_that_comes_back_is_well_again() {
    let folder = tempfile::tempdir().unwrap();
    let tools = only(within(scripted("die_once"), folder.path().to_owned()));
    let session = session(&tools);
    reason(session.list(later()).await.unwrap_err());
    works_again(&session).await;
    let health = &tools.health()[0];
    assert_eq!((health.trouble.as_deref(), health.restarts), (None, 1));
}

#[tokio::test]
async fn calls_under_way_when_it_dies_fail_and_are_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("waiting");
    let tools = only(scripted("well"));
    let session = session(&tools);
    let die = async {
        eventually("the call reaches the server", || async { note.exists().then_some(()) }).await;
        call(&session, "die", json!({"code": 9})).await
    };
    let (waited, died) = tokio::join!(call(&session, "wait", json!({"note": note})), die);
    for error in [waited.unwrap_err(), died.unwrap_err()] {
        let told = reason(error);
        assert!(told.contains("it ended before it answered; whether it did what it was asked is not known"), "{told}");
    }
    works_again(&session).await;
    assert_eq!(text(&session, "count", json!({"of": "die"})).await, "0");
    assert_eq!(text(&session, "count", json!({"of": "wait"})).await, "0");
    assert_eq!(tools.health()[0].restarts, 1);
}

#[tokio::test]
async fn a_message_of_a_hundred_megabytes_ends_the_session_and_not_the_memory() {
    let tools = only(scripted("well"));
    let session = session(&tools);
    let pid = Watched::new(&whoami(&session).await["pid"]);
    let told = reason(call(&session, "long_line", json!({})).await.unwrap_err());
    assert!(told.starts_with("it sent a message of more than 2228224 bytes"), "{told}");
    pid.ended().await;
    let peak = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    assert!(peak.parse::<u64>().unwrap() < 200 << 10, "the peak of memory is {peak} KiB");
    works_again(&session).await;
}

#[tokio::test]
async fn a_server_that_reads_nothing_is_given_up_and_started_again() {
    let mut settings = scripted("well");
    settings.call = Duration::from_secs(1);
    let tools = only(settings);
    let session = session(&tools);
    let child = Watched::new(&whoami(&session).await["pid"]);
    assert!(matches!(call(&session, "stall", json!({})).await, Err(ToolError::TimedOut { .. })));
    // More than a pipe holds.
    let much = call(&session, "echo", json!({"text": "x".repeat(1 << 20)})).await;
    assert!(matches!(much, Err(ToolError::TimedOut { .. } | ToolError::Unavailable { .. })), "{much:?}");
    let trouble = eventually("it is given up", || async { tools.health()[0].trouble.clone() }).await;
    assert!(trouble.starts_with("it did not read its input for 1s"), "{trouble}");
    child.ended().await;
    works_again(&session).await;
}

#[tokio::test]
async fn a_server_that_asks_without_end_and_reads_no_answer_is_given_up() {
    let tools = only(scripted("well"));
    let session = session(&tools);
    let child = Watched::new(&whoami(&session).await["pid"]);
    let told = reason(call(&session, "pester", json!({})).await.unwrap_err());
    assert!(told.starts_with("it asks without end and hears no answer"), "{told}");
    child.ended().await;
    works_again(&session).await;
}

#[tokio::test]
async fn closing_ends_the_child_and_everything_that_it_started() {
    let tools = only(scripted("well"));
    let session = session(&tools);
    let child = Watched::new(&whoami(&session).await["pid"]);
    let grandchild = Watched::new(&object(&session, "fork", json!({})).await);
    assert!(!child.is_gone() && !grandchild.is_gone());
    tools.close().await;
    assert!(child.is_gone(), "the child is left after close");
    grandchild.ended().await;
    let told = reason(call(&session, "echo", json!({"text": "a"})).await.unwrap_err());
    assert_eq!(told, "the host is shutting down");
    let late = reason(tools.session("late", granted("it", &["*"])).list(later()).await.unwrap_err());
    assert_eq!(late, "the host is shutting down");
}

#[tokio::test]
async fn a_grandchild_does_not_outlive_a_server_that_dies() {
    let tools = only(scripted("well"));
    let session = session(&tools);
    let grandchild = Watched::new(&object(&session, "fork", json!({})).await);
    reason(call(&session, "die", json!({})).await.unwrap_err());
    grandchild.ended().await;
}

#[tokio::test]
async fn a_child_that_hears_neither_the_end_of_its_input_nor_a_signal_is_killed() {
    let tools = only(scripted("deaf"));
    let child = Watched::new(&whoami(&session(&tools)).await["pid"]);
    let began = Instant::now();
    tools.close().await;
    assert!(child.is_gone(), "the child is left after close");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(4), "it had no time to go by itself: {took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test]
async fn calls_under_way_fail_when_the_host_closes() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("waiting");
    let tools = only(scripted("well"));
    let session = session(&tools);
    let close = async {
        eventually("the call reaches the server", || async { note.exists().then_some(()) }).await;
        tools.close().await;
    };
    let (waited, ()) = tokio::join!(call(&session, "wait", json!({"note": note})), close);
    assert!(reason(waited.unwrap_err()).contains("before it answered"));
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_children() {
    let tools = only(scripted("deaf"));
    let session = session(&tools);
    let child = Watched::new(&whoami(&session).await["pid"]);
    drop(tools);
    assert!(!child.is_gone(), "a session is left that may use it");
    drop(session);
    child.ended().await;
}

#[test]
fn a_runtime_that_ends_takes_the_children_along() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let (tools, pids) = first.block_on(async {
        let tools = only(scripted("deaf"));
        let session = session(&tools);
        let child = whoami(&session).await["pid"].clone();
        let grandchild = object(&session, "fork", json!({})).await;
        (tools, [child, grandchild])
    });
    let watched = pids.map(|pid| Watched::new(&pid));
    drop(first);
    runtime().block_on(async {
        for process in &watched {
            process.ended().await;
        }
    });
    drop(tools);
}
