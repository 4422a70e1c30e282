//! What the contracts of the stores say about the edges: the greatest keys, numbers and spans,
//! hostile names, and calls that come after the end.

use crate::rooms::{NOW_MS, small};
use cloakroom::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitStore, Priority};
use cloakroom::cache::CacheStore;
use cloakroom::dedupe::DedupeStore;
use cloakroom::drivers::InMemoryState;
use cloakroom::limits::{LONGEST_KEYS_LOG_CAPACITY, MAX_KEY_LEN};
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::state::{
    EventId, Identity, ListScope, SlotExpectation, StateError, StateRecord, StateStore,
};
use cloakroom::{Cloakroom, Error, ManualClock};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const SCOPE: fn() -> ListScope = ListScope::maintenance;
/// Names that would run into each other if a separator could be forged.
const NAMES: [&str; 8] = ["", "a", "a\0", "a\0b", "a\0\0", "\0", "a\u{ff}", "\u{10ffff}"];

fn clocked() -> (Cloakroom, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let builder = Cloakroom::builder().log_capacity(LONGEST_KEYS_LOG_CAPACITY).clock(clock.clone());
    (builder.open_in_memory().unwrap(), clock)
}

fn limit(limit: u64, seconds: u64) -> RateLimitConfig {
    RateLimitConfig { limit, window: Duration::from_secs(seconds) }
}

fn record(id: &str, identity: Identity, kind: &str) -> StateRecord {
    StateRecord { id: id.into(), ..StateRecord::new(identity, kind, *b"bytes") }
}

/// Both drivers of agent state.
fn states() -> [Arc<dyn StateStore>; 2] {
    [Arc::new(small().open_in_memory().unwrap().state()), Arc::new(InMemoryState::new())]
}

#[test]
fn the_longest_strings_of_zero_bytes_are_keys_in_the_smallest_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    let long = "\0".repeat(MAX_KEY_LEN);
    let whose = Identity::new(&*long, &*long, &*long, &*long);
    let ids = [long.clone(), format!("1{}", &long[1..])];
    let room = small().open(&path).unwrap();
    for id in &ids {
        let state = StateRecord { bytes: vec![7; 1 << 20], ..record(id, whose.clone(), &long) };
        room.state().save(state).wait().unwrap();
    }
    let cache = room.cache::<u64>(&long);
    cache.set_with_tags(&long, &7, 1, &["x"]).wait().unwrap();
    cache.set(&long, &8, 2).wait().unwrap();
    let jobs = room.dedupe::<u64>(&long);
    jobs.register(&long).wait().unwrap();
    jobs.complete(&long, &7).wait().unwrap();
    let plain = room.rate_limit(&long, limit(1, 60)).unwrap();
    plain.set_resource_config(&long, limit(2, 60)).wait().unwrap();
    plain.set_cooldown(&long, u64::MAX).wait().unwrap();
    assert!(plain.acquire(&long).wait().unwrap());
    let adaptive =
        room.adaptive_rate_limit(&long, limit(20, 60), AdaptiveConfig::default()).unwrap();
    assert!(adaptive.acquire(&long, Priority::User).wait().unwrap());
    room.close().unwrap();

    let room = small().open(&path).unwrap();
    let state = room.state();
    assert_eq!(state.load(&whose, &long).wait().unwrap().id.as_str(), ids[1]);
    assert!(matches!(
        state.load_by_event_id(&ids[0].as_str().into()).wait(),
        Err(StateError::NotFound)
    ));
    assert_eq!(state.list_kind(SCOPE(), &long).wait().unwrap().len(), 1);
    assert_eq!(
        state.scan_kind_for_tenant(SCOPE(), &long, &long, 1, None).wait().unwrap().items.len(),
        1
    );
    assert_eq!(state.delete_scope(&long, &long, &long).wait().unwrap(), 1);
    assert_eq!(room.cache::<u64>(&long).get(&long).wait().unwrap(), Some(8));
    assert_eq!(room.cache::<u64>(&long).invalidate_by_tag("x").wait().unwrap(), 1);
    assert_eq!(room.dedupe::<u64>(&long).wait_for(&long).wait().unwrap(), Some(7));
    let plain = room.rate_limit(&long, limit(1, 60)).unwrap();
    assert_eq!(plain.status(&long).wait().unwrap().remaining, 1);
    assert_eq!(plain.cooldown(&long).wait().unwrap(), Some(u64::MAX));
}

#[test]
fn nothing_leaks_between_names() {
    let room = small().open_in_memory().unwrap();
    for name in NAMES {
        for key in NAMES {
            let value = format!("{name:?} {key:?}");
            room.cache(name).set_with_tags(key, &value, 0, &[key]).wait().unwrap();
            let jobs = room.dedupe::<String>(name);
            assert!(jobs.register_or_join(key).wait().unwrap().is_owner);
            jobs.complete(key, &value).wait().unwrap();
            let plain = room.rate_limit(name, limit(1, 60)).unwrap();
            assert!(plain.acquire(key).wait().unwrap());
            plain.set_cooldown(key, NOW_MS + 1).wait().unwrap();
            let adaptive =
                room.adaptive_rate_limit(name, limit(2, 60), AdaptiveConfig::default()).unwrap();
            assert!(adaptive.acquire(key, Priority::User).wait().unwrap());
        }
    }
    // What one name loses, the others keep.
    room.cache::<String>("a").clear(None).wait().unwrap();
    room.cache::<String>("a\0").invalidate_by_tag("a").wait().unwrap();
    room.dedupe::<String>("a").clear(None).wait().unwrap();
    room.rate_limit("a", limit(1, 60)).unwrap().clear().wait().unwrap();
    for name in NAMES {
        let plain = room.rate_limit(name, limit(1, 60)).unwrap();
        let adaptive =
            room.adaptive_rate_limit(name, limit(2, 60), AdaptiveConfig::default()).unwrap();
        for key in NAMES {
            let value = format!("{name:?} {key:?}");
            let cached = room.cache::<String>(name).get(key).wait().unwrap();
            let is_gone = name == "a" || (name, key) == ("a\0", "a");
            assert_eq!(cached, (!is_gone).then(|| value.clone()), "{value}");
            let finished = room.dedupe::<String>(name).wait_for(key).wait().unwrap();
            assert_eq!(finished, (name != "a").then(|| value.clone()), "{value}");
            assert_eq!(plain.can_proceed(key).wait().unwrap(), name == "a", "{value}");
            assert_eq!(plain.cooldown(key).wait().unwrap().is_none(), name == "a", "{value}");
            assert_eq!(adaptive.status(key).wait().unwrap().remaining, 1, "{value}");
        }
    }
}

#[test]
fn nothing_leaks_between_identities() {
    let parts = ["a", "a\0", "a\0b", "\0", "b", "a\u{ff}"];
    for state in states() {
        let mut expected = Vec::new();
        for tenant in parts {
            for user in parts {
                for session in ["s", "s\0"] {
                    let identity = Identity::new(tenant, user, session, "");
                    let id = format!("{identity:?}");
                    state.save(record(&id, identity.clone(), "k")).wait().unwrap();
                    expected.push((identity, id));
                }
            }
        }
        for (identity, id) in &expected {
            assert_eq!(state.load(identity, "k").wait().unwrap().id.as_str(), id);
            assert_eq!(state.list_kind_for_identity(identity, "k", None).wait().unwrap().len(), 1);
        }
        for tenant in parts {
            let page = state.scan_kind_for_tenant(SCOPE(), tenant, "k", 256, None).wait().unwrap();
            assert_eq!(page.items.len(), 2 * parts.len());
            assert!(page.items.iter().all(|record| record.identity.tenant == tenant));
        }
        assert_eq!(state.delete_scope("a", "a", "s").wait().unwrap(), 1);
        assert_eq!(state.delete_scope("a", "a", "s").wait().unwrap(), 0);
        assert_eq!(state.list_kind(SCOPE(), "k").wait().unwrap().len(), expected.len() - 1);
    }
}

#[test]
fn a_cache_takes_every_time_to_live() {
    let (room, clock) = clocked();
    let cache = room.cache::<u64>("http");
    for ttl_seconds in [i64::MAX, i64::MAX / 1_000, 0] {
        cache.set("h", &7, ttl_seconds).wait().unwrap();
        assert_eq!(cache.get("h").wait().unwrap(), Some(7), "{ttl_seconds}");
    }
    for ttl_seconds in [i64::MIN, -1] {
        cache.set_with_tags("h", &7, 0, &["x"]).wait().unwrap();
        cache.set("h", &8, ttl_seconds).wait().unwrap();
        assert_eq!(cache.get("h").wait().unwrap(), None, "{ttl_seconds}");
        assert_eq!(cache.invalidate_by_tag("x").wait().unwrap(), 0);
    }
    // The tags stay with a live entry, and not with one that ended.
    cache.set_with_tags("h", &1, 1, &["x"]).wait().unwrap();
    cache.set("h", &2, 2).wait().unwrap();
    clock.advance(Duration::from_secs(2));
    assert_eq!(cache.invalidate_by_tag("x").wait().unwrap(), 0);
    cache.set_with_tags("h", &1, 1, &["x"]).wait().unwrap();
    clock.advance(Duration::from_secs(1));
    cache.set("h", &3, 0).wait().unwrap();
    assert_eq!(cache.invalidate_by_tag("x").wait().unwrap(), 0);
    assert_eq!(cache.get("h").wait().unwrap(), Some(3));
    cache.set_with_tags("h", &4, 0, &["x", "y", "x"]).wait().unwrap();
    cache.set("h", &5, 0).wait().unwrap();
    assert_eq!(cache.invalidate_by_tags(&["y", "x", "y"]).wait().unwrap(), 1);
}

#[test]
fn a_value_that_does_not_decode_is_removed_with_its_tags() {
    let (room, _) = clocked();
    let texts = room.cache::<String>("http");
    texts.set_with_tags("h", &"text".to_owned(), 0, &["x"]).wait().unwrap();
    assert_eq!(room.cache::<u64>("http").get("h").wait().unwrap(), None);
    assert_eq!(texts.get("h").wait().unwrap(), None);
    assert_eq!(texts.invalidate_by_tag("x").wait().unwrap(), 0);
    assert_eq!(texts.stats().wait().unwrap().bytes, 0);
}

#[test]
fn jobs_end_once_and_unknown_ones_not_at_all() {
    let (room, clock) = clocked();
    let jobs = room.dedupe::<u64>("http").with_job_timeout(Duration::ZERO);
    jobs.complete("h", &1).wait().unwrap();
    jobs.fail("h", "error").wait().unwrap();
    assert_eq!(jobs.wait_for("h").wait().unwrap(), None);
    assert!(!jobs.is_in_progress("h").wait().unwrap());
    let job = jobs.register("h").wait().unwrap();
    clock.advance(Duration::from_secs(1 << 40));
    assert!(jobs.is_in_progress("h").wait().unwrap());
    assert!(jobs.complete_owned("h", &job, &1).wait().unwrap());
    jobs.fail("h", "too late").wait().unwrap();
    jobs.complete("h", &2).wait().unwrap();
    assert!(!jobs.complete_owned("h", &job, &3).wait().unwrap());
    assert!(!jobs.fail_owned("h", &job, "too late").wait().unwrap());
    clock.advance(Duration::from_secs(1 << 40));
    assert_eq!(jobs.wait_for("h").wait().unwrap(), Some(1));
    assert!(jobs.register_or_join("h").wait().unwrap().is_owner);
}

#[test]
fn a_job_keeps_values_as_deep_as_a_cache_does() {
    let (room, _) = clocked();
    let nested = |levels: usize| (0..levels).fold(Value::Null, |inner, _| json!([inner]));
    let jobs = room.dedupe::<Value>("http");
    for levels in [127, 128, 500] {
        jobs.register("h").wait().unwrap();
        jobs.complete("h", &nested(levels)).wait().unwrap();
        assert!(jobs.wait_for("h").wait().unwrap() == Some(nested(levels)), "{levels}");
    }
    jobs.register("h").wait().unwrap();
    assert!(matches!(jobs.complete("h", &nested(600)).wait(), Err(Error::Encode(_))));
    assert!(jobs.is_in_progress("h").wait().unwrap());
}

#[test]
fn rate_limits_hold_at_the_edges_of_their_numbers() {
    let (room, clock) = clocked();
    let api = room.rate_limit("api", limit(2, 60)).unwrap();
    for _ in 0..5 {
        api.record("r").wait().unwrap();
    }
    assert_eq!(api.status("r").wait().unwrap().remaining, 0);
    api.set_resource_config("r", limit(0, 7)).wait().unwrap();
    assert!(!api.acquire("r").wait().unwrap());
    assert_eq!(api.wait_time("r").wait().unwrap(), Duration::from_secs(7));
    let refused = api.set_resource_config("r", limit(9, 0)).wait();
    assert!(matches!(refused, Err(Error::InvalidConfig(_))), "{refused:?}");
    assert!(matches!(room.rate_limit("x", limit(9, 0)), Err(Error::InvalidConfig(_))));
    api.reset("r").wait().unwrap();
    assert_eq!(api.resource_config("r").wait().unwrap(), limit(0, 7));
    let greatest = RateLimitConfig { limit: u64::MAX, window: Duration::MAX };
    api.set_resource_config("r", greatest).wait().unwrap();
    assert!(api.acquire("r").wait().unwrap());
    let status = api.status("r").wait().unwrap();
    assert_eq!((status.remaining, status.reset_time), (u64::MAX - 1, u64::MAX));
    clock.advance(Duration::from_secs(1 << 40));
    assert_eq!(api.status("r").wait().unwrap().remaining, u64::MAX - 1);
    api.clear().wait().unwrap();
    assert_eq!(api.status("r").wait().unwrap().remaining, u64::MAX);
    assert_eq!(api.resource_config("r").wait().unwrap(), greatest);
    // A window that was shortened and is as long as before again counts what is in it.
    api.set_resource_config("s", limit(2, 60)).wait().unwrap();
    api.record("s").wait().unwrap();
    api.set_resource_config("s", limit(2, 1)).wait().unwrap();
    clock.advance(Duration::from_secs(30));
    assert_eq!(api.status("s").wait().unwrap().remaining, 2);
    api.set_resource_config("s", limit(2, 60)).wait().unwrap();
    assert_eq!(api.status("s").wait().unwrap().remaining, 1);
}

#[test]
fn a_missing_identity_is_refused_before_an_invalid_record() {
    let (good, none) = (Identity::new("t", "u", "s", ""), Identity::new("t", "", "s", ""));
    for state in states() {
        let required = |answer: Result<(), StateError>| {
            assert!(matches!(answer, Err(StateError::IdentityRequired(_))), "{answer:?}");
        };
        let invalid = |answer: Result<(), StateError>| {
            assert!(matches!(answer, Err(StateError::InvalidRecord(_))), "{answer:?}");
        };
        let expect = |identity: &Identity, kind: &str, id: Option<&str>| SlotExpectation {
            identity: identity.clone(),
            kind: kind.into(),
            expected: id.map(EventId::from),
        };
        required(state.save(record("", none.clone(), "")).wait());
        required(state.load(&none, "").wait().map(drop));
        required(state.delete(&none, "").wait());
        required(state.delete_scope("t", "u", "").wait().map(drop));
        required(state.list_kind_for_identity(&none, "", Some(0)).wait().map(drop));
        required(state.delete_if(&expect(&none, "", None)).wait().map(drop));
        required(state.save_if(&[], record("e", none.clone(), "k")).wait());
        required(state.save_if(&[expect(&none, "k", None)], record("e", good.clone(), "k")).wait());
        invalid(state.save(record("", good.clone(), "k")).wait());
        invalid(state.save(record("e", good.clone(), "")).wait());
        invalid(state.load(&good, "").wait().map(drop));
        invalid(state.delete(&good, "").wait());
        invalid(state.load_by_event_id(&"".into()).wait().map(drop));
        invalid(state.list_kind(SCOPE(), "").wait().map(drop));
        invalid(state.delete_if(&expect(&good, "k", None)).wait().map(drop));
        invalid(state.delete_if(&expect(&good, "k", Some(""))).wait().map(drop));
        invalid(state.save_if(&[], record("e", good.clone(), "k")).wait());
        invalid(state.save_batch_if(&[expect(&good, "k", None)], vec![]).wait());
        for (limit, fits) in
            [(0, false), (1, true), (1_000, true), (1_001, false), (usize::MAX, false)]
        {
            let answer = state.list_kind_for_identity(&good, "k", Some(limit)).wait().map(drop);
            if fits { answer.unwrap() } else { invalid(answer) }
        }
        for (limit, fits) in [(0, false), (1, true), (256, true), (257, false), (usize::MAX, false)]
        {
            let answer = state.scan_kind_for_tenant(SCOPE(), "t", "k", limit, None).wait();
            assert_eq!(answer.is_ok(), fits);
            assert!(fits || matches!(answer, Err(StateError::InvalidScan(_))));
        }
        for (tenant, prefix) in [("", "k"), ("t", "")] {
            let answer = state.scan_kind_for_tenant(SCOPE(), tenant, prefix, 1, None).wait();
            assert!(matches!(answer, Err(StateError::InvalidScan(_))));
            let answer =
                state.scan_kind_for_tenant(ListScope::default(), tenant, prefix, 1, None).wait();
            assert!(matches!(answer, Err(StateError::MaintenanceScopeRequired)));
        }
        let answer = state.list_kind(ListScope::default(), "").wait();
        assert!(matches!(answer, Err(StateError::MaintenanceScopeRequired)));
    }
}

#[test]
fn prefixes_of_kinds_are_literal_and_listings_in_byte_order() {
    let whose = Identity::new("t", "u", "s", "r");
    let kinds = ["%", "%a", "_", "a", "a\0", "a\0b", "a%", "aa", "a\u{10ffff}"];
    for state in states() {
        for kind in kinds {
            state.save(record(kind, whose.clone(), kind)).wait().unwrap();
        }
        for prefix in ["%", "_", "a", "a%", "a\0", "a\0b", "a_", "%%", "a\u{10ffff}"] {
            let expected: Vec<_> =
                kinds.into_iter().filter(|kind| kind.starts_with(prefix)).collect();
            let kinds_of = |found: Vec<StateRecord>| {
                found.into_iter().map(|record| record.kind).collect::<Vec<_>>()
            };
            assert_eq!(kinds_of(state.list_kind(SCOPE(), prefix).wait().unwrap()), expected);
            let own = state.list_kind_for_identity(&whose, prefix, None).wait().unwrap();
            assert_eq!(kinds_of(own), expected);
            let (mut scanned, mut cursor) = (Vec::new(), None);
            loop {
                let page = state
                    .scan_kind_for_tenant(SCOPE(), "t", prefix, 1, cursor.as_ref())
                    .wait()
                    .unwrap();
                scanned.extend(page.items);
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(kinds_of(scanned), expected);
        }
    }
}

#[test]
fn an_event_is_saved_once_even_with_different_times() {
    let whose = Identity::new("t", "u", "s", "");
    for state in states() {
        let first = StateRecord { updated_at: Some(5), ..record("e", whose.clone(), "k") };
        state.save(first.clone()).wait().unwrap();
        for updated_at in [None, Some(6)] {
            state.save(StateRecord { updated_at, ..first.clone() }).wait().unwrap();
            assert_eq!(state.load(&whose, "k").wait().unwrap(), first);
        }
        let others = [
            StateRecord { version: 2, ..first.clone() },
            StateRecord { bytes: vec![], ..first.clone() },
            StateRecord { kind: "l".into(), ..first.clone() },
            StateRecord { identity: Identity::new("t", "u", "s", "r"), ..first.clone() },
        ];
        for other in others {
            assert!(matches!(state.save(other).wait(), Err(StateError::IdempotencyConflict)));
        }
        let absent = SlotExpectation::absent(whose.clone(), "k");
        assert!(matches!(
            state.save_if(&[absent], first.clone()).wait(),
            Err(StateError::ConditionFailed)
        ));
        state.delete(&whose, "k").wait().unwrap();
        assert!(matches!(state.load_by_event_id(&"e".into()).wait(), Err(StateError::NotFound)));
        state.save(StateRecord { version: 9, ..first }).wait().unwrap();
    }
}

#[test]
fn every_call_after_the_close_says_so() {
    fn closed<T: std::fmt::Debug>(answer: Result<T, Error>) {
        assert!(matches!(answer, Err(Error::Closed)), "{answer:?}");
    }
    fn store_closed<T: std::fmt::Debug>(answer: Result<T, StateError>) {
        assert!(matches!(answer, Err(StateError::StoreClosed)), "{answer:?}");
    }
    let (room, _) = clocked();
    let (cache, jobs, state) =
        (room.cache::<u64>("http"), room.dedupe::<u64>("http"), room.state());
    let api = room.rate_limit("api", limit(2, 60)).unwrap();
    let adaptive =
        room.adaptive_rate_limit("api", limit(2, 60), AdaptiveConfig::default()).unwrap();
    let job = jobs.register("h").wait().unwrap();
    let waiting = jobs.wait_for("h");
    let before = state.save(record("e", Identity::new("t", "u", "s", ""), "k"));
    room.close().unwrap();
    room.close().unwrap();
    before.wait().unwrap();
    assert_eq!(waiting.wait().unwrap(), None);

    closed(cache.get("h").wait());
    closed(cache.set("h", &1, 0).wait());
    closed(cache.set("h", &1, -1).wait());
    closed(cache.set_with_tags("h", &1, 0, &["x"]).wait());
    closed(cache.delete("h").wait());
    closed(cache.clear(None).wait());
    closed(cache.invalidate_by_tag("x").wait());
    closed(cache.invalidate_by_tags(&[]).wait());
    closed(cache.list(None, 1).wait());
    closed(cache.stats().wait());
    closed(cache.with_max_entries(1).set("h", &1, 0).wait());

    closed(jobs.register("h").wait());
    closed(jobs.register_or_join("h").wait());
    closed(jobs.wait_for("h").wait());
    closed(jobs.complete("h", &1).wait());
    closed(jobs.fail("h", "error").wait());
    closed(jobs.complete_owned("h", &job, &1).wait());
    closed(jobs.fail_owned("h", &job, "error").wait());
    closed(jobs.is_in_progress("h").wait());
    closed(jobs.clear(None).wait());
    closed(jobs.list(None, 1).wait());
    closed(jobs.stats().wait());

    closed(api.acquire("r").wait());
    closed(api.can_proceed("r").wait());
    closed(api.record("r").wait());
    closed(api.status("r").wait());
    closed(api.reset("r").wait());
    closed(api.wait_time("r").wait());
    closed(api.set_resource_config("r", limit(1, 1)).wait());
    closed(api.resource_config("r").wait());
    closed(api.set_cooldown("r", 0).wait());
    closed(api.cooldown("r").wait());
    closed(api.clear_cooldown("r").wait());
    closed(api.clear().wait());
    closed(adaptive.acquire("r", Priority::User).wait());
    closed(adaptive.can_proceed("r", Priority::User).wait());
    closed(adaptive.status("r").wait());
    closed(adaptive.wait_time("r", Priority::User).wait());
    closed(adaptive.clear().wait());

    let whose = Identity::new("t", "u", "s", "");
    let expected = SlotExpectation::absent(whose.clone(), "k");
    store_closed(state.save(record("e", whose.clone(), "k")).wait());
    store_closed(state.load(&whose, "k").wait());
    store_closed(state.load_by_event_id(&"e".into()).wait());
    store_closed(state.delete(&whose, "k").wait());
    store_closed(state.list_kind(SCOPE(), "k").wait());
    store_closed(
        state.save_if(std::slice::from_ref(&expected), record("e", whose.clone(), "k")).wait(),
    );
    store_closed(
        state
            .save_batch_if(std::slice::from_ref(&expected), vec![record("e", whose.clone(), "k")])
            .wait(),
    );
    store_closed(state.delete_if(&expected).wait());
    store_closed(state.delete_scope("t", "u", "s").wait());
    store_closed(state.list_kind_for_identity(&whose, "k", None).wait());
    store_closed(state.scan_kind_for_tenant(SCOPE(), "t", "k", 1, None).wait());
    state.close().wait().unwrap();
    state.close().wait().unwrap();
}

#[test]
fn who_waits_for_a_job_is_answered_when_the_last_handle_goes() {
    let room = small().open_in_memory().unwrap();
    let jobs = room.dedupe::<u64>("http");
    jobs.register("h").wait().unwrap();
    let waiting = jobs.wait_for("h");
    drop((room, jobs));
    assert_eq!(waiting.wait().unwrap(), None);
}
