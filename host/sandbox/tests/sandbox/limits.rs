//! Every limit ends a run in its own kind, with what was used and what was allowed.

use std::time::Duration;

use agentry_sandbox::{FaultKind, Outcome, Ran};
use tokio::time::Instant;

use crate::guest::{Guest, LOGGING, RANDOM, SLEEP, STREAMS, handle, returns};
use crate::house::*;
use crate::runs::sleeps;

const FOREVER: &str = "(loop $l (br $l)) unreachable";

#[tokio::test]
async fn an_endless_loop_ends_as_cpu_limit() {
    let began = Instant::now();
    let ran = run_with(&handle(FOREVER), |limits| limits.cpu = Duration::from_millis(200)).await;
    assert!(ran.usage.cpu >= Duration::from_millis(200), "{:?}", ran.usage);
    assert!(began.elapsed() < PATIENCE / 2);
    over(&fault(ran, FaultKind::CpuLimit).await, "cpu_seconds");
}

#[tokio::test]
async fn an_endless_loop_anywhere_in_the_guest_ends_as_cpu_limit() {
    let guests = [
        Guest { core: format!("(func $s {FOREVER}) (start $s)"), ..Guest::default() },
        Guest { realloc: FOREVER.to_owned(), ..Guest::default() },
        Guest { post: FOREVER.to_owned(), ..Guest::default() },
    ];
    for guest in guests {
        let ran = run_with(&guest, |limits| limits.cpu = Duration::from_millis(50)).await;
        over(&fault(ran, FaultKind::CpuLimit).await, "cpu_seconds");
    }
}

#[tokio::test]
async fn cpu_is_summed_over_naps() {
    // Naps of 1 ms between computations far shorter than a tick.
    let guest = handle(
        "(local $n i32)
         (loop $l
           (local.set $n (i32.const 500000))
           (loop $work (br_if $work (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
           (call $block (call $subscribe (i64.const 1000000)))
           (br $l))
         unreachable",
    )
    .with(SLEEP);
    let ran = run_with(&guest, |limits| {
        limits.cpu = Duration::from_millis(50);
        limits.handles = 1_000_000;
    })
    .await;
    let outcome = fault(ran, FaultKind::CpuLimit).await;
    over(&outcome, "cpu_seconds");
}

#[tokio::test]
async fn an_endless_loop_ends_as_timeout_when_the_wall_clock_is_nearer() {
    let ran = run_with(&handle(FOREVER), |limits| limits.timeout = Duration::from_millis(100)).await;
    assert!(ran.usage.wall >= Duration::from_millis(100));
    let fault = fault(ran, FaultKind::Timeout).await;
    assert_eq!(fault.detail["limit"], "timeout_seconds");
    assert_eq!(fault.detail["allowed"], 0.1);
}

#[tokio::test]
async fn waiting_for_ever_in_a_host_call_ends_as_timeout() {
    let began = Instant::now();
    let ran = run_with(&sleeps(), |limits| limits.timeout = Duration::from_millis(100)).await;
    assert!(began.elapsed() < PATIENCE / 2);
    assert!(ran.usage.cpu < Duration::from_millis(100), "waiting is not computing: {:?}", ran.usage);
    let fault = fault(ran, FaultKind::Timeout).await;
    assert_eq!(fault.detail["limit"], "timeout_seconds");
}

#[tokio::test]
async fn a_nearer_deadline_ends_it_first_and_is_named() {
    let plugin = load(&sleeps()).await;
    let mut invocation = invocation("null");
    invocation.deadline = Some(Instant::now() + Duration::from_millis(50));
    let fault = fault(plugin.run(invocation).await, FaultKind::Timeout).await;
    assert_eq!(fault.detail["limit"], "deadline");
}

/// Grows by a page until it may not, and then traps.
fn grows() -> Guest {
    handle("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable")
}

#[tokio::test]
async fn memory_beyond_the_limit_ends_as_memory_limit() {
    let ran = run_with(&grows(), |limits| limits.memory_bytes = 4 << 20).await;
    assert_eq!(ran.usage.peak_memory, 4 << 20);
    over(&fault(ran, FaultKind::MemoryLimit).await, "memory_mib");
}

#[tokio::test]
async fn growing_to_the_end_of_the_address_space_ends_as_memory_limit() {
    for pages in [65_535, 65_536, -1] {
        let guest = handle(&format!(
            "(if (i32.ne (memory.grow (i32.const {pages})) (i32.const -1)) (then (return (i32.const -8)))) unreachable"
        ));
        over(&fault(run(&guest).await, FaultKind::MemoryLimit).await, "memory_mib");
    }
}

#[tokio::test]
async fn an_initial_memory_beyond_the_runs_limit_ends_as_memory_limit() {
    let guest = Guest { memory: "100".to_owned(), ..Guest::default() };
    let ran = run_with(&guest, |limits| limits.memory_bytes = 1 << 20).await;
    over(&fault(ran, FaultKind::MemoryLimit).await, "memory_mib");
}

#[tokio::test]
async fn a_guest_that_copes_with_the_refusal_is_not_failed() {
    let guest = Guest {
        core: "(data (i32.const 1024) \"null\")".to_owned(),
        ..handle(
            "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
             (call $ok (i32.const 1024) (i32.const 4))",
        )
    };
    assert_eq!(run(&guest).await.outcome, Outcome::Output("null".to_owned()));
}

#[tokio::test]
async fn several_memories_share_one_limit() {
    let guest = Guest {
        core: "(memory $a 1) (memory $b 1)".to_owned(),
        ..handle(
            "(loop $l (br_if $l (i32.ne (memory.grow $a (i32.const 1)) (i32.const -1))))
             (if (i32.ne (memory.grow $b (i32.const 1)) (i32.const -1)) (then (return (i32.const -8)))) unreachable",
        )
    };
    let ran = run_with(&guest, |limits| limits.memory_bytes = 4 << 20).await;
    assert_eq!(ran.usage.peak_memory, 4 << 20);
    over(&fault(ran, FaultKind::MemoryLimit).await, "memory_mib");
}

#[tokio::test]
async fn more_memories_than_allowed_end_as_resource_limit() {
    let guest = Guest { core: "(memory 1) (memory 1)".to_owned(), ..Guest::default() };
    let ran = run_with(&guest, |limits| limits.memories = 2).await;
    over(&fault(ran, FaultKind::ResourceLimit).await, "memories");
}

#[tokio::test]
async fn more_instances_than_allowed_end_as_resource_limit() {
    let ran = run_with(&Guest::default(), |limits| limits.instances = 1).await;
    over(&fault(ran, FaultKind::ResourceLimit).await, "instances");
}

#[tokio::test]
async fn table_elements_beyond_the_limit_end_as_resource_limit() {
    let guest = Guest {
        core: "(table $t 10 funcref)".to_owned(),
        ..handle(
            "(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) unreachable",
        )
    };
    over(&fault(run(&guest).await, FaultKind::ResourceLimit).await, "table_elements");
}

/// Does something so many times, and then returns.
fn times(times: u32, body: &str) -> Guest {
    Guest {
        core: "(data (i32.const 1024) \"null\")".to_owned(),
        ..handle(&format!(
            "(local $n i32)
             (local.set $n (i32.const {times}))
             (loop $l {body} (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
             (call $ok (i32.const 1024) (i32.const 4))"
        ))
    }
}

#[tokio::test]
async fn handles_that_are_never_dropped_end_as_resource_limit() {
    // Each is two entries of the host's table and one handle of the engine's, so that only the table can be too full.
    let subscribes = |n| times(n, "(drop (call $subscribe (i64.const 0)))").with(SLEEP);
    assert_eq!(run(&subscribes(500)).await.outcome, Outcome::Output("null".to_owned()));
    over(&fault(run(&subscribes(600)).await, FaultKind::ResourceLimit).await, "handles");
}

#[tokio::test]
async fn handles_of_the_guests_own_making_end_as_resource_limit() {
    // `resource.new` never leaves the engine, and yet costs the host memory each time.
    let makes = |n| {
        let text = times(n, "(drop (call $new (i32.const 1)))")
            .text()
            .replace(
                "(core module $main",
                "(type $own (resource (rep i32))) (core func $new (canon resource.new $own)) (core module $main
                 (import \"own\" \"new\" (func $new (param i32) (result i32)))",
            )
            .replace("(with \"libc\"", "(with \"own\" (instance (export \"new\" (func $new)))) (with \"libc\"");
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    };
    let run = async |n| {
        let plugin = sandbox().load(makes(n).into(), &agentry_sandbox::Grants::default()).await.unwrap();
        plugin.run(invocation("null")).await
    };
    assert_eq!(run(1_000).await.outcome, Outcome::Output("null".to_owned()));
    over(&fault(run(1_100).await, FaultKind::ResourceLimit).await, "handles");
}

#[tokio::test]
async fn too_many_random_bytes_at_once_end_as_resource_limit() {
    for bytes in [65_537i64, 1 << 40] {
        let guest = handle(&format!("(call $random (i64.const {bytes}) (i32.const 64)) unreachable")).with(RANDOM);
        over(&fault(run(&guest).await, FaultKind::ResourceLimit).await, "random_kib");
    }
}

/// Passes a text of some bytes to the log.
fn logs_bytes(bytes: u32) -> Guest {
    Guest {
        memory: "40".to_owned(),
        core: "(data (i32.const 1024) \"null\")".to_owned(),
        ..handle(&format!(
            "(call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 4096) (i32.const {bytes}))
             (call $ok (i32.const 1024) (i32.const 4))"
        ))
    }
    .with(LOGGING)
}

fn small_calls(limits: &mut agentry_sandbox::Limits) {
    limits.hostcall_bytes = 64 << 10;
    limits.output_bytes = 32 << 10;
}

#[tokio::test]
async fn too_much_passed_to_the_host_ends_as_resource_limit() {
    let ran = run_with(&logs_bytes(64 << 10), small_calls).await;
    assert_eq!(ran.outcome, Outcome::Output("null".to_owned()));
    let ran = run_with(&logs_bytes(1 << 20), small_calls).await;
    over(&fault(ran, FaultKind::ResourceLimit).await, "hostcall_kib");
}

/// Returns some bytes of JSON: a number among spaces.
fn returns_bytes(bytes: u32) -> Guest {
    Guest {
        memory: "40".to_owned(),
        ..handle(&format!(
            "(memory.fill (i32.const 4096) (i32.const 0x20) (i32.const {bytes}))
             (i32.store8 (i32.const 4096) (i32.const 0x31))
             (call $ok (i32.const 4096) (i32.const {bytes}))"
        ))
    }
}

#[tokio::test]
async fn an_output_up_to_the_limit_is_taken() {
    for (hostcall_bytes, output_bytes) in [(0, 100_000), (200_000, 100_000)] {
        let ran = run_with(&returns_bytes(100_000), |limits| {
            limits.hostcall_bytes = hostcall_bytes;
            limits.output_bytes = output_bytes;
        })
        .await;
        assert!(matches!(&ran.outcome, Outcome::Output(output) if output.len() == 100_000), "{:?}", ran.outcome);
    }
}

#[tokio::test]
async fn an_output_over_the_limit_ends_as_output_too_large() {
    // Just over, and so much that the engine refuses to read it at all; both with larger and with smaller host calls.
    for bytes in [100_001, 2_000_000] {
        for hostcall_bytes in [0, 1 << 20] {
            let ran: Ran = run_with(&returns_bytes(bytes), |limits| {
                limits.hostcall_bytes = hostcall_bytes;
                limits.output_bytes = 100_000;
            })
            .await;
            over(&fault(ran, FaultKind::OutputTooLarge).await, "output_kib");
        }
    }
}

#[tokio::test]
async fn an_output_that_is_not_json_ends_as_invalid_output() {
    for output in ["", "hello", "{\"a\":}"] {
        fault(run(&returns(output)).await, FaultKind::InvalidOutput).await;
    }
}

#[tokio::test]
async fn writing_a_great_many_zeroes_is_refused() {
    let ran = run(&handle("(call $write-zeroes (call $stdout) (i64.const 0x10000000000) (i32.const 64)) unreachable")
        .with(STREAMS))
    .await;
    fault(ran, FaultKind::Trap).await;
}
