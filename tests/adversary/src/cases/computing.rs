//! Computing without end, and waiting without end.

use super::imports::POLL;
use super::{FOREVER, attack, attack_with, extended, times};
use crate::case::Case;
use crate::guest::{CONTEXT, Guest, RANDOM, SLEEP};

const CPU: (&str, &str) = ("cpu_limit", "cpu_seconds");
const CLOCK: (&str, &str) = ("timeout", "timeout_seconds");

pub(super) fn all() -> Vec<Case> {
    let cpu = |id, guest: Guest| Case::new(id, guest).over(CPU.0, CPU.1);
    let clock = |id, guest: Guest| Case::new(id, guest).limit("timeout_seconds", 1).over(CLOCK.0, CLOCK.1);
    vec![
        cpu("loop-in-the-export", attack(FOREVER)).limit("timeout_seconds", 6).shows(&["cpu"]),
        cpu("loop-in-start", Guest { core: format!("(func $s {FOREVER}) (start $s)"), ..Guest::default() })
            .never_honest(),
        cpu("loop-in-realloc", in_realloc(FOREVER)),
        cpu("loop-in-post-return", in_post_return(FOREVER)),
        Case::new("loop-in-destructor", in_destructor(FOREVER)).over(CPU.0, CPU.1),
        clock("loop-past-the-clock", attack(FOREVER)).limit("cpu_seconds", 20),
        clock("sleep-for-ever", attack("(call $block (call $subscribe (i64.const -1)))").with(SLEEP))
            .shows(&["wall_clock"]),
        clock(
            "sleep-a-thousand-years",
            attack("(call $block (call $subscribe (i64.const 0x7fffffffffffffff)))").with(SLEEP),
        ),
        clock(
            "poll-for-ever",
            attack(&format!(
                "(local.set $m (i32.const 2048))
                 {}
                 (call $poll (i32.const 2048) (i32.const 100) (i32.const 64))",
                times(
                    100,
                    "(i32.store (local.get $m) (call $subscribe (i64.const 3600000000000)))
                     (local.set $m (i32.add (local.get $m) (i32.const 4)))"
                )
            ))
            .with(POLL),
        ),
        Case::new("poll-a-million", a_million_pollables())
            .limit("memory_mib", 32)
            .over("resource_limit", "hostcall_kib"),
        Case::new("poll-on-nothing", attack("(call $poll (i32.const 64) (i32.const 0) (i32.const 64))").with(POLL))
            .fails("trap"),
        Case::new("naps-without-end", naps()).limit("timeout_seconds", 2).over(CLOCK.0, CLOCK.1),
        cpu("cheap-calls-without-end", attack("(loop $l (drop (call $remaining-ms)) (br $l))").with(CONTEXT)),
        cpu(
            "dear-calls-without-end",
            attack("(loop $l (call $random (i64.const 16384) (i32.const 64)) (br $l))").with(RANDOM),
        ),
        cpu(
            "fill-without-end",
            attack(
                "(drop (memory.grow (i32.const 200)))
                 (loop $l (memory.fill (i32.const 65536) (local.get $n) (i32.const 13000000)) (br $l))",
            ),
        ),
        Case::new(
            "recursion-without-end",
            attack_with(
                "(func $down (param i32) (result i32) (i32.add (call $down (local.get 0)) (i32.const 1)))",
                "(drop (call $down (i32.const 1)))",
            ),
        )
        .fails("trap")
        .saying(&["stack"]),
        Case::new(
            "recursion-with-large-frames",
            attack_with(
                &format!(
                    "(func $down (param i64) (result i64) (local {})
                       (i64.add (call $down (i64.add (local.get 0) (i64.const 1))) (local.get 0)))",
                    "i64 ".repeat(2_000)
                ),
                "(drop (call $down (i64.const 1)))",
            ),
        )
        .fails("trap")
        .saying(&["stack"]),
        Case::new(
            "instances-in-numbers",
            Guest {
                tail: "(core module $e) ".to_owned() + &"(core instance (instantiate $e))".repeat(50),
                ..Guest::default()
            },
        )
        .over("resource_limit", "instances")
        .never_honest(),
        cpu(
            "instances-that-compute",
            Guest {
                tail: "(core module $e (func $s (local $n i32) (local.set $n (i32.const 1000000000))
                         (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))) (start $s)) "
                    .to_owned()
                    + &"(core instance (instantiate $e))".repeat(15),
                ..Guest::default()
            },
        )
        .never_honest(),
    ]
}

/// Attacks when the host asks for room for the input `"attack"`, which alone is eight bytes long.
pub(super) fn in_realloc(body: &str) -> Guest {
    let guest = Guest::default();
    // A function's locals stand before its first instruction.
    let honest = guest.realloc.replace("(local $at i32)", "");
    let realloc = format!("(local $at i32) (if (i32.eq (local.get $size) (i32.const 8)) (then {body})) {honest}");
    Guest { realloc, ..guest }
}

/// Attacks when the host has read the output.
pub(super) fn in_post_return(body: &str) -> Guest {
    let guest = attack_with("(global $evil (mut i32) (i32.const 0))", "(global.set $evil (i32.const 1))");
    Guest { post: format!("(if (global.get $evil) (then {body}))"), ..guest }
}

/// Attacks when a resource of its own is dropped.
pub(super) fn in_destructor(body: &str) -> String {
    extended(
        &attack("(call $drop (call $new (i32.const 1)))"),
        &format!(
            "(core module $end (func (export \"end\") (param i32) {body})) (core instance $end (instantiate $end))
             (type $own (resource (rep i32) (dtor (func $end \"end\"))))
             (core func $new (canon resource.new $own)) (core func $drop (canon resource.drop $own))"
        ),
        "(import \"own\" \"new\" (func $new (param i32) (result i32))) (import \"own\" \"drop\" (func $drop (param i32)))",
        "(export \"new\" (func $new)) (export \"drop\" (func $drop))",
    )
}

/// A list of one pollable a million times over.
fn a_million_pollables() -> Guest {
    attack(
        "(drop (memory.grow (i32.const 80)))
         (local.set $m (call $subscribe (i64.const 0)))
         (local.set $n (i32.const 0))
         (loop $l
           (i32.store (i32.add (i32.const 65536) (local.get $n)) (local.get $m))
           (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 4))) (i32.const 4000000))))
         (call $poll (i32.const 65536) (i32.const 1000000) (i32.const 64))",
    )
    .with(POLL)
}

/// Sleeps a hundredth of a second again and again, and lets go of what it slept on.
fn naps() -> String {
    extended(
        &attack(
            "(loop $l
               (local.set $m (call $subscribe (i64.const 10000000)))
               (call $block (local.get $m)) (call $drop (local.get $m)) (br $l))",
        )
        .with(SLEEP),
        "(core func $drop (canon resource.drop $pollable))",
        "(import \"own\" \"drop\" (func $drop (param i32)))",
        "(export \"drop\" (func $drop))",
    )
}
