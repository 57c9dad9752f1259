//! Components that are nearly right: valid ones taken apart into their sections, bent, and put together again with every length
//! set right, since random bytes never get past the header.
//!
//! A test of a few seconds, longer under `cargo xtask test --full`, and coverage-guided with `cargo bolero`, as the targets in
//! `host/tests/fuzz` are.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use agentry_sandbox::{FaultKind, Grants, Limits, LoadError, Outcome, Plugin, Sandbox, SandboxConfig};
use bolero::{Driver, ValueGenerator};

use crate::guest::{CONTEXT, ECHO, Guest, LOGGING, RANDOM, SLEEP, STREAMS, handle, returns};
use crate::house::{PATIENCE, invocation};
use crate::sections::{Part, parts, whole};

/// The longest text of a refusal, in bytes.
const REFUSAL_BYTES: usize = 4_096;

fn while_testing() -> Duration {
    match std::env::var_os("AGENTRY_TEST_FULL") {
        Some(_) => Duration::from_secs(20),
        None => Duration::from_secs(4),
    }
}

/// What everything here is made of.
fn seeds() -> &'static [Vec<u8>] {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let trailing = "(core module $e) (core instance (instantiate $e)) (component $c) (instance (instantiate $c))";
        let spins = handle("(loop $l (br $l)) unreachable");
        let starts = Guest { core: "(func $s) (start $s) (table 9 funcref) (elem (i32.const 0) $s)".into(), ..spins };
        let guests = [
            Guest::default(),
            returns("{\"a\":[1,2]}"),
            starts,
            handle("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable"),
            handle(ECHO).with(CONTEXT).with(LOGGING),
            handle(ECHO).with(SLEEP).with(RANDOM).with(STREAMS),
            Guest { tail: trailing.into(), ..Guest::default() },
        ];
        guests.iter().map(|guest| guest.build().to_vec()).collect()
    })
}

/// One sandbox, and a guest in it that must not notice the others.
fn honest() -> &'static (tokio::runtime::Runtime, Sandbox, Plugin) {
    static HONEST: OnceLock<(tokio::runtime::Runtime, Sandbox, Plugin)> = OnceLock::new();
    HONEST.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = SandboxConfig { slots: 4, compile_timeout: PATIENCE, ..SandboxConfig::default() };
        let sandbox = Sandbox::new(config).unwrap();
        let plugin = runtime.block_on(sandbox.load(Guest::default().build(), &Grants::default())).unwrap();
        (runtime, sandbox, plugin)
    })
}

fn below<D: Driver>(driver: &mut D, end: usize) -> Option<usize> {
    (0..end.max(1)).generate(driver)
}

/// Bytes that a failure prints as a literal, to be pasted into a test.
struct File(Vec<u8>);

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

struct Nearly;

impl ValueGenerator for Nearly {
    type Output = File;

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<File> {
        let seeds = seeds();
        let seed = &seeds[below(driver, seeds.len())?];
        let other = parts(&seeds[below(driver, seeds.len())?]).unwrap();
        let mut tree = parts(seed).unwrap();
        for _ in 0..below(driver, 4)? {
            bend(driver, &mut tree, &other)?;
        }
        let mut file = whole(&tree);
        // Then as a bad disk would.
        match below(driver, 12)? {
            0 => file.truncate(below(driver, file.len())?),
            1 => spoil(driver, &mut file)?,
            _ => {}
        }
        Some(File(file))
    }
}

/// Change one thing, in this component or in a module or component within it.
fn bend<D: Driver>(driver: &mut D, sections: &mut Vec<Part>, other: &[Part]) -> Option<()> {
    let at = below(driver, sections.len())?;
    match (below(driver, 9)?, sections.get_mut(at)) {
        (0..=3, Some(Part::Nested(_, _, inner))) => return bend(driver, inner, other),
        (0..=3, Some(Part::Plain(_, bytes))) => spoil(driver, bytes)?,
        (4, Some(_)) => drop(sections.remove(at)),
        (5, Some(part)) => {
            let again = part.clone();
            sections.insert(below(driver, sections.len() + 1)?, again);
        }
        (6, Some(_)) => {
            let with = below(driver, sections.len())?;
            sections.swap(at, with);
        }
        (7, Some(part)) => {
            // A component within a component within a component, or a section many times over.
            let times = [2, 10, 100, 1_100][below(driver, 4)?];
            let part = part.clone();
            match below(driver, 2)? {
                0 => sections.extend(std::iter::repeat_n(part, times)),
                _ => sections.push((0..times).fold(part, |inner, _| Part::component(vec![inner]))),
            }
        }
        _ if !other.is_empty() => {
            let spliced = other[below(driver, other.len())?].clone();
            sections.insert(at.min(sections.len()), spliced);
        }
        _ => {}
    }
    Some(())
}

/// Bytes changed in place: one of them, a number made large, or a letter of a name made into what steers a terminal.
fn spoil<D: Driver>(driver: &mut D, bytes: &mut Vec<u8>) -> Option<()> {
    let at = below(driver, bytes.len())?;
    match below(driver, 6)? {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = (0..=255u8).generate(driver)?;
            }
        }
        1 => drop(bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0x0f])),
        2 => bytes.truncate(at),
        3 => {
            let to = (at + below(driver, 20)?).min(bytes.len());
            let again = bytes[at..to].to_vec();
            bytes.splice(at..at, again);
        }
        _ => {
            let letters: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_lowercase()).collect();
            if let Some(at) = letters.get(below(driver, letters.len())?) {
                bytes[*at] = [0x1b, b'\n', 0x7f, 0, b'a', b'-', b'@', 0xc2][below(driver, 8)?];
            }
        }
    }
    Some(())
}

fn assert_refused_well(error: &LoadError) {
    let text = error.to_string();
    assert!(!matches!(error, LoadError::Internal { .. }), "a component is to blame, not the host: {text}");
    assert!(text.starts_with("load the component: "), "{text}");
    assert!(text.len() <= REFUSAL_BYTES, "{} bytes: {:?}", text.len(), text.chars().take(200).collect::<String>());
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

/// How many were tried, and how many of them were components after all: the more, the nearer the target comes.
static TRIED: AtomicU64 = AtomicU64::new(0);
static RUN: AtomicU64 = AtomicU64::new(0);

#[test]
fn a_component_that_is_nearly_right_is_refused_in_words_or_runs_within_its_limits_and_harms_nobody() {
    bolero::check!().with_test_time(while_testing()).with_generator(Nearly).for_each(|File(file)| {
        let (runtime, sandbox, neighbour) = honest();
        TRIED.fetch_add(1, Relaxed);
        let began = Instant::now();
        let loaded = runtime.block_on(sandbox.load(file.clone().into(), &Grants::default()));
        assert!(began.elapsed() < PATIENCE, "{:?} to load {} bytes", began.elapsed(), file.len());
        let plugin = match loaded {
            Ok(plugin) => plugin,
            Err(error) => return assert_refused_well(&error),
        };
        RUN.fetch_add(1, Relaxed);
        let mut tiny = invocation("[1]");
        tiny.limits = Limits {
            cpu: Duration::from_millis(20),
            timeout: Duration::from_millis(100),
            memory_bytes: 1 << 20,
            output_bytes: 1 << 10,
            hostcall_bytes: 1 << 10,
            ..tiny.limits
        };
        let began = Instant::now();
        let ran = runtime.block_on(plugin.run(tiny));
        assert!(began.elapsed() < PATIENCE / 4, "{:?} to run with 100 ms", began.elapsed());
        if let Outcome::Fault(fault) = &ran.outcome {
            assert_ne!(fault.kind, FaultKind::Internal, "{fault:?}");
        }
        let ran = runtime.block_on(neighbour.run(invocation("{\"a\":1}")));
        assert_eq!(ran.outcome, Outcome::Output("{\"a\":1}".to_owned()));
    });
    eprintln!("{} of {} were loaded and run", RUN.load(Relaxed), TRIED.load(Relaxed));
}
