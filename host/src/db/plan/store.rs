//! Limits, sums and words of what plugins keep: alike for every database.

use super::super::{
    Amount, Place, SpendAnswer, SpendScope, StoreAnswer, StoreLimit, StoreLimits, StoreRefusal, storable,
};
use agentry_defence::Defence;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Different words of a query that are looked for.
const QUERY_WORDS: usize = 32;
/// Bytes of a word that tell it from others.
const WORD_BYTES: usize = 255;
/// Entries of one answer at most.
pub(in crate::db) const RECALLED: u32 = 100;

/// What a plugin's buckets hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::db) struct Held {
    pub keys: u64,
    /// Of keys and values.
    pub bytes: u64,
}

/// Refuses what is above a maximum.
fn within(limit: StoreLimit, wanted: u64, allowed: u64) -> StoreAnswer<()> {
    if wanted > allowed && limit.defence().stands() {
        Err(StoreRefusal::Limit { limit, wanted, allowed })
    } else {
        Ok(())
    }
}

fn without_nul(text: &str) -> StoreAnswer<()> {
    if text.contains('\0') { Err(StoreRefusal::Nul) } else { Ok(()) }
}

impl StoreLimit {
    fn defence(self) -> Defence {
        match self {
            StoreLimit::KeyBytes => Defence::KeyBytes,
            StoreLimit::ValueBytes => Defence::ValueBytes,
            StoreLimit::Keys => Defence::BucketKeys,
            StoreLimit::Bytes => Defence::BucketBytes,
            StoreLimit::TextBytes | StoreLimit::MetadataBytes => Defence::MemoryText,
            StoreLimit::Memories => Defence::MemoryEntries,
        }
    }
}

impl StoreLimits {
    /// Whether a key may be one.
    pub fn check_key(&self, key: &str) -> StoreAnswer<()> {
        within(StoreLimit::KeyBytes, key.len() as u64, self.key_bytes)?;
        without_nul(key)
    }

    /// Whether a text may be remembered, or be asked for.
    pub fn check_text(&self, text: &str) -> StoreAnswer<()> {
        within(StoreLimit::TextBytes, text.len() as u64, self.text_bytes)?;
        without_nul(text)
    }

    /// Whether metadata are small enough, and can be stored. That they are a JSON object is for the caller to see.
    pub fn check_metadata(&self, metadata: &str) -> StoreAnswer<()> {
        within(StoreLimit::MetadataBytes, metadata.len() as u64, self.metadata_bytes)?;
        without_nul(metadata)
    }
}

/// What is to be set, each key once.
pub(in crate::db) fn pairs<'a>(
    pairs: &'a [(String, Vec<u8>)],
    limits: &StoreLimits,
) -> StoreAnswer<BTreeMap<&'a str, &'a [u8]>> {
    for (key, value) in pairs {
        limits.check_key(key)?;
        within(StoreLimit::ValueBytes, value.len() as u64, limits.value_bytes)?;
    }
    Ok(pairs.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect())
}

/// What is held once the pairs are set; `there`: the bytes of those that are there, key and value. Who holds too much,
/// because less is allowed than before, may still write what is no more.
pub(in crate::db) fn held_after(
    held: Held,
    there: &BTreeMap<String, u64>,
    pairs: &BTreeMap<&str, &[u8]>,
    limits: &StoreLimits,
) -> StoreAnswer<Held> {
    let gone: u64 = pairs.keys().filter_map(|key| there.get(*key)).sum();
    let come: u64 = pairs.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
    let new = pairs.keys().filter(|key| !there.contains_key(**key)).count() as u64;
    let after = Held { keys: held.keys + new, bytes: (held.bytes + come).saturating_sub(gone) };
    if after.keys > held.keys {
        within(StoreLimit::Keys, after.keys, limits.keys)?;
    }
    if after.bytes > held.bytes {
        within(StoreLimit::Bytes, after.bytes, limits.bytes)?;
    }
    Ok(after)
}

/// What is held once these are deleted.
pub(in crate::db) fn held_without(held: Held, gone: impl Iterator<Item = u64>) -> Held {
    gone.fold(held, |held, bytes| Held { keys: held.keys.saturating_sub(1), bytes: held.bytes.saturating_sub(bytes) })
}

/// The sum of a stored number and another.
pub(in crate::db) fn sum(stored: Option<&[u8]>, delta: u64) -> StoreAnswer<u64> {
    let number = match stored {
        None => 0,
        // The parser would take a sign as well.
        Some(text) if text.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok()).ok_or(StoreRefusal::NotANumber)?
        }
        Some(_) => return Err(StoreRefusal::NotANumber),
    };
    number.checked_add(delta).ok_or(StoreRefusal::Overflow)
}

/// Whether there is room for one entry more.
pub(in crate::db) fn room_to_remember(held: u64, limits: &StoreLimits) -> StoreAnswer<()> {
    within(StoreLimit::Memories, held + 1, limits.memories)
}

/// Tells two texts together from any others: whether the same is remembered already.
pub(in crate::db) fn memory_digest(one: &str, other: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [one, other] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The words of a text, in order: lower case, compatible forms made one, Latin accents taken away, so that every database
/// finds the same whatever its locale.
fn words(text: &str) -> Vec<String> {
    let plain: String =
        text.chars().flat_map(char::to_lowercase).nfkd().filter(|c| !('\u{300}'..='\u{36f}').contains(c)).collect();
    plain
        .split(|c: char| !c.is_alphanumeric() && !is_combining_mark(c))
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .map(|word| storable::cut(word, WORD_BYTES).into_owned())
        .collect()
}

/// The word that only entries of one memory have. It stands before their own words, so that the index answers for this
/// memory alone, however much others hold. A guest that writes another's is found no sooner: the place is compared as well.
fn scope(place: &Place) -> String {
    let digest = memory_digest(&place.plugin, &place.name);
    digest[..16].iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|half| char::from(b'a' + half)).collect()
}

/// What the index holds of an entry.
pub(in crate::db) fn indexed(place: &Place, text: &str) -> String {
    format!("{} {}", scope(place), words(text).join(" "))
}

/// What the index is asked for: for each word of a query, the words that an entry must have.
pub(in crate::db) fn asked(place: &Place, query: &str) -> Vec<[String; 2]> {
    let scope = scope(place);
    query_words(query).into_iter().map(|word| [scope.clone(), word]).collect()
}

/// The words that a query asks for, each once.
fn query_words(query: &str) -> Vec<String> {
    let mut asked: Vec<String> = Vec::new();
    for word in words(query) {
        if asked.len() < QUERY_WORDS && !asked.contains(&word) {
            asked.push(word);
        }
    }
    asked
}

/// The largest count, so that sums of two fit.
const MOST: u64 = (i64::MAX / 4) as u64;

/// Amounts that are counted at all, each kind once and in order, so that whoever locks several rows does so in one order.
pub(in crate::db) fn counted_amounts(amounts: &[Amount], of: impl Fn(&Amount) -> Option<u64>) -> Vec<Amount> {
    let mut counted: BTreeMap<&str, Amount> = BTreeMap::new();
    for amount in amounts.iter().filter(|amount| of(amount).is_some()) {
        let before = counted.get(amount.kind).map_or(0, |before| before.amount);
        counted.insert(amount.kind, Amount { amount: amount.amount.saturating_add(before), ..*amount });
    }
    counted.into_values().collect()
}

/// What is added to a count for an amount: never more than can be added.
pub(in crate::db) fn added(amount: &Amount) -> i64 {
    amount.amount.min(MOST) as i64
}

/// Whether an amount is still within its allowance, `used` being the count with it; or why not.
pub(in crate::db) fn afforded(amount: &Amount, scope: SpendScope, used: i64, refunded: i64) -> Result<(), SpendAnswer> {
    let used = (used - added(amount)).max(0).unsigned_abs();
    let most = match scope {
        SpendScope::Task => amount.per_task,
        SpendScope::Day => amount.per_day,
    };
    let allowed = most.unwrap_or(u64::MAX);
    let fits = used.saturating_add(amount.amount) <= allowed.min(MOST);
    let refunded = refunded.max(0).unsigned_abs();
    if fits { Ok(()) } else { Err(SpendAnswer::Exhausted { kind: amount.kind, scope, used, allowed, refunded }) }
}

/// What an earlier run of a task spent of one allowance, as its row has it.
#[derive(Clone, Debug)]
pub(in crate::db) struct Former {
    pub kind: String,
    /// What that run spent.
    pub of_run: i64,
    /// What was returned for runs before it.
    pub refunded: i64,
    /// It was interrupted, and no child of the isolation lane has died of the task.
    pub interrupted: bool,
}

impl Former {
    /// Returns what a task gets back for its earlier run: all of it if the run was interrupted, but in all no more than the
    /// allowance. A task that is interrupted in every run would spend without end otherwise.
    pub(in crate::db) fn refund(&self, amounts: &[Amount]) -> i64 {
        let allowed = amounts.iter().filter(|amount| amount.kind == self.kind).find_map(|amount| amount.per_task);
        let left = allowed.unwrap_or(0).min(MOST) as i64 - self.refunded;
        if self.interrupted { self.of_run.min(left).max(0) } else { 0 }
    }
}

/// An amount, or a difference, that a count can take.
pub(in crate::db) fn countable(difference: i64) -> i64 {
    difference.clamp(-(MOST as i64), MOST as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_same_however_they_are_written() {
        assert_eq!(words("Crème BRÛLÉE, crème\u{301}!"), ["creme", "brulee", "creme"]);
        assert_eq!(words("\"a\" AND (b* NEAR c) - d:e|f&g!h"), ["a", "and", "b", "near", "c", "d", "e", "f", "g", "h"]);
        assert_eq!(words("ﬁne １２ Ärger"), ["fine", "12", "arger"]);
        assert_eq!(words("東京 हिन्दी Ελλάδα"), ["東京", "हिन्दी", "ελλαδα"]);
        assert!(words(" \" * ( : - &|! \u{301} ").is_empty());
    }

    #[test]
    fn a_query_asks_for_each_word_once_and_for_no_end_of_them() {
        assert_eq!(query_words("b a B b"), ["b", "a"]);
        let many: Vec<String> = (0..1_000).map(|n| format!("w{n}")).collect();
        assert_eq!(query_words(&many.join(" ")).len(), QUERY_WORDS);
    }

    #[test]
    fn only_decimal_text_is_a_number() {
        assert_eq!(sum(None, 2), Ok(2));
        assert_eq!(sum(Some(b"0040"), 2), Ok(42));
        assert_eq!(sum(Some(b"18446744073709551615"), 0), Ok(u64::MAX));
        assert_eq!(sum(Some(b"18446744073709551615"), 1), Err(StoreRefusal::Overflow));
        for bad in ["", "+1", "-1", " 1", "1.0", "x", "18446744073709551616"] {
            assert_eq!(sum(Some(bad.as_bytes()), 1), Err(StoreRefusal::NotANumber), "{bad:?}");
        }
    }

    #[test]
    fn who_holds_too_much_may_still_write_what_is_no_more() {
        let limits = StoreLimits { keys: 1, bytes: 10, ..StoreLimits::default() };
        let held = Held { keys: 2, bytes: 30 };
        let there = BTreeMap::from([("a".to_owned(), 15), ("b".to_owned(), 15)]);
        let smaller = BTreeMap::from([("a", b"1234".as_slice())]);
        assert_eq!(held_after(held, &there, &smaller, &limits), Ok(Held { keys: 2, bytes: 20 }));
        let larger = BTreeMap::from([("a", [0u8; 15].as_slice())]);
        let refused = StoreRefusal::Limit { limit: StoreLimit::Bytes, wanted: 31, allowed: 10 };
        assert_eq!(held_after(held, &there, &larger, &limits), Err(refused));
    }
}
