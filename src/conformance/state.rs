//! What every [`StateStore`] must do.

mod conditional;
mod listing;
mod slots;

use super::{Rule, run};
use crate::clock::ManualClock;
use crate::error::Error;
use crate::stores::state::{
    EventId, Identity, ListScope, SlotExpectation, StateError, StateRecord, StateStore,
};
use std::sync::{Arc, Barrier};
use std::thread;

/// How many threads fight for a slot.
const RACERS: usize = 64;

type StateDriver = dyn StateStore;

/// Runs the whole suite on stores that `factory` makes: fresh, empty, and with the clock that they
/// take their time from.
///
/// # Panics
/// When a rule is broken, with the list of the broken ones.
pub fn state<S: StateStore + 'static>(factory: impl Fn() -> (S, Arc<ManualClock>)) {
    let rules: Vec<Rule<StateDriver>> = [slots::RULES, conditional::RULES, listing::RULES].concat();
    run("state", &rules, |check: &dyn Fn(&StateDriver, &ManualClock)| {
        let (store, clock) = factory();
        check(&store, &clock);
    });
}

/// Strings that would fool a careless encoding.
const TRICKY: [&str; 14] = [
    "a",
    "b",
    "a\0",
    "a\0\0",
    "\0",
    "\0\u{1}",
    "a\0b",
    "ab",
    "%",
    "_",
    "a%",
    "a/b",
    "\u{10ffff}",
    "Ä",
];

fn identity() -> Identity {
    Identity::new("tenant", "user", "session", "run")
}

/// A record in the slot `kind` of [`identity`], whose bytes are the event id.
fn record(id: &str, kind: &str) -> StateRecord {
    of(identity(), id, kind)
}

fn of(identity: Identity, id: &str, kind: &str) -> StateRecord {
    StateRecord {
        id: id.into(),
        identity,
        kind: kind.into(),
        version: 1,
        bytes: id.into(),
        updated_at: Some(7),
    }
}

fn save(store: &StateDriver, record: &StateRecord) {
    store.save(record.clone()).wait().unwrap();
}

fn absent(kind: &str) -> SlotExpectation {
    SlotExpectation::absent(identity(), kind)
}

fn current(kind: &str, id: &str) -> SlotExpectation {
    SlotExpectation::current(identity(), kind, id.into())
}

/// The event id in a slot of [`identity`].
fn id_in(store: &StateDriver, kind: &str) -> Option<String> {
    match store.load(&identity(), kind).wait() {
        Ok(record) => Some(record.id.to_string()),
        Err(StateError::NotFound) => None,
        Err(error) => panic!("{error}"),
    }
}

fn all(store: &StateDriver, kind_prefix: &str) -> Vec<StateRecord> {
    store.list_kind(ListScope::maintenance(), kind_prefix).wait().unwrap()
}

fn ids(records: &[StateRecord]) -> Vec<&str> {
    records.iter().map(|record| record.id.as_str()).collect()
}

/// Breaks the rule unless `answer` is an error that `pattern` matches.
macro_rules! refused {
    ($answer:expr, $pattern:pat) => {
        match $answer {
            Err($pattern) => {}
            answer => panic!("{} answered {answer:?}", stringify!($answer)),
        }
    };
}
use refused;

/// What each of [`RACERS`] threads got that set out at the same moment.
fn race<T: Send>(racer: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(RACERS);
    let (start, racer) = (&start, &racer);
    thread::scope(|scope| {
        let racers: Vec<_> = (0..RACERS)
            .map(|index| {
                scope.spawn(move || {
                    start.wait();
                    racer(index)
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    })
}

fn is_too_large(error: &StateError) -> bool {
    matches!(error, StateError::Store(Error::TooLarge { .. }))
}

/// Three of an identity's parts empty, one at a time.
fn incomplete() -> [Identity; 3] {
    [
        Identity::new("", "u", "s", "r"),
        Identity::new("t", "", "s", "r"),
        Identity::new("t", "u", "", "r"),
    ]
}

fn event(id: &str) -> EventId {
    id.into()
}
