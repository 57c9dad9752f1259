//! What a run may reach outside, as whoever runs it provides it. The names of what was granted are checked here, in the
//! sandbox; what is behind them is not its business.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use agentry_outbound::egress::Client;
use agentry_outbound::llm::Llm;
use agentry_outbound::tools::Session;
use async_trait::async_trait;

/// Everything that one run may reach. The default is nothing.
#[derive(Clone, Default)]
pub struct Access {
    /// HTTP requests, judged by the client.
    pub http: Option<Client>,
    /// Models, by name; `*` stands for all.
    pub models: BTreeSet<String>,
    /// What answers for them.
    pub llm: Option<Llm>,
    /// Tools, judged by the session.
    pub tools: Option<Session>,
    /// Buckets, by name.
    pub bucket_names: BTreeSet<String>,
    /// Where they are.
    pub buckets: Option<Arc<dyn Buckets>>,
    /// Memories, by name.
    pub memory_names: BTreeSet<String>,
    /// Where they are.
    pub memories: Option<Arc<dyn Memories>>,
    /// What `wasi:config` answers: granted keys alone.
    pub config: Arc<BTreeMap<String, String>>,
    /// Folders that may be read, by the name under which the guest sees them: `/NAME`.
    pub folders: BTreeMap<String, PathBuf>,
    /// Allowances that outlast the run; `None`: there are none.
    pub budgets: Option<Arc<dyn Budgets>>,
}

/// Why a bucket or a memory did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A key, a value or a text is too long, or is not what it should be; says which limit.
    #[error("{0}")]
    Invalid(String),
    /// There is no more room; says which limit.
    #[error("{0}")]
    Full(String),
    /// The database does not answer, or the attempt is no longer the task's own.
    #[error("{0}")]
    Unavailable(String),
}

/// The plugin's buckets, for one attempt: what it writes is written only while the attempt is the task's own. Names have been
/// checked against the grant.
#[async_trait]
pub trait Buckets: Send + Sync {
    /// The values of keys, in their order.
    async fn get(&self, bucket: &str, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;
    /// Sets them, all or none.
    async fn set(&self, bucket: &str, pairs: Vec<(String, Vec<u8>)>) -> Result<(), StoreError>;
    /// Deletes them, all or none; those that are not there are no error.
    async fn delete(&self, bucket: &str, keys: &[String]) -> Result<(), StoreError>;
    /// Whether there is a key.
    async fn exists(&self, bucket: &str, key: &str) -> Result<bool, StoreError>;
    /// Some keys, and where to go on.
    async fn keys(&self, bucket: &str, cursor: Option<u64>) -> Result<(Vec<String>, Option<u64>), StoreError>;
    /// Adds to a number, 0 if there is none, and answers the sum. Numbers are decimal text below 2^64, so that `get` and `set`
    /// read and write them too; any other value is invalid.
    async fn increment(&self, bucket: &str, key: &str, delta: u64) -> Result<u64, StoreError>;
}

/// Something remembered.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// Names it.
    pub id: String,
    /// What was remembered.
    pub text: String,
    /// A JSON object as text.
    pub metadata: String,
    /// How well it fits: more is better.
    pub score: f32,
    /// When: RFC 3339, UTC.
    pub at: String,
}

/// The plugin's memories, for one attempt; as [`Buckets`].
#[async_trait]
pub trait Memories: Send + Sync {
    /// Remembers, and answers the id.
    async fn remember(&self, memory: &str, text: &str, metadata: &str) -> Result<String, StoreError>;
    /// The best matches, best first.
    async fn search(&self, memory: &str, query: &str, limit: u32) -> Result<Vec<Remembered>, StoreError>;
    /// Forgets.
    async fn forget(&self, memory: &str, id: &str) -> Result<(), StoreError>;
}

/// What is counted beyond one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spending {
    /// Requests to language models.
    LlmRequests,
    /// Their tokens.
    LlmTokens,
    /// HTTP requests.
    HttpRequests,
    /// Calls of tools.
    ToolCalls,
}

/// An allowance is used up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// Which one, what was used, and who can raise it.
    #[error("{0}")]
    Exhausted(String),
    /// The database does not answer.
    #[error("{0}")]
    Unavailable(String),
}

/// Allowances of a task over all its attempts, and of a plugin for a day. Bound to one attempt.
#[async_trait]
pub trait Budgets: Send + Sync {
    /// Takes these amounts, all or none, before they are spent.
    async fn take(&self, amounts: &[(Spending, u64)]) -> Result<(), BudgetError>;
    /// Puts right what was taken: less was spent, or more.
    async fn correct(&self, spending: Spending, taken: u64, spent: u64);
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("models", &self.models).finish_non_exhaustive()
    }
}
