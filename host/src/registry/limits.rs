//! What a run of a plugin may use: the operator's defaults and ceilings, the plugin's wishes, and what comes of them.

use super::{LimitInfo, Origin};
use crate::task::limits::MessageLimits;
use agentry_sandbox::Limits;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// One table of limits makes the settings, the wishes and the ceilings, so that they cannot differ in a key.
macro_rules! limits {
    ($( $(#[$doc:meta])* $key:ident = $default:literal, at most $ceiling:literal; )*) => {
        /// The settings `limits.default.*`: what holds where `plugin.toml` is silent. The unit is in the name.
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct LimitSettings { $( $(#[$doc])* pub $key: u64, )* }

        impl LimitSettings {
            /// These, and where they are silent what is here.
            pub fn with(self, wishes: &LimitWishes) -> LimitSettings {
                LimitSettings { $( $key: wishes.$key.unwrap_or(self.$key), )* }
            }
        }

        impl Default for LimitSettings {
            fn default() -> Self {
                LimitSettings { $( $key: $default, )* }
            }
        }

        /// The settings `limits.max.*`: the operator's ceilings, and what bounds a message or a component file.
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Ceilings {
            $( $(#[$doc])* pub $key: u64, )*
            /// A message's body, in KiB.
            pub message_kib: u64,
            /// A component file, in MiB.
            pub component_mib: u64,
            /// Compiling one component, in seconds.
            pub compile_seconds: u64,
            /// What the compiler may take for one component, in MiB.
            pub compile_memory_mib: u64,
        }

        impl Default for Ceilings {
            fn default() -> Self {
                Ceilings {
                    $( $key: $ceiling, )*
                    message_kib: 1_024,
                    component_mib: 32,
                    compile_seconds: 60,
                    compile_memory_mib: 1_024,
                }
            }
        }

        impl Ceilings {
            /// These ceilings of what a plugin may wish for, and the rest as it is here.
            pub fn with(self, limits: LimitSettings) -> Ceilings {
                Ceilings { $( $key: limits.$key, )* ..self }
            }

            /// The ceilings of what a plugin may wish for.
            pub fn settings(&self) -> LimitSettings {
                LimitSettings { $( $key: self.$key, )* }
            }
        }

        /// Some limits: a plugin's `[limits]`, or the operator's `[plugins."…"] limits.*`.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct LimitWishes { $( $(#[$doc])* pub $key: Option<u64>, )* }

        impl LimitWishes {
            /// These, and where they are silent the others.
            pub(super) fn or(&self, others: &LimitWishes) -> LimitWishes {
                LimitWishes { $( $key: self.$key.or(others.$key), )* }
            }

            /// Wish for one by its key; `false`: there is no such limit.
            pub fn set(&mut self, key: &str, value: u64) -> bool {
                match key {
                    $( stringify!($key) => self.$key = Some(value), )*
                    _ => return false,
                }
                true
            }
        }

        /// Every key that a plugin may wish for.
        pub(super) const KEYS: &[&str] = &[$( stringify!($key), )*];

        fn rows(
            defaults: &LimitSettings,
            (policy, own): (&LimitWishes, &LimitWishes),
            wishes: &LimitWishes,
            max: &Ceilings,
        ) -> Vec<Row> {
            vec![$( Row {
                limit: stringify!($key),
                default: defaults.$key,
                policy: policy.$key,
                wish: wishes.$key,
                own: own.$key,
                ceiling: max.$key,
            }, )*]
        }

        fn assemble(value: impl Fn(&str) -> u64) -> LimitSettings {
            LimitSettings { $( $key: value(stringify!($key)), )* }
        }
    };
}

/// One limit in all places that say something of it.
struct Row {
    limit: &'static str,
    default: u64,
    /// `limits.*` of the operator's policy.
    policy: Option<u64>,
    /// `limits.*` of `plugin.toml`.
    wish: Option<u64>,
    /// `limits.max.*` of the operator's policy.
    own: Option<u64>,
    /// `limits.max.*`.
    ceiling: u64,
}

limits! {
    /// Wall clock of one attempt, time in host calls included, in seconds.
    timeout_seconds = 300, at most 900;
    /// Processor time of one attempt, in seconds.
    cpu_seconds = 30, at most 900;
    /// Linear memory, summed over all memories, in MiB.
    memory_mib = 128, at most 512;
    /// Table elements, summed over all tables.
    table_elements = 100_000, at most 1_000_000;
    /// Core instances.
    instances = 200, at most 1_000;
    /// Linear memories.
    memories = 4, at most 16;
    /// What one host call may make the host allocate, in KiB.
    hostcall_kib = 1_024, at most 16_384;
    /// Open resource handles.
    handles = 1_024, at most 65_536;
    /// Random bytes of one call, in KiB.
    random_kib = 64, at most 1_024;
    /// Log, standard output and standard error of one attempt, in KiB.
    log_kib = 256, at most 4_096;
    /// Lines of the same.
    log_lines = 2_000, at most 50_000;
    /// One line of the same, in KiB.
    log_line_kib = 8, at most 64;
    /// The output, in KiB.
    output_kib = 1_024, at most 16_384;
    /// HTTP exchanges at once.
    http_in_flight = 4, at most 64;
    /// HTTP requests in all.
    http_requests = 100, at most 10_000;
    /// The body of one request, in KiB.
    http_request_kib = 1_024, at most 65_536;
    /// The body of one response, in KiB.
    http_response_kib = 8_192, at most 65_536;
    /// Requests to language models.
    llm_requests = 50, at most 1_000;
    /// Tokens of language models, of requests and answers.
    llm_tokens = 200_000, at most 10_000_000;
    /// Calls of tools.
    tool_calls = 100, at most 10_000;
    /// Calls of buckets and memories.
    store_calls = 1_000, at most 100_000;
}

/// Counts beyond four thousand million are no limits.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A limit that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// A plugin, or the operator's policy for it, asks for more than the ceiling.
    #[error("{key} asks for {asked}, and the ceiling {limit} is {ceiling}: ask for less, or raise the ceiling")]
    AboveCeiling {
        /// Who asks, as the key is written.
        key: String,
        /// The ceiling, as its key is written.
        limit: String,
        /// What is asked for.
        asked: u64,
        /// What is allowed.
        ceiling: u64,
    },
    /// The settings contradict themselves.
    #[error(
        "limits.default.{limit} is {default}, above limits.max.{limit}, which is {ceiling}: lower the one or raise the other"
    )]
    DefaultAboveCeiling {
        /// The limit.
        limit: &'static str,
        /// The default.
        default: u64,
        /// The ceiling.
        ceiling: u64,
    },
    /// Nothing can run with nothing.
    #[error("{key} is 0; it must be 1 or more")]
    Zero {
        /// The key as it is written.
        key: String,
    },
    /// A reservation is a part of the memory limit.
    #[error("limits.memory_reserve_mib asks for {asked}, above the plugin's limits.memory_mib, which is {memory_mib}")]
    ReserveAboveMemory {
        /// What is asked for.
        asked: u64,
        /// What is allowed.
        memory_mib: u64,
    },
}

/// What holds for one plugin, and who said so.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedLimits {
    /// What holds.
    pub values: LimitSettings,
    /// The same with origins and ceilings, by key.
    pub info: BTreeMap<String, LimitInfo>,
}

impl ResolvedLimits {
    /// Seconds that a task may ask for at most.
    pub(super) fn timeout_ceiling(&self) -> u64 {
        self.info.get("timeout_seconds").map_or(self.values.timeout_seconds, |info| info.ceiling)
    }
}

impl LimitSettings {
    /// The same as the sandbox takes them.
    pub fn to_sandbox(&self) -> Limits {
        Limits {
            timeout: Duration::from_secs(self.timeout_seconds),
            cpu: Duration::from_secs(self.cpu_seconds),
            memory_bytes: self.memory_mib.saturating_mul(MIB),
            table_elements: self.table_elements,
            instances: narrow(self.instances),
            memories: narrow(self.memories),
            hostcall_bytes: self.hostcall_kib.saturating_mul(KIB),
            handles: narrow(self.handles),
            random_bytes: self.random_kib.saturating_mul(KIB),
            log_bytes: self.log_kib.saturating_mul(KIB),
            log_lines: narrow(self.log_lines),
            log_line_bytes: self.log_line_kib.saturating_mul(KIB),
            output_bytes: self.output_kib.saturating_mul(KIB),
            http_in_flight: narrow(self.http_in_flight),
            http_requests: narrow(self.http_requests),
            http_request_bytes: self.http_request_kib.saturating_mul(KIB),
            http_response_bytes: self.http_response_kib.saturating_mul(KIB),
            llm_requests: narrow(self.llm_requests),
            llm_tokens: self.llm_tokens,
            tool_calls: narrow(self.tool_calls),
            store_calls: narrow(self.store_calls),
        }
    }
}

impl Ceilings {
    /// What the sandbox's pool is shaped from.
    pub fn to_sandbox(&self) -> Limits {
        self.settings().to_sandbox()
    }

    /// The largest component file, in bytes.
    pub fn component_bytes(&self) -> u64 {
        self.component_mib.saturating_mul(MIB)
    }

    /// The longest compilation.
    pub fn compile_timeout(&self) -> Duration {
        Duration::from_secs(self.compile_seconds)
    }

    /// What the compiler may take for one component, in bytes.
    pub fn compile_memory(&self) -> u64 {
        self.compile_memory_mib.saturating_mul(MIB)
    }

    /// What a message is checked against before it becomes a task.
    pub fn message(&self) -> MessageLimits {
        MessageLimits {
            timeout_seconds: narrow(self.timeout_seconds),
            body_bytes: usize::try_from(self.message_kib.saturating_mul(KIB)).unwrap_or(usize::MAX),
        }
    }
}

/// Whether the settings make sense together.
///
/// # Errors
/// A default above its ceiling, or a 0; both name their keys.
pub fn check(defaults: &LimitSettings, max: &Ceilings) -> Result<(), LimitError> {
    let none = LimitWishes::default();
    for Row { limit, default, ceiling, .. } in rows(defaults, (&none, &none), &none, max) {
        if default == 0 {
            return Err(LimitError::Zero { key: format!("limits.default.{limit}") });
        }
        if default > ceiling {
            return Err(LimitError::DefaultAboveCeiling { limit, default, ceiling });
        }
    }
    for (limit, value) in [
        ("message_kib", max.message_kib),
        ("component_mib", max.component_mib),
        ("compile_seconds", max.compile_seconds),
        ("compile_memory_mib", max.compile_memory_mib),
    ] {
        if value == 0 {
            return Err(LimitError::Zero { key: format!("limits.max.{limit}") });
        }
    }
    Ok(())
}

/// What holds for a plugin: its own wish, or else the operator's word for it, or else the default, which ends at the operator's
/// ceiling for this plugin. `own`: the operator's limits and ceilings for it.
///
/// # Errors
/// A wish or a word above a ceiling, with both named. It is not cut.
pub fn resolve(
    defaults: &LimitSettings,
    own: (&LimitWishes, &LimitWishes),
    wishes: &LimitWishes,
    max: &Ceilings,
) -> Result<ResolvedLimits, LimitError> {
    let mut info = BTreeMap::new();
    for Row { limit, default, policy, wish, own, ceiling: of_all } in rows(defaults, own, wishes, max) {
        let ceiling = own.unwrap_or(of_all).min(of_all);
        let (value, origin, key) = match (wish, policy) {
            (Some(wish), _) => (wish, Origin::Plugin, format!("limits.{limit} in plugin.toml")),
            (None, Some(word)) => (word, Origin::Policy, format!("limits.{limit} of the operator's policy")),
            (None, None) if default > ceiling && ceiling < of_all => {
                (ceiling, Origin::Policy, format!("limits.max.{limit} of the operator's policy"))
            }
            (None, None) => (default, Origin::Default, format!("limits.default.{limit}")),
        };
        if value == 0 {
            return Err(LimitError::Zero { key });
        }
        if value > ceiling {
            let whose = if ceiling < of_all { " of the operator's policy" } else { "" };
            let limit = format!("limits.max.{limit}{whose}");
            return Err(LimitError::AboveCeiling { key, limit, asked: value, ceiling });
        }
        info.insert(limit.to_owned(), LimitInfo { value, origin, ceiling });
    }
    // Every key is there: both come from the one table.
    let values = assemble(|key| info.get(key).map_or(0, |i| i.value));
    Ok(ResolvedLimits { values, info })
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
