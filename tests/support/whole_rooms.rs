//! Rooms that have rows in every table, for the tests that look at whole files.
#![allow(dead_code, reason = "every test crate uses a part of it")]

use crate::rooms::{NOW_MS, consume, insert, state};
use cloakroom::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitStore, Priority};
use cloakroom::cache::CacheStore;
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::{FormTokenStore, LookupKey};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::limits::MIN_LOG_CAPACITY;
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::state::{Identity, StateRecord, StateStore};
use cloakroom::{Builder, Cloakroom, ManualClock};
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

/// How many tables there are.
pub const EVERY_TABLE: usize = 26;

const MINUTE: RateLimitConfig = RateLimitConfig { limit: 20, window: Duration::from_secs(60) };

/// Options of a room whose file is as small as can be and depends on the calls alone.
pub fn tiny() -> Builder {
    Cloakroom::builder()
        .log_capacity(MIN_LOG_CAPACITY)
        .clock(Arc::new(ManualClock::new(NOW_MS)))
        .without_threads()
}

/// Every row by table and key.
pub fn rows(room: &Cloakroom) -> BTreeMap<(u8, Vec<u8>), Vec<u8>> {
    room.raw_rows().unwrap().into_iter().collect()
}

/// Puts something into every table. The first half is in the B-tree afterwards, the second in the
/// log alone.
pub fn fill(room: &Cloakroom) {
    fill_half(room, "a");
    room.checkpoint().unwrap();
    fill_half(room, "b");
}

fn fill_half(room: &Cloakroom, half: &str) {
    let tokens = room.form_tokens();
    for number in 0..4 {
        insert(&tokens, &format!("{half}{number}")).wait().unwrap();
        room.handoff().set(&format!("{half}{number}"), &state(number), 600).wait().unwrap();
    }
    consume(&tokens, &format!("{half}0")).wait().unwrap();
    tokens.set_token_result(&LookupKey::new(format!("{half}0")), "done").wait().unwrap();
    room.handoff().claim(&format!("{half}1"), Duration::from_secs(30)).wait().unwrap().unwrap();
    let cache = room.cache::<String>("pages");
    cache.set_with_tags(&format!("{half}1"), &"one".into(), 600, &["x", "y"]).wait().unwrap();
    cache.set(&format!("{half}2"), &"two".into(), 0).wait().unwrap();
    let jobs = room.dedupe::<String>("jobs");
    jobs.register(&format!("{half}1")).wait().unwrap();
    jobs.register(&format!("{half}2")).wait().unwrap();
    jobs.complete(&format!("{half}2"), &"done".into()).wait().unwrap();
    let limiter = room.rate_limit("api", MINUTE).unwrap();
    limiter.record(half).wait().unwrap();
    limiter.set_resource_config(half, MINUTE).wait().unwrap();
    limiter.set_cooldown(half, NOW_MS + 5_000).wait().unwrap();
    let adaptive = room.adaptive_rate_limit("api", MINUTE, AdaptiveConfig::default()).unwrap();
    adaptive.record(half, Priority::User).wait().unwrap();
    adaptive.record(half, Priority::Background).wait().unwrap();
    let replaced = StateRecord::new(Identity::new("acme", half, "s", ""), "plan", *b"step 0");
    let windowed = room.state().with_late_window(Duration::from_secs(600));
    windowed.save(replaced.clone()).wait().unwrap();
    windowed.delete(&replaced.identity, "plan").wait().unwrap();
    for run in ["", "r"] {
        let whose = Identity::new("acme", half, "s", run);
        room.state().save(StateRecord::new(whose, "plan", *b"step 1")).wait().unwrap();
    }
    for (by_id, by_key, content) in [
        (26, 27, &b"\x02v1\x01\x04join\x00\x01\x01g\x07\xfb\x2c\x01\x01\x09\x01u\x00"[..]),
        (28, 29, b"\x02v1\x01u\x07\xfb\x2c\x01\x01\x09\x00"),
    ] {
        // As the adapter for `codlet` writes them, which not every build has.
        let lookup_key = [0, b'-', half.as_bytes()[0]];
        let content_len = u8::try_from(content.len()).unwrap();
        let record = [&[3][..], &lookup_key, b"\0\xfb\x2c\x01", &[content_len], content].concat();
        room.set_raw_row(by_id, half.as_bytes(), Some(&record)).unwrap();
        room.set_raw_row(by_key, &lookup_key, Some(half.as_bytes())).unwrap();
        room.set_raw_row(5, &expiry(300, by_id, half), Some(&[])).unwrap();
    }
    room.set_raw_row(30, half.as_bytes(), Some(b"\xfb\x2c\x01\0\x01\x05\x01")).unwrap();
    room.set_raw_row(5, &expiry(305, 30, half), Some(&[])).unwrap();
}

fn expiry(time_ms: u64, table: u8, key: &str) -> Vec<u8> {
    // In the first epoch of the time line.
    [&[0; 4], &time_ms.to_be_bytes()[..], &[table], key.as_bytes()].concat()
}

/// The bytes of a file with rows in every table, as a kill leaves it after everything is durable:
/// half of the rows are in the B-tree, half in the log alone.
pub fn image() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.cloak");
    let room = tiny().open(&path).unwrap();
    fill(&room);
    fs::read(&path).unwrap()
}
