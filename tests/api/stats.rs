//! What a room says about itself: the figures of its engine, and what each of its stores holds.

use crate::rooms::{NOW_MS, consume, insert, small, state, state_of, token};
use cloakroom::adaptive_rate_limit::{AdaptiveConfig, AdaptiveRateLimitStore, Priority};
use cloakroom::cache::CacheStore;
use cloakroom::dedupe::DedupeStore;
use cloakroom::form_token::FormTokenStore;
use cloakroom::handoff::HandoffStateStore;
use cloakroom::rate_limit::{RateLimitConfig, RateLimitStore};
use cloakroom::state::{Identity, StateRecord, StateStore};
use cloakroom::stats::{StoreKind, StoreStats};
use cloakroom::testing::{SimStorage, Storage};
use cloakroom::watch::Filter;
use cloakroom::{Cloakroom, Durability, Error, ManualClock};
use std::sync::Arc;
use std::time::Duration;

const LIMIT: RateLimitConfig = RateLimitConfig { limit: 5, window: Duration::from_secs(60) };

fn room() -> (Cloakroom, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    (small().without_threads().clock(clock.clone()).open_in_memory().unwrap(), clock)
}

/// (store, name, live, taken, expired) of each entry.
fn figures(stores: &[StoreStats]) -> Vec<(StoreKind, &str, u64, u64, u64)> {
    stores
        .iter()
        .map(|stats| {
            let name = stats.name.as_deref().unwrap_or("-");
            (stats.store, name, stats.live, stats.taken, stats.expired)
        })
        .collect()
}

/// Something in every store.
fn fill(room: &Cloakroom) {
    let tokens = room.form_tokens();
    for key in ["aa", "bb", "cc"] {
        insert(&tokens, key).wait().unwrap();
    }
    let mut short = token("dd");
    short.expires_at = NOW_MS / 1_000 + 10;
    tokens.insert_form_token(short).wait().unwrap();
    consume(&tokens, "aa").wait().unwrap();

    for (id, ttl) in [("a", 600), ("b", 600), ("c", 10)] {
        room.handoff().set(id, &state(1), ttl).wait().unwrap();
    }
    room.handoff().claim("a", Duration::from_secs(300)).wait().unwrap();

    let cache = room.cache::<u64>("pages");
    cache.set_with_tags("h", &1, 600, &["t", "u"]).wait().unwrap();
    cache.set("i", &1, 10).wait().unwrap();
    room.cache::<u64>("other\0").set("h", &1, 600).wait().unwrap();

    let jobs = room.dedupe::<u64>("http").with_job_timeout(Duration::from_secs(300));
    jobs.register("pending").wait().unwrap();
    jobs.register("done").wait().unwrap();
    jobs.complete("done", &1).wait().unwrap();
    let brief = room.dedupe::<u64>("http").with_job_timeout(Duration::from_secs(10));
    brief.register("brief").wait().unwrap();

    let limits = room.rate_limit("api", LIMIT).unwrap();
    for _ in 0..3 {
        limits.record("r").wait().unwrap();
    }
    limits.set_cooldown("o", NOW_MS + 60_000).wait().unwrap();
    room.rate_limit("cleared", LIMIT).unwrap().record("r").wait().unwrap();
    room.rate_limit("cleared", LIMIT).unwrap().clear().wait().unwrap();
    let adaptive = room.adaptive_rate_limit("api", LIMIT, AdaptiveConfig::default()).unwrap();
    adaptive.record("r", Priority::User).wait().unwrap();

    for kind in ["plan", "memory"] {
        let record = StateRecord::new(Identity::new("t", "u", "s", "r"), kind, b"{}".to_vec());
        room.state().save(record).wait().unwrap();
    }
}

#[test]
fn every_store_that_has_rows_is_counted_by_name() {
    let (room, clock) = room();
    assert!(room.stats().unwrap().stores.is_empty());
    fill(&room);
    let at_first = [
        (StoreKind::FORM_TOKENS, "-", 4, 1, 0),
        (StoreKind::HANDOFF, "-", 3, 1, 0),
        (StoreKind::CACHE, "other\0", 1, 0, 0),
        (StoreKind::CACHE, "pages", 2, 0, 0),
        (StoreKind::DEDUPE, "http", 3, 2, 0),
        (StoreKind::RATE_LIMIT, "api", 1, 0, 0),
        (StoreKind::RATE_LIMIT, "cleared", 0, 0, 1),
        (StoreKind::ADAPTIVE_RATE_LIMIT, "api", 1, 0, 0),
        (StoreKind::STATE, "-", 2, 0, 0),
    ];
    assert_eq!(figures(&room.stats().unwrap().stores), at_first);
    // The same when the rows are in the B-tree, and half of them in both places.
    let before = room.stats().unwrap().stores;
    room.checkpoint().unwrap();
    assert_eq!(room.stats().unwrap().stores, before);

    clock.advance(Duration::from_secs(10));
    let later = room.stats().unwrap().stores;
    assert_eq!(figures(&later)[0], (StoreKind::FORM_TOKENS, "-", 3, 1, 1));
    assert_eq!(figures(&later)[1], (StoreKind::HANDOFF, "-", 2, 1, 1));
    assert_eq!(figures(&later)[3], (StoreKind::CACHE, "pages", 1, 0, 1));
    assert_eq!(figures(&later)[4], (StoreKind::DEDUPE, "http", 2, 1, 1));
    clock.advance(Duration::from_secs(60));
    assert_eq!(figures(&room.stats().unwrap().stores)[5], (StoreKind::RATE_LIMIT, "api", 0, 0, 1));
}

#[test]
fn the_figures_agree_with_those_of_the_stores_and_rows_with_the_file() {
    let (room, clock) = room();
    fill(&room);
    clock.advance(Duration::from_secs(10));
    let stats = room.stats().unwrap();
    let of = |store: StoreKind, name: &str| {
        let named = |stats: &&StoreStats| {
            stats.store == store && stats.name.as_deref().unwrap_or("-") == name
        };
        stats.stores.iter().find(named).unwrap()
    };
    let tokens = room.form_tokens().stats().wait().unwrap();
    let found = of(StoreKind::FORM_TOKENS, "-");
    assert_eq!(
        (found.live, found.taken, found.expired),
        (tokens.live + tokens.consumed, tokens.consumed, tokens.expired)
    );
    let handoff = room.handoff().stats().wait().unwrap();
    let found = of(StoreKind::HANDOFF, "-");
    assert_eq!(
        (found.live, found.taken, found.expired),
        (handoff.live + handoff.claimed, handoff.claimed, handoff.expired)
    );
    let pages = room.cache::<u64>("pages").stats().wait().unwrap();
    let found = of(StoreKind::CACHE, "pages");
    assert_eq!((found.live, found.expired), (pages.live, pages.expired));
    // Two entries, tags of one, two rows by tag, two in the expiry index.
    assert_eq!(found.rows, 2 + 1 + 2 + 2);
    let jobs = room.dedupe::<u64>("http").stats().wait().unwrap();
    let found = of(StoreKind::DEDUPE, "http");
    assert_eq!(
        (found.live, found.taken, found.expired),
        (jobs.pending + jobs.completed + jobs.failed, jobs.pending, jobs.expired)
    );
    // A window, a request row (of one millisecond), a cooldown, two index rows.
    assert_eq!(of(StoreKind::RATE_LIMIT, "api").rows, 5);
    // A state has a row, one by its event, one by kind, one by tenant and kind.
    assert_eq!(of(StoreKind::STATE, "-").rows, 2 * 4);
    // In a room without overwritten rows every version in memory is a row; the number of the last
    // window is no store's.
    let (fresh, _) = self::room();
    for number in 0..10 {
        fresh.handoff().set(&format!("{number}"), &state(number), 600).wait().unwrap();
    }
    let stats = fresh.stats().unwrap();
    // One more is that of the room's time line.
    assert_eq!((stats.stores[0].rows, stats.engine.memory_rows), (20, 20 + 1));
    let bytes = fresh.handoff().stats().wait().unwrap().bytes;
    // Each of the index rows: an epoch, a time, a table and the key.
    assert_eq!(stats.stores[0].bytes, bytes + 10 * (4 + 8 + 1 + 1));
}

#[test]
fn a_cleared_window_that_is_used_again_counts() {
    let (room, _) = room();
    let limits = room.rate_limit("api", LIMIT).unwrap();
    limits.record("r").wait().unwrap();
    limits.clear().wait().unwrap();
    limits.record("r").wait().unwrap();
    assert_eq!(figures(&room.stats().unwrap().stores), [(StoreKind::RATE_LIMIT, "api", 1, 0, 0)]);
}

#[test]
fn groups_and_flushes_are_counted_as_they_were() {
    let (room, _) = room();
    let before = room.engine_stats().unwrap();
    assert_eq!((before.group_frames.count(), before.flush_ns.count()), (0, 0));
    for size in [1_u64, 10, 1, 100] {
        let pending: Vec<_> = (0..size)
            .map(|number| room.handoff().set(&format!("{number}"), &state(1), 60))
            .collect();
        pending.into_iter().for_each(|pending| pending.wait().unwrap());
    }
    let stats = room.engine_stats().unwrap();
    let groups = &stats.group_frames;
    assert_eq!((groups.count(), groups.sum(), groups.max()), (4, 112, 100));
    assert_eq!((groups.quantile(0.5), groups.quantile(1.0)), (1, 100));
    assert_eq!((stats.flushes, stats.flush_ns.count()), (4, 4));
    assert_eq!(stats.flush_time.as_nanos(), u128::from(stats.flush_ns.sum()));
    assert!(stats.flush_ns.max() > 0 && stats.flush_ns.quantile(0.5) <= stats.flush_ns.max());
    assert_eq!(stats.newest_lsn, groups.sum());
}

#[test]
fn groups_of_many_threads_hold_every_transaction_once() {
    let room = small().open_in_memory().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let room = &room;
            scope.spawn(move || {
                for number in 0..200 {
                    room.handoff()
                        .set(&format!("{thread}/{number}"), &state(number), 60)
                        .wait()
                        .unwrap();
                }
            });
        }
    });
    let stats = room.engine_stats().unwrap();
    assert_eq!((stats.group_frames.sum(), stats.durable_lsn), (1_600, 1_600));
    assert!(stats.group_frames.count() <= stats.flushes);
}

#[test]
fn checkpoints_and_stalls_are_timed() {
    let sim = SimStorage::new(1);
    let room = small().without_threads().open_on(Arc::new(sim.clone())).unwrap();
    assert_eq!(room.engine_stats().unwrap().since_checkpoint, None);
    room.handoff().set("a", &state(1), 60).wait().unwrap();
    room.checkpoint().unwrap();
    let stats = room.engine_stats().unwrap();
    assert_eq!((stats.checkpoints, stats.checkpoint_ns.count()), (1, 1));
    assert!(stats.checkpoint_ns.max() > 0 && stats.since_checkpoint.is_some());
    assert!(stats.btree_bytes > 0 && stats.file_bytes > stats.btree_bytes);
    assert_eq!(stats.stalls, 0);
    // No one has looked; a caller that asks for everything does.
    assert_eq!((stats.btree_used_bytes, stats.btree_free_bytes), (None, None));
    let looked = room.stats().unwrap().engine;
    let (used, free) = (looked.btree_used_bytes.unwrap(), looked.btree_free_bytes.unwrap());
    assert!(
        used > 0 && used + free == looked.btree_bytes,
        "{used} + {free} of {}",
        looked.btree_bytes
    );
    assert_eq!(room.engine_stats().unwrap().btree_used_bytes, Some(used));

    sim.set_capacity(Some(sim.len().unwrap()));
    let full =
        |number: u64| room.handoff().set(&format!("{number}"), &state_of(60_000), 600).wait();
    assert!((0..10_000).any(|number| matches!(full(number), Err(Error::DiskFull { .. }))));
    let stats = room.engine_stats().unwrap();
    assert!(stats.stalls > 0 && stats.stall_time > Duration::ZERO && stats.checkpoint_failures > 0);
    assert_eq!(stats.checkpoints, stats.checkpoint_ns.count());
}

#[test]
fn the_json_has_a_member_for_every_figure() {
    let (room, _) = room();
    let _watch = room.watch(Filter::all()).unwrap();
    fill(&room);
    let json = serde_json::to_value(room.stats().unwrap()).unwrap();
    let engine: Vec<_> = json["engine"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = vec![
        "newest_lsn",
        "durable_lsn",
        "checkpoint_lsn",
        "flushes",
        "flush_time_ns",
        "flush_ns",
        "group_frames",
        "log_bytes_written",
        "log_space",
        "btree_bytes_written",
        "btree_bytes",
        "btree_used_bytes",
        "btree_free_bytes",
        "checkpoints",
        "checkpoint_ns",
        "since_checkpoint_ns",
        "checkpoint_failures",
        "stalls",
        "stall_time_ns",
        "disk_full",
        "disk_full_stalls",
        "description_fallbacks",
        "directory_flush_fallbacks",
        "durable_write_fallbacks",
        "flush_fallbacks",
        "map_fallbacks",
        "rename_fallbacks",
        "reservation_fallbacks",
        "memory_rows",
        "file_bytes",
        "swept",
        "sweep_rescheduled",
        "sweep_slices",
        "sweep_rounds",
        "watchers",
        "watch_buffered",
        "watch_lag",
        "watch_overtaken",
        "poisoned",
    ];
    expected.sort_unstable();
    assert_eq!(engine, expected);
    assert_eq!(json["engine"]["watchers"], 1);
    assert_eq!(json["engine"]["poisoned"], false);
    assert_eq!(json["engine"]["since_checkpoint_ns"], serde_json::Value::Null);
    let store = &json["stores"][2];
    assert_eq!((&store["store"], &store["name"]), (&"cache".into(), &"other\0".into()));
    assert_eq!(
        (&store["live"], &store["taken"], &store["expired"]),
        (&1.into(), &0.into(), &0.into())
    );
    assert_eq!(store["rows"], 2);
    assert_eq!(json["stores"][0]["name"], serde_json::Value::Null);
}

#[test]
fn stats_count_rows_due_for_the_sweeper_and_rows_it_removed() {
    let (room, clock) = room();
    fill(&room);
    assert_eq!(room.stats().unwrap().sweep_backlog, 0);
    clock.advance(Duration::from_secs(10));
    let before = room.stats().unwrap();
    let expired = |stores: &[StoreStats]| stores.iter().map(|stats| stats.expired).sum::<u64>();
    // A token, a state, a value and a job; the cleared window goes with the others of its limiter.
    assert_eq!((before.sweep_backlog, before.engine.swept), (4, 0));
    assert_eq!(expired(&before.stores), 4 + 1);
    let report = room.sweep().unwrap();
    let after = room.stats().unwrap();
    assert_eq!((report.total(), after.sweep_backlog, after.engine.swept), (4, 0, 4));
    assert_eq!(expired(&after.stores), 1);
    assert!(after.engine.sweep_slices > 0 && after.engine.sweep_rounds > 0);
    // What is gone is counted no more: each of the four had a row and an index row.
    let rows = |stores: &[StoreStats]| stores.iter().map(|stats| stats.rows).sum::<u64>();
    assert_eq!(rows(&before.stores) - rows(&after.stores), 8);
}

#[test]
fn a_closed_room_has_no_figures() {
    let (room, _) = room();
    room.close().unwrap();
    assert!(matches!(room.stats(), Err(Error::Closed)));
    assert!(matches!(room.engine_stats(), Err(Error::Closed)));
}

#[test]
fn figures_are_of_one_position_and_do_not_wait_for_the_disk() {
    let (room, _) = room();
    let relaxed = room.handoff().with_durability(Durability::Os);
    relaxed.set("a", &state(1), 60).wait().unwrap();
    let flushes = room.engine_stats().unwrap().flushes;
    assert_eq!(room.stats().unwrap().stores[0].live, 1);
    assert_eq!(room.engine_stats().unwrap().flushes, flushes);
}
