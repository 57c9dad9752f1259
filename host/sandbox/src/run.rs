//! One run: a fresh store, the guest within its limits, and how it ended.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wasmtime::Store;

use crate::access::Access;
use crate::bodies::Bodies;
use crate::budget::Reservation;
use crate::calls::{Call, Calls};
use crate::capability::allowance::Allowance;
use crate::capability::bindings::agentry::plugin::types::{Failure, Task};
use crate::capability::context::Context;
use crate::failure::{Evidence, Fault};
use crate::instance::{self, CpuMeter, Halt, Shared, State};
use crate::limits::Limits;
use crate::outcome::{self, Outcome};
use crate::plugin::{Loaded, Plugin};
use crate::streams::{Log, LogLine, LogSink, lock};
use crate::turns::Turn;
use crate::watch::{Broken, Holds, contained, watched};

/// One attempt at one task.
pub struct Invocation {
    /// The task's id.
    pub task_id: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The last attempt there will be.
    pub max_attempts: u32,
    /// The input, JSON as it was submitted.
    pub input: Arc<str>,
    /// The name under which the component is installed.
    pub plugin_name: Arc<str>,
    /// The version under which it is installed.
    pub plugin_version: Arc<str>,
    /// The task's labels, in any order.
    pub labels: Vec<(String, String)>,
    /// What the run may use; cut to the sandbox's ceilings.
    pub limits: Limits,
    /// Its part of the budget of all guests. Linear memory within it is free, more is drawn from what is free of the
    /// budget, and where nothing is the run ends as [`Outcome::NoMemory`]. It is let go of after the store is dropped.
    /// `None`: there is no such budget.
    pub memory: Option<Arc<Reservation>>,
    /// Its turn to compute, which has begun. It is free for others while the guest waits in a host call. `None`: guests that
    /// compute are not counted.
    pub turn: Option<Arc<Turn>>,
    /// The task's deadline: the nearer of this and `limits.timeout` ends the run.
    pub deadline: Option<Instant>,
    /// When cancelled, the guest is stopped where it is.
    pub stop: CancellationToken,
    /// Hears log lines as they arrive.
    pub on_log: Option<LogSink>,
    /// What it may reach outside.
    pub access: Access,
    /// Which bodies of its calls are kept.
    pub bodies: Bodies,
}

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
    /// What it logged, in order.
    pub logs: Vec<LogLine>,
    /// What it called, in order: the first thousand calls of capabilities.
    pub calls: Vec<Call>,
    /// What it was refused for want of a grant: `capability target`, each once.
    pub denied: Vec<String>,
    /// The first allowance that it had used up, in words.
    pub used_up: Option<String>,
}

/// What a run used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Instantiation and call; not the wait for a slot.
    pub wall: Duration,
    /// Instantiation alone.
    pub instantiate: Duration,
    /// CPU time of the guest and of the host functions that it called.
    pub cpu: Duration,
    /// The most linear memory at once, in bytes, summed over all memories.
    pub peak_memory: u64,
    /// Bytes of log that were kept.
    pub log_bytes: u64,
    /// Calls out of the guest.
    pub host_calls: u64,
    /// Calls of capabilities, those included that are not kept.
    pub calls: u64,
    /// Tokens of language models.
    pub llm_tokens: u64,
}

/// Farther away than any run lasts, and near enough to be added to any instant.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A run's place in the pool. Declared before the store of the run, it is given back after it.
struct Place<'a> {
    _slot: SemaphorePermit<'a>,
    _memories: SemaphorePermit<'a>,
}

impl Plugin {
    /// Runs the component once, in a fresh instance. Never panics and never fails: every ending is in the answer. A full
    /// pool makes it wait. Dropping the future stops the guest.
    ///
    /// To be called within a tokio runtime whose timers are enabled.
    pub async fn run(&self, invocation: Invocation) -> Ran {
        let asked = Instant::now();
        let plugin: &Loaded = &self.inner;
        let limits = invocation.limits.within(&plugin.sandbox.config.ceilings);

        let place = match place(plugin, &invocation).await {
            Ok(place) => place,
            Err(Halt::Stopped) => return unstarted(Outcome::Stopped),
            Err(_) => {
                let waited = asked.elapsed();
                return unstarted(Outcome::Fault(Fault::timeout(waited, waited, true)));
            }
        };

        // Until the store is dropped, whichever way this future ends: its destructors may compute as well.
        let _ticking = plugin.sandbox.ticker.guest();
        // Outlives the store, whichever way this future ends: what is given back is free indeed.
        let holds = Holds { memory: invocation.memory, turn: invocation.turn };
        let began = Instant::now();
        let own_end = began.checked_add(limits.timeout.min(FAR)).unwrap_or(began);
        let end = invocation.deadline.map_or(own_end, |deadline| deadline.min(own_end));
        let allowed = end.saturating_duration_since(began);
        let shared = Arc::new(Shared {
            log: Mutex::new(Log::new(&limits, invocation.on_log)),
            stop: invocation.stop,
            end,
            cpu: CpuMeter::new(limits.cpu),
            yielded: AtomicBool::new(false),
        });
        let mut labels = invocation.labels;
        labels.sort();
        let context =
            Context { plugin_name: invocation.plugin_name, plugin_version: invocation.plugin_version, labels };
        let calls = Calls::keeping(invocation.bodies);
        let allowance = Allowance::new(calls.clone(), invocation.access.budgets.clone());
        let engine = &plugin.sandbox.engine;
        let store = instance::store(
            engine,
            &limits,
            holds.memory.clone(),
            context,
            invocation.access,
            allowance,
            shared.clone(),
        );
        let mut store = match store {
            Ok(store) => store,
            Err(error) => return unstarted(Outcome::Fault(Fault::internal(format!("failed to {error:#}")))),
        };
        let task = Task {
            id: &invocation.task_id,
            attempt: invocation.attempt,
            max_attempts: invocation.max_attempts,
            input: &invocation.input,
        };

        let mut usage = Usage::default();
        let ended = {
            let mut body = Box::pin(call(plugin, &mut store, task, began, &mut usage.instantiate));
            let ended = watched(&shared, &holds, body.as_mut()).await;
            // A guest that waits in a host call is unwound here.
            match (contained(|| drop(body)), ended) {
                (Ok(()), ended) => ended,
                (Err(panic), Ok(_)) => Err(Broken::Panicked(panic)),
                (Err(_), ended) => ended,
            }
        };
        usage.wall = began.elapsed();
        usage.cpu = shared.cpu.spent();
        usage.peak_memory = store.data().meter.peak_memory;
        usage.host_calls = store.data().host_calls;
        // Before the store lets go of what is under way.
        let under_way = lock(&calls).unfinished();
        let refused = store.data().meter.refused;
        let dropped = contained(|| drop(store));
        drop((place, holds));

        let ended = match (dropped, ended) {
            (Err(panic), Ok(_)) => Err(Broken::Panicked(panic)),
            (_, ended) => ended,
        };
        let mut calls = lock(&calls);
        let mut log = lock(&shared.log);
        let outcome = match ended {
            Ok(Ok(Ok(output))) => outcome::from_output(output, &limits),
            Ok(Ok(Err(failure))) => outcome::from_failure(failure, &mut log),
            Ok(Err(error)) => match error.downcast_ref::<Halt>() {
                Some(halt) => halted(*halt, &usage, &limits, allowed, own_end > end, under_way),
                None => Outcome::Fault(Fault::from_error(
                    &error,
                    Evidence {
                        limits: &limits,
                        refused,
                        fuel: instance::hostcall_fuel(&limits),
                        stderr_tail: log.stderr_tail(),
                    },
                )),
            },
            Err(Broken::Halted(halt)) => halted(halt, &usage, &limits, allowed, own_end > end, under_way),
            Err(Broken::Panicked(panic)) => {
                tracing::error!(task = %invocation.task_id, plugin = %self.digest(), %panic, "the sandbox panicked");
                Outcome::Fault(Fault::internal(format!("the sandbox panicked: {panic}")))
            }
        };
        let (logs, log_bytes) = log.finish();
        usage.log_bytes = log_bytes;
        let (denied, used_up) = (calls.refusals(), calls.used_up().map(str::to_owned));
        usage.llm_tokens = calls.llm_tokens;
        let (calls, all) = calls.finish();
        usage.calls = all;
        Ran { outcome, usage, logs, calls, denied, used_up }
    }
}

/// Instantiates and calls. Apart from `store`, so that what the store knows outlives a body that is broken off.
async fn call(
    plugin: &Loaded,
    store: &mut Store<State>,
    task: Task<'_>,
    began: Instant,
    instantiate: &mut Duration,
) -> wasmtime::Result<Result<String, Failure>> {
    let guest = plugin.pre.instantiate_async(&mut *store).await;
    *instantiate = began.elapsed();
    guest?.agentry_plugin_handler().call_handle(store, task).await
}

/// Waits for a place in the pool, but not longer than the task may.
async fn place<'a>(plugin: &'a Loaded, invocation: &Invocation) -> Result<Place<'a>, Halt> {
    let sandbox = &plugin.sandbox;
    let memories = plugin.memories;
    if let Ok(slot) = sandbox.slots.try_acquire()
        && let Ok(memories) = sandbox.memories.try_acquire_many(memories)
    {
        return Ok(Place { _slot: slot, _memories: memories });
    }
    let waiting = async {
        // The semaphores are never closed; were they, ending as stopped would be right.
        let slot = sandbox.slots.acquire().await.map_err(|_| Halt::Stopped)?;
        let memories = sandbox.memories.acquire_many(memories).await.map_err(|_| Halt::Stopped)?;
        Ok(Place { _slot: slot, _memories: memories })
    };
    let deadline = invocation.deadline.unwrap_or_else(|| Instant::now() + FAR);
    tokio::select! {
        biased;
        () = invocation.stop.cancelled() => Err(Halt::Stopped),
        () = tokio::time::sleep_until(deadline) => Err(Halt::Timeout),
        place = waiting => place,
    }
}

/// `under_way` is the call of a capability that had not come back, if there was one.
fn halted(
    halt: Halt,
    usage: &Usage,
    limits: &Limits,
    allowed: Duration,
    by_deadline: bool,
    under_way: Option<String>,
) -> Outcome {
    match halt {
        Halt::Stopped => Outcome::Stopped,
        Halt::Cpu => Outcome::Fault(Fault::cpu(usage.cpu, limits.cpu)),
        Halt::Timeout => Outcome::Fault(Fault::timeout(usage.wall, allowed, by_deadline).with_call(under_way)),
        Halt::Memory(none) => Outcome::NoMemory(none),
    }
}

fn unstarted(outcome: Outcome) -> Ran {
    Ran { outcome, usage: Usage::default(), logs: Vec::new(), calls: Vec::new(), denied: Vec::new(), used_up: None }
}
