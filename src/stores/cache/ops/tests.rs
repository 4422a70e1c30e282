use super::*;
use crate::engine::access::{PageSize, RowPage, RowRange};
use crate::engine::time_line::Deadline;
use crate::stores::map_tx::MapTx;

const NOW: u64 = 10_000;

fn spec() -> Spec {
    Spec::of_state("c", Default::default(), 1 << 20, 1 << 20)
}

fn put(
    tx: &mut MapTx,
    spec: &Spec,
    hash: &str,
    json: &str,
    ttl_seconds: i64,
    tags: Option<&[&str]>,
) {
    set(
        tx,
        spec,
        hash,
        NewEntry {
            content: ValueContent::Json(json.as_bytes()),
            ttl: Ttl::of_seconds(ttl_seconds),
            tags,
        },
    )
    .unwrap();
    spec.changed.end(true);
}

fn value(tx: &mut MapTx, spec: &Spec, hash: &str) -> Option<u64> {
    let value = get(tx, spec, hash).unwrap();
    spec.changed.end(true);
    value
}

fn rows(tx: &MapTx) -> [usize; 4] {
    [Table::CACHE, Table::CACHE_TAGS, Table::CACHE_BY_TAG, Table::EXPIRY]
        .map(|table| tx.keys(table).len())
}

#[test]
fn every_row_of_an_entry_goes_with_it() {
    let spec = spec();
    for ttl_seconds in [0, 5] {
        let mut tx = MapTx::at(NOW);
        put(&mut tx, &spec, "h", "1", ttl_seconds, Some(&["a", "b", "a"]));
        assert_eq!(rows(&tx), [1, 1, 2, usize::from(ttl_seconds > 0)]);
        put(&mut tx, &spec, "h", "2", 7, None);
        assert_eq!(rows(&tx), [1, 1, 2, 1]);
        put(&mut tx, &spec, "h", "2", 0, Some(&["b", "c"]));
        assert_eq!(rows(&tx), [1, 1, 2, 0]);
        put(&mut tx, &spec, "h", "2", 9, Some(&[]));
        assert_eq!(rows(&tx), [1, 0, 0, 1]);
        put(&mut tx, &spec, "h", "2", 9, Some(&["x"]));
        delete(&mut tx, &spec, "h").unwrap();
        assert_eq!(rows(&tx), [0; 4]);
    }
}

fn clear_all(tx: &mut MapTx, spec: &Spec) -> bool {
    clear(tx, spec, "h", &mut StepRange::default(), FrameBudget::UNBOUNDED).unwrap()
}

fn invalidate_all(tx: &mut MapTx, spec: &Spec, tags: &[&str]) -> u64 {
    let mut tags = tagged_with(tx, spec, tags).unwrap();
    let removed = invalidate(tx, spec, &mut tags, FrameBudget::UNBOUNDED).unwrap();
    assert!(tags.is_empty());
    removed
}

#[test]
fn clearing_invalidating_eviction_and_damage_leave_no_rows() {
    type End = fn(&mut MapTx, &Spec);
    let ends: [End; 5] = [
        |tx, spec| assert!(clear_all(tx, spec)),
        |tx, spec| {
            assert_eq!(invalidate_all(tx, spec, &["b", "a"]), 1);
        },
        |tx, spec| {
            let mut none = spec.clone();
            none.max_entries = Some(0);
            put(tx, &none, "other", "1", 5, Some(&["a"]));
        },
        |tx, spec| assert_eq!(get::<String>(tx, spec, "h").unwrap(), None),
        |tx, spec| put(tx, spec, "h", "1", -1, Some(&["a"])),
    ];
    for end in ends {
        let (spec, mut tx) = (spec(), MapTx::at(NOW));
        put(&mut tx, &spec, "h", "1", 5, Some(&["a", "b"]));
        end(&mut tx, &spec);
        assert_eq!(rows(&tx), [0; 4]);
    }
}

#[test]
fn an_expired_entry_leaves_no_tags_to_the_next() {
    let (spec, mut tx) = (spec(), MapTx::at(NOW));
    put(&mut tx, &spec, "h", "1", 5, Some(&["a"]));
    tx.now_ms += 5_000;
    assert_eq!(value(&mut tx, &spec, "h"), None);
    put(&mut tx, &spec, "h", "2", 5, None);
    assert_eq!(rows(&tx), [1, 0, 0, 1]);
    assert_eq!(invalidate_all(&mut tx, &spec, &["a"]), 0);
    assert_eq!(value(&mut tx, &spec, "h"), Some(2));
}

#[test]
fn the_least_recently_used_is_evicted() {
    let mut spec = spec();
    let mut tx = MapTx::at(NOW);
    for hash in ["a", "b", "c"] {
        put(&mut tx, &spec, hash, "1", 0, None);
        tx.now_ms += 1;
    }
    spec.max_entries = Some(3);
    assert_eq!(value(&mut tx, &spec, "a"), Some(1));
    put(&mut tx, &spec, "d", "1", 0, None);
    assert_eq!(value(&mut tx, &spec, "b"), None, "it was stored first, and not used since");
    assert_eq!(value(&mut tx, &spec, "a"), Some(1));
    put(&mut tx, &spec, "e", "1", 1, None);
    assert_eq!(value(&mut tx, &spec, "c"), None);
    tx.now_ms += 1_000;
    put(&mut tx, &spec, "f", "1", 0, None);
    assert_eq!(stats(&mut tx, &spec).unwrap().live, 3, "what has expired does not count");
    spec.max_bytes = Some(4);
    put(&mut tx, &spec, "g", "1", 0, None);
    assert_eq!(value(&mut tx, &spec, "f"), Some(1));
    assert_eq!(stats(&mut tx, &spec).unwrap().live, 2);
}

#[test]
fn a_transaction_that_was_lost_evicts_nothing() {
    let mut spec = spec();
    spec.max_entries = Some(2);
    let mut tx = MapTx::at(NOW);
    put(&mut tx, &spec, "a", "1", 0, None);
    put(&mut tx, &spec, "b", "1", 0, None);
    let mut lost = MapTx::at(NOW);
    for (key, bytes) in [("a", "1"), ("b", "1")] {
        let row = CacheRow {
            expires_at: Deadline::NEVER,
            stored_at_ms: NOW,
            tagged: false,
            content: ValueContent::Json(bytes.as_bytes()),
        };
        lost.put(Table::CACHE, &spec.key(key).unwrap(), row.encode().unwrap());
    }
    for hash in ["x", "y", "z"] {
        set(
            &mut lost,
            &spec,
            hash,
            NewEntry { content: ValueContent::Json(b"1"), ttl: Ttl::Never, tags: None },
        )
        .unwrap();
    }
    spec.changed.end(false);
    put(&mut tx, &spec, "c", "1", 0, None);
    assert_eq!(["a", "b", "c"].map(|hash| value(&mut tx, &spec, hash)), [None, Some(1), Some(1)]);
    assert_eq!(stats(&mut tx, &spec).unwrap().evictions, 1);
}

#[test]
fn an_order_that_a_lost_transaction_read_is_read_again_and_hits_count() {
    let (mut spec, mut tx) = (spec(), MapTx::at(NOW));
    for hash in ["a", "b", "c"] {
        put(&mut tx, &spec, hash, "1", 0, None);
        tx.now_ms += 1;
    }
    let unlimited = spec.clone();
    spec.max_entries = Some(3);
    assert_eq!(value(&mut tx, &spec, "a"), Some(1));
    let mut lost = tx.clone();
    let new = NewEntry { content: ValueContent::Json(b"1"), ttl: Ttl::Never, tags: None };
    // What this does is not followed: no one has asked for the order yet.
    delete(&mut lost, &unlimited, "b").unwrap();
    set(&mut lost, &spec, "x", new).unwrap();
    set(&mut lost, &spec, "y", new).unwrap();
    spec.changed.end(false);
    assert_eq!(spec.state.in_order(), ["a"; 0], "it was forgotten");
    assert_eq!(value(&mut tx, &spec, "b"), Some(1));
    put(&mut tx, &spec, "d", "1", 0, None);
    assert_eq!(spec.state.in_order(), ["a", "b", "d"]);
    let stats = stats(&mut tx, &spec).unwrap();
    assert_eq!((stats.evictions, stats.live), (1, 3));
}

#[test]
fn the_order_is_that_of_kept_transactions_and_all_uses() {
    for seed in 0..200 {
        let random = &mut fastrand::Rng::with_seed(seed);
        let (mut spec, mut tx) = (spec(), MapTx::at(NOW));
        spec.max_entries = Some(4);
        // The live entries, the least recently used first, and the evictions.
        let (mut model, mut evictions): (Vec<String>, u64) = (Vec::new(), 0);
        put(&mut tx, &spec, "h0", "1", 0, Some(&["t"]));
        model.push("h0".into());
        for _ in 0..40 {
            let (mut under_way, mut changed) = (tx.clone(), model.clone());
            let (mut evicted, mut uses) = (0, Vec::new());
            for _ in 0..random.usize(1..6) {
                let hash = format!("h{}", random.u8(0..8));
                let known = changed.iter().position(|known| *known == hash);
                match random.u8(0..10) {
                    0..=4 => {
                        let new = NewEntry {
                            content: ValueContent::Json(b"1"),
                            ttl: Ttl::Never,
                            tags: Some(&["t"]),
                        };
                        set(&mut under_way, &spec, &hash, new).unwrap();
                        known.map(|at| changed.remove(at));
                        changed.push(hash);
                        if changed.len() > 4 {
                            changed.remove(0);
                            evicted += 1;
                        }
                    }
                    5..=7 => {
                        let found: Option<u64> = get(&mut under_way, &spec, &hash).unwrap();
                        assert_eq!(found.is_some(), known.is_some());
                        if let Some(at) = known {
                            let used = changed.remove(at);
                            changed.push(used.clone());
                            uses.push(used);
                        }
                    }
                    8 => {
                        delete(&mut under_way, &spec, &hash).unwrap();
                        known.map(|at| changed.remove(at));
                    }
                    _ => {
                        invalidate_all(&mut under_way, &spec, &["t"]);
                        changed.clear();
                    }
                }
            }
            let is_kept = random.bool();
            spec.changed.end(is_kept);
            if is_kept {
                (tx, model) = (under_way, changed);
                evictions += evicted;
            } else {
                for used in uses {
                    if let Some(at) = model.iter().position(|known| *known == used) {
                        let used = model.remove(at);
                        model.push(used);
                    }
                }
            }
            assert_eq!(spec.state.in_order(), model, "seed {seed}");
        }
        assert_eq!(stats(&mut tx, &spec).unwrap().evictions, evictions, "seed {seed}");
    }
}

#[test]
fn what_is_too_large_is_not_stored_and_removes_what_was_there() {
    let mut spec = spec();
    spec.max_entry_bytes = 4;
    let mut tx = MapTx::at(NOW);
    put(&mut tx, &spec, "h", "1234", 5, Some(&["t"]));
    assert_eq!(value(&mut tx, &spec, "h"), Some(1234));
    put(&mut tx, &spec, "h", "12345", 5, None);
    assert_eq!(rows(&tx), [0; 4]);
    spec.max_bytes = Some(4);
    put(&mut tx, &spec, "h", "1234", 5, None);
    assert_eq!(rows(&tx), [0; 4]);
    assert_eq!(stats(&mut tx, &spec).unwrap().oversized, 2);
    // Tags that no frame has room for count as the entry's size.
    let tags: Vec<String> = (0..40).map(|tag| format!("{tag}{}", "x".repeat(60_000))).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    put(&mut tx, &spec, "h", "1", 5, Some(&tags));
    assert_eq!(rows(&tx), [0; 4]);
}

#[test]
fn a_full_frame_stops_a_clear_and_an_invalidation_which_then_go_on() {
    let (spec, mut tx) = (spec(), MapTx::at(NOW));
    for round in 0..2 {
        for number in 0..200 {
            put(&mut tx, &spec, &format!("h{number:03}"), "1", 5, Some(&["a", "b"]));
        }
        let (mut steps, mut removed) = (0, 0);
        let mut range = entries_in(&mut tx, &spec, "h").unwrap().unwrap();
        let mut tags = tagged_with(&mut tx, &spec, &["b", "none", "a"]).unwrap();
        assert_eq!(tags.len(), 2);
        loop {
            steps += 1;
            let budget = FrameBudget::of_bytes(2_000);
            let is_last = match round {
                0 => clear(&mut tx, &spec, "h", &mut range, budget).unwrap(),
                _ => {
                    removed += invalidate(&mut tx, &spec, &mut tags, budget).unwrap();
                    tags.is_empty()
                }
            };
            if is_last {
                break;
            }
        }
        assert_eq!(removed, 200 * round);
        assert!(steps > 5, "{steps}");
        assert_eq!(rows(&tx), [0; 4]);
    }
}

/// Counts the rows that are read.
struct CountingCacheReads<'a>(&'a mut MapTx, usize);

impl Reader for CountingCacheReads<'_> {
    fn moment(&self) -> crate::engine::time_line::Moment {
        self.0.moment()
    }

    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<crate::engine::access::Value>> {
        self.1 += 1;
        self.0.get(table, key)
    }

    fn page(&mut self, range: RowRange<'_>, size: PageSize) -> Result<RowPage> {
        self.1 += 1_000;
        self.0.page(range, size)
    }
}

#[test]
fn a_hit_reads_one_row() {
    let mut spec = spec();
    spec.max_entries = Some(10);
    let mut tx = MapTx::at(NOW);
    put(&mut tx, &spec, "h", "1", 5, Some(&["a", "b"]));
    let writes = tx.writes;
    let mut rows = CountingCacheReads(&mut tx, 0);
    assert_eq!(look_up(&mut rows, &spec, "h").unwrap(), Lookup::Value(1_u64));
    assert_eq!(rows.1, 1);
    assert_eq!(tx.writes, writes);
}

#[test]
fn a_correction_of_the_time_line_brings_entries_back_into_the_order() {
    let mut spec = spec();
    spec.max_entries = Some(2);
    let mut tx = MapTx::at(NOW);
    put(&mut tx, &spec, "a", "1", 5, None);
    tx.correct(5_000);
    put(&mut tx, &spec, "b", "1", 0, None);
    tx.correct(4_999);
    put(&mut tx, &spec, "c", "1", 0, None);
    assert_eq!(["a", "b", "c"].map(|hash| value(&mut tx, &spec, hash)), [None, Some(1), Some(1)]);
}

#[test]
fn a_cursor_of_another_cache_is_refused() {
    let (spec, mut tx) = (spec(), MapTx::at(NOW));
    for hash in ["a", "b", "c"] {
        put(&mut tx, &spec, hash, "1", 5, Some(&["t"]));
    }
    let page = list(&mut tx, &spec, None, 2).unwrap();
    assert_eq!(page.items.iter().map(|entry| &*entry.hash).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(page.items[0].tags, ["t"]);
    let cursor = page.next.unwrap();
    let rest = list(&mut tx, &spec, Some(&cursor), 2).unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
    let other = Spec::of_state("d", Default::default(), 1 << 20, 1 << 20);
    assert!(list(&mut tx, &other, Some(&cursor), 2).is_err());
}

#[test]
fn entries_have_the_rows_that_are_derived() {
    crate::stores::derived::tests::histories(|tx, random| {
        let name = ["", "c", "c\0"][random.usize(0..3)];
        let spec = Spec::of_state(name, Default::default(), 1 << 20, 1 << 20);
        let hash = ["", "h", "h\0", "hh"][random.usize(0..4)];
        let tags: Vec<&str> = ["", "a", "a\0", "b"].into_iter().filter(|_| random.bool()).collect();
        match random.u8(0..8) {
            0..=2 => put(tx, &spec, hash, "1", random.i64(-1..5), None),
            3 | 4 => put(tx, &spec, hash, "1", random.i64(-1..5), Some(&tags)),
            5 => delete(tx, &spec, hash).unwrap(),
            6 => assert!(clear_all(tx, &spec)),
            _ => {
                invalidate_all(tx, &spec, &tags);
            }
        }
    });
}

#[test]
fn an_entry_may_have_as_many_bytes_as_all_of_them_together() {
    let mut spec = spec();
    let mut tx = MapTx::at(NOW);
    spec.max_bytes = Some(4);
    put(&mut tx, &spec, "a", "123", 0, None);
    assert_eq!(value(&mut tx, &spec, "a"), Some(123));
    put(&mut tx, &spec, "a", "1234", 0, None);
    assert_eq!(value(&mut tx, &spec, "a"), None);
}

#[test]
fn an_entry_is_stored_where_a_frame_holds_all_of_its_rows() {
    let long = "t".repeat(200);
    for tags in [&[][..], &["a"], &["a", &long, "c"]] {
        let stored = |max_frame_bytes| {
            let spec = Spec::of_state("c", Default::default(), 1 << 20, max_frame_bytes);
            let mut tx = MapTx::at(NOW);
            put(&mut tx, &spec, &"h".repeat(100), &"1".repeat(400), 9, Some(tags));
            let rows = tx.snapshot();
            let bytes = rows.iter().map(|((_, key), value)| row_cost(key.len() + value.len()));
            (!rows.is_empty()).then(|| bytes.sum::<usize>())
        };
        let least = (0..4_096).find(|max_frame_bytes| stored(*max_frame_bytes).is_some()).unwrap();
        let needed = stored(least).unwrap();
        // Beside its rows there is space for two more places in the expiry index.
        let spare = 2 * row_cost(KEY_OVERHEAD + 100) + 64 + 64;
        assert!((needed..=needed + spare).contains(&least), "{least} for {needed}");
    }
}
