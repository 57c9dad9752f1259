//! Tables of words against the lists in the code.

use crate::page::{Page, code, quoted, sources};
use agentry::doctor::{CHECKS, Status};
use agentry::task::{Event, FailureKind, State, WaitCode, next, retry};
use std::collections::{BTreeMap, BTreeSet};

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

/// The document of the API, which is made of its router.
fn document() -> serde_json::Value {
    serde_json::from_str(agentry::api::document()).unwrap()
}

/// `METHOD PATH` of every route, with the name of its operation. The router is made of the same list; see `host/src/api/mod.rs`.
fn routes() -> BTreeMap<String, String> {
    for path in sources("api") {
        let code = code(&path);
        let aside = [".route(", ".nest(", ".merge(", ".route_service("].iter().find(|call| code.contains(**call));
        assert!(aside.is_none(), "{}: {aside:?} adds routes that the document does not have", path.display());
    }
    let document = document();
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap().to_owned();
            found.insert(format!("{} {path}", method.to_uppercase()), name);
        }
    }
    assert!(found.len() > 15, "the router was not found: {found:?}");
    found
}

#[test]
fn every_route_is_in_http_md() {
    let page = Page::of_docs("http.md");
    let rows = page.table("## Routes");
    let listed: BTreeMap<String, String> =
        rows.iter().map(|row| (quoted(row[0])[0].to_owned(), quoted(row[2])[0].to_owned())).collect();
    assert_eq!(listed, routes());
}

#[test]
fn every_code_of_a_problem_has_its_status_in_http_md_and_in_the_document() {
    let page = Page::of_docs("http.md");
    let mut listed = BTreeMap::new();
    for row in page.table("## Problems").iter() {
        listed.extend(quoted(row[0]).into_iter().map(|code| (code.to_owned(), row[1].parse::<u64>().unwrap())));
    }
    let document = document();
    let mut documented = BTreeMap::new();
    for operation in document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values())
    {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let codes = &response["content"]["application/problem+json"]["schema"]["properties"]["code"]["enum"];
            for code in codes.as_array().into_iter().flatten() {
                documented.insert(code.as_str().unwrap().to_owned(), status.parse::<u64>().unwrap());
            }
        }
    }
    // A path that takes no such method has no operation that could say so.
    documented.insert("method_not_allowed".into(), 405);
    assert_eq!(listed, documented);
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
