//! What one attempt keeps and spends: the sandbox's ports over the database.
//!
//! A guest hears which limit it met and what to do about it. Of a database that fails it hears that, and no more: the reason
//! may name places that are none of its business, and is in the host's log.

use crate::db::{
    Amount, Db, DbError, MemoryRow, Place, SpendAnswer, SpendScope, StoreAnswer, StoreLimit, StoreLimits, StoreRefusal,
    Writer,
};
use agentry_defence::Defence;
use agentry_sandbox::{Buckets, BudgetError, Budgets, Memories, Remembered, Spending, StoreError};
use async_trait::async_trait;
use chrono::{NaiveDate, SecondsFormat};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;

/// Keys of one call at most: so many of the largest values are held in memory at once.
const KEYS_AT_ONCE: usize = 100;
/// Keys of one answer of a list.
const PAGE: u32 = 500;

/// Allowances that outlast a run. What is not in them is not counted beyond it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetLimits {
    /// How much a task may spend over all its attempts: `limits.*` of its plugin.
    pub per_task: BTreeMap<Spending, u64>,
    /// How much a plugin may spend in a day (UTC): `budgets.*_per_day` of the operator's policy.
    pub per_day: BTreeMap<Spending, u64>,
}

/// The stable word for what is spent, as settings, records and messages name it.
pub fn spending_name(spending: Spending) -> &'static str {
    match spending {
        Spending::LlmRequests => "llm_requests",
        Spending::LlmTokens => "llm_tokens",
        Spending::HttpRequests => "http_requests",
        Spending::ToolCalls => "tool_calls",
    }
}

/// Buckets, memories and budgets of one attempt.
pub struct TaskStores {
    db: Arc<dyn Db>,
    plugin: Arc<str>,
    writer: Writer,
    limits: StoreLimits,
    budgets: BudgetLimits,
    /// The day on which something was last taken: it is put right there, also after midnight.
    days: Mutex<BTreeMap<Spending, NaiveDate>>,
}

impl TaskStores {
    /// For an attempt of `plugin`; `writer`: the task and the claim, or `None` for a run by hand.
    pub fn new(
        db: Arc<dyn Db>,
        plugin: Arc<str>,
        writer: Writer,
        limits: StoreLimits,
        budgets: BudgetLimits,
    ) -> TaskStores {
        TaskStores { db, plugin, writer, limits, budgets, days: Mutex::default() }
    }

    fn place(&self, name: &str) -> Place {
        Place { plugin: self.plugin.clone(), name: name.into() }
    }

    /// A refusal in the words of a capability; `what`: of which a limit of bytes is.
    fn refused(&self, capability: &str, what: &str, refusal: StoreRefusal) -> StoreError {
        let plugin = &self.plugin;
        let (limit, wanted, allowed) = match refusal {
            StoreRefusal::Limit { limit, wanted, allowed } => (limit, wanted, allowed),
            StoreRefusal::Fenced => {
                let text = "this attempt is no longer the task's own, and nothing was written";
                return StoreError::Unavailable(format!("{capability}: {text}"));
            }
            StoreRefusal::Nul => {
                let text = "holds a NUL character, which cannot be stored: take it out or encode it";
                return StoreError::Invalid(format!("{capability}: {what} {text}"));
            }
            StoreRefusal::NotANumber => {
                let text = "the value is not a decimal number below 2^64: set one, or delete the key, and count again";
                return StoreError::Invalid(format!("{capability}: {text}"));
            }
            StoreRefusal::Overflow => {
                let text = "the sum would be 2^64 or more; the value stays as it was";
                return StoreError::Invalid(format!("{capability}: {text}"));
            }
        };
        let bytes = |what: &str, remedy| {
            format!("{capability}: {what} has {wanted} bytes, and at most {allowed} are allowed{remedy}")
        };
        let full = |of: &str, remedy| {
            format!(
                "{capability}: the plugin {plugin} would have {wanted} {of}, and at most {allowed} are allowed; {remedy}"
            )
        };
        match limit {
            StoreLimit::KeyBytes => StoreError::Invalid(bytes("the key", "")),
            StoreLimit::ValueBytes => StoreError::Invalid(bytes("a value", "; split it over several keys")),
            StoreLimit::TextBytes => StoreError::Invalid(bytes(what, "; shorten it")),
            StoreLimit::MetadataBytes => StoreError::Invalid(bytes("the metadata", "; shorten them")),
            StoreLimit::Keys => StoreError::Full(full("keys in all its buckets", "delete some")),
            StoreLimit::Bytes => StoreError::Full(full("bytes in all its buckets", "delete some keys")),
            StoreLimit::Memories => StoreError::Full(full("entries in all its memories", "forget some")),
        }
    }

    fn away(&self, capability: &str, error: &DbError) -> StoreError {
        tracing::warn!(plugin = %self.plugin, task = ?self.writer.map(|(task, _)| task), capability, %error, "a capability failed");
        StoreError::Unavailable(format!("{capability}: the database does not answer; try again later"))
    }

    fn answer<T>(
        &self,
        capability: &str,
        what: &str,
        answer: Result<StoreAnswer<T>, DbError>,
    ) -> Result<T, StoreError> {
        let answer = answer.map_err(|error| self.away(capability, &error))?;
        answer.map_err(|refusal| self.refused(capability, what, refusal))
    }

    /// Keys that can be keys, and not too many of them.
    fn check_keys<'a>(&self, keys: impl ExactSizeIterator<Item = &'a String>) -> Result<(), StoreError> {
        if keys.len() > KEYS_AT_ONCE && Defence::KeysAtOnce.stands() {
            return Err(StoreError::Invalid(format!(
                "keyvalue: {} keys in one call, and at most {KEYS_AT_ONCE} are allowed; ask for fewer at a time",
                keys.len()
            )));
        }
        for key in keys {
            self.limits.check_key(key).map_err(|refusal| self.refused("keyvalue", "the key", refusal))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Buckets for TaskStores {
    async fn get(&self, bucket: &str, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.check_keys(keys.iter())?;
        let values = self.db.stores().bucket_get(&self.place(bucket), keys).await;
        values.map_err(|error| self.away("keyvalue", &error))
    }

    async fn set(&self, bucket: &str, pairs: Vec<(String, Vec<u8>)>) -> Result<(), StoreError> {
        self.check_keys(pairs.iter().map(|(key, _)| key))?;
        let set = self.db.stores().bucket_set(&self.place(bucket), pairs, &self.limits, self.writer).await;
        self.answer("keyvalue", "the key", set)
    }

    async fn delete(&self, bucket: &str, keys: &[String]) -> Result<(), StoreError> {
        self.check_keys(keys.iter())?;
        let deleted = self.db.stores().bucket_delete(&self.place(bucket), keys, self.writer).await;
        self.answer("keyvalue", "the key", deleted)
    }

    async fn exists(&self, bucket: &str, key: &str) -> Result<bool, StoreError> {
        let values = self.get(bucket, &[key.to_owned()]).await?;
        Ok(values.iter().any(Option::is_some))
    }

    async fn keys(&self, bucket: &str, cursor: Option<u64>) -> Result<(Vec<String>, Option<u64>), StoreError> {
        // A cursor that was never given leads behind the last key.
        let after = cursor.map_or(0, |cursor| i64::try_from(cursor).unwrap_or(i64::MAX));
        let rows = self.db.stores().bucket_keys(&self.place(bucket), after, PAGE).await;
        let rows = rows.map_err(|error| self.away("keyvalue", &error))?;
        let next = rows.last().filter(|_| rows.len() == PAGE as usize).map(|row| row.id.unsigned_abs());
        Ok((rows.into_iter().map(|row| row.key).collect(), next))
    }

    async fn increment(&self, bucket: &str, key: &str, delta: u64) -> Result<u64, StoreError> {
        let place = self.place(bucket);
        let sum = self.db.stores().bucket_increment(&place, key, delta, &self.limits, self.writer).await;
        self.answer("keyvalue", "the key", sum)
    }
}

#[async_trait]
impl Memories for TaskStores {
    async fn remember(&self, memory: &str, text: &str, metadata: &str) -> Result<String, StoreError> {
        self.limits.check_metadata(metadata).map_err(|refusal| self.refused("memory", "the metadata", refusal))?;
        if let Err(error) = serde_json::from_str::<Map<String, Value>>(metadata) {
            let what = "the metadata are no JSON object; write {} for none";
            return Err(StoreError::Invalid(format!("memory: {what}: {error}")));
        }
        let place = self.place(memory);
        let remembered = self.db.stores().remember(&place, text, metadata, &self.limits, self.writer).await;
        self.answer("memory", "the text", remembered).map(|id| id.to_string())
    }

    async fn search(&self, memory: &str, query: &str, limit: u32) -> Result<Vec<Remembered>, StoreError> {
        self.limits.check_text(query).map_err(|refusal| self.refused("memory", "the query", refusal))?;
        let rows = self.db.stores().recall(&self.place(memory), query, limit).await;
        Ok(rows.map_err(|error| self.away("memory", &error))?.into_iter().map(remembered).collect())
    }

    async fn forget(&self, memory: &str, id: &str) -> Result<(), StoreError> {
        // What is no id of ours names no entry.
        let Ok(id) = id.parse::<Uuid>() else { return Ok(()) };
        let forgotten = self.db.stores().forget(&self.place(memory), id, self.writer).await;
        self.answer("memory", "the id", forgotten)
    }
}

fn remembered(row: MemoryRow) -> Remembered {
    Remembered {
        id: row.id.to_string(),
        text: row.text,
        metadata: row.metadata,
        score: row.score as f32,
        at: row.at.to_rfc3339_opts(SecondsFormat::Micros, true),
    }
}

impl TaskStores {
    /// What is counted beyond the run.
    fn amount(&self, spending: Spending, amount: u64) -> Option<Amount> {
        let per_task = self.budgets.per_task.get(&spending).copied();
        let per_task = per_task.filter(|_| self.writer.is_some() && Defence::TaskBudget.stands());
        let per_day = self.budgets.per_day.get(&spending).copied().filter(|_| Defence::DayBudget.stands());
        let counted = per_task.is_some() || per_day.is_some();
        counted.then_some(Amount { kind: spending_name(spending), amount, per_task, per_day })
    }

    fn exhausted(
        &self,
        amounts: &[Amount],
        (kind, scope): (&str, SpendScope),
        (used, allowed): (u64, u64),
        refunded: u64,
    ) -> String {
        let plugin = &self.plugin;
        let asked = amounts.iter().filter(|amount| amount.kind == kind).map(|amount| amount.amount);
        let asked = asked.fold(0, u64::saturating_add);
        let (whose, remedy) = match scope {
            SpendScope::Task if refunded == 0 => ("for this task".to_owned(), format!("raise limits.{kind}")),
            SpendScope::Task => (
                format!("for this task, and {refunded} more by runs of it that were interrupted"),
                format!("raise limits.{kind}"),
            ),
            SpendScope::Day => (
                format!("for today by the plugin {plugin}"),
                format!("the operator can raise budgets.{kind}_per_day in [plugins.\"{plugin}\"]"),
            ),
        };
        match used >= allowed {
            true => format!("{kind}: {used} of {allowed} used up {whose}; {remedy}"),
            false => format!("{kind}: {used} of {allowed} used {whose}, and {asked} more were asked for; {remedy}"),
        }
    }

    fn days(&self) -> std::sync::MutexGuard<'_, BTreeMap<Spending, NaiveDate>> {
        self.days.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Budgets for TaskStores {
    async fn take(&self, amounts: &[(Spending, u64)]) -> Result<(), BudgetError> {
        let counted: Vec<Amount> = amounts.iter().filter_map(|(what, amount)| self.amount(*what, *amount)).collect();
        if counted.is_empty() {
            return Ok(());
        }
        match self.db.stores().spend(self.writer, &self.plugin, &counted).await {
            Ok(SpendAnswer::Spent(day)) => {
                if let Some(day) = day {
                    self.days().extend(amounts.iter().map(|(what, _)| (*what, day)));
                }
                Ok(())
            }
            Ok(SpendAnswer::Exhausted { kind, scope, used, allowed, refunded }) => {
                Err(BudgetError::Exhausted(self.exhausted(&counted, (kind, scope), (used, allowed), refunded)))
            }
            Ok(SpendAnswer::Fenced) => {
                Err(BudgetError::Unavailable("this attempt is no longer the task's own, and may spend nothing".into()))
            }
            Err(error) => {
                let task = self.writer.map(|(task, _)| task);
                tracing::warn!(plugin = %self.plugin, ?task, %error, "a budget could not be asked");
                Err(BudgetError::Unavailable(
                    "the database that counts budgets does not answer; try again later".into(),
                ))
            }
        }
    }

    async fn correct(&self, spending: Spending, taken: u64, spent: u64) {
        if taken == spent || self.amount(spending, 0).is_none() {
            return;
        }
        let less = i64::try_from(taken.abs_diff(spent)).unwrap_or(i64::MAX);
        let difference = if spent < taken { -less } else { less };
        let day = self.days().get(&spending).copied();
        let kind = spending_name(spending);
        let corrected = self.db.stores().correct_spending(self.writer, &self.plugin, day, kind, difference).await;
        if let Err(error) = corrected {
            let task = self.writer.map(|(task, _)| task);
            tracing::warn!(plugin = %self.plugin, ?task, kind, taken, spent, %error, "a budget counts what was taken, not what was spent");
        }
    }
}

#[cfg(test)]
mod tests;
