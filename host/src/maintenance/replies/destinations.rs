//! Which replies are published together. One that its queue does not confirm delays, or ends the channel of, whatever is published with
//! it, so that each queue has its own publication, and a queue that failed gets one reply at a time after a rest.

use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Beginning of the names of RabbitMQ's direct reply-to. There are no queues behind them, and nothing waits for a confirm.
const DIRECT: &str = "amq.rabbitmq.reply-to.";
/// The first rest of a queue that did not confirm, and the longest.
const REST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(600);
/// Queues that are remembered at most. Producers name them.
const MOST: usize = 10_000;

/// Queues that did not confirm, with the end of their rest and its length.
#[derive(Default)]
pub(super) struct Destinations(HashMap<String, (Instant, Duration)>);

/// Plan for the replies of a round.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Indices of replies, published one list after the other.
    pub publications: Vec<Vec<usize>>,
    /// Indices of those that wait.
    pub later: Vec<usize>,
    /// Indices of those whose destination cannot exist.
    pub nowhere: Vec<usize>,
}

impl Destinations {
    /// Groups the replies to these names. `chance`: a number from 0 to below 1.
    pub fn plan(&mut self, names: &[&str], now: Instant, chance: f64) -> Plan {
        let mut plan = Plan::default();
        let mut of_queue: HashMap<&str, usize> = HashMap::new();
        let mut direct = Vec::new();
        let mut candidates: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            if let Some(address) = name.strip_prefix(DIRECT) {
                match is_direct(address) {
                    true => direct.push(index),
                    false => plan.nowhere.push(index),
                }
                continue;
            }
            match self.0.get(*name) {
                Some((until, _)) if *until > now => plan.later.push(index),
                Some(_) => candidates.entry(name).or_default().push(index),
                None => {
                    let group = *of_queue.entry(name).or_insert_with(|| {
                        plan.publications.push(Vec::new());
                        plan.publications.len() - 1
                    });
                    plan.publications[group].push(index);
                }
            }
        }
        if !direct.is_empty() {
            // One that ends the channel is found alone the next time.
            match self.0.contains_key(DIRECT) {
                true => plan.publications.extend(direct.into_iter().map(|index| vec![index])),
                false => plan.publications.push(direct),
            }
        }
        for indices in candidates.into_values() {
            // Not always the same: one that can never be accepted would hold up the others.
            let picked = ((indices.len() as f64 * chance) as usize).min(indices.len() - 1);
            plan.publications.push(vec![indices[picked]]);
            plan.later.extend(indices.iter().enumerate().filter(|(n, _)| *n != picked).map(|(_, index)| *index));
        }
        plan
    }

    /// Records the outcome of a publication to a name.
    pub fn answered(&mut self, name: &str, confirmed: bool, now: Instant) {
        let key = if name.starts_with(DIRECT) { DIRECT } else { name };
        if confirmed {
            self.0.remove(key);
            return;
        }
        if self.0.len() >= MOST && !self.0.contains_key(key) {
            self.0.clear();
        }
        let rest = self.0.get(key).map_or(REST, |(_, rest)| (*rest * 2).min(LONGEST));
        self.0.insert(key.to_owned(), (now + rest, rest));
    }
}

/// Whether the rest of a direct reply-to name has RabbitMQ's form: two texts in base64 with a dot between them. Some versions end the
/// channel at another.
fn is_direct(address: &str) -> bool {
    let is_base64 = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_'))
    };
    address.split_once('.').is_some_and(|(node, key)| is_base64(node) && is_base64(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA=.YXk/+==";

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_does_not_confirm_rests_and_holds_up_no_other() {
        let (mut destinations, now) = (Destinations::default(), Instant::now());
        let plan = destinations.plan(&["a", "b", "a", A, "amq.rabbitmq.reply-to.x", A], now, 0.0);
        let expected = Plan { publications: vec![vec![0, 2], vec![1], vec![3, 5]], later: vec![], nowhere: vec![4] };
        assert_eq!(plan, expected);
        destinations.answered("a", false, now);
        destinations.answered("b", true, now);
        destinations.answered(A, false, now);
        let plan = destinations.plan(&["a", "b", "a", A, A], now, 0.9);
        let expected = Plan { publications: vec![vec![1], vec![3], vec![4]], later: vec![0, 2], nowhere: vec![] };
        assert_eq!(plan, expected, "direct ones go on, each alone");
        for (chance, first, later) in [(0.0, 0, 1), (0.99, 1, 0)] {
            let plan = destinations.plan(&["a", "a"], now + REST, chance);
            assert_eq!((plan.publications, plan.later), (vec![vec![first]], vec![later]));
        }
        destinations.answered("a", false, now + REST);
        assert_eq!(destinations.plan(&["a"], now + REST * 2, 0.0).later, [0], "the second rest is longer");
        destinations.answered("a", true, now);
        assert_eq!(destinations.plan(&["a", "a"], now, 0.0).publications, [[0, 1]]);
    }

    #[test]
    fn as_many_queues_as_producers_name_take_no_more_memory_than_is_bounded() {
        let (mut destinations, now) = (Destinations::default(), Instant::now());
        for n in 0..MOST * 2 + 5 {
            destinations.answered(&n.to_string(), false, now);
        }
        assert!(destinations.0.len() <= MOST);
    }
}
