//! What handles keep alive in the host's memory.

use std::sync::Arc;

use agentry_sandbox::{Buckets, FaultKind, Grants, Outcome, Ran, StoreError};
use async_trait::async_trait;

use crate::guest::{Guest, Import, handle};
use crate::house::*;

/// `wasi:http/types`: requests and their parts.
const HTTP: Import = Import {
    text: r#"
  (import "wasi:http/types@0.2.0" (instance $http
    (export "fields" (type $fields (sub resource)))
    (export "outgoing-body" (type $body (sub resource)))
    (export "outgoing-request" (type $request (sub resource)))
    (type $m (variant (case "get") (case "head") (case "post") (case "put") (case "delete") (case "connect")
      (case "options") (case "trace") (case "patch") (case "other" string)))
    (export "method" (type $method (eq $m)))
    (type $e (variant (case "invalid-syntax") (case "forbidden") (case "immutable")))
    (export "header-error" (type $error (eq $e)))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[method]fields.append" (func
      (param "self" (borrow $fields)) (param "name" string) (param "value" (list u8)) (result (result (error $error)))))
    (export "[method]fields.clone" (func (param "self" (borrow $fields)) (result (own $fields))))
    (export "[constructor]outgoing-request" (func (param "headers" (own $fields)) (result (own $request))))
    (export "[method]outgoing-request.set-method" (func
      (param "self" (borrow $request)) (param "method" $method) (result (result))))
    (export "[method]outgoing-request.set-authority" (func
      (param "self" (borrow $request)) (param "authority" (option string)) (result (result))))
    (export "[method]outgoing-request.set-path-with-query" (func
      (param "self" (borrow $request)) (param "path-with-query" (option string)) (result (result))))
    (export "[method]outgoing-request.body" (func
      (param "self" (borrow $request)) (result (result (own $body)))))))
"#,
    functions: &[
        ("fields", "$http \"[constructor]fields\"", "(result i32)"),
        ("append", "$http \"[method]fields.append\"", "(param i32 i32 i32 i32 i32 i32)"),
        ("clone", "$http \"[method]fields.clone\"", "(param i32) (result i32)"),
        ("request", "$http \"[constructor]outgoing-request\"", "(param i32) (result i32)"),
        ("method", "$http \"[method]outgoing-request.set-method\"", "(param i32 i32 i32 i32) (result i32)"),
        ("authority", "$http \"[method]outgoing-request.set-authority\"", "(param i32 i32 i32 i32) (result i32)"),
        ("path", "$http \"[method]outgoing-request.set-path-with-query\"", "(param i32 i32 i32 i32) (result i32)"),
        ("body", "$http \"[method]outgoing-request.body\"", "(param i32 i32)"),
    ],
};

/// `wasi:keyvalue/store`: a bucket by name.
const BUCKET: Import = Import {
    text: r#"
  (import "wasi:keyvalue/store@0.2.0-draft" (instance $store
    (export "bucket" (type $bucket (sub resource)))
    (type $e (variant (case "no-such-store") (case "access-denied") (case "other" string)))
    (export "error" (type $error (eq $e)))
    (export "open" (func (param "identifier" string) (result (result (own $bucket) (error $error)))))))
"#,
    functions: &[("open", "$store \"open\"", "(param i32 i32 i32)")],
};

/// Buckets that are opened, and never used.
struct Unused;

#[async_trait]
impl Buckets for Unused {
    async fn get(&self, _: &str, _: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        unreachable!()
    }
    async fn set(&self, _: &str, _: Vec<(String, Vec<u8>)>) -> Result<(), StoreError> {
        unreachable!()
    }
    async fn delete(&self, _: &str, _: &[String]) -> Result<(), StoreError> {
        unreachable!()
    }
    async fn exists(&self, _: &str, _: &str) -> Result<bool, StoreError> {
        unreachable!()
    }
    async fn keys(&self, _: &str, _: Option<u64>) -> Result<(Vec<String>, Option<u64>), StoreError> {
        unreachable!()
    }
    async fn increment(&self, _: &str, _: &str, _: u64) -> Result<u64, StoreError> {
        unreachable!()
    }
}

/// Runs a guest that is granted requests and buckets. Its texts are of the byte `A`, from 131,072 on.
async fn run(import: Import, body: &str) -> Ran {
    let fill = "(memory.fill (i32.const 131072) (i32.const 65) (i32.const 200000))";
    let guest = Guest { memory: "8".to_owned(), ..handle(&format!("(local $n i32) (local $r i32) {fill} {body}")) };
    let capabilities = ["http", "keyvalue"].map(str::to_owned).into();
    let plugin = sandbox().load(guest.with(import).build(), &Grants { capabilities }).await.unwrap();
    let mut invocation = invocation("null");
    invocation.access.bucket_names.insert("*".to_owned());
    invocation.access.buckets = Some(Arc::new(Unused));
    plugin.run(invocation).await
}

/// Repeats `step` 900 times, counting in `$n`, and completes.
fn repeated(step: &str) -> String {
    format!(
        "(loop $l {step} (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 900))))
         (call $ok (local.get $input) (local.get $input-len))"
    )
}

const REQUEST: &str = "(local.set $r (call $request (call $fields)))";

#[tokio::test]
async fn long_parts_of_a_request_are_rejected() {
    let wrong = "(if (i32.ne (call SET (local.get $r) KIND (i32.const 131072) (i32.const LENGTH)) (i32.const WANTED))
        (then unreachable))";
    for (set, kind, most) in [("$method", "(i32.const 9)", 64), ("$authority", "(i32.const 1)", 300)] {
        let of = |length: usize, wanted: u8| {
            let text = wrong.replace("SET", set).replace("KIND", kind);
            text.replace("LENGTH", &length.to_string()).replace("WANTED", &wanted.to_string())
        };
        let steps = format!("{REQUEST} {} {} {}", of(most, 0), of(most + 1, 1), of(100_000, 1));
        let ran = run(HTTP, &format!("{steps} (call $ok (local.get $input) (local.get $input-len))")).await;
        assert_eq!(ran.outcome, Outcome::Output("null".to_owned()), "{set}");
    }
}

#[tokio::test]
async fn handles_that_keep_too_much_alive_end_the_run() {
    let path = "(i32.store8 (i32.const 131072) (i32.const 47))
        (drop (call $path (local.get $r) (i32.const 1) (i32.const 131072) (i32.const 60000)))";
    let append = "(local.set $r (call $fields))
        (call $append (local.get $r) (i32.const 131072) (i32.const 3) (i32.const 140000) (i32.const 60000) (i32.const 16))";
    let cloned = "(if (i32.eqz (local.get $n)) (then APPEND)) (drop (call $clone (local.get $r)))";
    for (what, step) in [
        ("paths", format!("{REQUEST} {path}")),
        ("headers", append.to_owned()),
        ("copies of headers", cloned.replace("APPEND", append)),
        ("bodies", format!("{REQUEST} (call $body (local.get $r) (i32.const 16))")),
    ] {
        let ran = run(HTTP, &repeated(&step)).await;
        assert!(matches!(ran.outcome, Outcome::Fault(_)), "{what}: {:?}", ran.outcome);
        let fault = fault(ran, FaultKind::ResourceLimit).await;
        over(&fault, "handle_kib");
        assert!(fault.message.contains("drop"), "{fault:?}");
    }
}

#[tokio::test]
async fn many_small_handles_are_no_harm() {
    let step =
        format!("{REQUEST} (drop (call $authority (local.get $r) (i32.const 1) (i32.const 131072) (i32.const 300)))");
    assert_eq!(run(HTTP, &repeated(&step)).await.outcome, Outcome::Output("null".to_owned()));
}

#[tokio::test]
async fn bucket_of_a_long_name_is_rejected() {
    let open = |length: usize, wanted: u8| {
        format!(
            "(call $open (i32.const 131072) (i32.const {length}) (i32.const 16))
             (if (i32.ne (i32.load8_u (i32.const 16)) (i32.const {wanted})) (then unreachable))"
        )
    };
    let steps = format!(
        "{} {} {} (call $ok (local.get $input) (local.get $input-len))",
        open(128, 0),
        open(129, 1),
        open(100_000, 1)
    );
    assert_eq!(run(BUCKET, &steps).await.outcome, Outcome::Output("null".to_owned()));
}
