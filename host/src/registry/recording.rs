//! Whose calls are recorded with their bodies: the operator's alone to say, in `[calls]` for every plugin and in
//! `[plugins."…"]` for some. A `plugin.toml` has no word for it.

use agentry_sandbox::Bodies;
use serde::Deserialize;

/// Capabilities whose calls have bodies, as `calls.bodies` names them.
pub const BODIES: [&str; 3] = ["llm", "tools", "http"];

/// What is recorded of calls besides that there was one. `None`: nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallsPolicy {
    /// Of which capabilities the bodies are recorded: some of [`BODIES`].
    pub bodies: Option<Vec<String>>,
    /// The most of one body.
    pub body_kib: Option<u64>,
    /// The most of all bodies of one attempt.
    pub attempt_kib: Option<u64>,
}

impl CallsPolicy {
    /// This, and where it is silent the other.
    pub fn or(&self, other: &CallsPolicy) -> CallsPolicy {
        CallsPolicy {
            bodies: self.bodies.clone().or_else(|| other.bodies.clone()),
            body_kib: self.body_kib.or(other.body_kib),
            attempt_kib: self.attempt_kib.or(other.attempt_kib),
        }
    }

    /// Of which capabilities bodies are recorded.
    pub fn bodies(&self) -> &[String] {
        self.bodies.as_deref().unwrap_or_default()
    }

    pub(super) fn to_sandbox(&self) -> Bodies {
        let of = |capability: &str| self.bodies().iter().any(|name| name == capability);
        let bytes = |kib: Option<u64>| kib.unwrap_or_default().saturating_mul(1_024);
        Bodies {
            llm: of("llm"),
            tools: of("tools"),
            http: of("http"),
            body_bytes: bytes(self.body_kib),
            run_bytes: bytes(self.attempt_kib),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_settings_is_one_that_the_sandbox_keeps() {
        assert_eq!(CallsPolicy::default().to_sandbox(), Bodies::default());
        let all =
            CallsPolicy { bodies: Some(BODIES.map(str::to_owned).to_vec()), body_kib: Some(1), attempt_kib: Some(2) };
        let kept = Bodies { llm: true, tools: true, http: true, body_bytes: 1_024, run_bytes: 2_048 };
        assert_eq!(all.to_sandbox(), kept);
        for name in BODIES {
            let one = CallsPolicy { bodies: Some(vec![name.into()]), ..CallsPolicy::default() }.to_sandbox();
            assert_eq!([one.llm, one.tools, one.http].iter().filter(|kept| **kept).count(), 1, "{name}");
        }
    }
}
