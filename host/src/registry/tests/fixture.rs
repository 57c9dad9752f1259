//! The smallest plugin, written by hand: no compiler for guests is needed, and every output is a build of its own.

/// A component that answers every task with this JSON.
pub(super) fn component(output: &str) -> Vec<u8> {
    component_with_memory(output, 1)
}

/// The same, importing an instance of nothing under this name.
pub(super) fn component_with_import(import: &str) -> Vec<u8> {
    build("1", 1, &format!("(import \"{import}\" (instance))"))
}

/// The same, beginning with so many pages of memory.
pub(super) fn component_with_memory(output: &str, pages: u32) -> Vec<u8> {
    build(output, pages, "")
}

fn build(output: &str, pages: u32, import: &str) -> Vec<u8> {
    let data: String = output.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let text = format!(
        r#"(component {import}
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
  (core module $main
    (memory (export "memory") {pages})
    (data (i32.const 1024) "{data}")
    ;; The host puts the task's texts behind the output; they are never read.
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 32768))
    (func (export "handle") (param i32 i32 i32 i32 i32 i32) (result i32)
      (i32.store8 (i32.const 0) (i32.const 0))
      (i32.store (i32.const 4) (i32.const 1024))
      (i32.store (i32.const 8) (i32.const {length}))
      (i32.const 0)))
  (core instance $main (instantiate $main))
  (func $handle (param "task" $task) (result (result string (error $failure)))
    (canon lift (core func $main "handle") (memory $main "memory") (realloc (func $main "realloc"))))
  (instance $handler (export "task" (type $task)) (export "failure" (type $failure)) (export "handle" (func $handle)))
  (export "agentry:plugin/handler@0.1.0" (instance $handler)))"#,
        length = output.len()
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}
