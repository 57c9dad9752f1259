//! A task's whole life as hosts, guests, brokers and people can make it: any order of arrivals, ends, deaths and cancellations,
//! through the claim table and the settlement, with a row kept as the database keeps it.

use crate::{draw, while_testing};
use agentry::task::claim::Kept;
use agentry::task::limits::MessageLimits;
use agentry::task::settle::{Standing, StopReason, Verdict, end};
use agentry::task::{
    Arrival, Decision, Ended, Event, Failure, FailureKind, HostId, Options, RetryPolicy, Row, Runnable, State,
    TaskMessage, WaitCode, decide, next, retry,
};
use bolero::{Driver, ValueGenerator};
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

const HOSTS: usize = 3;
const MAX_SNOOZES: u32 = 3;

/// What happens next.
#[derive(Clone, Debug)]
enum Act {
    /// The task arrives at a host: which, whether with other contents, and whether that host can run it.
    Arrive { host: usize, other: bool, runnable: Runnable },
    /// Its guest ends, on the host that owns it.
    End { verdict: Verdict, stop: StopReason },
    /// Its owner's lease lapses.
    OwnerDies,
    /// So many seconds pass.
    Wait(u32),
    /// Somebody cancels it.
    Cancel,
}

#[derive(Clone, Debug)]
struct Life {
    run_at: Option<u32>,
    deadline: Option<u32>,
    max_attempts: u32,
    acts: Vec<Act>,
}

struct Lives;

impl ValueGenerator for Lives {
    type Output = Life;

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<Life> {
        let seconds = |driver: &mut D| -> Option<Option<u32>> {
            Some(if draw::once_in(driver, 3)? { Some((1..200u32).generate(driver)?) } else { None })
        };
        let run_at = seconds(driver)?;
        let deadline = seconds(driver)?.map(|after| run_at.unwrap_or(0) + after);
        let max_attempts = (1..4u32).generate(driver)?;
        let acts = (0..draw::below(driver, 60)?).map(|_| act(driver, max_attempts)).collect::<Option<_>>()?;
        Some(Life { run_at, deadline, max_attempts, acts })
    }
}

fn act<D: Driver>(driver: &mut D, max_attempts: u32) -> Option<Act> {
    Some(match draw::below(driver, 12)? {
        0..5 => Act::Arrive {
            host: draw::below(driver, HOSTS)?,
            other: draw::once_in(driver, 20)?,
            runnable: runnable(driver, max_attempts)?,
        },
        5..8 => Act::End {
            verdict: verdict(driver)?,
            stop: if draw::once_in(driver, 2)? { StopReason::Shutdown } else { StopReason::Cancelled },
        },
        8..10 => Act::OwnerDies,
        10 => Act::Wait((0..100u32).generate(driver)?),
        _ if draw::once_in(driver, 4)? => Act::Cancel,
        _ => Act::Wait(1),
    })
}

fn runnable<D: Driver>(driver: &mut D, max_attempts: u32) -> Option<Runnable> {
    Some(match draw::below(driver, 8)? {
        0 => Runnable::Never { failure: Failure::fatal(FailureKind::Expired, "the broker gave up on it") },
        1 => Runnable::NotHere {
            code: [WaitCode::NoPlugin, WaitCode::NoSlot, WaitCode::PluginBroken][draw::below(driver, 3)?],
            detail: Value::Null,
        },
        _ => Runnable::Here {
            version: "0.1.0".into(),
            digest: "sha256:0".into(),
            max_attempts,
            allowed: Duration::from_secs(60),
            lane: draw::once_in(driver, 2)?,
        },
    })
}

fn verdict<D: Driver>(driver: &mut D) -> Option<Verdict> {
    Some(match draw::below(driver, 6)? {
        0 => Verdict::Output("1".into()),
        1 => Verdict::Snooze { message: "early".into(), after: Duration::from_secs((0..100u64).generate(driver)?) },
        2 => Verdict::Stopped,
        3 => Verdict::ChildDied { message: "signal 9".into() },
        _ => {
            let kind = FailureKind::ALL[draw::below(driver, FailureKind::ALL.len())?];
            let failure = Failure { retryable: draw::once_in(driver, 2)?, ..Failure::fatal(kind, "it failed") };
            Verdict::Failed { failure, after: None }
        }
    })
}

/// One task, and what is kept of it.
struct World {
    now: DateTime<Utc>,
    message: Arc<TaskMessage>,
    other: Arc<TaskMessage>,
    row: Option<Row>,
    isolated: bool,
    policy: RetryPolicy,
}

impl World {
    fn new(life: &Life) -> World {
        let start = DateTime::UNIX_EPOCH;
        let at = |seconds: Option<u32>| seconds.map(|s| start + Duration::from_secs(s.into()));
        let options = Options { run_at: at(life.run_at), deadline: at(life.deadline), ..Options::default() };
        let id = Some(HostId::from_u128(1));
        let message = |input| {
            Arc::new(TaskMessage::assemble(id, "a", input, options.clone(), &MessageLimits::default()).unwrap())
        };
        let (message, other) = (message("1"), message("2"));
        World { now: start, message, other, row: None, isolated: false, policy: RetryPolicy::default() }
    }

    /// Take one step to another state, which `next` must allow.
    #[track_caller]
    fn step(&mut self, event: Event) -> &mut Row {
        let from = self.row.as_ref().map(|row| row.state);
        assert!(!from.is_some_and(State::is_terminal), "{from:?} was left by {event}");
        let state = next(from, event).unwrap_or_else(|e| panic!("{e}"));
        let (message, isolated) = (self.message.clone(), &mut self.isolated);
        *isolated = false;
        let row = self.row.get_or_insert_with(|| Row {
            state,
            fence: 0,
            owner: None,
            owner_alive: false,
            run_at: message.options.run_at,
            deadline: message.options.deadline,
            cancel_requested: false,
            fingerprint: Some(message.fingerprint.to_vec()),
            burnt: 0,
            max_attempts: 0,
            host_losses: 0,
            child_losses: 0,
            snoozes: 0,
            parked: None,
        });
        row.state = state;
        row.owner = None;
        row.owner_alive = false;
        row.parked = None;
        row
    }

    fn arrive(&mut self, host: usize, other: bool, runnable: &Runnable) {
        let me = HostId::from_u128(100 + host as u128);
        let message = if other { &self.other } else { &self.message };
        let arrival =
            Arrival { message: message.clone(), queue: "default".into(), runnable: runnable.clone(), relayed: None };
        let before = self.row.clone();
        let decision = decide(before.as_ref(), &arrival, me, self.now);
        assert_eq!(decision, decide(before.as_ref(), &arrival, me, self.now), "the same facts, the same decision");
        let passed = self.message.options.deadline.is_some_and(|at| at <= self.now);
        let state = before.as_ref().map(|row| row.state);
        if before.is_some() && other {
            assert_eq!(decision, Decision::Conflict, "another message under the same id");
            return;
        }
        // What the first delivery brings is the task, whatever was meant.
        if before.is_none() && other {
            std::mem::swap(&mut self.message, &mut self.other);
        }
        match decision {
            Decision::Run { event, attempt, host_losses, isolated } => {
                assert!(matches!(runnable, Runnable::Here { .. }) && !passed, "{before:?}");
                let burnt = before.as_ref().map_or(0, |row| row.burnt);
                assert_eq!(attempt, burnt + 1, "an attempt is counted by what was burnt");
                assert_eq!(isolated, retry::is_suspect(host_losses));
                assert!(!isolated || matches!(runnable, Runnable::Here { lane: true, .. }), "no room in the lane");
                if let Some(row) = &before {
                    assert!(!row.cancel_requested, "{row:?} was called off");
                    assert!(attempt <= row.max_attempts.max(1), "attempt {attempt} of {row:?}");
                    let due = row.state == State::Running || row.run_at.is_none_or(|at| at <= self.now);
                    assert!(due, "{row:?} runs before its time");
                    let lost = u32::from(event == Event::TakenOver);
                    assert_eq!(host_losses, (row.host_losses + lost).min(retry::SUSPECT_AFTER));
                }
                assert_eq!(event == Event::TakenOver, state == Some(State::Running));
                let Runnable::Here { max_attempts, .. } = runnable else { unreachable!() };
                let row = self.step(event);
                row.fence += 1;
                (row.owner, row.owner_alive) = (Some(me), true);
                (row.host_losses, row.max_attempts) = (host_losses, *max_attempts);
                self.isolated = isolated;
            }
            Decision::Park { event, code, .. } => self.step(event).parked = Some(code),
            Decision::Schedule => {
                assert!(before.is_none() && self.message.options.run_at.is_some_and(|at| at > self.now));
                self.step(Event::Scheduled);
            }
            Decision::End { event, failure } => {
                assert_eq!(event == Event::Cancelled, failure.is_none());
                if event == Event::Cancelled {
                    assert!(before.is_some_and(|row| row.cancel_requested), "cancelled, and nobody asked");
                } else {
                    assert!(passed || matches!(runnable, Runnable::Never { .. }), "failed without a reason");
                }
                self.step(event);
            }
            Decision::Mine => assert!(before.is_some_and(|r| r.state == State::Running && r.owner == Some(me))),
            Decision::Conflict => panic!("the same message is no conflict: {before:?}"),
            Decision::Keep(kept) => {
                let row = before.expect("nothing can be kept where nothing is");
                match kept {
                    Kept::Terminal => assert!(row.state.is_terminal()),
                    Kept::NotDue => assert!(row.run_at.is_some_and(|at| at > self.now)),
                    Kept::OwnedElsewhere => assert!(row.state == State::Running && row.owner != Some(me)),
                    Kept::AlreadyParked => assert!(row.parked.is_some()),
                }
            }
        }
        if state.is_some_and(State::is_terminal) {
            assert_eq!(self.row.as_ref().map(|row| row.state), state, "a terminal state was left");
        }
    }

    fn end(&mut self, verdict: &Verdict, stop: StopReason) {
        let Some(row) = self.row.clone().filter(|row| row.state == State::Running) else { return };
        let standing = Standing {
            attempt: row.burnt + 1,
            max_attempts: row.max_attempts,
            snoozes: row.snoozes,
            child_losses: row.child_losses,
            isolated: self.isolated,
        };
        let ended = end(verdict.clone(), standing, &self.policy, MAX_SNOOZES, 0.5, stop);
        assert_eq!(next(Some(State::Running), ended.event()), Ok(ended.state()), "{ended:?}");
        assert_eq!(ended.state() == State::Completed, matches!(verdict, Verdict::Output(_)), "no success by guessing");
        let is_stopped_by_a_person = matches!(verdict, Verdict::Stopped) && stop == StopReason::Cancelled;
        assert_eq!(ended.state() == State::Cancelled, is_stopped_by_a_person, "{ended:?}");
        let now = self.now;
        let row = self.step(ended.event());
        row.burnt += u32::from(ended.burns_attempt());
        row.snoozes += u32::from(matches!(ended, Ended::Snoozed { .. }));
        row.child_losses += u32::from(matches!(ended, Ended::ChildLost { .. }));
        row.run_at = ended.after().map(|after| now + after);
        assert!(row.burnt <= row.max_attempts, "{row:?}");
        assert!(row.state.is_terminal() || row.burnt < row.max_attempts, "nothing is left to try: {row:?}");
        assert!(row.snoozes <= MAX_SNOOZES && row.child_losses < retry::MAX_CHILD_LOSSES, "{row:?}");
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Arrive { host, other, runnable } => self.arrive(*host, *other, runnable),
            Act::End { verdict, stop } => self.end(verdict, *stop),
            Act::OwnerDies => {
                if let Some(row) = &mut self.row {
                    row.owner_alive = false;
                }
            }
            Act::Wait(seconds) => self.now += Duration::from_secs(u64::from(*seconds)),
            Act::Cancel => {
                if let Some(row) = self.row.as_mut().filter(|row| !row.state.is_terminal()) {
                    row.cancel_requested = true;
                }
            }
        }
    }
}

#[test]
fn whatever_happens_to_a_task_it_ends_once_and_never_runs_more_than_it_may() {
    bolero::check!().with_test_time(while_testing()).with_generator(Lives).for_each(|life| {
        let mut world = World::new(life);
        let mut ended = None;
        for act in &life.acts {
            let fence = world.row.as_ref().map_or(0, |row| row.fence);
            world.act(act);
            let Some(row) = &world.row else { continue };
            assert!(row.fence == fence || row.fence == fence + 1 && row.state == State::Running, "{row:?}");
            let terminal = Some(row.state).filter(|state| state.is_terminal());
            assert!(ended.is_none() || ended == terminal, "{ended:?} became {terminal:?}");
            ended = terminal;
        }
        // However it stands, a patient host that can run it brings it to its end.
        let here = Runnable::Here {
            version: "0.1.0".into(),
            digest: "sha256:0".into(),
            max_attempts: life.max_attempts,
            allowed: Duration::from_secs(60),
            lane: true,
        };
        for _ in 0..10 {
            world.act(&Act::OwnerDies);
            world.act(&Act::Wait(4_000));
            world.arrive(HOSTS, false, &here);
            world.arrive(HOSTS + 1, false, &here);
            world.end(&Verdict::Output("1".into()), StopReason::Shutdown);
        }
        let state = world.row.map(|row| row.state);
        assert!(state.is_some_and(State::is_terminal), "it never ends: {state:?}");
    });
}
