//! Taking all the memory there is, in every way there is.

use serde_json::json;

use super::{attack, attack_with};
use crate::case::Case;
use crate::guest::Guest;

const MEMORY: (&str, &str) = ("memory_limit", "memory_mib");

pub(super) fn all() -> Vec<Case> {
    let memory = |id, guest: Guest| Case::new(id, guest).over(MEMORY.0, MEMORY.1);
    vec![
        memory("grow-to-4-gib", attack("(if (i32.eq (memory.grow (i32.const 65535)) (i32.const -1)) (then unreachable))")),
        memory("grow-past-4-gib", attack("(if (i32.eq (memory.grow (i32.const -1)) (i32.const -1)) (then unreachable))")),
        // Each page is touched, so that it would cost.
        memory("a-million-pages", attack(&grows("memory.grow", "i32.store8"))).shows(&["memory"]),
        memory(
            "many-memories-grow",
            attack_with(
                "(memory $a 1) (memory $b 1) (memory $c 1)",
                "(loop $l (br_if $l (i32.ne (memory.grow $a (i32.const 1)) (i32.const -1))))
                 (loop $l (br_if $l (i32.ne (memory.grow $b (i32.const 1)) (i32.const -1))))
                 (loop $l (br_if $l (i32.ne (memory.grow $c (i32.const 1)) (i32.const -1)))) unreachable",
            ),
        ),
        Case::new(
            "many-memories",
            Guest { core: "(memory 1) (memory 1) (memory 1) (memory 1) (memory 1)".to_owned(), ..Guest::default() },
        )
        .over("resource_limit", "memories")
        .never_honest(),
        Case::new("refused-and-goes-on", attack("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))")),
        Case::new(
            "table-grows",
            attack_with(
                "(table $t 10 funcref)",
                "(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 100)) (i32.const -1)))) unreachable",
            ),
        )
        .over("resource_limit", "table_elements")
        .shows(&["tables"]),
        Case::new(
            "table-grows-past-all",
            attack_with(
                "(table $t 10 funcref)",
                "(if (i32.eq (table.grow $t (ref.null func) (i32.const -1)) (i32.const -1)) (then unreachable))",
            ),
        )
        .over("resource_limit", "table_elements"),
        Case::new(
            "tables-in-numbers",
            attack_with(
                "(table $a 10 funcref) (table $b 10 funcref)",
                "(loop $l (br_if $l (i32.ne (table.grow $a (ref.null func) (i32.const 10)) (i32.const -1))))
                 (if (i32.eq (table.grow $b (ref.null func) (i32.const 600)) (i32.const -1)) (then unreachable))",
            ),
        )
        .over("resource_limit", "table_elements"),
        Case::new("table-large-from-the-start", Guest { core: "(table 2000 funcref)".to_owned(), ..Guest::default() })
            .over("resource_limit", "table_elements")
            .never_honest(),
        Case::probe("allocates-until-refused", json!({"do": "allocate", "mib": 64})).over(MEMORY.0, MEMORY.1),
        Case::probe("allocates-and-gives-back", json!({"do": "allocate", "mib": 200})).limit("memory_mib", 256),
    ]
}

/// Grows by a page and writes to it, until it may not; then it traps.
fn grows(grow: &str, store: &str) -> String {
    format!(
        "(loop $l
           (local.set $m ({grow} (i32.const 1)))
           (if (i32.eq (local.get $m) (i32.const -1)) (then unreachable))
           (local.set $m (i32.shl (local.get $m) (i32.const 16)))
           (local.set $n (i32.const 16))
           (loop $touch
             ({store} (local.get $m) (i32.const 1))
             (local.set $m (i32.add (local.get $m) (i32.const 4096)))
             (br_if $touch (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
           (br $l))"
    )
}
