//! The legs of a task (wait, claim, run, settle, acknowledge) and the counts of ended tasks, from two reads of `/metrics`.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// The histogram with one label `leg`.
const LEGS: &str = "agentry_task_leg_seconds";
/// The counter of ended attempts.
const ATTEMPTS: &str = "agentry_attempts_total";
/// Legs in the order in which a task passes them; others follow by name.
const ORDER: [&str; 5] = ["wait", "claim", "run", "settle", "acknowledge"];

/// One histogram: cumulative counts by upper bound in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leg {
    sum: f64,
    count: u64,
    buckets: Vec<(f64, u64)>,
}

/// A bound in seconds of a value that only a histogram knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// The value is at most this.
    AtMost(f64),
    /// The value exceeds the last bound of the histogram.
    Above(f64),
}

impl fmt::Display for Bound {
    /// In milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtMost(seconds) => write!(f, "≤ {:.2}", seconds * 1e3),
            Bound::Above(seconds) => write!(f, "> {:.2}", seconds * 1e3),
        }
    }
}

/// One read of `/metrics`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    /// Attempts that ended their tasks, by plugin.
    ended: BTreeMap<String, u64>,
    legs: BTreeMap<String, Leg>,
}

impl Scrape {
    /// Reads the text format. Lines about anything else are skipped.
    pub fn parse(text: &str) -> Scrape {
        let mut scrape = Scrape::default();
        for (name, labels, value) in text.lines().filter_map(sample) {
            let label = |key: &str| labels.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
            if name == ATTEMPTS && matches!(label("ended"), Some("completed" | "failed" | "cancelled")) {
                *scrape.ended.entry(label("plugin").unwrap_or_default().to_owned()).or_default() += value as u64;
            }
            let (Some(part), Some(leg)) = (name.strip_prefix(LEGS), label("leg")) else { continue };
            let leg = scrape.legs.entry(leg.to_owned()).or_default();
            match (part, label("le").and_then(bound)) {
                ("_sum", _) => leg.sum += value,
                ("_count", _) => leg.count += value as u64,
                ("_bucket", Some(upper)) => match leg.buckets.iter_mut().find(|(bound, _)| *bound == upper) {
                    Some((_, count)) => *count += value as u64,
                    None => leg.buckets.push((upper, value as u64)),
                },
                _ => {}
            }
        }
        scrape.legs.values_mut().for_each(|leg| leg.buckets.sort_by(|a, b| a.0.total_cmp(&b.0)));
        scrape
    }

    /// Tasks of a plugin that ended.
    pub fn ended(&self, plugin: &str) -> u64 {
        self.ended.get(plugin).copied().unwrap_or_default()
    }

    /// What happened between an earlier read and this one. A leg without observations is left out.
    pub fn since(&self, before: &Scrape) -> BTreeMap<String, Leg> {
        let mut legs = BTreeMap::new();
        for (name, now) in &self.legs {
            let old = before.legs.get(name).cloned().unwrap_or_default();
            // Counts are cumulative, so a bound that the earlier read lacks has the count of the one below it.
            let less =
                |upper: f64| old.buckets.iter().rev().find(|(bound, _)| *bound <= upper).map_or(0, |(_, count)| *count);
            let leg = Leg {
                sum: now.sum - old.sum,
                count: now.count.saturating_sub(old.count),
                buckets: now
                    .buckets
                    .iter()
                    .map(|(upper, count)| (*upper, count.saturating_sub(less(*upper))))
                    .collect(),
            };
            if leg.count > 0 {
                legs.insert(name.clone(), leg);
            }
        }
        legs
    }
}

impl Leg {
    /// What is known of a percentile: the bounds of the bucket that holds the rank.
    pub fn percentile(&self, share: f64) -> Option<Bound> {
        let rank = (share * self.count as f64).ceil().max(1.0);
        let mut lower = 0.0;
        for (upper, count) in &self.buckets {
            if *count as f64 >= rank {
                return Some(if upper.is_finite() { Bound::AtMost(*upper) } else { Bound::Above(lower) });
            }
            lower = *upper;
        }
        None
    }

    /// Observations: also those of other tasks that this daemon ran meanwhile.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The arithmetic mean in seconds.
    pub fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
}

/// Legs in the order in which a task passes them.
pub fn ordered(legs: &BTreeMap<String, Leg>) -> Vec<(&str, &Leg)> {
    let place = |name: &str| ORDER.iter().position(|leg| *leg == name).unwrap_or(ORDER.len());
    let mut all: Vec<(&str, &Leg)> = legs.iter().map(|(name, leg)| (name.as_str(), leg)).collect();
    all.sort_by_key(|(name, _)| place(name));
    all
}

/// Legs for JSON, in milliseconds. A percentile is an upper bound (`le`), or above the last bound of the histogram (`gt`);
/// `p50_ms` and `p99_ms` are the bound without its kind.
pub fn json_of(legs: &BTreeMap<String, Leg>) -> Value {
    let ms = |seconds: f64| (seconds * 1e6).round() / 1e3;
    let one = |leg: &Leg| {
        let mut figures = Map::from_iter([
            ("count".to_owned(), json!(leg.count)),
            ("mean_ms".to_owned(), json!(ms(leg.mean()))),
            ("percentiles".to_owned(), json!("bounds of histogram buckets")),
        ]);
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let (kind, bound) = match leg.percentile(share) {
                Some(Bound::AtMost(seconds)) => ("le", Some(ms(seconds))),
                Some(Bound::Above(seconds)) => ("gt", Some(ms(seconds))),
                None => ("le", None),
            };
            figures.insert(format!("{name}_ms"), json!(bound));
            figures.insert(format!("{name}_{kind}_ms"), json!(bound));
        }
        Value::Object(figures)
    };
    Value::Object(ordered(legs).into_iter().map(|(name, leg)| (name.to_owned(), one(leg))).collect::<Map<_, _>>())
}

fn bound(text: &str) -> Option<f64> {
    if text == "+Inf" { Some(f64::INFINITY) } else { text.parse().ok() }
}

/// Name, labels and value of a line.
type Sample<'a> = (&'a str, Vec<(String, String)>, f64);

/// `name{key="value",…} number`: the parts; `None` for comments.
fn sample(line: &str) -> Option<Sample<'_>> {
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let mut labels = Vec::new();
    let rest = match rest.strip_prefix('{') {
        None => rest,
        Some(mut inside) => loop {
            if let Some(rest) = inside.strip_prefix('}') {
                break rest;
            }
            let (key, after) = inside.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((key.trim_start_matches(',').to_owned(), value));
            inside = after;
        },
    };
    Some((name, labels, rest.split_whitespace().next()?.parse().ok()?))
}

/// The text up to the closing quotation mark, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"# TYPE agentry_attempts counter
agentry_attempts_total{plugin="a\"}b",ended="completed",kind=""} 3
agentry_attempts_total{plugin="p",ended="completed",kind=""} 10
agentry_task_leg_seconds_sum{leg="run"} 1.0
agentry_task_leg_seconds_count{leg="run"} 10
agentry_task_leg_seconds_bucket{le="0.1",leg="run"} 10
agentry_task_leg_seconds_bucket{le="+Inf",leg="run"} 10
"#;
    const AFTER: &str = r#"agentry_attempts_total{plugin="p",ended="completed",kind=""} 13
agentry_attempts_total{plugin="p",ended="failed",kind="trap"} 2
agentry_attempts_total{plugin="p",ended="retrying",kind="trap"} 7
agentry_slots 4
agentry_task_leg_seconds_sum{leg="run"} 1.5
agentry_task_leg_seconds_count{leg="run"} 14
agentry_task_leg_seconds_bucket{leg="run",le="0.1"} 12
agentry_task_leg_seconds_bucket{leg="run",le="0.2"} 14
agentry_task_leg_seconds_bucket{leg="run",le="+Inf"} 14
agentry_task_leg_seconds_count{leg="wait"} 1
agentry_task_leg_seconds_bucket{leg="wait",le="0.1"} 0
agentry_task_leg_seconds_bucket{leg="wait",le="+Inf"} 1
# EOF
"#;

    #[test]
    fn only_attempts_that_end_a_task_are_counted() {
        let (before, after) = (Scrape::parse(BEFORE), Scrape::parse(AFTER));
        assert_eq!((before.ended("p"), after.ended("p"), before.ended("a\"}b"), after.ended("q")), (10, 15, 3, 0));
    }

    #[test]
    fn a_leg_is_the_difference_of_two_reads() {
        let legs = Scrape::parse(AFTER).since(&Scrape::parse(BEFORE));
        let run = &legs["run"];
        assert_eq!((run.count, run.mean()), (4, 0.125));
        assert_eq!(run.percentile(0.5), Some(Bound::AtMost(0.1)));
        assert_eq!(run.percentile(0.75), Some(Bound::AtMost(0.2)));
        assert_eq!(legs["wait"].percentile(0.5), Some(Bound::Above(0.1)), "beyond the last bound");
        let shown = [run.percentile(0.5), legs["wait"].percentile(0.5)].map(|bound| bound.unwrap().to_string());
        assert_eq!(shown, ["≤ 100.00", "> 100.00"]);
        let order: Vec<_> = ordered(&legs).into_iter().map(|(name, _)| name).collect();
        assert_eq!(order, ["wait", "run"]);
        let json = json_of(&legs);
        assert_eq!((&json["run"]["mean_ms"], &json["run"]["p99_le_ms"]), (&json!(125.0), &json!(200.0)));
        assert_eq!((&json["wait"]["p99_gt_ms"], &json["wait"]["p99_le_ms"]), (&json!(100.0), &Value::Null));
    }

    #[test]
    fn a_daemon_without_the_histogram_has_no_legs() {
        assert!(Scrape::parse("agentry_slots 4\n").since(&Scrape::default()).is_empty());
        assert_eq!(Scrape::parse("<html>{\"x\n\u{0}}{=\"\"} 1"), Scrape::default());
    }
}
