//! A task's id, as producers write it.

use super::TaskId;

/// Namespace of ids that are made from another key (UUID version 5): an `Idempotency-Key`, or a `message_id` that is not a UUID.
const KEYS: TaskId = uuid::uuid!("5b6f1f0e-6a5c-4f0b-9d0e-0c1d6f2a7e11");

/// A UUID in any of its usual forms: in upper case, without hyphens, in braces or parentheses, or as `urn:uuid:`.
pub fn uuid(text: &str) -> Option<TaskId> {
    let lower = text.trim().to_ascii_lowercase();
    let inner = lower.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(&lower);
    TaskId::try_parse(inner).ok()
}

/// The id that stands for a key. A repeat is then recognised as any other message that comes twice.
pub fn of_key(key: &[u8]) -> TaskId {
    TaskId::new_v5(&KEYS, key)
}

/// The id of the property `message_id`: its UUID, or the one that stands for it. `None`: it is blank.
///
/// Control characters are an error: bytes that are not text arrive as such, and two different ids would become one.
pub(super) fn of_message_id(text: &str) -> Result<Option<TaskId>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    if text.chars().any(char::is_control) {
        return Err(format!(
            "message_id is {text:?}; it holds control characters, or bytes that are not UTF-8: publish text"
        ));
    }
    Ok(Some(uuid(text).unwrap_or_else(|| of_key(text.as_bytes()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01920c3e-0000-7000-8000-00000000000a";

    #[test]
    fn a_uuid_has_many_forms() {
        for text in [
            ID,
            "01920C3E-0000-7000-8000-00000000000A",
            "01920c3e00007000800000000000000a",
            "{01920c3e-0000-7000-8000-00000000000a}",
            "{01920C3E-0000-7000-8000-00000000000A}",
            "(01920c3e-0000-7000-8000-00000000000a)",
            "urn:uuid:01920c3e-0000-7000-8000-00000000000a",
            "URN:UUID:01920C3E-0000-7000-8000-00000000000A",
            " 01920c3e-0000-7000-8000-00000000000a\n",
        ] {
            assert_eq!(uuid(text).map(|id| id.to_string()).as_deref(), Some(ID), "{text}");
        }
        assert_eq!(uuid("order-17"), None);
    }

    #[test]
    fn another_message_id_is_always_the_same_uuid() {
        let id = |text: &str| of_message_id(text).unwrap();
        assert_eq!(id("order-17"), Some(of_key(b"order-17")));
        assert_ne!(id("order-17"), id("order-18"));
        assert_eq!(id("order-17").unwrap().get_version_num(), 5);
        assert_eq!((id(""), id(" ")), (None, None));
        assert_eq!(id(&ID.to_uppercase()).map(|id| id.to_string()).as_deref(), Some(ID));
        assert!(of_message_id("\u{1a}\u{1a}").unwrap_err().contains("not UTF-8"));
    }
}
