//! Attempts whose end was recorded, by plugin.

use super::spend::Spend;
use super::spread::{BYTES, Spread, TIMES};
use super::table::register;
use crate::task::settle::{Call, Usage};
use crate::task::{Event, FailureKind};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// Stands for every word that is not known.
pub const OTHER: &str = "other";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    plugin: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ending {
    plugin: String,
    /// The event's name.
    ended: &'static str,
    /// The failure's kind; empty where there is none.
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Called {
    plugin: String,
    capability: String,
    /// `ok`, or the stable word for why not.
    result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCapability {
    capability: String,
}

type Float = Counter<f64, AtomicU64>;
type Spreads<L> = Family<L, Spread, fn() -> Spread>;

/// The series of one plugin, found once for each attempt.
struct OfPlugin {
    /// By event and kind: [`place`].
    endings: Box<[OnceLock<Counter>]>,
    wall: Float,
    cpu: Float,
    log_bytes: Counter,
    host_calls: Counter,
    peak_memory: Spread,
    run: Spread,
}

/// Families of attempts.
pub(super) struct Ends {
    attempts: Family<Ending, Counter>,
    wall: Family<Of, Float>,
    cpu: Family<Of, Float>,
    log_bytes: Family<Of, Counter>,
    host_calls: Family<Of, Counter>,
    llm_tokens: Family<Of, Counter>,
    peak_memory: Spreads<Of>,
    run: Spreads<Of>,
    calls: Family<Called, Counter>,
    call_wall: Family<Called, Float>,
    call_time: Spreads<OfCapability>,
    plugins: RwLock<HashMap<Arc<str>, Arc<OfPlugin>>>,
    capabilities: Words,
    results: Words,
}

impl Ends {
    pub fn new(to: &mut Registry) -> Ends {
        let times: fn() -> Spread = || Spread::of_seconds(TIMES);
        let ends = Ends {
            attempts: Family::default(),
            wall: Family::default(),
            cpu: Family::default(),
            log_bytes: Family::default(),
            host_calls: Family::default(),
            llm_tokens: Family::default(),
            peak_memory: Family::new_with_constructor(|| Spread::of_numbers(BYTES)),
            run: Family::new_with_constructor(times),
            calls: Family::default(),
            call_wall: Family::default(),
            call_time: Family::new_with_constructor(times),
            plugins: RwLock::default(),
            capabilities: Words::new(16),
            results: Words::new(64),
        };
        register(to, "attempts", ends.attempts.clone());
        register(to, "wall", ends.wall.clone());
        register(to, "cpu", ends.cpu.clone());
        register(to, "log", ends.log_bytes.clone());
        register(to, "host_calls", ends.host_calls.clone());
        register(to, "llm_tokens", ends.llm_tokens.clone());
        register(to, "peak_memory", ends.peak_memory.clone());
        register(to, "run", ends.run.clone());
        register(to, "capability_calls", ends.calls.clone());
        register(to, "capability_wall", ends.call_wall.clone());
        register(to, "capability_call", ends.call_time.clone());
        ends
    }

    /// For an attempt without calls this takes one lock for reading, and allocates nothing once its plugin and its end were seen.
    pub fn count(&self, plugin: &str, event: Event, kind: Option<FailureKind>, usage: &Usage) {
        let of = self.plugin(plugin);
        let ending = of.endings[place(event, kind)].get_or_init(|| {
            let kind = kind.map_or("", FailureKind::as_str);
            self.attempts.get_or_create_owned(&Ending { plugin: plugin.to_owned(), ended: event.as_str(), kind })
        });
        ending.inc();
        of.wall.inc_by(usage.wall_us as f64 / 1e6);
        of.cpu.inc_by(usage.cpu_us as f64 / 1e6);
        of.log_bytes.inc_by(usage.log_bytes);
        of.host_calls.inc_by(usage.host_calls);
        of.peak_memory.observe(usage.peak_memory as f64);
        of.run.observe(usage.wall_us as f64 / 1e6);
        if usage.llm_tokens > 0 {
            self.llm_tokens.get_or_create(&Of { plugin: plugin.to_owned() }).inc_by(usage.llm_tokens);
        }
    }

    pub fn calls(&self, plugin: &str, calls: &[Call], group: Option<&str>, spend: &Spend) {
        for call in calls {
            let capability = self.capabilities.bounded(&call.capability);
            let result = self.results.bounded(&call.result);
            let seconds = call.duration_us as f64 / 1e6;
            self.call_time.get_or_create(&OfCapability { capability: capability.clone() }).observe(seconds);
            let called = Called { plugin: plugin.to_owned(), capability, result };
            self.calls.get_or_create(&called).inc();
            self.call_wall.get_or_create(&called).inc_by(seconds);
            if call.capability == "llm" {
                spend.count(plugin, call, group);
            }
        }
    }

    fn plugin(&self, name: &str) -> Arc<OfPlugin> {
        if let Some(of) = self.plugins.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return of.clone();
        }
        let label = Of { plugin: name.to_owned() };
        let made = || OfPlugin {
            endings: (0..=place(Event::ALL[Event::ALL.len() - 1], FailureKind::ALL.last().copied()))
                .map(|_| OnceLock::new())
                .collect(),
            wall: self.wall.get_or_create_owned(&label),
            cpu: self.cpu.get_or_create_owned(&label),
            log_bytes: self.log_bytes.get_or_create_owned(&label),
            host_calls: self.host_calls.get_or_create_owned(&label),
            peak_memory: self.peak_memory.get_or_create_owned(&label),
            run: self.run.get_or_create_owned(&label),
        };
        let mut plugins = self.plugins.write().unwrap_or_else(PoisonError::into_inner);
        plugins.entry(name.into()).or_insert_with(|| Arc::new(made())).clone()
    }
}

/// The place of an end among those of a plugin.
fn place(event: Event, kind: Option<FailureKind>) -> usize {
    let event = Event::ALL.iter().position(|one| *one == event).unwrap_or_default();
    let kind = kind.and_then(|kind| FailureKind::ALL.iter().position(|one| *one == kind));
    event * (FailureKind::ALL.len() + 1) + kind.map_or(0, |kind| kind + 1)
}

/// Words of the host that come by way of a guest's process. However many a hostile one makes up, so many become labels.
struct Words {
    seen: RwLock<BTreeSet<String>>,
    most: usize,
}

impl Words {
    fn new(most: usize) -> Words {
        Words { seen: RwLock::default(), most }
    }

    fn bounded(&self, word: &str) -> String {
        if self.seen.read().unwrap_or_else(PoisonError::into_inner).contains(word) {
            return word.to_owned();
        }
        let fits = (1..=32).contains(&word.len())
            && word.bytes().all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b));
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if fits && seen.len() < self.most {
            seen.insert(word.to_owned());
            return word.to_owned();
        }
        OTHER.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_a_place_of_its_own() {
        let kinds = || [None].into_iter().chain(FailureKind::ALL.map(Some));
        let places: BTreeSet<usize> =
            Event::ALL.into_iter().flat_map(|event| kinds().map(move |kind| place(event, kind))).collect();
        assert_eq!(places.len(), Event::ALL.len() * (FailureKind::ALL.len() + 1));
        assert_eq!(places.last(), Some(&(places.len() - 1)));
    }

    #[test]
    fn a_flood_of_words_makes_no_series() {
        let words = Words::new(3);
        assert_eq!(words.bounded("ok"), "ok");
        for word in ["", "Has Spaces", "\n", "a\"b", &"x".repeat(33)] {
            assert_eq!(words.bounded(word), OTHER);
        }
        let flood: BTreeSet<String> = (0..1_000).map(|n| words.bounded(&format!("w{n}"))).collect();
        assert_eq!(flood.len(), 3, "{flood:?}");
        assert_eq!(words.bounded("ok"), "ok");
    }
}
