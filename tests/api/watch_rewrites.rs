//! The change feed shows what callers did and what ended, and nothing of how rows are kept: no
//! question, no rescheduling, no sweep in parts, no checkpoint, compaction or copy is a change.

use crate::rooms::{NOW_MS, consume, small, state, token};
use cloakroom::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitStore, Priority};
use cloakroom::cache::CacheStore;
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::{FormTokenStore, LookupKey};
use cloakroom::handoff::HandoffStateStore;
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::state::{Identity, ListScope, StateRecord, StateStore};
use cloakroom::stats::StoreKind;
use cloakroom::watch::{Change, ChangeKind, Filter, Watch};
use cloakroom::{Cloakroom, ManualClock};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const RATE: RateLimitConfig = RateLimitConfig { limit: 10_000, window: Duration::from_secs(60) };

/// Every change so far.
fn drain(room: &Cloakroom, watch: &mut Watch) -> Vec<Change> {
    // A change is shown when it is durable.
    room.checkpoint().unwrap();
    std::iter::from_fn(|| watch.try_recv().unwrap()).collect()
}

fn open(clock: &Arc<ManualClock>) -> Cloakroom {
    small().without_threads().clock(clock.clone()).open_in_memory().unwrap()
}

fn identity() -> Identity {
    Identity::new("t", "u", "s", "r")
}

/// An entry in every store, in every state that it can be in.
fn fill(room: &Cloakroom) {
    let tokens = room.form_tokens().with_replay_grace(Duration::from_secs(90));
    for key in ["aa", "bb"] {
        let mut short = token(key);
        short.expires_at = NOW_MS / 1_000 + 60;
        tokens.insert_form_token(short).wait().unwrap();
    }
    consume(&tokens, "bb").wait().unwrap();
    tokens.set_token_result(&LookupKey::new("bb"), "r").wait().unwrap();
    let handoff = room.handoff();
    for id in ["free", "claimed"] {
        handoff.set(id, &state(1), 60).wait().unwrap();
    }
    handoff.claim("claimed", Duration::from_secs(5)).wait().unwrap().unwrap();
    let cache = room.cache::<u64>("c").with_max_entries(100);
    let tags: Vec<_> = (0..2_000).map(|number| format!("{number:0>40}")).collect();
    let tags: Vec<_> = tags.iter().map(String::as_str).collect();
    cache.set_with_tags("many tags", &1, 60, &tags).wait().unwrap();
    cache.set("plain", &1, 60).wait().unwrap();
    let jobs = room.dedupe::<u64>("d").with_job_timeout(Duration::from_secs(60));
    jobs.register("pending").wait().unwrap();
    jobs.register("done").wait().unwrap();
    jobs.complete("done", &1).wait().unwrap();
    let plain = room.rate_limit("l", RATE).unwrap();
    let shared = room.adaptive_rate_limit("l", RATE, AdaptiveConfig::default()).unwrap();
    plain.record("busy").wait().unwrap();
    shared.record("busy", Priority::User).wait().unwrap();
    plain.set_cooldown("o", NOW_MS + 60_000).wait().unwrap();
    let record = StateRecord::new(identity(), "plan", b"{}".to_vec());
    room.state().save(record).wait().unwrap();
}

/// Every question there is.
fn ask(room: &Cloakroom) {
    room.form_tokens().list(None, 9).wait().unwrap();
    room.form_tokens().stats().wait().unwrap();
    consume(&room.form_tokens(), "unknown").wait().unwrap();
    room.handoff().get("free").wait().unwrap();
    room.handoff().stats().wait().unwrap();
    let cache = room.cache::<u64>("c").with_max_entries(100);
    cache.get("plain").wait().unwrap();
    cache.list(None, 9).wait().unwrap();
    let jobs = room.dedupe::<u64>("d");
    jobs.is_in_progress("pending").wait().unwrap();
    jobs.wait_for("done").wait().unwrap();
    let plain = room.rate_limit("l", RATE).unwrap();
    let shared = room.adaptive_rate_limit("l", RATE, AdaptiveConfig::default()).unwrap();
    for resource in ["busy", "new"] {
        plain.status(resource).wait().unwrap();
        plain.can_proceed(resource).wait().unwrap();
        plain.wait_time(resource).wait().unwrap();
        plain.cooldown(resource).wait().unwrap();
        shared.status(resource).wait().unwrap();
        shared.can_proceed(resource, Priority::Background).wait().unwrap();
        shared.wait_time(resource, Priority::User).wait().unwrap();
    }
    // Nothing is there to reset.
    plain.reset("new").wait().unwrap();
    shared.reset("new").wait().unwrap();
    room.state().load(&identity(), "plan").wait().unwrap();
    room.state().list_kind(ListScope::maintenance(), "p").wait().unwrap();
    room.stats().unwrap();
    room.export(&mut Vec::new()).unwrap();
    assert!(room.verify().unwrap().is_ok());
}

#[test]
fn nothing_is_shown_where_no_caller_did_anything() {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let room = open(&clock);
    fill(&room);
    let mut watch = room.watch(Filter::all()).unwrap();
    ask(&room);
    room.checkpoint().unwrap();
    room.compact().unwrap();
    ask(&room);
    assert_eq!(drain(&room, &mut watch), []);

    // Windows that go on: a sweeper comes early, and indexes them under their new ends.
    clock.advance(Duration::from_secs(14));
    let plain = room.rate_limit("l", RATE).unwrap();
    let shared = room.adaptive_rate_limit("l", RATE, AdaptiveConfig::default()).unwrap();
    plain.record("busy").wait().unwrap();
    clock.advance(Duration::from_secs(46));
    shared.record("busy", Priority::User).wait().unwrap();
    assert_eq!(drain(&room, &mut watch).len(), 2);
    let swept = room.sweep().unwrap();
    assert_eq!(swept.rescheduled, 2, "the window and the token in its grace");
    let shown = drain(&room, &mut watch);
    let kinds: BTreeSet<_> = shown.iter().map(|change| format!("{:?}", change.kind)).collect();
    assert_eq!(kinds, BTreeSet::from(["Expired".to_owned(), "Resumed".to_owned()]), "{shown:?}");
    // Each once, also the one whose tags went in parts.
    let keys: Vec<_> = shown.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(keys.len(), keys.iter().collect::<BTreeSet<_>>().len(), "{keys:?}");
    let ended = ["aa", "free", "claimed", "many tags", "plain", "pending", "done", "o"];
    assert!(ended.iter().all(|key| keys.contains(key)), "{keys:?}");

    // The rest ends; the row of the adaptive resource stays, without its requests.
    clock.advance(Duration::from_secs(3_600));
    let swept = room.sweep().unwrap();
    assert_eq!(swept.removed(StoreKind::ADAPTIVE_RATE_LIMIT), 1);
    let shown = drain(&room, &mut watch);
    let shown: Vec<_> =
        shown.iter().map(|change| (change.store, change.key.as_str(), change.kind)).collect();
    let expired = |store, key| (store, key, ChangeKind::Expired);
    assert_eq!(
        shown,
        [expired(StoreKind::FORM_TOKENS, "bb"), expired(StoreKind::RATE_LIMIT, "busy")]
    );
    ask(&room);
    assert_eq!(drain(&room, &mut watch), []);
}

#[test]
fn a_window_that_goes_in_parts_is_shown_once() {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let room = open(&clock);
    let plain = room.rate_limit("l", RATE).unwrap();
    for _ in 0..2_000 {
        plain.record("r").wait().unwrap();
        clock.advance(Duration::from_millis(1));
    }
    let mut watch = room.watch(Filter::all()).unwrap();
    clock.advance(Duration::from_secs(120));
    room.sweep().unwrap();
    let shown = drain(&room, &mut watch);
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!((shown[0].key.as_str(), shown[0].kind), ("r", ChangeKind::Expired));
}

#[test]
fn what_is_forgotten_is_shown_once_when_it_is_forgotten() {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let room = open(&clock);
    let plain = room.rate_limit("l", RATE).unwrap();
    let shared = room.adaptive_rate_limit("l", RATE, AdaptiveConfig::default()).unwrap();
    for resource in ["reset", "cleared"] {
        plain.record(resource).wait().unwrap();
        shared.record(resource, Priority::User).wait().unwrap();
        plain.set_cooldown(resource, NOW_MS + 60_000).wait().unwrap();
    }
    let mut watch = room.watch(Filter::all()).unwrap();
    for _ in 0..2 {
        // The second time there is nothing to forget.
        plain.reset("reset").wait().unwrap();
        shared.reset("reset").wait().unwrap();
    }
    plain.set_resource_config("cleared", RATE).wait().unwrap();
    shared.set_resource_config("cleared", RATE).wait().unwrap();
    plain.clear().wait().unwrap();
    shared.clear().wait().unwrap();
    let shown = drain(&room, &mut watch);
    let shown: Vec<_> =
        shown.iter().map(|change| (change.store, change.key.as_str(), change.kind)).collect();
    let (of_plain, of_shared) = (StoreKind::RATE_LIMIT, StoreKind::ADAPTIVE_RATE_LIMIT);
    assert_eq!(
        shown,
        [
            (of_plain, "reset", ChangeKind::Removed),
            (of_shared, "reset", ChangeKind::Removed),
            (of_plain, "cleared", ChangeKind::Configured),
            (of_shared, "cleared", ChangeKind::Configured),
            (of_plain, "", ChangeKind::Cleared),
            (of_shared, "", ChangeKind::Cleared),
        ]
    );
    clock.advance(Duration::from_secs(3_600));
    assert!(room.sweep().unwrap().total() >= 4);
    assert_eq!(drain(&room, &mut watch), []);
    // What is recorded after it is put, and ends, as anything else.
    plain.record("cleared").wait().unwrap();
    clock.advance(Duration::from_secs(3_600));
    room.sweep().unwrap();
    let kinds: Vec<_> = drain(&room, &mut watch).iter().map(|change| change.kind).collect();
    assert_eq!(kinds, [ChangeKind::Put, ChangeKind::Expired]);
}

#[test]
fn a_rewrite_in_the_transaction_of_a_change_hides_nothing() {
    let room = open(&Arc::new(ManualClock::new(NOW_MS)));
    let mut watch = room.watch(Filter::all()).unwrap();
    for record_first in [true, false] {
        let answer = room.atomically(|tx| {
            let mut limiter = tx.rate_limit("l", RATE)?;
            if record_first {
                limiter.record("r")?;
            }
            limiter.set_resource_config("r", RATE)?;
            if !record_first {
                limiter.record("r")?;
            }
            Ok::<_, cloakroom::Error>(())
        });
        answer.wait().unwrap();
        let kinds: Vec<_> = drain(&room, &mut watch).iter().map(|change| change.kind).collect();
        assert_eq!(kinds, [ChangeKind::Put, ChangeKind::Configured]);
    }
}
