//! Why a task waits. Nothing waits without a visible reason.

use chrono::{DateTime, Utc};
use serde_json::Value;

/// The stable word for what a task waits for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // each is described by `WaitCode::message`
pub enum WaitCode {
    Scheduled,
    Backoff,
    Snoozed,
    NotPublished,
    Unroutable,
    NoConsumer,
    NoPlugin,
    PluginBroken,
    Paused,
    Queued,
    NoSlot,
    Held,
    Isolation,
}

impl WaitCode {
    /// Every code.
    pub const ALL: [WaitCode; 13] = {
        use WaitCode::*;
        [
            Scheduled,
            Backoff,
            Snoozed,
            NotPublished,
            Unroutable,
            NoConsumer,
            NoPlugin,
            PluginBroken,
            Paused,
            Queued,
            NoSlot,
            Held,
            Isolation,
        ]
    };

    /// The stable text form.
    pub fn as_str(self) -> &'static str {
        use WaitCode::*;
        match self {
            Scheduled => "scheduled",
            Backoff => "backoff",
            Snoozed => "snoozed",
            NotPublished => "not_published",
            Unroutable => "unroutable",
            NoConsumer => "no_consumer",
            NoPlugin => "no_plugin",
            PluginBroken => "plugin_broken",
            Paused => "paused",
            Queued => "queued",
            NoSlot => "no_slot",
            Held => "held",
            Isolation => "isolation",
        }
    }

    /// The code of that text form.
    pub fn parse(text: &str) -> Option<WaitCode> {
        WaitCode::ALL.into_iter().find(|c| c.as_str() == text)
    }

    /// What it means, for a person.
    pub fn message(self) -> &'static str {
        use WaitCode::*;
        match self {
            Scheduled => "waits for its run_at",
            Backoff => "waits for its back-off after a failed attempt",
            Snoozed => "the plugin asked to be run again later",
            NotPublished => "committed, and not yet handed to the broker",
            Unroutable => "the broker has no queue for it",
            NoConsumer => "its queue has no consumer",
            NoPlugin => "no live host serves the plugin that it asks for",
            PluginBroken => "the plugin exists, and failed to load",
            Paused => "its queue or plugin is paused",
            Queued => "in its queue, behind others",
            NoSlot => "its plugin is at its concurrency limit",
            Held => "a host received its message and cannot use it; it waits for one that can",
            Isolation => "waits for the isolation lane",
        }
    }
}

/// What a task waits for.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Waiting {
    /// A stable word.
    pub code: WaitCode,
    /// The same for a person.
    pub message: String,
    /// Begin of the wait.
    pub since: DateTime<Utc>,
    /// End of the wait, where it is known.
    pub until: Option<DateTime<Utc>>,
    /// Details for programs.
    pub detail: Value,
}
