//! What every [`CacheStore`] of [`Bytes`] must do beyond the suite for other values.

use super::{Rule, run};
use crate::clock::ManualClock;
use crate::limits::{DEFAULT_MAX_ENTRY_BYTES, in_memory};
use crate::stores::cache::{Bytes, CacheStore, Ttl};
use std::sync::Arc;

type BytesDriver = dyn CacheStore<Bytes>;

/// Runs the suite of bytes on stores that `factory` makes: fresh, empty, without a limit on
/// entries, with the default maximum of 5 MiB, and with the clock that they take their time from.
///
/// # Panics
/// When a rule is broken, with the list of the broken ones.
pub fn cache_bytes<S: CacheStore<Bytes> + 'static>(factory: impl Fn() -> (S, Arc<ManualClock>)) {
    run("cache of bytes", RULES, |check: &dyn Fn(&BytesDriver, &ManualClock)| {
        let (store, clock) = factory();
        check(&store, &clock);
    });
}

const RULES: &[Rule<BytesDriver>] = &[
    ("any bytes come back equal, not parsed", any_bytes),
    ("bytes of exactly the maximum are stored, and one more is not", maximum),
    ("bytes have tags and times to live as other values", tags_and_times),
];

fn set(store: &BytesDriver, hash: &str, bytes: &Bytes) {
    store.set(hash, bytes, 600).wait().unwrap();
}

fn get(store: &BytesDriver, hash: &str) -> Option<Bytes> {
    store.get(hash).wait().unwrap()
}

fn any_bytes(store: &BytesDriver, _: &ManualClock) {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let samples: [&[u8]; 8] =
        [b"", b"\0", b"null", b"{\"a\": 1 }", b" [1,2]\n", b"\"text\"", b"\xff\xfe", &all];
    for (number, sample) in samples.iter().enumerate() {
        set(store, &number.to_string(), &Bytes::from(*sample));
    }
    for (number, sample) in samples.iter().enumerate() {
        let read = get(store, &number.to_string()).map(Bytes::into_vec);
        assert_eq!(read.as_deref(), Some(*sample), "sample {number}");
    }
    set(store, "0", &Bytes::from("other"));
    assert_eq!(get(store, "0"), Some(Bytes::from("other")));
    store.delete("0").wait().unwrap();
    assert_eq!(get(store, "0"), None);
}

fn maximum(store: &BytesDriver, _: &ManualClock) {
    // Bytes that JSON would write with four characters each.
    let largest = Bytes::from(vec![0xfe; in_memory(DEFAULT_MAX_ENTRY_BYTES)]);
    set(store, "h", &largest);
    assert_eq!(get(store, "h"), Some(largest));
    let too_large = Bytes::from(vec![0xfe; in_memory(DEFAULT_MAX_ENTRY_BYTES) + 1]);
    set(store, "h", &too_large);
    assert_eq!(get(store, "h"), None, "the older value must go");
}

fn tags_and_times(store: &BytesDriver, clock: &ManualClock) {
    let bytes = Bytes::from([1, 2, 3]);
    store.set_with_tags("tagged", &bytes, 600, &["tag"]).wait().unwrap();
    let ttl = Ttl::For(std::time::Duration::from_millis(1_500));
    store.set_for("short", &bytes, ttl).wait().unwrap();
    clock.advance(std::time::Duration::from_millis(1_499));
    assert_eq!(get(store, "short"), Some(bytes.clone()));
    clock.advance(std::time::Duration::from_millis(1));
    assert_eq!(get(store, "short"), None);
    assert_eq!(get(store, "tagged"), Some(bytes));
    assert_eq!(store.invalidate_by_tag("tag").wait().unwrap(), 1);
    assert_eq!(get(store, "tagged"), None);
}
