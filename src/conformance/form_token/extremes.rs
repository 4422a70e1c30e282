//! Form tokens at the extremes: the longest strings, the greatest times, many calls at once.

use super::calls::{
    ConsumeAnswer, FormTokenDriver, assert_exists, consume, consume_any, insert, replay_of,
    set_result, token,
};
use crate::clock::ManualClock;
use crate::conformance::{RACERS, START, race};
use crate::error::Error;
use crate::limits::MAX_KEY_LEN;
use crate::stores::form_token::TokenConsumeOutcome::{Invalid, Proceed, Replay};
use crate::stores::form_token::TokenSubject::{Anonymous, Authenticated, Flow};
use crate::stores::form_token::{FormTokenRecord, LookupKey};
use std::time::Duration;

pub(super) fn any_key(store: &FormTokenDriver, _: &ManualClock) {
    let longest = "a".repeat(MAX_KEY_LEN);
    let keys = [
        "", "\0", "\0\0", "0", "00", "ab", "AB", "aB", "\u{ab}", "6162", "a", "a\0", "a\0b", "a/b",
        "%", "*", "é", "𝄞", &longest,
    ];
    for key in keys {
        insert(
            store,
            &FormTokenRecord { purpose: format!("{} {key:.9}", key.len()), ..token(key) },
        );
    }
    for key in keys {
        let record = FormTokenRecord { purpose: format!("{} {key:.9}", key.len()), ..token(key) };
        assert_eq!(consume(store, &record, START), (Proceed, None), "key {key:.20?}");
    }
}

fn assert_too_large<T: std::fmt::Debug>(what: &str, answer: Result<T, Error>) {
    assert!(matches!(answer, Err(Error::TooLarge { .. })), "{what}: {answer:?}");
}

pub(super) fn too_large(store: &FormTokenDriver, _: &ManualClock) {
    let long = "a".repeat(MAX_KEY_LEN + 1);
    let long_records = [
        ("lookup_key", token(&long)),
        ("key_version", FormTokenRecord { key_version: long.clone(), ..token("aa") }),
        (
            "authenticated subject",
            FormTokenRecord { subject: Authenticated(long.clone()), ..token("aa") },
        ),
        ("flow subject", FormTokenRecord { subject: Flow(long.clone()), ..token("aa") }),
        ("purpose", FormTokenRecord { purpose: long.clone(), ..token("aa") }),
        ("bound_resource", FormTokenRecord { bound_resource: Some(long.clone()), ..token("aa") }),
    ];
    for (what, record) in long_records {
        assert_too_large(what, store.insert_form_token(record).wait());
    }
    let record = token("aa");
    insert(store, &record);
    let long_key = LookupKey::new(long.clone());
    let consumed = store.consume_form_token(&long_key, &Anonymous, "pay", None, START).wait();
    assert_too_large("consume", consumed);
    let candidates = [record.lookup_key.clone(), long_key.clone()];
    let consumed = store
        .consume_form_token_any(
            &candidates,
            &record.subject,
            "pay",
            record.bound_resource.as_deref(),
            START,
        )
        .wait();
    assert_too_large("consume_any", consumed);
    assert_eq!(consume(store, &record, START), (Proceed, None), "TooLarge changed something");
    assert_too_large("set_token_result", store.set_token_result(&long_key, "r").wait());
    assert_too_large("result_ref", store.set_token_result(&record.lookup_key, &long).wait());
    assert_eq!(consume(store, &record, START), (Replay, None), "TooLarge changed something");
    set_result(store, &record, "a".repeat(MAX_KEY_LEN).as_str());
}

pub(super) fn greatest_times(store: &FormTokenDriver, clock: &ManualClock) {
    let record = FormTokenRecord { issued_at: u64::MAX, expires_at: u64::MAX, ..token("aa") };
    insert(store, &record);
    assert_exists(store, &record);
    assert_eq!(consume(store, &record, u64::MAX), (Invalid, None));
    assert_eq!(consume(store, &record, u64::MAX - 1), (Proceed, None));
    assert_eq!(consume(store, &record, u64::MAX), (Replay, None));
    clock.advance(Duration::from_secs(100 * 365 * 86_400));
    assert_exists(store, &record);
}

pub(super) fn pipelined(store: &FormTokenDriver, _: &ManualClock) {
    let records: Vec<_> = (0..500).map(|index| token(&format!("{index:08x}"))).collect();
    let inserts: Vec<_> =
        records.iter().map(|record| store.insert_form_token(record.clone())).collect();
    let mut consumes = Vec::new();
    for expected in [Proceed, Replay] {
        for record in &records {
            let bound_resource = record.bound_resource.as_deref();
            let pending = store.consume_form_token(
                &record.lookup_key,
                &record.subject,
                &record.purpose,
                bound_resource,
                START,
            );
            consumes.push((expected, pending));
        }
    }
    inserts.into_iter().for_each(|pending| pending.wait().unwrap());
    for (expected, pending) in consumes {
        assert_eq!(pending.wait().unwrap(), (expected, None));
    }
}

pub(super) fn dropped(store: &FormTokenDriver, _: &ManualClock) {
    let record = token("aa");
    drop(store.insert_form_token(record.clone()));
    drop(store.consume_form_token(
        &record.lookup_key,
        &record.subject,
        "pay",
        record.bound_resource.as_deref(),
        START,
    ));
    drop(store.set_token_result(&record.lookup_key, "r"));
    assert_eq!(consume(store, &record, START), replay_of("r"));
}

fn assert_one_proceeds(answers: &[ConsumeAnswer]) {
    let proceeds = answers.iter().filter(|answer| **answer == (Proceed, None)).count();
    let replays = answers.iter().filter(|answer| **answer == (Replay, None)).count();
    assert_eq!((proceeds, replays), (1, RACERS - 1), "of {RACERS} threads");
}

pub(super) fn race_consume(store: &FormTokenDriver, _: &ManualClock) {
    for round in 0..20 {
        let record = token(&format!("{round:04x}"));
        insert(store, &record);
        assert_one_proceeds(&race(|_| consume(store, &record, START)));
    }
}

pub(super) fn race_consume_any(store: &FormTokenDriver, _: &ManualClock) {
    let (unknown, record) = (token("00"), token("aa"));
    insert(store, &record);
    // Each names the token in another place among its candidates.
    assert_one_proceeds(&race(|racer| match racer % 3 {
        0 => consume_any(store, &[&unknown.lookup_key, &record.lookup_key], &record, START),
        1 => consume_any(store, &[&record.lookup_key, &unknown.lookup_key], &record, START),
        _ => consume(store, &record, START),
    }));
}

pub(super) fn race_insert(store: &FormTokenDriver, _: &ManualClock) {
    let versions = race(|racer| {
        let record = FormTokenRecord { purpose: format!("by {racer}"), ..token("aa") };
        match store.insert_form_token(record.clone()).wait() {
            Ok(()) => Some(record),
            Err(Error::AlreadyExists) => None,
            Err(other) => panic!("{other}"),
        }
    });
    let accepted: Vec<_> = versions.into_iter().flatten().collect();
    let [winner] = accepted.as_slice() else { panic!("{} inserts were accepted", accepted.len()) };
    assert_eq!(consume(store, winner, START), (Proceed, None));
}
