//! Replies to producers.

use super::TaskRow;

/// The reply to a producer, which is still to be published.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The task, which has ended, with input and output.
    pub task: TaskRow,
    /// The queue that its message names.
    pub reply_to: String,
    /// Property of its message by which the producer recognises the reply.
    pub correlation_id: Option<String>,
}
