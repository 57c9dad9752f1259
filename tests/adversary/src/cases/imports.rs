//! Imports that only an adversary uses so.

use crate::guest::Import;

/// Waiting for many things at once, with a clock's pollable to wait for.
pub(super) const POLL: Import = Import {
    text: r#"
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))
    (export "poll" (func (param "in" (list (borrow $pollable))) (result (list u32))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.6" (instance $clock
    (alias outer 1 $pollable (type $p))
    (export "pollable" (type $pollable (eq $p)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
"#,
    functions: &[
        ("block", "$poll \"[method]pollable.block\"", "(param i32)"),
        ("poll", "$poll \"poll\"", "(param i32 i32 i32)"),
        ("subscribe", "$clock \"subscribe-duration\"", "(param i64) (result i32)"),
    ],
};

/// Random bytes that need not be good.
pub(super) const INSECURE: Import = Import {
    text: r#"(import "wasi:random/insecure@0.2.0" (instance $insecure
        (export "get-insecure-random-bytes" (func (param "len" u64) (result (list u8))))))"#,
    functions: &[("insecure", "$insecure \"get-insecure-random-bytes\"", "(param i64 i32)")],
};

/// Standard input, and the calls of an output that make or move bytes without the guest's having any.
pub(super) const SPLICE: Import = Import {
    text: r#"
  (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $error-resource))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (alias outer 1 $error-resource (type $e))
    (export "error" (type $error (eq $e)))
    (type $se (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $se)))
    (export "output-stream" (type $output-stream (sub resource)))
    (export "input-stream" (type $input-stream (sub resource)))
    (export "[method]input-stream.read" (func
      (param "self" (borrow $input-stream)) (param "len" u64)
      (result (result (list u8) (error $stream-error)))))
    (export "[method]input-stream.blocking-read" (func
      (param "self" (borrow $input-stream)) (param "len" u64)
      (result (result (list u8) (error $stream-error)))))
    (export "[method]output-stream.blocking-splice" (func
      (param "self" (borrow $output-stream)) (param "src" (borrow $input-stream)) (param "len" u64)
      (result (result u64 (error $stream-error)))))
    (export "[method]output-stream.blocking-write-zeroes-and-flush" (func
      (param "self" (borrow $output-stream)) (param "len" u64) (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output-stream))
  (alias export $streams "input-stream" (type $input-stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output-stream (type $o))
    (export "output-stream" (type $output-stream (eq $o)))
    (export "get-stdout" (func (result (own $output-stream))))))
  (import "wasi:cli/stdin@0.2.0" (instance $stdin
    (alias outer 1 $input-stream (type $i))
    (export "input-stream" (type $input-stream (eq $i)))
    (export "get-stdin" (func (result (own $input-stream))))))
"#,
    functions: &[
        ("read", "$streams \"[method]input-stream.read\"", "(param i32 i64 i32)"),
        ("blocking-read", "$streams \"[method]input-stream.blocking-read\"", "(param i32 i64 i32)"),
        ("splice", "$streams \"[method]output-stream.blocking-splice\"", "(param i32 i32 i64 i32)"),
        ("zeroes", "$streams \"[method]output-stream.blocking-write-zeroes-and-flush\"", "(param i32 i64 i32)"),
        ("stdout", "$stdout \"get-stdout\"", "(result i32)"),
        ("stdin", "$stdin \"get-stdin\"", "(result i32)"),
    ],
};

/// Ending with a number of its own choice.
pub(super) const EXIT_WITH_CODE: Import = Import {
    text: r#"(import "wasi:cli/exit@0.2.6" (instance $exit (export "exit-with-code" (func (param "status-code" u8)))))"#,
    functions: &[("exit-with-code", "$exit \"exit-with-code\"", "(param i32)")],
};
