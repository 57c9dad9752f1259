//! The attacks, by theme. To add one: a line in the file of its theme.

mod calls;
mod computing;
pub mod files;
mod imports;
mod logs;
mod memory;
mod outputs;
mod reach;
mod traps;

pub use logs::FORGED;
pub use reach::network;

use crate::case::Case;
use crate::guest::{ECHO, Guest};

/// Never ends.
pub(crate) const FOREVER: &str = "(loop $for-ever (br $for-ever))";

/// Every attack on a plugin that loads.
pub fn all() -> Vec<Case> {
    let themes =
        [computing::all(), memory::all(), calls::all(), logs::all(), outputs::all(), reach::all(), traps::all()];
    themes.into_iter().flatten().collect()
}

/// A guest that echoes, unless its input is a text: then it does this first.
pub(crate) fn attack(body: &str) -> Guest {
    Guest {
        handle: format!(
            "(local $n i32) (local $m i32) (local $w i64)
             (if (i32.eq (i32.load8_u (local.get $input)) (i32.const 0x22)) (then {body})) {ECHO}"
        ),
        ..Guest::default()
    }
}

/// The same with definitions in its core module.
pub(crate) fn attack_with(core: &str, body: &str) -> Guest {
    Guest { core: core.to_owned(), ..attack(body) }
}

/// Does something so many times.
pub(crate) fn times(times: u32, body: &str) -> String {
    format!(
        "(local.set $n (i32.const {times}))
         (loop $again {body} (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"
    )
}

/// The text of a guest whose core module sees one more import: definitions of the component before it, the import as the core
/// module has it, and what the component gives for it.
pub(crate) fn extended(guest: &Guest, definitions: &str, import: &str, given: &str) -> String {
    guest
        .text()
        .replace("(core module $main", &format!("{definitions} (core module $main {import}"))
        .replace("(with \"libc\"", &format!("(with \"own\" (instance {given})) (with \"libc\""))
}
