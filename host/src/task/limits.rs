//! The limits of a task that its message may ask for. The sandbox's own limits live in `agentry_sandbox::Limits`.

/// Attempts that `options.max_attempts` may ask for.
pub const MAX_ATTEMPTS: std::ops::RangeInclusive<u32> = 1..=100;
/// Values of `options.priority`; higher runs first among what waits in the database and in the host.
pub const PRIORITY: std::ops::RangeInclusive<u8> = 0..=9;
/// Labels a task may carry.
pub const LABELS: usize = 16;
/// Bytes of a label's key, and of its value.
pub const LABEL_BYTES: usize = 64;

/// What a message is checked against before it becomes a task. Comes from the settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MessageLimits {
    /// `limits.max.timeout_seconds`: a message that asks for more is refused.
    pub timeout_seconds: u32,
    /// `limits.max.message_kib`, in bytes: checked before parsing.
    pub body_bytes: usize,
}

impl Default for MessageLimits {
    fn default() -> Self {
        MessageLimits { timeout_seconds: 3_600, body_bytes: 1_024 * 1_024 }
    }
}
