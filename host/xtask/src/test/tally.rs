//! How the tests went, read from what `cargo test` prints.

use std::fmt;

/// The sum over all test programs.
#[derive(Debug, Default)]
pub struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
    programs: usize,
    failures: Vec<String>,
    /// What cargo said that it runs.
    program: String,
    /// The program that runs: it said how many tests it has, and not yet how they went.
    open: Option<Open>,
}

#[derive(Debug, Default)]
struct Open {
    tests: usize,
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    /// Counts a test or a check that is left out by name.
    pub fn skip(&mut self) {
        self.skipped += 1;
    }

    /// Reads one line of output.
    pub fn read(&mut self, line: &str) {
        let line = without_colour(line);
        let line = line.trim_end();
        if let Some(program) = announced(line) {
            self.close();
            self.program = program.to_owned();
        } else if let Some(tests) = between(line, "running ", " test") {
            self.close();
            self.open = Some(Open { tests, ..Open::default() });
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let count =
                |name| result.split([';', '.']).find_map(|part| part.trim().strip_suffix(name)?.trim().parse().ok());
            self.open = None;
            self.programs += 1;
            self.passed += count(" passed").unwrap_or(0);
            self.failed += count(" failed").unwrap_or(0);
            self.skipped += count(" ignored").unwrap_or(0);
        } else if let Some(test) = line.strip_prefix("test ") {
            self.one(test);
        }
    }

    /// `NAME ... ok`, `NAME ... FAILED`, `NAME ... ignored, REASON`.
    fn one(&mut self, test: &str) {
        let Some((name, outcome)) = test.rsplit_once(" ... ") else {
            return;
        };
        let Some(open) = &mut self.open else { return };
        match outcome.split([',', ' ']).next() {
            Some("ok") => open.passed += 1,
            Some("ignored") => open.skipped += 1,
            Some("FAILED") => {
                open.failed += 1;
                self.failures.push(format!("{name} in {}", self.program));
            }
            _ => {}
        }
    }

    /// A program that never said how its tests went has crashed: what it did not report as passed did not pass.
    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let lost = open.tests.saturating_sub(open.passed + open.failed + open.skipped);
        self.programs += 1;
        self.passed += open.passed;
        self.failed += open.failed + lost.max(1);
        self.skipped += open.skipped;
        self.failures.push(format!("{}, which ended before its tests did", self.program));
    }

    /// Everything is read, and cargo ended well or not.
    pub fn finish(&mut self, success: bool) {
        self.close();
        if !success && self.failed == 0 {
            self.failed = 1;
            self.failures.push("cargo test itself, see above".to_owned());
        }
    }

    /// Whether nothing failed.
    pub fn is_good(&self) -> bool {
        self.failed == 0
    }

    /// How many test programs ran.
    pub fn programs(&self) -> usize {
        self.programs
    }

    /// What failed, by name.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// `     Running unittests src/lib.rs (target/debug/deps/agentry-0123)` or `   Doc-tests agentry`: the program's name.
fn announced(line: &str) -> Option<&str> {
    let line = line.trim_start();
    if let Some(doc_tests) = line.strip_prefix("Doc-tests ") {
        return Some(doc_tests);
    }
    let (_, path) = line.strip_prefix("Running ")?.strip_suffix(')')?.rsplit_once('(')?;
    let file = path.rsplit('/').next()?;
    Some(file.rsplit_once('-').map_or(file, |(name, _hash)| name))
}

/// The number between two texts.
fn between(line: &str, before: &str, after: &str) -> Option<usize> {
    line.strip_prefix(before)?.split_once(after)?.0.parse().ok()
}

/// Without the sequences that set colours.
fn without_colour(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let after = part.find(|letter: char| letter.is_ascii_alphabetic()).map_or("", |at| &part[at + 1..]);
        text.push_str(after);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str, success: bool) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        tally.finish(success);
        tally
    }

    const GREEN: &str = "
     Running unittests src/lib.rs (target/debug/deps/agentry-0f)

running 3 tests
test task::a ... ok
test task::b ... ignored, takes long
test task::c ... ok

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s

   Doc-tests agentry

running 1 test
test host/src/lib.rs - (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.30s
";

    #[test]
    fn all_programs_are_summed() {
        let tally = tally(GREEN, true);
        assert_eq!(tally.to_string(), "3 passed, 0 failed, 1 skipped");
        assert_eq!((tally.programs(), tally.is_good()), (2, true));
    }

    #[test]
    fn a_failed_test_is_named_with_its_program() {
        let output = "
     Running tests/e2e.rs (target/debug/deps/e2e-9a)
running 2 tests
test restart ... FAILED
test path ... ok
failures:
    restart
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.99s
";
        let tally = tally(output, false);
        assert_eq!(tally.to_string(), "1 passed, 1 failed, 0 skipped");
        assert_eq!(tally.failures(), ["restart in e2e"]);
        assert!(!tally.is_good());
    }

    #[test]
    fn a_program_that_crashes_fails_with_all_that_it_did_not_report() {
        let output = format!("     Running unittests a.rs (t/sandbox-1)\nrunning 5 tests\ntest x ... ok\n{GREEN}");
        let tally = tally(&output, false);
        assert_eq!(tally.to_string(), "4 passed, 4 failed, 1 skipped");
        assert_eq!(tally.failures(), ["sandbox, which ended before its tests did"]);
    }

    #[test]
    fn a_failure_of_cargo_alone_is_a_failure() {
        let tally = tally("error: no such package", false);
        assert_eq!(tally.to_string(), "0 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn colours_do_not_hide_results() {
        let output = "\u{1b}[1m\u{1b}[92m     Running\u{1b}[0m unittests src/main.rs (target/debug/deps/a-b-77)
running 1 test
test x ... \u{1b}[31mFAILED\u{1b}[m
test result: \u{1b}[31mFAILED\u{1b}[m. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        let tally = tally(output, false);
        assert_eq!(tally.to_string(), "0 passed, 1 failed, 0 skipped");
        assert_eq!(tally.failures(), ["x in a-b"]);
    }
}
