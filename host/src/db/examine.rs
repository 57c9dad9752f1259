//! Questions of an operator about the database itself. Each only reads, and each stands alone: a user may lack the right to one of
//! them.

use super::cells::{Cells, need};
use super::fault::Fault;
use super::{
    ConnectionFacts, DbError, FileFacts, HolderFacts, LetterFacts, RunningFacts, SchemaFacts, ServerFacts, TableFacts,
    WaitingFacts,
};
use async_trait::async_trait;

/// What can be asked. Bounded like every other operation.
#[async_trait]
pub trait Examiner: Send + Sync {
    /// The server and this connection to it.
    async fn server(&self) -> Result<ServerFacts, DbError>;
    /// Versions of the schema, whether they fit or not.
    async fn schema(&self) -> Result<SchemaFacts, DbError>;
    /// Connections and their limits; `None`: there are none to share.
    async fn connections(&self) -> Result<Option<ConnectionFacts>, DbError>;
    /// Sizes and vacuums of the tables, the largest first.
    async fn tables(&self) -> Result<Vec<TableFacts>, DbError>;
    /// Indexes that no statement uses since their build was interrupted.
    async fn invalid_indexes(&self) -> Result<Vec<String>, DbError>;
    /// What holds back vacuum, the oldest first.
    async fn holders(&self) -> Result<Vec<HolderFacts>, DbError>;
    /// Waiting tasks by reason, among the oldest of each state.
    async fn waiting(&self) -> Result<Vec<WaitingFacts>, DbError>;
    /// Running tasks by owner.
    async fn running(&self) -> Result<Vec<RunningFacts>, DbError>;
    /// Dead letters that are not published.
    async fn letters(&self) -> Result<LetterFacts, DbError>;
    /// The file and its log; `None`: a server keeps the files.
    async fn file(&self) -> Result<Option<FileFacts>, DbError>;
    /// Damage that the database finds in itself, one line each. Reads the whole file.
    async fn damage(&self) -> Result<Vec<String>, DbError>;
}

/// Columns: `code`, `since`, `waiting`.
pub(super) fn waiting(row: &impl Cells) -> Result<WaitingFacts, Fault> {
    Ok(WaitingFacts {
        code: need(row.text("code")?, "code")?,
        since: need(row.time("since")?, "since")?,
        tasks: need(row.int("waiting")?, "waiting")?,
    })
}

/// Columns: `owner`, `running`.
pub(super) fn running(row: &impl Cells) -> Result<RunningFacts, Fault> {
    Ok(RunningFacts { host: need(row.id("owner")?, "owner")?, tasks: need(row.int("running")?, "running")? })
}

/// Columns: `unpublished`, `oldest`.
pub(super) fn letters(row: &impl Cells) -> Result<LetterFacts, Fault> {
    Ok(LetterFacts { unpublished: need(row.int("unpublished")?, "unpublished")?, oldest: row.time("oldest")? })
}
