//! Caches at the extremes: the longest strings, many calls at once.

use super::calls::{CacheDriver, TTL, by_tag, by_tags, get, sample, tagged, there};
use crate::clock::ManualClock;
use crate::conformance::cache_sample::CacheSample;
use crate::conformance::{RACERS, race};
use crate::error::Error;
use crate::limits::MAX_KEY_LEN;
use serde_json::Value;

pub(super) fn any_strings(store: &CacheDriver, _: &ManualClock) {
    let longest = "k".repeat(MAX_KEY_LEN);
    let strings = [
        "",
        "\0",
        "\0\0",
        "a",
        "a\0",
        "a\0b",
        "a\0\u{ff}",
        "ab",
        "a.b",
        "a/b",
        "A",
        "%",
        "_",
        "*",
        "é",
        "e\u{301}",
        "𝄞",
        &longest,
    ];
    for (number, text) in strings.iter().enumerate() {
        tagged(store, text, number as u64, &[text]);
    }
    for (number, text) in strings.iter().enumerate() {
        assert_eq!(get(store, text), Some(sample(number as u64)), "hash {text:.9?}");
    }
    for (removed, text) in strings.iter().enumerate() {
        assert_eq!(by_tag(store, text), 1, "tag {text:.9?}");
        assert_eq!(there(store, &strings), strings.get(removed + 1..).unwrap(), "tag {text:.9?}");
    }
}

pub(super) fn too_large(store: &CacheDriver, _: &ManualClock) {
    fn assert_too_large<T: std::fmt::Debug>(call: &str, answer: Result<T, Error>) {
        assert!(matches!(answer, Err(Error::TooLarge { .. })), "{call}: {answer:?}");
    }
    let long = "k".repeat(MAX_KEY_LEN + 1);
    tagged(store, "a", 1, &["x"]);
    assert_too_large("get", store.get(&long).wait());
    assert_too_large("set", store.set(&long, &sample(2), TTL).wait());
    assert_too_large("a set that is over at once", store.set(&long, &sample(2), -1).wait());
    assert_too_large("delete", store.delete(&long).wait());
    assert_too_large("clear", store.clear(Some(&long)).wait());
    assert_too_large("set_with_tags", store.set_with_tags(&long, &sample(2), TTL, &[]).wait());
    for ttl_seconds in [TTL, 0, -1] {
        assert_too_large(
            "a tag",
            store.set_with_tags("a", &sample(2), ttl_seconds, &["y", &long]).wait(),
        );
    }
    assert_too_large("invalidate_by_tag", store.invalidate_by_tag(&long).wait());
    assert_too_large("invalidate_by_tags", store.invalidate_by_tags(&["x", &long]).wait());
    assert_eq!(get(store, "a"), Some(sample(1)));
    assert_eq!(by_tag(store, "x"), 1);
}

pub(super) fn in_order(store: &CacheDriver, _: &ManualClock) {
    let (mut waits, mut reads, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..200 {
        let hash = format!("h-{}", number % 20);
        waits.push(store.set_with_tags(&hash, &sample(number), TTL, &["x"]));
        reads.push((Some(sample(number)), store.get(&hash)));
        if number % 3 == 0 {
            counts.push((1, store.invalidate_by_tag("x")));
        } else {
            waits.push(store.delete(&hash));
        }
        reads.push((None, store.get(&hash)));
    }
    for (expected, pending) in reads {
        assert_eq!(pending.wait().unwrap(), expected);
    }
    for (expected, pending) in counts {
        assert_eq!(pending.wait().unwrap(), expected);
    }
    waits.into_iter().for_each(|pending| pending.wait().unwrap());
    drop(store.set("dropped", &sample(1), TTL));
    assert_eq!(get(store, "dropped"), Some(sample(1)));
}

pub(super) fn race_invalidate(store: &CacheDriver, _: &ManualClock) {
    for round in 0..5 {
        for number in 0..20 {
            tagged(store, &format!("h{number}"), number, &["x", "y"]);
        }
        let counts = race(|racer| match (racer + round) % 3 {
            0 => by_tag(store, "x"),
            1 => by_tags(store, &["y", "x"]),
            _ => by_tags(store, &["x", "z", "y"]),
        });
        assert_eq!(counts.into_iter().sum::<u64>(), 20);
    }
}

pub(super) fn race_set(store: &CacheDriver, _: &ManualClock) {
    for _ in 0..5 {
        race(|racer| tagged(store, "h", racer as u64, &[&format!("t{racer}"), "all"]));
        let Some(CacheSample::Json(value)) = get(store, "h") else { panic!("no value is left") };
        let winner = value.get("number").and_then(Value::as_u64).unwrap();
        let counts: Vec<u64> = (0..RACERS as u64)
            .filter(|racer| *racer != winner)
            .map(|racer| by_tag(store, &format!("t{racer}")))
            .collect();
        assert_eq!(counts, vec![0; RACERS - 1], "tags of a value that was replaced");
        assert_eq!(by_tag(store, &format!("t{winner}")), 1);
        assert_eq!(by_tag(store, "all"), 0);
    }
}

pub(super) fn race_many(store: &CacheDriver, _: &ManualClock) {
    race(|racer| {
        for number in 0..20 {
            tagged(store, &format!("h{racer}-{number}"), number, &[&format!("t{number}")]);
        }
    });
    for number in 0..20 {
        assert_eq!(get(store, &format!("h7-{number}")), Some(sample(number)));
        assert_eq!(by_tag(store, &format!("t{number}")), RACERS as u64);
    }
}
