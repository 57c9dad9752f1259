//! Deliveries, claims, batches, and what goes to the broker.

use super::ends::OTHER;
use super::spread::{BATCHES, Spread, TIMES};
use super::table::register;
use super::words::{Claim, Leg, Replied, Step};
use crate::broker::{Acknowledged, PublishError};
use crate::db::{RecordAnswer, SettleAnswer};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::exponential_buckets;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::time::Duration;

/// The upper bound of the first bucket of a leg, in seconds; each further one is 1.5 times as far, up to 14 s.
const LEAST_LEG: f64 = 0.000_05;
const LEG_BUCKETS: u16 = 32;

/// Reasons of dead letters. Their series are there from the beginning, since a counter that begins with 1 does not show its first increase.
pub const REASONS: [&str; 14] = [
    "too_large",
    "content_type",
    "content_encoding",
    "not_utf8",
    "not_json",
    "bad_message",
    "bad_plugin",
    "bad_input",
    "bad_options",
    "bad_id",
    "id_mismatch",
    "conflict",
    "unstorable",
    "returned",
];
const TARGETS: [&str; 4] = ["tasks", "returned", "dead", "reply"];
const CONFIRMS: [&str; 3] = ["confirmed", "unroutable", "unconfirmed"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDelivery {
    queue: String,
    source: &'static str,
    redelivered: &'static str,
}

/// One label; its name stands in the family.
macro_rules! labels {
    ($($name:ident $label:ident: $type:ty;)+) => {
        $(#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name {
            $label: $type,
        })+
    };
}

labels! {
    OfQueue queue: String;
    OfResult result: &'static str;
    OfLeg leg: &'static str;
    OfStep step: &'static str;
    OfDuty duty: &'static str;
    OfOutcome outcome: &'static str;
    OfBrake kind: &'static str;
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLetter {
    queue: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPublication {
    target: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfWaiting {
    queue: String,
    code: &'static str,
}

/// The series of one queue, found without a lock.
struct Queue {
    /// By whether the broker returned it, and whether it may have been delivered before.
    deliveries: [[Counter; 2]; 2],
    wait: Spread,
    task: Spread,
}

type Spreads<L> = Family<L, Spread, fn() -> Spread>;

/// Families of the path. Those of queues are complete from the beginning: which queues there are is a setting.
pub(super) struct Traffic {
    queues: BTreeMap<String, Queue>,
    others: Queue,
    claims: [Counter; Claim::ALL.len()],
    records: [Counter; 3],
    settlements: [Counter; 4],
    legs: [Spread; Leg::ALL.len()],
    batches: [Spread; Step::ALL.len()],
    letters: Family<OfLetter, Counter>,
    swept: Family<OfDuty, Counter>,
    replies: Family<OfOutcome, Counter>,
    brakes: Family<OfBrake, Gauge>,
    acknowledged: [Counter; 2],
    given_back: [Counter; 2],
    publications: Family<OfPublication, Counter>,
    publish: Spread,
    pub memory_interruptions: Counter,
    pub sample_failures: Counter,
    warnings: Family<OfWaiting, Counter>,
}

impl Traffic {
    pub fn new(to: &mut Registry, queues: &[String]) -> Traffic {
        let times: fn() -> Spread = || Spread::of_seconds(TIMES);
        let deliveries = Family::<OfDelivery, Counter>::default();
        let (wait, task): (Spreads<OfQueue>, Spreads<OfQueue>) =
            (Family::new_with_constructor(times), Family::new_with_constructor(times));
        let queue = |name: &str| Queue {
            deliveries: ["tasks", "returned"].map(|source| {
                ["no", "yes"].map(|redelivered| {
                    deliveries.get_or_create_owned(&OfDelivery { queue: name.to_owned(), source, redelivered })
                })
            }),
            wait: wait.get_or_create_owned(&OfQueue { queue: name.to_owned() }),
            task: task.get_or_create_owned(&OfQueue { queue: name.to_owned() }),
        };
        let results = |name: &'static str, to: &mut Registry| {
            let family = Family::<OfResult, Counter>::default();
            register(to, name, family.clone());
            move |result: &'static str| family.get_or_create_owned(&OfResult { result })
        };
        let legs: Spreads<OfLeg> =
            Family::new_with_constructor(|| Spread::of_seconds(exponential_buckets(LEAST_LEG, 1.5, LEG_BUCKETS)));
        let batches: Spreads<OfStep> = Family::new_with_constructor(|| Spread::of_numbers(BATCHES));
        let traffic = Traffic {
            queues: queues.iter().map(|name| (name.clone(), queue(name))).collect(),
            others: queue(OTHER),
            claims: Claim::ALL.map(Claim::as_str).map(results("claims", to)),
            records: ["recorded", "exists", "refused"].map(results("records", to)),
            settlements: ["settled", "fenced", "refused", "unwritten"].map(results("settlements", to)),
            legs: Leg::ALL.map(|leg| legs.get_or_create_owned(&OfLeg { leg: leg.as_str() })),
            batches: Step::ALL.map(|step| batches.get_or_create_owned(&OfStep { step: step.as_str() })),
            letters: Family::default(),
            swept: Family::default(),
            replies: Family::default(),
            brakes: Family::default(),
            acknowledged: ["sent", "stale"].map(results("acknowledgements", to)),
            given_back: ["sent", "stale"].map(results("given_back", to)),
            publications: Family::default(),
            publish: times(),
            memory_interruptions: Counter::default(),
            sample_failures: Counter::default(),
            warnings: Family::default(),
        };
        for (queue, reason) in queues.iter().flat_map(|queue| REASONS.map(|reason| (queue, reason))) {
            drop(traffic.letters.get_or_create(&OfLetter { queue: queue.clone(), reason: reason.to_owned() }));
        }
        for (target, result) in TARGETS.into_iter().flat_map(|target| CONFIRMS.map(|result| (target, result))) {
            drop(traffic.publications.get_or_create(&OfPublication { target, result }));
        }
        register(to, "deliveries", deliveries);
        register(to, "queue_wait", wait);
        register(to, "task", task);
        register(to, "task_leg", legs);
        register(to, "batch_size", batches);
        register(to, "dead_letters", traffic.letters.clone());
        register(to, "swept", traffic.swept.clone());
        register(to, "replies", traffic.replies.clone());
        register(to, "brakes", traffic.brakes.clone());
        register(to, "publications", traffic.publications.clone());
        register(to, "publish", traffic.publish.clone());
        register(to, "memory_interruptions", traffic.memory_interruptions.clone());
        register(to, "sample_failures", traffic.sample_failures.clone());
        register(to, "waiting_warnings", traffic.warnings.clone());
        traffic
    }

    fn queue(&self, name: &str) -> &Queue {
        self.queues.get(name).unwrap_or(&self.others)
    }

    pub fn knows(&self, queue: &str) -> bool {
        self.queues.contains_key(queue)
    }

    fn name<'n>(&self, queue: &'n str) -> &'n str {
        if self.knows(queue) { queue } else { OTHER }
    }

    pub fn delivery(&self, queue: &str, returned: bool, redelivered: bool) {
        self.queue(queue).deliveries[usize::from(returned)][usize::from(redelivered)].inc();
    }

    pub fn waited(&self, queue: &str, time: Duration) {
        self.queue(queue).wait.took(time);
    }

    pub fn ended(&self, queue: &str, time: Duration) {
        self.queue(queue).task.took(time);
    }

    pub fn claim(&self, claim: Claim) {
        self.claims[claim as usize].inc();
    }

    pub fn record(&self, answer: &RecordAnswer) {
        let place = match answer {
            RecordAnswer::Recorded => 0,
            RecordAnswer::Exists => 1,
            RecordAnswer::Refused(_) => 2,
        };
        self.records[place].inc();
    }

    pub fn settlement(&self, answer: &SettleAnswer) {
        let place = match answer {
            SettleAnswer::Settled => 0,
            SettleAnswer::Fenced => 1,
            SettleAnswer::Refused => 2,
            SettleAnswer::Unwritten(_) => 3,
        };
        self.settlements[place].inc();
    }

    pub fn leg(&self, leg: Leg, took: Duration) {
        self.legs[leg as usize].took(took);
    }

    pub fn batch(&self, step: Step, size: usize) {
        self.batches[step as usize].observe(size as f64);
    }

    pub fn letter(&self, queue: &str, reason: &str) {
        // The reasons are words of the code.
        let of = OfLetter { queue: self.name(queue).to_owned(), reason: reason.to_owned() };
        self.letters.get_or_create(&of).inc();
    }

    pub fn swept(&self, duty: &'static str, tasks: u64) {
        if tasks > 0 {
            self.swept.get_or_create(&OfDuty { duty }).inc_by(tasks);
        }
    }

    pub fn brakes(&self, kind: &'static str, number: usize) {
        self.brakes.get_or_create(&OfBrake { kind }).set(number.try_into().unwrap_or(i64::MAX));
    }

    pub fn reply(&self, outcome: Replied) {
        let outcome = match outcome {
            Replied::Published => "published",
            Replied::Unroutable => "unroutable",
            Replied::Expired => "expired",
        };
        self.replies.get_or_create(&OfOutcome { outcome }).inc();
    }

    pub fn acknowledged(&self, answer: Acknowledged) {
        self.acknowledged[0].inc_by(answer.sent as u64);
        self.acknowledged[1].inc_by(answer.stale as u64);
    }

    pub fn given_back(&self, answer: Acknowledged) {
        self.given_back[0].inc_by(answer.sent as u64);
        self.given_back[1].inc_by(answer.stale as u64);
    }

    pub fn published<'a>(
        &self,
        took: Duration,
        answers: impl Iterator<Item = (&'static str, &'a Result<(), PublishError>)>,
    ) {
        self.publish.took(took);
        for (target, answer) in answers {
            let result = CONFIRMS[match answer {
                Ok(()) => 0,
                Err(PublishError::Unroutable(_)) => 1,
                Err(PublishError::Unconfirmed(_)) => 2,
            }];
            self.publications.get_or_create(&OfPublication { target, result }).inc();
        }
    }

    pub fn warned(&self, queue: &str, code: &'static str) {
        self.warnings.get_or_create(&OfWaiting { queue: queue.to_owned(), code }).inc();
    }
}
