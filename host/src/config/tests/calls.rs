//! What is recorded of calls, as an operator writes it.

use super::*;

#[test]
fn nothing_is_recorded_unless_the_operator_says_so() {
    let settings = Setup::new("").settings();
    assert!(settings.calls.bodies().is_empty());
    assert_eq!((settings.calls.body_kib, settings.calls.attempt_kib), (Some(64), Some(1_024)));
    assert!(settings.recorded_bodies().is_empty());
    assert!(!settings.startup_lines().iter().any(|line| line.starts_with("bodies")), "{:?}", settings.startup_lines());
}

#[test]
fn what_is_recorded_is_said_at_the_start_with_its_place() {
    let setup = Setup::new(
        "[calls]\nbodies = ['llm', 'tools']\nbody_kib = 8\n[plugins.\"fetch-*\"]\ncalls.bodies = ['http']\n\
         calls.attempt_kib = 16\n[plugins.quiet]\ncalls.bodies = []\n[plugins.other]\ncalls.body_kib = 4\n",
    );
    let settings = setup.settings();
    let file = setup.path("agentry.toml");
    let expected = [
        format!("bodies    of calls of \"quiet\": none ({file}:8)"),
        format!("bodies    of calls of \"fetch-*\": http, at most 8 KiB of one and 16 KiB of an attempt ({file}:5)"),
        format!(
            "bodies    of calls of every plugin: llm, tools, at most 8 KiB of one and 1024 KiB of an attempt ({file}:2)"
        ),
    ];
    assert_eq!(settings.recorded_bodies(), expected);
    for line in &expected {
        assert!(settings.startup_lines().contains(line), "{line}");
    }
    let one = Setup::new("[plugins.loud]\ncalls.bodies = ['llm']").settings();
    let told = one.recorded_bodies();
    assert!(told.len() == 1 && told[0].contains("calls of \"loud\": llm, at most 64 KiB"), "{told:?}");
}

#[test]
fn the_environment_says_it_for_every_plugin() {
    let settings = Setup::new("").env("AGENTRY_CALLS_BODIES", "http,llm").env("AGENTRY_CALLS_BODY_KIB", "1").settings();
    assert_eq!(
        (settings.calls.bodies(), settings.calls.body_kib),
        (&["http".to_owned(), "llm".to_owned()][..], Some(1))
    );
}

#[test]
fn what_cannot_be_is_refused_with_key_place_and_what_is_allowed() {
    for (toml, parts) in [
        ("[calls]\nbodies = ['htp']", &["calls.bodies", ":2", "\"htp\" is unknown; known are llm, tools, http"][..]),
        ("[calls]\nbodies = ['keyvalue']", &["calls.bodies", "known are llm, tools, http"]),
        ("[calls]\nbodies = true", &["calls.bodies", "it takes a list"]),
        ("[calls]\nbodys = ['llm']", &["unknown setting calls.bodys; did you mean calls.bodies?"]),
        ("[calls]\nbody_kib = 0", &["calls.body_kib", "it takes a whole number from 1 to 1024"]),
        ("[calls]\nattempt_kib = 16385", &["calls.attempt_kib", "it takes a whole number from 1 to 16384"]),
        (
            "[calls]\nattempt_kib = 63",
            &["calls.body_kib", "body_kib (64) is more than attempt_kib (63)", "lower it, or raise that"],
        ),
        (
            "[plugins.a]\ncalls.bodies = ['log']",
            &["calls.bodies in [plugins.\"a\"]", ":2", "\"log\" is unknown; known are llm, tools, http"],
        ),
        (
            "[plugins.a]\ncalls.bodies = 'llm'",
            &["calls.bodies in [plugins.\"a\"]", "it takes a list of llm, tools, http"],
        ),
        ("[plugins.a]\ncalls.body = 1", &["calls.body in [plugins.\"a\"]", "known are bodies, body_kib, attempt_kib"]),
        ("[plugins.a]\ncalls.body_kib = 2000", &["calls.body_kib in [plugins.\"a\"]", "from 1 to 1024"]),
        (
            "[plugins.a]\ncalls.attempt_kib = 8",
            &["calls.attempt_kib in [plugins.\"a\"]", "body_kib (64) is more than attempt_kib (8)"],
        ),
    ] {
        let problem = Setup::new(toml).problem();
        assert!(parts.iter().all(|part| problem.contains(part)), "{toml:?}: {problem}");
    }
}
