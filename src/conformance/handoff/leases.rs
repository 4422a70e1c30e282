//! Spans of claim checks: times to live in milliseconds, and leases that are extended.

use super::calls::*;
use crate::clock::ManualClock;
use crate::error::Error;
use crate::stores::handoff::ClaimId;
use std::time::Duration;

fn extend(store: &HandoffDriver, claim: &ClaimId, lease: Duration) -> bool {
    store.extend(claim, lease).wait().unwrap()
}

pub(super) fn set_for_ends(store: &HandoffDriver, clock: &ManualClock) {
    let set_for = |id, ttl| store.set_for(id, &state(1), ttl).wait().unwrap();
    set_for("id", Duration::from_millis(1_500));
    set_for("greatest", Duration::MAX);
    set(store, "zero", 1);
    set_for("zero", Duration::ZERO);
    assert_absent(store, "zero");
    clock.advance(Duration::from_millis(1_499));
    assert_eq!(get(store, "id"), Some(state(1)));
    clock.advance(ONE_MS);
    assert_absent(store, "id");
    assert_eq!(get(store, "greatest"), Some(state(1)));
}

pub(super) fn extend_lasts(store: &HandoffDriver, clock: &ManualClock) {
    let claim = claimed(store, "id");
    clock.advance(LEASE - ONE_MS);
    assert!(extend(store, &claim, LEASE));
    clock.advance(LEASE - ONE_MS);
    assert_absent(store, "id");
    assert!(extend(store, &claim, LEASE), "an extended claim can be extended");
    clock.advance(LEASE);
    assert_eq!(get(store, "id"), Some(state(1)), "it must come back when the new lease ends");
    assert!(!ack(store, &claim));

    let claim = claimed(store, "other");
    assert!(extend(store, &claim, 3 * LEASE));
    clock.advance(2 * LEASE);
    assert!(ack(store, &claim), "an extended claim can be acknowledged");
    assert_absent(store, "other");
}

pub(super) fn extend_shortens(store: &HandoffDriver, clock: &ManualClock) {
    let claim = claimed(store, "id");
    assert!(extend(store, &claim, ONE_MS));
    assert_eq!(get(store, "id"), None);
    clock.advance(ONE_MS);
    assert_eq!(get(store, "id"), Some(state(1)));
    assert!(!extend(store, &claim, LEASE), "it has ended");
    assert_eq!(get(store, "id"), Some(state(1)));
}

pub(super) fn extend_too_late(store: &HandoffDriver, clock: &ManualClock) {
    assert!(!extend(store, &ClaimId::new(7, "never"), LEASE));
    type End = fn(&HandoffDriver, &ManualClock, &ClaimId);
    let after: [(&str, End); 5] = [
        ("the lease", |_, clock, _| clock.advance(LEASE)),
        ("ack", |store, _, claim| assert!(ack(store, claim))),
        ("release", |store, _, claim| assert!(release(store, claim))),
        ("set", |store, _, claim| set(store, claim.state_id(), 2)),
        ("delete", |store, _, claim| store.delete(claim.state_id()).wait().unwrap()),
    ];
    for (what, end) in after {
        let claim = claimed(store, what);
        end(store, clock, &claim);
        let before = get(store, what);
        assert!(!extend(store, &claim, LEASE), "extended after {what}");
        assert_eq!(get(store, what), before, "changed after {what}");
    }
    // The claim of another caller is not this one's.
    let old = claimed(store, "taken");
    assert!(release(store, &old));
    let new = claim(store, "taken").expect("it was released");
    assert!(!extend(store, &old, 2 * LEASE));
    clock.advance(LEASE);
    assert!(!ack(store, &new.id), "the old claim extended the new one");
    assert_eq!(get(store, "taken"), Some(state(1)));
}

pub(super) fn extend_zero(store: &HandoffDriver, _: &ManualClock) {
    let claim = claimed(store, "id");
    let answer = store.extend(&claim, Duration::ZERO).wait();
    assert!(matches!(answer, Err(Error::InvalidConfig(_))), "{answer:?}");
    assert_absent(store, "id");
    assert!(ack(store, &claim));
}

pub(super) fn extend_and_ttl(store: &HandoffDriver, clock: &ManualClock) {
    let claim = claimed(store, "id");
    assert!(extend(store, &claim, Duration::MAX));
    clock.advance(Duration::from_secs(TTL) - ONE_MS);
    assert!(extend(store, &claim, LEASE));
    clock.advance(ONE_MS);
    assert!(!extend(store, &claim, LEASE), "the state has expired");
    assert_absent(store, "id");
}
