use super::*;
use crate::task::Options;
use chrono::TimeDelta;
use uuid::Uuid;

const ME: HostId = Uuid::from_u128(1);
const OTHER: HostId = Uuid::from_u128(2);

fn now() -> DateTime<Utc> {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

fn here() -> Runnable {
    Runnable::Here {
        version: "0.1.0".into(),
        digest: "sha256:0".into(),
        max_attempts: 3,
        allowed: Duration::from_secs(60),
        lane: true,
    }
}

fn elsewhere() -> Runnable {
    Runnable::NotHere { code: WaitCode::NoPlugin, detail: Value::Null }
}

fn arrival_with(options: Options, runnable: Runnable) -> Arrival {
    let message = TaskMessage::assemble(Some(Uuid::from_u128(7)), "a", "1", options, &Default::default()).unwrap();
    Arrival { message: Arc::new(message), queue: "default".into(), runnable, relayed: None }
}

fn arrival(runnable: Runnable) -> Arrival {
    arrival_with(Options::default(), runnable)
}

fn row(state: State) -> Row {
    Row {
        state,
        fence: 4,
        owner: None,
        owner_alive: false,
        run_at: None,
        deadline: None,
        cancel_requested: false,
        fingerprint: Some(arrival(here()).message.fingerprint.to_vec()),
        burnt: 1,
        max_attempts: 3,
        host_losses: 0,
        child_losses: 0,
        snoozes: 0,
        parked: None,
    }
}

fn decided(row: &Row) -> Decision {
    decide(Some(row), &arrival(here()), ME, now())
}

#[test]
fn a_task_without_a_row_runs_at_once() {
    let decision = decide(None, &arrival(here()), ME, now());
    assert_eq!(decision, Decision::Run { event: Event::Running, attempt: 1, host_losses: 0, isolated: false });
}

#[test]
fn a_task_without_a_row_may_be_scheduled_expired_or_parked() {
    let later = Options { run_at: Some(now() + TimeDelta::seconds(1)), ..Options::default() };
    assert_eq!(decide(None, &arrival_with(later, here()), ME, now()), Decision::Schedule);
    let late = Options { deadline: Some(now()), ..Options::default() };
    assert!(matches!(decide(None, &arrival_with(late, here()), ME, now()), Decision::End { event: Event::Failed, .. }));
    assert!(matches!(decide(None, &arrival(elsewhere()), ME, now()), Decision::Park { event: Event::Parked, .. }));
}

#[test]
fn a_waiting_task_that_is_due_runs_its_next_attempt() {
    for state in [State::Pending, State::Scheduled, State::Retrying] {
        let mut row = row(state);
        row.run_at = Some(now());
        assert_eq!(decided(&row), Decision::Run { event: Event::Running, attempt: 2, host_losses: 0, isolated: false });
    }
}

#[test]
fn a_waiting_task_that_is_not_due_is_left_to_the_scheduler() {
    for state in [State::Scheduled, State::Retrying] {
        let mut row = row(state);
        row.run_at = Some(now() + TimeDelta::milliseconds(1));
        assert_eq!(decided(&row), Decision::Keep(Kept::NotDue));
    }
}

#[test]
fn a_terminal_task_is_a_duplicate() {
    for state in State::ALL.into_iter().filter(|s| s.is_terminal()) {
        assert_eq!(decided(&row(state)), Decision::Keep(Kept::Terminal));
    }
}

#[test]
fn another_message_under_the_same_id_is_a_conflict_in_every_state() {
    for state in State::ALL {
        let mut row = row(state);
        row.fingerprint = Some(vec![0; 32]);
        assert_eq!(decided(&row), Decision::Conflict);
        row.fingerprint = None;
        assert_eq!(decided(&row), Decision::Conflict);
    }
}

#[test]
fn a_task_that_runs_here_is_re_attached_even_if_the_lease_lapsed() {
    let mut row = row(State::Running);
    row.owner = Some(ME);
    assert_eq!(decided(&row), Decision::Mine);
}

#[test]
fn a_task_with_a_living_owner_is_left_alone() {
    let mut row = row(State::Running);
    (row.owner, row.owner_alive) = (Some(OTHER), true);
    assert_eq!(decided(&row), Decision::Keep(Kept::OwnedElsewhere));
}

#[test]
fn a_task_with_a_dead_owner_is_taken_over_without_burning_an_attempt() {
    let mut row = row(State::Running);
    row.owner = Some(OTHER);
    assert_eq!(decided(&row), Decision::Run { event: Event::TakenOver, attempt: 2, host_losses: 1, isolated: false });
    let parked = decide(Some(&row), &arrival(elsewhere()), ME, now());
    assert!(matches!(parked, Decision::Park { event: Event::Interrupted, .. }));
}

#[test]
fn a_task_that_keeps_losing_its_hosts_is_isolated_and_never_convicted_of_it() {
    let mut row = row(State::Running);
    for lost in 1..20 {
        let isolated = lost >= retry::SUSPECT_AFTER;
        let host_losses = lost.min(retry::SUSPECT_AFTER);
        assert_eq!(decided(&row), Decision::Run { event: Event::TakenOver, attempt: 2, host_losses, isolated });
        row.host_losses = host_losses;
    }
}

#[test]
fn a_suspect_waits_for_the_lane() {
    let full = |row: &Row| {
        let mut arrival = arrival(here());
        let Runnable::Here { lane, .. } = &mut arrival.runnable else { panic!("it runs here") };
        *lane = false;
        decide(Some(row), &arrival, ME, now())
    };
    let mut row = row(State::Pending);
    assert!(matches!(full(&row), Decision::Run { isolated: false, .. }), "others do not need the lane");
    row.host_losses = retry::SUSPECT_AFTER;
    assert!(matches!(full(&row), Decision::Park { event: Event::Parked, code: WaitCode::Isolation, .. }));
    row.parked = Some(WaitCode::Isolation);
    assert_eq!(full(&row), Decision::Keep(Kept::AlreadyParked));
    assert!(matches!(decided(&row), Decision::Run { event: Event::Running, isolated: true, .. }));
    row.state = State::Running;
    assert!(matches!(full(&row), Decision::Park { event: Event::Interrupted, code: WaitCode::Isolation, .. }));
}

#[test]
fn a_cancelled_task_is_not_run_again() {
    let mut row = row(State::Running);
    row.cancel_requested = true;
    assert_eq!(decided(&row), Decision::End { event: Event::Cancelled, failure: None });
}

#[test]
fn a_task_past_its_deadline_expires_instead_of_running() {
    for state in [State::Pending, State::Scheduled, State::Retrying, State::Running] {
        let mut row = row(state);
        row.deadline = Some(now());
        assert!(matches!(decided(&row), Decision::End { event: Event::Failed, failure: Some(_) }));
    }
}

#[test]
fn a_task_parked_for_the_same_reason_is_not_parked_twice() {
    let mut row = row(State::Pending);
    row.parked = Some(WaitCode::NoPlugin);
    assert_eq!(decide(Some(&row), &arrival(elsewhere()), ME, now()), Decision::Keep(Kept::AlreadyParked));
    row.parked = Some(WaitCode::NoSlot);
    assert!(matches!(decide(Some(&row), &arrival(elsewhere()), ME, now()), Decision::Park { .. }));
}

#[test]
fn every_decision_that_writes_is_a_legal_transition() {
    use crate::task::next;
    for state in State::ALL.map(Some).into_iter().chain([None]) {
        for runnable in [here(), elsewhere()] {
            for (cancel, dead_line, losses) in
                [(false, false, 0), (true, false, 0), (false, true, 0), (false, false, 9)]
            {
                let facts = state.map(|s| {
                    let mut row = row(s);
                    row.cancel_requested = cancel;
                    row.deadline = dead_line.then(now);
                    row.host_losses = losses;
                    row
                });
                let event = match decide(facts.as_ref(), &arrival(runnable.clone()), ME, now()) {
                    Decision::Run { event, .. } | Decision::Park { event, .. } | Decision::End { event, .. } => event,
                    Decision::Schedule => Event::Scheduled,
                    Decision::Mine | Decision::Keep(_) | Decision::Conflict => continue,
                };
                next(state, event).unwrap();
            }
        }
    }
}
