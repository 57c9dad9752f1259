//! Tables of words against the lists in the code.

use crate::page::{Page, code, quoted, sources};
use agentry::doctor::{CHECKS, Status};
use agentry::task::{Event, FailureKind, State, WaitCode, next, retry};
use std::collections::BTreeSet;

/// The words in backticks of the first column of a table.
fn documented(page: &Page, heading: &str) -> BTreeSet<String> {
    page.table(heading).iter().flat_map(|row| quoted(row[0])).map(str::to_owned).collect()
}

fn words<T: Copy>(all: &[T], text: fn(T) -> &'static str) -> BTreeSet<String> {
    all.iter().map(|one| text(*one).to_owned()).collect()
}

#[test]
fn every_event_state_and_wait_code_is_in_lifecycle_md() {
    let page = Page::of_docs("lifecycle.md");
    assert_eq!(documented(&page, "## Events"), words(&Event::ALL, Event::as_str));
    assert_eq!(documented(&page, "## States"), words(&State::ALL, State::as_str));
    assert_eq!(documented(&page, "## Waiting"), words(&WaitCode::ALL, WaitCode::as_str));
}

#[test]
fn every_failure_kind_is_in_failures_md_with_whether_it_is_retried() {
    let page = Page::of_docs("failures.md");
    assert_eq!(documented(&page, "## Kinds"), words(&FailureKind::ALL, FailureKind::as_str));
    for kind in FailureKind::ALL {
        let expected = if retry::retried_by_default(kind) { "yes" } else { "no" };
        let rows = page.table("## Kinds");
        let of_kind: Vec<_> = rows.iter().filter(|row| quoted(row[0]) == [kind.as_str()]).map(|row| row[1]).collect();
        // The plugin says itself which of its errors are retried.
        let allowed: &[&str] = if kind == FailureKind::PluginError { &["yes", "no"] } else { &[expected] };
        assert_eq!(of_kind, allowed, "{kind}");
    }
}

#[test]
fn the_transitions_of_lifecycle_md_are_those_of_the_code() {
    let mut text = String::from("| from | event | to |\n|---|---|---|\n");
    for from in [None].into_iter().chain(State::ALL.map(Some)) {
        for to in State::ALL {
            let events: Vec<String> =
                Event::ALL.into_iter().filter(|e| next(from, *e) == Ok(to)).map(|e| format!("`{e}`")).collect();
            if !events.is_empty() {
                let from = from.map_or("(none)".to_owned(), |from| format!("`{from}`"));
                text += &format!("| {from} | {} | `{to}` |\n", events.join(", "));
            }
        }
    }
    Page::of_docs("lifecycle.md").render("transitions", &text);
}

/// `METHOD PATH` of every `.route(PATH, METHOD(handler).METHOD(handler))` below `host/src/api`.
fn routes() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in sources("api") {
        let code = code(&path);
        for part in code.split(".route(").skip(1) {
            let (route, rest) = part
                .trim_start()
                .strip_prefix('"')
                .and_then(|p| p.split_once('"'))
                .unwrap_or_else(|| panic!("{}: a route whose path is not a literal: {part:.40}", path.display()));
            let mut depth = 1;
            let call = rest.split_inclusive(['(', ')']).take_while(|piece| {
                let open = depth > 0;
                depth += if piece.ends_with('(') { 1 } else { -1 };
                open
            });
            let methods: Vec<String> = call
                .filter_map(|piece| piece.strip_suffix('('))
                .map(|piece| piece.rsplit([' ', ',', '.', '\n']).next().unwrap_or_default().to_uppercase())
                .collect();
            let known = ["GET", "POST", "DELETE", "PUT", "PATCH"];
            assert!(
                !methods.is_empty() && methods.iter().all(|m| known.contains(&m.as_str())),
                "{}: unknown methods of {route}: {methods:?}",
                path.display()
            );
            found.extend(methods.iter().map(|method| format!("{method} {route}")));
        }
        assert!(!code.contains(".nest(") && !code.contains(".merge("), "{}: routes are not listed", path.display());
    }
    assert!(found.len() > 15, "the router was not found: {found:?}");
    found
}

#[test]
fn every_route_is_in_http_md() {
    assert_eq!(documented(&Page::of_docs("http.md"), "## Routes"), routes());
}

#[test]
fn every_check_and_status_is_in_doctor_md() {
    let page = Page::of_docs("doctor.md");
    let rows = page.table("## Checks");
    let checks: Vec<_> = rows.iter().flat_map(|row| quoted(row[0])).collect();
    assert_eq!(checks, CHECKS, "in the order of the output");
    let all = [Status::Ok, Status::Skipped, Status::Warning, Status::Failed];
    assert_eq!(documented(&page, "## Status"), words(&all, Status::as_str));
}

#[test]
fn the_glossary_is_sorted_and_has_each_word_once() {
    let page = Page::of_docs("words.md");
    let rows = page.table("# Words");
    let words: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    let mut sorted = words.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(words, sorted);
}
