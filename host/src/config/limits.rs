//! `[limits.default]` and `[limits.max]`: one table of their names and ranges.

use super::Limits;
use super::origin::Problem;
use super::reader::Reader;

/// One table makes the type, its reading and its listing, so that they cannot differ in a key.
macro_rules! limit_set {
    ($( $key:ident: $type:ty, at most $most:literal; )*) => {
        /// What one attempt may use. Fields are named as the settings are, unit included.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
        #[allow(missing_docs)] // config.default.toml describes each
        pub struct LimitSet { $( pub $key: $type, )* }

        impl LimitSet {
            fn read(read: &mut Reader, section: &str) -> Result<LimitSet, Problem> {
                Ok(LimitSet { $( $key: read.number(&format!("{section}.{}", stringify!($key)), 1..=$most)?, )* })
            }

            /// Every limit by name.
            pub fn numbers(&self) -> Vec<(&'static str, u64)> {
                vec![$( (stringify!($key), self.$key.into()), )*]
            }
        }
    };
}

limit_set! {
    timeout_seconds: u32, at most 604_800;
    cpu_seconds: u32, at most 604_800;
    memory_mib: u64, at most 4_096;
    table_elements: u64, at most 100_000_000;
    instances: u32, at most 10_000;
    memories: u32, at most 100;
    hostcall_kib: u64, at most 1_048_576;
    handles: u32, at most 1_000_000;
    random_kib: u64, at most 65_536;
    log_kib: u64, at most 1_048_576;
    log_lines: u32, at most 1_000_000;
    log_line_kib: u64, at most 1_024;
    output_kib: u64, at most 1_048_576;
    http_in_flight: u32, at most 1_000;
    http_requests: u32, at most 1_000_000;
    http_request_kib: u64, at most 1_048_576;
    http_response_kib: u64, at most 1_048_576;
    llm_requests: u32, at most 1_000_000;
    llm_tokens: u64, at most 1_000_000_000;
    tool_calls: u32, at most 1_000_000;
    store_calls: u32, at most 1_000_000;
}

/// Both sets, and what bounds a message or a component.
pub(super) fn limits(read: &mut Reader) -> Result<Limits, Problem> {
    let default = LimitSet::read(read, "limits.default")?;
    let max = LimitSet::read(read, "limits.max")?;
    for ((name, value), (_, ceiling)) in default.numbers().into_iter().zip(max.numbers()) {
        if value > ceiling {
            let (key, other) = (format!("limits.default.{name}"), format!("limits.max.{name}"));
            let what =
                format!("{value} is more than {other} ({ceiling}, {}); lower it, or raise that", read.origin(&other));
            return Err(Problem::invalid(&key, &read.origin(&key), what));
        }
    }
    Ok(Limits {
        default,
        max,
        message_kib: read.number("limits.max.message_kib", 1..=131_072)?,
        component_mib: read.number("limits.max.component_mib", 1..=1_024)?,
        compile_seconds: read.number("limits.max.compile_seconds", 1..=3_600)?,
        compile_memory_mib: read.number("limits.max.compile_memory_mib", 64..=1_048_576)?,
    })
}
