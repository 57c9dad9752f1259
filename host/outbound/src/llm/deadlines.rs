//! Time-outs that name themselves: whatever is waited for, the earliest end holds, and says which it was.

use super::types::ChatError;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// The end that the task sets. After it nothing is tried again.
pub(super) const TASK: &str = "answer before the task's deadline";
/// The same, while others have all the places that there are.
pub(super) const PLACE: &str = "free place before the task's deadline, for a request";

/// When one exchange is over.
#[derive(Clone, Copy)]
pub(super) struct Deadlines {
    /// When the chat began.
    pub began: Instant,
    /// The task's end.
    pub until: Instant,
    /// The exchange's own end, and how long it is.
    pub total: Option<(Instant, Duration)>,
}

impl Deadlines {
    /// Waits, at most for a stage's own time.
    pub async fn bound<T>(
        &self,
        stage: Option<(&'static str, Duration)>,
        what: impl Future<Output = T>,
    ) -> Result<T, ChatError> {
        let mut end = (self.until, TASK, self.until.saturating_duration_since(self.began));
        let total = self.total.map(|(at, limit)| (at, "end", limit));
        let stage = stage.map(|(name, limit)| (Instant::now() + limit, name, limit));
        for other in [total, stage].into_iter().flatten() {
            if other.0 < end.0 {
                end = other;
            }
        }
        let (at, stage, limit) = end;
        // What ends with the task is told in whole milliseconds: nobody set it to the nanosecond.
        let limit =
            if stage == TASK { Duration::from_millis(limit.as_millis().try_into().unwrap_or(u64::MAX)) } else { limit };
        // What is late already is not begun: the first poll of a request would connect.
        let what = async { if Instant::now() < at { Some(what.await) } else { None } };
        let outcome = tokio::time::timeout_at(at, what).await.ok().flatten();
        outcome.ok_or(ChatError::TimedOut { stage, limit })
    }
}
