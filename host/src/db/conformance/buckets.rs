//! What plugins keep under keys.

use super::subject::*;
use crate::db::{Db, Place, StoreAnswer, StoreLimit, StoreLimits, StoreRefusal, Writer};
use crate::task::TaskId;

fn place(plugin: &str, name: &str) -> Place {
    Place { plugin: plugin.into(), name: name.into() }
}

fn mine() -> Place {
    place("counter", "memory")
}

fn pair(key: &str, value: &[u8]) -> (String, Vec<u8>) {
    (key.to_owned(), value.to_vec())
}

async fn set(db: &dyn Db, place: &Place, key: &str, value: &[u8], writer: Writer) -> StoreAnswer<()> {
    let pairs = vec![pair(key, value)];
    db.stores().bucket_set(place, pairs, &StoreLimits::default(), writer).await.unwrap()
}

async fn get(db: &dyn Db, place: &Place, key: &str) -> Option<Vec<u8>> {
    db.stores().bucket_get(place, &[key.to_owned()]).await.unwrap().remove(0)
}

async fn count(db: &dyn Db, key: &str, delta: u64, writer: Writer) -> StoreAnswer<u64> {
    db.stores().bucket_increment(&mine(), key, delta, &StoreLimits::default(), writer).await.unwrap()
}

pub async fn what_was_set_is_read_until_it_is_deleted(s: &Subject) {
    let stores = s.db.stores();
    let pairs = vec![pair("a", b"1"), pair("é ☃", &[0, 255]), pair("", b""), pair("a", b"2")];
    stores.bucket_set(&mine(), pairs, &StoreLimits::default(), None).await.unwrap().unwrap();
    let keys = ["é ☃", "nothing", "a", "", "a"].map(str::to_owned);
    let values = stores.bucket_get(&mine(), &keys).await.unwrap();
    assert_eq!(values, [Some(vec![0, 255]), None, Some(b"2".to_vec()), Some(vec![]), Some(b"2".to_vec())]);
    set(&*s.db, &mine(), "a", b"three", None).await.unwrap();
    assert_eq!(get(&*s.db, &mine(), "a").await, Some(b"three".to_vec()));
    stores.bucket_delete(&mine(), &["a".to_owned(), "nothing".to_owned()], None).await.unwrap().unwrap();
    assert_eq!(get(&*s.db, &mine(), "a").await, None);
    assert!(stores.bucket_get(&mine(), &[]).await.unwrap().is_empty());
    assert_eq!(set(&*s.db, &mine(), "a\0b", b"", None).await, Err(StoreRefusal::Nul));
    assert_eq!(get(&*s.db, &mine(), "a\0b").await, None);
    stores.bucket_delete(&mine(), &["a\0b".to_owned()], None).await.unwrap().unwrap();
}

pub async fn buckets_and_plugins_do_not_meet(s: &Subject) {
    let places = [mine(), place("counter", "other"), place("stranger", "memory")];
    for (n, place) in places.iter().enumerate() {
        set(&*s.db, place, "k", &[n as u8], None).await.unwrap();
    }
    s.db.stores().bucket_delete(&places[1], &["k".to_owned()], None).await.unwrap().unwrap();
    assert_eq!(get(&*s.db, &places[0], "k").await, Some(vec![0]));
    assert_eq!(get(&*s.db, &places[1], "k").await, None);
    assert_eq!(get(&*s.db, &places[2], "k").await, Some(vec![2]));
    assert_eq!(s.db.stores().bucket_keys(&places[2], 0, 9).await.unwrap().len(), 1);
}

pub async fn keys_are_listed_page_by_page(s: &Subject) {
    let stores = s.db.stores();
    for n in 0..7 {
        set(&*s.db, &mine(), &format!("k{n}"), b"", None).await.unwrap();
    }
    // What is set again stays where it was.
    set(&*s.db, &mine(), "k0", b"again", None).await.unwrap();
    let (mut read, mut after) = (Vec::new(), 0);
    loop {
        let page = stores.bucket_keys(&mine(), after, 3).await.unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = last.id;
        read.extend(page.into_iter().map(|row| row.key));
    }
    assert_eq!(read, ["k0", "k1", "k2", "k3", "k4", "k5", "k6"]);
}

pub async fn numbers_are_text_that_both_sides_read(s: &Subject) {
    assert_eq!(count(&*s.db, "n", 5, None).await, Ok(5));
    assert_eq!(count(&*s.db, "n", 0, None).await, Ok(5));
    assert_eq!(get(&*s.db, &mine(), "n").await, Some(b"5".to_vec()));
    set(&*s.db, &mine(), "n", b"18446744073709551614", None).await.unwrap();
    assert_eq!(count(&*s.db, "n", 1, None).await, Ok(u64::MAX));
    assert_eq!(count(&*s.db, "n", 1, None).await, Err(StoreRefusal::Overflow));
    assert_eq!(get(&*s.db, &mine(), "n").await, Some(b"18446744073709551615".to_vec()));
    for bad in [b"five".as_slice(), b"", b"-1", &[5, 0, 0, 0, 0, 0, 0, 0]] {
        set(&*s.db, &mine(), "n", bad, None).await.unwrap();
        assert_eq!(count(&*s.db, "n", 1, None).await, Err(StoreRefusal::NotANumber), "{bad:?}");
    }
}

pub async fn of_concurrent_increments_none_is_lost(s: &Subject) {
    let other = s.back_door.open();
    let add = async |db: &dyn Db| {
        for _ in 0..20 {
            count(db, "n", 1, None).await.unwrap();
        }
    };
    tokio::join!(add(&*s.db), add(&*other), add(&*s.db));
    assert_eq!(count(&*s.db, "n", 0, None).await, Ok(60));
}

pub async fn a_batch_is_set_whole_or_not_at_all(s: &Subject) {
    let stores = s.db.stores();
    let limits = StoreLimits { key_bytes: 4, value_bytes: 10, keys: 3, bytes: 30, ..StoreLimits::default() };
    let set = async |pairs: &[(&str, usize)]| {
        let pairs = pairs.iter().map(|(key, bytes)| pair(key, &vec![b'x'; *bytes])).collect();
        stores.bucket_set(&mine(), pairs, &limits, None).await.unwrap()
    };
    let refused = |limit, wanted, allowed| Err(StoreRefusal::Limit { limit, wanted, allowed });
    assert_eq!(set(&[("a", 1), ("12345", 1)]).await, refused(StoreLimit::KeyBytes, 5, 4));
    assert_eq!(set(&[("a", 1), ("b", 11)]).await, refused(StoreLimit::ValueBytes, 11, 10));
    assert_eq!(set(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]).await, refused(StoreLimit::Keys, 4, 3));
    assert_eq!(set(&[("a", 10), ("b", 10), ("c", 10)]).await, refused(StoreLimit::Bytes, 33, 30));
    assert!(stores.bucket_keys(&mine(), 0, 9).await.unwrap().is_empty(), "something was set");
    assert_eq!(set(&[("a", 9), ("b", 9), ("c", 9)]).await, Ok(()));
    // The limits are the plugin's, over all its buckets; another plugin has its own.
    let other = stores.bucket_set(&place("counter", "other"), vec![pair("d", b"")], &limits, None).await.unwrap();
    assert_eq!(other, refused(StoreLimit::Keys, 4, 3));
    stores.bucket_set(&place("stranger", "memory"), vec![pair("d", b"")], &limits, None).await.unwrap().unwrap();
    let counted = stores.bucket_increment(&mine(), "d", 1, &limits, None).await.unwrap();
    assert_eq!(counted, Err(StoreRefusal::Limit { limit: StoreLimit::Keys, wanted: 4, allowed: 3 }));
    // What becomes free is free.
    assert_eq!(set(&[("a", 0)]).await, Ok(()));
    stores.bucket_delete(&mine(), &["b".to_owned(), "b".to_owned()], None).await.unwrap().unwrap();
    assert_eq!(set(&[("d", 9), ("a", 9)]).await, Ok(()));
    assert_eq!(set(&[("a", 10)]).await, refused(StoreLimit::Bytes, 31, 30));
}

pub async fn limits_hold_whoever_writes_at_the_same_time(s: &Subject) {
    let other = s.back_door.open();
    let limits = StoreLimits { keys: 5, ..StoreLimits::default() };
    let fill = async |db: &dyn Db, name: &str| {
        let mut set = 0;
        for n in 0..5 {
            let pairs = vec![pair(&format!("{name}{n}"), b"")];
            match db.stores().bucket_set(&mine(), pairs, &limits, None).await.unwrap() {
                Ok(()) => set += 1,
                Err(StoreRefusal::Limit { limit, wanted: 6, .. }) => assert_eq!(limit, StoreLimit::Keys),
                other => panic!("{other:?}"),
            }
        }
        set
    };
    let (a, b, c) = tokio::join!(fill(&*s.db, "a"), fill(&*other, "b"), fill(&*s.db, "c"));
    assert_eq!(a + b + c, 5);
    assert_eq!(s.db.stores().bucket_keys(&mine(), 0, 9).await.unwrap().len(), 5);
}

pub async fn an_attempt_that_lost_its_task_writes_nothing(s: &Subject) {
    let host = s.host().await;
    let arrival = arrival();
    let claimed = s.run(host, &arrival).await;
    let own = Some((arrival.message.id, claimed.fence));
    assert_eq!(set(&*s.db, &mine(), "n", b"1", own).await, Ok(()));
    assert_eq!(count(&*s.db, "n", 1, own).await, Ok(2));
    let nobody: TaskId = id();
    s.settle(host, &settlement(&arrival, &claimed, retrying())).await;
    let again = s.run(host, &arrival).await;
    for writer in [own, Some((arrival.message.id, 3)), Some((nobody, 1))] {
        assert_eq!(set(&*s.db, &mine(), "n", b"9", writer).await, Err(StoreRefusal::Fenced));
        assert_eq!(count(&*s.db, "n", 1, writer).await, Err(StoreRefusal::Fenced));
        let gone = s.db.stores().bucket_delete(&mine(), &["n".to_owned()], writer).await.unwrap();
        assert_eq!(gone, Err(StoreRefusal::Fenced));
    }
    assert_eq!(get(&*s.db, &mine(), "n").await, Some(b"2".to_vec()));
    let now = Some((arrival.message.id, again.fence));
    assert_eq!(count(&*s.db, "n", 1, now).await, Ok(3));
    s.settle(host, &settlement(&arrival, &again, completed())).await;
    assert_eq!(count(&*s.db, "n", 1, now).await, Err(StoreRefusal::Fenced), "it has ended");
}
