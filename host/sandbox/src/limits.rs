//! What a run may use, and the meter that holds a store to it.

use std::sync::Arc;
use std::time::Duration;

use agentry_defence::Defence;
use wasmtime::ResourceLimiter;

use crate::budget::Reservation;
use crate::instance::Halt;

/// One mebibyte in bytes.
pub(crate) const MIB: u64 = 1 << 20;
/// One kibibyte in bytes.
pub(crate) const KIB: u64 = 1 << 10;

/// What one run may use. All sizes are in bytes; each field names the setting that operators know it by.
///
/// The ceilings given to [`SandboxConfig`](crate::SandboxConfig) are of the same type: whatever an invocation asks for
/// is cut to them, because the pool was shaped from them.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Wall clock around instantiation and call, time in host calls included (`timeout_seconds`).
    pub timeout: Duration,
    /// CPU time of the thread while it runs the guest (`cpu_seconds`).
    pub cpu: Duration,
    /// Linear memory, summed over all memories (`memory_mib`).
    pub memory_bytes: u64,
    /// Table elements, summed over all tables (`table_elements`).
    pub table_elements: u64,
    /// Core instances (`instances`).
    pub instances: u32,
    /// Linear memories (`memories`).
    pub memories: u32,
    /// What one host call may make the host allocate (`hostcall_kib`).
    ///
    /// The engine has one such number for calls out of the guest and for its result, so the larger of this and
    /// `output_bytes` is what holds.
    pub hostcall_bytes: u64,
    /// Resource handles alive at once (`handles`).
    pub handles: u32,
    /// Random bytes per call (`random_kib`).
    pub random_bytes: u64,
    /// Log, standard output and standard error, together (`log_kib`).
    pub log_bytes: u64,
    /// Lines of the same (`log_lines`).
    pub log_lines: u32,
    /// One line of the same; what is longer is cut (`log_line_kib`).
    pub log_line_bytes: u64,
    /// The output (`output_kib`).
    pub output_bytes: u64,
    /// HTTP exchanges at once; further ones wait (`http_in_flight`).
    pub http_in_flight: u32,
    /// HTTP requests in all (`http_requests`).
    pub http_requests: u32,
    /// The body of one request (`http_request_kib`).
    pub http_request_bytes: u64,
    /// The body of one response (`http_response_kib`).
    pub http_response_bytes: u64,
    /// Requests to language models (`llm_requests`).
    pub llm_requests: u32,
    /// Tokens of language models, of requests and answers (`llm_tokens`).
    pub llm_tokens: u64,
    /// Calls of tools (`tool_calls`).
    pub tool_calls: u32,
    /// Calls of buckets and memories (`store_calls`).
    pub store_calls: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            timeout: Duration::from_secs(300),
            cpu: Duration::from_secs(30),
            memory_bytes: 128 * MIB,
            table_elements: 100_000,
            instances: 200,
            memories: 4,
            hostcall_bytes: MIB,
            handles: 1_024,
            random_bytes: 64 * KIB,
            log_bytes: 256 * KIB,
            log_lines: 2_000,
            log_line_bytes: 8 * KIB,
            output_bytes: MIB,
            http_in_flight: 4,
            http_requests: 100,
            http_request_bytes: MIB,
            http_response_bytes: 8 * MIB,
            llm_requests: 50,
            llm_tokens: 200_000,
            tool_calls: 100,
            store_calls: 1_000,
        }
    }
}

impl Limits {
    /// Each limit, but never more than the ceiling's.
    pub(crate) fn within(&self, ceilings: &Limits) -> Limits {
        Limits {
            timeout: self.timeout.min(ceilings.timeout),
            cpu: self.cpu.min(ceilings.cpu),
            memory_bytes: self.memory_bytes.min(ceilings.memory_bytes),
            table_elements: self.table_elements.min(ceilings.table_elements),
            instances: self.instances.min(ceilings.instances),
            memories: self.memories.min(ceilings.memories),
            hostcall_bytes: self.hostcall_bytes.min(ceilings.hostcall_bytes),
            handles: self.handles.min(ceilings.handles),
            random_bytes: self.random_bytes.min(ceilings.random_bytes),
            log_bytes: self.log_bytes.min(ceilings.log_bytes),
            log_lines: self.log_lines.min(ceilings.log_lines),
            log_line_bytes: self.log_line_bytes.min(ceilings.log_line_bytes),
            output_bytes: self.output_bytes.min(ceilings.output_bytes),
            http_in_flight: self.http_in_flight.min(ceilings.http_in_flight),
            http_requests: self.http_requests.min(ceilings.http_requests),
            http_request_bytes: self.http_request_bytes.min(ceilings.http_request_bytes),
            http_response_bytes: self.http_response_bytes.min(ceilings.http_response_bytes),
            llm_requests: self.llm_requests.min(ceilings.llm_requests),
            llm_tokens: self.llm_tokens.min(ceilings.llm_tokens),
            tool_calls: self.tool_calls.min(ceilings.tool_calls),
            store_calls: self.store_calls.min(ceilings.store_calls),
        }
    }
}

/// A request of the guest's that went over a limit. The guest may survive it (`memory.grow` returns -1), so it only
/// becomes a failure when the guest traps afterwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Refusal {
    /// Linear memory: bytes there would have been.
    Memory(u64),
    /// Table elements there would have been.
    Table(u64),
}

/// Sums what a store's memories and tables hold. The engine's own `StoreLimits` bounds each memory by itself, so that a
/// guest with many memories gets many times the limit. What it grows beyond its reservation it takes from the budget of all.
#[derive(Debug)]
pub(crate) struct Meter {
    memory_limit: u64,
    memory: u64,
    table_limit: u64,
    table: u64,
    instances: usize,
    memories: usize,
    reservation: Option<Arc<Reservation>>,
    pub(crate) peak_memory: u64,
    pub(crate) refused: Option<Refusal>,
}

impl Meter {
    pub(crate) fn new(limits: &Limits, reservation: Option<Arc<Reservation>>) -> Meter {
        Meter {
            memory_limit: limits.memory_bytes,
            memory: 0,
            table_limit: limits.table_elements,
            table: 0,
            instances: limits.instances as usize,
            memories: limits.memories as usize,
            reservation,
            peak_memory: 0,
            refused: None,
        }
    }
}

/// The sum after one part grew from `current` to `desired`.
fn grown(sum: u64, current: usize, desired: usize) -> u64 {
    sum.saturating_sub(current as u64).saturating_add(desired as u64)
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let sum = grown(self.memory, current, desired);
        if sum > self.memory_limit && Defence::Memory.stands() {
            self.refused = Some(Refusal::Memory(sum));
            return Ok(false);
        }
        // Beyond what the guest itself declared: its own business, and not to be counted as granted.
        if maximum.is_some_and(|most| desired > most) {
            return Ok(false);
        }
        // It did nothing wrong and is not told -1, which would make it fail: it ends here, and runs again.
        if let Some(reservation) = &self.reservation
            && Defence::Budget.stands()
        {
            reservation.try_hold(sum).map_err(Halt::Memory)?;
        }
        self.memory = sum;
        self.peak_memory = self.peak_memory.max(sum);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        // Either more than 32 bits can address, for which nobody asked us, or the system had no more. What was granted
        // stays counted: the sum may err upwards, never downwards.
        self.refused.get_or_insert(Refusal::Memory(self.memory.max(self.memory_limit) + 1));
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let sum = grown(self.table, current, desired);
        if sum > self.table_limit && Defence::Tables.stands() {
            self.refused = Some(Refusal::Table(sum));
            return Ok(false);
        }
        if maximum.is_some_and(|most| desired > most) {
            return Ok(false);
        }
        self.table = sum;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.instances
    }

    fn memories(&self) -> usize {
        self.memories
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter() -> Meter {
        Meter::new(&Limits { memory_bytes: 100, table_elements: 10, ..Limits::default() }, None)
    }

    #[test]
    fn memories_are_limited_by_their_sum_and_not_one_by_one() {
        let mut meter = meter();
        assert!(meter.memory_growing(0, 60, None).unwrap());
        assert!(!meter.memory_growing(0, 60, None).unwrap());
        assert_eq!(meter.refused, Some(Refusal::Memory(120)));
        assert!(meter.memory_growing(60, 100, None).unwrap());
        assert_eq!(meter.peak_memory, 100);
    }

    #[test]
    fn tables_are_limited_by_their_sum() {
        let mut meter = meter();
        assert!(meter.table_growing(0, 6, None).unwrap());
        assert!(!meter.table_growing(0, 6, None).unwrap());
        assert_eq!(meter.refused, Some(Refusal::Table(12)));
    }

    #[test]
    fn a_guests_own_maximum_is_neither_granted_nor_a_refusal() {
        let mut meter = meter();
        assert!(!meter.memory_growing(0, 60, Some(50)).unwrap());
        assert_eq!(meter.refused, None);
        assert!(meter.memory_growing(0, 100, None).unwrap());
    }

    #[test]
    fn no_limit_goes_over_its_ceiling() {
        let ceilings = Limits { memory_bytes: 1, log_lines: 2, ..Limits::default() };
        let limits = Limits { cpu: Duration::from_secs(1), ..Limits::default() }.within(&ceilings);
        assert_eq!(limits.memory_bytes, 1);
        assert_eq!(limits.log_lines, 2);
        assert_eq!(limits.cpu, Duration::from_secs(1));
    }
}
