//! How a run ends when the guest did not say so itself: one kind per limit, with what was used and what was allowed.

use std::time::Duration;

use agentry_defence::Defence;
use serde_json::{Value, json};
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace, WasmtimeBug};
use wasmtime_wasi::I32Exit;

use crate::capability::held::TooMuchHeld;
use crate::limits::{KIB, Limits, MIB, Refusal};
use crate::streams::truncate;

/// The most frames of a trap that are kept. The engine collects no more than these.
pub(crate) const FRAMES: usize = 20;
/// The longest function name in a frame, in bytes; the guest chooses them.
const FRAME_BYTES: usize = 256;
/// The longest message, in bytes.
pub(crate) const MESSAGE_BYTES: usize = 8 << 10;

/// What became of the guest that it did not say on purpose.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Which of the stable kinds it is.
    pub kind: FaultKind,
    /// One sentence for a person.
    pub message: String,
    /// For programs. A limit: `{limit, used, allowed}`, in the unit that the limit's name says. A trap:
    /// `{frames, exit_code, stderr_tail}`.
    pub detail: Value,
}

/// The kinds of [`Fault`]; stored, so they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A panic, an uncaught exception, a bad pointer, endless recursion, `exit` with any code.
    Trap,
    /// The wall clock.
    Timeout,
    /// CPU time.
    CpuLimit,
    /// Linear memory.
    MemoryLimit,
    /// Any other limit; `detail.limit` names it.
    ResourceLimit,
    /// More output than allowed.
    OutputTooLarge,
    /// Output that is not JSON.
    InvalidOutput,
    /// A refused call that the guest could not be told about.
    Denied,
    /// The host's own fault.
    Internal,
}

impl FaultKind {
    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            FaultKind::Trap => "trap",
            FaultKind::Timeout => "timeout",
            FaultKind::CpuLimit => "cpu_limit",
            FaultKind::MemoryLimit => "memory_limit",
            FaultKind::ResourceLimit => "resource_limit",
            FaultKind::OutputTooLarge => "output_too_large",
            FaultKind::InvalidOutput => "invalid_output",
            FaultKind::Denied => "denied",
            FaultKind::Internal => "internal",
        }
    }
}

/// What is known of a run beside the error that ended it.
pub(crate) struct Evidence<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) refused: Option<Refusal>,
    pub(crate) fuel: usize,
    pub(crate) stderr_tail: Option<String>,
}

impl Fault {
    /// A limit was reached: `used` and `allowed` in the unit of the limit's name.
    fn limit(kind: FaultKind, limit: &str, used: Value, allowed: Value, message: String) -> Fault {
        let detail = json!({ "limit": limit, "used": used, "allowed": allowed });
        Fault { kind, message, detail }
    }

    /// The attempt's time is over; `deadline` when the task's deadline came before the plugin's own limit.
    pub(crate) fn timeout(used: Duration, allowed: Duration, deadline: bool) -> Fault {
        let (limit, what) = match deadline {
            true => ("deadline", "the time until the task's deadline"),
            false => ("timeout_seconds", "timeout_seconds"),
        };
        Fault::limit(
            FaultKind::Timeout,
            limit,
            seconds(used),
            seconds(allowed),
            format!("ran for {} s, and {what} = {}", seconds(used), seconds(allowed)),
        )
    }

    /// The call of a capability that was under way: mostly what a guest waited for when its time was over.
    pub(crate) fn with_call(mut self, call: Option<String>) -> Fault {
        if let Some(call) = call {
            self.message = format!("{}; under way was {call}", self.message);
            self.detail["call"] = call.into();
        }
        self
    }

    pub(crate) fn cpu(used: Duration, allowed: Duration) -> Fault {
        Fault::limit(
            FaultKind::CpuLimit,
            "cpu_seconds",
            seconds(used),
            seconds(allowed),
            format!("used {} s of CPU time, and cpu_seconds = {}", seconds(used), seconds(allowed)),
        )
    }

    pub(crate) fn memory(used: u64, limits: &Limits) -> Fault {
        let allowed = limits.memory_bytes;
        Fault::limit(
            FaultKind::MemoryLimit,
            "memory_mib",
            units(used, MIB),
            units(allowed, MIB),
            format!("asked for {} MiB of memory, and memory_mib = {}", units(used, MIB), units(allowed, MIB)),
        )
    }

    pub(crate) fn output_too_large(used: u64, limits: &Limits) -> Fault {
        let allowed = limits.output_bytes;
        Fault::limit(
            FaultKind::OutputTooLarge,
            "output_kib",
            units(used, KIB),
            units(allowed, KIB),
            format!("returned {} KiB of output or more, and output_kib = {}", units(used, KIB), units(allowed, KIB)),
        )
    }

    /// A limit without a kind of its own.
    pub(crate) fn resource(limit: &str, used: Value, allowed: Value) -> Fault {
        let message = match &used {
            Value::Null => format!("needed more than {limit} = {allowed}"),
            used => format!("needed {used}, and {limit} = {allowed}"),
        };
        Fault::limit(FaultKind::ResourceLimit, limit, used, allowed, message)
    }

    pub(crate) fn internal(message: String) -> Fault {
        Fault { kind: FaultKind::Internal, message, detail: Value::Null }
    }

    /// What an error of instantiation or of the call means. `Halt` has been dealt with before.
    pub(crate) fn from_error(error: &wasmtime::Error, evidence: Evidence<'_>) -> Fault {
        let limits = evidence.limits;
        if error.is::<PoolConcurrencyLimitError>() || error.is::<WasmtimeBug>() {
            return Fault::internal(format!("the engine failed: {error:#}"));
        }
        let root = error.root_cause().to_string();
        if root.contains(FUEL_EXHAUSTED) {
            let used = evidence.fuel as u64;
            // Within a call out of the guest there are guest frames below; when the result is read there are none.
            return match error.downcast_ref::<WasmBacktrace>() {
                None => Fault::output_too_large(used, limits),
                Some(_) => {
                    let allowed = limits.hostcall_bytes.max(limits.output_bytes);
                    Fault::resource("hostcall_kib", units(used, KIB), units(allowed, KIB))
                }
            };
        }
        match evidence.refused {
            Some(Refusal::Memory(used)) => return Fault::memory(used, limits),
            Some(Refusal::Table(used)) => {
                return Fault::resource("table_elements", used.into(), limits.table_elements.into());
            }
            None => {}
        }
        if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) || root.contains(HANDLES_EXHAUSTED) {
            return Fault::resource("handles", (u64::from(limits.handles) + 1).into(), limits.handles.into());
        }
        if let Some(held) = error.downcast_ref::<TooMuchHeld>() {
            let mut fault = Fault::resource("handle_kib", units(held.used, KIB), units(held.allowed, KIB));
            fault.message +=
                " for what all handles keep alive; drop requests, headers and bodies that are no longer used";
            return fault;
        }
        if let Some((limit, used)) = counted(&root) {
            let allowed = if limit == "memories" { limits.memories } else { limits.instances };
            return Fault::resource(limit, used.into(), allowed.into());
        }
        if let Some(used) = random_asked(&root) {
            return Fault::resource("random_kib", units(used, KIB), units(limits.random_bytes, KIB));
        }
        Fault::trap(error, root, evidence.stderr_tail)
    }

    fn trap(error: &wasmtime::Error, root: String, stderr_tail: Option<String>) -> Fault {
        let exit_code = error.downcast_ref::<I32Exit>().map(|exit| exit.0);
        let mut message = match (exit_code, error.downcast_ref::<Trap>()) {
            (Some(code), _) => format!("called exit with code {code} instead of returning"),
            (None, Some(trap)) => trap.to_string(),
            (None, None) => root,
        };
        if let Some(words) = stderr_tail.as_deref().filter(|_| exit_code.is_none()).and_then(panic_words) {
            message = format!("{words} ({message})");
        }
        truncate(&mut message, MESSAGE_BYTES);
        let frames: Vec<String> = match error.downcast_ref::<WasmBacktrace>() {
            Some(backtrace) => backtrace.frames().iter().take(FRAMES).map(frame).collect(),
            None => Vec::new(),
        };
        let detail = json!({ "frames": frames, "exit_code": exit_code, "stderr_tail": stderr_tail });
        Fault { kind: FaultKind::Trap, message, detail }
    }
}

/// The words of a Rust panic, of which the engine sees a bare `unreachable`: where, and on the line below, why. One line, with
/// what would steer a terminal made visible.
fn panic_words(stderr: &str) -> Option<String> {
    let mut lines = stderr[stderr.rfind("panicked at ")?..].lines();
    let place = lines.next()?;
    let mut words = String::new();
    let why = lines.next().filter(|why| place.ends_with(':') && !why.is_empty());
    for c in [place, why.map_or("", |_| " "), why.unwrap_or_default()].into_iter().flat_map(str::chars) {
        // Half of it is left for the trap's own.
        if words.len() >= MESSAGE_BYTES / 2 {
            words.push('…');
            break;
        }
        if c.is_control() { words.extend(c.escape_unicode()) } else { words.push(c) }
    }
    Some(words)
}

/// The engine's words for an exhausted host call; its type is private. A test holds them.
const FUEL_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";
/// The engine's words for too many handles that the guest made itself. A test holds them.
const HANDLES_EXHAUSTED: &str = "store handle limit exceeded";

/// The limit and the number in the engine's words for too many instances or memories. A test holds them.
fn counted(root: &str) -> Option<(&'static str, u64)> {
    let (what, used) = root.strip_prefix("resource limit exceeded: ")?.split_once(" count too high at ")?;
    let limit = match what {
        "instance" => "instances",
        "memory" => "memories",
        _ => return None,
    };
    Some((limit, used.parse().ok()?))
}

/// The number in WASI's words for too many random bytes. A test holds them.
fn random_asked(root: &str) -> Option<u64> {
    let (asked, _) = root.strip_prefix("requested len ")?.split_once(" exceeds limit ")?;
    asked.parse().ok()
}

/// One frame of a trap as a person reads it.
fn frame(frame: &wasmtime::FrameInfo) -> String {
    let mut name = match frame.func_name() {
        Some(name) => format!("{:#}", rustc_demangle::demangle(name)),
        None => format!("function {}", frame.func_index()),
    };
    // With source lines, the innermost of what was inlined here.
    if let Some((file, line)) = frame.symbols().first().and_then(|symbol| symbol.file().zip(symbol.line())) {
        name = format!("{name} at {file}:{line}");
    }
    if Defence::FrameNames.stands() {
        truncate(&mut name, FRAME_BYTES);
    }
    name
}

/// Seconds to the millisecond, upwards: what is over a limit reads as over it.
fn seconds(time: Duration) -> Value {
    number(time.as_nanos().div_ceil(1_000_000) as f64 / 1_000.0)
}

/// Bytes in the unit that a limit is named by, to three places.
fn units(bytes: u64, unit: u64) -> Value {
    number((bytes as f64 / unit as f64 * 1_000.0).ceil() / 1_000.0)
}

/// A whole number as one, others with their fraction.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value < u64::MAX as f64 { (value as u64).into() } else { value.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_the_unit_of_the_limits_name() {
        let limits = Limits { memory_bytes: 64 * MIB, ..Limits::default() };
        let fault = Fault::memory(64 * MIB + 65_536, &limits);
        assert_eq!(fault.kind.as_str(), "memory_limit");
        assert_eq!(fault.detail, json!({ "limit": "memory_mib", "used": 64.063, "allowed": 64 }));
        assert_eq!(seconds(Duration::from_millis(1_500)), json!(1.5));
        assert_eq!(seconds(Duration::from_secs(2)), json!(2));
    }

    #[test]
    fn a_panic_is_quoted_on_one_line() {
        let words = |text: &str| panic_words(text);
        let rust =
            "before\nthread 'main' (1) panicked at src/lib.rs:7:5:\nno \u{1b}[2J\nnote: run with `RUST_BACKTRACE=1`\n";
        assert_eq!(words(rust).as_deref(), Some("panicked at src/lib.rs:7:5: no \\u{1b}[2J"));
        assert_eq!(words("panicked at 'old', main.rs").as_deref(), Some("panicked at 'old', main.rs"));
        assert_eq!(words("panicked at a:1:1:\nfirst\npanicked at b:2:2:").as_deref(), Some("panicked at b:2:2:"));
        assert_eq!(words("a warning"), None);
        let long = words(&format!("panicked at a:1:1:\n{}", "é".repeat(MESSAGE_BYTES))).unwrap();
        assert!(long.len() <= MESSAGE_BYTES / 2 + 8 && long.ends_with('…'), "{}", long.len());
    }

    #[test]
    fn one_byte_too_much_is_more_than_what_is_allowed() {
        let fault = Fault::output_too_large(MIB + 1, &Limits::default());
        let used = fault.detail["used"].as_f64().unwrap();
        assert!(used > fault.detail["allowed"].as_f64().unwrap());
    }
}
