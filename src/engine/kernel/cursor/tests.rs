//! The cursor against a map, over every kind of table that holds rows.

use super::*;
use crate::clock::SystemClock;
use crate::durability::Durability;
use crate::engine::access::{RowPage, Writer};
use crate::engine::kernel::prefetch::{DryRun, Prefetched};
use crate::engine::kernel::snapshot::Snapshot;
use crate::engine::kernel::time_line::Moment;
use crate::engine::kernel::view::View;
use crate::engine::{CommitHook, Engine, EngineOptions, Threads, Tx};
use crate::error::Error;
use crate::memtable::Memtable;
use crate::storage::MemoryStorage;
use crate::stores::map_tx::MapTx;
use std::collections::BTreeMap;
use std::sync::Arc;

const TABLE: Table = Table::EXPIRY;

/// The position of the readers. Versions behind it must not be seen.
const LSN: u64 = 1_000;

type Model = BTreeMap<Vec<u8>, Value>;

fn random_key(random: &mut fastrand::Rng) -> Vec<u8> {
    // Few keys, some of them prefixes of others, so that the layers overlap.
    (0..random.usize(0..4)).map(|_| random.u8(0..6)).collect()
}

/// Rows in a B-tree, a frozen and an active table, with what a reader at [`LSN`] sees and the
/// positions of the versions in memory that it touches.
struct Layered {
    view: Arc<View>,
    model: Model,
    touched: BTreeMap<Vec<u8>, u64>,
}

impl Layered {
    fn new(random: &mut fastrand::Rng) -> Self {
        let engine = Engine::create_on(
            Arc::new(MemoryStorage::new()),
            EngineOptions {
                tables: crate::stores::registry::catalogue(),
                log_capacity: 1 << 20,
                cache_size: 1 << 20,
                clock: Arc::new(SystemClock::new()),
                leap_hold: crate::engine::time_line::DEFAULT_LEAP_HOLD,
                newest_epoch: |_| Ok(None),
                threads: Threads::None,
                maintenance: None,
                read_only: false,
                log_stall: crate::limits::DEFAULT_LOG_STALL,
                migrations: &[],
                hook: CommitHook::default(),
            },
        )
        .unwrap();
        let mut model = Model::new();
        let staged = engine.transact(Durability::Sync, &[], |tx| {
            // Rows of the neighbours must not be seen.
            tx.put(Table::HANDOFF_CLAIM, &[9, 9], vec![1]);
            tx.put(Table::CACHE, &[], vec![1]);
            for _ in 0..random.usize(0..150) {
                let (key, value) = (random_key(random), vec![0; random.usize(0..40)]);
                tx.put(TABLE, &key, value.clone());
                model.insert(key, value.into());
            }
            Ok::<_, Error>(())
        });
        staged.wait().unwrap();
        engine.checkpoint().unwrap();
        let btree = engine.kernel().btree().view();
        let (has_frozen, has_full, mut touched) = (random.bool(), random.bool(), BTreeMap::new());
        let mut memtable = |from_lsn: u64| {
            let table = Memtable::for_keys(64);
            table.insert(Table::CACHE, Box::default(), from_lsn, Some(Vec::new().into()));
            let mut lsns: Vec<u64> = (0..random.u64(0..100)).map(|at| from_lsn + at).collect();
            if random.bool() {
                lsns.extend(LSN + 1..LSN + 20);
            }
            for lsn in lsns {
                let key = random_key(random);
                let value = random.bool().then(|| Value::from(lsn.to_be_bytes().as_slice()));
                table.insert(TABLE, key.clone().into(), lsn, value.clone());
                if lsn <= LSN {
                    touched.insert(key.clone(), lsn);
                    match value {
                        Some(value) => drop(model.insert(key, value)),
                        None => drop(model.remove(&key)),
                    }
                }
            }
            table
        };
        let frozen = has_frozen.then(|| Arc::new(memtable(100)));
        let full_from: &[u64] = if has_full { &[300, 500] } else { &[] };
        let full = full_from.iter().map(|from_lsn| Arc::new(memtable(*from_lsn))).collect();
        let active = Arc::new(memtable(LSN - 100));
        Self { view: Arc::new(View { active, full, frozen, btree }), model, touched }
    }
}

fn random_bound(random: &mut fastrand::Rng) -> Bound<Vec<u8>> {
    match random.u8(0..3) {
        0 => Bound::Unbounded,
        1 => Bound::Included(random_key(random)),
        _ => Bound::Excluded(random_key(random)),
    }
}

/// Whether `key` is between the bounds, in words of its own.
fn is_inside(key: &[u8], (from, to): (&Bound<Vec<u8>>, &Bound<Vec<u8>>)) -> bool {
    (match from {
        Bound::Included(from) => key >= from.as_slice(),
        Bound::Excluded(from) => key > from.as_slice(),
        Bound::Unbounded => true,
    }) && match to {
        Bound::Included(to) => key <= to.as_slice(),
        Bound::Excluded(to) => key < to.as_slice(),
        Bound::Unbounded => true,
    }
}

/// A cursor over random bounds in random pages agrees with the model. Answers the bounds.
fn compare(
    random: &mut fastrand::Rng,
    rows: &mut dyn Reader,
    model: &Model,
) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let (from, to) = (random_bound(random), random_bound(random));
    let limit = if random.bool() { usize::MAX } else { random.usize(0..30) };
    let mut cursor =
        RowCursor::range(TABLE, from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
    if limit < usize::MAX {
        cursor = cursor.up_to(limit);
    }
    cursor.size = PageSize::of_rows(random.usize(0..40));
    let found = cursor.collect(rows).unwrap();
    let expected: Vec<_> = model
        .iter()
        .filter(|(key, _)| is_inside(key, (&from, &to)))
        .take(limit)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    assert_eq!(found, expected, "{from:?} to {to:?}, up to {limit}");
    (from, to)
}

#[test]
fn it_agrees_with_a_map_over_every_layer_whatever_the_bounds_and_the_pages() {
    for seed in 0..60 {
        let random = &mut fastrand::Rng::with_seed(seed);
        let Layered { view, model, touched } = Layered::new(random);
        for _ in 0..40 {
            let mut rows = Snapshot::new(Arc::clone(&view), LSN, Moment::manual(0));
            compare(random, &mut rows, &model);
            compare(
                random,
                &mut DryRun::new(Snapshot::new(Arc::clone(&view), LSN, Moment::manual(0))),
                &model,
            );
        }
        for _ in 0..40 {
            let (from, to) = (random_bound(random), random_bound(random));
            let mut rows = Snapshot::new(Arc::clone(&view), LSN, Moment::manual(0));
            let bounds = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
            RowCursor::range(TABLE, bounds.0, bounds.1).collect(&mut rows).unwrap();
            let touched = touched.iter().filter(|(key, _)| is_inside(key, (&from, &to)));
            let newest = touched.map(|(_, lsn)| *lsn).max();
            assert_eq!(rows.depends_on_lsn(), newest.unwrap_or_default(), "seed {seed}");
        }
    }
}

#[test]
fn a_transaction_sees_what_it_has_staged_also_between_two_rows() {
    for seed in 0..60 {
        let random = &mut fastrand::Rng::with_seed(seed);
        let Layered { view, .. } = Layered::new(random);
        let prefetched = Prefetched::load(&view, &[]);
        let mut tx = Tx::new(Arc::clone(&view), &prefetched, Moment::manual(0));
        // A transaction sees every version.
        let mut newest = Snapshot::new(Arc::clone(&view), u64::MAX, Moment::manual(0));
        let mut model: Model =
            RowCursor::all(TABLE).collect(&mut newest).unwrap().into_iter().collect();
        let mut map = MapTx::at(0);
        for (key, value) in &model {
            map.put(TABLE, key, value.to_vec());
        }
        for round in 0..30 {
            let key = random_key(random);
            if random.bool() {
                tx.put(TABLE, &key, vec![round]);
                map.put(TABLE, &key, vec![round]);
                model.insert(key, vec![round].into());
            } else {
                tx.delete(TABLE, &key);
                map.delete(TABLE, &key);
                model.remove(&key);
            }
            tx.put(Table::CACHE, &[round], Vec::new());
            compare(random, &mut tx, &model);
            compare(random, &mut map, &model);
        }
        // What the cursor gave is deleted, and a row is added at the end, behind the first page.
        let mut cursor = RowCursor::all(TABLE);
        let mut met = Vec::new();
        while let Some((key, _)) = cursor.next(&mut tx).unwrap() {
            tx.delete(TABLE, &key);
            if met.is_empty() && model.len() > FIRST_PAGE_ROWS {
                tx.put(TABLE, &[200], vec![1]);
                model.insert(vec![200], vec![1].into());
            }
            met.push(key);
        }
        assert!(met.iter().eq(model.keys()), "seed {seed}");
        assert_eq!(RowCursor::all(TABLE).next(&mut tx).unwrap(), None);
    }
}

/// Notes the pages that are read.
struct Paged(MapTx, Vec<usize>);

impl Reader for Paged {
    fn moment(&self) -> Moment {
        self.0.moment()
    }

    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Value>> {
        self.0.get(table, key)
    }

    fn page(&mut self, range: RowRange<'_>, size: PageSize) -> Result<RowPage> {
        self.1.push(size.rows());
        self.0.page(range, size)
    }
}

fn numbered(rows: u16) -> Paged {
    let mut map = MapTx::at(0);
    for key in 0..rows {
        map.put(TABLE, &key.to_be_bytes(), Vec::new());
    }
    Paged(map, Vec::new())
}

#[test]
fn pages_begin_small_and_grow_to_a_bound() {
    let mut rows = numbered(4_000);
    assert_eq!(RowCursor::all(TABLE).collect(&mut rows).unwrap().len(), 4_000);
    assert_eq!(rows.1, [8, 16, 32, 64, 128, 256, 512, 1_024, 1_024, 1_024]);
    rows.1.clear();
    assert!(RowCursor::all(TABLE).up_to(1).next(&mut rows).unwrap().is_some());
    assert_eq!(rows.1, [1]);
    rows.1.clear();
    assert_eq!(RowCursor::all(TABLE).up_to(1_500).collect(&mut rows).unwrap().len(), 1_500);
    assert_eq!(rows.1, [1_024, 1_024]);
    rows.1.clear();
    assert!(RowCursor::all(TABLE).up_to(0).next(&mut rows).unwrap().is_none());
    assert!(rows.1.is_empty());
}

#[test]
fn rows_that_are_staged_behind_the_page_are_seen() {
    let mut rows = numbered(20).0;
    let mut cursor = RowCursor::all(TABLE);
    cursor.next(&mut rows).unwrap();
    rows.put(TABLE, &[0, 30], vec![1]);
    rows.delete(TABLE, &[0, 19]);
    let rest = cursor.collect(&mut rows).unwrap();
    let expected: Vec<_> = (1..19).chain([30]).map(|key| vec![0, key]).collect();
    assert_eq!(rest.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), expected);
}

#[test]
fn a_page_ends_at_its_bytes_in_memory_and_in_the_b_tree() {
    let random = &mut fastrand::Rng::with_seed(1);
    let Layered { view, .. } = Layered::new(random);
    for key in 0..100 {
        view.active.insert(TABLE, Box::new([7, key]), 950, Some(vec![0; 300 << 10].into()));
    }
    let mut rows = Snapshot::new(view, LSN, Moment::manual(0));
    let all = RowRange { table: TABLE, from: Bound::Excluded(&[6, 255]), to: Bound::Unbounded };
    // 3 rows of 300 KiB, and the one that passes the megabyte.
    assert_eq!(rows.page(all, PageSize::of_rows(usize::MAX)).unwrap().rows.len(), 4);
    assert_eq!(rows.page(all, PageSize::of_rows(8)).unwrap().rows.len(), 1);
    assert_eq!(
        RowCursor::all(TABLE).after(Some([6, 255].as_slice())).collect(&mut rows).unwrap().len(),
        100
    );
}

#[test]
fn a_prefix_is_a_range_and_a_key_to_begin_behind_narrows_it() {
    let mut map = MapTx::at(0);
    for key in [&b"a"[..], b"b", b"b\x00", b"b\xff", b"b\xff\xff", b"c"] {
        map.put(TABLE, key, Vec::new());
    }
    let keys = |cursor: RowCursor<'_>, map: &mut MapTx| -> Vec<Vec<u8>> {
        cursor.collect(map).unwrap().into_iter().map(|(key, _)| key).collect()
    };
    let all = keys(RowCursor::prefix(TABLE, b"b"), &mut map);
    assert_eq!(all, [&b"b"[..], b"b\x00", b"b\xff", b"b\xff\xff"]);
    let behind = keys(RowCursor::prefix(TABLE, b"b").after(Some(b"b\x00".as_slice())), &mut map);
    assert_eq!(behind, [&b"b\xff"[..], b"b\xff\xff"]);
    assert_eq!(keys(RowCursor::prefix(TABLE, b"").after(None::<Vec<u8>>), &mut map).len(), 6);
}

#[test]
fn a_join_pairs_rows_by_key_and_passes_over_orphans() {
    for seed in 0..50 {
        let random = &mut fastrand::Rng::with_seed(seed);
        let mut map = MapTx::at(0);
        let mut expected = Vec::new();
        let after = random.u8(0..250);
        for key in 0..250 {
            let (has_main, has_satellite) = (random.u8(..) < 200, random.u8(..) < 100);
            if has_main {
                map.put(Table::HANDOFF, &[key], vec![key]);
            }
            if has_satellite {
                map.put(Table::HANDOFF_CLAIM, &[key], vec![key, 1]);
            }
            if has_main && key > after {
                expected.push((key, has_satellite));
            }
        }
        let behind = [after];
        let mut join = RowJoin::all(Table::HANDOFF, Table::HANDOFF_CLAIM, Some(&behind));
        let mut met = Vec::new();
        while let Some(((key, value), satellite)) = join.next(&mut map).unwrap() {
            assert_eq!(*value, *key);
            assert!(satellite.as_ref().is_none_or(|row| **row == [key[0], 1]));
            met.push((key[0], satellite.is_some()));
        }
        assert_eq!(met, expected, "seed {seed}");
    }
}
