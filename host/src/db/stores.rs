//! What plugins keep from one task to the next, and what they spend.

use super::{Amount, DbError, KeyRow, MemoryRow, Place, SpendAnswer, StoreAnswer, StoreLimits, Writer};
use async_trait::async_trait;
use chrono::NaiveDate;
use uuid::Uuid;

/// The part of the database that guests reach. Names of plugins, buckets and memories are taken as they are: the caller has
/// checked them.
///
/// A write by an attempt is written only while its task is `running` under the attempt's fence, in the same transaction; a
/// claim or a settlement of that task waits for it. Limits are exact, whoever writes at the same time. Where the answer to
/// a commit is lost, calling again gives the right answer, but for [`Stores::bucket_increment`] and [`Stores::spend`], which
/// would count twice.
#[async_trait]
pub trait Stores: Send + Sync {
    /// The values of keys, in their order; `None`: there is none.
    async fn bucket_get(&self, place: &Place, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, DbError>;
    /// Keys after the one with this id (0: from the first), in the order in which they were made.
    async fn bucket_keys(&self, place: &Place, after: i64, limit: u32) -> Result<Vec<KeyRow>, DbError>;
    /// Set values, all or none. Of a key that comes twice, the last value stays.
    async fn bucket_set(
        &self,
        place: &Place,
        pairs: Vec<(String, Vec<u8>)>,
        limits: &StoreLimits,
        writer: Writer,
    ) -> Result<StoreAnswer<()>, DbError>;
    /// Delete keys, all or none; those that are not there are no error.
    async fn bucket_delete(&self, place: &Place, keys: &[String], writer: Writer) -> Result<StoreAnswer<()>, DbError>;
    /// Add to a number and answer the sum. Numbers are decimal text, so that what was set can be added to and what was added
    /// to can be read; without a value it is 0.
    async fn bucket_increment(
        &self,
        place: &Place,
        key: &str,
        delta: u64,
        limits: &StoreLimits,
        writer: Writer,
    ) -> Result<StoreAnswer<u64>, DbError>;

    /// Remember a text with its metadata (both as text) and answer the id. The same is remembered once.
    async fn remember(
        &self,
        place: &Place,
        text: &str,
        metadata: &str,
        limits: &StoreLimits,
        writer: Writer,
    ) -> Result<StoreAnswer<Uuid>, DbError>;
    /// The entries that hold any of the query's words, best first: each word counts for as much as there are entries without
    /// it, so that more words and rarer ones come first; of equals the newest.
    /// Upper case and accents do not count; nothing in a query is an operator; of very many words the first 32 are looked
    /// for. A query without a word answers the newest.
    async fn recall(&self, place: &Place, query: &str, limit: u32) -> Result<Vec<MemoryRow>, DbError>;
    /// Forget an entry; one that is not there is no error.
    async fn forget(&self, place: &Place, id: Uuid, writer: Writer) -> Result<StoreAnswer<()>, DbError>;

    /// Count amounts against their allowances, all or none. Only what has a maximum is counted; what a task spent stays with
    /// it over all its attempts, and without a task there is nothing to count for one. The day is the database's, in UTC.
    ///
    /// Returns to the task what its run before this one spent, if that run was interrupted and while no child of the isolation
    /// lane has died of the task. In all at most as much as the allowance is returned, so that a task that is interrupted again
    /// and again ends. The day keeps it.
    async fn spend(&self, writer: Writer, plugin: &str, amounts: &[Amount]) -> Result<SpendAnswer, DbError>;
    /// Put right what was counted, for the task and on that day, by a difference; no count goes below 0. What is not counted
    /// stays so, and so does the task's count once a later claim of it has spent.
    async fn correct_spending(
        &self,
        writer: Writer,
        plugin: &str,
        day: Option<NaiveDate>,
        kind: &'static str,
        difference: i64,
    ) -> Result<(), DbError>;
}
