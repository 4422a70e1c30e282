//! Calls of a store of agent state, and what the checks expect of them.

use crate::error::Error;
use crate::stores::state::{
    EventId, Identity, ListScope, SlotExpectation, StateError, StateRecord, StateStore,
};
use std::sync::Barrier;
use std::thread;

/// How many threads fight for a slot.
pub(super) const RACERS: usize = 64;

pub(super) type StateDriver = dyn StateStore;

/// Strings that would fool a careless encoding.
pub(super) const TRICKY: [&str; 14] = [
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

pub(super) fn identity() -> Identity {
    Identity::new("tenant", "user", "session", "run")
}

/// A record in the slot `kind` of [`identity`], whose bytes are the event id.
pub(super) fn record(id: &str, kind: &str) -> StateRecord {
    of(identity(), id, kind)
}

pub(super) fn of(identity: Identity, id: &str, kind: &str) -> StateRecord {
    StateRecord {
        id: id.into(),
        identity,
        kind: kind.into(),
        version: 1,
        bytes: id.into(),
        updated_at: Some(7),
    }
}

pub(super) fn save(store: &StateDriver, record: &StateRecord) {
    store.save(record.clone()).wait().unwrap();
}

pub(super) fn absent(kind: &str) -> SlotExpectation {
    SlotExpectation::absent(identity(), kind)
}

pub(super) fn current(kind: &str, id: &str) -> SlotExpectation {
    SlotExpectation::current(identity(), kind, id.into())
}

/// The event id in a slot of [`identity`].
pub(super) fn id_in(store: &StateDriver, kind: &str) -> Option<String> {
    match store.load(&identity(), kind).wait() {
        Ok(record) => Some(record.id.to_string()),
        Err(StateError::NotFound) => None,
        Err(error) => panic!("{error}"),
    }
}

pub(super) fn all(store: &StateDriver, kind_prefix: &str) -> Vec<StateRecord> {
    store.list_kind(ListScope::maintenance(), kind_prefix).wait().unwrap()
}

pub(super) fn ids(records: &[StateRecord]) -> Vec<&str> {
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
pub(super) use refused;

/// What each of [`RACERS`] threads got that set out at the same moment.
pub(super) fn race<T: Send>(racer: impl Fn(usize) -> T + Sync) -> Vec<T> {
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

pub(super) fn is_too_large(error: &StateError) -> bool {
    matches!(error, StateError::Store(Error::TooLarge { .. }))
}

/// Three of an identity's parts empty, one at a time.
pub(super) fn incomplete() -> [Identity; 3] {
    [
        Identity::new("", "u", "s", "r"),
        Identity::new("t", "", "s", "r"),
        Identity::new("t", "u", "", "r"),
    ]
}

pub(super) fn event(id: &str) -> EventId {
    id.into()
}
