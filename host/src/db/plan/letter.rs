//! Telling whether two unusable messages are one that came twice.

use super::super::DeadLetter;
use crate::task::TaskId;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Headers that a broker changes when it delivers a message again, so that they say nothing about which one it is.
const VOLATILE: [&str; 6] = [
    "x-delivery-count",
    "x-acquired-count",
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
];

/// Whether an equal one may have a row. A redelivery may; and so may a first delivery with an id of its own: its host may have
/// been cut off, the message delivered to another, and recorded there before. Equal ones without an id are told apart only by
/// what the broker says.
pub(in crate::db) fn may_be_known(letter: &DeadLetter) -> bool {
    letter.redelivered || letter.task_id.is_some()
}

/// For each letter of a batch, the index of the last one before it that it equals, if it may be a redelivery of that.
pub(in crate::db) fn equal_before(letters: &[DeadLetter], hashes: &[[u8; 32]]) -> Vec<Option<usize>> {
    let mut last = HashMap::new();
    let keys = letters.iter().zip(hashes).enumerate();
    keys.map(|(n, (letter, hash))| last.insert((hash, letter.task_id), n).filter(|_| may_be_known(letter))).collect()
}

/// A hash over queue, body and the properties that a redelivery keeps.
pub(in crate::db) fn content_hash(letter: &DeadLetter) -> [u8; 32] {
    let mut properties = letter.properties.clone();
    let headers = properties.as_object_mut().and_then(|p| p.get_mut("headers")).and_then(Value::as_object_mut);
    if let Some(headers) = headers {
        for name in VOLATILE {
            headers.remove(name);
        }
        if headers.is_empty() {
            properties.as_object_mut().and_then(|p| p.remove("headers"));
        }
    }
    let properties = properties.to_string();
    let mut hash = Sha256::new();
    // Lengths go in before the parts, so that no two different messages hash alike.
    for part in [letter.queue.as_bytes(), &letter.body, properties.as_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Names the ids under which letters are delivered again.
const REDRIVES: uuid::Uuid = uuid::uuid!("0b9c1a52-6f0e-4c59-9f0c-2f6b8a7d3e40");

/// The id of a letter's next redrive, after `redrives` that were seen through: one that dies half-way and is begun again
/// publishes the same task twice. The content is in it, so that letters of two databases do not meet.
pub(in crate::db) fn redrive_id(letter: i64, redrives: i64, content_hash: &[u8]) -> TaskId {
    let mut name = [letter.to_be_bytes(), redrives.to_be_bytes()].concat();
    name.extend_from_slice(content_hash);
    TaskId::new_v5(&REDRIVES, &name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn letter(body: &[u8], properties: Value) -> DeadLetter {
        DeadLetter {
            reason: "not_json".into(),
            detail: String::new(),
            queue: "default".into(),
            task_id: None,
            plugin: None,
            body: body.into(),
            properties,
            redelivered: false,
        }
    }

    #[test]
    fn a_redelivery_hashes_as_its_first_delivery() {
        let first = letter(b"x", json!({"content_type": "a"}));
        let again = letter(b"x", json!({"content_type": "a", "headers": {"x-delivery-count": 1}}));
        assert_eq!(content_hash(&first), content_hash(&again));
    }

    #[test]
    fn a_redelivery_equals_the_last_of_its_batch_and_first_deliveries_without_an_id_equal_none() {
        let first = letter(b"x", json!({}));
        let again = DeadLetter { redelivered: true, ..first.clone() };
        let named = DeadLetter { task_id: Some(uuid::Uuid::from_u128(1)), ..first.clone() };
        let letters = [first.clone(), first, again, named.clone(), named, letter(b"y", json!({}))];
        let hashes: Vec<_> = letters.iter().map(content_hash).collect();
        assert_eq!(equal_before(&letters, &hashes), [None, None, Some(1), None, Some(3), None]);
    }

    #[test]
    fn another_body_or_header_hashes_otherwise() {
        let first = content_hash(&letter(b"x", json!({"headers": {"a": 1}})));
        assert_ne!(first, content_hash(&letter(b"y", json!({"headers": {"a": 1}}))));
        assert_ne!(first, content_hash(&letter(b"x", json!({"headers": {"a": 2}}))));
    }
}
