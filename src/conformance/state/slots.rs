//! One slot at a time: save, load, delete, close.

use super::calls::*;
use crate::clock::ManualClock;
use crate::conformance::Rule;
use crate::conformance::START;
use crate::limits::MAX_KEY_LEN;
use crate::stores::state::{Identity, ListScope, StateError, StateRecord};
use StateError::{IdempotencyConflict, IdentityRequired, InvalidRecord, NotFound, StoreClosed};
use std::time::Duration;

pub(super) const RULES: &[Rule<StateDriver>] = &[
    ("a state comes back equal by slot and by event id", comes_back),
    ("an absent state is NotFound by slot and by event id, and deleting it is fine", absent_state),
    ("the same event again, slot, bytes and version equal, writes nothing", same_again),
    (
        "the same event with other bytes, version or slot is IdempotencyConflict, and nothing changes",
        conflict,
    ),
    ("a new event overwrites the slot, and the old event id is no longer found", overwrites),
    ("the event id of a replaced or deleted state can be saved anew", id_again),
    ("a delete also clears the event id", delete_clears),
    ("the store sets updated_at when it is absent, and keeps it when it is given", updated_at),
    ("an empty tenant, user or session is IdentityRequired", identity_required),
    ("an empty run is a slot of its own", empty_run),
    ("an empty kind or event id is InvalidRecord", empty_kind_or_id),
    (
        "any string is a part of an identity, a kind and an event id, and no two are the same",
        any_string,
    ),
    ("strings of 64 KiB work, and longer ones are TooLarge", lengths),
    ("bytes of every value, none and a million come back equal", any_bytes),
    ("versions of both signs and the greatest size come back equal", versions),
    ("a call sees every call before it, awaited or not", in_order),
    ("after close every call is StoreClosed, and closing twice is fine", closed),
];

fn comes_back(store: &StateDriver, _: &ManualClock) {
    let (first, second) = (record("e1", "a"), record("e2", "b"));
    save(store, &first);
    save(store, &second);
    assert_eq!(store.load(&identity(), "a").wait().unwrap(), first);
    assert_eq!(store.load(&identity(), "b").wait().unwrap(), second);
    assert_eq!(store.load_by_event_id(&event("e1")).wait().unwrap(), first);
    assert_eq!(store.load_by_event_id(&event("e2")).wait().unwrap(), second);
}

fn absent_state(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    refused!(store.load(&identity(), "b").wait(), NotFound);
    refused!(store.load(&Identity::new("tenant", "user", "session", ""), "a").wait(), NotFound);
    refused!(store.load_by_event_id(&event("e2")).wait(), NotFound);
    store.delete(&identity(), "b").wait().unwrap();
    assert_eq!(id_in(store, "a").as_deref(), Some("e1"));
}

fn same_again(store: &StateDriver, clock: &ManualClock) {
    let given = StateRecord { updated_at: None, ..record("e1", "a") };
    save(store, &given);
    let saved = store.load(&identity(), "a").wait().unwrap();
    clock.advance(Duration::from_secs(5));
    save(store, &given);
    save(store, &StateRecord { updated_at: Some(9), ..given });
    assert_eq!(store.load(&identity(), "a").wait().unwrap(), saved);
}

fn conflict(store: &StateDriver, _: &ManualClock) {
    let first = record("e1", "a");
    save(store, &first);
    save(store, &record("e2", "taken"));
    let session_scoped = Identity::new("tenant", "user", "session", "");
    for other in [
        StateRecord { bytes: b"other".to_vec(), ..first.clone() },
        StateRecord { bytes: Vec::new(), ..first.clone() },
        StateRecord { version: 2, ..first.clone() },
        StateRecord { kind: "b".into(), ..first.clone() },
        StateRecord { kind: "taken".into(), ..first.clone() },
        StateRecord { identity: session_scoped, ..first.clone() },
    ] {
        refused!(store.save(other).wait(), IdempotencyConflict);
    }
    assert_eq!(all(store, "a"), [first]);
    assert_eq!(id_in(store, "taken").as_deref(), Some("e2"));
    assert_eq!(id_in(store, "b"), None);
}

fn overwrites(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    let second = StateRecord { version: -1, ..record("e2", "a") };
    save(store, &second);
    assert_eq!(store.load(&identity(), "a").wait().unwrap(), second);
    refused!(store.load_by_event_id(&event("e1")).wait(), NotFound);
    assert_eq!(all(store, "a"), [second]);
}

fn id_again(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    save(store, &record("e2", "a"));
    let elsewhere = StateRecord { version: 5, ..record("e1", "b") };
    save(store, &elsewhere);
    assert_eq!(store.load_by_event_id(&event("e1")).wait().unwrap(), elsewhere);
    store.delete(&identity(), "b").wait().unwrap();
    save(store, &record("e1", "a"));
    assert_eq!(id_in(store, "a").as_deref(), Some("e1"));
    refused!(store.load_by_event_id(&event("e2")).wait(), NotFound);
}

fn delete_clears(store: &StateDriver, _: &ManualClock) {
    save(store, &record("e1", "a"));
    save(store, &record("e2", "b"));
    for _ in 0..2 {
        store.delete(&identity(), "a").wait().unwrap();
        refused!(store.load(&identity(), "a").wait(), NotFound);
        refused!(store.load_by_event_id(&event("e1")).wait(), NotFound);
    }
    assert_eq!(all(store, "a"), []);
    assert_eq!(id_in(store, "b").as_deref(), Some("e2"));
}

fn updated_at(store: &StateDriver, clock: &ManualClock) {
    save(store, &StateRecord { updated_at: None, ..record("e1", "a") });
    clock.advance(Duration::from_millis(3));
    save(store, &StateRecord { updated_at: None, ..record("e2", "b") });
    save(store, &StateRecord { updated_at: Some(0), ..record("e3", "c") });
    save(store, &StateRecord { updated_at: Some(u64::MAX), ..record("e4", "d") });
    let at = |kind| store.load(&identity(), kind).wait().unwrap().updated_at;
    let start_ms = START * 1_000;
    assert_eq!(
        [at("a"), at("b"), at("c"), at("d")],
        [start_ms, start_ms + 3, 0, u64::MAX].map(Some)
    );
}

fn identity_required(store: &StateDriver, _: &ManualClock) {
    for incomplete in incomplete() {
        refused!(store.save(of(incomplete.clone(), "e1", "a")).wait(), IdentityRequired(_));
        refused!(store.save(of(incomplete.clone(), "", "")).wait(), IdentityRequired(_));
        refused!(store.load(&incomplete, "a").wait(), IdentityRequired(_));
        refused!(store.load(&incomplete, "").wait(), IdentityRequired(_));
        refused!(store.delete(&incomplete, "a").wait(), IdentityRequired(_));
    }
    refused!(store.load_by_event_id(&event("e1")).wait(), NotFound);
}

fn empty_run(store: &StateDriver, _: &ManualClock) {
    let session = Identity::new("tenant", "user", "session", "");
    save(store, &record("e1", "a"));
    save(store, &of(session.clone(), "e2", "a"));
    assert_eq!(id_in(store, "a").as_deref(), Some("e1"));
    assert_eq!(store.load(&session, "a").wait().unwrap().id, event("e2"));
    store.delete(&session, "a").wait().unwrap();
    assert_eq!(id_in(store, "a").as_deref(), Some("e1"));
}

fn empty_kind_or_id(store: &StateDriver, _: &ManualClock) {
    refused!(store.save(record("e1", "")).wait(), InvalidRecord(_));
    refused!(store.save(record("", "a")).wait(), InvalidRecord(_));
    refused!(store.load(&identity(), "").wait(), InvalidRecord(_));
    refused!(store.delete(&identity(), "").wait(), InvalidRecord(_));
    refused!(store.load_by_event_id(&event("")).wait(), InvalidRecord(_));
    assert_eq!(id_in(store, "a"), None);
}

fn any_string(store: &StateDriver, _: &ManualClock) {
    let mut records = Vec::new();
    for (place, other) in [(0, "x"), (1, "x"), (2, "x"), (3, ""), (4, "x")] {
        for text in TRICKY {
            let mut parts = ["x", "x", "x", other, "x"];
            if let Some(part) = parts.get_mut(place) {
                *part = text;
            }
            let [tenant, user, session, run, kind] = parts;
            let identity = Identity::new(tenant, user, session, run);
            records.push(of(identity, &format!("{place}{text}"), kind));
        }
    }
    for (neighbours, id) in
        [(("a\0", "b"), "n1"), (("a", "\0b"), "n2"), (("a\0\0", "b"), "n3"), (("a", "b"), "n4")]
    {
        records.push(of(Identity::new(neighbours.0, neighbours.1, "s", "r"), id, "k"));
    }
    records.iter().for_each(|record| save(store, record));
    for record in &records {
        assert_eq!(store.load(&record.identity, &record.kind).wait().unwrap(), *record);
        assert_eq!(store.load_by_event_id(&record.id).wait().unwrap(), *record);
    }
    for (done, record) in records.iter().enumerate() {
        store.delete(&record.identity, &record.kind).wait().unwrap();
        for other in records.iter().skip(done + 1) {
            assert!(
                store.load(&other.identity, &other.kind).wait().is_ok(),
                "{record:?} took {other:?} along"
            );
        }
    }
}

fn lengths(store: &StateDriver, _: &ManualClock) {
    let (longest, too_long) = ("k".repeat(MAX_KEY_LEN), "k".repeat(MAX_KEY_LEN + 1));
    let whose = Identity::new(&longest, &longest, &longest, &longest);
    let longest = of(whose.clone(), &longest, &longest);
    save(store, &longest);
    assert_eq!(store.load(&whose, &longest.kind).wait().unwrap(), longest);
    assert_eq!(store.load_by_event_id(&longest.id).wait().unwrap(), longest);
    assert_eq!(all(store, &longest.kind), [longest]);
    let small = record("e1", "a");
    for bad in [
        StateRecord { identity: Identity::new(&too_long, "u", "s", "r"), ..small.clone() },
        StateRecord { identity: Identity::new("t", &too_long, "s", "r"), ..small.clone() },
        StateRecord { identity: Identity::new("t", "u", &too_long, "r"), ..small.clone() },
        StateRecord { identity: Identity::new("t", "u", "s", &too_long), ..small.clone() },
        StateRecord { kind: too_long.clone(), ..small.clone() },
    ] {
        let (identity, kind) = (bad.identity.clone(), bad.kind.clone());
        assert!(is_too_large(&store.save(bad).wait().unwrap_err()), "save");
        assert!(is_too_large(&store.load(&identity, &kind).wait().unwrap_err()), "load");
        assert!(is_too_large(&store.delete(&identity, &kind).wait().unwrap_err()), "delete");
    }
    let bad = StateRecord { id: event(&too_long), ..small };
    assert!(is_too_large(&store.load_by_event_id(&bad.id).wait().unwrap_err()), "load_by_event_id");
    assert!(is_too_large(&store.save(bad).wait().unwrap_err()), "save");
    assert_eq!(id_in(store, "a"), None);
}

fn any_bytes(store: &StateDriver, _: &ManualClock) {
    let every: Vec<u8> = (0..=u8::MAX).collect();
    for (id, bytes) in
        [("none", Vec::new()), ("every", every.clone()), ("million", every.repeat(4_000))]
    {
        let record = StateRecord { bytes, ..record(id, id) };
        save(store, &record);
        assert_eq!(store.load(&identity(), id).wait().unwrap(), record);
    }
}

fn versions(store: &StateDriver, _: &ManualClock) {
    for version in [0, -1, i64::MIN, i64::MAX] {
        let record = StateRecord { version, ..record(&format!("e{version}"), "a") };
        save(store, &record);
        assert_eq!(store.load(&identity(), "a").wait().unwrap().version, version);
    }
}

fn in_order(store: &StateDriver, _: &ManualClock) {
    let first = store.save(record("e1", "a"));
    let loaded = store.load(&identity(), "a");
    let deleted = store.delete(&identity(), "a");
    let again = store.load(&identity(), "a");
    refused!(again.wait(), NotFound);
    deleted.wait().unwrap();
    assert_eq!(loaded.wait().unwrap().id, event("e1"));
    first.wait().unwrap();
}

fn closed(store: &StateDriver, _: &ManualClock) {
    let before = store.save(record("e1", "a"));
    store.close().wait().unwrap();
    before.wait().unwrap();
    store.close().wait().unwrap();
    let (scope, tenant) = (ListScope::maintenance(), "tenant");
    refused!(store.save(record("e2", "b")).wait(), StoreClosed);
    refused!(store.load(&identity(), "a").wait(), StoreClosed);
    refused!(store.load_by_event_id(&event("e1")).wait(), StoreClosed);
    refused!(store.delete(&identity(), "a").wait(), StoreClosed);
    refused!(store.list_kind(scope, "a").wait(), StoreClosed);
    refused!(store.save_if(&[absent("b")], record("e2", "b")).wait(), StoreClosed);
    refused!(store.save_batch_if(&[absent("b")], vec![record("e2", "b")]).wait(), StoreClosed);
    refused!(store.delete_if(&current("a", "e1")).wait(), StoreClosed);
    refused!(store.delete_scope(tenant, "user", "session").wait(), StoreClosed);
    refused!(store.list_kind_for_identity(&identity(), "a", None).wait(), StoreClosed);
    refused!(store.scan_kind_for_tenant(scope, tenant, "a", 1, None).wait(), StoreClosed);
}
