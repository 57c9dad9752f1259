//! Reads a plugin file without running or compiling it: what it is, what it imports and exports, what memory it starts
//! with.

use agentry_defence::Defence;
use wasmparser::{Encoding, Parser, Payload};

use crate::plugin::LoadError;

/// The most modules and components that a component may be made of, however they are nested. Of a real one there are a
/// dozen; the compiler's memory grows with the square of their number, and some hundred kilobytes of file hold enough of them
/// to take all the memory that a machine has.
const PARTS: usize = 1_000;

/// What a component says about itself.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    /// Full names with versions, sorted.
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
    /// The initial size of all memories defined anywhere in it, in bytes.
    pub(crate) initial_memory: u64,
}

/// The first bytes of what people put in place of a component.
fn check_kind(file: &[u8]) -> Result<(), LoadError> {
    const MAGIC: &[u8] = b"\0asm";
    if file.is_empty() {
        return Err(LoadError::Truncated { reason: "the file is empty".to_owned() });
    }
    if file.starts_with(b"\x7fELF") {
        return Err(LoadError::Precompiled);
    }
    if !file.starts_with(MAGIC) {
        let text = std::str::from_utf8(&file[..file.len().min(64)]);
        let begins = text.map(|text| text.trim_start().starts_with(['(', ';']));
        return Err(match begins {
            Ok(true) => LoadError::Text,
            _ => LoadError::NotWasm,
        });
    }
    match file.get(4..8) {
        Some([1, 0, 0, 0]) => Err(LoadError::CoreModule),
        Some(_) => Ok(()),
        None => Err(LoadError::Truncated { reason: "the file ends within its first eight bytes".to_owned() }),
    }
}

/// Reads the outline of a component.
///
/// # Errors
/// Whatever is not a whole component is refused, by what it is instead.
pub(crate) fn outline(file: &[u8]) -> Result<Outline, LoadError> {
    if Defence::FileKind.stands() {
        check_kind(file)?;
    }
    let mut outline = Outline::default();
    // One entry per module or component that is open; the first is the plugin itself.
    let mut open: Vec<Encoding> = Vec::new();
    let mut parts = 0;
    let malformed = |error: wasmparser::BinaryReaderError| match error.message().contains("unexpected end") {
        true => LoadError::Truncated { reason: error.to_string() },
        false => LoadError::Malformed { reason: error.to_string() },
    };
    for payload in Parser::new(0).parse_all(file) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding, .. } => {
                open.push(encoding);
                parts += 1;
                if parts > PARTS && Defence::Parts.stands() {
                    return Err(LoadError::Parts { limit: PARTS });
                }
            }
            Payload::End(_) => {
                open.pop();
            }
            Payload::ComponentImportSection(section) if open.len() == 1 => {
                for import in section {
                    outline.imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if open.len() == 1 => {
                for export in section {
                    outline.exports.push(export.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let memory = memory.map_err(malformed)?;
                    let page = 1u64.checked_shl(memory.page_size_log2.unwrap_or(16)).unwrap_or(u64::MAX);
                    let bytes = memory.initial.saturating_mul(page);
                    outline.initial_memory = outline.initial_memory.saturating_add(bytes);
                }
            }
            _ => {}
        }
    }
    outline.imports.sort();
    Ok(outline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_of_very_many_parts_is_refused_however_they_are_nested() {
        let beside = |count: usize| format!("(component {})", "(core module)".repeat(count));
        assert!(outline(&wat::parse_str(beside(PARTS - 1)).unwrap()).is_ok());
        let tree = (0..10).fold("(component)".to_owned(), |inner, _| format!("(component {inner} {inner})"));
        for text in [beside(PARTS), tree] {
            let refused = outline(&wat::parse_str(text).unwrap()).unwrap_err();
            assert!(matches!(refused, LoadError::Parts { limit: PARTS }), "{refused}");
        }
    }
}
