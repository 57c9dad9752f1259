//! What a guest may return, made up by the thousand. See `host/tests/fuzz` for how such targets are run.

use std::time::Duration;

use bolero::{Driver, ValueGenerator};

use super::*;
use crate::capability::bindings::agentry::plugin::types::{InvalidInput, Permanent, Retry, Snooze};

fn while_testing() -> Duration {
    match std::env::var_os("AGENTRY_TEST_FULL") {
        Some(_) => Duration::from_secs(20),
        None => Duration::from_secs(1),
    }
}

fn one_of<'a, D: Driver>(driver: &mut D, choices: &[&'a str]) -> Option<&'a str> {
    Some(choices[(0..choices.len()).generate(driver)?])
}

/// A text, and what it is: how deep it is nested if it is JSON.
#[derive(Debug)]
struct Returned {
    text: String,
    json: Option<usize>,
}

struct Output;

impl ValueGenerator for Output {
    type Output = Returned;

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<Returned> {
        let leaves = [
            "1",
            "-0.0e-999",
            "1e999",
            "\"]]]\\\"[[[{\"",
            "\"\\\\\"",
            "\"\\ud800\"",
            "null",
            "\"\u{7f}\u{202e}🙂\"",
            "true",
        ];
        let mut text = one_of(driver, &leaves)?.to_owned();
        let levels = match (0..4u8).generate(driver)? {
            0 => (120..140usize).generate(driver)?,
            1 => (0..2_000usize).generate(driver)?,
            _ => (0..6usize).generate(driver)?,
        };
        let (mut depth, mut before, mut after) = (0, String::new(), Vec::new());
        // From the outside to the inside.
        for level in 0..levels {
            let (open, close, within) = match (0..3u8).generate(driver)? {
                0 => ("[", "]", 1),
                1 => ("{\"}{[\" :", "}", 1),
                _ => ("[ [ ],", ", {} ]", 2),
            };
            before.push_str(open);
            after.push(close);
            depth = depth.max(level + within);
        }
        after.reverse();
        text = format!("{before}{text}{}", after.concat());
        let mut json = Some(depth);
        match (0..6u8).generate(driver)? {
            0 => {
                let at = text.floor_char_boundary((0..text.len() + 1).generate(driver)?);
                // Mostly no JSON any more; whether it still is, its reader says.
                text.insert_str(at, one_of(driver, &["[", "]", "\"", "\\", ",", "}", "\u{1b}", "\0", " "])?);
                json = None;
            }
            1 => text = format!("\u{feff}{text}"),
            2 => text = format!("\r\n\t {text} "),
            _ => {}
        }
        if text.starts_with('\u{feff}') {
            json = None;
        }
        Some(Returned { text, json })
    }
}

#[test]
fn any_output_is_given_on_as_it_is_or_is_a_fault_that_can_be_shown() {
    bolero::check!().with_test_time(while_testing()).with_generator(Output).for_each(|returned| {
        let limits = Limits { output_bytes: 8_192, ..Limits::default() };
        let text = &returned.text;
        match (from_output(text.clone(), &limits), returned.json) {
            (Outcome::Output(same), depth) => {
                assert_eq!(&same, text);
                assert!(serde_json::from_str::<&serde_json::value::RawValue>(&same).is_ok(), "{same:?}");
                assert!(
                    same.len() as u64 <= limits.output_bytes && depth.is_none_or(|depth| depth <= DEPTH),
                    "{depth:?}"
                );
            }
            (Outcome::Fault(fault), json) => {
                let too_large = text.len() as u64 > limits.output_bytes;
                assert_eq!(fault.kind == FaultKind::OutputTooLarge, too_large, "{fault:?}");
                assert!(too_large || json.is_none_or(|depth| depth > DEPTH), "{fault:?} for {text:?}");
                assert!(fault.message.len() <= 256 && !fault.message.chars().any(char::is_control), "{fault:?}");
            }
            (other, _) => panic!("{other:?}"),
        }
    });
}

/// What a guest says of its failure.
struct Said;

impl ValueGenerator for Said {
    type Output = (u8, String, Option<String>, Option<String>, u32);

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<Self::Output> {
        let text = |driver: &mut D| -> Option<String> {
            let piece = one_of(
                driver,
                &["", "a", "rate_limited", "/a/0", "{\"a\":1}", "\u{1b}", "é", "🙂", "[", "\"\0\"", "A b"],
            )?;
            Some(piece.repeat([1, 1, 1, 2, 65, 70_000][(0..6usize).generate(driver)?]))
        };
        let perhaps =
            |driver: &mut D| if (0..2u8).generate(driver)? == 0 { Some(None) } else { text(driver).map(Some) };
        Some((
            (0..4u8).generate(driver)?,
            text(driver)?,
            perhaps(driver)?,
            perhaps(driver)?,
            (0..=u32::MAX).generate(driver)?,
        ))
    }
}

#[test]
fn any_failure_that_a_guest_names_is_cut_to_what_may_be_stored() {
    bolero::check!().with_test_time(while_testing()).with_generator(Said).for_each(|said| {
        let (kind, message, code, details, after_ms) = said.clone();
        let failure = match kind {
            0 => Failure::Retry(Retry { message, code, details, after_ms: Some(after_ms) }),
            1 => Failure::Permanent(Permanent { message, code, details }),
            2 => Failure::InvalidInput(InvalidInput { message, pointer: code }),
            _ => Failure::Snooze(Snooze { message, after_ms }),
        };
        let mut log = Log::new(&Limits::default(), None);
        let (message, code, data, pointer) = match from_failure(failure, &mut log) {
            Outcome::Retry { message, code, data, after } => {
                assert_eq!(after, Some(Duration::from_millis(after_ms.into())));
                (message, code, data, None)
            }
            Outcome::Permanent { message, code, data } => (message, code, data, None),
            Outcome::InvalidInput { message, pointer } => (message, None, None, pointer),
            Outcome::Snooze { message, after } => {
                assert!(after >= SNOOZE);
                (message, None, None, None)
            }
            other => panic!("{other:?}"),
        };
        assert!(message.len() <= MESSAGE_BYTES && said.1.starts_with(&message));
        let is_code = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c);
        assert!(code.is_none_or(|code| (1..=64).contains(&code.len()) && code.chars().all(is_code)));
        assert!(data.is_none_or(|d| d.len() <= 64 << 10 && serde_json::from_str::<serde_json::Value>(&d).is_ok()));
        assert!(pointer.is_none_or(|p| p.len() <= 1 << 10 && (p.is_empty() || p.starts_with('/'))));
    });
}
