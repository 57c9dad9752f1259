//! What can happen to a task: one row of `task_events` each.

use std::fmt;

/// One step of a task's life, appended in the transaction that changes the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[schema(as = EventName)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Born with `run_at` ahead.
    Scheduled,
    /// Submitted over HTTP, or due again: it goes to its queue.
    Pending,
    /// Left in the database, off the queue, until a host can run it.
    Parked,
    /// Claimed: an attempt begins.
    Running,
    /// Claimed from an owner whose lease had expired.
    TakenOver,
    /// The attempt failed and is burnt; another follows after the back-off.
    Retrying,
    /// The guest said that it is too early; no attempt is burnt.
    Snoozed,
    /// Cut short by a shutdown, or its owner was lost and this host cannot run it; no attempt is burnt.
    Interrupted,
    /// Ended with an output.
    Completed,
    /// Ended with a failure.
    Failed,
    /// Called off.
    Cancelled,
}

impl Event {
    /// Every event.
    pub const ALL: [Event; 11] = [
        Event::Scheduled,
        Event::Pending,
        Event::Parked,
        Event::Running,
        Event::TakenOver,
        Event::Retrying,
        Event::Snoozed,
        Event::Interrupted,
        Event::Completed,
        Event::Failed,
        Event::Cancelled,
    ];

    /// The stable text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Event::Scheduled => "scheduled",
            Event::Pending => "pending",
            Event::Parked => "parked",
            Event::Running => "running",
            Event::TakenOver => "taken_over",
            Event::Retrying => "retrying",
            Event::Snoozed => "snoozed",
            Event::Interrupted => "interrupted",
            Event::Completed => "completed",
            Event::Failed => "failed",
            Event::Cancelled => "cancelled",
        }
    }

    /// The event of that text form.
    pub fn parse(text: &str) -> Option<Event> {
        Event::ALL.into_iter().find(|e| e.as_str() == text)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
