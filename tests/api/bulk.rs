//! Operations that remove any number of entries: in small steps, as many as there are entries.

use cloakroom::cache::{Cache, CacheStore};
use cloakroom::dedupe::DedupeStore;
use cloakroom::state::{EventId, Identity, StateRecord, StateStore};
use cloakroom::{Cloakroom, Durability};
use std::sync::atomic::{AtomicBool, Ordering};

const BATCH: u32 = 100;

fn room() -> Cloakroom {
    Cloakroom::builder().sweep_interval(None).open_in_memory().unwrap()
}

fn cache(room: &Cloakroom) -> Cache<u32> {
    room.cache::<u32>("c").with_durability(Durability::Os)
}

fn newest(room: &Cloakroom) -> u64 {
    room.engine_stats().unwrap().newest_lsn
}

/// Leaves so many cached values with two tags each, jobs, and states of one session.
fn fill(room: &Cloakroom, entries: u32) {
    for first in (0..entries).step_by(BATCH as usize) {
        let filled = room.atomically(|tx| {
            for number in first..first + BATCH {
                let name = format!("{number:08}");
                tx.cache::<u32>("c").set_with_tags(&name, &number, 600, &["all", &name])?;
                tx.dedupe::<u32>("d").register(&name)?;
                tx.state().save(StateRecord {
                    id: EventId::from(format!("event {number}").as_str()),
                    identity: Identity::new("acme", "alice", "session", ""),
                    kind: name,
                    version: 1,
                    bytes: vec![1; 20],
                    updated_at: Some(1),
                })?;
            }
            Ok::<_, cloakroom::state::StateError>(())
        });
        filled.wait().unwrap();
    }
}

type Bulk = fn(&Cloakroom) -> Option<u64>;

/// How many entries each says that it has removed.
const BULK: [(&str, Bulk); 4] = [
    ("clear of a cache", |room| {
        cache(room).clear(Some("0")).wait().unwrap();
        None
    }),
    ("invalidate_by_tag", |room| Some(cache(room).invalidate_by_tag("all").wait().unwrap())),
    ("clear of jobs", |room| {
        room.dedupe::<u32>("d").clear(None).wait().unwrap();
        None
    }),
    ("delete_scope", |room| {
        Some(room.state().delete_scope("acme", "alice", "session").wait().unwrap())
    }),
];

#[test]
fn the_steps_are_small_and_as_many_as_the_entries_ask_for() {
    for (name, bulk) in BULK {
        let steps = [2_000, 4_000].map(|entries| {
            let room = room();
            fill(&room, entries);
            let (before, log_before) =
                (newest(&room), room.engine_stats().unwrap().log_bytes_written);
            let removed = bulk(&room);
            assert!(removed.is_none_or(|removed| removed == u64::from(entries)), "{name}");
            let steps = newest(&room) - before;
            assert_eq!(bulk(&room).unwrap_or_default(), 0, "{name}");
            assert_eq!(newest(&room), before + steps, "{name} found something twice");
            let bytes = room.engine_stats().unwrap().log_bytes_written - log_before;
            assert!(bytes / steps < 40 << 10, "{name}: {bytes} bytes in {steps} steps");
            steps
        });
        let [of_2_000, of_4_000] = steps;
        assert!(of_2_000 >= 4, "{name}: {steps:?}");
        assert!((2 * of_2_000 - 2..=2 * of_2_000 + 2).contains(&of_4_000), "{name}: {steps:?}");
    }
}

#[test]
fn inside_a_transaction_they_are_one_step() {
    let room = room();
    fill(&room, 2_000);
    let before = newest(&room);
    let removed = room.atomically(|tx| {
        tx.dedupe::<u32>("d").clear(None)?;
        let removed = tx.cache::<u32>("c").invalidate_by_tags(&["all", "00000007"])?;
        tx.cache::<u32>("c").clear(None)?;
        Ok::<_, cloakroom::state::StateError>(
            removed + tx.state().delete_scope("acme", "alice", "session")?,
        )
    });
    assert_eq!((removed.wait().unwrap(), newest(&room)), (4_000, before + 1));
}

#[test]
fn many_tags_on_few_entries_cost_no_more_than_their_rows() {
    let (room, names) = (room(), (0..8_000).map(|number| format!("tag {number}")));
    let names: Vec<String> = names.collect();
    let tags: Vec<&str> = names.iter().map(String::as_str).collect();
    let cache = cache(&room);
    for (hash, value) in [("a", 1), ("b", 2)] {
        cache.set_with_tags(hash, &value, 600, &tags).wait().unwrap();
    }
    cache.set_with_tags("c", &3, 600, &["other"]).wait().unwrap();
    let before = newest(&room);
    assert_eq!(cache.invalidate_by_tags(&tags).wait().unwrap(), 2);
    // One frame for each of the entries, and none for the tags that had no others.
    assert_eq!(newest(&room), before + 2);
    assert_eq!(cache.get("c").wait().unwrap(), Some(3));
    assert_eq!(cache.invalidate_by_tags(&tags).wait().unwrap(), 0);
}

#[test]
fn a_clear_ends_although_another_caller_adds_entries_behind_the_last_one_all_the_time() {
    let room = room();
    fill(&room, 2_000);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (cache, mut number) = (cache(&room), 0_u64);
            while !stop.load(Ordering::Relaxed) {
                cache.set(&format!("1{number:09}"), &7, 600).wait().unwrap();
                number += 1;
            }
        });
        for _ in 0..3 {
            cache(&room).clear(None).wait().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let left = cache(&room).list(None, 1_000).wait().unwrap();
    assert!(left.items.iter().all(|entry| entry.hash.starts_with('1')));
}
