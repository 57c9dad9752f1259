//! Brakes and the audit table.

use super::site::Site;
use super::*;

const READER: (&str, &str) = ("authorization", "Bearer 0123456789abcdef");
const OPERATOR: (&str, &str) = ("authorization", "Bearer fedcba9876543210");

async fn post(site: &Site, path: &str) -> (u16, Value) {
    site.ask(Method::POST, path, &[], None).await
}

#[tokio::test]
async fn paused_queue_is_said_wherever_it_is_asked_for_and_pausing_it_again_changes_nothing() {
    let site = Site::new().await;
    let earlier = site.submit().await;
    let (status, told) = site.post("/v1/queues/default/pause", &json!({"reason": " a bad release "})).await;
    assert_eq!((status, &told["changed"], &told["unaware"]), (200, &json!(true), &json!([])), "{told}");
    assert_eq!(told["behind"], json!(["agentry/test/host/1"]), "its row says that it heeds none yet");
    let brake = &told["brake"];
    assert_eq!((&brake["kind"], &brake["target"], &brake["by"]), (&json!("queue"), &json!("default"), &json!("api")));
    assert_eq!(brake["reason"], "a bad release");
    let (status, again) = post(&site, "/v1/queues/default/pause").await;
    assert_eq!((status, &again["changed"], &again["brake"]), (200, &json!(false), brake));
    // Submission is accepted, and says that the queue is held; so does a task that was there before.
    let (status, task) = site.post("/v1/tasks", &json!({"plugin": "word-count", "input": {}})).await;
    assert_eq!(status, 201, "{task}");
    let (_, before) = site.get(&format!("/v1/tasks/{earlier}")).await;
    let (_, listed) = site.get("/v1/tasks").await;
    for task in [&task, &before, &listed["tasks"][0]] {
        let waiting = &task["waiting_for"];
        assert_eq!((&waiting["code"], &waiting["detail"]["brake"]), (&json!("paused"), brake), "{task}");
        let said = "the queue \"default\" is paused by api (a bad release)";
        assert_eq!(waiting["message"], said, "{task}");
    }
    let (_, explained) = site.get(&format!("/v1/tasks/{earlier}/explain")).await;
    assert!(explained["summary"].as_str().unwrap().contains("`agentry queue resume default`"), "{explained}");
    let (_, queues) = site.get("/v1/queues").await;
    let queue = &queues["queues"][0];
    assert_eq!(
        (&queue["paused"]["by"], &queue["waiting"], &queue["waiting_more"]),
        (&json!("api"), &json!(2), &json!(false))
    );
    let metrics = site.http.get(format!("{}/metrics", site.base)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("agentry_brakes{kind=\"queue\"} 1"), "{metrics}");
    let (status, told) = post(&site, "/v1/queues/default/resume").await;
    assert_eq!((status, &told["changed"], &told["brake"]), (200, &json!(true), &Value::Null));
    assert_eq!(post(&site, "/v1/queues/default/resume").await.1["changed"], false);
    assert_eq!(site.get(&format!("/v1/tasks/{earlier}")).await.1["waiting_for"]["code"], "not_published");
}

#[tokio::test]
async fn brake_on_what_is_not_there_is_refused_with_what_is() {
    let site = Site::new().await;
    let host = site.host;
    for (path, status, code) in [
        ("/v1/queues/defualt/pause", 422, "unknown_queue"),
        ("/v1/queues/defualt/resume", 422, "unknown_queue"),
        ("/v1/plugins/word-cuont/disable", 422, "unknown_plugin"),
        ("/v1/plugins/word-count@9.9.9/disable", 422, "unknown_plugin"),
        ("/v1/plugins/word-count@/disable", 422, "unknown_plugin"),
        ("/v1/hosts/one/drain", 400, "bad_id"),
        ("/v1/hosts/00000000-0000-0000-0000-000000000001/drain", 404, "not_found"),
        ("/v1/queues/default/pause?reason=x", 400, "bad_query"),
    ] {
        let (answered, problem) = post(&site, path).await;
        assert_eq!((answered, &problem["code"]), (status, &json!(code)), "{path}: {problem}");
        assert_eq!(problem["known"].is_array(), status == 422, "{problem}");
    }
    let long = json!({"reason": "x".repeat(501)});
    assert_eq!(site.post("/v1/queues/default/pause", &long).await.1["code"], "bad_request");
    assert_eq!(site.post("/v1/queues/default/pause", &json!({"why": "x"})).await.0, 400);
    assert_eq!(site.get("/v1/brakes").await.1["brakes"], json!([]));
    for path in ["/v1/plugins/word-count@0.1.0/disable", "/v1/plugins/word-count/disable"] {
        assert_eq!(post(&site, path).await.0, 200, "{path}");
    }
    assert_eq!(post(&site, &format!("/v1/hosts/{host}/drain")).await.0, 200);
    let (_, hosts) = site.get("/v1/hosts").await;
    assert_eq!(hosts["hosts"][0]["drained"]["by"], "api", "{hosts}");
    assert_eq!(site.get("/v1/brakes").await.1["brakes"].as_array().unwrap().len(), 3);
    assert_eq!(post(&site, &format!("/v1/hosts/{host}/undrain")).await.1["changed"], true);
    // A host of an earlier build heeds none, and is named.
    let old = HostRecord { brakes: None, name: "agentry/old".into(), ..record(TaskId::now_v7()) };
    site.db.register_host(&old, Duration::from_secs(60)).await.unwrap();
    assert_eq!(site.get("/v1/brakes").await.1["unaware"], json!(["agentry/old"]));
}

#[tokio::test]
async fn changes_are_recorded_by_the_name_of_the_token_and_readers_make_none() {
    let tokens = Tokens::of("dash read 0123456789abcdef\nops full fedcba9876543210");
    let site = Site::with(Some(tokens)).await;
    let ask = async |method: Method, path: &str, body: Option<String>| site.ask(method, path, &[OPERATOR], body).await;
    for path in ["queues/default/pause", "plugins/word-count/disable", &format!("hosts/{}/drain", site.host)] {
        assert_eq!(site.ask(Method::POST, &format!("/v1/{path}"), &[READER], None).await.0, 403, "{path}");
        assert_eq!(site.ask(Method::POST, &format!("/v1/{path}"), &[], None).await.0, 401, "{path}");
    }
    let body = json!({"plugin": "word-count", "input": {"secret": "hunter2"}}).to_string();
    let id = ask(Method::POST, "/v1/tasks", Some(body)).await.1["id"].as_str().unwrap().to_owned();
    for (method, path) in [
        (Method::POST, "/v1/queues/default/pause".to_owned()),
        (Method::POST, "/v1/queues/default/pause".to_owned()),
        (Method::POST, format!("/v1/tasks/{id}/cancel")),
        (Method::POST, format!("/v1/tasks/{id}/retry")),
        (Method::DELETE, format!("/v1/tasks/{id}/data")),
        (Method::DELETE, format!("/v1/tasks?label=agentry-bench={}", crate::api::new_run())),
        (Method::POST, "/v1/queues/default/resume".to_owned()),
    ] {
        assert!(ask(method, &path, None).await.0 < 300, "{path}");
    }
    let (_, told) = site.ask(Method::GET, "/v1/audit", &[READER], None).await;
    let changes = told["audit"].as_array().unwrap();
    let actions: Vec<_> = changes.iter().map(|change| change["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["queue.resume", "bench.delete", "task.erase", "task.retry", "task.cancel", "queue.pause"]);
    assert!(changes.iter().all(|change| change["actor"] == "ops"), "{told}");
    assert_eq!((&changes[4]["target"], &changes[4]["count"]), (&json!(id), &json!(1)));
    assert!(!told.to_string().contains("hunter2") && !told.to_string().contains("fedcba"), "{told}");
    let (_, page) = site.ask(Method::GET, "/v1/audit?limit=4&actor=ops", &[READER], None).await;
    let next = page["next_cursor"].as_str().unwrap();
    let (_, rest) = site.ask(Method::GET, &format!("/v1/audit?limit=4&cursor={next}"), &[READER], None).await;
    assert_eq!((rest["audit"].as_array().unwrap().len(), &rest["next_cursor"]), (2, &Value::Null));
    let (_, only) = site.ask(Method::GET, "/v1/audit?action=queue.pause&since=1h", &[READER], None).await;
    assert_eq!(only["audit"].as_array().unwrap().len(), 1, "what changes nothing is not recorded: {only}");
}
