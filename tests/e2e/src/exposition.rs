//! A strict reader of OpenMetrics text. A text that it accepts is what a scraper reads; anything else fails the test.

use std::collections::{BTreeMap, BTreeSet};

/// Labels of a sample.
pub type Labels = BTreeMap<String, String>;

/// What a text holds.
#[derive(Debug, Default)]
pub struct Exposition {
    /// Kinds of families.
    pub kinds: BTreeMap<String, String>,
    /// Values by sample and labels.
    pub samples: BTreeMap<(String, Labels), f64>,
}

impl Exposition {
    /// Reads a text.
    pub fn parse(text: &str) -> Exposition {
        let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
        let mut read = Exposition::default();
        let mut helped = BTreeSet::new();
        let mut family = String::new();
        for line in body.lines() {
            assert!(line == line.trim() && !line.is_empty(), "stray white space or an empty line: {line:?}");
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, words) = rest.split_once(' ').expect(line);
                assert!(!words.is_empty() && helped.insert(name.to_owned()), "{line}");
                name.clone_into(&mut family);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert_eq!(name, family, "TYPE follows HELP");
                assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
                assert!(read.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let (name, unit) = rest.split_once(' ').expect(line);
                assert!(name == family && name.ends_with(&format!("_{unit}")), "{line}");
            } else {
                assert!(!line.starts_with('#'), "{line}");
                let (name, labels, value) = sample(line);
                let end = name.strip_prefix(&*family).unwrap_or_else(|| panic!("{line} is not of {family}"));
                let ends: &[&str] = match read.kinds[&family].as_str() {
                    "counter" => &["_total"],
                    "gauge" => &[""],
                    "info" => &["_info"],
                    _ => &["_bucket", "_sum", "_count"],
                };
                assert!(ends.contains(&end), "{line} is of a {}", read.kinds[&family]);
                assert!(end != "_total" || value >= 0.0, "{line}");
                assert!(read.samples.insert((name, labels), value).is_none(), "the same series twice: {line}");
            }
        }
        read.check_histograms();
        read
    }

    fn check_histograms(&self) {
        for family in self.kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for ((name, labels), value) in &self.samples {
                if *name == format!("{family}_bucket") {
                    let mut labels = labels.clone();
                    let le = labels.remove("le").expect("le");
                    let bound = if le == "+Inf" { f64::INFINITY } else { le.parse().expect(&le) };
                    buckets.entry(labels).or_default().push((bound, *value));
                }
            }
            assert!(!buckets.is_empty(), "{family} has no buckets");
            for (labels, mut buckets) in buckets {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{family}{labels:?}: {buckets:?}");
                let (bound, all) = buckets[buckets.len() - 1];
                let count = self.samples[&(format!("{family}_count"), labels.clone())];
                assert!(bound.is_infinite() && all == count, "{family}{labels:?}: {all} and {count}");
                assert!(self.samples[&(format!("{family}_sum"), labels)] >= 0.0);
            }
        }
    }

    /// Sum of the samples of that name that have all of these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |of: &Labels| labels.iter().all(|(key, value)| of.get(*key).is_some_and(|word| word == value));
        self.samples.iter().filter(|((sample, of), _)| sample == name && fits(of)).map(|(_, value)| value).sum()
    }
}

/// `name{key="value",…} number`.
fn sample(line: &str) -> (String, Labels, f64) {
    let is_name = |text: &str| {
        !text.is_empty()
            && !text.starts_with(|c: char| c.is_ascii_digit())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let (head, value) = line.rsplit_once(' ').expect(line);
    let value: f64 = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
    let (name, inner) = match head.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}').expect(line)),
        None => (head, ""),
    };
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    let mut rest = inner;
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"").expect(line);
        assert!(is_name(key), "{line}");
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect(line) {
                (at, '"') => break at + 1,
                (_, '\\') => match chars.next().expect(line).1 {
                    'n' => value.push('\n'),
                    c @ ('"' | '\\') => value.push(c),
                    other => panic!("\\{other} in {line}"),
                },
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(key.to_owned(), value).is_none(), "{line}");
        rest = &after[end..];
        assert!(rest.is_empty() || rest.starts_with(',') && rest.len() > 1, "{line}");
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    (name.to_owned(), labels, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a A.\n# TYPE a counter\na_total{x=\"1,\\\"\"} 2\n# HELP h H.\n# TYPE h histogram\n\
                        h_sum 1.5\nh_count 2\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\n# EOF\n";

    #[test]
    fn a_text_is_read() {
        let read = Exposition::parse(GOOD);
        assert_eq!((read.sum("a_total", &[("x", "1,\"")]), read.sum("a_total", &[("x", "2")])), (2.0, 0.0));
    }

    #[test]
    fn what_is_wrong_is_found() {
        for (from, to) in [
            ("# EOF\n", ""),
            ("a_total", "a"),
            ("} 2\n", "} -2\n"),
            ("h_count 2", "h_count 3"),
            ("le=\"1.0\"} 1", "le=\"1.0\"} 5"),
            ("x=\"1", "x=1"),
            ("# TYPE a counter\n", ""),
            ("h_sum 1.5\n", "h_sum 1.5\nh_sum 1.5\n"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from:?} is in it");
            let parsed = std::panic::catch_unwind(|| Exposition::parse(&text));
            assert!(parsed.is_err(), "accepted: {text}");
        }
    }
}
