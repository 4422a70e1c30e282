//! Jobs at the extremes: the longest strings, many calls at once.

use super::calls::{DedupeDriver, block_on, complete, join, own, some, value};
use crate::clock::ManualClock;
use crate::conformance::{RACERS, race};
use crate::error::Error;
use crate::limits::MAX_KEY_LEN;
use crate::pending::Pending;
use crate::stores::dedupe::JobId;
use serde_json::{Value, json};

pub(super) fn any_hash(store: &DedupeDriver, _: &ManualClock) {
    let longest = "h".repeat(MAX_KEY_LEN);
    let hashes = [
        "", "\0", "\0\0", "\0\u{1}", "a", "a\0", "a\0b", "a/b", "A", "%", "é", "e\u{301}", "𝄞",
        &longest,
    ];
    for (number, hash) in hashes.iter().enumerate() {
        own(store, hash);
        complete(store, hash, number);
    }
    for (number, hash) in hashes.iter().enumerate() {
        assert_eq!(value(store, hash), some(number), "hash {hash:.9?}");
    }
}

pub(super) fn too_large_hash(store: &DedupeDriver, _: &ManualClock) {
    fn assert_too_large<T: std::fmt::Debug>(call: &str, answer: Pending<T>) {
        let answer = answer.wait();
        assert!(matches!(answer, Err(Error::TooLarge { .. })), "{call}: {answer:?}");
    }
    let (long, job) = ("h".repeat(MAX_KEY_LEN + 1), own(store, "h"));
    assert_too_large("register", store.register(&long));
    assert_too_large("register_or_join", store.register_or_join(&long));
    assert_too_large("wait_for", store.wait_for(&long));
    assert_too_large("complete", store.complete(&long, &json!(1)));
    assert_too_large("fail", store.fail(&long, ""));
    assert_too_large("is_in_progress", store.is_in_progress(&long));
    assert_too_large("clear", store.clear(Some(&long)));
    assert_too_large("complete_owned", store.complete_owned(&long, &job, &json!(1)));
    assert_too_large("fail_owned", store.fail_owned(&long, &job, ""));
}

pub(super) fn id_by_string(store: &DedupeDriver, _: &ManualClock) {
    let job: JobId = own(store, "h").to_string().parse().unwrap();
    assert!(store.complete_owned("h", &job, &json!(1)).wait().unwrap());
}

pub(super) fn in_order(store: &DedupeDriver, _: &ManualClock) {
    let mut answers = Vec::new();
    for number in 0..200 {
        let hash = number.to_string();
        drop(store.register(&hash));
        answers.push((some(number), store.wait_for(&hash)));
        drop(store.complete(&hash, &json!(number)));
        answers.push((some(number), store.wait_for(&hash)));
        drop(store.clear(Some(&hash)));
        answers.push((None, store.wait_for(&hash)));
    }
    for (expected, pending) in answers {
        assert_eq!(pending.wait().unwrap(), expected);
    }
}

pub(super) fn race_register(store: &DedupeDriver, _: &ManualClock) {
    for round in 0..10 {
        let hash = round.to_string();
        let registrations = race(|_| join(store, &hash));
        assert_eq!(registrations.iter().filter(|registration| registration.is_owner).count(), 1);
        let job = join(store, &hash).job_id;
        assert!(registrations.iter().all(|registration| registration.job_id == job));
    }
}

pub(super) fn race_end(store: &DedupeDriver, _: &ManualClock) {
    for _ in 0..10 {
        let job = own(store, "h");
        let waiting = store.wait_for("h");
        let ends = race(|racer| match racer % 2 {
            0 => (Some(racer), store.complete_owned("h", &job, &json!(racer)).wait().unwrap()),
            _ => (None, store.fail_owned("h", &job, "no").wait().unwrap()),
        });
        let mut firsts = ends.into_iter().filter(|(_, first)| *first);
        let (Some((by, _)), None) = (firsts.next(), firsts.next()) else {
            panic!("a job ends once")
        };
        let expected = by.map(Value::from);
        assert_eq!(waiting.wait().unwrap(), expected);
        assert_eq!(value(store, "h"), expected);
    }
}

pub(super) fn race_wait(store: &DedupeDriver, _: &ManualClock) {
    for round in 0..20 {
        let hash = round.to_string();
        own(store, &hash);
        let got = race(|racer| {
            if racer == RACERS / 2 {
                complete(store, &hash, round);
            }
            match racer % 2 {
                0 => value(store, &hash),
                _ => block_on(store.wait_for(&hash)).unwrap(),
            }
        });
        assert!(got.iter().all(|value| *value == some(round)), "{got:?}");
    }
}

pub(super) fn race_fetch(store: &DedupeDriver, _: &ManualClock) {
    for round in 0..20 {
        let hash = round.to_string();
        let got = race(|racer| {
            let registration = join(store, &hash);
            if registration.is_owner {
                assert!(
                    store
                        .complete_owned(&hash, &registration.job_id, &json!(racer))
                        .wait()
                        .unwrap()
                );
            }
            value(store, &hash)
        });
        // A late caller may have found the job over, and done it again.
        assert!(got.iter().all(Option::is_some), "{got:?}");
    }
}
