//! Breaking the rules of the machine and of the interface.

use serde_json::json;

use super::computing::{in_destructor, in_post_return, in_realloc};
use super::imports::EXIT_WITH_CODE;
use super::{attack, attack_with};
use crate::case::Case;
use crate::guest::{EXIT, Guest};
use crate::stage::Seen;

pub(super) fn all() -> Vec<Case> {
    let trap = |id, body: &str, says| Case::new(id, attack(body)).fails("trap").saying(says);
    let mut cases = vec![
        trap("unreachable", "unreachable", &["unreachable"]),
        trap("division-by-zero", "(drop (i32.div_u (i32.const 1) (local.get $n)))", &["divide by zero"]),
        trap(
            "division-overflow",
            "(drop (i32.div_s (i32.const 0x80000000) (i32.sub (local.get $n) (i32.const 1))))",
            &["overflow"],
        ),
        trap("conversion-of-nan", "(drop (i32.trunc_f32_s (f32.const nan)))", &["conversion"]),
        trap("conversion-overflow", "(drop (i64.trunc_f64_u (f64.const 1e300)))", &["overflow"]),
        trap("read-outside", "(drop (i32.load (i32.const -4)))", &["out of bounds"]),
        trap("write-outside", "(i64.store offset=0xfffffff8 (i32.const -8) (i64.const 1))", &["out of bounds"]),
        trap("copy-outside", "(memory.copy (i32.const 0) (i32.const 65530) (i32.const -1))", &["out of bounds"]),
        trap("returns-a-pointer-outside", "(return (call $ok (i32.const 65530) (i32.const 100)))", &[]),
        trap("returns-2-gib", "(return (call $ok (i32.const 8) (i32.const 0x7fffffff)))", &[]),
        trap("returns-4-gib", "(return (call $ok (i32.const 8) (i32.const -1)))", &[]),
        trap("returns-a-result-outside", "(return (i32.const -8))", &[]),
        trap("returns-a-crooked-result", "(return (i32.const 3))", &[]),
        trap("returns-no-such-case", "(i32.store8 (i32.const 0) (i32.const 7)) (return (i32.const 0))", &[]),
        trap(
            "returns-what-is-no-text",
            "(i32.store (i32.const 64) (i32.const -1)) (return (call $ok (i32.const 64) (i32.const 4)))",
            &[],
        ),
        trap(
            "returns-half-a-pair",
            "(i32.store (i32.const 64) (i32.const 0x80a0ed)) (return (call $ok (i32.const 64) (i32.const 3)))",
            &[],
        ),
        Case::new(
            "call-of-another-type",
            attack_with(
                "(table $t 2 funcref) (elem (i32.const 0) $f) (func $f (param i64 i64 i64)) (type $none (func))",
                "(call_indirect $t (type $none) (i32.const 0))",
            ),
        )
        .fails("trap")
        .saying(&["type mismatch"]),
        Case::new(
            "call-of-nothing",
            attack_with("(table $t 2 funcref) (type $none (func))", "(call_indirect $t (type $none) (i32.const 1))"),
        )
        .fails("trap"),
        Case::new(
            "call-outside-the-table",
            attack_with("(table $t 2 funcref) (type $none (func))", "(call_indirect $t (type $none) (i32.const -1))"),
        )
        .fails("trap"),
        Case::new("trap-in-start", Guest { core: "(func $s unreachable) (start $s)".to_owned(), ..Guest::default() })
            .fails("trap")
            .never_honest(),
        Case::new("trap-in-realloc", in_realloc("unreachable")).fails("trap"),
        Case::new("realloc-answers-outside", in_realloc("(return (i32.const -1))")).fails("trap"),
        Case::new("realloc-answers-crookedly", in_realloc("(return (i32.const 0x7ffffff1))")).fails("trap"),
        // It writes its own result over what it was given.
        Case::new("realloc-answers-the-same", in_realloc("(return (i32.const 0))")).fails("invalid_output"),
        Case::new("trap-in-post-return", in_post_return("unreachable")).fails("trap"),
        Case::new("trap-in-destructor", in_destructor("unreachable")).fails("trap"),
        Case::new(
            "data-outside",
            Guest { core: "(data (i32.const 65530) \"0123456789\")".to_owned(), ..Guest::default() },
        )
        .fails("trap")
        .never_honest(),
        Case::new("exit-as-success", attack("(call $exit (i32.const 0))").with(EXIT)).fails("trap").check(code_0),
        Case::new("exit-as-failure", attack("(call $exit (i32.const 1))").with(EXIT)).fails("trap"),
        Case::new("exit-with-a-code", attack("(call $exit-with-code (i32.const 7))").with(EXIT_WITH_CODE))
            .fails("trap")
            .saying(&["\"exit_code\":7"]),
        Case::new("a-frame-with-a-long-name", long_name()).fails("trap").check(short_frames).shows(&["frame_names"]),
        Case::probe("panic-is-quoted", json!({"do": "panic", "message": "the reason"}))
            .fails("trap")
            .saying(&["the reason"]),
        Case::probe("panic-with-60-kb", json!({"do": "panic", "message": "long ".repeat(12_000)})).fails("trap"),
    ];
    for (id, code) in [("exit-0", 0), ("exit-1", 1), ("exit-255", 255), ("exit-minus-1", -1)] {
        cases.push(Case::probe(id, json!({"do": "exit", "code": code})).fails("trap").saying(&["exit_code"]));
    }
    cases
}

/// A trap in a function whose name has 100,000 letters, below one whose name is an escape.
fn long_name() -> Guest {
    let name = format!("$_ZN{}{}E", 100_000, "x".repeat(100_000));
    attack_with(&format!("(func {name} unreachable) (func $\"\\00\\1b[2J\" (call {name}))"), "(call $\"\\00\\1b[2J\")")
}

fn short_frames(_: &Case, seen: &Seen) -> Vec<String> {
    let frames = seen.failure()["detail"]["frames"].as_array().cloned().unwrap_or_default();
    let lengths: Vec<usize> = frames.iter().filter_map(|frame| frame.as_str()).map(str::len).collect();
    match lengths.iter().max() {
        None => vec!["no frames".to_owned()],
        Some(most) if *most > 256 => vec![format!("a frame of {most} bytes")],
        Some(_) => Vec::new(),
    }
}

fn code_0(_: &Case, seen: &Seen) -> Vec<String> {
    let code = &seen.failure()["detail"]["exit_code"];
    if *code == json!(0) { Vec::new() } else { vec![format!("exit_code is {code}")] }
}
