//! The one engine of the process, and the pool that its guests live in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::cache::{Cache, CacheError};
use crate::capability;
use crate::compiler::Compiler;
use crate::failure::FRAMES;
use crate::instance::State;
use crate::limits::{Limits, MIB};
use crate::ticker::Ticker;

/// The deepest native stack of a guest: QuickJS overflows the engine's default of half of it within 900 frames.
const WASM_STACK_BYTES: usize = MIB as usize;
/// What host functions may use on top.
const HOST_STACK_BYTES: usize = MIB as usize;

/// Tables that a module may define (a guest of several languages linked together has three).
const TABLES_PER_MODULE: u32 = 3;
/// Tables of all modules of a component.
const TABLES_PER_COMPONENT: u32 = 8;

/// What stays mapped of a used slot, in bytes, where the kernel can tell which pages were touched: a part of what all slots may
/// keep after a time at which all were in use, and at most so much.
const KEEP_RESIDENT_BYTES: u64 = 16 * MIB;
const ALL_KEEP_RESIDENT_BYTES: u64 = 1_024 * MIB;
/// The least that is kept: what a small guest touches.
const LEAST_KEPT_BYTES: u64 = 128 << 10;

/// Slots that are not in use and still map the memory of the module that last ran in them, so that its next run need not map it
/// anew. Enough for some hundred plugins on each thread; what they keep is bounded by [`ALL_KEEP_RESIDENT_BYTES`].
const WARM_SLOTS: u32 = 1_024;

/// The address space of a 32-bit memory. Reserved whole, the processor checks every access, and compiled code need not.
const RESERVATION_BYTES: u64 = 1 << 32;
/// Unmapped space behind each memory, for accesses with a constant offset.
const GUARD_BYTES: u64 = 32 * MIB;
/// What memories may reserve together: half of what a process has with 47-bit addresses.
const ADDRESS_SPACE_BYTES: u64 = 1 << 46;

/// How a [`Sandbox`] is set up; fixed for its life.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// The folder for compiled code; `None`: everything is compiled at each start.
    pub cache_dir: Option<PathBuf>,
    /// The most instances alive at once. The pool's address space is reserved for that many.
    pub slots: u32,
    /// The most that any run may use. The pool is shaped from them: a component that needs more is refused at load.
    pub ceilings: Limits,
    /// Components compiled at once.
    pub compile_concurrency: u32,
    /// The largest component file, in bytes (`component_mib`).
    pub component_bytes: u64,
    /// How long the compiler may take for one component (`compile_seconds`).
    pub compile_timeout: Duration,
    /// The memory that it may take for one component, in bytes (`compile_memory_mib`).
    pub compile_memory: u64,
    /// Where components are compiled.
    pub compiler: Compiler,
    /// Frames of a trap tell their source lines, where the component carries them. Costs time and space with every component.
    pub source_lines: bool,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        SandboxConfig {
            cache_dir: None,
            slots: 64,
            ceilings: Limits::default(),
            compile_concurrency: 1,
            component_bytes: 32 * MIB,
            compile_timeout: Duration::from_secs(60),
            compile_memory: 1_024 * MIB,
            compiler: Compiler::Here,
            source_lines: false,
        }
    }
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A number out of range.
    #[error("set up the sandbox: {setting} = {value} is not within {least} to {most}")]
    Range {
        /// The setting.
        setting: &'static str,
        /// What it is.
        value: u64,
        /// The smallest allowed.
        least: u64,
        /// The largest allowed.
        most: u64,
    },
    /// The engine refused, mostly for want of address space.
    #[error(
        "set up the engine for {slots} slots of up to {memory_mib} MiB: {reason}; fewer slots need less address space (see `ulimit -v` and vm.max_map_count)"
    )]
    Engine {
        /// How many slots were asked for.
        slots: u32,
        /// The memory ceiling.
        memory_mib: u64,
        /// The engine's words.
        reason: String,
    },
    /// The folder for compiled code.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// No thread for the clock that interrupts guests.
    #[error("start the thread that interrupts guests: {0}")]
    Ticker(std::io::Error),
}

/// Runs components. Cheap to clone; one per process.
#[derive(Clone)]
pub struct Sandbox {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
    pub(crate) cache: Option<Cache>,
    pub(crate) config: SandboxConfig,
    /// One permit per memory of the pool; see [`Pool`].
    pub(crate) memories: Arc<Semaphore>,
    /// One permit per instance.
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) compilers: Arc<Semaphore>,
    /// Advances the epoch while guests are in memory.
    pub(crate) ticker: Ticker,
}

impl Sandbox {
    /// Sets up the engine, its pool, and the thread that interrupts guests.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn new(config: SandboxConfig) -> Result<Sandbox, EngineError> {
        let pool = Pool::shape(&config)?;
        let failed = |error: wasmtime::Error| EngineError::Engine {
            slots: config.slots,
            memory_mib: config.ceilings.memory_bytes / MIB,
            reason: format!("{error:#}"),
        };
        let engine = Engine::new(&engine_config(&pool, &config)).map_err(failed)?;
        let mut linker = Linker::new(&engine);
        capability::link(&mut linker).map_err(failed)?;
        let cache = match (&config.cache_dir, &config.compiler) {
            (Some(dir), _) => Some(Cache::open(dir, &engine)?),
            (None, Compiler::Child { .. }) => Some(Cache::passing(&engine)?),
            (None, Compiler::Here) => None,
        };
        let ticker = Ticker::start(engine.weak()).map_err(EngineError::Ticker)?;
        Ok(Sandbox {
            inner: Arc::new(Inner {
                memories: Arc::new(Semaphore::new(pool.memories as usize)),
                slots: Arc::new(Semaphore::new(config.slots as usize)),
                compilers: Arc::new(Semaphore::new(config.compile_concurrency as usize)),
                engine,
                linker,
                cache,
                config,
                ticker,
            }),
        })
    }
}

/// How many memories the pool holds. Each reserves 4 GiB of addresses, so past some 4,000 slots there cannot be the full
/// number for each; guests with several memories then wait for each other.
struct Pool {
    memories: u32,
    memory_bytes: u64,
}

impl Pool {
    fn shape(config: &SandboxConfig) -> Result<Pool, EngineError> {
        let range = |setting, value: u64, least, most| match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err(EngineError::Range { setting, value, least, most }),
        };
        let memory_bytes = config.ceilings.memory_bytes;
        range("memory_mib", memory_bytes.div_ceil(MIB), 1, RESERVATION_BYTES / MIB)?;
        range("memories", config.ceilings.memories.into(), 1, 100)?;
        range("instances", config.ceilings.instances.into(), 1, 10_000)?;
        range("table_elements", config.ceilings.table_elements, 1, 10_000_000)?;
        range("handles", config.ceilings.handles.into(), 1, 1_000_000)?;
        range("compile_concurrency", config.compile_concurrency.into(), 1, 1_000)?;
        let most = ADDRESS_SPACE_BYTES / (RESERVATION_BYTES + GUARD_BYTES);
        range("slots", config.slots.into(), 1, most - u64::from(config.ceilings.memories))?;
        let wanted = u64::from(config.slots) * u64::from(config.ceilings.memories);
        Ok(Pool {
            memories: u32::try_from(wanted.min(most)).unwrap_or(u32::MAX),
            memory_bytes: memory_bytes.next_multiple_of(64 << 10),
        })
    }
}

fn engine_config(pool: &Pool, config: &SandboxConfig) -> Config {
    let ceilings = &config.ceilings;
    let slots = config.slots;

    let mut pooling = PoolingAllocationConfig::new();
    pooling
        .max_unused_warm_slots(WARM_SLOTS)
        .total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(ceilings.instances))
        .total_memories(pool.memories)
        .total_tables(slots.saturating_mul(TABLES_PER_COMPONENT))
        .total_stacks(slots)
        .max_core_instances_per_component(ceilings.instances)
        .max_memories_per_component(ceilings.memories)
        .max_memories_per_module(ceilings.memories)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_tables_per_module(TABLES_PER_MODULE)
        .max_memory_size(usize::try_from(pool.memory_bytes).unwrap_or(usize::MAX))
        .table_elements(usize::try_from(ceilings.table_elements).unwrap_or(usize::MAX));
    // Only together: kept pages without the scan are cleared whether they were touched or not, which is slower than
    // giving them back.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pooling.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(kept(slots)).table_keep_resident(kept(slots));
    }

    let mut engine = compiler_config(config.source_lines);
    engine.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling));
    engine
}

/// Opens the file in which the system shows the pages of this process, which the engine keeps. A process of an ordinary user that is
/// no longer dumpable cannot open it, and then gives memory back after each run, which is slower. Calling it again has no effect.
pub fn open_pagemap() {
    let _ = PoolingAllocationConfig::is_pagemap_scan_available(); // asking opens it
}

/// What stays mapped of a slot that is not in use, in whole pages of the system.
fn kept(slots: u32) -> usize {
    let kept = (ALL_KEEP_RESIDENT_BYTES / u64::from(slots)).clamp(LEAST_KEPT_BYTES, KEEP_RESIDENT_BYTES);
    usize::try_from(kept & !0xffff).unwrap_or(0)
}

/// Everything that compiled code depends on, and so what a compiler in another process has to agree on.
pub(crate) fn compiler_config(source_lines: bool) -> Config {
    let mut engine = Config::new();
    engine
        .memory_reservation(RESERVATION_BYTES)
        .memory_guard_size(GUARD_BYTES)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(WASM_STACK_BYTES + HOST_STACK_BYTES)
        // No guest needs them, and each is code that hostile input can reach. Threads, shared memory, garbage
        // collection, exceptions and asynchronous components are not even compiled in (see `Cargo.toml`).
        .shared_memory(false)
        .wasm_memory64(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_relaxed_simd(false)
        .wasm_stack_switching(false)
        // An environment variable decides otherwise.
        .wasm_backtrace_details(match source_lines {
            true => WasmBacktraceDetails::Enable,
            false => WasmBacktraceDetails::Disable,
        })
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(FRAMES))
        // Both only serve debuggers, profilers and source lines, and take time and space with every component.
        .generate_address_map(source_lines)
        .native_unwind_info(false);
    engine
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(slots: u32, memories: u32) -> Result<u32, EngineError> {
        let ceilings = Limits { memories, ..Limits::default() };
        let config = SandboxConfig { slots, ceilings, ..SandboxConfig::default() };
        Pool::shape(&config).map(|pool| pool.memories)
    }

    #[test]
    fn the_pool_holds_every_memory_of_every_slot_while_addresses_last() {
        assert_eq!(shape(256, 4).unwrap(), 1_024);
        assert_eq!(shape(1_000, 4).unwrap(), 4_000);
        let many = shape(10_000, 4).unwrap();
        assert!((10_000..40_000).contains(&many), "{many}");
    }

    #[test]
    fn a_number_out_of_range_is_refused_by_the_settings_name() {
        let error = shape(0, 4).unwrap_err().to_string();
        assert!(error.contains("slots = 0"), "{error}");
        let error = shape(1_000_000, 4).unwrap_err().to_string();
        assert!(error.contains("slots = 1000000"), "{error}");
        let error = shape(1, 0).unwrap_err().to_string();
        assert!(error.contains("memories = 0"), "{error}");
    }

    #[test]
    fn an_engine_for_a_thousand_slots_fits_an_ordinary_machine() {
        let config = SandboxConfig { slots: 1_000, ..SandboxConfig::default() };
        Sandbox::new(config).unwrap();
    }

    #[test]
    fn a_pool_of_many_slots_keeps_less_of_each() {
        assert_eq!((kept(1), kept(64)), (16 << 20, 16 << 20));
        assert_eq!(kept(1_000), 1 << 20);
        assert_eq!(kept(10_000), 128 << 10);
    }

    #[test]
    fn the_ticking_thread_ends_with_its_engine() {
        let sandbox = Sandbox::new(SandboxConfig { slots: 1, ..SandboxConfig::default() }).unwrap();
        let weak = sandbox.inner.engine.weak();
        drop(sandbox);
        // Only the ticker's own short hold on it may remain.
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while weak.upgrade().is_some() {
            assert!(std::time::Instant::now() < deadline, "the engine is still alive");
            std::thread::yield_now();
        }
    }
}
