//! `metrics.md`, rendered from the table that the endpoint takes its texts from.

use crate::page::{Page, quoted};
use agentry::metrics::REASONS;
use agentry::metrics::table::{Kind, ROWS};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

#[test]
fn metrics_md_is_rendered_from_the_families() {
    let mut text = String::from("| family | type | labels | unit | meaning | shows |\n|---|---|---|---|---|---|\n");
    for row in ROWS {
        let labels: Vec<String> = row.labels.iter().map(|label| format!("`{label}`")).collect();
        let name = row.sample();
        text += &format!(
            "| `{name}` | {} | {} | {} | {} | {} |\n",
            row.kind.as_str(),
            labels.join(", "),
            row.unit,
            row.help,
            row.shows
        );
    }
    Page::of_docs("metrics.md").render("metrics", &text);
}

/// Names of samples with their labels, as a query may name them.
fn samples() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut samples = BTreeMap::from([("up".to_owned(), BTreeSet::new())]);
    for row in ROWS {
        let mut labels: BTreeSet<&str> = row.labels.iter().copied().collect();
        if row.kind == Kind::Histogram {
            for end in ["sum", "count"] {
                samples.insert(format!("{}_{end}", row.sample()), labels.clone());
            }
            labels.insert("le");
            samples.insert(format!("{}_bucket", row.sample()), labels);
        } else {
            samples.insert(row.sample(), labels);
        }
    }
    samples
}

/// Labels that Prometheus adds to whatever it scrapes.
const ADDED: [&str; 2] = ["instance", "job"];

/// Names in a query that no sample has, and labels that none of its samples has.
fn faults(query: &str, samples: &BTreeMap<String, BTreeSet<&'static str>>) -> Vec<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // Values in quotes and ranges hold no names.
    let bare: String = query.split('"').step_by(2).collect::<Vec<_>>().join("");
    let mut plain = String::new();
    let mut depth = 0;
    for c in bare.chars() {
        depth += i32::from(c == '[') - i32::from(c == ']');
        if depth == 0 && c != ']' {
            plain.push(c);
        }
    }
    let mut names = BTreeSet::new();
    let mut labels: BTreeSet<String> = BTreeSet::new();
    let mut rest = plain.as_str();
    let mut before = String::new();
    while let Some(start) = rest.find(|c: char| is_word(c) || c == '{' || c == '(') {
        rest = &rest[start..];
        if let Some((inner, after)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            labels
                .extend(inner.split(',').filter_map(|pair| pair.split(['=', '!']).next()).map(|l| l.trim().to_owned()));
            rest = after;
        } else if rest.starts_with('(') {
            let grouped = ["by", "on", "without", "ignoring"].contains(&std::mem::take(&mut before).as_str());
            match rest[1..].split_once(')').filter(|_| grouped) {
                Some((inner, after)) => {
                    labels.extend(inner.split(',').map(|label| label.trim().to_owned()));
                    rest = after;
                }
                None => rest = &rest[1..],
            }
        } else {
            before = rest.chars().take_while(|c| is_word(*c)).collect();
            rest = &rest[before.len()..];
            let next = rest.trim_start();
            let is_function = ["(", "by ", "by(", "without ", "without("].iter().any(|begin| next.starts_with(begin))
                || ["and", "or", "unless", "by", "on"].contains(&&*before);
            if !is_function && !before.starts_with(|c: char| c.is_ascii_digit()) {
                names.insert(before.clone());
            }
        }
    }
    let known: BTreeSet<&str> = names.iter().filter_map(|name| samples.get(name)).flatten().copied().collect();
    let unknown = names.iter().filter(|name| !samples.contains_key(*name)).map(|name| format!("{name} in {query}"));
    let odd = labels.iter().filter(|label| !known.contains(label.as_str()) && !ADDED.contains(&label.as_str()));
    let mut faults: Vec<String> = unknown.chain(odd.map(|label| format!("label {label} in {query}"))).collect();
    if names.is_empty() {
        faults.push(format!("no metric in {query}"));
    }
    faults
}

fn monitoring(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every query of the dashboard.
fn dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&monitoring("grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// Every query of the rules; each stands on one line.
fn rules() -> Vec<String> {
    monitoring("rules.yaml").lines().filter_map(|line| Some(line.trim().strip_prefix("expr: ")?.to_owned())).collect()
}

#[test]
fn queries_of_dashboard_and_rules_name_samples_and_labels_that_there_are() {
    let samples = samples();
    let (dashboard, rules) = (dashboard(), rules());
    assert!(dashboard.len() > 40 && rules.len() > 15, "{} {}", dashboard.len(), rules.len());
    let faults: Vec<String> = dashboard.iter().chain(&rules).flat_map(|query| faults(query, &samples)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_mistaken_query_is_found() {
    let samples = samples();
    for (query, expected) in [
        ("sum by (plugin) (rate(agentry_attempts_total{ended=\"x, y\"}[5m]))", 0),
        ("agentry_readyy == 0", 1),
        ("sum by (queue) (agentry_attempts_total)", 1),
        ("agentry_slots{plugin=~\"a\"}", 1),
        ("rate(agentry_run_seconds_bucket{le=\"1\"}[5m]) and on (plugin) agentry_run_seconds_count{le=\"1\"}", 0),
        ("time() > 5", 1),
    ] {
        assert_eq!(faults(query, &samples).len(), expected, "{query}: {:?}", faults(query, &samples));
    }
}

#[test]
fn reasons_of_dead_letters_are_those_of_messages_md() {
    let page = Page::of_docs("messages.md");
    let documented: BTreeSet<String> = page
        .table("The property `user_id` is removed.")
        .iter()
        .flat_map(|row| quoted(row[0]))
        .map(str::to_owned)
        .collect();
    let missing: Vec<&str> = REASONS.into_iter().filter(|reason| !documented.contains(*reason)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
