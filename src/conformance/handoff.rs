//! What every [`HandoffStateStore`] must do.

mod calls;
mod leases;
mod raw;

use super::{Rule, START, race, run};
use crate::clock::ManualClock;
use crate::error::Error;
use crate::limits::{DEFAULT_MAX_STATE_BYTES, MAX_KEY_LEN, in_memory};
use crate::stores::handoff::{ClaimId, HandoffStateStore, JsonObject};
use calls::*;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Runs the whole suite on stores that `factory` makes: fresh, empty, with the default maximum of 4
/// MiB, and with the clock that they take their time from.
///
/// # Panics
/// When a rule is broken, with the list of the broken ones.
pub fn handoff<S: HandoffStateStore + 'static>(factory: impl Fn() -> (S, Arc<ManualClock>)) {
    run("handoff", RULES, |check: &dyn Fn(&HandoffDriver, &ManualClock)| {
        let (store, clock) = factory();
        check(&store, &clock);
    });
}

const RULES: &[Rule<HandoffDriver>] = &[
    ("an absent state is None, and deleting it is fine", absent),
    ("get reads a state and leaves it", get_leaves),
    ("get_and_delete hands a state over once", one_shot),
    ("delete removes a state", delete_removes),
    ("set overwrites a state and its time to live", overwrites),
    ("a state is there until its time to live is over, and not at that moment", expires),
    ("an expired state is absent to every call", expired_is_absent),
    ("a time to live of zero is over at once, and ends what was there", ttl_zero),
    ("the greatest time to live does not overflow", ttl_greatest),
    ("every JSON value comes back equal", json_values),
    ("a state of 1 MB comes back equal", one_megabyte),
    ("a state over the maximum is TooLarge, and what was there stays", too_large_state),
    ("any string up to 64 KiB is an id, and no two are the same", any_id),
    ("an id over 64 KiB is TooLarge", too_large_id),
    ("a claimed state is hidden from get, get_and_delete and claim", claim_hides),
    ("a claim comes back when its lease ends, and not before", lease_ends),
    ("ack deletes the state, once", ack_deletes),
    ("release shows the state again, once", release_shows),
    ("ack and release are false after the lease, and change nothing", late),
    ("set ends a claim, and the new state is safe from it", set_ends_claim),
    ("delete ends a claim", delete_ends_claim),
    ("an old claim cannot end a newer one", old_claim),
    ("the time to live goes on during a claim", ttl_during_claim),
    ("a lease of zero is InvalidConfig, and claims nothing", lease_zero),
    ("the greatest lease does not overflow", lease_greatest),
    ("a claim can be ended by the string form of its id", claim_by_string),
    ("set_for ends to the millisecond, and at once for zero", leases::set_for_ends),
    ("extend gives a claim a new lease from now on", leases::extend_lasts),
    ("extend may shorten a lease", leases::extend_shortens),
    ("extend is false when the claim does not hold, and changes nothing", leases::extend_too_late),
    ("an extension of zero is InvalidConfig, and the claim goes on", leases::extend_zero),
    ("an extension does not outlive the state", leases::extend_and_ttl),
    ("raw JSON comes back by every call, raw or parsed", raw::comes_back),
    ("raw JSON that is not one object is Encode, and what was there stays", raw::malformed),
    ("a raw claim is a claim", raw::claim),
    ("raw JSON over the maximum is TooLarge, and what was there stays", raw::too_large),
    ("a call sees every call before it, awaited or not", in_order),
    ("of many concurrent get_and_delete exactly one gets the state", race_get_and_delete),
    ("of many concurrent claims exactly one gets the state", race_claim),
    ("of concurrent claims and get_and_delete exactly one gets the state", race_mixed),
    ("of concurrent acks and releases of one claim exactly one is true", race_end),
];

fn absent(store: &HandoffDriver, _: &ManualClock) {
    set(store, "other", 1);
    assert_absent(store, "id");
    store.delete("id").wait().unwrap();
    let never = ClaimId::new(7, "id");
    assert!(!ack(store, &never) && !release(store, &never));
    assert!(!ack(store, &ClaimId::new(7, "other")), "an invented claim was acknowledged");
    assert_eq!(get(store, "other"), Some(state(1)));
}

fn get_leaves(store: &HandoffDriver, _: &ManualClock) {
    set(store, "id", 1);
    for _ in 0..3 {
        assert_eq!(get(store, "id"), Some(state(1)));
    }
}

fn one_shot(store: &HandoffDriver, _: &ManualClock) {
    set(store, "id", 1);
    set(store, "other", 2);
    assert_eq!(take(store, "id"), Some(state(1)));
    assert_absent(store, "id");
    assert_eq!(take(store, "other"), Some(state(2)));
}

fn delete_removes(store: &HandoffDriver, _: &ManualClock) {
    set(store, "id", 1);
    set(store, "other", 2);
    store.delete("id").wait().unwrap();
    store.delete("id").wait().unwrap();
    assert_absent(store, "id");
    assert_eq!(get(store, "other"), Some(state(2)));
}

fn overwrites(store: &HandoffDriver, clock: &ManualClock) {
    for (id, ttl_seconds) in [("longer", 2 * TTL), ("shorter", TTL / 2)] {
        set(store, id, 1);
        store.set(id, &state(2), ttl_seconds).wait().unwrap();
        assert_eq!(get(store, id), Some(state(2)));
    }
    clock.advance(Duration::from_secs(TTL / 2));
    assert_eq!(get(store, "shorter"), None);
    clock.advance(Duration::from_secs(TTL));
    assert_eq!(get(store, "longer"), Some(state(2)));
    clock.advance(Duration::from_secs(TTL / 2));
    assert_eq!(get(store, "longer"), None);
}

fn expires(store: &HandoffDriver, clock: &ManualClock) {
    set(store, "id", 1);
    clock.set((START + TTL) * 1_000 - 1);
    assert_eq!(get(store, "id"), Some(state(1)));
    clock.advance(ONE_MS);
    assert_eq!(get(store, "id"), None);
}

fn expired_is_absent(store: &HandoffDriver, clock: &ManualClock) {
    set(store, "id", 1);
    clock.advance(Duration::from_secs(TTL));
    assert_absent(store, "id");
    store.delete("id").wait().unwrap();
    set(store, "id", 2);
    assert_eq!(take(store, "id"), Some(state(2)));
}

fn ttl_zero(store: &HandoffDriver, _: &ManualClock) {
    store.set("id", &state(1), 0).wait().unwrap();
    assert_absent(store, "id");
    let claim = claimed(store, "id");
    store.set("id", &state(2), 0).wait().unwrap();
    assert_absent(store, "id");
    assert!(!ack(store, &claim) && !release(store, &claim));
    assert_absent(store, "id");
}

fn ttl_greatest(store: &HandoffDriver, clock: &ManualClock) {
    store.set("id", &state(1), u64::MAX).wait().unwrap();
    assert_eq!(get(store, "id"), Some(state(1)));
    clock.advance(Duration::from_secs(1_000 * 365 * 86_400));
    assert_eq!(get(store, "id"), Some(state(1)));
    store.set("id", &state(2), u64::MAX / 1_000).wait().unwrap();
    assert_eq!(take(store, "id"), Some(state(2)));
}

fn json_values(store: &HandoffDriver, _: &ManualClock) {
    let mut deep = json!({ "end": [] });
    for level in 0..50 {
        deep = if level % 2 == 0 {
            json!([deep, level])
        } else {
            json!({ "deeper": deep, "": level })
        };
    }
    let states = [
        json!({}),
        json!({ "": "", "\0": "\0\u{1}\u{7f}", "\"\\/": "\u{2028}", "é𝄞": "\u{10ffff}\u{fffd} 漢字 🧥" }),
        json!({ "n": null, "t": true, "f": false, "a": [], "o": {}, "mixed": [null, [[], {}], "x", 1] }),
        json!({ "u": u64::MAX, "i": i64::MIN, "big": 9_007_199_254_740_993_u64, "zero": 0 }),
        json!({ "f": [0.1 + 0.2, 1.0, -0.0, 1e16, f64::MAX, f64::MIN_POSITIVE, 5e-324, 2.638_344_616_030_823_6e-256] }),
        json!({ "deep": deep }),
    ];
    for (index, state) in states.into_iter().map(object).enumerate() {
        let id = index.to_string();
        store.set(&id, &state, TTL).wait().unwrap();
        assert_eq!(get(store, &id).as_ref(), Some(&state));
        let claim = claim(store, &id).expect("it is there");
        assert_eq!(claim.state, state);
        assert!(release(store, &claim.id));
        assert_eq!(take(store, &id), Some(state));
    }
}

fn one_megabyte(store: &HandoffDriver, _: &ManualClock) {
    let text: String = ('!'..='~').chain(['é', '漢']).cycle().take(1 << 20).collect();
    let state = object(json!({ "text": text }));
    store.set("id", &state, TTL).wait().unwrap();
    assert_eq!(get(store, "id").as_ref(), Some(&state));
    assert_eq!(take(store, "id"), Some(state));
}

fn too_large_state(store: &HandoffDriver, _: &ManualClock) {
    set(store, "id", 1);
    let large = object(json!({ "text": "x".repeat(in_memory(DEFAULT_MAX_STATE_BYTES)) }));
    for id in ["id", "new"] {
        let answer = store.set(id, &large, TTL).wait();
        assert!(matches!(answer, Err(Error::TooLarge { .. })), "{answer:?}");
    }
    assert_eq!(get(store, "new"), None);
    assert_eq!(get(store, "id"), Some(state(1)));
}

fn any_id(store: &HandoffDriver, _: &ManualClock) {
    let longest = "i".repeat(MAX_KEY_LEN);
    let ids = [
        "", "\0", "\0\0", "a", "a\0", "a\0b", "a.b", ".", "a/b", "A", "%", "*", "é", "e\u{301}",
        "𝄞", &longest,
    ];
    for (number, id) in ids.iter().enumerate() {
        set(store, id, number as u64);
    }
    for (number, id) in ids.iter().enumerate() {
        let claim = claim(store, id).expect("it is there");
        assert_eq!(claim.state, state(number as u64), "id {id:.9?}");
        assert!(release(store, &claim.id));
        assert_eq!(take(store, id), Some(state(number as u64)), "id {id:.9?}");
    }
}

fn too_large_id(store: &HandoffDriver, _: &ManualClock) {
    fn assert_too_large<T: std::fmt::Debug>(call: &str, answer: Result<T, Error>) {
        assert!(matches!(answer, Err(Error::TooLarge { .. })), "{call}: {answer:?}");
    }
    let long = "i".repeat(MAX_KEY_LEN + 1);
    let claim = ClaimId::new(7, long.as_str());
    assert_too_large("set", store.set(&long, &state(1), TTL).wait());
    assert_too_large("get", store.get(&long).wait());
    assert_too_large("get_and_delete", store.get_and_delete(&long).wait());
    assert_too_large("delete", store.delete(&long).wait());
    assert_too_large("claim", store.claim(&long, LEASE).wait());
    assert_too_large("ack", store.ack(&claim).wait());
    assert_too_large("release", store.release(&claim).wait());
}

fn claim_hides(store: &HandoffDriver, _: &ManualClock) {
    set(store, "other", 2);
    let claim = claimed(store, "id");
    assert_absent(store, "id");
    assert_eq!(get(store, "other"), Some(state(2)), "a claim hid another state");
    assert!(ack(store, &claim));
}

fn lease_ends(store: &HandoffDriver, clock: &ManualClock) {
    let first = claimed(store, "id");
    clock.advance(LEASE - ONE_MS);
    assert_absent(store, "id");
    clock.advance(ONE_MS);
    assert_eq!(get(store, "id"), Some(state(1)));
    let second = claim(store, "id").expect("its lease is over");
    assert_eq!(second.state, state(1));
    assert_ne!(second.id, first);
    clock.advance(LEASE);
    assert_eq!(take(store, "id"), Some(state(1)));
}

fn ack_deletes(store: &HandoffDriver, clock: &ManualClock) {
    let claim = claimed(store, "id");
    clock.advance(LEASE - ONE_MS);
    assert!(ack(store, &claim));
    assert!(!ack(store, &claim), "a second ack");
    assert!(!release(store, &claim), "a release after an ack");
    assert_absent(store, "id");
    clock.advance(LEASE);
    assert_absent(store, "id");
}

fn release_shows(store: &HandoffDriver, clock: &ManualClock) {
    let first = claimed(store, "id");
    clock.advance(LEASE - ONE_MS);
    assert!(release(store, &first));
    assert_eq!(get(store, "id"), Some(state(1)));
    assert!(!release(store, &first), "a second release");
    assert!(!ack(store, &first), "an ack after a release");
    assert_eq!(get(store, "id"), Some(state(1)));
    let second = claim(store, "id").expect("it was released");
    assert_ne!(second.id, first);
    assert!(ack(store, &second.id));
}

fn late(store: &HandoffDriver, clock: &ManualClock) {
    let claim = claimed(store, "id");
    clock.advance(LEASE);
    assert!(!ack(store, &claim) && !release(store, &claim));
    assert_eq!(get(store, "id"), Some(state(1)));
}

fn set_ends_claim(store: &HandoffDriver, _: &ManualClock) {
    let claim = claimed(store, "id");
    set(store, "id", 2);
    assert_eq!(get(store, "id"), Some(state(2)));
    assert!(!ack(store, &claim) && !release(store, &claim));
    assert_eq!(take(store, "id"), Some(state(2)));
}

fn delete_ends_claim(store: &HandoffDriver, clock: &ManualClock) {
    let claim = claimed(store, "id");
    store.delete("id").wait().unwrap();
    assert!(!ack(store, &claim) && !release(store, &claim));
    set(store, "id", 2);
    assert!(!ack(store, &claim) && !release(store, &claim));
    assert_eq!(get(store, "id"), Some(state(2)), "a deleted state's claim hides the next state");
    store.delete("id").wait().unwrap();
    clock.advance(LEASE);
    assert_absent(store, "id");
}

fn old_claim(store: &HandoffDriver, clock: &ManualClock) {
    let old = claimed(store, "id");
    clock.advance(LEASE);
    let new = claim(store, "id").expect("the first lease is over").id;
    assert!(!ack(store, &old) && !release(store, &old));
    assert_absent(store, "id");
    assert!(ack(store, &new));
}

fn ttl_during_claim(store: &HandoffDriver, clock: &ManualClock) {
    set(store, "id", 1);
    let lease = Duration::from_secs(10 * TTL);
    let claim = store.claim("id", lease).wait().unwrap().expect("it is there");
    clock.advance(Duration::from_secs(TTL));
    assert!(!ack(store, &claim.id) && !release(store, &claim.id));
    clock.advance(lease);
    assert_absent(store, "id");
}

fn lease_zero(store: &HandoffDriver, _: &ManualClock) {
    set(store, "id", 1);
    for id in ["id", "absent"] {
        let answer = store.claim(id, Duration::ZERO).wait();
        assert!(matches!(answer, Err(Error::InvalidConfig(_))), "{answer:?}");
    }
    assert_eq!(get(store, "id"), Some(state(1)));
    let shortest = store.claim("id", Duration::from_nanos(1)).wait().unwrap().expect("it is there");
    assert!(ack(store, &shortest.id), "the shortest lease was over at once");
}

fn lease_greatest(store: &HandoffDriver, clock: &ManualClock) {
    store.set("id", &state(1), u64::MAX).wait().unwrap();
    let claim = store.claim("id", Duration::MAX).wait().unwrap().expect("it is there");
    clock.advance(Duration::from_secs(1_000 * 365 * 86_400));
    assert_absent(store, "id");
    assert!(ack(store, &claim.id));
}

fn claim_by_string(store: &HandoffDriver, _: &ManualClock) {
    for id in ["id", "", "a.b.c", "é\0"] {
        let claim = claimed(store, id);
        let again: ClaimId =
            claim.to_string().parse().expect("what a claim id prints is a claim id");
        assert_eq!(again, claim);
        assert!(ack(store, &again));
    }
}

fn in_order(store: &HandoffDriver, _: &ManualClock) {
    let mut waits = Vec::new();
    let mut taken = Vec::new();
    for number in 0..200 {
        let id = format!("id-{}", number % 20);
        waits.push(store.set(&id, &state(number), TTL));
        taken.push((Some(state(number)), store.get(&id)));
        taken.push((Some(state(number)), store.get_and_delete(&id)));
        taken.push((None, store.get_and_delete(&id)));
    }
    for (expected, pending) in taken {
        assert_eq!(pending.wait().unwrap(), expected);
    }
    waits.into_iter().for_each(|pending| pending.wait().unwrap());

    drop(store.set("dropped", &state(1), TTL));
    assert_eq!(get(store, "dropped"), Some(state(1)));
    drop(store.get_and_delete("dropped"));
    assert_absent(store, "dropped");
}

fn assert_one_gets(answers: Vec<Option<JsonObject>>) {
    let got: Vec<_> = answers.into_iter().flatten().collect();
    assert_eq!(got, [state(1)], "exactly one caller gets the state");
}

fn race_get_and_delete(store: &HandoffDriver, _: &ManualClock) {
    for _ in 0..10 {
        set(store, "id", 1);
        assert_one_gets(race(|_| take(store, "id")));
    }
}

fn race_claim(store: &HandoffDriver, _: &ManualClock) {
    for _ in 0..10 {
        set(store, "id", 1);
        assert_one_gets(race(|_| claim(store, "id").map(|claim| claim.state)));
    }
}

fn race_mixed(store: &HandoffDriver, _: &ManualClock) {
    for _ in 0..10 {
        set(store, "id", 1);
        assert_one_gets(race(|racer| match racer % 2 {
            0 => take(store, "id"),
            _ => claim(store, "id").map(|claim| claim.state),
        }));
    }
}

fn race_end(store: &HandoffDriver, _: &ManualClock) {
    for _ in 0..10 {
        let claim = claimed(store, "id");
        let ends = race(|racer| match racer % 2 {
            0 => ack(store, &claim),
            _ => release(store, &claim),
        });
        assert_eq!(ends.into_iter().filter(|ended| *ended).count(), 1, "a claim ends once");
    }
}
