//! Both sides of every limit, and strings that would fool a careless encoding.

use crate::rooms::{NOW_MS, consume, insert, small, state, state_of, token};
use TokenConsumeOutcome::{Invalid, Proceed, Replay};
use cloakroom::form_token::{
    FormTokenRecord, FormTokenStore, LookupKey, TokenConsumeOutcome, TokenSubject,
};
use cloakroom::handoff::{Handoff, HandoffStateStore};
use cloakroom::limits::{
    DEFAULT_MAX_STATE_BYTES, DEFAULT_REPLAY_GRACE, LONGEST_KEYS_LOG_CAPACITY, MAX_KEY_LEN,
    MAX_LIST_LIMIT, MAX_STATE_DEPTH,
};
use cloakroom::page::Cursor;
use cloakroom::{Cloakroom, Error, ManualClock, Result};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

fn in_memory() -> Cloakroom {
    small().open_in_memory().unwrap()
}

fn longest() -> String {
    "k".repeat(MAX_KEY_LEN)
}

fn too_long() -> String {
    "k".repeat(MAX_KEY_LEN + 1)
}

fn too_large<T: std::fmt::Debug>(answer: Result<T>) {
    match answer {
        Err(Error::TooLarge { size, limit, .. }) => assert!(size > limit, "{size} {limit}"),
        answer => panic!("{answer:?}"),
    }
}

fn is_empty(room: &Cloakroom) -> bool {
    room.engine_stats().unwrap().newest_lsn == 0
}

#[test]
fn state_ids_of_the_longest_length_work_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    let room = small().open(&path).unwrap();
    room.handoff().set(&longest(), &state(1), 600).wait().unwrap();
    let neighbour = format!("{}j", &longest()[1..]);
    room.handoff().set(&neighbour, &state(2), 600).wait().unwrap();
    room.checkpoint().unwrap();
    room.close().unwrap();

    let room = small().open(&path).unwrap();
    let handoff = room.handoff();
    assert_eq!(handoff.get(&longest()).wait().unwrap(), Some(state(1)));
    let claim = handoff.claim(&longest(), Duration::from_secs(1)).wait().unwrap().unwrap();
    assert!(handoff.release(&claim.id.to_string().parse().unwrap()).wait().unwrap());
    let first = handoff.list(None, 1).wait().unwrap();
    let cursor: Cursor = first.next.unwrap().to_string().parse().unwrap();
    let second = handoff.list(Some(&cursor), 1).wait().unwrap();
    assert_eq!([&first.items[0].state_id, &second.items[0].state_id], [&neighbour, &longest()]);
    assert_eq!(handoff.get_and_delete(&longest()).wait().unwrap(), Some(state(1)));
    assert_eq!(handoff.get_and_delete(&longest()).wait().unwrap(), None);
    handoff.delete(&neighbour).wait().unwrap();
    assert_eq!(handoff.stats().wait().unwrap().bytes, 0);
}

#[test]
fn a_state_id_one_byte_longer_is_too_large_everywhere() {
    let room = in_memory();
    let (handoff, id) = (room.handoff(), too_long());
    too_large(handoff.set(&id, &state(1), 600).wait());
    too_large(handoff.get(&id).wait());
    too_large(handoff.get_and_delete(&id).wait());
    too_large(handoff.delete(&id).wait());
    too_large(handoff.claim(&id, Duration::from_secs(1)).wait());
    too_large(room.atomically(|tx| tx.handoff().set(&id, &state(1), 600)).wait());
    too_large(room.atomically(|tx| tx.handoff().get(&id)).wait());
    assert!(is_empty(&room));
}

/// A record whose every string is `text`.
fn record_of(text: &str) -> FormTokenRecord {
    FormTokenRecord {
        lookup_key: LookupKey::new(text),
        key_version: text.into(),
        subject: TokenSubject::Authenticated(text.into()),
        purpose: text.into(),
        bound_resource: Some(text.into()),
        ..token("")
    }
}

fn consume_of(room: &Cloakroom, text: &str) -> Result<(TokenConsumeOutcome, Option<String>)> {
    let subject = TokenSubject::Authenticated(text.into());
    room.form_tokens()
        .consume_form_token(&LookupKey::new(text), &subject, text, Some(text), 1_000)
        .wait()
}

#[test]
fn a_token_whose_every_string_has_the_longest_length_works() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    let room = small().open(&path).unwrap();
    room.form_tokens().insert_form_token(record_of(&longest())).wait().unwrap();
    assert_eq!(consume_of(&room, &longest()).unwrap(), (Proceed, None));
    let key = LookupKey::new(longest());
    room.form_tokens().set_token_result(&key, &longest()).wait().unwrap();
    room.close().unwrap();
    let room = small().open(&path).unwrap();
    assert_eq!(consume_of(&room, &longest()).unwrap(), (Replay, Some(longest())));
    let listed = room.form_tokens().list(None, 1).wait().unwrap().items;
    assert_eq!(listed[0].record, record_of(&longest()));
}

#[test]
fn a_token_string_one_byte_longer_is_too_large_wherever_it_stands() {
    let room = in_memory();
    let tokens = room.form_tokens();
    let long = too_long;
    for record in [
        FormTokenRecord { lookup_key: LookupKey::new(long()), ..token("t") },
        FormTokenRecord { key_version: long(), ..token("t") },
        FormTokenRecord { subject: TokenSubject::Authenticated(long()), ..token("t") },
        FormTokenRecord { subject: TokenSubject::Flow(long()), ..token("t") },
        FormTokenRecord { purpose: long(), ..token("t") },
        FormTokenRecord { bound_resource: Some(long()), ..token("t") },
    ] {
        too_large(tokens.insert_form_token(record.clone()).wait());
        too_large(room.atomically(|tx| tx.form_tokens().insert_form_token(record)).wait());
    }
    assert!(is_empty(&room));

    insert(&tokens, "t").wait().unwrap();
    consume(&tokens, "t").wait().unwrap();
    let before = room.engine_stats().unwrap().newest_lsn;
    let (key, anybody) = (LookupKey::new("t"), TokenSubject::Anonymous);
    too_large(consume(&tokens, &long()).wait());
    too_large(tokens.consume_form_token(&key, &TokenSubject::Flow(long()), "pay", None, 1).wait());
    too_large(tokens.consume_form_token(&key, &anybody, &long(), None, 1).wait());
    too_large(tokens.consume_form_token(&key, &anybody, "pay", Some(&long()), 1).wait());
    too_large(
        tokens
            .consume_form_token_any(
                &[key.clone(), LookupKey::new(long())],
                &anybody,
                "pay",
                None,
                1,
            )
            .wait(),
    );
    too_large(tokens.set_token_result(&key, &long()).wait());
    too_large(tokens.set_token_result(&LookupKey::new(long()), "r").wait());
    assert_eq!(room.engine_stats().unwrap().newest_lsn, before);
    assert_eq!(consume(&tokens, "t").wait().unwrap(), (Replay, None));
}

#[test]
fn no_candidate_is_invalid_and_many_are_looked_through() {
    let room = in_memory();
    let tokens = room.form_tokens();
    let anybody = TokenSubject::Anonymous;
    insert(&tokens, "last").wait().unwrap();
    let none = tokens.consume_form_token_any(&[], &anybody, "pay", None, 1);
    assert_eq!(none.wait().unwrap(), (Invalid, None));
    tokens.set_token_result_any(&[], "r").wait().unwrap();
    let mut candidates: Vec<_> =
        (0..5_000).map(|number| LookupKey::new(format!("no {number}"))).collect();
    candidates.push(LookupKey::new("last"));
    assert_eq!(
        tokens.consume_form_token_any(&candidates, &anybody, "pay", None, 1).wait().unwrap().0,
        Proceed
    );
    tokens.set_token_result_any(&candidates, "r").wait().unwrap();
    let again = tokens.consume_form_token_any(&candidates, &anybody, "pay", None, 1);
    assert_eq!(again.wait().unwrap(), (Replay, Some("r".into())));
}

#[test]
fn a_state_may_have_exactly_the_maximum_and_one_byte_more_leaves_the_old_one() {
    let room = in_memory();
    let handoff = room.handoff().with_max_state_bytes(1_000);
    handoff.set("s", &state_of(1_000), 600).wait().unwrap();
    let before = room.engine_stats().unwrap().newest_lsn;
    let refused = handoff.set("s", &state_of(1_001), 600).wait();
    assert!(
        matches!(refused, Err(Error::TooLarge { size: 1_001, limit: 1_000, .. })),
        "{refused:?}"
    );
    assert_eq!(room.engine_stats().unwrap().newest_lsn, before);
    assert_eq!(room.handoff().get("s").wait().unwrap(), Some(state_of(1_000)));
    let in_tx = room.atomically(|tx| {
        let mut handoff = tx.handoff().with_max_state_bytes(1_000);
        handoff.set("t", &state_of(1_000), 600)?;
        too_large(handoff.set("t", &state_of(1_001), 600));
        Ok::<_, Error>(())
    });
    in_tx.wait().unwrap();
    assert_eq!(room.handoff().get("t").wait().unwrap(), Some(state_of(1_000)));
}

#[test]
fn the_default_maximum_is_exact_in_the_default_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    let room = Cloakroom::open(&path).unwrap();
    let handoff = room.handoff();
    for bytes in [2_000, 1 << 20, DEFAULT_MAX_STATE_BYTES as usize] {
        handoff.set(&format!("{bytes}"), &state_of(bytes), 600).wait().unwrap();
    }
    too_large(handoff.set("more", &state_of(DEFAULT_MAX_STATE_BYTES as usize + 1), 600).wait());
    drop((room, handoff));
    let room = Cloakroom::open(&path).unwrap();
    room.checkpoint().unwrap();
    for bytes in [2_000, 1 << 20, DEFAULT_MAX_STATE_BYTES as usize] {
        let found = room.handoff().get_and_delete(&format!("{bytes}")).wait().unwrap();
        assert!(found == Some(state_of(bytes)), "{bytes}");
    }
}

/// The greatest maximum that a room accepts.
fn greatest_maximum(handoff: &Handoff) -> usize {
    let (mut fits, mut does_not) = (1, LONGEST_KEYS_LOG_CAPACITY as usize);
    while does_not - fits > 1 {
        let middle = fits.midpoint(does_not);
        match handoff.clone().with_max_state_bytes(middle as u64).get("s").wait() {
            Err(Error::InvalidConfig(_)) => does_not = middle,
            answer => {
                answer.unwrap();
                fits = middle;
            }
        }
    }
    fits
}

#[test]
fn every_accepted_maximum_state_size_fits_under_the_longest_id() {
    let room = in_memory();
    let greatest = greatest_maximum(&room.handoff());
    assert!(greatest > 256 << 10, "{greatest}");
    let handoff = room.handoff().with_max_state_bytes(greatest as u64);
    for round in 0..4 {
        handoff.set(&longest(), &state_of(greatest - round), 600 + round as u64).wait().unwrap();
    }
    assert!(handoff.get_and_delete(&longest()).wait().unwrap() == Some(state_of(greatest - 3)));
    too_large(handoff.set("s", &state_of(greatest + 1), 600).wait());
    assert!(matches!(
        room.handoff().with_max_state_bytes(u64::MAX).get("s").wait(),
        Err(Error::InvalidConfig(said)) if said.contains(&greatest.to_string())
    ));
}

#[test]
fn states_nest_to_the_limit_and_one_level_more_is_refused() {
    let nested = |levels: usize| {
        let inner = (1..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        cloakroom::handoff::JsonObject::from_iter([("in".to_owned(), inner)])
    };
    let room = in_memory();
    let handoff = room.handoff();
    handoff.set("s", &nested(MAX_STATE_DEPTH), 600).wait().unwrap();
    let refused = handoff.set("s", &nested(MAX_STATE_DEPTH + 1), 600).wait();
    assert!(matches!(refused, Err(Error::Encode(_))), "{refused:?}");
    assert_eq!(handoff.get("s").wait().unwrap(), Some(nested(MAX_STATE_DEPTH)));
}

#[test]
fn pages_hold_one_to_a_thousand_rows() {
    let room = in_memory();
    for number in 0..=MAX_LIST_LIMIT as u64 {
        drop(room.handoff().set(&format!("{number:04}"), &state(number), 600));
        drop(insert(&room.form_tokens(), &format!("{number:04}")));
    }
    let (handoff, tokens) = (room.handoff(), room.form_tokens());
    for limit in [0, MAX_LIST_LIMIT + 1, usize::MAX] {
        assert!(
            matches!(handoff.list(None, limit).wait(), Err(Error::InvalidConfig(_))),
            "{limit}"
        );
        assert!(matches!(tokens.list(None, limit).wait(), Err(Error::InvalidConfig(_))), "{limit}");
    }
    for limit in [1, MAX_LIST_LIMIT] {
        let page = handoff.list(None, limit).wait().unwrap();
        assert_eq!(page.items.len(), limit);
        let rest = handoff.list(page.next.as_ref(), MAX_LIST_LIMIT).wait().unwrap();
        assert_eq!(rest.items[0].state_id, format!("{limit:04}"));
        let page = tokens.list(None, limit).wait().unwrap();
        assert_eq!(page.items.len(), limit);
        let rest = tokens.list(page.next.as_ref(), MAX_LIST_LIMIT).wait().unwrap();
        assert_eq!(rest.items[0].record.lookup_key.as_str(), format!("{limit:04}"));
        assert_eq!(rest.items.len(), MAX_LIST_LIMIT + 1 - limit);
        assert_eq!(rest.next, None);
    }
    // A cursor of one store is none of the other.
    let foreign = tokens.list(None, 1).wait().unwrap().next.unwrap();
    assert!(matches!(handoff.list(Some(&foreign), 1).wait(), Err(Error::InvalidConfig(_))));
}

#[test]
fn an_endless_time_to_live_is_endless_and_none_is_over_at_once() {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let room = small().clock(clock.clone()).open_in_memory().unwrap();
    let handoff = room.handoff();
    for ttl_seconds in [u64::MAX, u64::MAX / 1_000, u64::MAX / 1_000 - 5_000] {
        handoff.set("s", &state(1), ttl_seconds).wait().unwrap();
        clock.set(u64::MAX - 10_000_000);
        assert_eq!(handoff.get("s").wait().unwrap(), Some(state(1)), "{ttl_seconds}");
        clock.set(NOW_MS);
    }
    handoff.set("s", &state(2), 0).wait().unwrap();
    assert_eq!(handoff.get("s").wait().unwrap(), None);
    assert!(handoff.list(None, 10).wait().unwrap().items.is_empty());
    // One second is over at its end, not before.
    handoff.set("s", &state(3), 1).wait().unwrap();
    clock.set(NOW_MS + 999);
    assert_eq!(handoff.get("s").wait().unwrap(), Some(state(3)));
    clock.set(NOW_MS + 1_000);
    assert_eq!(handoff.get_and_delete("s").wait().unwrap(), None);
}

#[test]
fn an_endless_lease_holds_and_one_of_zero_is_invalid() {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let room = small().clock(clock.clone()).open_in_memory().unwrap();
    let handoff = room.handoff();
    handoff.set("s", &state(1), u64::MAX).wait().unwrap();
    assert!(matches!(handoff.claim("s", Duration::ZERO).wait(), Err(Error::InvalidConfig(_))));
    assert_eq!(handoff.get("s").wait().unwrap(), Some(state(1)));
    let claim = handoff.claim("s", Duration::MAX).wait().unwrap().unwrap();
    clock.set(u64::MAX - 1);
    assert_eq!(handoff.get("s").wait().unwrap(), None);
    assert!(handoff.ack(&claim.id).wait().unwrap());
    // The shortest lease lasts a millisecond.
    clock.set(NOW_MS);
    handoff.set("s", &state(2), 600).wait().unwrap();
    let claim = handoff.claim("s", Duration::from_nanos(1)).wait().unwrap().unwrap();
    assert_eq!(handoff.get("s").wait().unwrap(), None);
    clock.set(NOW_MS + 1);
    assert!(!handoff.ack(&claim.id).wait().unwrap());
    assert_eq!(handoff.get("s").wait().unwrap(), Some(state(2)));
}

#[test]
fn tokens_live_to_the_end_of_time() {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let room = small().clock(clock.clone()).open_in_memory().unwrap();
    let tokens = room.form_tokens();
    let record = FormTokenRecord { issued_at: u64::MAX, expires_at: u64::MAX, ..token("t") };
    let consume_at = |now| {
        let (key, anybody) = (LookupKey::new("t"), TokenSubject::Anonymous);
        tokens.consume_form_token(&key, &anybody, "pay", None, now).wait().unwrap().0
    };
    tokens.insert_form_token(record.clone()).wait().unwrap();
    // At its last second it has ended; before that it has not.
    assert_eq!(consume_at(u64::MAX), Invalid);
    clock.set(u64::MAX);
    assert!(matches!(tokens.insert_form_token(record.clone()).wait(), Err(Error::AlreadyExists)));
    assert_eq!(tokens.list(None, 1).wait().unwrap().items[0].record, record);
    assert_eq!(consume_at(u64::MAX - 1), Proceed);
    assert_eq!(consume_at(u64::MAX), Replay);
    // One that ended before it was issued is no token, and in no one's way.
    tokens.insert_form_token(FormTokenRecord { expires_at: 0, ..token("0") }).wait().unwrap();
    assert_eq!(consume(&tokens, "0").wait().unwrap().0, Invalid);
    tokens.insert_form_token(token("0")).wait().unwrap();
}

#[test]
fn a_grace_ends_at_its_second_whether_short_or_endless() {
    let room = in_memory();
    for (grace, last) in [
        (Duration::ZERO, None),
        (Duration::from_secs(1), Some(1_000_000)),
        (DEFAULT_REPLAY_GRACE, Some(1_000_000 + DEFAULT_REPLAY_GRACE.as_secs() - 1)),
        (Duration::MAX, Some(1 << 50)),
    ] {
        let tokens = room.form_tokens().with_replay_grace(grace);
        let key = format!("{grace:?}");
        insert(&tokens, &key).wait().unwrap();
        assert_eq!(consume(&tokens, &key).wait().unwrap().0, Proceed);
        let at = |now| {
            let (key, anybody) = (LookupKey::new(&*key), TokenSubject::Anonymous);
            room.form_tokens()
                .consume_form_token(&key, &anybody, "pay", None, now)
                .wait()
                .unwrap()
                .0
        };
        assert_eq!(at(999_999), Replay);
        if let Some(last) = last {
            assert_eq!(at(last), Replay, "{grace:?}");
        }
        if grace < Duration::MAX {
            assert_eq!(at(1_000_000 + grace.as_secs()), Invalid, "{grace:?}");
        }
    }
}

#[test]
fn a_transaction_too_large_for_the_log_leaves_nothing() {
    let room = in_memory();
    let write = |states: u64| {
        room.atomically(|tx| {
            tx.form_tokens().insert_form_token(token(&format!("with {states}")))?;
            (0..states).try_for_each(|number| {
                tx.handoff().set(&format!("{states}/{number}"), &state_of(100_000), 600)
            })
        })
    };
    too_large(write(42).wait());
    too_large(write(100).wait());
    assert!(is_empty(&room));
    assert_eq!(room.form_tokens().stats().wait().unwrap().live, 0);
    // What fits goes on fitting, however often, although every one takes a whole segment.
    for states in [41, 41, 40, 39, 41] {
        let key = LookupKey::new(format!("with {states}"));
        let outcome = write(states).wait();
        assert!(outcome.is_ok() || matches!(outcome, Err(Error::AlreadyExists)), "{outcome:?}");
        assert_eq!(
            room.form_tokens()
                .list(None, 9)
                .wait()
                .unwrap()
                .items
                .iter()
                .filter(|entry| entry.record.lookup_key == key)
                .count(),
            1
        );
    }
    assert_eq!(room.handoff().list(None, 1_000).wait().unwrap().items.len(), 120);
}

/// Strings of which a careless encoding would take one for another.
const TRICKY: [&str; 26] = [
    "",
    "\0",
    "\0\0",
    "\0\u{1}",
    "\u{1}",
    "a",
    "a\0",
    "a\0b",
    "a\0\0b",
    "ab",
    "a/b",
    "a:b",
    "a|b",
    "a%",
    "a_",
    "%",
    "_",
    "%25",
    "*",
    "..",
    "é",
    "e\u{301}",
    "\u{ff}",
    "\u{fffd}",
    "\u{10ffff}",
    "\u{feff}a",
];

#[test]
fn every_string_is_an_id_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    let room = small().open(&path).unwrap();
    for (number, id) in (0..).zip(TRICKY) {
        room.handoff().set(id, &state(number), 600).wait().unwrap();
    }
    room.checkpoint().unwrap();
    drop(room);
    let room = small().open(&path).unwrap();
    let mut sorted = TRICKY;
    sorted.sort_unstable();
    let listed = room.handoff().list(None, 1_000).wait().unwrap().items;
    assert_eq!(listed.iter().map(|entry| entry.state_id.as_str()).collect::<Vec<_>>(), sorted);
    for (number, id) in (0..).zip(TRICKY) {
        let claim = room.handoff().claim(id, Duration::from_secs(1)).wait().unwrap().unwrap();
        let claim_id = claim.id.to_string().parse().unwrap();
        assert_eq!((&claim.id, &claim.state), (&claim_id, &state(number)), "{id:?}");
        assert!(room.handoff().release(&claim_id).wait().unwrap());
        assert_eq!(
            room.handoff().get_and_delete(id).wait().unwrap(),
            Some(state(number)),
            "{id:?}"
        );
        assert_eq!(
            room.handoff().list(None, 1_000).wait().unwrap().items.len(),
            TRICKY.len() - 1 - number as usize
        );
    }
}

#[test]
fn every_string_is_a_lookup_key_of_its_own_and_comes_back() {
    let room = in_memory();
    let tokens = room.form_tokens();
    let hexadecimal = ["ab", "AB", "0a", "0A", "0", "00", "000", "ab0", "abcg", "6162"];
    let mut keys: Vec<&str> = TRICKY.into_iter().chain(hexadecimal).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in &keys {
        tokens
            .insert_form_token(record_of(key))
            .wait()
            .unwrap_or_else(|error| panic!("{key:?}: {error}"));
    }
    room.checkpoint().unwrap();
    for (done, key) in keys.iter().enumerate() {
        assert_eq!(consume_of(&room, key).unwrap(), (Proceed, None), "{key:?}");
        tokens.set_token_result(&LookupKey::new(*key), key).wait().unwrap();
        assert_eq!(tokens.stats().wait().unwrap().consumed, done as u64 + 1);
    }
    for key in &keys {
        assert_eq!(consume_of(&room, key).unwrap(), (Replay, Some((*key).to_owned())));
    }
    let mut listed: Vec<_> = Vec::new();
    let mut cursor = None;
    loop {
        let page = tokens.list(cursor.as_ref(), 3).wait().unwrap();
        listed.extend(page.items.into_iter().map(|entry| entry.record));
        let Some(next) = page.next else { break };
        cursor = Some(next.to_string().parse().unwrap());
    }
    listed.sort_by(|a, b| a.lookup_key.cmp(&b.lookup_key));
    assert_eq!(listed, keys.iter().map(|key| record_of(key)).collect::<Vec<_>>());
}

#[test]
fn no_part_of_a_binding_can_be_pushed_into_another() {
    let room = in_memory();
    let tokens = room.form_tokens();
    let record = FormTokenRecord {
        subject: TokenSubject::Authenticated("a\0b".into()),
        purpose: "c".into(),
        bound_resource: None,
        ..token("t")
    };
    tokens.insert_form_token(record).wait().unwrap();
    let key = LookupKey::new("t");
    let named = |name: &str| TokenSubject::Authenticated(name.into());
    for (subject, purpose, resource) in [
        (named("a"), "b\0c", None),
        (named("a"), "b", Some("c")),
        (named("a\0b\0c"), "", None),
        (named("a\0b"), "c\0", None),
        (named("a\0b"), "c", Some("")),
        (named("A\0b"), "c", None),
        (TokenSubject::Flow("a\0b".into()), "c", None),
        (TokenSubject::Anonymous, "c", None),
        (named(""), "c", None),
    ] {
        let answer =
            tokens.consume_form_token(&key, &subject, purpose, resource, 1).wait().unwrap();
        assert_eq!(answer, (Invalid, None), "{subject:?} {purpose:?} {resource:?}");
    }
    assert_eq!(
        tokens.consume_form_token(&key, &named("a\0b"), "c", None, 1).wait().unwrap().0,
        Proceed
    );
}

#[test]
fn strings_inside_a_state_come_back_to_the_byte() {
    let room = in_memory();
    let fields = TRICKY.iter().map(|text| ((*text).to_owned(), Value::from(*text)));
    let state = cloakroom::handoff::JsonObject::from_iter(fields);
    room.handoff().set("s", &state, 600).wait().unwrap();
    room.checkpoint().unwrap();
    assert_eq!(room.handoff().get("s").wait().unwrap(), Some(state));
    room.handoff().set("s", &cloakroom::handoff::JsonObject::new(), 600).wait().unwrap();
    assert_eq!(
        room.handoff().get("s").wait().unwrap(),
        Some(cloakroom::handoff::JsonObject::new())
    );
}
