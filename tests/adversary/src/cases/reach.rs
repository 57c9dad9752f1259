//! Reaching for what is the host's, the network's, or another task's.

use serde_json::{Value, json};

use super::attack_with;
use crate::case::Case;
use crate::guest::{ECHO, Guest};
use crate::stage::Seen;

pub(super) fn all() -> Vec<Case> {
    let mut cases = vec![
        Case::probe("everything-at-once", json!({"do": "reach"})).check(nothing_reached),
        Case::probe("the-environment", json!({"do": "variables"})).check(empty),
        Case::new("a-global-of-the-last-task", remembers()),
    ];
    let files = [
        ("file-of-the-system", "/etc/passwd"),
        ("file-of-the-process", "/proc/self/environ"),
        ("file-beside-the-daemon", "canary.txt"),
        ("file-above", "../../../../../../etc/passwd"),
        ("file-without-a-name", ""),
        ("file-with-nul", "/etc/passwd\0.txt"),
    ];
    cases.extend(files.map(|(id, path)| Case::probe(id, json!({"do": "read", "path": path})).check(denied)));
    cases
}

/// Tries to get out by every way, one of which leads to this port.
pub fn network(port: u16) -> Case {
    Case::probe("the-network", json!({"do": "network", "port": port})).check(nothing_open).shows(&["network"])
}

fn nothing_open(_: &Case, seen: &Seen) -> Vec<String> {
    let ways = seen.output().as_object().into_iter().flatten();
    let open: Vec<String> = ways.filter(|(_, how)| *how == "open").map(|(way, _)| format!("{way} is open")).collect();
    if seen.output().is_object() { open } else { vec!["it did not say which ways it tried".to_owned()] }
}

/// Leaves a mark in a global, in memory and in a table, and traps when it finds one.
fn remembers() -> Guest {
    let core = "(global $seen (mut i32) (i32.const 0)) (table $t 2 funcref) (func $f) (elem declare func $f)";
    let mark = "(global.set $seen (i32.const 1)) (i32.store (i32.const 60000) (i32.const 1))
                (table.set $t (i32.const 1) (ref.func $f)) (drop (memory.grow (i32.const 4)))
                (i32.store (i32.const 100000) (i32.const 1))";
    let look = "(if (global.get $seen) (then unreachable))
                (if (i32.load (i32.const 60000)) (then unreachable))
                (if (i32.eqz (ref.is_null (table.get $t (i32.const 1)))) (then unreachable))
                (if (i32.ne (memory.size) (i32.const 1)) (then unreachable))
                (drop (memory.grow (i32.const 4)))
                (if (i32.load (i32.const 100000)) (then unreachable))";
    let guest = attack_with(core, mark);
    Guest {
        handle: guest.handle.replace(
            ECHO,
            &format!("(if (i32.ne (i32.load8_u (local.get $input)) (i32.const 0x22)) (then {look})) {ECHO}"),
        ),
        ..guest
    }
}

fn nothing_reached(_: &Case, seen: &Seen) -> Vec<String> {
    let nothing = |value: &Value| matches!(value, Value::Bool(false)) || value == &json!(0);
    let reached = seen.output().as_object().into_iter().flatten().filter(|(_, value)| !nothing(value));
    let mut wrong: Vec<String> = reached.map(|(name, value)| format!("it had {name}: {value}")).collect();
    if !seen.output().is_object() {
        wrong.push("it did not say what it had".to_owned());
    }
    wrong
}

fn empty(_: &Case, seen: &Seen) -> Vec<String> {
    if *seen.output() == json!([]) { Vec::new() } else { vec![format!("it had {}", seen.output())] }
}

fn denied(_: &Case, seen: &Seen) -> Vec<String> {
    let output = seen.output();
    if output["text"].is_null() && output["error"].is_string() { Vec::new() } else { vec![format!("it read {output}")] }
}
