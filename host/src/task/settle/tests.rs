//! What an end makes of a task.

use super::*;
use crate::task::next;

const FIRST: Standing = Standing { attempt: 1, max_attempts: 2, snoozes: 0, child_losses: 0, isolated: false };

fn ended(verdict: Verdict, standing: Standing) -> Ended {
    end(verdict, standing, &RetryPolicy::default(), 2, 1.0, StopReason::Shutdown)
}

fn failure(retryable: bool) -> Verdict {
    let failure = Failure { retryable, ..Failure::fatal(FailureKind::PluginError, "x") };
    Verdict::Failed { failure, after: None }
}

#[test]
fn a_task_is_completed_when_and_only_when_there_is_an_output() {
    assert_eq!(ended(Verdict::Output("\"error\"".into()), FIRST).state(), State::Completed);
    for other in [failure(true), failure(false), Verdict::Stopped] {
        assert_ne!(ended(other, FIRST).state(), State::Completed);
    }
}

#[test]
fn a_retryable_failure_is_retried_until_the_attempts_are_gone() {
    assert_eq!(ended(failure(true), FIRST).state(), State::Retrying);
    assert_eq!(ended(failure(true), Standing { attempt: 2, ..FIRST }).state(), State::Failed);
    assert_eq!(ended(failure(false), FIRST).state(), State::Failed);
}

#[test]
fn a_snooze_burns_nothing_and_has_an_end() {
    let snooze = || Verdict::Snooze { message: "early".into(), after: Duration::ZERO };
    let first = ended(snooze(), FIRST);
    assert!(!first.burns_attempt());
    assert_eq!(first.after(), Some(Duration::from_secs(1)));
    assert_eq!(ended(snooze(), Standing { snoozes: 2, ..FIRST }).state(), State::Failed);
}

#[test]
fn a_stopped_run_is_interrupted_or_cancelled() {
    assert_eq!(ended(Verdict::Stopped, FIRST).event(), Event::Interrupted);
    let none = Verdict::NoMemory { asked: 60 << 20, held: (4 << 20) + 65_536, free: 1 << 20, total: 128 << 20 };
    let interrupted = ended(none.clone(), FIRST);
    assert!(!interrupted.burns_attempt());
    let Ended::Interrupted { reason } = interrupted else { panic!("{interrupted:?}") };
    let said = "it asked for 60 MiB of memory while it held 4.1, and 1 of worker.memory_mib = 128 were free; its next run here \
                begins once all that it may use is free";
    assert_eq!(reason, said);
    let both = end(none, FIRST, &RetryPolicy::default(), 2, 0.0, StopReason::Cancelled);
    assert_eq!(both, Ended::Cancelled);
    let cancelled = end(Verdict::Stopped, FIRST, &RetryPolicy::default(), 2, 0.0, StopReason::Cancelled);
    assert_eq!(cancelled, Ended::Cancelled);
}

#[test]
fn a_task_that_kills_its_children_ends_and_burns_no_attempt_before() {
    let died = || Verdict::ChildDied { message: "signal 9".into() };
    let first = ended(died(), FIRST);
    assert!(matches!(first, Ended::ChildLost { .. }) && !first.burns_attempt());
    let last = ended(died(), Standing { child_losses: retry::MAX_CHILD_LOSSES - 1, ..FIRST });
    assert_eq!(last.failure().map(|f| (f.kind, f.retryable)), Some((FailureKind::HostLost, false)));
}

#[test]
fn every_end_is_the_transition_it_says() {
    let ends = [
        ended(Verdict::Output("1".into()), FIRST),
        ended(failure(true), FIRST),
        ended(failure(false), FIRST),
        ended(Verdict::Snooze { message: String::new(), after: Duration::ZERO }, FIRST),
        ended(Verdict::Stopped, FIRST),
        ended(Verdict::NoMemory { asked: 1, held: 0, free: 0, total: 1 }, FIRST),
        ended(Verdict::ChildDied { message: String::new() }, FIRST),
        Ended::Cancelled,
    ];
    for end in ends {
        assert_eq!(next(Some(State::Running), end.event()), Ok(end.state()));
    }
}
