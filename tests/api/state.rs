//! Agent states in a room: transactions, closing, drivers, and what a restart keeps.

use crate::rooms::{insert, small};
use cloakroom::drivers::{self, StateConfig};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::limits::LONGEST_KEYS_LOG_CAPACITY;
use cloakroom::state::{Identity, ListScope, SlotExpectation, StateError, StateRecord, StateStore};
use cloakroom::{Cloakroom, Durability, Error};
use std::panic::catch_unwind;
use std::sync::Arc;
use std::thread;

fn whose() -> Identity {
    Identity::new("acme", "ada", "s1", "")
}

fn record(id: &str, kind: &str) -> StateRecord {
    StateRecord { id: id.into(), ..StateRecord::new(whose(), kind, id) }
}

#[test]
fn closing_the_store_closes_its_clones_and_not_the_room() {
    let room = small().open_in_memory().unwrap();
    let (state, other) = (room.state(), room.state());
    let clone = state.clone();
    let before = state.save(record("e1", "a"));
    state.close().wait().unwrap();
    before.wait().unwrap();
    assert!(matches!(clone.load(&whose(), "a").wait(), Err(StateError::StoreClosed)));
    assert!(matches!(clone.list(None, 1).wait(), Err(StateError::StoreClosed)));
    assert_eq!(other.load(&whose(), "a").wait().unwrap().id.as_str(), "e1");
    insert(&room.form_tokens(), "t").wait().unwrap();
    room.close().unwrap();
    assert!(matches!(other.load(&whose(), "a").wait(), Err(StateError::StoreClosed)));
    assert!(matches!(other.save(record("e2", "a")).wait(), Err(StateError::StoreClosed)));
    other.close().wait().unwrap();
}

#[test]
fn state_is_saved_together_with_other_stores_or_not_at_all() {
    let room = small().open_in_memory().unwrap();
    let failed = room.atomically(|tx| {
        tx.handoff().set("h", &crate::rooms::state(1), 60)?;
        tx.state().save(record("e1", "a"))?;
        assert_eq!(tx.state().load(&whose(), "a")?.id.as_str(), "e1");
        assert_eq!(tx.state().list_kind(ListScope::maintenance(), "a")?.len(), 1);
        tx.state().save_if(&[SlotExpectation::absent(whose(), "a")], record("e2", "a"))?;
        Ok::<_, StateError>(())
    });
    assert!(matches!(failed.wait(), Err(StateError::ConditionFailed)));
    assert_eq!(room.handoff().get("h").wait().unwrap(), None);
    assert!(matches!(room.state().load(&whose(), "a").wait(), Err(StateError::NotFound)));

    let before = room.engine_stats().unwrap().newest_lsn;
    let done = room.atomically(|tx| {
        tx.state().save(record("e1", "a"))?;
        tx.state().save(record("e2", "a"))?;
        tx.state().save(record("e3", "b"))?;
        tx.state().delete(&whose(), "b")?;
        assert_eq!(tx.state().delete_scope("acme", "ada", "s1")?, 1);
        tx.state()
            .save_batch_if(&[SlotExpectation::absent(whose(), "a")], vec![record("e4", "a")])?;
        assert!(!tx.state().delete_if(&SlotExpectation::current(whose(), "a", "e3".into()))?);
        tx.handoff().set("h", &crate::rooms::state(1), 60)
    });
    done.wait().unwrap();
    assert_eq!(room.engine_stats().unwrap().newest_lsn, before + 1);
    assert_eq!(room.state().load_by_event_id(&"e4".into()).wait().unwrap().kind, "a");
    let refused: Error =
        room.atomically(|tx| Ok(tx.state().save(record("e4", "b"))?)).wait().unwrap_err();
    assert!(matches!(StateError::from(refused), StateError::IdempotencyConflict));
}

#[test]
fn counters_under_optimistic_concurrency_lose_nothing_and_survive_a_restart() {
    const THREADS: u64 = 32;
    const ROUNDS: u64 = 8;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.cloak");
    let room = small().open(&path).unwrap();
    let count =
        |record: &StateRecord| u64::from_le_bytes(record.bytes.as_slice().try_into().unwrap());
    room.state().save(StateRecord::new(whose(), "count", 0u64.to_le_bytes())).wait().unwrap();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let state = room.state();
                for _ in 0..ROUNDS {
                    loop {
                        let now = state.load(&whose(), "count").wait().unwrap();
                        let expected = SlotExpectation::current(whose(), "count", now.id.clone());
                        let next =
                            StateRecord::new(whose(), "count", (count(&now) + 1).to_le_bytes());
                        match state.save_if(&[expected], next).wait() {
                            Ok(()) => break,
                            Err(StateError::ConditionFailed) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
    });
    drop(room);
    let room = small().open(&path).unwrap();
    assert_eq!(count(&room.state().load(&whose(), "count").wait().unwrap()), THREADS * ROUNDS);
    assert_eq!(room.state().stats().wait().unwrap().states, 1);
}

#[test]
fn slots_events_and_kinds_agree_under_many_threads() {
    const THREADS: usize = 128;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mixed.cloak");
    let room = small().durability(Durability::Os).open(&path).unwrap();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let state = room.state();
            scope.spawn(move || {
                for round in 0..20 {
                    let kind = format!("k{}", (thread + round) % 7);
                    let next = record(&format!("{thread}-{round}"), &kind);
                    let allowed = |answer: Result<(), StateError>| match answer {
                        Ok(()) | Err(StateError::ConditionFailed) => {}
                        Err(error) => panic!("{error}"),
                    };
                    match (thread + round) % 5 {
                        0 => state.save(next).wait().unwrap(),
                        1 => allowed(
                            state.save_if(&[SlotExpectation::absent(whose(), &*kind)], next).wait(),
                        ),
                        2 => state.delete(&whose(), &kind).wait().unwrap(),
                        3 => match state.load(&whose(), &kind).wait() {
                            Ok(now) => {
                                let expected = SlotExpectation::current(whose(), &*kind, now.id);
                                allowed(state.save_if(&[expected], next).wait());
                            }
                            Err(error) => assert!(matches!(error, StateError::NotFound)),
                        },
                        _ if round == 19 => {
                            assert!(state.delete_scope("acme", "ada", "s1").wait().unwrap() <= 7)
                        }
                        _ => {
                            let listed =
                                state.list_kind(ListScope::maintenance(), "k").wait().unwrap();
                            assert!(listed.is_sorted_by(|a, b| a.kind < b.kind));
                        }
                    }
                }
            });
        }
    });
    for reopened in [false, true] {
        let room = if reopened {
            room.close().unwrap();
            small().open(&path).unwrap()
        } else {
            room.clone()
        };
        let state = room.state();
        let listed = state.list_kind(ListScope::maintenance(), "k").wait().unwrap();
        let scanned = state
            .scan_kind_for_tenant(ListScope::maintenance(), "acme", "k", 256, None)
            .wait()
            .unwrap();
        assert_eq!(scanned.items, listed);
        assert_eq!(state.stats().wait().unwrap().states, listed.len() as u64);
        for record in &listed {
            assert_eq!(state.load_by_event_id(&record.id).wait().unwrap(), *record);
        }
    }
}

#[test]
fn a_session_larger_than_a_segment_is_removed_whole() {
    let room = small().log_capacity(LONGEST_KEYS_LOG_CAPACITY).open_in_memory().unwrap();
    let state = room.state();
    let long = "k".repeat(8_000);
    const STATES: u64 = 400;
    let saves: Vec<_> = (0..STATES)
        .map(|number| state.save(record(&format!("e{number}"), &format!("{long}{number}"))))
        .collect();
    saves.into_iter().for_each(|save| save.wait().unwrap());
    assert_eq!(state.delete_scope("acme", "ada", "s1").wait().unwrap(), STATES);
    assert_eq!(state.stats().wait().unwrap(), Default::default());
    assert_eq!(state.list_kind(ListScope::maintenance(), "k").wait().unwrap(), []);
}

#[test]
fn a_record_larger_than_a_segment_is_too_large_and_changes_nothing() {
    let room = small().open_in_memory().unwrap();
    room.state().save(record("e1", "a")).wait().unwrap();
    let huge =
        StateRecord { bytes: vec![0; LONGEST_KEYS_LOG_CAPACITY as usize / 2], ..record("e2", "a") };
    let answer = room.state().save(huge).wait();
    assert!(matches!(answer, Err(StateError::Store(Error::TooLarge { .. }))), "{answer:?}");
    assert_eq!(room.state().load(&whose(), "a").wait().unwrap().id.as_str(), "e1");
}

#[test]
fn a_listing_pages_through_every_slot() {
    let room = small().open_in_memory().unwrap();
    for number in 0..70 {
        room.state().save(record(&format!("e{number}"), &format!("k{number:02}"))).wait().unwrap();
    }
    let (mut kinds, mut cursor) = (Vec::new(), None);
    loop {
        let page = room.state().list(cursor.as_ref(), 35).wait().unwrap();
        kinds.extend(page.items.into_iter().map(|entry| entry.kind));
        let Some(next) = page.next else { break };
        cursor = Some(next);
    }
    assert_eq!(kinds, (0..70).map(|number| format!("k{number:02}")).collect::<Vec<_>>());
    // A cursor of one listing is none of another's.
    let page = room.state().list(None, 1).wait().unwrap();
    let scanned = room
        .state()
        .scan_kind_for_tenant(ListScope::maintenance(), "acme", "k", 1, page.next.as_ref())
        .wait();
    assert!(matches!(scanned, Err(StateError::InvalidScan(_))));
    let foreign = room.handoff().list(page.next.as_ref(), 1).wait();
    assert!(matches!(foreign, Err(Error::InvalidConfig(_))));
}

#[test]
fn the_cloakroom_driver_keeps_its_file_and_close_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agents.cloak");
    let config = StateConfig { driver: "cloakroom".into(), dsn: path.to_str().unwrap().into() };
    let store = drivers::open(&config).unwrap();
    store.save(record("e1", "a")).wait().unwrap();
    assert!(matches!(drivers::open(&config), Err(StateError::Store(Error::Locked { .. }))));
    store.close().wait().unwrap();
    store.close().wait().unwrap();
    let again = drivers::open(&config).unwrap();
    assert_eq!(again.load(&whose(), "a").wait().unwrap().id.as_str(), "e1");
    drop(again);
    Cloakroom::open(&path).unwrap();
    let nowhere = StateConfig { driver: "cloakroom".into(), dsn: String::new() };
    assert!(matches!(drivers::open(&nowhere), Err(StateError::Store(Error::InvalidConfig(_)))));
}

#[test]
fn drivers_are_registered_once_and_found_by_name() {
    let factory = |_: &StateConfig| -> Result<Arc<dyn StateStore>, StateError> {
        Ok(Arc::new(drivers::InMemoryState::new()))
    };
    drivers::register("mine", factory);
    assert_eq!(drivers::registered(), ["cloakroom", "inmem", "mine"]);
    for name in ["mine", "inmem", ""] {
        assert!(catch_unwind(|| drivers::register(name, factory)).is_err(), "{name:?}");
    }
    for driver in ["mine", "inmem", ""] {
        let store =
            drivers::open(&StateConfig { driver: driver.into(), dsn: "ignored".into() }).unwrap();
        store.save(record("e1", "a")).wait().unwrap();
    }
    assert_eq!(StateConfig::default().driver, "inmem");
    match drivers::open(&StateConfig { driver: "postgres".into(), dsn: String::new() }) {
        Err(error @ StateError::UnknownDriver { .. }) => {
            let message = error.to_string();
            assert!(
                message.contains("postgres") && message.contains("cloakroom, inmem, mine"),
                "{message}"
            );
        }
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn the_longest_strings_fit_the_smallest_log_even_when_they_are_all_nul() {
    let longest = "\0".repeat(cloakroom::limits::MAX_KEY_LEN);
    let whose = Identity::new(&longest, &longest, &longest, &longest);
    let record = StateRecord {
        id: longest.as_str().into(),
        ..StateRecord::new(whose.clone(), &longest, *b"b")
    };
    let room = small().open_in_memory().unwrap();
    room.state().save(record.clone()).wait().unwrap();
    room.checkpoint().unwrap();
    assert_eq!(room.state().load_by_event_id(&record.id).wait().unwrap().identity, whose);
    assert_eq!(room.state().list_kind(ListScope::maintenance(), "\0").wait().unwrap().len(), 1);
    room.state().delete(&whose, &longest).wait().unwrap();
}
