//! What plugins keep and spend: the simplest that does what is promised.

use super::super::plan::{self, Former, Held};
use super::MemoryDb;
use super::tables::{Tables, TaskSpending};
use crate::db::fault::{Fault, answered};
use crate::db::*;
use crate::task::{Fence, State, TaskId};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A row of `memories`.
pub struct Entry {
    pub(super) place: Place,
    pub(super) digest: [u8; 32],
    pub(super) row: MemoryRow,
}

impl Tables {
    fn own(&self, writer: Writer) -> Result<(), Fault> {
        let own =
            |(id, fence)| self.tasks.get(&id).is_some_and(|task| task.state == State::Running && task.fence == fence);
        if writer.is_none_or(own) { Ok(()) } else { Err(StoreRefusal::Fenced.into()) }
    }

    fn held(&self, plugin: &str) -> Held {
        let own = self.buckets.iter().filter(|((place, _), _)| &*place.plugin == plugin);
        own.fold(Held::default(), |held, ((_, key), (_, value))| Held {
            keys: held.keys + 1,
            bytes: held.bytes + (key.len() + value.len()) as u64,
        })
    }

    fn put(&mut self, place: &Place, pairs: &BTreeMap<&str, &[u8]>, limits: &StoreLimits) -> Result<(), Fault> {
        let of = |key: &&str| {
            let (_, value) = self.buckets.get(&(place.clone(), (*key).to_owned()))?;
            Some(((*key).to_owned(), (key.len() + value.len()) as u64))
        };
        let there = pairs.keys().filter_map(of).collect();
        plan::held_after(self.held(&place.plugin), &there, pairs, limits)?;
        self.stores.insert(place.plugin.to_string());
        for (key, value) in pairs {
            self.last_key += 1;
            let row = self.buckets.entry((place.clone(), (*key).to_owned())).or_insert((self.last_key, Vec::new()));
            row.1 = value.to_vec();
        }
        Ok(())
    }

    fn search(&self, place: &Place, words: &[String]) -> Vec<MemoryRow> {
        let own: Vec<&Entry> = self.memories.iter().filter(|entry| entry.place == *place).collect();
        let words_of = |entry: &&Entry| plan::indexed(place, &entry.row.text).split(' ').map(str::to_owned).collect();
        let texts: Vec<Vec<String>> = own.iter().map(words_of).collect();
        let whole = own.len() + 1;
        let weight = |word: &String| whole - texts.iter().filter(|text| text.contains(word)).count();
        let mut found = Vec::new();
        for (age, (entry, text)) in own.iter().zip(&texts).enumerate() {
            let score: usize = words.iter().filter(|word| text.contains(word)).map(weight).sum();
            let row = MemoryRow { score: score as f64 / whole as f64, ..entry.row.clone() };
            if score > 0 || words.is_empty() {
                found.push(((score, age), row));
            }
        }
        found.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
        found.into_iter().map(|(_, row)| row).collect()
    }

    fn spend(
        &mut self,
        writer: Writer,
        plugin: &str,
        amounts: &[Amount],
        day: chrono::NaiveDate,
    ) -> Result<(), SpendAnswer> {
        let of_day = plan::counted_amounts(amounts, |amount| amount.per_day);
        let of_task = plan::counted_amounts(amounts, |amount| amount.per_task);
        let (mut days, mut tasks) = (self.spending.clone(), self.task_spending.clone());
        for amount in &of_day {
            let used = days.entry((plugin.to_owned(), day, amount.kind)).or_default();
            *used += plan::added(amount);
            plan::afforded(amount, SpendScope::Day, *used, 0)?;
        }
        for (amount, (task, fence)) in of_task.iter().zip(writer.into_iter().cycle()) {
            let fresh = TaskSpending { used: 0, fence, of_run: 0, refunded: 0 };
            let row = tasks.entry((task, amount.kind)).or_insert(fresh);
            if row.fence > fence {
                return Err(SpendAnswer::Fenced);
            }
            if row.fence < fence {
                let former = Former {
                    kind: amount.kind.to_owned(),
                    of_run: row.of_run,
                    refunded: row.refunded,
                    interrupted: self.was_interrupted(task, row.fence),
                };
                let refund = former.refund(&of_task);
                *row = TaskSpending {
                    used: (row.used - refund).max(0),
                    fence,
                    of_run: 0,
                    refunded: row.refunded + refund,
                };
            }
            row.used += plan::added(amount);
            row.of_run += plan::added(amount);
            plan::afforded(amount, SpendScope::Task, row.used, row.refunded)?;
        }
        (self.spending, self.task_spending) = (days, tasks);
        Ok(())
    }

    /// Whether what a run spent is returned to its task.
    fn was_interrupted(&self, id: TaskId, fence: Fence) -> bool {
        let ended = self.attempts.get(&(id, fence)).is_some_and(|a| matches!(&*a.ended, "interrupted" | "host_lost"));
        ended && self.tasks.get(&id).is_some_and(|task| task.child_losses == 0)
    }
}

#[async_trait]
impl Stores for MemoryDb {
    async fn bucket_get(&self, place: &Place, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
        let tables = self.look();
        let value = |key: &String| tables.buckets.get(&(place.clone(), key.clone())).map(|(_, value)| value.clone());
        Ok(keys.iter().map(value).collect())
    }

    async fn bucket_keys(&self, place: &Place, after: i64, limit: u32) -> Result<Vec<KeyRow>, DbError> {
        let tables = self.look();
        let own = tables.buckets.iter().filter(|((of, _), (id, _))| of == place && *id > after);
        let mut rows: Vec<KeyRow> = own.map(|((_, key), (id, _))| KeyRow { id: *id, key: key.clone() }).collect();
        rows.sort_by_key(|row| row.id);
        rows.truncate(limit as usize);
        Ok(rows)
    }

    async fn bucket_set(
        &self,
        place: &Place,
        pairs: Vec<(String, Vec<u8>)>,
        limits: &StoreLimits,
        writer: Writer,
    ) -> Result<StoreAnswer<()>, DbError> {
        self.at_once(|tables, _| {
            answered(plan::pairs(&pairs, limits).map_err(Fault::from).and_then(|pairs| {
                tables.own(writer)?;
                tables.put(place, &pairs, limits)
            }))
        })
    }

    async fn bucket_delete(&self, place: &Place, keys: &[String], writer: Writer) -> Result<StoreAnswer<()>, DbError> {
        self.at_once(|tables, _| {
            answered(tables.own(writer).map(|()| {
                for key in keys {
                    tables.buckets.remove(&(place.clone(), key.clone()));
                }
            }))
        })
    }

    async fn bucket_increment(
        &self,
        place: &Place,
        key: &str,
        delta: u64,
        limits: &StoreLimits,
        writer: Writer,
    ) -> Result<StoreAnswer<u64>, DbError> {
        self.at_once(|tables, _| {
            let mut increment = || {
                limits.check_key(key)?;
                tables.own(writer)?;
                let stored = tables.buckets.get(&(place.clone(), key.to_owned())).map(|(_, value)| value.as_slice());
                let sum = plan::sum(stored, delta)?;
                tables.put(place, &BTreeMap::from([(key, sum.to_string().as_bytes())]), limits)?;
                Ok(sum)
            };
            answered(increment())
        })
    }

    async fn remember(
        &self,
        place: &Place,
        text: &str,
        metadata: &str,
        limits: &StoreLimits,
        writer: Writer,
    ) -> Result<StoreAnswer<Uuid>, DbError> {
        self.at_once(|tables, now| {
            let mut remember = || {
                limits.check_text(text)?;
                limits.check_metadata(metadata)?;
                tables.own(writer)?;
                let digest = plan::memory_digest(text, metadata);
                let own = |entry: &&Entry| entry.place == *place && entry.digest == digest;
                if let Some(known) = tables.memories.iter().find(own) {
                    return Ok(known.row.id);
                }
                let held = tables.memories.iter().filter(|entry| entry.place.plugin == place.plugin).count();
                plan::room_to_remember(held as u64, limits)?;
                let (id, text, metadata) = (Uuid::now_v7(), text.to_owned(), metadata.to_owned());
                let row = MemoryRow { id, text, metadata, score: 0.0, at: now };
                tables.stores.insert(place.plugin.to_string());
                tables.memories.push(Entry { place: place.clone(), digest, row });
                Ok(id)
            };
            answered(remember())
        })
    }

    async fn recall(&self, place: &Place, query: &str, limit: u32) -> Result<Vec<MemoryRow>, DbError> {
        let words: Vec<String> = plan::asked(place, query).into_iter().map(|[_, word]| word).collect();
        let mut found = self.look().search(place, &words);
        found.truncate(limit.min(plan::RECALLED) as usize);
        Ok(found)
    }

    async fn forget(&self, place: &Place, id: Uuid, writer: Writer) -> Result<StoreAnswer<()>, DbError> {
        self.at_once(|tables, _| {
            let own = tables.own(writer);
            answered(own.map(|()| tables.memories.retain(|entry| entry.place != *place || entry.row.id != id)))
        })
    }

    async fn spend(&self, writer: Writer, plugin: &str, amounts: &[Amount]) -> Result<SpendAnswer, DbError> {
        self.at_once(|tables, now| {
            let day = now.date_naive();
            let counted = amounts.iter().any(|amount| amount.per_day.is_some());
            Ok(match tables.spend(writer, plugin, amounts, day) {
                Ok(()) => SpendAnswer::Spent(counted.then_some(day)),
                Err(refused) => refused,
            })
        })
    }

    async fn correct_spending(
        &self,
        writer: Writer,
        plugin: &str,
        day: Option<chrono::NaiveDate>,
        kind: &'static str,
        difference: i64,
    ) -> Result<(), DbError> {
        let corrected = |count: &mut i64| *count = (*count + plan::countable(difference)).max(0);
        let mut tables = self.look();
        if let Some(used) = day.and_then(|day| tables.spending.get_mut(&(plugin.to_owned(), day, kind))) {
            corrected(used);
        }
        if let Some((task, fence)) = writer
            && let Some(row) = tables.task_spending.get_mut(&(task, kind)).filter(|row| row.fence == fence)
        {
            corrected(&mut row.used);
            corrected(&mut row.of_run);
        }
        Ok(())
    }
}
