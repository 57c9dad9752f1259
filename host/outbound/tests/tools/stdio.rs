//! What a plugin sees of a server that is a child process.

use crate::*;
use agentry_outbound::tools::{ServerHealth, Tool};

fn names(tools: &[Tool]) -> Vec<&str> {
    tools.iter().map(|tool| tool.name.as_str()).collect()
}

#[tokio::test]
async fn the_tools_that_are_granted_are_listed_in_order_with_their_schemas() {
    let tools =
        Tools::new([("b".to_owned(), scripted("well")), ("a".to_owned(), scripted("well"))].into_iter().collect())
            .unwrap();
    let grant = [("a", vec!["echo", "add", "no_such"]), ("b", vec!["whoami"]), ("c", vec!["*"])];
    let grant = grant.map(|(server, names)| (server.to_owned(), names.into_iter().map(str::to_owned).collect()));
    let session = tools.session("planner", grant.into_iter().collect());
    let list = session.list(later()).await.unwrap();
    let found: Vec<_> = list.iter().map(|tool| format!("{}.{}", tool.server, tool.name)).collect();
    assert_eq!(found, ["a.add", "a.echo", "b.whoami"]);
    assert_eq!(list[1].description, "Says it again.\\u{1b}[31m");
    let schema: Value = serde_json::from_str(&list[1].input_schema).unwrap();
    assert_eq!(schema["required"], json!(["text"]));
    tools.close().await;
}

#[tokio::test]
async fn every_page_of_tools_is_asked_for() {
    let (whole, paged) = (only(scripted("well")), only(scripted("pages")));
    let list = session(&paged).list(later()).await.unwrap();
    assert!(list.len() > 20);
    assert_eq!(list, session(&whole).list(later()).await.unwrap());
}

#[tokio::test]
async fn a_list_without_measure_is_the_servers_fault() {
    for (mode, words) in [
        ("many", "it lists more than 1000 tools"),
        ("no_list", "it refused tools/list: -32601 no\\u{7} tools here"),
        ("odd_list", "its answer to tools/list is none of the protocol"),
    ] {
        match session(&only(scripted(mode))).list(later()).await {
            Err(ToolError::Unavailable { server, reason }) => {
                assert_eq!(server, "it");
                assert!(reason.contains(words), "{mode}: {reason}");
            }
            other => panic!("{mode} gave {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_call_gives_text_structure_and_other_blocks() {
    let tools = only(scripted("well"));
    let session = session(&tools);
    let sum = call(&session, "add", json!({"a": 2, "b": 3})).await.unwrap();
    assert_eq!(sum.content, [Content::Text("5".into())]);
    assert_eq!((sum.structured.as_deref(), sum.failed), (Some(r#"{"sum":5}"#), false));

    let image = call(&session, "image", json!({})).await.unwrap();
    assert_eq!(image.content[0], Content::Text("see".into()));
    let Content::Other(block) = &image.content[1] else { panic!("{image:?}") };
    let block: Value = serde_json::from_str(block).unwrap();
    assert_eq!(block, json!({"type": "image", "data": "aGk=", "mimeType": "image/png"}));

    let failed = call(&session, "fail", json!({})).await.unwrap();
    assert!(failed.failed);
    assert_eq!(failed.content, [Content::Text("it did not work".into())]);
}

#[tokio::test]
async fn what_is_not_granted_or_not_there_is_told_apart_and_starts_nothing_it_need_not() {
    let tools = only(scripted("well"));
    let some = tools.session("planner", granted("it", &["echo", "no_such"]));
    let denied = some.call("it", "whoami", "{}", later()).await.unwrap_err();
    assert_eq!(denied, ToolError::Denied { server: "it".into(), tool: "whoami".into() });
    let other = some.call("elsewhere", "echo", "{}", later()).await.unwrap_err();
    assert!(matches!(other, ToolError::Denied { .. }), "{other:?}");
    assert_eq!(tools.health(), [], "a refused call started the server");
    let unknown = some.call("it", "no_such", "{}", later()).await.unwrap_err();
    assert_eq!(unknown, ToolError::Unknown { server: "it".into(), tool: "no_such".into() });
    let nowhere = tools.session("planner", granted("nowhere", &["*"]));
    let unknown = nowhere.call("nowhere", "echo", "{}", later()).await.unwrap_err();
    assert_eq!(unknown, ToolError::Unknown { server: "nowhere".into(), tool: "echo".into() });
}

#[tokio::test]
async fn arguments_that_do_not_fit_never_reach_the_server() {
    let tools = only(scripted("well"));
    let session = session(&tools);
    for (arguments, place) in
        [(r#"{"text": 7}"#, "at \"/text\""), ("{}", "text"), ("[]", "no JSON object"), ("", "no JSON")]
    {
        match session.call("it", "echo", arguments, later()).await {
            Err(ToolError::InvalidArguments { reason, .. }) => assert!(reason.contains(place), "{reason}"),
            other => panic!("{arguments} gave {other:?}"),
        }
    }
    assert_eq!(text(&session, "count", json!({"of": "echo"})).await, "0");
}

#[tokio::test]
async fn a_schema_with_a_reference_outside_is_refused_and_not_followed() {
    let tools = only(scripted("bad_schema"));
    match call(&session(&tools), "echo", json!({"text": "a"})).await {
        Err(ToolError::Unavailable { reason, .. }) => assert!(reason.contains("input schema that it gives for echo")),
        other => panic!("{other:?}"),
    }
    assert_eq!(text(&session(&tools), "count", json!({"of": "echo"})).await, "0");
}

#[tokio::test]
async fn a_protocol_error_is_told_with_its_code_and_printable() {
    let tools = only(scripted("well"));
    let refused = call(&session(&tools), "refuse", json!({})).await.unwrap_err();
    let reason = "-32050: not\\u{1b}[2J today ".to_owned();
    assert_eq!(refused, ToolError::Failed { server: "it".into(), tool: "refuse".into(), reason });
}

#[tokio::test]
async fn structure_that_breaks_its_own_schema_is_a_failure() {
    match call(&session(&only(scripted("well"))), "lie", json!({})).await {
        Err(ToolError::Failed { reason, .. }) => assert!(reason.contains("at \"/sum\""), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_result_of_another_shape_breaks_the_protocol_and_not_the_session() {
    let tools = only(scripted("well"));
    let session = session(&tools);
    match call(&session, "odd", json!({})).await {
        Err(ToolError::Failed { reason, .. }) => {
            assert!(reason.contains("the call was made, but its result is a string"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(text(&session, "echo", json!({"text": "on"})).await, "on");
    assert_eq!(tools.health()[0].restarts, 0);
}

#[tokio::test]
async fn an_output_as_long_as_allowed_is_given_and_a_longer_one_refused() {
    let tools = only(scripted("well"));
    let session = session(&tools);
    let limit = 64 << 10;
    assert_eq!(text(&session, "huge", json!({"bytes": limit})).await.len(), limit);
    let refused = call(&session, "huge", json!({"bytes": limit + 1})).await.unwrap_err();
    assert_eq!(refused, ToolError::TooLarge { server: "it".into(), tool: "huge".into(), limit: limit as u64 });
    assert_eq!(text(&session, "echo", json!({"text": "on"})).await, "on");
}

#[tokio::test]
async fn garbage_between_messages_is_passed_over() {
    let tools = only(scripted("well"));
    assert_eq!(text(&session(&tools), "garbage", json!({})).await, "after garbage");
}

#[tokio::test]
async fn a_flood_of_standard_error_blocks_nobody() {
    let tools = only(scripted("well"));
    assert_eq!(text(&session(&tools), "flood", json!({})).await, "after the flood");
}

#[tokio::test]
async fn a_server_that_asks_for_anything_is_refused() {
    let tools = only(scripted("well"));
    let codes = object(&session(&tools), "sample", json!({})).await;
    assert_eq!(codes, json!({"s": -32601, "r": -32601, "e": -32601, "p": {}}));
}

#[tokio::test]
async fn a_list_that_changes_is_asked_for_again() {
    let tools = only(scripted("well"));
    let session = session(&tools);
    let before = session.list(later()).await.unwrap();
    assert!(!names(&before).contains(&"grown"));
    let unknown = call(&session, "grown", json!({})).await.unwrap_err();
    assert!(matches!(unknown, ToolError::Unknown { .. }), "{unknown:?}");
    text(&session, "grow", json!({})).await;
    assert!(names(&session.list(later()).await.unwrap()).contains(&"grown"));
    assert_eq!(text(&session, "grown", json!({})).await, "grown up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_over_one_session_run_at_the_same_time() {
    let tools = only(scripted("well"));
    let session = session(&tools);
    let calls = (0..20).map(|_| text(&session, "meet", json!({"of": 20})));
    assert_eq!(futures_util::future::join_all(calls).await, ["met"; 20]);
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_cancelled_at_the_server_and_the_session_goes_on() {
    let mut settings = scripted("well");
    settings.call = Duration::from_secs(2);
    let tools = only(settings);
    let session = session(&tools);
    let late = call(&session, "wait", json!({})).await.unwrap_err();
    assert_eq!(late, ToolError::TimedOut { server: "it".into(), limit: Duration::from_secs(2), sent: true });
    let reasons = object(&session, "cancelled", json!({})).await;
    assert_eq!(reasons.as_array().unwrap().len(), 1);
    assert_eq!(tools.health(), [ServerHealth { server: "it".into(), trouble: None, restarts: 0 }]);
}

#[tokio::test]
async fn a_deadline_before_the_servers_own_time_out_holds() {
    let tools = only(scripted("well"));
    let session = session(&tools);
    session.list(later()).await.unwrap();
    let soon = Instant::now() + Duration::from_millis(200);
    match session.call("it", "wait", "{}", soon).await {
        Err(ToolError::TimedOut { limit, .. }) => assert!(limit <= Duration::from_millis(200), "{limit:?}"),
        other => panic!("{other:?}"),
    }
    object(&session, "cancelled", json!({})).await;
    let never = session.call("it", "echo", r#"{"text": "a"}"#, Instant::now()).await.unwrap_err();
    assert_eq!(never, ToolError::TimedOut { server: "it".into(), limit: Duration::ZERO, sent: false });
    assert_eq!(text(&session, "count", json!({"of": "echo"})).await, "0", "it was sent all the same");
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled_at_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("waiting");
    let tools = only(scripted("well"));
    let session = session(&tools);
    {
        let waiting = call(&session, "wait", json!({"note": note}));
        let noted = eventually("the call reaches the server", || async { note.exists().then_some(()) });
        tokio::select! {
            gave = waiting => panic!("{gave:?}"),
            () = noted => {}
        }
    }
    let reasons = object(&session, "cancelled", json!({})).await;
    assert_eq!(reasons.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_plugin_has_its_own_server_and_its_attempts_share_it() {
    let tools = only(scripted("well"));
    let (one, other) = (session(&tools), tools.session("another", granted("it", &["*"])));
    assert_eq!(object(&one, "remember", json!({"text": "mine"})).await, json!(["mine"]));
    assert_eq!(object(&other, "remember", json!({"text": "yours"})).await, json!(["yours"]));
    let narrow = tools.session("planner", granted("it", &["remember"]));
    assert_eq!(object(&narrow, "remember", json!({"text": "ours"})).await, json!(["mine", "ours"]));
    assert_ne!(whoami(&one).await["pid"], whoami(&other).await["pid"]);
}

#[tokio::test]
async fn a_child_has_nothing_that_was_not_given_to_it() {
    let tools = only(with_env(scripted("well"), &[("GIVEN", "this")]));
    let who = whoami(&session(&tools)).await;
    let mut env = who["env"].as_object().unwrap().clone();
    env.remove("LC_CTYPE"); // which Python sets itself
    assert_eq!(Value::Object(env), json!({"GIVEN": "this"}));
    assert_eq!(who["files"], json!([]), "its folder is not its own");
    assert_eq!(who["group"], who["pid"], "it leads no group");
    let folder = PathBuf::from(who["cwd"].as_str().unwrap());
    assert_ne!(folder, std::env::current_dir().unwrap());
    tools.close().await;
    assert!(!folder.exists(), "its folder is left behind");
}

#[tokio::test]
async fn a_child_runs_in_the_folder_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let tools = only(within(scripted("well"), folder.path().to_owned()));
    let who = whoami(&session(&tools)).await;
    assert_eq!(who["cwd"], json!(folder.path().canonicalize().unwrap()));
}

#[tokio::test]
async fn an_older_revision_of_the_protocol_is_spoken_and_an_unheard_of_one_is_not() {
    assert_eq!(text(&session(&only(scripted("old"))), "echo", json!({"text": "a"})).await, "a");
    match call(&session(&only(scripted("strange"))), "echo", json!({"text": "a"})).await {
        Err(ToolError::Unavailable { reason, .. }) => assert!(reason.contains("1999-12-31"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
