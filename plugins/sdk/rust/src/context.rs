//! What a plugin may ask about the attempt that it is in.

use crate::glue;
use std::time::Duration;

/// Time until the host ends this attempt: the nearer of the time limit and the task's deadline. At zero the plugin is
/// stopped where it is, without another warning.
#[must_use]
pub fn remaining() -> Duration {
    Duration::from_millis(glue::remaining_ms().into())
}

/// The name under which this component is installed; one component may serve several.
#[must_use]
pub fn plugin_name() -> String {
    glue::plugin_name()
}

/// The exact version under which it is installed, such as `0.1.0`.
#[must_use]
pub fn plugin_version() -> String {
    glue::plugin_version()
}

/// The labels the task was submitted with, sorted by key. They come from outside: treat them like the input.
#[must_use]
pub fn labels() -> Vec<(String, String)> {
    glue::labels()
}
