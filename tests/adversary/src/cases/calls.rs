//! Calls of the host with too much, too little, and what was never its own.

use super::imports::{INSECURE, SPLICE};
use super::{attack, extended, times};
use crate::case::{Case, Component};
use crate::guest::{Guest, LOGGING, RANDOM, SLEEP, STREAMS};

pub(super) fn all() -> Vec<Case> {
    let resource = |id, limit, component: Component| Case::new(id, component).over("resource_limit", limit);
    let trap = |id, guest: Guest| Case::new(id, guest).fails("trap");
    vec![
        resource("pass-10-mib", "hostcall_kib", passes(10 << 20).into()).shows(&["hostcall"]),
        resource("pass-300-mib", "hostcall_kib", passes(300 << 20).into()).limit("memory_mib", 400),
        trap("pass-2-gib", log("(i32.const 0) (i32.const 0) (i32.const 4096) (i32.const 0x7fffffff)")),
        trap("pass-from-outside", log("(i32.const -8) (i32.const 100) (i32.const 4096) (i32.const 1)")),
        trap(
            "pass-what-is-no-text",
            attack(
                "(i32.store (i32.const 4096) (i32.const -1))
                 (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 4096) (i32.const 4))",
            )
            .with(LOGGING),
        ),
        trap(
            "pass-no-such-level",
            attack("(call $log (i32.const 99) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))").with(LOGGING),
        ),
        resource(
            "random-of-a-tib",
            "random_kib",
            attack("(call $random (i64.const 0x10000000000) (i32.const 64))").with(RANDOM).into(),
        ),
        resource(
            "random-of-all-there-is",
            "random_kib",
            attack("(call $random (i64.const -1) (i32.const 64))").with(RANDOM).into(),
        ),
        resource(
            "random-17-kib",
            "random_kib",
            attack("(call $random (i64.const 17408) (i32.const 64))").with(RANDOM).into(),
        )
        .shows(&["random"]),
        resource(
            "insecure-random-of-a-tib",
            "random_kib",
            attack("(call $insecure (i64.const 0x10000000000) (i32.const 64))").with(INSECURE).into(),
        ),
        trap(
            "zeroes-of-a-tib",
            attack("(call $write-zeroes (call $stdout) (i64.const 0x10000000000) (i32.const 64))").with(STREAMS),
        ),
        trap(
            "zeroes-of-a-tib-and-wait",
            attack("(call $zeroes (call $stdout) (i64.const 0x10000000000) (i32.const 64))").with(SPLICE),
        ),
        // Standard input is at its end, however much is asked of it.
        Case::new(
            "read-an-eib",
            attack("(call $read (call $stdin) (i64.const 0x1000000000000000) (i32.const 64))").with(SPLICE),
        ),
        Case::new(
            "read-an-eib-and-wait",
            attack("(call $blocking-read (call $stdin) (i64.const 0x1000000000000000) (i32.const 64))").with(SPLICE),
        ),
        Case::new(
            "splice-an-eib",
            attack("(call $splice (call $stdout) (call $stdin) (i64.const 0x1000000000000000) (i32.const 64))")
                .with(SPLICE),
        ),
        trap(
            "write-too-much-at-once",
            attack("(call $write (call $stdout) (i32.const 0) (i32.const 60000) (i32.const 64))").with(STREAMS),
        ),
        // Each is two entries of the host's table and one handle of the engine's: only the table is too full.
        resource(
            "handles-of-the-hosts",
            "handles",
            attack(&times(200, "(drop (call $subscribe (i64.const 0)))")).with(SLEEP).into(),
        )
        .shows(&["handles"]),
        resource(
            "streams-never-dropped",
            "handles",
            attack(&times(20_000, "(drop (call $stdout))")).with(STREAMS).into(),
        ),
        resource("handles-of-its-own", "handles", own_handles().into()).shows(&["guest_handles"]),
        trap("a-handle-that-is-none", attack("(call $block (i32.const 12345))").with(SLEEP)),
        trap(
            "a-handle-of-another-kind",
            attack("(call $write (call $subscribe (i64.const 0)) (i32.const 0) (i32.const 1) (i32.const 64))")
                .with(SLEEP)
                .with(STREAMS),
        ),
        Case::new("a-handle-dropped-twice", dropped_twice()).fails("trap"),
        Case::new("handles-made-and-dropped", made_and_dropped()),
        Case::new("calls-out-in-post-return", calls_in_post_return()).fails("trap"),
    ]
}

/// Hands a text of so many bytes to the log.
fn passes(bytes: u32) -> Guest {
    attack(&format!(
        "(drop (memory.grow (i32.const {})))
         (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 65536) (i32.const {bytes}))",
        (bytes >> 16) + 1
    ))
    .with(LOGGING)
}

fn log(arguments: &str) -> Guest {
    attack(&format!("(call $log (i32.const 2) {arguments})")).with(LOGGING)
}

/// `resource.new` never leaves the engine, and yet costs the host memory each time.
fn own_handles() -> String {
    extended(
        &attack(&times(100_000, "(drop (call $new (i32.const 1)))")),
        "(type $own (resource (rep i32))) (core func $new (canon resource.new $own))",
        "(import \"own\" \"new\" (func $new (param i32) (result i32)))",
        "(export \"new\" (func $new))",
    )
}

const DROP: [&str; 3] = [
    "(core func $drop (canon resource.drop $pollable))",
    "(import \"own\" \"drop\" (func $drop (param i32)))",
    "(export \"drop\" (func $drop))",
];

fn dropped_twice() -> String {
    let twice =
        "(local.set $m (call $subscribe (i64.const 0))) (call $drop (local.get $m)) (call $drop (local.get $m))";
    extended(&attack(twice).with(SLEEP), DROP[0], DROP[1], DROP[2])
}

/// More than `handles` in all, and never more than one at once: what is dropped counts no more.
fn made_and_dropped() -> String {
    let body = times(
        1_000,
        "(local.set $m (call $subscribe (i64.const 1))) (call $block (local.get $m)) (call $drop (local.get $m))",
    );
    extended(&attack(&body).with(SLEEP), DROP[0], DROP[1], DROP[2])
}

/// A guest may not call out while the host clears up after it.
fn calls_in_post_return() -> Guest {
    let guest = super::computing::in_post_return(
        "(call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))",
    );
    guest.with(LOGGING)
}
