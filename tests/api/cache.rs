//! Caches as a program uses them: by name, over restarts, with limits, together with other stores.

use crate::rooms::{NOW_MS, small, state};
use cloakroom::cache::{Bytes, Cache, CacheStore, Ttl};
use cloakroom::dedupe::DedupeStore;
use cloakroom::handoff::HandoffStateStore;
use cloakroom::limits::{LONGEST_KEYS_LOG_CAPACITY, MAX_KEY_LEN};
use cloakroom::page::Cursor;
use cloakroom::{Cloakroom, Error, ManualClock};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

fn keys(cache: &Cache<u64>, hashes: &[&str]) -> Vec<String> {
    let there = |hash: &&&str| cache.get(hash).wait().unwrap().is_some();
    hashes.iter().filter(there).map(|hash| (*hash).to_string()).collect()
}

fn live(cache: &Cache<u64>) -> u64 {
    cache.stats().wait().unwrap().live
}

#[test]
fn values_and_tags_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let open = || {
        Cloakroom::builder()
            .log_capacity(LONGEST_KEYS_LOG_CAPACITY)
            .clock(clock.clone())
            .open(&path)
            .unwrap()
    };
    for checkpoint in [true, false] {
        let room = open();
        let cache = room.cache::<u64>("http");
        cache.set_with_tags("a", &1, 10, &["x", "y"]).wait().unwrap();
        cache.set("b", &2, 0).wait().unwrap();
        if checkpoint {
            room.checkpoint().unwrap();
        }
        room.close().unwrap();
        let room = open();
        let cache = room.cache::<u64>("http");
        assert_eq!(keys(&cache, &["a", "b"]), ["a", "b"]);
        assert_eq!(cache.invalidate_by_tag("y").wait().unwrap(), 1);
        assert_eq!(cache.invalidate_by_tag("x").wait().unwrap(), 0);
        cache.set("a", &1, 10).wait().unwrap();
        room.close().unwrap();
        clock.advance(Duration::from_secs(10));
        assert_eq!(keys(&open().cache("http"), &["a", "b"]), ["b"]);
    }
}

#[test]
fn the_order_of_use_begins_as_the_order_of_storing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let open = || {
        Cloakroom::builder()
            .log_capacity(LONGEST_KEYS_LOG_CAPACITY)
            .clock(clock.clone())
            .open(&path)
            .unwrap()
    };
    let room = open();
    for hash in ["c", "b", "a", "d"] {
        room.cache("http").set(hash, &1_u64, 0).wait().unwrap();
        clock.advance(Duration::from_millis(1));
    }
    room.close().unwrap();
    let room = open();
    let cache = room.cache::<u64>("http").with_max_entries(4);
    assert_eq!(cache.get("c").wait().unwrap(), Some(1));
    cache.set("e", &1, 0).wait().unwrap();
    assert_eq!(keys(&cache, &["a", "b", "c", "d", "e"]), ["a", "c", "d", "e"]);
    assert_eq!(cache.stats().wait().unwrap().evictions, 1);
}

#[test]
fn the_handle_that_sets_keeps_its_limits() {
    let room = small().open_in_memory().unwrap();
    let (free, limited) =
        (room.cache::<u64>("http"), room.cache::<u64>("http").with_max_entries(3));
    for hash in 0..10 {
        free.set(&hash.to_string(), &hash, 0).wait().unwrap();
    }
    assert_eq!(live(&free), 10);
    limited.set("x", &1, 0).wait().unwrap();
    assert_eq!(keys(&free, &["0", "7", "8", "9", "x"]), ["8", "9", "x"]);
    free.set("y", &1, 0).wait().unwrap();
    assert_eq!(live(&free), 4);
    let none = room.cache::<u64>("http").with_max_entries(0);
    none.set("z", &1, 0).wait().unwrap();
    assert_eq!(live(&free), 0);
    let bytes = room.cache::<u64>("http").with_max_bytes(4);
    for hash in ["a", "b", "c"] {
        bytes.set(hash, &1, 0).wait().unwrap();
    }
    assert_eq!(keys(&free, &["a", "b", "c"]), ["b", "c"]);
    bytes.set("b", &12_345, 0).wait().unwrap();
    assert_eq!(keys(&free, &["a", "b", "c"]), ["c"], "a value over the maximum is not kept");
    assert_eq!(free.stats().wait().unwrap().oversized, 1);
}

#[test]
fn hits_and_misses_write_nothing() {
    let room = small().open_in_memory().unwrap();
    let cache = room.cache::<u64>("http").with_max_entries(3);
    cache.set("a", &1, 0).wait().unwrap();
    let before = room.engine_stats().unwrap().newest_lsn;
    for _ in 0..10_000 {
        assert_eq!(cache.get("a").wait().unwrap(), Some(1));
    }
    assert_eq!(cache.get("b").wait().unwrap(), None);
    assert_eq!(room.engine_stats().unwrap().newest_lsn, before);
    let stats = cache.stats().wait().unwrap();
    assert_eq!((stats.live, stats.hits, stats.misses, stats.bytes), (1, 10_000, 1, 2));
}

#[test]
fn a_value_of_another_type_is_a_miss_and_goes_with_its_tags() {
    let room = small().open_in_memory().unwrap();
    room.cache::<String>("http").set_with_tags("a", &"text".into(), 0, &["x"]).wait().unwrap();
    assert_eq!(room.cache::<u64>("http").get("a").wait().unwrap(), None);
    assert_eq!(room.cache::<String>("http").get("a").wait().unwrap(), None);
    assert_eq!(room.cache::<u64>("http").invalidate_by_tag("x").wait().unwrap(), 0);
    assert_eq!(room.cache::<u64>("http").stats().wait().unwrap().bytes, 0);
}

#[test]
fn a_name_over_the_limit_makes_every_call_too_large() {
    let room = small().open_in_memory().unwrap();
    let longest = room.cache::<u64>(&"n".repeat(MAX_KEY_LEN));
    let hash = "h".repeat(MAX_KEY_LEN);
    longest.set_with_tags(&hash, &1, 5, &["x"]).wait().unwrap();
    longest.set_with_tags(&hash, &1, 6, &["y"]).wait().unwrap();
    assert_eq!(longest.get(&hash).wait().unwrap(), Some(1));
    assert_eq!(longest.invalidate_by_tag("y").wait().unwrap(), 1);
    let cache = room.cache::<u64>(&"n".repeat(MAX_KEY_LEN + 1));
    fn check<T: std::fmt::Debug>(answer: Result<T, Error>) {
        assert!(matches!(answer, Err(Error::TooLarge { .. })), "{answer:?}");
    }
    check(cache.get("h").wait());
    check(cache.set("h", &1, 0).wait());
    check(cache.set("h", &1, -1).wait());
    check(cache.delete("h").wait());
    check(cache.clear(None).wait());
    check(cache.set_with_tags("h", &1, 0, &[]).wait());
    check(cache.invalidate_by_tag("x").wait());
    check(cache.invalidate_by_tags(&[]).wait());
    check(cache.list(None, 1).wait());
    check(cache.stats().wait());
}

#[test]
fn an_entry_size_that_no_segment_holds_is_refused_and_the_default_shrinks() {
    let room = small().open_in_memory().unwrap();
    for asked in [0, 5 << 20, u64::MAX] {
        let refused = room.cache::<u64>("http").with_max_entry_bytes(asked);
        let answers = [
            refused.set("h", &1, 0).wait(),
            refused.get("h").wait().map(drop),
            refused.clear(None).wait(),
            refused.list(None, 1).wait().map(drop),
            room.atomically(|tx| refused.within(tx).set("h", &1, 0)).wait(),
            room.atomically(|tx| {
                tx.cache::<u64>("http").with_max_entry_bytes(asked).set("h", &1, 0)
            })
            .wait(),
        ];
        for answer in answers {
            assert!(matches!(answer, Err(Error::InvalidConfig(_))), "{asked}: {answer:?}");
        }
    }
    let texts = room.cache::<String>("http");
    for (len, kept) in [(3 << 20, true), (4 << 20, false)] {
        texts.set_with_tags("h", &"x".repeat(len), 0, &["t"]).wait().unwrap();
        assert_eq!(texts.get("h").wait().unwrap().is_some(), kept, "{len}");
    }
}

#[test]
fn more_than_a_frame_is_cleared_and_invalidated_and_evicted() {
    let room = small().open_in_memory().unwrap();
    let cache = room.cache::<u64>("http");
    let pad = "p".repeat(2_000);
    for round in 0..3 {
        for hash in 0..600 {
            drop(cache.set_with_tags(&format!("{hash}{pad}"), &hash, 60, &["x"]));
        }
        assert_eq!(live(&cache), 600);
        match round {
            0 => cache.clear(None).wait().unwrap(),
            1 => assert_eq!(cache.invalidate_by_tags(&["x"]).wait().unwrap(), 600),
            _ => {
                let limited = cache.clone().with_max_entries(1);
                limited.set("a", &1, 60).wait().unwrap();
                assert!(live(&cache) < 500, "one set evicts what fits a frame");
                for _ in 0..20 {
                    limited.set("a", &1, 60).wait().unwrap();
                }
                assert_eq!(keys(&cache, &["a"]), ["a"]);
                cache.delete("a").wait().unwrap();
            }
        }
        assert_eq!(live(&cache), 0);
    }
    let in_one_step: Result<(), Error> = {
        for hash in 0..600 {
            drop(cache.set_with_tags(&format!("{hash}{pad}"), &hash, 60, &["x"]));
        }
        room.atomically(|tx| tx.cache::<u64>("http").clear(None)).wait()
    };
    assert!(matches!(in_one_step, Err(Error::TooLarge { .. })), "{in_one_step:?}");
    assert_eq!(live(&cache), 600);
}

#[test]
fn a_transaction_is_kept_or_lost_whole_with_its_evictions() {
    let room = small().open_in_memory().unwrap();
    let cache = room.cache::<u64>("http").with_max_entries(2);
    cache.set("a", &1, 0).wait().unwrap();
    cache.set("b", &2, 0).wait().unwrap();
    let lost: Result<(), Error> = room
        .atomically(|tx| {
            tx.handoff().set("order", &state(1), 60)?;
            let mut cache = tx.cache::<u64>("http").with_max_entries(2);
            cache.set_with_tags("c", &3, 0, &["x"])?;
            cache.set("d", &4, 0)?;
            assert_eq!((cache.get("a")?, cache.get("c")?), (None, Some(3)));
            assert_eq!(cache.invalidate_by_tag("x")?, 1);
            Err(Error::AlreadyExists)
        })
        .wait();
    assert!(matches!(lost, Err(Error::AlreadyExists)));
    assert_eq!(keys(&cache, &["a", "b", "c", "d"]), ["a", "b"]);
    room.atomically(|tx| {
        tx.handoff().set("order", &state(1), 60)?;
        tx.cache::<u64>("http").with_max_entries(2).set("c", &3, 0)
    })
    .wait()
    .unwrap();
    assert_eq!(keys(&cache, &["a", "b", "c", "d"]), ["b", "c"]);
    assert_eq!(room.handoff().get("order").wait().unwrap(), Some(state(1)));
}

#[test]
fn a_limit_is_exact_under_many_threads() {
    const THREADS: u64 = 128;
    let room = small().open_in_memory().unwrap();
    let cache = room.cache::<u64>("http").with_max_entries(10);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (room, cache) = (&room, cache.clone());
            scope.spawn(move || {
                for step in 0..40 {
                    let hash = format!("{}", (thread * 7 + step) % 50);
                    match (thread + step) % 6 {
                        0 | 1 => {
                            cache.set_with_tags(&hash, &step, 60, &["x", &hash]).wait().unwrap()
                        }
                        2 => drop(cache.get(&hash).wait().unwrap()),
                        3 => cache.delete(&hash).wait().unwrap(),
                        4 => drop(cache.invalidate_by_tag(&hash).wait().unwrap()),
                        _ => drop(
                            room.atomically(|tx| {
                                tx.cache::<u64>("http")
                                    .with_max_entries(10)
                                    .set(&hash, &step, 0)?;
                                if step % 2 == 0 { Ok(()) } else { Err(Error::AlreadyExists) }
                            })
                            .wait(),
                        ),
                    }
                    assert!(live(&cache) <= 10);
                }
            });
        }
    });
    for hash in 0..10 {
        cache.set(&format!("last {hash}"), &1, 0).wait().unwrap();
    }
    assert_eq!(live(&cache), 10);
    assert_eq!(
        cache.get("last 0").wait().unwrap(),
        Some(1),
        "nothing is left that was used before them"
    );
}

#[test]
fn a_listing_goes_through_one_cache_in_order() {
    let room = small().open_in_memory().unwrap();
    let cache = room.cache::<u64>("http");
    for name in ["htt", "http", "http\0"] {
        for hash in ["b", "", "a"] {
            room.cache::<u64>(name).set_with_tags(hash, &1, 60, &["y", "x"]).wait().unwrap();
        }
    }
    let (mut found, mut cursor) = (Vec::new(), None::<Cursor>);
    loop {
        let page = cache.list(cursor.as_ref(), 2).wait().unwrap();
        found.extend(page.items);
        match page.next {
            Some(next) => cursor = Some(next.to_string().parse().unwrap()),
            None => break,
        }
    }
    assert_eq!(found.iter().map(|entry| &*entry.hash).collect::<Vec<_>>(), ["", "a", "b"]);
    assert_eq!((found[0].expires_at_ms, found[0].bytes), (Some(NOW_MS + 60_000), 1));
    assert_eq!(found[0].tags, ["x", "y"]);
    let answer = room.cache::<u64>("htt").list(cursor.as_ref(), 2).wait();
    assert!(matches!(answer, Err(Error::InvalidConfig(_))), "{answer:?}");
}

#[test]
fn a_closed_room_answers_closed() {
    let room = small().open_in_memory().unwrap();
    let cache = room.cache::<u64>("http");
    let before = cache.set("a", &1, 0);
    room.close().unwrap();
    before.wait().unwrap();
    assert!(matches!(cache.get("a").wait(), Err(Error::Closed)));
    assert!(matches!(cache.set("a", &1, 0).wait(), Err(Error::Closed)));
    assert!(matches!(cache.clear(None).wait(), Err(Error::Closed)));
    assert!(matches!(cache.invalidate_by_tag("x").wait(), Err(Error::Closed)));
    assert!(matches!(cache.stats().wait(), Err(Error::Closed)));
}

#[test]
fn bytes_count_as_what_they_are() {
    let room = Cloakroom::builder().open_in_memory().unwrap();
    let bytes: Cache<Bytes> = room.cache("images").with_max_bytes(5 << 20);
    let image = Bytes::from(vec![0xff; 2 << 20]);
    bytes.set("a", &image, 60).wait().unwrap();
    assert_eq!(bytes.get("a").wait().unwrap().as_ref(), Some(&image));
    let listed = bytes.list(None, 1).wait().unwrap().items;
    assert_eq!(listed[0].bytes, 2 << 20);
    assert_eq!(bytes.stats().wait().unwrap().bytes, (2 << 20) + 1);
    bytes.set("b", &image, 60).wait().unwrap();
    assert!(bytes.get("a").wait().unwrap().is_some(), "both fit");
    bytes.set("c", &image, 60).wait().unwrap();
    assert_eq!(bytes.stats().wait().unwrap().live, 2);

    let smaller = room.cache::<Bytes>("limited").with_max_entry_bytes(3);
    smaller.set("h", &Bytes::from([1, 2, 3]), 60).wait().unwrap();
    assert!(smaller.get("h").wait().unwrap().is_some());
    smaller.set("h", &Bytes::from([1, 2, 3, 4]), 60).wait().unwrap();
    assert_eq!(smaller.get("h").wait().unwrap(), None);
    assert_eq!(smaller.stats().wait().unwrap().oversized, 1);
}

#[test]
fn bytes_take_their_length_in_the_file() {
    const IMAGES: u64 = 24;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.cloak");
    small().open(&path).unwrap().close().unwrap();
    let before = std::fs::metadata(&path).unwrap().len();
    let room = small().open(&path).unwrap();
    let bytes = room.cache::<Bytes>("images");
    let image = Bytes::new(vec![0xfe; 127 << 10]);
    for number in 0..IMAGES {
        bytes.set(&number.to_string(), &image, 0).wait().unwrap();
    }
    room.close().unwrap();
    let grown = std::fs::metadata(&path).unwrap().len() - before;
    assert!(grown < 2 * IMAGES * (127 << 10), "{grown}");
    let room = small().open(&path).unwrap();
    let read = room.cache::<Bytes>("images").get("7").wait().unwrap();
    assert_eq!(read, Some(image));
    assert_eq!(room.verify().unwrap().findings, []);
}

#[test]
fn bytes_and_other_values_are_misses_of_each_other() {
    let room = Cloakroom::builder().open_in_memory().unwrap();
    let (bytes, numbers) = (room.cache::<Bytes>("c"), room.cache::<Vec<u8>>("c"));
    bytes.set("h", &Bytes::from("[1]"), 0).wait().unwrap();
    assert_eq!(numbers.get("h").wait().unwrap(), None);
    assert_eq!(bytes.get("h").wait().unwrap(), None, "it was removed");
    numbers.set("h", &vec![1], 0).wait().unwrap();
    assert_eq!(bytes.get("h").wait().unwrap(), None);
    assert_eq!(numbers.get("h").wait().unwrap(), None, "it was removed");

    let in_transaction = room.atomically(|tx| {
        tx.cache::<Bytes>("c").set_for_with_tags("h", &"x".into(), Ttl::Never, &["tag"])?;
        let read = tx.cache::<Bytes>("c").get("h")?;
        tx.cache::<Bytes>("c").set_for("short", &"y".into(), Duration::ZERO.into())?;
        Ok::<_, Error>((read, tx.cache::<u8>("c").get("h")?, tx.cache::<Bytes>("c").get("h")?))
    });
    assert_eq!(in_transaction.wait().unwrap(), (Some("x".into()), None, None));

    let (bytes, text) = (room.dedupe::<Bytes>("d"), room.dedupe::<String>("d"));
    drop(bytes.register("h"));
    let waiting = bytes.wait_for("h");
    bytes.complete("h", &Bytes::from([0, 255])).wait().unwrap();
    assert_eq!(waiting.wait().unwrap(), Some(Bytes::from([0, 255])));
    assert_eq!(text.wait_for("h").wait().unwrap(), None);
}

#[test]
fn what_json_would_change_is_refused_by_caches_and_jobs() {
    let room = Cloakroom::builder().open_in_memory().unwrap();
    let refused = |answer: Result<(), Error>| {
        assert!(matches!(answer, Err(Error::Encode(_))), "{answer:?}");
    };
    let floats = room.cache::<Vec<f64>>("floats");
    floats.set("h", &vec![1.5], 0).wait().unwrap();
    refused(floats.set("h", &vec![1.5, f64::NAN], 0).wait());
    assert_eq!(floats.get("h").wait().unwrap(), Some(vec![1.5]));
    refused(room.cache::<Option<Option<u8>>>("o").set("h", &Some(None), 0).wait());
    refused(room.cache::<Option<()>>("o").set_for("h", &Some(()), Ttl::Never).wait());
    let in_transaction = room.atomically(|tx| {
        refused(tx.cache::<f32>("floats").set("h", &f32::INFINITY, 0));
        refused(tx.dedupe::<f32>("floats").complete("h", &f32::NAN));
        Ok::<_, Error>(())
    });
    in_transaction.wait().unwrap();

    let jobs = room.dedupe::<f64>("floats");
    let job = jobs.register("h").wait().unwrap();
    refused(jobs.complete("h", &f64::NAN).wait());
    let owned = jobs.complete_owned("h", &job, &f64::NEG_INFINITY).wait();
    refused(owned.map(drop));
    assert!(jobs.is_in_progress("h").wait().unwrap(), "the job is still pending");
    assert!(jobs.complete_owned("h", &job, &0.5).wait().unwrap());
}
