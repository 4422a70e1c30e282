//! Events that are delivered again after a newer one took their slot.

use cloakroom::drivers::InMemoryState;
use cloakroom::state::{Identity, SlotExpectation, State, StateError, StateRecord, StateStore};
use cloakroom::{Cloakroom, ManualClock};
use std::sync::Arc;
use std::time::Duration;

const WINDOW: Duration = Duration::from_secs(60);
const ONE_MS: Duration = Duration::from_millis(1);

fn whose() -> Identity {
    Identity::new("t", "u", "s", "")
}

fn event(id: &str) -> StateRecord {
    StateRecord::new(whose(), "plan", id.as_bytes()).with_id(id)
}

fn current(store: &dyn StateStore) -> Option<String> {
    match store.load(&whose(), "plan").wait() {
        Ok(record) => Some(record.id.as_str().to_owned()),
        Err(StateError::NotFound) => None,
        Err(error) => panic!("{error}"),
    }
}

fn save(store: &dyn StateStore, id: &str) {
    store.save(event(id)).wait().unwrap();
}

type Check = fn(&dyn StateStore, &ManualClock);

/// Runs a check on the engine and on the reference driver, each with a window of a minute.
fn with_window(check: Check) {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let room = Cloakroom::builder().clock(clock.clone()).open_in_memory().unwrap();
    check(&room.state().with_late_window(WINDOW), &clock);
    assert_eq!(room.verify().unwrap().findings, []);
    let clock = Arc::new(ManualClock::new(1_000_000));
    check(&InMemoryState::with_clock(clock.clone()).with_late_window(WINDOW), &clock);
}

#[test]
fn without_a_window_an_event_that_was_replaced_is_new() {
    let room = Cloakroom::builder().open_in_memory().unwrap();
    for store in [&room.state() as &dyn StateStore, &InMemoryState::new()] {
        ["a", "b", "a"].into_iter().for_each(|id| save(store, id));
        assert_eq!(current(store).as_deref(), Some("a"));
        store.delete(&whose(), "plan").wait().unwrap();
        save(store, "a");
        assert_eq!(current(store).as_deref(), Some("a"));
        // What prevents it for every handle.
        save(store, "b");
        let empty = SlotExpectation::absent(whose(), "plan");
        let answer = store.save_if(&[empty], event("a")).wait();
        assert!(matches!(answer, Err(StateError::ConditionFailed)), "{answer:?}");
    }
}

#[test]
fn within_the_window_a_late_event_is_ok_and_writes_nothing() {
    with_window(|store, clock| {
        ["a", "b", "a", "c", "a", "b"].into_iter().for_each(|id| save(store, id));
        assert_eq!(current(store).as_deref(), Some("c"));
        let gone = store.load_by_event_id(&"a".into()).wait();
        assert!(matches!(gone, Err(StateError::NotFound)), "{gone:?}");
        clock.advance(WINDOW - ONE_MS);
        save(store, "a");
        assert_eq!(current(store).as_deref(), Some("c"));
        clock.advance(ONE_MS);
        save(store, "a");
        assert_eq!(current(store).as_deref(), Some("a"), "the window is over");
    });
}

#[test]
fn events_of_deleted_slots_are_remembered_too() {
    with_window(|store, clock| {
        let deletes: [fn(&dyn StateStore, &str); 3] = [
            |store, _| store.delete(&whose(), "plan").wait().unwrap(),
            |store, id| {
                let mine = SlotExpectation::current(whose(), "plan", id.into());
                assert!(store.delete_if(&mine).wait().unwrap());
            },
            |store, _| assert_eq!(store.delete_scope("t", "u", "s").wait().unwrap(), 1),
        ];
        for (number, delete) in deletes.into_iter().enumerate() {
            let id = format!("e{number}");
            save(store, &id);
            delete(store, &id);
            save(store, &id);
            assert_eq!(current(store), None, "{id}");
        }
        clock.advance(WINDOW);
        save(store, "e0");
        assert_eq!(current(store).as_deref(), Some("e0"));
    });
}

#[test]
fn another_record_under_a_late_event_id_is_a_conflict() {
    with_window(|store, _| {
        ["a", "b"].into_iter().for_each(|id| save(store, id));
        let others = [
            StateRecord { bytes: b"other".to_vec(), ..event("a") },
            event("a").with_version(9),
            StateRecord { kind: "other".into(), ..event("a") },
            StateRecord { identity: Identity::new("t", "u", "other", ""), ..event("a") },
        ];
        for other in others {
            let answer = store.save(other).wait();
            assert!(matches!(answer, Err(StateError::IdempotencyConflict)), "{answer:?}");
        }
        assert_eq!(current(store).as_deref(), Some("b"));
        // The conditions come first, and idempotency after.
        let wrong = SlotExpectation::absent(whose(), "plan");
        let answer = store.save_if(&[wrong], event("a")).wait();
        assert!(matches!(answer, Err(StateError::ConditionFailed)), "{answer:?}");
        let right = SlotExpectation::current(whose(), "plan", "b".into());
        store.save_if(&[right], event("a")).wait().unwrap();
        assert_eq!(current(store).as_deref(), Some("b"));
    });
}

#[test]
fn what_is_remembered_is_swept_exported_and_reopened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    let clock = Arc::new(ManualClock::new(1_000_000));
    let open =
        || Cloakroom::builder().clock(clock.clone()).sweep_interval(None).open(&path).unwrap();
    let windowed = |room: &Cloakroom| -> State { room.state().with_late_window(WINDOW) };
    let room = open();
    ["a", "b"].into_iter().for_each(|id| save(&windowed(&room), id));
    let mut lines = Vec::new();
    room.export(&mut lines).unwrap();
    room.close().unwrap();
    let room = open();
    save(&windowed(&room), "a");
    assert_eq!(current(&room.state()).as_deref(), Some("b"));

    let copy_clock = Arc::new(ManualClock::new(1_000_000));
    let copy = Cloakroom::builder().clock(copy_clock.clone()).sweep_interval(None);
    let copy = copy.open_in_memory().unwrap();
    copy.import(&mut lines.as_slice()).unwrap();
    save(&windowed(&copy), "a");
    assert_eq!(current(&copy.state()).as_deref(), Some("b"));
    assert_eq!(copy.verify().unwrap().findings, []);
    copy_clock.advance(WINDOW);
    assert_eq!(copy.sweep().unwrap().total(), 1);
    assert_eq!(copy.sweep().unwrap().total(), 0);
    assert_eq!(copy.verify().unwrap().findings, []);
    save(&windowed(&copy), "a");
    assert_eq!(current(&copy.state()).as_deref(), Some("a"));

    let in_transaction = room.atomically(|tx| {
        windowed(&room).within(tx).save(event("c"))?;
        windowed(&room).within(tx).save(event("b"))?;
        Ok::<_, StateError>(tx.state().load(&whose(), "plan")?.id)
    });
    assert_eq!(in_transaction.wait().unwrap().as_str(), "c");
}
