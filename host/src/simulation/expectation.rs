//! What a producer was promised, and how its task may end.

use crate::task::{FailureKind, State};

/// What a guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It ends well.
    End,
    /// It ends well, after longer than a lease.
    EndLate,
    /// It fails twice, and ends well at its third attempt.
    FailTwice,
    /// It fails for good.
    Fail,
    /// It fails as long as it may.
    FailAlways,
    /// It asks once for more time.
    Snooze,
    /// It kills whatever process it runs in.
    Kill,
}

impl Deed {
    /// As it stands in a task's input.
    pub fn word(self) -> &'static str {
        match self {
            Deed::End => "end",
            Deed::EndLate => "end late",
            Deed::FailTwice => "fail twice",
            Deed::Fail => "fail",
            Deed::FailAlways => "fail always",
            Deed::Snooze => "snooze",
            Deed::Kill => "kill",
        }
    }

    /// Read back.
    pub fn parse(word: &str) -> Option<Deed> {
        use Deed::*;
        [End, EndLate, FailTwice, Fail, FailAlways, Snooze, Kill].into_iter().find(|deed| deed.word() == word)
    }
}

/// What is known of a task from outside.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    /// What its guest does.
    pub deed: Deed,
    /// No host has its plugin.
    pub nowhere: bool,
    /// It has a deadline.
    pub limited: bool,
    /// Somebody asked for its end.
    pub cancelled: bool,
}

impl Promise {
    /// Whether it may end like this.
    pub fn allows(&self, state: State, failure: Option<FailureKind>) -> bool {
        let honest = match (self.deed, state, failure) {
            _ if self.nowhere => (state, failure) == (State::Failed, Some(FailureKind::UnknownPlugin)),
            (Deed::Kill, State::Failed, Some(FailureKind::HostLost)) => true,
            (Deed::Kill, _, _) => false,
            (Deed::Fail | Deed::FailAlways, State::Failed, Some(FailureKind::PluginError)) => true,
            (Deed::Fail | Deed::FailAlways, _, _) => false,
            (_, State::Completed, None) => true,
            _ => false,
        };
        honest
            || (self.cancelled && state == State::Cancelled)
            || (self.limited && (state, failure) == (State::Failed, Some(FailureKind::Expired)))
            || (self.limited && (state, failure) == (State::Failed, Some(FailureKind::Timeout)))
    }
}
