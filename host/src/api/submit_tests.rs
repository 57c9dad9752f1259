use super::*;

fn problem(result: Result<Request<'_>, Problem>) -> String {
    format!("{:?}", result.err().expect("a problem"))
}

#[test]
fn unknown_duplicate_and_missing_keys_are_refused_by_name() {
    let read = |text| object::<Request<'_>>("the task", text);
    assert!(problem(read(r#"{"plugin":"a","prompt":"x"}"#)).contains("unknown field `prompt`"));
    assert!(problem(read(r#"{"plugin":"a","plugin":"b"}"#)).contains("duplicate field `plugin`"));
    assert!(problem(read(r#"["a"]"#)).contains("expected an object"));
    assert!(problem(read("")).contains("not_json"));
    assert!(problem(read(r#"{"plugin":"a""#)).contains("not_json"));
    assert!(read(r#"{"input":null}"#).unwrap().input.is_some(), "null is an input");
    assert!(read("{}").unwrap().input.is_none());
}

#[test]
fn a_host_serves_what_its_row_lists() {
    let at = chrono::DateTime::UNIX_EPOCH;
    let record = crate::db::HostRecord {
        id: uuid::Uuid::nil(),
        name: "agentry/x/y/1".into(),
        build: "x".into(),
        settings_digest: "x".into(),
        queues: vec!["default".into()],
        plugins: vec!["fetch@1.2.0".into()],
        broken_plugins: vec!["parse: no component".into()],
        slots: 1,
        busy: 0,
        brakes: Some(0),
    };
    let host = HostRow { record, started_at: at, renewed_at: at, lease_until: at, alive: true };
    let serves = |plugin: &str| served_elsewhere(std::slice::from_ref(&host), &plugin.parse().unwrap());
    assert!(serves("fetch") && serves("fetch@1.2") && serves("parse"));
    assert!(!serves("fetch@2") && !serves("fet") && !serves("no"));
    let told = format!("{:?}", unknown_plugin(&"fetch@2".parse().unwrap(), vec![], std::slice::from_ref(&host)));
    assert!(told.contains("fetch@1.2.0"), "{told}");
}

#[test]
fn only_a_well_formed_trace_is_continued() {
    assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    assert!(!is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"));
    assert!(!is_traceparent("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"));
}

#[test]
fn the_same_idempotency_key_is_the_same_task() {
    let of = |key: &str| {
        idempotency_key(&HeaderMap::from_iter([("idempotency-key".parse().unwrap(), key.parse().unwrap())]))
    };
    assert_eq!(of("k1"), of("k1"));
    assert_ne!(of("k1"), of("k2"));
    assert!(of("").is_err() && of(&"k".repeat(256)).is_err());
    assert_eq!(idempotency_key(&HeaderMap::new()), Ok(None));
    let (k1, k2) = (of("k1").unwrap().unwrap(), of("k2").unwrap().unwrap());
    assert_eq!(key_of_batch(&k1, 1), key_of_batch(&k1, 1));
    let ids = [key_of_batch(&k1, 1), key_of_batch(&k1, 11), key_of_batch(&k2, 1), of("k11").unwrap().unwrap()];
    assert_eq!(std::collections::HashSet::from(ids).len(), ids.len(), "{ids:?}");
}
