//! Components written by hand, so that the tests need no compiler for guests and can do what no compiler would.

use std::fmt::Write;

use bytes::Bytes;

/// The types of `wit/plugin.wit`, as every plugin imports them.
const TYPES: &str = r#"
  (import "agentry:plugin/types@0.1.0" (instance $types
    (type $t (record (field "id" string) (field "attempt" u32) (field "max-attempts" u32) (field "input" string)))
    (export "task" (type (eq $t)))
    (type $r (record (field "message" string) (field "code" (option string)) (field "details" (option string))
      (field "after-ms" (option u32))))
    (export "retry" (type $retry (eq $r)))
    (type $p (record (field "message" string) (field "code" (option string)) (field "details" (option string))))
    (export "permanent" (type $permanent (eq $p)))
    (type $i (record (field "message" string) (field "pointer" (option string))))
    (export "invalid-input" (type $invalid (eq $i)))
    (type $s (record (field "message" string) (field "after-ms" u32)))
    (export "snooze" (type $snooze (eq $s)))
    (type $f (variant (case "retry" $retry) (case "permanent" $permanent) (case "invalid-input" $invalid)
      (case "snooze" $snooze)))
    (export "failure" (type (eq $f)))))
  (alias export $types "task" (type $task))
  (alias export $types "failure" (type $failure))
"#;

/// A component whose `handle` is written in the text format.
///
/// The body of `handle` sees `$id $id-len $attempt $max-attempts $input $input-len`, may call `$ok` with the address and
/// length of its output, and leaves the address of its result. Memory from 1,024 to 32,768 is free for its use; its data
/// begins at 1,024; what the host puts into it comes after.
pub struct Guest {
    /// Imports of the component: what is imported, and how the core module sees it.
    pub imports: Vec<Import>,
    /// Definitions of the core module: globals, functions, data, tables, `start`.
    pub core: String,
    /// The body of `handle`.
    pub handle: String,
    /// The limits of the memory, in pages.
    pub memory: String,
    /// The body of `cabi_realloc`, with `$old $old-size $align $size`.
    pub realloc: String,
    /// The body of `post-return`.
    pub post: String,
    /// More definitions at the end of the component.
    pub tail: String,
    /// The export's name.
    pub export: String,
}

/// One imported instance and the functions of it that the core module uses.
#[derive(Clone)]
pub struct Import {
    /// Component-level text, defining an instance.
    pub text: &'static str,
    /// Lowered functions: name in the core module, the component function, and the core type.
    pub functions: &'static [(&'static str, &'static str, &'static str)],
}

impl Default for Guest {
    fn default() -> Self {
        Guest {
            imports: Vec::new(),
            core: String::new(),
            handle: ECHO.to_owned(),
            memory: "1".to_owned(),
            realloc: "(local $at i32)
                (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                (global.set $next (i32.add (local.get $at) (local.get $size)))
                (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
                  (then (drop (memory.grow
                    (i32.add (i32.shr_u (local.get $size) (i32.const 16)) (i32.const 1))))))
                (local.get $at)"
                .to_owned(),
            post: String::new(),
            tail: String::new(),
            export: "agentry:plugin/handler@0.1.0".to_owned(),
        }
    }
}

/// Returns the input as the output.
pub const ECHO: &str = "(call $ok (local.get $input) (local.get $input-len))";

/// A guest whose `handle` is this.
pub fn handle(body: &str) -> Guest {
    Guest { handle: body.to_owned(), ..Guest::default() }
}

/// A guest that returns this text.
pub fn returns(output: &str) -> Guest {
    Guest {
        core: format!("(data (i32.const 1024) {})", quoted(output)),
        ..handle(&format!("(call $ok (i32.const 1024) (i32.const {}))", output.len()))
    }
}

/// Bytes as a string literal of the text format.
pub fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for byte in text.bytes() {
        write!(quoted, "\\{byte:02x}").unwrap();
    }
    quoted + "\""
}

impl Guest {
    /// Adds an import.
    pub fn with(mut self, import: Import) -> Guest {
        self.imports.push(import);
        self
    }

    /// The component as text.
    pub fn text(&self) -> String {
        let mut imports = String::new();
        let mut lowered = String::new();
        let mut core_imports = String::new();
        let mut given = String::new();
        for import in &self.imports {
            imports += import.text;
            for (name, function, ty) in import.functions {
                write!(
                    lowered,
                    "(core func ${name} (canon lower (func {function}) (memory $memory) (realloc $realloc)))"
                )
                .unwrap();
                write!(core_imports, "(import \"host\" \"{name}\" (func ${name} {ty}))").unwrap();
                write!(given, "(export \"{name}\" (func ${name}))").unwrap();
            }
        }
        let Guest { core, handle, memory, realloc, post, tail, export, .. } = self;
        format!(
            r#"(component {TYPES} {imports}
  (core module $libc
    (memory (export "memory") {memory})
    (global $next (mut i32) (i32.const 32768))
    (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32)
      (result i32) {realloc}))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "cabi_realloc" (core func $realloc))
  {lowered}
  (core module $main
    {core_imports}
    (import "libc" "memory" (memory 0))
    (func $ok (param $at i32) (param $len i32) (result i32)
      (i32.store8 (i32.const 0) (i32.const 0))
      (i32.store (i32.const 4) (local.get $at))
      (i32.store (i32.const 8) (local.get $len))
      (i32.const 0))
    {core}
    (func $handle (export "handle") (param $id i32) (param $id-len i32) (param $attempt i32) (param $max-attempts i32)
      (param $input i32) (param $input-len i32) (result i32) {handle})
    (func (export "post") (param i32) {post}))
  (core instance $main (instantiate $main (with "libc" (instance $libc)) (with "host" (instance {given}))))
  (func $handle (param "task" $task) (result (result string (error $failure)))
    (canon lift (core func $main "handle") (memory $memory) (realloc $realloc) (post-return (func $main "post"))))
  (instance $handler (export "task" (type $task)) (export "failure" (type $failure)) (export "handle" (func $handle)))
  (export "{export}" (instance $handler))
  {tail})"#
        )
    }

    /// The component as a file whose main module tells the lines of its own text, which is given as well, as `guest.wat`. (The
    /// assembler only tells them of a module by itself, so the bytes of its section are exchanged.)
    pub fn build_with_lines(&self) -> (Bytes, String) {
        let text = self.text();
        let (begin, end) = ("(core module $main", "(core instance $main");
        let from = text.find(begin).unwrap();
        let to = text.find(end).unwrap();
        let module = format!("(module $main{}", text[from + begin.len()..to].trim_end());
        let plain = section(wat::parse_str(&module).unwrap());
        let mut parser = wat::Parser::new();
        parser.generate_dwarf(wat::GenerateDwarf::Lines);
        let with_lines = section(parser.parse_str(Some(std::path::Path::new("guest.wat")), &module).unwrap());
        let whole = self.build();
        let at = whole.windows(plain.len()).position(|bytes| bytes == plain).unwrap();
        ([&whole[..at], &with_lines, &whole[at + plain.len()..]].concat().into(), module)
    }

    /// The component as a file.
    pub fn build(&self) -> Bytes {
        let text = self.text();
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}")).into()
    }
}

/// A core module as a section of a component: its kind, its length in LEB128, and itself.
fn section(module: Vec<u8>) -> Vec<u8> {
    let (mut section, mut length) = (vec![1], module.len());
    while length >= 0x80 {
        section.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    section.push(length as u8);
    section.extend(module);
    section
}

/// `wasi:clocks`: a pollable after some nanoseconds, and waiting for it.
pub const SLEEP: Import = Import {
    text: r#"
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.6" (instance $clock
    (alias outer 1 $pollable (type $p))
    (export "pollable" (type $pollable (eq $p)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
"#,
    functions: &[
        ("block", "$poll \"[method]pollable.block\"", "(param i32)"),
        ("subscribe", "$clock \"subscribe-duration\"", "(param i64) (result i32)"),
    ],
};

/// `wasi:cli/exit`.
pub const EXIT: Import = Import {
    text: r#"(import "wasi:cli/exit@0.2.0" (instance $exit (export "exit" (func (param "status" (result))))))"#,
    functions: &[("exit", "$exit \"exit\"", "(param i32)")],
};

/// `wasi:random`: a list at the address given.
pub const RANDOM: Import = Import {
    text: r#"(import "wasi:random/random@0.2.0" (instance $random
        (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))"#,
    functions: &[("random", "$random \"get-random-bytes\"", "(param i64 i32)")],
};

/// `wasi:logging`.
pub const LOGGING: Import = Import {
    text: r#"(import "wasi:logging/logging@0.1.0-draft" (instance $logging
        (type $l (enum "trace" "debug" "info" "warn" "error" "critical"))
        (export "level" (type $level (eq $l)))
        (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))"#,
    functions: &[("log", "$logging \"log\"", "(param i32 i32 i32 i32 i32)")],
};

/// `agentry:plugin/context`.
pub const CONTEXT: Import = Import {
    text: r#"(import "agentry:plugin/context@0.1.0" (instance $context
        (export "remaining-ms" (func (result u32)))
        (export "plugin-name" (func (result string)))
        (export "plugin-version" (func (result string)))
        (export "labels" (func (result (list (tuple string string)))))))"#,
    functions: &[
        ("remaining-ms", "$context \"remaining-ms\"", "(result i32)"),
        ("plugin-name", "$context \"plugin-name\"", "(param i32)"),
        ("plugin-version", "$context \"plugin-version\"", "(param i32)"),
        ("labels", "$context \"labels\"", "(param i32)"),
    ],
};

/// Standard output and standard error.
pub const STREAMS: Import = Import {
    text: r#"
  (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $error-resource))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (alias outer 1 $error-resource (type $e))
    (export "error" (type $error (eq $e)))
    (type $se (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $se)))
    (export "output-stream" (type $output-stream (sub resource)))
    (export "[method]output-stream.blocking-write-and-flush" (func
      (param "self" (borrow $output-stream)) (param "contents" (list u8))
      (result (result (error $stream-error)))))
    (export "[method]output-stream.write-zeroes" (func
      (param "self" (borrow $output-stream)) (param "len" u64) (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output-stream (type $o))
    (export "output-stream" (type $output-stream (eq $o)))
    (export "get-stdout" (func (result (own $output-stream))))))
  (import "wasi:cli/stderr@0.2.0" (instance $stderr
    (alias outer 1 $output-stream (type $o))
    (export "output-stream" (type $output-stream (eq $o)))
    (export "get-stderr" (func (result (own $output-stream))))))
"#,
    functions: &[
        ("write", "$streams \"[method]output-stream.blocking-write-and-flush\"", "(param i32 i32 i32 i32)"),
        ("write-zeroes", "$streams \"[method]output-stream.write-zeroes\"", "(param i32 i64 i32)"),
        ("stdout", "$stdout \"get-stdout\"", "(result i32)"),
        ("stderr", "$stderr \"get-stderr\"", "(result i32)"),
    ],
};
