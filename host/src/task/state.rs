//! The states of a task and the one function that says which event leads where.

use super::Event;
use std::fmt;

/// State of a task.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[schema(as = TaskState)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for `run_at`.
    Scheduled,
    /// Waits to be run: queued or parked.
    Pending,
    /// Has an owner, a lease and a fence.
    Running,
    /// Waits for its back-off.
    Retrying,
    /// Returned an output. Terminal.
    Completed,
    /// Ended without one. Terminal.
    Failed,
    /// Called off. Terminal.
    Cancelled,
}

impl State {
    /// Every state, in the order of a task's life.
    pub const ALL: [State; 7] = [
        State::Scheduled,
        State::Pending,
        State::Running,
        State::Retrying,
        State::Completed,
        State::Failed,
        State::Cancelled,
    ];

    /// The stable text form.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Scheduled => "scheduled",
            State::Pending => "pending",
            State::Running => "running",
            State::Retrying => "retrying",
            State::Completed => "completed",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }

    /// Terminal states never change again.
    pub fn is_terminal(self) -> bool {
        matches!(self, State::Completed | State::Failed | State::Cancelled)
    }

    /// The state of that text form.
    pub fn parse(text: &str) -> Option<State> {
        State::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event that cannot happen in that state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task that is {} cannot take the event {event}", from.map_or("unborn", State::as_str))]
pub struct IllegalTransition {
    /// The state it was in; `None`: no row yet.
    pub from: Option<State>,
    /// What was to happen.
    pub event: Event,
}

/// Which state an event leads to. The `CHECK` constraints in `migrations/` are the only other place that knows it, and
/// a test holds the two together.
pub fn next(from: Option<State>, event: Event) -> Result<State, IllegalTransition> {
    use {Event as E, State as S};
    let to = match (from, event) {
        (None, E::Scheduled) => S::Scheduled,
        (None | Some(S::Scheduled | S::Pending | S::Retrying), E::Pending | E::Parked) => S::Pending,
        (None | Some(S::Scheduled | S::Pending | S::Retrying), E::Running) => S::Running,
        (None | Some(S::Scheduled | S::Pending | S::Retrying | S::Running), E::Failed) => S::Failed,
        (Some(S::Scheduled | S::Pending | S::Retrying | S::Running), E::Cancelled) => S::Cancelled,
        (Some(S::Running), E::TakenOver) => S::Running,
        (Some(S::Running), E::Retrying) => S::Retrying,
        (Some(S::Running), E::Snoozed) => S::Scheduled,
        (Some(S::Running), E::Interrupted) => S::Pending,
        (Some(S::Running), E::Completed) => S::Completed,
        (from, event) => return Err(IllegalTransition { from, event }),
    };
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_state_takes_no_event() {
        for state in State::ALL.into_iter().filter(|s| s.is_terminal()) {
            for event in Event::ALL {
                assert_eq!(next(Some(state), event), Err(IllegalTransition { from: Some(state), event }));
            }
        }
    }

    #[test]
    fn every_other_state_can_reach_an_end() {
        for state in State::ALL.into_iter().filter(|s| !s.is_terminal()) {
            assert_eq!(next(Some(state), Event::Failed), Ok(State::Failed));
            assert_eq!(next(Some(state), Event::Cancelled), Ok(State::Cancelled));
        }
    }

    #[test]
    fn only_a_running_task_completes() {
        for from in [None, Some(State::Scheduled), Some(State::Pending), Some(State::Retrying)] {
            assert!(next(from, Event::Completed).is_err());
        }
        assert_eq!(next(Some(State::Running), Event::Completed), Ok(State::Completed));
    }

    #[test]
    fn an_illegal_transition_names_both() {
        let error = next(Some(State::Completed), Event::Retrying).unwrap_err();
        assert_eq!(error.to_string(), "a task that is completed cannot take the event retrying");
    }

    #[test]
    fn the_text_form_reads_back() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        for event in Event::ALL {
            assert_eq!(Event::parse(event.as_str()), Some(event));
        }
    }
}
