//! What every [`CacheStore`] must do.

mod calls;
mod extremes;

use super::cache_sample::CacheSample;
use super::{Rule, START, run};
use crate::clock::ManualClock;
use crate::error::Error;
use crate::limits::{DEFAULT_MAX_ENTRY_BYTES, in_memory};
use crate::stores::cache::{CacheStore, Ttl};
use calls::*;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const LONG_AFTER: Duration = Duration::from_secs(1_000 * 365 * 86_400);

/// Runs the whole suite on stores that `factory` makes: fresh, empty, without a limit on entries,
/// with the default maximum of 5 MiB, and with the clock that they take their time from.
///
/// # Panics
/// When a rule is broken, with the list of the broken ones.
pub fn cache<S: CacheStore<CacheSample> + 'static>(factory: impl Fn() -> (S, Arc<ManualClock>)) {
    run("cache", RULES, |check: &dyn Fn(&CacheDriver, &ManualClock)| {
        let (store, clock) = factory();
        check(&store, &clock);
    });
}

const RULES: &[Rule<CacheDriver>] = &[
    ("an absent entry is None, and deleting it is fine", absent),
    ("get reads a value and leaves it", get_leaves),
    ("set overwrites a value and its time to live", overwrites),
    ("delete removes an entry", delete_removes),
    ("an entry is there until its time to live is over, and not at that moment", expires),
    ("a time to live of zero never ends", ttl_zero),
    ("a negative time to live is over at once, and ends what was there", ttl_negative),
    ("the greatest time to live does not overflow", ttl_greatest),
    ("an expired entry is absent to every call", expired_is_absent),
    ("every JSON value comes back equal", json_values),
    ("a value over the maximum is not stored, and removes the older one", oversized),
    ("a value that cannot be encoded is Encode, and what was there stays", unencodable),
    (
        "a value that would be read back as another one is Encode, and what was there stays",
        changed_by_json,
    ),
    ("a value that no longer decodes is a miss, and is removed", undecodable),
    ("set_for ends to the millisecond, never, or at once", set_for_ends),
    ("set_for leaves the tags, and overwrites a time to live", set_for_overwrites),
    ("clear without a scope removes everything", clear_all),
    ("clear removes what starts with the scope, literally", clear_scope),
    ("clear removes many entries", clear_many),
    ("a tag removes every entry that has it, and no other", tag_removes),
    ("an entry with several of the tags counts once", tags_count_once),
    ("a tag that is listed twice counts once", duplicate_tags),
    ("set_with_tags replaces the tags", tags_are_replaced),
    ("an empty list of tags leaves none", empty_tags),
    ("a plain set leaves the tags", plain_set_keeps_tags),
    ("a deleted or cleared entry leaves no tags to the next", tags_go_with_the_entry),
    ("an expired entry has no tags, and leaves none to the next", expired_tags),
    ("no tags and unknown tags remove nothing", no_tags),
    ("any string up to 64 KiB is a hash and a tag, and no two are the same", extremes::any_strings),
    ("a hash, scope or tag over 64 KiB is TooLarge, and nothing changes", extremes::too_large),
    ("a call sees every call before it, awaited or not", extremes::in_order),
    ("of many concurrent invalidations exactly one counts an entry", extremes::race_invalidate),
    ("of many concurrent sets one value and its tags are left", extremes::race_set),
    ("concurrent sets of many entries are all kept", extremes::race_many),
];

fn absent(store: &CacheDriver, _: &ManualClock) {
    set(store, "other", 1);
    assert_eq!(get(store, "h"), None);
    delete(store, "h");
    clear(store, Some("h"));
    assert_eq!(get(store, "other"), Some(sample(1)));
}

fn get_leaves(store: &CacheDriver, _: &ManualClock) {
    set(store, "h", 1);
    for _ in 0..3 {
        assert_eq!(get(store, "h"), Some(sample(1)));
    }
}

fn overwrites(store: &CacheDriver, clock: &ManualClock) {
    for (hash, ttl_seconds) in [("longer", 2 * TTL), ("shorter", TTL / 2), ("for ever", 0)] {
        set(store, hash, 1);
        store.set(hash, &sample(2), ttl_seconds).wait().unwrap();
        assert_eq!(get(store, hash), Some(sample(2)));
    }
    store.set("ends", &sample(1), 0).wait().unwrap();
    set(store, "ends", 2);
    clock.advance(seconds(TTL / 2));
    assert_eq!(
        there(store, &["longer", "shorter", "for ever", "ends"]),
        ["longer", "for ever", "ends"]
    );
    clock.advance(seconds(TTL));
    assert_eq!(there(store, &["longer", "shorter", "for ever", "ends"]), ["longer", "for ever"]);
    clock.advance(seconds(TTL / 2));
    assert_eq!(there(store, &["longer", "shorter", "for ever", "ends"]), ["for ever"]);
}

fn delete_removes(store: &CacheDriver, _: &ManualClock) {
    set(store, "h", 1);
    set(store, "other", 2);
    delete(store, "h");
    delete(store, "h");
    assert_eq!(there(store, &["h", "other"]), ["other"]);
}

fn expires(store: &CacheDriver, clock: &ManualClock) {
    set(store, "h", 1);
    clock.set((START + TTL.unsigned_abs()) * 1_000 - 1);
    assert_eq!(get(store, "h"), Some(sample(1)));
    clock.advance(Duration::from_millis(1));
    assert_eq!(get(store, "h"), None);
}

fn ttl_zero(store: &CacheDriver, clock: &ManualClock) {
    store.set("h", &sample(1), 0).wait().unwrap();
    store.set_with_tags("t", &sample(1), 0, &["tag"]).wait().unwrap();
    clock.advance(LONG_AFTER);
    assert_eq!(there(store, &["h", "t"]), ["h", "t"]);
    assert_eq!(by_tag(store, "tag"), 1);
    clock.set(u64::MAX);
    assert_eq!(get(store, "h"), Some(sample(1)));
}

fn ttl_negative(store: &CacheDriver, _: &ManualClock) {
    for ttl_seconds in [-1, i64::MIN] {
        store.set("h", &sample(1), ttl_seconds).wait().unwrap();
        assert_eq!(get(store, "h"), None);
        tagged(store, "h", 1, &["old"]);
        store.set_with_tags("h", &sample(2), ttl_seconds, &["new"]).wait().unwrap();
        assert_eq!(get(store, "h"), None);
        set(store, "h", 3);
        assert_eq!(by_tags(store, &["old", "new"]), 0);
        assert_eq!(get(store, "h"), Some(sample(3)));
    }
}

fn ttl_greatest(store: &CacheDriver, clock: &ManualClock) {
    for (hash, ttl_seconds) in [("a", i64::MAX), ("b", i64::MAX / 1_000)] {
        store.set(hash, &sample(1), ttl_seconds).wait().unwrap();
    }
    clock.advance(LONG_AFTER);
    assert_eq!(there(store, &["a", "b"]), ["a", "b"]);
}

fn expired_is_absent(store: &CacheDriver, clock: &ManualClock) {
    tagged(store, "h", 1, &["tag"]);
    clock.advance(seconds(TTL));
    assert_eq!(get(store, "h"), None);
    assert_eq!(by_tag(store, "tag"), 0);
    delete(store, "h");
    clear(store, None);
    set(store, "h", 2);
    assert_eq!(get(store, "h"), Some(sample(2)));
}

fn json_values(store: &CacheDriver, _: &ManualClock) {
    let deep = (0..200).fold(json!(null), |inner, level| match level % 2 {
        0 => json!([inner, level]),
        _ => json!({ "deeper": inner, "": level }),
    });
    let values = [
        json!(null),
        json!(true),
        json!(""),
        json!("\0\u{1}\u{7f}\u{2028} 漢字 🧥"),
        json!([]),
        json!({ "": { "\0": [null, [[], {}], "x", 1] } }),
        json!([
            u64::MAX,
            i64::MIN,
            0,
            -0.0,
            0.1 + 0.2,
            1e16,
            f64::MAX,
            5e-324,
            2.638_344_616_030_823_6e-256
        ]),
        json!(deep),
        json!("x".repeat(1 << 20)),
    ];
    for value in values.map(CacheSample::Json) {
        store.set("h", &value, TTL).wait().unwrap();
        assert_eq!(get(store, "h"), Some(value));
    }
}

fn oversized(store: &CacheDriver, _: &ManualClock) {
    let large = CacheSample::Json(json!("x".repeat(in_memory(DEFAULT_MAX_ENTRY_BYTES))));
    tagged(store, "h", 1, &["tag"]);
    for hash in ["h", "new"] {
        store.set(hash, &large, TTL).wait().unwrap();
        assert_eq!(get(store, hash), None);
        tagged(store, hash, 1, &["tag"]);
        store.set_with_tags(hash, &large, TTL, &["tag"]).wait().unwrap();
        assert_eq!(get(store, hash), None);
    }
    set(store, "h", 2);
    assert_eq!(by_tag(store, "tag"), 0);
    assert_eq!(get(store, "h"), Some(sample(2)));
}

fn unencodable(store: &CacheDriver, _: &ManualClock) {
    tagged(store, "h", 1, &["tag"]);
    for hash in ["h", "new"] {
        let answer = store.set(hash, &CacheSample::Unencodable, TTL).wait();
        assert!(matches!(answer, Err(Error::Encode(_))), "{answer:?}");
        let answer = store.set_with_tags(hash, &CacheSample::Unencodable, -1, &["new"]).wait();
        assert!(matches!(answer, Err(Error::Encode(_))), "{answer:?}");
    }
    assert_eq!(there(store, &["h", "new"]), ["h"]);
    assert_eq!(by_tag(store, "new"), 0);
    assert_eq!(by_tag(store, "tag"), 1);
}

fn changed_by_json(store: &CacheDriver, _: &ManualClock) {
    tagged(store, "h", 1, &["tag"]);
    let changed = [
        CacheSample::Floats(vec![f64::NAN]),
        CacheSample::Floats(vec![0.5, f64::INFINITY]),
        CacheSample::Floats(vec![f64::NEG_INFINITY, 1.0]),
        CacheSample::Maybe(Some(None)),
    ];
    for value in &changed {
        for hash in ["h", "new"] {
            let answers = [
                store.set(hash, value, TTL).wait(),
                store.set_for(hash, value, Ttl::Never).wait(),
                store.set_with_tags(hash, value, TTL, &["new"]).wait(),
            ];
            for answer in answers {
                assert!(matches!(answer, Err(Error::Encode(_))), "{value:?}: {answer:?}");
            }
        }
    }
    assert_eq!(get(store, "h"), Some(sample(1)), "the older value must stay");
    assert_eq!(there(store, &["h", "new"]), ["h"]);
    assert_eq!((by_tag(store, "new"), by_tag(store, "tag")), (0, 1));
    let kept = [
        (
            CacheSample::Floats(vec![-0.0, f64::MAX, f64::MIN_POSITIVE]),
            json!([-0.0, f64::MAX, f64::MIN_POSITIVE]),
        ),
        (CacheSample::Maybe(None), json!(null)),
        (CacheSample::Maybe(Some(Some(7))), json!(7)),
    ];
    for (value, json) in kept {
        store.set("h", &value, TTL).wait().unwrap();
        assert_eq!(get(store, "h"), Some(CacheSample::Json(json)));
    }
}

fn set_for_ends(store: &CacheDriver, clock: &ManualClock) {
    let ttl = |ms| Ttl::For(Duration::from_millis(ms));
    let set_for = |hash, ttl| store.set_for(hash, &sample(1), ttl).wait().unwrap();
    set_for("ms", ttl(1_500));
    set_for("one", ttl(1));
    set_for("never", Ttl::Never);
    set_for("greatest", Ttl::For(Duration::MAX));
    set(store, "zero", 1);
    set_for("zero", ttl(0));
    assert_eq!(
        there(store, &["ms", "one", "never", "greatest", "zero"]),
        ["ms", "one", "never", "greatest"]
    );
    clock.advance(Duration::from_millis(1));
    assert_eq!(there(store, &["one"]), Vec::<&str>::new());
    clock.advance(Duration::from_millis(1_498));
    assert_eq!(there(store, &["ms"]), ["ms"]);
    clock.advance(Duration::from_millis(1));
    assert_eq!(there(store, &["ms"]), Vec::<&str>::new());
    clock.advance(LONG_AFTER);
    assert_eq!(there(store, &["never", "greatest"]), ["never", "greatest"]);
}

fn set_for_overwrites(store: &CacheDriver, clock: &ManualClock) {
    tagged(store, "h", 1, &["tag"]);
    store.set_for("h", &sample(2), Ttl::For(Duration::from_millis(10))).wait().unwrap();
    assert_eq!(get(store, "h"), Some(sample(2)));
    store.set_for("h", &sample(3), Ttl::Never).wait().unwrap();
    clock.advance(LONG_AFTER);
    assert_eq!(get(store, "h"), Some(sample(3)));
    assert_eq!(by_tag(store, "tag"), 1, "set_for took the tags");
    assert_eq!(get(store, "h"), None);
}

fn undecodable(store: &CacheDriver, _: &ManualClock) {
    store.set_with_tags("h", &CacheSample::Undecodable, TTL, &["tag"]).wait().unwrap();
    assert_eq!(get(store, "h"), None);
    assert_eq!(get(store, "h"), None);
    assert_eq!(by_tag(store, "tag"), 0, "it was not removed");
    set(store, "h", 1);
    assert_eq!(by_tag(store, "tag"), 0);
    assert_eq!(get(store, "h"), Some(sample(1)));
}

fn clear_all(store: &CacheDriver, _: &ManualClock) {
    for hash in ["", "a", "b\0", "\u{10ffff}"] {
        tagged(store, hash, 1, &["tag"]);
    }
    clear(store, None);
    assert_eq!(there(store, &["", "a", "b\0", "\u{10ffff}"]), Vec::<&str>::new());
    assert_eq!(by_tag(store, "tag"), 0);
    clear(store, None);
}

fn clear_scope(store: &CacheDriver, _: &ManualClock) {
    let hashes =
        ["", "a", "a%", "a%b", "a_", "ab", "a\0", "a\0b", "b", "\u{10ffff}", "\u{10ffff}x", "A"];
    for scope in ["a", "a%", "a_", "a\0", "ab", "", "b", "\u{10ffff}", "%", "_", "*", "abc"] {
        for hash in hashes {
            set(store, hash, 1);
        }
        clear(store, Some(scope));
        let left: Vec<_> = hashes.into_iter().filter(|hash| !hash.starts_with(scope)).collect();
        assert_eq!(there(store, &hashes), left, "scope {scope:?}");
    }
}

fn clear_many(store: &CacheDriver, _: &ManualClock) {
    let waits: Vec<_> = (0..1_000)
        .map(|number| store.set_with_tags(&format!("a{number}"), &sample(number), TTL, &["x", "y"]))
        .collect();
    set(store, "b", 1);
    clear(store, Some("a"));
    waits.into_iter().for_each(|pending| pending.wait().unwrap());
    assert_eq!(get(store, "a999"), None);
    assert_eq!(by_tags(store, &["x", "y"]), 0);
    assert_eq!(get(store, "b"), Some(sample(1)));
}

fn tag_removes(store: &CacheDriver, _: &ManualClock) {
    tagged(store, "a", 1, &["x"]);
    tagged(store, "b", 2, &["x", "y"]);
    tagged(store, "c", 3, &["y"]);
    set(store, "d", 4);
    assert_eq!(by_tag(store, "x"), 2);
    assert_eq!(there(store, &["a", "b", "c", "d"]), ["c", "d"]);
    assert_eq!(by_tag(store, "x"), 0);
    assert_eq!(by_tag(store, "y"), 1);
    assert_eq!(there(store, &["a", "b", "c", "d"]), ["d"]);
}

fn tags_count_once(store: &CacheDriver, _: &ManualClock) {
    tagged(store, "a", 1, &["x", "y", "z"]);
    tagged(store, "b", 2, &["z"]);
    tagged(store, "c", 3, &["other"]);
    assert_eq!(by_tags(store, &["x", "z", "y", "z", "unknown"]), 2);
    assert_eq!(there(store, &["a", "b", "c"]), ["c"]);
}

fn duplicate_tags(store: &CacheDriver, _: &ManualClock) {
    tagged(store, "a", 1, &["x", "x", "y", "x"]);
    assert_eq!(by_tag(store, "x"), 1);
    tagged(store, "a", 1, &["x", "x"]);
    tagged(store, "a", 1, &["y", "y"]);
    assert_eq!(by_tag(store, "x"), 0);
    assert_eq!(by_tags(store, &["y", "y"]), 1);
}

fn tags_are_replaced(store: &CacheDriver, _: &ManualClock) {
    tagged(store, "a", 1, &["x", "y"]);
    tagged(store, "a", 2, &["y", "z"]);
    assert_eq!(by_tag(store, "x"), 0);
    assert_eq!(get(store, "a"), Some(sample(2)));
    assert_eq!(by_tag(store, "z"), 1);
    assert_eq!(by_tag(store, "y"), 0);
}

fn empty_tags(store: &CacheDriver, _: &ManualClock) {
    tagged(store, "a", 1, &["x", "y"]);
    tagged(store, "a", 2, &[]);
    assert_eq!(by_tags(store, &["x", "y"]), 0);
    assert_eq!(get(store, "a"), Some(sample(2)));
}

fn plain_set_keeps_tags(store: &CacheDriver, _: &ManualClock) {
    tagged(store, "a", 1, &["x", "y"]);
    set(store, "a", 2);
    store.set("a", &sample(3), 0).wait().unwrap();
    assert_eq!(get(store, "a"), Some(sample(3)));
    assert_eq!(by_tag(store, "y"), 1);
    assert_eq!(get(store, "a"), None);
}

fn tags_go_with_the_entry(store: &CacheDriver, _: &ManualClock) {
    type Removal = fn(&CacheDriver);
    let removals: [Removal; 4] = [
        |store| delete(store, "a"),
        |store| clear(store, None),
        |store| clear(store, Some("a")),
        |store| assert_eq!(by_tag(store, "y"), 1),
    ];
    for removal in removals {
        tagged(store, "a", 1, &["x", "y"]);
        removal(store);
        set(store, "a", 2);
        assert_eq!(by_tags(store, &["x", "y"]), 0);
        assert_eq!(get(store, "a"), Some(sample(2)));
        delete(store, "a");
    }
}

fn expired_tags(store: &CacheDriver, clock: &ManualClock) {
    tagged(store, "a", 1, &["x"]);
    tagged(store, "b", 1, &["x"]);
    store.set_with_tags("c", &sample(1), 2 * TTL, &["x"]).wait().unwrap();
    clock.advance(seconds(TTL));
    set(store, "a", 2);
    assert_eq!(by_tag(store, "x"), 1, "only the one that has not expired");
    assert_eq!(there(store, &["a", "b", "c"]), ["a"]);
}

fn no_tags(store: &CacheDriver, _: &ManualClock) {
    tagged(store, "a", 1, &["x"]);
    assert_eq!(by_tags(store, &[]), 0);
    assert_eq!(by_tags(store, &["", "y", "xx", "X"]), 0);
    assert_eq!(get(store, "a"), Some(sample(1)));
}
