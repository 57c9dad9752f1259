//! What every guest may import gives it nothing of the host's.

use agentry_sandbox::Outcome;

use crate::guest::{Guest, Import, handle};
use crate::house::*;

/// Runs a body that traps when it finds anything.
async fn finds_nothing(import: Import, body: &str) {
    let guest = Guest {
        core: "(data (i32.const 1024) \"null\")".to_owned(),
        ..handle(&format!("{body} (call $ok (i32.const 1024) (i32.const 4))"))
    };
    let ran = run(&guest.with(import)).await;
    assert_eq!(ran.outcome, Outcome::Output("null".to_owned()));
    assert!(ran.usage.host_calls > 0);
}

/// Traps unless the number at an address is this.
fn expect(load: &str, address: u32, value: u32) -> String {
    format!("(if (i32.ne ({load} (i32.const {address})) (i32.const {value})) (then unreachable))")
}

#[tokio::test]
async fn arguments_and_environment_are_empty() {
    // The process that runs this test has both.
    assert!(std::env::vars().next().is_some());
    let import = Import {
        text: r#"(import "wasi:cli/environment@0.2.3" (instance $environment
            (export "get-environment" (func (result (list (tuple string string)))))
            (export "get-arguments" (func (result (list string))))
            (export "initial-cwd" (func (result (option string))))))"#,
        functions: &[
            ("environment", "$environment \"get-environment\"", "(param i32)"),
            ("arguments", "$environment \"get-arguments\"", "(param i32)"),
            ("cwd", "$environment \"initial-cwd\"", "(param i32)"),
        ],
    };
    let body = format!(
        "(call $environment (i32.const 64)) {}
         (call $arguments (i32.const 64)) {}
         (call $cwd (i32.const 64)) {}",
        expect("i32.load", 68, 0),
        expect("i32.load", 68, 0),
        expect("i32.load8_u", 64, 0),
    );
    finds_nothing(import, &body).await;
}

#[tokio::test]
async fn there_are_no_folders() {
    let import = Import {
        text: r#"
          (import "wasi:filesystem/types@0.2.9" (instance $files (export "descriptor" (type (sub resource)))))
          (alias export $files "descriptor" (type $descriptor))
          (import "wasi:filesystem/preopens@0.2.9" (instance $preopens
            (alias outer 1 $descriptor (type $d))
            (export "descriptor" (type $descriptor (eq $d)))
            (export "get-directories" (func (result (list (tuple (own $descriptor) string)))))))"#,
        functions: &[("directories", "$preopens \"get-directories\"", "(param i32)")],
    };
    let body = format!("(call $directories (i32.const 64)) {}", expect("i32.load", 68, 0));
    finds_nothing(import, &body).await;
}

#[tokio::test]
async fn standard_input_is_at_its_end() {
    let import = Import {
        text: r#"
          (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
          (alias export $error "error" (type $error-resource))
          (import "wasi:io/streams@0.2.0" (instance $streams
            (alias outer 1 $error-resource (type $e))
            (export "error" (type $error (eq $e)))
            (type $se (variant (case "last-operation-failed" (own $error)) (case "closed")))
            (export "stream-error" (type $stream-error (eq $se)))
            (export "input-stream" (type $input-stream (sub resource)))
            (export "[method]input-stream.blocking-read" (func
              (param "self" (borrow $input-stream)) (param "len" u64)
              (result (result (list u8) (error $stream-error)))))))
          (alias export $streams "input-stream" (type $input-stream))
          (import "wasi:cli/stdin@0.2.0" (instance $stdin
            (alias outer 1 $input-stream (type $i))
            (export "input-stream" (type $input-stream (eq $i)))
            (export "get-stdin" (func (result (own $input-stream))))))"#,
        functions: &[
            ("read", "$streams \"[method]input-stream.blocking-read\"", "(param i32 i64 i32)"),
            ("stdin", "$stdin \"get-stdin\"", "(result i32)"),
        ],
    };
    // 1: the error case; 1: closed.
    let body = format!(
        "(call $read (call $stdin) (i64.const 100) (i32.const 64)) {} {}",
        expect("i32.load8_u", 64, 1),
        expect("i32.load8_u", 68, 1),
    );
    finds_nothing(import, &body).await;
}

/// The types that all of `wasi:sockets` shares.
macro_rules! network {
    ($rest:literal) => {
        concat!(
            r#"
  (import "wasi:sockets/network@0.2.0" (instance $network
    (export "network" (type (sub resource)))
    (type $c (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
      "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit" "address-not-bindable"
      "address-in-use" "remote-unreachable" "connection-refused" "connection-reset" "connection-aborted"
      "datagram-too-large" "name-unresolvable" "temporary-resolver-failure" "permanent-resolver-failure"))
    (export "error-code" (type (eq $c)))
    (type $a (enum "ipv4" "ipv6"))
    (export "ip-address-family" (type (eq $a)))))
  (alias export $network "network" (type $network-resource))
  (alias export $network "error-code" (type $error-code))
  (alias export $network "ip-address-family" (type $family))
"#,
            $rest
        )
    };
}

#[tokio::test]
async fn a_tcp_socket_is_refused() {
    let import = Import {
        text: network!(
            r#"
  (import "wasi:sockets/tcp@0.2.0" (instance $tcp (export "tcp-socket" (type (sub resource)))))
  (alias export $tcp "tcp-socket" (type $socket))
  (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $create
    (alias outer 1 $error-code (type $c))
    (export "error-code" (type $code (eq $c)))
    (alias outer 1 $family (type $f))
    (export "ip-address-family" (type $family (eq $f)))
    (alias outer 1 $socket (type $s))
    (export "tcp-socket" (type $socket (eq $s)))
    (export "create-tcp-socket" (func (param "address-family" $family) (result (result (own $socket) (error $code)))))))
"#
        ),
        functions: &[("create", "$create \"create-tcp-socket\"", "(param i32 i32)")],
    };
    // 1: the error case; 1: access-denied.
    let body = format!(
        "(call $create (i32.const 0) (i32.const 64)) {} {}",
        expect("i32.load8_u", 64, 1),
        expect("i32.load8_u", 68, 1),
    );
    finds_nothing(import, &body).await;
}

#[tokio::test]
async fn a_udp_socket_is_refused() {
    let import = Import {
        text: network!(
            r#"
  (import "wasi:sockets/udp@0.2.0" (instance $udp (export "udp-socket" (type (sub resource)))))
  (alias export $udp "udp-socket" (type $socket))
  (import "wasi:sockets/udp-create-socket@0.2.0" (instance $create
    (alias outer 1 $error-code (type $c))
    (export "error-code" (type $code (eq $c)))
    (alias outer 1 $family (type $f))
    (export "ip-address-family" (type $family (eq $f)))
    (alias outer 1 $socket (type $s))
    (export "udp-socket" (type $socket (eq $s)))
    (export "create-udp-socket" (func (param "address-family" $family) (result (result (own $socket) (error $code)))))))
"#
        ),
        functions: &[("create", "$create \"create-udp-socket\"", "(param i32 i32)")],
    };
    let body = format!(
        "(call $create (i32.const 1) (i32.const 64)) {} {}",
        expect("i32.load8_u", 64, 1),
        expect("i32.load8_u", 68, 1),
    );
    finds_nothing(import, &body).await;
}

#[tokio::test]
async fn a_name_is_not_looked_up() {
    let import = Import {
        text: network!(
            r#"
  (import "wasi:sockets/instance-network@0.2.0" (instance $instance
    (alias outer 1 $network-resource (type $n))
    (export "network" (type $network (eq $n)))
    (export "instance-network" (func (result (own $network))))))
  (import "wasi:sockets/ip-name-lookup@0.2.0" (instance $lookup
    (alias outer 1 $network-resource (type $n))
    (export "network" (type $network (eq $n)))
    (alias outer 1 $error-code (type $c))
    (export "error-code" (type $code (eq $c)))
    (export "resolve-address-stream" (type $stream (sub resource)))
    (export "resolve-addresses" (func (param "network" (borrow $network)) (param "name" string)
      (result (result (own $stream) (error $code)))))))
"#
        ),
        functions: &[
            ("network", "$instance \"instance-network\"", "(result i32)"),
            ("resolve", "$lookup \"resolve-addresses\"", "(param i32 i32 i32 i32)"),
        ],
    };
    // The name is the four letters at 1,024. 1: the error case; 20: permanent-resolver-failure.
    let body = format!(
        "(call $resolve (call $network) (i32.const 1024) (i32.const 4) (i32.const 64)) {} {}",
        expect("i32.load8_u", 64, 1),
        expect("i32.load8_u", 68, 20),
    );
    finds_nothing(import, &body).await;
}
