//! What remains of a failure whose task is erased.

use super::super::fault::Fault;
use super::birth::stored;
use crate::task::Failure;

/// The same failure without words: its kind, and whether it would have been retried.
pub(in crate::db) fn erased(failure: &str) -> Result<String, Fault> {
    let failure: Failure = serde_json::from_str(failure).map_err(|e| Fault::Defect(format!("failure: {e}")))?;
    let wordless = Failure { message: "erased".into(), detail: serde_json::Value::Null, ..failure };
    Ok(stored(&wordless))
}
