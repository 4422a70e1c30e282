//! Events that are delivered again after a newer one took their slot, or after the slot was
//! deleted, in a store that remembers them for a while.

use super::calls::*;
use crate::clock::ManualClock;
use crate::conformance::{Rule, run};
use crate::stores::state::{Identity, SlotExpectation, StateError, StateRecord, StateStore};
use StateError::{ConditionFailed, IdempotencyConflict, NotFound};
use std::sync::Arc;
use std::time::Duration;

/// The window that the rules ask for.
const WINDOW: Duration = Duration::from_secs(60);

const ONE_MS: Duration = Duration::from_millis(1);

const RULES: &[Rule<StateDriver>] = &[
    ("a replaced event that comes again within the window is Ok and writes nothing", replaced),
    ("the window lasts from the replacement for exactly its span", span),
    ("an event that comes late is not remembered for longer", not_renewed),
    ("an event of a slot that was deleted in any way is remembered as well", deleted),
    (
        "a remembered id with other bytes, another version or another slot is IdempotencyConflict",
        conflicts,
    ),
    ("predicates come first, and what is remembered after", predicates),
    ("an event that is remembered is not found, and is in no listing", not_found),
    ("the event that a slot holds is saved again as without a window", current_again),
];

/// Runs the rules of a late window on stores that `factory` makes: fresh, empty, with the late
/// window that it is given, and with the clock that they take their time from.
///
/// It is a suite of its own, because the window is an option: a driver that has none is right, too.
///
/// # Panics
/// When a rule is broken, with the list of the broken ones.
pub fn state_late_window<S: StateStore + 'static>(
    factory: impl Fn(Duration) -> (S, Arc<ManualClock>),
) {
    run("state_late_window", RULES, |check: &dyn Fn(&StateDriver, &ManualClock)| {
        let (store, clock) = factory(WINDOW);
        check(&store, &clock);
    });
}

fn save_ids(store: &StateDriver, ids: &[&str]) {
    ids.iter().for_each(|id| save(store, &record(id, "plan")));
}

fn replaced(store: &StateDriver, _: &ManualClock) {
    save_ids(store, &["a", "b", "a", "c", "a", "b"]);
    assert_eq!(id_in(store, "plan").as_deref(), Some("c"));
    // In one slot only.
    save(store, &record("d", "other"));
    save_ids(store, &["a"]);
    assert_eq!(id_in(store, "other").as_deref(), Some("d"));
}

fn span(store: &StateDriver, clock: &ManualClock) {
    save_ids(store, &["a"]);
    clock.advance(10 * WINDOW);
    save_ids(store, &["b"]);
    clock.advance(WINDOW - ONE_MS);
    save_ids(store, &["a"]);
    assert_eq!(id_in(store, "plan").as_deref(), Some("b"), "a millisecond before its end");
    clock.advance(ONE_MS);
    save_ids(store, &["a"]);
    assert_eq!(id_in(store, "plan").as_deref(), Some("a"), "at its end");
    // Now the other one was replaced.
    save_ids(store, &["b"]);
    assert_eq!(id_in(store, "plan").as_deref(), Some("a"));
}

fn not_renewed(store: &StateDriver, clock: &ManualClock) {
    save_ids(store, &["a", "b"]);
    for _ in 0..3 {
        clock.advance(WINDOW / 4);
        save_ids(store, &["a"]);
        assert_eq!(id_in(store, "plan").as_deref(), Some("b"));
    }
    clock.advance(WINDOW / 4);
    save_ids(store, &["a"]);
    assert_eq!(id_in(store, "plan").as_deref(), Some("a"));
}

fn deleted(store: &StateDriver, clock: &ManualClock) {
    type Delete = fn(&StateDriver, &str);
    let ways: [(&str, Delete); 3] = [
        ("delete", |store, _| store.delete(&identity(), "plan").wait().unwrap()),
        ("delete_if", |store, id| assert!(store.delete_if(&current("plan", id)).wait().unwrap())),
        ("delete_scope", |store, _| {
            assert_eq!(store.delete_scope("tenant", "user", "session").wait().unwrap(), 1);
        }),
    ];
    for (way, delete) in ways {
        save_ids(store, &[way]);
        delete(store, way);
        save_ids(store, &[way]);
        assert_eq!(id_in(store, "plan"), None, "{way}");
    }
    clock.advance(WINDOW);
    save_ids(store, &["delete"]);
    assert_eq!(id_in(store, "plan").as_deref(), Some("delete"));
}

fn conflicts(store: &StateDriver, _: &ManualClock) {
    save_ids(store, &["a", "b"]);
    let event = || record("a", "plan");
    let others = [
        StateRecord { bytes: b"other".to_vec(), ..event() },
        StateRecord { bytes: b"".to_vec(), ..event() },
        StateRecord { version: 2, ..event() },
        record("a", "other"),
        of(Identity::new("tenant", "user", "other", "run"), "a", "plan"),
    ];
    for other in others {
        refused!(store.save(other.clone()).wait(), IdempotencyConflict);
        let in_its_slot = SlotExpectation::absent(other.identity.clone(), &*other.kind);
        if (&other.identity, &*other.kind) != (&identity(), "plan") {
            refused!(store.save_if(&[in_its_slot], other).wait(), IdempotencyConflict);
        }
    }
    assert_eq!(id_in(store, "plan").as_deref(), Some("b"));
    assert_eq!(id_in(store, "other"), None);
}

fn predicates(store: &StateDriver, _: &ManualClock) {
    save_ids(store, &["a", "b"]);
    refused!(store.save_if(&[absent("plan")], record("a", "plan")).wait(), ConditionFailed);
    refused!(store.save_if(&[current("plan", "a")], record("a", "plan")).wait(), ConditionFailed);
    store.save_if(&[current("plan", "b")], record("a", "plan")).wait().unwrap();
    assert_eq!(id_in(store, "plan").as_deref(), Some("b"), "it was late");
}

fn not_found(store: &StateDriver, _: &ManualClock) {
    save_ids(store, &["a", "b"]);
    save_ids(store, &["a"]);
    refused!(store.load_by_event_id(&event("a")).wait(), NotFound);
    assert_eq!(ids(&all(store, "plan")), ["b"]);
    store.delete(&identity(), "plan").wait().unwrap();
    save_ids(store, &["b"]);
    refused!(store.load_by_event_id(&event("b")).wait(), NotFound);
    assert_eq!(all(store, "plan"), []);
}

fn current_again(store: &StateDriver, _: &ManualClock) {
    save_ids(store, &["a", "a"]);
    let other = StateRecord { bytes: b"other".to_vec(), ..record("a", "plan") };
    refused!(store.save(other).wait(), IdempotencyConflict);
    assert_eq!(id_in(store, "plan").as_deref(), Some("a"));
    save_ids(store, &["b", "b"]);
    assert_eq!(id_in(store, "plan").as_deref(), Some("b"));
}
