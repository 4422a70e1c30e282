use super::*;
use crate::engine::time_line::Deadline;
use crate::limits::{MAX_KEY_LEN, MAX_LIST_LIMIT};
use crate::stores::handoff::HandoffTx;
use crate::stores::map_tx::MapTx;
use serde_json::json;

const START_MS: u64 = 1_000_000;
const TTL: u64 = 600;
const LEASE: Duration = Duration::from_secs(60);
const LEASE_MS: u64 = 60_000;
const MAX_ROW_BYTES: usize = 1 << 20;

fn room() -> MapTx {
    MapTx::at(START_MS)
}

fn states(tx: &mut MapTx) -> HandoffTx<'_> {
    HandoffTx::new(tx, MAX_ROW_BYTES)
}

fn state(number: u64) -> JsonObject {
    let serde_json::Value::Object(object) = json!({ "number": number }) else { unreachable!() };
    object
}

fn set(tx: &mut MapTx, id: &str, number: u64) {
    states(tx).set(id, &state(number), TTL).unwrap();
}

fn get(tx: &mut MapTx, id: &str) -> Option<JsonObject> {
    states(tx).get(id).unwrap()
}

/// Sets and claims a state.
fn claimed(tx: &mut MapTx, id: &str) -> ClaimId {
    set(tx, id, 1);
    let claim = states(tx).claim(id, LEASE).unwrap().unwrap();
    assert_eq!(claim.state, state(1));
    claim.id
}

fn assert_hidden(tx: &mut MapTx, id: &str) {
    let writes = tx.writes;
    assert_eq!(states(tx).get(id).unwrap(), None);
    assert_eq!(states(tx).get_and_delete(id).unwrap(), None);
    assert_eq!(states(tx).claim(id, LEASE).unwrap(), None);
    assert_eq!(tx.writes, writes);
}

fn assert_ended(tx: &mut MapTx, claim: &ClaimId) {
    let writes = tx.writes;
    assert!(!states(tx).ack(claim).unwrap());
    assert!(!states(tx).release(claim).unwrap());
    assert_eq!(tx.writes, writes);
}

fn assert_empty(tx: &MapTx) {
    assert!(tx.snapshot().is_empty(), "{:?}", tx.snapshot());
}

#[test]
fn get_leaves_a_state_and_get_and_delete_takes_every_row_of_it() {
    let mut tx = room();
    set(&mut tx, "id", 1);
    assert_eq!(get(&mut tx, "id"), Some(state(1)));
    assert_eq!(states(&mut tx).get_and_delete("id").unwrap(), Some(state(1)));
    assert_empty(&tx);
    assert_hidden(&mut tx, "id");
}

#[test]
fn set_overwrites_and_leaves_one_index_row() {
    let mut tx = room();
    set(&mut tx, "id", 1);
    states(&mut tx).set("id", &state(2), 2 * TTL).unwrap();
    assert_eq!(get(&mut tx, "id"), Some(state(2)));
    let expires_at_ms = START_MS + 2 * TTL * 1_000;
    assert_eq!(
        tx.keys(Table::EXPIRY),
        [expiry::encode_key(Deadline::at(expires_at_ms), Table::HANDOFF, b"id")]
    );
}

#[test]
fn delete_removes_every_row_and_is_nothing_when_absent() {
    let mut tx = room();
    states(&mut tx).delete("id").unwrap();
    assert_eq!(tx.writes, 0);
    claimed(&mut tx, "id");
    states(&mut tx).delete("id").unwrap();
    assert_empty(&tx);
}

#[test]
fn a_state_ends_at_its_time_to_live() {
    let mut tx = room();
    set(&mut tx, "id", 1);
    tx.now_ms = START_MS + TTL * 1_000 - 1;
    assert_eq!(get(&mut tx, "id"), Some(state(1)));
    tx.now_ms += 1;
    assert_hidden(&mut tx, "id");
    set(&mut tx, "id", 2);
    assert_eq!(tx.keys(Table::EXPIRY).len(), 1);
}

#[test]
fn a_time_to_live_of_zero_leaves_nothing_not_even_what_was_there() {
    let mut tx = room();
    states(&mut tx).set("id", &state(1), 0).unwrap();
    assert_eq!(tx.writes, 0);
    let claim = claimed(&mut tx, "id");
    states(&mut tx).set("id", &state(2), 0).unwrap();
    assert_empty(&tx);
    assert_ended(&mut tx, &claim);
}

#[test]
fn times_saturate() {
    let mut tx = room();
    states(&mut tx).set("id", &state(1), u64::MAX).unwrap();
    let claim = states(&mut tx).claim("id", Duration::MAX).unwrap().unwrap();
    tx.now_ms = u64::MAX - 1;
    assert_hidden(&mut tx, "id");
    assert!(states(&mut tx).release(&claim.id).unwrap());
    assert_eq!(get(&mut tx, "id"), Some(state(1)));
}

#[test]
fn a_claim_hides_the_state_until_its_lease_ends() {
    let mut tx = room();
    let first = claimed(&mut tx, "id");
    tx.now_ms = START_MS + LEASE_MS - 1;
    assert_hidden(&mut tx, "id");
    tx.now_ms += 1;
    assert_ended(&mut tx, &first);
    assert_eq!(get(&mut tx, "id"), Some(state(1)));
    let second = states(&mut tx).claim("id", LEASE).unwrap().unwrap();
    assert_ended(&mut tx, &first);
    assert!(states(&mut tx).ack(&second.id).unwrap());
}

#[test]
fn get_and_delete_after_a_stale_claim_takes_its_row_too() {
    let mut tx = room();
    claimed(&mut tx, "id");
    tx.now_ms = START_MS + LEASE_MS;
    assert_eq!(states(&mut tx).get_and_delete("id").unwrap(), Some(state(1)));
    assert_empty(&tx);
}

#[test]
fn ack_removes_every_row_once() {
    let mut tx = room();
    let claim = claimed(&mut tx, "id");
    assert!(states(&mut tx).ack(&claim).unwrap());
    assert_empty(&tx);
    assert_ended(&mut tx, &claim);
}

#[test]
fn release_removes_the_claim_row_only_and_once() {
    let mut tx = room();
    set(&mut tx, "id", 1);
    let before = tx.snapshot();
    let claim = states(&mut tx).claim("id", LEASE).unwrap().unwrap().id;
    assert!(states(&mut tx).release(&claim).unwrap());
    assert_eq!(tx.snapshot(), before);
    assert_ended(&mut tx, &claim);
    let next = states(&mut tx).claim("id", LEASE).unwrap().unwrap().id;
    assert_ne!(next, claim);
    assert_ended(&mut tx, &claim);
}

#[test]
fn set_and_delete_end_a_claim() {
    let mut tx = room();
    let claim = claimed(&mut tx, "id");
    set(&mut tx, "id", 2);
    assert_eq!(get(&mut tx, "id"), Some(state(2)));
    assert_ended(&mut tx, &claim);
    let claim = claimed(&mut tx, "id");
    states(&mut tx).delete("id").unwrap();
    set(&mut tx, "id", 3);
    assert_ended(&mut tx, &claim);
    assert_eq!(get(&mut tx, "id"), Some(state(3)));
}

#[test]
fn the_time_to_live_goes_on_during_a_claim() {
    let mut tx = room();
    set(&mut tx, "id", 1);
    let claim = states(&mut tx).claim("id", Duration::MAX).unwrap().unwrap().id;
    tx.now_ms = START_MS + TTL * 1_000 - 1;
    assert_hidden(&mut tx, "id");
    tx.now_ms += 1;
    assert_ended(&mut tx, &claim);
}

#[test]
fn a_lease_of_zero_is_refused_for_any_id() {
    let mut tx = room();
    set(&mut tx, "id", 1);
    let writes = tx.writes;
    for id in ["id", "absent"] {
        assert!(matches!(states(&mut tx).claim(id, Duration::ZERO), Err(Error::InvalidConfig(_))));
    }
    assert_eq!(tx.writes, writes);
}

#[test]
fn a_state_of_the_maximum_fits_and_one_byte_more_leaves_the_old_one() {
    let mut tx = room();
    let size = serde_json::to_vec(&state(1)).unwrap().len();
    let mut store = states(&mut tx).with_max_state_bytes(size as u64);
    store.set("id", &state(1), TTL).unwrap();
    let answer = store.set("id", &state(10), TTL);
    assert!(matches!(answer, Err(Error::TooLarge { limit, size: over, .. }) if over == limit + 1));
    // Over the maximum is an error also when the state would be over at once.
    assert!(matches!(store.set("id", &state(10), 0), Err(Error::TooLarge { .. })));
    assert_eq!(get(&mut tx, "id"), Some(state(1)));
    for refused in [0, MAX_ROW_BYTES] {
        let answer = states(&mut tx).with_max_state_bytes(refused as u64).get("id");
        assert!(matches!(answer, Err(Error::InvalidConfig(_))), "{refused}: {answer:?}");
    }
}

#[test]
fn an_id_over_the_limit_is_too_large_and_stages_nothing() {
    let mut tx = room();
    let long = "i".repeat(MAX_KEY_LEN + 1);
    let claim = ClaimId::new(1, long.as_str());
    let mut store = states(&mut tx);
    let answers = [
        store.set(&long, &state(1), TTL).err(),
        store.get(&long).err(),
        store.get_and_delete(&long).err(),
        store.delete(&long).err(),
        store.claim(&long, LEASE).err(),
        store.ack(&claim).err(),
        store.release(&claim).err(),
    ];
    for (call, answer) in answers.into_iter().enumerate() {
        assert!(matches!(answer, Some(Error::TooLarge { .. })), "call {call}: {answer:?}");
    }
    assert_empty(&tx);
    for id in ["", &"i".repeat(MAX_KEY_LEN)] {
        set(&mut tx, id, 1);
        assert_eq!(get(&mut tx, id), Some(state(1)));
    }
}

#[test]
fn a_listing_has_the_live_states_in_pages_and_a_count_has_them_all() {
    let mut tx = room();
    for index in 0..100_u64 {
        let id = format!("{index:03}");
        let ttl_seconds = if index % 4 == 0 { 1 } else { TTL };
        states(&mut tx).set(&id, &state(index), ttl_seconds).unwrap();
        if index % 5 == 0 {
            // Half of the claims are over by the time of the listing.
            let lease = if index % 10 == 0 { Duration::from_secs(1) } else { LEASE };
            states(&mut tx).claim(&id, lease).unwrap().unwrap();
        }
    }
    tx.now_ms += 1_000;
    let stats = stats(&mut tx).unwrap();
    assert_eq!((stats.live, stats.claimed, stats.expired), (65, 10, 25));
    assert_eq!(stats.bytes, tx.bytes(&[Table::HANDOFF, Table::HANDOFF_CLAIM]));

    let expected: Vec<String> =
        (0..100).filter(|index| index % 4 != 0).map(|index| format!("{index:03}")).collect();
    for limit in [1, 7, 74, 75, MAX_LIST_LIMIT] {
        let (mut listed, mut cursor) = (Vec::new(), None);
        loop {
            let page = list(&mut tx, cursor.as_ref(), limit).unwrap();
            assert!(page.items.len() == limit || page.next.is_none());
            listed.extend(page.items);
            let Some(next) = page.next else { break };
            cursor = Some(next.to_string().parse().unwrap());
        }
        let ids: Vec<_> = listed.iter().map(|entry| entry.state_id.clone()).collect();
        assert_eq!(ids, expected, "pages of {limit}");
        let entry = |id: &str| listed.iter().find(|entry| entry.state_id == id).unwrap();
        assert_eq!(entry("005").claimed_until_ms, Some(START_MS + LEASE_MS));
        assert_eq!(entry("010").claimed_until_ms, None);
        assert_eq!(entry("001").expires_at_ms, START_MS + TTL * 1_000);
        assert_eq!(entry("001").bytes, 12);
    }
}

#[test]
fn a_listing_refuses_limits_and_cursors_that_are_not_its_own() {
    let mut tx = room();
    let foreign = Cursor::new(Table::FORM_TOKEN, Vec::new());
    for answer in [
        list(&mut tx, None, 0),
        list(&mut tx, None, MAX_LIST_LIMIT + 1),
        list(&mut tx, Some(&foreign), 1),
    ] {
        assert!(matches!(answer, Err(Error::InvalidConfig(_))));
    }
}

#[test]
fn a_damaged_state_is_corruption_and_nothing_takes_it_away() {
    let mut tx = room();
    let claim = claimed(&mut tx, "id");
    tx.now_ms = START_MS + LEASE_MS;
    let damaged_json =
        HandoffRow { expires_at: Deadline::NEVER, json: b"{\"number\":" }.encode().unwrap();
    tx.put(Table::HANDOFF, b"id", damaged_json);
    let writes = tx.writes;
    let mut store = states(&mut tx);
    assert!(matches!(store.get("id"), Err(Error::Corrupted { .. })));
    assert!(matches!(store.get_and_delete("id"), Err(Error::Corrupted { .. })));
    assert!(matches!(store.claim("id", LEASE), Err(Error::Corrupted { .. })));
    assert_eq!(tx.writes, writes);
    tx.put(Table::HANDOFF, b"id", vec![0xff]);
    let mut store = states(&mut tx);
    assert!(matches!(store.set("id", &state(1), TTL), Err(Error::Corrupted { .. })));
    assert!(matches!(store.delete("id"), Err(Error::Corrupted { .. })));
    assert!(matches!(store.ack(&claim), Err(Error::Corrupted { .. })));
    assert_eq!(tx.writes, writes + 1);
}
