//! What plugins remember.

use super::subject::*;
use crate::db::{Place, StoreLimit, StoreLimits, StoreRefusal, Writer};

fn place(plugin: &str, name: &str) -> Place {
    Place { plugin: plugin.into(), name: name.into() }
}

fn mine() -> Place {
    place("agent", "notes")
}

async fn remember(s: &Subject, place: &Place, text: &str) -> uuid::Uuid {
    let limits = StoreLimits::default();
    s.db.stores().remember(place, text, "{}", &limits, None).await.unwrap().unwrap()
}

async fn search(s: &Subject, query: &str) -> Vec<String> {
    s.db.stores().recall(&mine(), query, 100).await.unwrap().into_iter().map(|row| row.text).collect()
}

pub async fn a_text_is_found_by_its_words_in_any_order(s: &Subject) {
    let texts = ["the capital of France is Paris", "the capital of Italy is Rome", "bread is baked, not boiled"];
    for text in texts {
        remember(s, &mine(), text).await;
    }
    assert_eq!(search(s, "paris capital FRANCE").await, [texts[0], texts[1]]);
    assert_eq!(search(s, "boiled; bread").await, [texts[2]]);
    // More of the words are better, and rare ones better than common ones.
    assert_eq!(search(s, "is the italy").await, [texts[1], texts[0], texts[2]]);
    assert_eq!(search(s, "Rome bread").await.len(), 2);
    assert!(search(s, "cap fran").await.is_empty(), "parts of words are not words");
    let found = s.db.stores().recall(&mine(), "capital rome", 1).await.unwrap();
    assert_eq!((found.len(), found[0].text.as_str()), (1, texts[1]));
    let found = s.db.stores().recall(&mine(), "capital rome", 9).await.unwrap();
    assert!(found[0].score > found[1].score && found[1].score > 0.0, "{found:?}");
    assert!(s.db.stores().recall(&mine(), "capital", 0).await.unwrap().is_empty());
}

pub async fn of_equals_the_newest_is_first_and_without_a_word_all_are_equal(s: &Subject) {
    for text in ["one apple", "two apples", "three apple"] {
        remember(s, &mine(), text).await;
    }
    assert_eq!(search(s, "").await, ["three apple", "two apples", "one apple"]);
    assert_eq!(search(s, " ?! ").await, ["three apple", "two apples", "one apple"]);
    assert_eq!(search(s, "apple").await, ["three apple", "one apple"]);
    assert_eq!(s.db.stores().recall(&mine(), "", 2).await.unwrap().len(), 2);
    for n in 0..100 {
        remember(s, &mine(), &format!("pear {n}")).await;
    }
    assert_eq!(s.db.stores().recall(&mine(), "", u32::MAX).await.unwrap().len(), 100);
    assert_eq!(s.db.stores().recall(&mine(), "pear", u32::MAX).await.unwrap().len(), 100);
}

pub async fn words_of_every_script_are_found_however_they_are_written(s: &Subject) {
    for text in ["Crème BRÛLÉE", "東京 タワー", "Ελλάδα", "ÄRGER und Öl", "हिन्दी भाषा", "v2.0 costs 1,500 €", "don't"]
    {
        remember(s, &mine(), text).await;
        assert_eq!(search(s, text).await[0], text, "its own words");
    }
    for (query, found) in [
        ("creme", "Crème BRÛLÉE"),
        ("bru\u{302}le\u{301}e", "Crème BRÛLÉE"),
        ("東京", "東京 タワー"),
        ("ΕΛΛΆΔΑ", "Ελλάδα"),
        ("ärger", "ÄRGER und Öl"),
        ("हिन्दी", "हिन्दी भाषा"),
        ("1,500", "v2.0 costs 1,500 €"),
        ("don", "don't"),
    ] {
        assert_eq!(search(s, query).await, [found], "{query}");
    }
}

pub async fn nothing_in_a_query_is_an_operator(s: &Subject) {
    let text = "near and or not words a b";
    remember(s, &mine(), text).await;
    remember(s, &mine(), "something else").await;
    for query in [
        "words\"",
        "\"words",
        "words*",
        "(words",
        "words)",
        "NEAR(words x)",
        "words NOT words",
        "-words",
        "!words",
        "words & nothing",
        "nothing | words",
        "words:*",
        "words : x",
        "^words",
        "{words} : a",
        "a + b",
        "'words",
        "'; DROP TABLE memories; -- words",
        "words\\",
        "words <-> x",
        "%words%",
    ] {
        assert_eq!(search(s, query).await.first().map(String::as_str), Some(text), "{query}");
    }
    // A prefix is no wildcard.
    for query in ["word*", "wor:*", "so*", "words_", "text:x", "memory_words:x"] {
        let found = search(s, query).await;
        assert!(found.is_empty() || query == "words_" || query == "memory_words:x", "{query}: {found:?}");
    }
    let long: String = (0..5_000).map(|n| format!("x{n} ")).collect::<String>() + "words";
    assert!(search(s, &long).await.is_empty(), "beyond the words that are looked for");
    assert_eq!(search(s, &"words ".repeat(2_000)).await, [text], "one word, however often");
    assert!(search(s, "nul\0nul").await.is_empty());
}

pub async fn memories_and_plugins_do_not_meet(s: &Subject) {
    let others = [place("agent", "other"), place("stranger", "notes")];
    let own = remember(s, &mine(), "a secret of mine").await;
    for other in &others {
        let id = remember(s, other, "a secret of mine").await;
        assert_ne!(id, own);
        assert_eq!(s.db.stores().recall(other, "secret", 9).await.unwrap().len(), 1);
        // The id of another's entry is nothing here.
        s.db.stores().forget(other, own, None).await.unwrap().unwrap();
    }
    assert_eq!(search(s, "secret").await.len(), 1);
    // How common a word is elsewhere is nothing here either.
    let before = s.db.stores().recall(&mine(), "secret", 9).await.unwrap();
    remember(s, &others[1], "secret secret").await;
    assert_eq!(s.db.stores().recall(&mine(), "secret", 9).await.unwrap(), before);
}

pub async fn the_same_is_remembered_once_and_forgotten_for_good(s: &Subject) {
    let stores = s.db.stores();
    let limits = StoreLimits::default();
    let one = stores.remember(&mine(), "x", r#"{"a":1}"#, &limits, None).await.unwrap().unwrap();
    assert_eq!(stores.remember(&mine(), "x", r#"{"a":1}"#, &limits, None).await.unwrap(), Ok(one));
    let two = stores.remember(&mine(), "x", r#"{"a":2}"#, &limits, None).await.unwrap().unwrap();
    assert_ne!(one, two);
    let found = stores.recall(&mine(), "x", 9).await.unwrap();
    let told: Vec<_> = found.iter().map(|row| (row.id, row.metadata.as_str())).collect();
    assert_eq!(told, [(two, r#"{"a":2}"#), (one, r#"{"a":1}"#)]);
    stores.forget(&mine(), one, None).await.unwrap().unwrap();
    stores.forget(&mine(), one, None).await.unwrap().unwrap();
    assert_eq!(search(s, "x").await.len(), 1);
    assert_eq!(search(s, "").await.len(), 1);
    let again = stores.remember(&mine(), "x", r#"{"a":1}"#, &limits, None).await.unwrap().unwrap();
    assert_ne!(again, one);
}

pub async fn a_memory_is_full_at_its_limit(s: &Subject) {
    let stores = s.db.stores();
    let limits = StoreLimits { memories: 2, text_bytes: 10, metadata_bytes: 5, ..StoreLimits::default() };
    let remember = async |name: &str, text: &str, metadata: &str| {
        stores.remember(&place("agent", name), text, metadata, &limits, None).await.unwrap()
    };
    let refused = |limit, wanted, allowed| Err(StoreRefusal::Limit { limit, wanted, allowed });
    assert_eq!(remember("notes", "12345678901", "{}").await, refused(StoreLimit::TextBytes, 11, 10));
    assert_eq!(remember("notes", "x", r#"{"":1}"#).await, refused(StoreLimit::MetadataBytes, 6, 5));
    assert_eq!(remember("notes", "x\0", "{}").await, Err(StoreRefusal::Nul));
    let one = remember("notes", "one", "{}").await.unwrap();
    remember("other", "two", "{}").await.unwrap();
    assert_eq!(remember("notes", "three", "{}").await, refused(StoreLimit::Memories, 3, 2));
    assert_eq!(remember("notes", "one", "{}").await, Ok(one), "it is there already");
    stores.forget(&mine(), one, None).await.unwrap().unwrap();
    assert!(remember("notes", "three", "{}").await.is_ok());
    assert_eq!(remember("notes", "four", "{}").await, refused(StoreLimit::Memories, 3, 2));
    let elsewhere = stores.remember(&place("stranger", "notes"), "four", "{}", &limits, None).await.unwrap();
    assert!(elsewhere.is_ok());
}

pub async fn an_attempt_that_lost_its_task_remembers_and_forgets_nothing(s: &Subject) {
    let (host, limits) = (s.host().await, StoreLimits::default());
    let arrival = arrival();
    let claimed = s.run(host, &arrival).await;
    let own: Writer = Some((arrival.message.id, claimed.fence));
    let stores = s.db.stores();
    let known = stores.remember(&mine(), "mine", "{}", &limits, own).await.unwrap().unwrap();
    s.settle(host, &settlement(&arrival, &claimed, completed())).await;
    for text in ["mine", "late"] {
        assert_eq!(stores.remember(&mine(), text, "{}", &limits, own).await.unwrap(), Err(StoreRefusal::Fenced));
    }
    assert_eq!(stores.forget(&mine(), known, own).await.unwrap(), Err(StoreRefusal::Fenced));
    assert_eq!(search(s, "").await, ["mine"]);
}
