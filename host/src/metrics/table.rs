//! Every metric family: name, kind, unit, labels, meaning, and the failure that it shows. The endpoint takes its texts from here, and
//! `host/docs/metrics.md` is rendered from it.

use prometheus_client::registry::{Metric, Registry, Unit};

/// Kind of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// A level at the time of the scrape.
    Gauge,
    /// Counts of observations below upper bounds, their number and their sum.
    Histogram,
    /// Always 1; its labels are the content.
    Info,
}

impl Kind {
    /// As it is written in the exposition.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        }
    }
}

/// A family.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Without prefix, unit and `_total`.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// `seconds`, `bytes`, or none.
    pub unit: &'static str,
    /// Its labels, in their order.
    pub labels: &'static [&'static str],
    /// Meaning: one clause, without a full stop.
    pub help: &'static str,
    /// The failure that it shows, for an operator.
    pub shows: &'static str,
}

impl Row {
    /// Name of the family as it is exposed.
    pub fn family(&self) -> String {
        // The names of a process are the same for every program.
        let prefix = if self.is_of_process() { "" } else { "agentry_" };
        let unit = if self.unit.is_empty() { String::new() } else { format!("_{}", self.unit) };
        format!("{prefix}{}{unit}", self.name)
    }

    /// Names of its samples; those of a histogram begin with the family's.
    pub fn sample(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.family()),
            Kind::Info => format!("{}_info", self.family()),
            Kind::Gauge | Kind::Histogram => self.family(),
        }
    }

    /// Whether it is one of those that every program has.
    pub fn is_of_process(&self) -> bool {
        self.name.starts_with("process_")
    }

    pub(super) fn unit(&self) -> Option<Unit> {
        match self.unit {
            "seconds" => Some(Unit::Seconds),
            "bytes" => Some(Unit::Bytes),
            _ => None,
        }
    }
}

/// The family of that name.
pub(super) fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

/// Registers a metric under the texts of its row. One without a row is a defect, which the test of the page finds.
pub(super) fn register(to: &mut Registry, name: &'static str, metric: impl Metric) {
    let (help, unit) = row(name).map_or(("", None), |row| (row.help, row.unit()));
    match unit {
        Some(unit) => to.register_with_unit(name, help, unit, metric),
        None => to.register(name, help, metric),
    }
}

macro_rules! rows {
    ($($name:literal $kind:ident $unit:literal [$($label:literal),*] $help:literal $shows:literal;)+) => {
        /// Every family, in the order of the page.
        pub const ROWS: &[Row] = &[$(Row {
            name: $name, kind: Kind::$kind, unit: $unit, labels: &[$($label),*], help: $help, shows: $shows,
        }),+];
    };
}

rows! {
    // The path of tasks.
    "deliveries" Counter "" ["queue", "source", "redelivered"] "Messages that the broker delivered, of tasks or returned by the broker"
        "no growth while messages are ready: this host takes nothing; `redelivered`: hosts die or give back";
    "queue_wait" Histogram "seconds" ["queue"] "Time from a task's creation until its first attempt, or the claim for it, begins"
        "too few hosts or slots for the load";
    "claims" Counter "" ["result"] "Claims of tasks, by what the database decided"
        "`duplicate`, `owned`: redeliveries; `parked`: tasks that no host here can run; `conflict`, `refused`: bad messages";
    "records" Counter "" ["result"] "First attempts that ran without a claim, by what the database decided"
        "`exists`: they go through the claim table as well; `refused`: rows that the database rejects";
    "settlements" Counter "" ["result"] "Recorded ends of claimed attempts, by what the database decided"
        "`fenced`: hosts that stood still past their lease; `refused`, `unwritten`: results that the database rejects";
    "attempts" Counter "" ["plugin", "ended", "kind"] "Attempts whose end was recorded, by how they ended and the failure's kind"
        "failing plugins, and why they fail";
    "run" Histogram "seconds" ["plugin"] "Time in instantiation and call of an attempt" "slow plugins";
    "task" Histogram "seconds" ["queue"] "Time from a task's creation, or its run_at, until its end is recorded"
        "the delay that producers see";
    "task_leg" Histogram "seconds" ["leg"] "Parts of a task's way through this host: wait, claim, run, settle, acknowledge"
        "the slow part: `claim` and `settle` are the database, `acknowledge` the broker";
    "batch_size" Histogram "" ["step"] "Tasks of one statement or one acknowledgement" "batches of 1 under load: the database is not the bottleneck";
    "swept" Counter "" ["duty"] "Tasks that a duty acted on: woken, rescued, ended or deleted"
        "`rescuer`: hosts that died; `undertaker`: plugins that no host serves";
    "dead_letters" Counter "" ["queue", "reason"] "Messages that were recorded as dead letters" "producers that publish what cannot be used";
    "replies" Counter "" ["outcome"] "Replies to producers: published, unroutable, expired" "producers that are gone before their reply";
    "brakes" Gauge "" ["kind"] "Brakes of operators that hold, by kind: queue, plugin, host" "tasks that wait because an operator wants it";
    // The broker.
    "acknowledgements" Counter "" ["result"] "Deliveries acknowledged: sent, or stale because their channel was gone"
        "`stale`: connections to the broker break";
    "given_back" Counter "" ["result"] "Deliveries given back to the broker, for other hosts: sent or stale"
        "more deliveries in hand than can begin; each counts against a delivery limit";
    "publications" Counter "" ["target", "result"] "Messages published: confirmed, unroutable, or unconfirmed (refused by the broker or not answered)"
        "full or missing queues, an alarm of the broker";
    "publish" Histogram "seconds" [] "Time from a publication until the broker has confirmed its batch" "a slow broker";
    "broker_up" Gauge "" [] "Whether the broker is connected: 1 or 0" "the broker is away";
    "queue_messages" Gauge "" ["queue", "source"] "Messages ready in the broker, of tasks, returned ones and dead letters, as of the last sample"
        "a backlog; `dead`: dead letters that nothing reads";
    "queue_consumers" Gauge "" ["queue"] "Consumers of a queue of tasks, as of the last sample" "0: nothing takes its tasks";
    // Waiting.
    "waiting_tasks" Gauge "" ["queue", "code"] "Due tasks with a row that wait, by what they wait for, as of the last sample; at most about 1,000 of one code are counted"
        "what tasks wait for";
    "waiting_oldest" Gauge "seconds" ["queue", "code"] "The longest wait among them" "a task that is stuck";
    "waiting_overdue_tasks" Gauge "" ["queue", "code"] "Those of them that wait longer than log.warn_pending_after_seconds" "tasks that are stuck";
    "waiting_warnings" Counter "" ["queue", "code"] "Warnings about them, logged by this host" "see the log for cause and remedy";
    "outbox_tasks" Gauge "" [] "Tasks that are still to be published, as of the last sample; counted up to 10,000" "the broker accepts nothing, or no relay runs";
    "relay_lag" Gauge "seconds" [] "How long the first of them has been due, as of the last sample" "the relay is behind, or the broker accepts nothing";
    "sample_timestamp" Gauge "seconds" [] "Unix time of the last sample of database and broker; 0: none yet" "old: the samples are stale, since the database does not answer";
    "sample_failures" Counter "" [] "Samples that failed" "the database does not answer reads";
    // Room.
    "slots" Gauge "" [] "Tasks that may be in memory at once" "";
    "slots_busy" Gauge "" [] "Slots that are taken, by tasks that run or wait for memory" "all of them: add hosts or slots";
    "turns" Gauge "" [] "Guests that may compute before another begins (worker.computing)" "";
    "guests" Gauge "" ["state"] "Guests in memory, by whether they compute or wait in a call" "`computing` at `agentry_turns`: processors are the bottleneck";
    "window_deliveries" Gauge "" [] "Deliveries that this host may have in hand" "small under load: deliveries wait here for long";
    "memory_budget" Gauge "bytes" [] "worker.memory_mib" "";
    "memory_reserved" Gauge "bytes" [] "Of it, what computing guests have reserved or drawn, and what waiting guests occupy" "all of it: tasks wait for memory";
    "memory_waiting" Gauge "" [] "Tasks that wait for memory, to begin or to go on" "worker.memory_mib is too small";
    "memory_interruptions" Counter "" [] "Attempts that were interrupted because worker.memory_mib had no more for them" "reservations that are too small";
    "peak_memory" Histogram "bytes" ["plugin"] "The most linear memory of an attempt" "plugins near their limit";
    // The host.
    "build" Info "" ["version"] "Build of this host" "hosts of different builds";
    "ready" Gauge "" [] "Whether this host takes tasks: 1 or 0" "the host is not ready";
    "readiness_reason" Gauge "" ["reason"] "1 for each reason of /readyz that holds" "why it is not ready, or what else is wrong";
    "database_connections" Gauge "" ["pool", "state"] "Connections to the database: open, in use, and the most that may be open" "`used` at `max`: raise database.pool";
    "database_waiting" Gauge "" ["pool"] "Operations that wait for a connection" "database.pool is too small, or the database slow";
    "lease_remaining" Gauge "seconds" [] "Time until the lease ends by this host's clocks; 0: it has ended" "near 0: the database does not answer";
    "lease_renewals" Counter "" ["result"] "Renewals of the lease: renewed, lapsed or failed" "`failed`, `lapsed`: others take over what runs here";
    "spool" Gauge "bytes" [] "Results in files of data.dir that wait for the database" "an outage of the database";
    "spool_files" Gauge "" [] "Files of the spool" "an outage of the database";
    "log_lines_dropped" Counter "" [] "Lines of this process's log that were dropped" "the reader of its standard error is too slow, or gone";
    // Plugins.
    "wall" Counter "seconds" ["plugin"] "Time in instantiation and call" "";
    "cpu" Counter "seconds" ["plugin"] "Processor time of guests and what they called" "plugins that compute much";
    "log" Counter "bytes" ["plugin"] "Log that was kept" "plugins that log much";
    "host_calls" Counter "" ["plugin"] "Calls out of guests" "";
    "capability_calls" Counter "" ["plugin", "capability", "result"] "Calls of capabilities, of each attempt the first thousand, by how they ended" "services outside that fail";
    "capability_wall" Counter "seconds" ["plugin", "capability", "result"] "Time in the same" "";
    "capability_call" Histogram "seconds" ["capability"] "Time of one such call" "services outside that are slow";
    "llm_tokens" Counter "" ["plugin"] "Tokens of language models, of requests and answers" "";
    "llm_model_tokens" Counter "" ["plugin", "model", "kind"] "Tokens by model: input, output, and of the input cached and cache_write" "spending by model, and the use of caches";
    "llm_cost" Counter "" ["plugin", "model", "group", "currency"] "Cost of the same by the prices of [llm.models.NAME]; `group`: the value of the label that metrics.label names" "spending, by team or customer";
    "llm_unpriced_calls" Counter "" ["model"] "Calls with tokens to models that have no price" "models without prices: llm_cost is too low";
    // The process, under the names that every program has.
    "process_cpu" Counter "seconds" [] "Processor time of this process, guests included" "";
    "process_resident_memory" Gauge "bytes" [] "Resident memory of this process" "a leak";
    "process_virtual_memory" Gauge "bytes" [] "Addresses of this process; each slot reserves several GiB" "";
    "process_open_fds" Gauge "" [] "Open files and sockets" "near `process_max_fds`: connections fail";
    "process_max_fds" Gauge "" [] "The most that may be open" "";
    "process_threads" Gauge "" [] "Threads of this process" "";
    "process_start_time" Gauge "seconds" [] "Unix time of the start of this process" "restarts";
}
