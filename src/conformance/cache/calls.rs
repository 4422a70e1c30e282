//! Calls of a cache, and what the checks expect of them.

use crate::conformance::cache_sample::CacheSample;
use crate::stores::cache::CacheStore;
use serde_json::json;
use std::time::Duration;

/// How long the entries of the checks live, in seconds.
pub(super) const TTL: i64 = 600;
pub(super) type CacheDriver = dyn CacheStore<CacheSample>;

pub(super) fn sample(number: u64) -> CacheSample {
    CacheSample::Json(json!({ "number": number }))
}

pub(super) fn set(store: &CacheDriver, hash: &str, number: u64) {
    store.set(hash, &sample(number), TTL).wait().unwrap();
}

pub(super) fn tagged(store: &CacheDriver, hash: &str, number: u64, tags: &[&str]) {
    store.set_with_tags(hash, &sample(number), TTL, tags).wait().unwrap();
}

pub(super) fn get(store: &CacheDriver, hash: &str) -> Option<CacheSample> {
    store.get(hash).wait().unwrap()
}

pub(super) fn delete(store: &CacheDriver, hash: &str) {
    store.delete(hash).wait().unwrap();
}

pub(super) fn clear(store: &CacheDriver, scope: Option<&str>) {
    store.clear(scope).wait().unwrap();
}

pub(super) fn by_tag(store: &CacheDriver, tag: &str) -> u64 {
    store.invalidate_by_tag(tag).wait().unwrap()
}

pub(super) fn by_tags(store: &CacheDriver, tags: &[&str]) -> u64 {
    store.invalidate_by_tags(tags).wait().unwrap()
}

pub(super) fn seconds(ttl_seconds: i64) -> Duration {
    Duration::from_secs(ttl_seconds.unsigned_abs())
}

/// Which of `hashes` are there.
pub(super) fn there<'a>(store: &CacheDriver, hashes: &[&'a str]) -> Vec<&'a str> {
    hashes.iter().copied().filter(|hash| get(store, hash).is_some()).collect()
}
