//! What a guest breaks, it breaks for its own task alone.

use agentry_sandbox::{FaultKind, Grants, Outcome, Sandbox, SandboxConfig};

use crate::guest::{EXIT, Guest, LOGGING, STREAMS, handle};
use crate::house::*;

#[tokio::test]
async fn exit_is_a_trap_whatever_the_code() {
    for code in [0, 1] {
        let guest = handle(&format!("(call $exit (i32.const {code})) unreachable")).with(EXIT);
        let fault = fault(run(&guest).await, FaultKind::Trap).await;
        assert_eq!(fault.detail["exit_code"], code);
    }
}

#[tokio::test]
async fn a_trap_tells_its_frames_and_the_end_of_standard_error() {
    let guest = Guest {
        core: "(data (i32.const 1024) \"panicked at main.rs\")
            (func $_ZN4core9panicking5panic17h0123456789abcdefE unreachable)"
            .to_owned(),
        ..handle(
            "(call $write (call $stderr) (i32.const 1024) (i32.const 19) (i32.const 64))
             (call $_ZN4core9panicking5panic17h0123456789abcdefE) unreachable",
        )
    }
    .with(STREAMS);
    let ran = run(&guest).await;
    assert_eq!(ran.logs.len(), 1);
    assert_eq!(ran.usage.host_calls, 2);
    let fault = fault(ran, FaultKind::Trap).await;
    assert_eq!(fault.detail["frames"], serde_json::json!(["core::panicking::panic", "handle"]));
    assert_eq!(fault.detail["stderr_tail"], "panicked at main.rs");
    assert_eq!(fault.detail["exit_code"], serde_json::Value::Null);
    assert!(fault.message.starts_with("panicked at main.rs (") && fault.message.contains("unreachable"), "{fault:?}");
}

#[tokio::test]
async fn source_lines_are_told_to_those_who_ask_where_the_component_carries_them() {
    let guest = handle("(drop (i32.const 1))\n unreachable");
    let (component, text) = guest.build_with_lines();
    // The assembler's table may place the trap at the instruction before it.
    let line = text.lines().position(|line| line.contains("unreachable")).unwrap();
    let near = [line, line + 1].map(|line| format!("handle at ./guest.wat:{line}"));
    for (source_lines, expected) in [(true, near.as_slice()), (false, &["handle".to_owned()])] {
        let sandbox = Sandbox::new(SandboxConfig { slots: 1, source_lines, ..SandboxConfig::default() }).unwrap();
        let plugin = sandbox.load(component.clone(), &Grants::default()).await.unwrap();
        let Outcome::Fault(fault) = plugin.run(invocation("null")).await.outcome else { panic!() };
        let frame = fault.detail["frames"][0].as_str().unwrap();
        assert!(expected.iter().any(|expected| expected == frame), "{frame} is none of {expected:?}");
    }
}

#[tokio::test]
async fn what_breaks_the_rules_of_the_interface_is_a_trap() {
    let bad = [
        ("a pointer outside memory", "(call $ok (i32.const 65530) (i32.const 100))"),
        ("a length outside memory", "(call $ok (i32.const 8) (i32.const -1))"),
        ("a result outside memory", "(i32.const -8)"),
        ("no such case", "(i32.store8 (i32.const 0) (i32.const 7)) (i32.const 0)"),
        (
            "text that is not UTF-8",
            "(i32.store8 (i32.const 64) (i32.const 255)) (call $ok (i32.const 64) (i32.const 1))",
        ),
        ("a read outside memory", "(drop (i32.load (i32.const -4))) (i32.const 0)"),
    ];
    for (what, body) in bad {
        let ran = run(&handle(body)).await;
        assert!(matches!(&ran.outcome, Outcome::Fault(fault) if fault.kind == FaultKind::Trap), "{what}: {ran:?}");
    }
    honest().await;
}

#[tokio::test]
async fn a_trap_outside_the_export_is_a_trap_of_the_task() {
    let guests = [
        Guest { core: "(func $s unreachable) (start $s)".to_owned(), ..Guest::default() },
        Guest { realloc: "unreachable".to_owned(), ..Guest::default() },
        Guest { realloc: "(i32.const -1)".to_owned(), ..Guest::default() },
        Guest { post: "unreachable".to_owned(), ..Guest::default() },
    ];
    for guest in guests {
        fault(run(&guest).await, FaultKind::Trap).await;
    }
}

#[tokio::test]
async fn endless_recursion_is_a_trap() {
    let guest =
        handle("(call $handle (local.get $id) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))");
    let fault = fault(run(&guest).await, FaultKind::Trap).await;
    assert!(fault.message.contains("stack"), "{fault:?}");
    assert!(fault.detail["frames"].as_array().unwrap().len() <= 20);
}

#[tokio::test]
async fn a_panic_of_the_host_is_internal_and_stays_within_the_run() {
    let guest = handle("(call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)) unreachable")
        .with(LOGGING);
    let plugin = load(&guest).await;
    let mut invocation = invocation("null");
    invocation.on_log = Some(std::sync::Arc::new(|_| panic!("a sink's own fault")));
    let fault = fault(plugin.run(invocation).await, FaultKind::Internal).await;
    assert!(fault.message.contains("a sink's own fault"), "{fault:?}");
}
