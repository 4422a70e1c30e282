//! Calls of a store of claim checks, and what the checks expect of them.

use crate::stores::handoff::{Claim, ClaimId, HandoffStateStore, JsonObject};
use serde_json::{Value, json};
use std::time::Duration;

/// How long the states of the checks live, in seconds.
pub(super) const TTL: u64 = 600;
/// How long the claims of the checks last.
pub(super) const LEASE: Duration = Duration::from_secs(60);
pub(super) const ONE_MS: Duration = Duration::from_millis(1);

pub(super) type HandoffDriver = dyn HandoffStateStore;

pub(super) fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(object) => object,
        other => panic!("not an object: {other}"),
    }
}

pub(super) fn state(number: u64) -> JsonObject {
    object(json!({ "number": number }))
}

pub(super) fn set(store: &HandoffDriver, id: &str, number: u64) {
    store.set(id, &state(number), TTL).wait().unwrap();
}

pub(super) fn get(store: &HandoffDriver, id: &str) -> Option<JsonObject> {
    store.get(id).wait().unwrap()
}

pub(super) fn take(store: &HandoffDriver, id: &str) -> Option<JsonObject> {
    store.get_and_delete(id).wait().unwrap()
}

pub(super) fn claim(store: &HandoffDriver, id: &str) -> Option<Claim> {
    store.claim(id, LEASE).wait().unwrap()
}

pub(super) fn ack(store: &HandoffDriver, claim: &ClaimId) -> bool {
    store.ack(claim).wait().unwrap()
}

pub(super) fn release(store: &HandoffDriver, claim: &ClaimId) -> bool {
    store.release(claim).wait().unwrap()
}

/// Sets the state number 1 under `id` and claims it.
pub(super) fn claimed(store: &HandoffDriver, id: &str) -> ClaimId {
    set(store, id, 1);
    let claim = claim(store, id).expect("a state that was just set cannot be claimed");
    assert_eq!(claim.state, state(1));
    assert_eq!(claim.id.state_id(), id);
    claim.id
}

pub(super) fn assert_absent(store: &HandoffDriver, id: &str) {
    assert_eq!(get(store, id), None, "get");
    assert_eq!(claim(store, id), None, "claim");
    assert_eq!(take(store, id), None, "get_and_delete");
}
