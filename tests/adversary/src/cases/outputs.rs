//! Answers that would break whoever reads them.

use serde_json::json;

use super::{attack, attack_with};
use crate::case::Case;
use crate::guest::{Guest, quoted};
use crate::stage::Seen;

pub(super) fn all() -> Vec<Case> {
    let answers = |id, text: &str| Case::new(id, returns(text));
    let raw = |id, text: String| Case::probe(id, json!({"do": "not_json", "text": text}));
    vec![
        answers("output-is-not-json", "as it came").fails("invalid_output").shows(&["output_json"]),
        answers("output-is-empty", "").fails("invalid_output"),
        answers("output-is-two", "1 2").fails("invalid_output"),
        answers("output-holds-nul", "\"a\0b\"").fails("invalid_output"),
        answers("output-spells-nul", "\"a\\u0000b\""),
        answers("output-has-one-key-twice", "{\"a\":1,\"a\":2}"),
        answers("output-clears-the-screen", "\"\u{9b}2J\u{202e}\""),
        raw("output-30000-deep", "[".repeat(30_000)).fails("invalid_output").saying(&["deep"]),
        raw("output-30000-deep-and-back", ["[".repeat(30_000), "]".repeat(30_000)].concat()).fails("invalid_output"),
        raw("output-deep-in-objects", "{\"a\":".repeat(8_000)).fails("invalid_output"),
        raw("output-100-deep", ["[".repeat(100), "]".repeat(100)].concat()),
        raw("output-101-deep", ["[".repeat(101), "]".repeat(101)].concat()).fails("invalid_output"),
        // A little more than allowed, which the engine would let through, and so much that it does not even read it.
        Case::new("output-of-66-kib", large(66 << 10)).over("output_too_large", "output_kib"),
        Case::new("output-of-8-kib", large(8 << 10))
            .limit("output_kib", 4)
            .over("output_too_large", "output_kib")
            .shows(&["output"]),
        Case::new("output-of-10-mib", large(10 << 20)).over("output_too_large", "output_kib"),
        Case::new("output-of-300-mib", large(300 << 20))
            .limit("memory_mib", 400)
            .over("output_too_large", "output_kib"),
        Case::new("failure-with-10-mib", fails(10 << 20, true))
            .limit("hostcall_kib", 16_384)
            .limit("memory_mib", 24)
            .fails("plugin_error")
            .check(bare),
        Case::new("failure-past-the-limit", fails(10 << 20, true))
            .limit("memory_mib", 24)
            .over("output_too_large", "output_kib"),
        Case::new("failure-with-a-long-message", fails(60_000, false)).fails("plugin_error").check(bare),
        Case::probe(
            "failure-with-a-code-that-is-none",
            json!({"do": "fail_permanent", "message": "m", "code": "NOT a code\u{0}\u{1b}[2J"}),
        )
        .fails("plugin_error")
        .check(bare),
        Case::probe("failure-with-a-bad-pointer", json!({"do": "invalid_input", "pointer": "no/pointer\u{0}"}))
            .fails("invalid_input"),
        Case::probe(
            "failure-that-holds-nul",
            json!({"do": "fail_permanent", "message": "a\u{0}b\u{1b}c", "details": "\u{0}"}),
        )
        .fails("plugin_error"),
        Case::probe("retry-after-49-days", json!({"do": "fail_retry", "message": "m", "after_ms": u32::MAX}))
            .fails("plugin_error"),
    ]
}

/// Returns this text where it attacks.
fn returns(text: &str) -> Guest {
    attack_with(
        &format!("(data (i32.const 1024) {})", quoted(text)),
        &format!("(return (call $ok (i32.const 1024) (i32.const {})))", text.len()),
    )
}

/// Returns so many bytes of JSON: a number among spaces. Beyond 100 MiB only zeroes, which cost the guest nothing.
fn large(bytes: u32) -> Guest {
    let spaces = bytes.min(10 << 20);
    attack(&format!(
        "(drop (memory.grow (i32.const {})))
         (memory.fill (i32.const 65536) (i32.const 0x20) (i32.const {spaces}))
         (i32.store8 (i32.const 65536) (i32.const 0x31))
         (return (call $ok (i32.const 65536) (i32.const {bytes})))",
        (bytes >> 16) + 1
    ))
}

/// Fails for good with so many bytes of message, and as many of code and details.
fn fails(bytes: u32, dressed: bool) -> Guest {
    let dress = if dressed {
        format!(
            "(i32.store8 (i32.const 16) (i32.const 1)) (i32.store (i32.const 20) (i32.const 65536))
             (i32.store (i32.const 24) (i32.const {}))
             (i32.store8 (i32.const 28) (i32.const 1)) (i32.store (i32.const 32) (i32.const 65536))
             (i32.store (i32.const 36) (i32.const {}))",
            bytes / 8,
            bytes / 4
        )
    } else {
        String::new()
    };
    // The record begins at 0: the case of the result, the case of the failure, and the fields.
    attack(&format!(
        "(drop (memory.grow (i32.const {})))
         (memory.fill (i32.const 0) (i32.const 0) (i32.const 64))
         (memory.fill (i32.const 65536) (i32.const 0x78) (i32.const {bytes}))
         (i32.store8 (i32.const 0) (i32.const 1)) (i32.store8 (i32.const 4) (i32.const 1))
         (i32.store (i32.const 8) (i32.const 65536)) (i32.store (i32.const 12) (i32.const {bytes}))
         {dress} (return (i32.const 0))",
        (bytes >> 16) + 1
    ))
}

/// Nothing that the guest chose too long or wrong is kept.
fn bare(_: &Case, seen: &Seen) -> Vec<String> {
    let detail = &seen.failure()["detail"];
    let kept = ["code", "data"].iter().filter(|name| !detail[**name].is_null());
    kept.map(|name| format!("the failure keeps a {name}")).collect()
}
