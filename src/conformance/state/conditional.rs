//! What happens only if: `save_if`, `save_batch_if`, `delete_if`; and `delete_scope`.

use super::calls::*;
use crate::clock::ManualClock;
use crate::conformance::Rule;
use crate::stores::state::{Identity, SlotExpectation, StateError, StateRecord};
use StateError::{ConditionFailed, IdempotencyConflict, IdentityRequired, InvalidRecord, NotFound};

pub(super) const RULES: &[Rule<StateDriver>] = &[
    ("save_if saves when the slot holds what is expected, or nothing as expected", save_if_holds),
    (
        "save_if with an expectation that fails is ConditionFailed, and nothing changes",
        save_if_fails,
    ),
    ("save_if may expect things of other slots too", save_if_other_slots),
    (
        "save_if of an event that was saved: predicates come first, idempotency after",
        predicates_first,
    ),
    ("save_batch_if saves all or nothing", batch),
    (
        "save_batch_if with a conflicting event is IdempotencyConflict, and nothing changes",
        batch_conflict,
    ),
    ("save_batch_if of events that were saved writes only the others", batch_partly_saved),
    (
        "a conditional save that cannot be understood is InvalidRecord, and nothing changes",
        misshapen,
    ),
    ("a conditional call with an incomplete identity is IdentityRequired", conditional_identity),
    ("delete_if deletes what is expected, once", delete_if),
    ("delete_if of an absent slot or another event is false, and nothing changes", delete_if_not),
    ("delete_if of a slot that is expected to be absent is InvalidRecord", delete_if_none),
    ("delete_scope removes every run and kind of a session, and nothing else", delete_scope),
    ("delete_scope with an incomplete triple is IdentityRequired", delete_scope_identity),
    ("of many save_if of one absent slot exactly one wins", race_absent),
    ("of many save_if of one event exactly one wins, again and again", race_current),
    ("of many save_batch_if that share a slot exactly one wins", race_batch),
    ("of many delete_if exactly one is true", race_delete),
];

fn save_if(
    store: &StateDriver,
    expectations: &[SlotExpectation],
    next: StateRecord,
) -> Result<(), StateError> {
    store.save_if(expectations, next).wait()
}

fn save_if_holds(store: &StateDriver, clock: &ManualClock) {
    let first = StateRecord { updated_at: None, ..record("e1", "a") };
    save_if(store, &[absent("a")], first.clone()).unwrap();
    let start = clock_ms(clock);
    assert_eq!(
        store.load(&identity(), "a").wait().unwrap(),
        StateRecord { updated_at: Some(start), ..first }
    );
    save_if(store, &[current("a", "e1")], record("e2", "a")).unwrap();
    assert_eq!(id_in(store, "a").as_deref(), Some("e2"));
    refused!(store.load_by_event_id(&event("e1")).wait(), NotFound);
    assert_eq!(ids(&all(store, "a")), ["e2"]);
}

fn clock_ms(clock: &ManualClock) -> u64 {
    use crate::clock::Clock;
    clock.now_ms()
}

fn save_if_fails(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    refused!(save_if(store, &[absent("a")], record("e2", "a")), ConditionFailed);
    refused!(save_if(store, &[current("a", "e0")], record("e2", "a")), ConditionFailed);
    refused!(save_if(store, &[current("b", "e1")], record("e2", "b")), ConditionFailed);
    refused!(
        save_if(store, &[current("a", "e1"), absent("a2"), current("b", "x")], record("e2", "a")),
        ConditionFailed
    );
    assert_eq!(id_in(store, "a").as_deref(), Some("e1"));
    assert_eq!(id_in(store, "b"), None);
    refused!(store.load_by_event_id(&event("e2")).wait(), NotFound);
}

fn save_if_other_slots(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "lock"));
    save_if(store, &[current("lock", "e1"), absent("a")], record("e2", "a")).unwrap();
    assert_eq!(id_in(store, "a").as_deref(), Some("e2"));
    assert_eq!(id_in(store, "lock").as_deref(), Some("e1"));
}

fn predicates_first(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    refused!(save_if(store, &[absent("a")], record("e1", "a")), ConditionFailed);
    refused!(
        save_if(store, &[absent("a")], StateRecord { version: 9, ..record("e1", "a") }),
        ConditionFailed
    );
    refused!(save_if(store, &[current("b", "x")], record("e1", "b")), ConditionFailed);
    save_if(store, &[current("a", "e1")], record("e1", "a")).unwrap();
    refused!(
        save_if(store, &[current("a", "e1")], StateRecord { version: 9, ..record("e1", "a") }),
        IdempotencyConflict
    );
    refused!(save_if(store, &[absent("b")], record("e1", "b")), IdempotencyConflict);
    assert_eq!(all(store, "a"), [record("e1", "a")]);
    assert_eq!(id_in(store, "b"), None);
}

fn batch(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    let expectations = [current("a", "e1"), absent("b")];
    store.save_batch_if(&expectations, vec![record("e2", "a"), record("e3", "b")]).wait().unwrap();
    assert_eq!([id_in(store, "a"), id_in(store, "b")], ["e2", "e3"].map(|id| Some(id.to_owned())));
    let again =
        store.save_batch_if(&expectations, vec![record("e4", "a"), record("e5", "b")]).wait();
    refused!(again, ConditionFailed);
    let half = [current("a", "e2"), absent("b")];
    let answer = store.save_batch_if(&half, vec![record("e4", "a"), record("e5", "b")]).wait();
    refused!(answer, ConditionFailed);
    assert_eq!([id_in(store, "a"), id_in(store, "b")], ["e2", "e3"].map(|id| Some(id.to_owned())));
    refused!(store.load_by_event_id(&event("e4")).wait(), NotFound);
}

fn batch_conflict(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    save(store, &record("e2", "other"));
    let expectations = [current("a", "e1"), absent("b"), absent("c")];
    for writes in [
        vec![record("e3", "c"), record("e2", "b")],
        // The event is current before the batch, so it does not matter that the batch replaces it.
        vec![record("e3", "a"), record("e1", "b")],
        vec![record("e1", "b"), record("e3", "a")],
    ] {
        refused!(store.save_batch_if(&expectations, writes).wait(), IdempotencyConflict);
    }
    let kinds = ["a", "b", "c", "other"].map(|kind| id_in(store, kind));
    assert_eq!(kinds, [Some("e1".to_owned()), None, None, Some("e2".to_owned())]);
}

fn batch_partly_saved(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    let expectations = [current("a", "e1"), absent("b")];
    store.save_batch_if(&expectations, vec![record("e1", "a"), record("e2", "b")]).wait().unwrap();
    assert_eq!(ids(&[all(store, "a"), all(store, "b")].concat()), ["e1", "e2"]);
}

fn misshapen(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    let write = || record("e2", "b");
    let elsewhere = SlotExpectation::absent(Identity::new("tenant", "user", "session", ""), "b");
    let no_id = SlotExpectation { expected: Some(event("")), ..absent("b") };
    for expectations in [
        vec![],
        vec![absent("b"), absent("b")],
        vec![absent("b"), current("b", "e1")],
        vec![absent("c")],
        vec![elsewhere],
        vec![absent("b"), absent("")],
        vec![no_id],
    ] {
        refused!(save_if(store, &expectations, write()), InvalidRecord(_));
        refused!(store.save_batch_if(&expectations, vec![write()]).wait(), InvalidRecord(_));
    }
    refused!(save_if(store, &[absent("b")], record("", "b")), InvalidRecord(_));
    let both = [absent("b"), absent("c")];
    for writes in [
        vec![],
        vec![record("e2", "b"), record("e2", "c")],
        vec![record("e2", "b"), record("e3", "b")],
        vec![record("e2", "b"), record("e3", "d")],
        vec![record("e2", "b"), record("", "c")],
    ] {
        refused!(store.save_batch_if(&both, writes).wait(), InvalidRecord(_));
    }
    // It is looked at before anything is read, so a failed expectation does not hide it.
    let failing = [absent("a"), absent("b")];
    refused!(
        store.save_batch_if(&failing, vec![write(), record("e2", "a")]).wait(),
        InvalidRecord(_)
    );
    assert_eq!(
        ["a", "b", "c", "d"].map(|kind| id_in(store, kind)),
        [Some("e1".to_owned()), None, None, None]
    );
}

fn conditional_identity(store: &StateDriver, _: &ManualClock) {
    for incomplete in incomplete() {
        let bad = SlotExpectation::absent(incomplete.clone(), "a");
        refused!(save_if(store, &[bad], of(incomplete.clone(), "e1", "a")), IdentityRequired(_));
        refused!(
            save_if(store, &[absent("a")], of(incomplete.clone(), "e1", "a")),
            IdentityRequired(_)
        );
        let bad = SlotExpectation::current(incomplete, "a", event("e1"));
        refused!(store.delete_if(&bad).wait(), IdentityRequired(_));
    }
}

fn delete_if(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    save(store, &record("e2", "b"));
    assert!(store.delete_if(&current("a", "e1")).wait().unwrap());
    assert!(!store.delete_if(&current("a", "e1")).wait().unwrap());
    refused!(store.load_by_event_id(&event("e1")).wait(), NotFound);
    assert_eq!(all(store, "a"), []);
    assert_eq!(id_in(store, "b").as_deref(), Some("e2"));
}

fn delete_if_not(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    save(store, &record("e2", "b"));
    for expectation in
        [current("c", "e1"), current("a", "e2"), current("a", "e"), current("a", "e11")]
    {
        assert!(!store.delete_if(&expectation).wait().unwrap());
    }
    assert_eq!([id_in(store, "a"), id_in(store, "b")], ["e1", "e2"].map(|id| Some(id.to_owned())));
}

fn delete_if_none(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    refused!(store.delete_if(&absent("a")).wait(), InvalidRecord(_));
    refused!(store.delete_if(&absent("b")).wait(), InvalidRecord(_));
    refused!(store.delete_if(&current("", "e1")).wait(), InvalidRecord(_));
    refused!(store.delete_if(&current("a", "")).wait(), InvalidRecord(_));
    assert_eq!(id_in(store, "a").as_deref(), Some("e1"));
}

fn delete_scope(store: &StateDriver, _: &ManualClock) {
    let inside = [("", "a"), ("", "b"), ("r1", "a"), ("r2", "\0"), ("\0", "a")];
    for (index, (run, kind)) in inside.into_iter().enumerate() {
        save(store, &of(Identity::new("t", "u", "s", run), &format!("in{index}"), kind));
    }
    let outside = [
        ("t", "u", "s\0"),
        ("t", "u", "s2"),
        ("t", "u2", "s"),
        ("t2", "u", "s"),
        ("t", "u\0", "s"),
    ];
    for (index, (tenant, user, session)) in outside.into_iter().enumerate() {
        save(store, &of(Identity::new(tenant, user, session, ""), &format!("out{index}"), "a"));
    }
    assert_eq!(store.delete_scope("t", "u", "s").wait().unwrap(), inside.len() as u64);
    assert_eq!(store.delete_scope("t", "u", "s").wait().unwrap(), 0);
    assert_eq!(store.delete_scope("never", "u", "s").wait().unwrap(), 0);
    refused!(store.load_by_event_id(&event("in0")).wait(), NotFound);
    refused!(store.load(&Identity::new("t", "u", "s", "r1"), "a").wait(), NotFound);
    assert_eq!(all(store, "a").len(), outside.len());
    assert_eq!(all(store, "\0"), []);
    save(store, &of(Identity::new("t", "u", "s", ""), "in0", "a"));
    assert_eq!(store.delete_scope("t", "u", "s").wait().unwrap(), 1);
}

fn delete_scope_identity(store: &StateDriver, _: &ManualClock) {
    for incomplete in incomplete() {
        let Identity { tenant, user, session, .. } = incomplete;
        refused!(store.delete_scope(&tenant, &user, &session).wait(), IdentityRequired(_));
    }
}

/// The index of the only one that won; the others must have been told that the condition failed.
fn only_winner(answers: Vec<Result<(), StateError>>) -> usize {
    let mut winners = Vec::new();
    for (index, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(()) => winners.push(index),
            Err(ConditionFailed) => {}
            Err(error) => panic!("racer {index}: {error}"),
        }
    }
    match winners.as_slice() {
        [winner] => *winner,
        winners => panic!("{} winners", winners.len()),
    }
}

fn race_absent(store: &StateDriver, _: &ManualClock) {
    let answers = race(|index| save_if(store, &[absent("a")], record(&format!("e{index}"), "a")));
    assert_eq!(id_in(store, "a"), Some(format!("e{}", only_winner(answers))));
}

fn race_current(store: &StateDriver, _: &ManualClock) {
    save(store, &record("start", "a"));
    let mut holder = "start".to_owned();
    for round in 0..4 {
        let answers = race(|index| {
            save_if(store, &[current("a", &holder)], record(&format!("{round}-{index}"), "a"))
        });
        holder = format!("{round}-{}", only_winner(answers));
        assert_eq!(id_in(store, "a").as_deref(), Some(holder.as_str()));
    }
    assert_eq!(all(store, "a").len(), 1);
}

fn race_batch(store: &StateDriver, _: &ManualClock) {
    let answers = race(|index| {
        let own = format!("own{index}");
        let expectations = [absent("shared"), absent(&own)];
        let writes =
            vec![record(&format!("s{index}"), "shared"), record(&format!("o{index}"), &own)];
        store.save_batch_if(&expectations, writes).wait()
    });
    let winner = only_winner(answers);
    assert_eq!(id_in(store, "shared"), Some(format!("s{winner}")));
    assert_eq!(ids(&all(store, "own")), [format!("o{winner}")]);
}

fn race_delete(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    let answers = race(|_| store.delete_if(&current("a", "e1")).wait().unwrap());
    assert_eq!(answers.into_iter().filter(|deleted| *deleted).count(), 1);
    assert_eq!(id_in(store, "a"), None);
}
