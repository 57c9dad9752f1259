//! Any order of events, against the table of transitions of `host/docs/lifecycle.md` written down a second time.

use crate::{draw, while_testing};
use agentry::task::{Event, IllegalTransition, State, next};
use bolero::{Driver, ValueGenerator};

/// From, by which events, to. `None`: no row yet.
type Row = (&'static [Option<State>], &'static [Event], State);

/// The table of `host/docs/lifecycle.md`, row by row.
const CONTRACT: &[Row] = {
    use {Event as E, State as S};
    const WAITING: &[Option<State>] = &[Some(S::Scheduled), Some(S::Pending), Some(S::Retrying)];
    const RUNNING: &[Option<State>] = &[Some(S::Running)];
    &[
        (&[None], &[E::Scheduled], S::Scheduled),
        (&[None], &[E::Pending, E::Parked], S::Pending),
        (&[None], &[E::Running], S::Running),
        (&[None], &[E::Failed], S::Failed),
        (WAITING, &[E::Pending, E::Parked], S::Pending),
        (WAITING, &[E::Running], S::Running),
        (WAITING, &[E::Cancelled], S::Cancelled),
        (WAITING, &[E::Failed], S::Failed),
        (RUNNING, &[E::Completed], S::Completed),
        (RUNNING, &[E::Failed], S::Failed),
        (RUNNING, &[E::Retrying], S::Retrying),
        (RUNNING, &[E::Snoozed], S::Scheduled),
        (RUNNING, &[E::Interrupted], S::Pending),
        (RUNNING, &[E::TakenOver], S::Running),
        (RUNNING, &[E::Cancelled], S::Cancelled),
    ]
};

fn by_contract(from: Option<State>, event: Event) -> Option<State> {
    CONTRACT.iter().find(|(states, events, _)| states.contains(&from) && events.contains(&event)).map(|(.., to)| *to)
}

struct Events;

impl ValueGenerator for Events {
    type Output = Vec<Event>;

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<Vec<Event>> {
        (0..draw::below(driver, 40)?).map(|_| Some(Event::ALL[draw::below(driver, Event::ALL.len())?])).collect()
    }
}

#[test]
fn any_order_of_events_folds_as_the_contract_says() {
    bolero::check!().with_test_time(while_testing()).with_generator(Events).for_each(|events| {
        let mut state = None;
        for event in events {
            match (next(state, *event), by_contract(state, *event)) {
                (Ok(to), Some(allowed)) => {
                    assert_eq!(to, allowed, "{state:?} by {event}");
                    assert!(!state.is_some_and(State::is_terminal), "{state:?} was left by {event}");
                    state = Some(to);
                }
                (Err(refused), None) => {
                    assert_eq!(refused, IllegalTransition { from: state, event: *event });
                    crate::assert_fit_to_show(&refused.to_string(), 100);
                }
                (next, allowed) => panic!("{state:?} by {event}: {next:?}, and the contract says {allowed:?}"),
            }
        }
    });
}
