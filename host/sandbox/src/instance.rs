//! The store of one run: built fresh, used once, dropped.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentry_defence::Defence;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::filesystem::FsPerms;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::WasiHttpCtx;

use crate::access::Access;
use crate::budget::{NoMemory, Reservation};
use crate::calls::Calls;
use crate::capability::allowance::{Allowance, Count};
use crate::capability::context::Context;
use crate::capability::http::Web;
use crate::limits::{Limits, Meter};
use crate::streams::{Log, Output, Stream, lock, visible};

/// What a host call may take beyond its limit before the engine stops it, in bytes: room for the record around a string.
const HOSTCALL_MARGIN: u64 = 4 << 10;
/// The longest sentence about a missing grant, in bytes: it repeats what the guest asked for.
const REFUSAL_BYTES: usize = 1 << 10;
/// What the headers of one request or response may take in the host's memory, in bytes.
const FIELD_BYTES: usize = 64 << 10;

/// What the guest's store and the watch around it both know.
pub(crate) struct Shared {
    pub(crate) log: Mutex<Log>,
    pub(crate) stop: CancellationToken,
    /// When the attempt is over, whatever the guest does.
    pub(crate) end: Instant,
    pub(crate) cpu: CpuMeter,
    /// The guest has yielded because the epoch ended, and computes on.
    pub(crate) yielded: AtomicBool,
}

/// Why the host ended a run that had done nothing wrong by itself yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Halt {
    #[error("stopped")]
    Stopped,
    #[error("out of time")]
    Timeout,
    #[error("out of CPU time")]
    Cpu,
    #[error("{0}")]
    Memory(NoMemory),
}

/// CPU time of a guest: the thread's clock around each poll of its future. Ticks of the epoch would count what
/// neighbours used as well.
pub(crate) struct CpuMeter {
    limit: Duration,
    /// Nanoseconds of the polls that are over.
    spent: AtomicU64,
    /// The thread's clock when the present poll began.
    began: AtomicU64,
}

impl CpuMeter {
    pub(crate) fn new(limit: Duration) -> CpuMeter {
        CpuMeter { limit, spent: AtomicU64::new(0), began: AtomicU64::new(0) }
    }

    /// A poll begins on this thread.
    pub(crate) fn begin(&self) {
        self.began.store(thread_cpu(), Ordering::Relaxed);
    }

    /// The poll that began on this thread is over.
    pub(crate) fn end(&self) {
        self.spent.fetch_add(self.running(), Ordering::Relaxed);
    }

    /// Nanoseconds since this poll began; only meaningful on the thread of the poll.
    fn running(&self) -> u64 {
        thread_cpu().saturating_sub(self.began.load(Ordering::Relaxed))
    }

    /// Between polls: what was used, and whether that is too much.
    pub(crate) fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent.load(Ordering::Relaxed))
    }

    pub(crate) fn is_spent(&self) -> bool {
        Defence::Cpu.stands() && self.spent() > self.limit
    }

    /// Within a poll, on its thread.
    fn is_spent_by_now(&self) -> bool {
        Defence::Cpu.stands() && self.spent() + Duration::from_nanos(self.running()) > self.limit
    }
}

/// The CPU time of this thread, in nanoseconds.
fn thread_cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

impl Shared {
    /// Whether the host has a reason to end the run now, asked from within the guest.
    fn halted(&self) -> Option<Halt> {
        if self.is_stopped() {
            Some(Halt::Stopped)
        } else if self.cpu.is_spent_by_now() {
            Some(Halt::Cpu)
        } else if self.is_over() {
            Some(Halt::Timeout)
        } else {
            None
        }
    }

    /// Somebody ended the task.
    pub(crate) fn is_stopped(&self) -> bool {
        Defence::Stop.stands() && self.stop.is_cancelled()
    }

    /// Whether the poll that is over ended because the guest yielded. Asked once after each.
    pub(crate) fn has_yielded(&self) -> bool {
        self.yielded.swap(false, Ordering::Relaxed)
    }

    /// Its time is over.
    pub(crate) fn is_over(&self) -> bool {
        Defence::WallClock.stands() && Instant::now() >= self.end
    }
}

/// What the host keeps for one guest while it runs.
pub(crate) struct State {
    wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    pub(crate) http: WasiHttpCtx,
    pub(crate) web: Web,
    pub(crate) access: Access,
    pub(crate) allowance: Allowance,
    pub(crate) counts: Counts,
    pub(crate) llm_tokens: u64,
    pub(crate) meter: Meter,
    pub(crate) context: Context,
    pub(crate) shared: Arc<Shared>,
    pub(crate) host_calls: u64,
    /// Bytes that handles keep alive, at most: what was dropped is still counted until the next look.
    pub(crate) held: u64,
}

impl State {
    /// A host call begins.
    pub(crate) fn called(&mut self) -> &mut State {
        self.host_calls += 1;
        self
    }

    /// A call without a grant: recorded, and said in the log, once for each target. The sentence for the guest.
    pub(crate) fn refused(&mut self, capability: &'static str, operation: &str, target: &str, words: String) -> String {
        let words = visible(&words, REFUSAL_BYTES);
        if Calls::denied(&self.allowance.calls, capability, operation, target) {
            self.remark(words.clone());
        }
        words
    }

    /// The host's own line in the attempt's log.
    pub(crate) fn remark(&self, words: String) {
        lock(&self.shared.log).remark(words);
    }

    /// The epoch ended while the guest was running: is there a reason to end it? Otherwise it lets others run, so that
    /// timers and the stop token are looked at as well.
    fn tick(&self) -> wasmtime::Result<UpdateDeadline> {
        match self.shared.halted() {
            Some(halt) => Err(halt.into()),
            None if Defence::Yield.stands() => {
                self.shared.yielded.store(true, Ordering::Relaxed);
                Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
            }
            None => Ok(UpdateDeadline::Continue(1)),
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.host_calls += 1;
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// How many calls of each kind a run has made.
pub(crate) struct Counts {
    pub(crate) llm_requests: Count,
    pub(crate) tool_calls: Count,
    pub(crate) store_calls: Count,
}

impl Counts {
    fn new(limits: &Limits) -> Counts {
        Counts {
            llm_requests: Count::new(Defence::LlmRequests, limits.llm_requests),
            tool_calls: Count::new(Defence::ToolCalls, limits.tool_calls),
            store_calls: Count::new(Defence::StoreCalls, limits.store_calls),
        }
    }
}

/// What the engine lets one host call bring in, results included.
pub(crate) fn hostcall_fuel(limits: &Limits) -> usize {
    let fuel = limits.hostcall_bytes.max(limits.output_bytes).saturating_add(HOSTCALL_MARGIN);
    usize::try_from(fuel).unwrap_or(usize::MAX)
}

/// A store for one run, with every limit set.
pub(crate) fn store(
    engine: &Engine,
    limits: &Limits,
    memory: Option<Arc<Reservation>>,
    context: Context,
    access: Access,
    allowance: Allowance,
    shared: Arc<Shared>,
) -> wasmtime::Result<Store<State>> {
    let mut wasi = WasiCtx::builder();
    // Everything else is already inert in a new builder: no arguments, no environment, standard input at its end, no
    // folders. What the network's defaults are has changed between releases, so it is said.
    wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
    if !Defence::Network.stands() {
        wasi.inherit_network().allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true);
    }
    if Defence::Random.stands() {
        wasi.max_random_size(limits.random_bytes);
    }
    match Defence::OwnStreams.stands() {
        true => wasi
            .stdout(Output { shared: shared.clone(), stream: Stream::Stdout })
            .stderr(Output { shared: shared.clone(), stream: Stream::Stderr }),
        false => wasi.inherit_stdout().inherit_stderr(),
    };
    for (name, folder) in &access.folders {
        // Opened beneath a handle (cap-std): neither `..` nor a link leads out of it.
        let perms = if Defence::FolderReadOnly.stands() { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
        wasi.preopened_dir(folder, format!("/{name}"), perms)
            .map_err(|error| error.context(format!("open the folder {name} at {}", folder.display())))?;
    }
    let mut table = ResourceTable::new();
    if Defence::Handles.stands() {
        table.set_max_capacity(limits.handles as usize);
    }
    let mut http = WasiHttpCtx::new();
    http.set_field_size_limit(FIELD_BYTES);
    let state = State {
        wasi: wasi.build(),
        table,
        http,
        web: Web::new(access.http.clone(), limits, allowance.clone(), shared.clone()),
        access,
        allowance,
        counts: Counts::new(limits),
        llm_tokens: limits.llm_tokens,
        meter: Meter::new(limits, memory),
        context,
        shared,
        host_calls: 0,
        held: 0,
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.meter);
    store.set_hostcall_fuel(match Defence::Hostcall.stands() {
        true => hostcall_fuel(limits),
        false => usize::MAX,
    });
    if Defence::GuestHandles.stands() {
        store.set_max_component_handles(limits.handles as usize);
    }
    store.epoch_deadline_callback(|store| store.data().tick());
    store.set_epoch_deadline(1);
    Ok(store)
}
