//! The guarantees of the B-tree, one at a time.

use super::layout::{BLOCK, checksums_position, physical_len};
use super::testing::TestStorage;
use super::*;
use crate::stores::registry::catalogue;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

pub(super) const OFFSET: u64 = 8192;
pub(super) const CACHE: usize = 1 << 20;

pub(super) type RowMap = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Puts, and deletes where there is no value.
pub(super) type BtreeChanges = BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>;

pub(super) fn create() -> (Arc<TestStorage>, Btree) {
    let storage = TestStorage::with(vec![0xAB; OFFSET as usize]);
    let btree = Btree::create(storage.clone(), OFFSET, CACHE, catalogue(), 1 << 20).unwrap();
    (storage, btree)
}

pub(super) fn open(bytes: Vec<u8>) -> Result<Btree> {
    open_on(TestStorage::with(bytes))
}

/// Opens for writing.
pub(super) fn open_on(storage: Arc<TestStorage>) -> Result<Btree> {
    let btree = Btree::open(storage, OFFSET, CACHE, catalogue())?;
    btree.begin_writing()?;
    Ok(btree)
}

/// Applies puts and deletes.
pub(super) fn apply(
    btree: &Btree,
    lsn: u64,
    changes: &BtreeChanges,
) -> Result<Arc<BtreeView>, ApplyError> {
    btree.apply(
        lsn,
        changes.iter().map(|((table, key), value)| {
            Ok((*table, key.clone(), value.as_ref().map(|value| Value::from(value.as_slice()))))
        }),
    )
}

pub(super) fn puts(rows: &RowMap) -> BtreeChanges {
    rows.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect()
}

pub(super) fn all_rows(view: &BtreeView) -> Result<RowMap> {
    let mut rows = RowMap::new();
    for &table in catalogue().all() {
        for (key, value) in
            view.page(table, (Unbounded, Unbounded), (usize::MAX, usize::MAX), view.lsn())?.0
        {
            rows.insert((table, key), value.to_vec());
        }
    }
    Ok(rows)
}

/// Rows in a fixed few of the tables, so that what the tests see does not change with the number of
/// tables.
pub(super) fn some_rows(count: usize, len: usize, fill: u8) -> RowMap {
    (0..count)
        .map(|index| {
            let table = catalogue().all()[index % 5];
            ((table, format!("key {index:05}").into_bytes()), vec![fill ^ index as u8; len])
        })
        .collect()
}

fn key(index: usize) -> (Table, Vec<u8>) {
    some_rows(index + 1, 0, 0).into_keys().max_by_key(|(_, key)| key.clone()).unwrap()
}

#[test]
fn an_empty_btree_has_every_table_and_lsn_zero() {
    let (storage, btree) = create();
    assert_eq!(btree.view().lsn(), 0);
    assert_eq!(all_rows(&btree.view()).unwrap(), RowMap::new());
    assert_eq!(&storage.bytes()[..OFFSET as usize], &[0xAB; OFFSET as usize]);
}

#[test]
fn rows_and_the_lsn_are_there_after_reopening() {
    let (storage, btree) = create();
    let mut rows = some_rows(500, 50, 1);
    assert_eq!(apply(&btree, 7, &puts(&rows)).unwrap().lsn(), 7);
    drop(btree);
    let btree = open(storage.bytes()).unwrap();
    assert_eq!((btree.view().lsn(), all_rows(&btree.view()).unwrap()), (7, rows.clone()));
    let gone = key(41);
    rows.remove(&gone);
    apply(&btree, 9, &BTreeMap::from([(gone.clone(), None)])).unwrap();
    assert_eq!(btree.view().get(gone.0, &gone.1, u64::MAX).unwrap(), None);
    assert_eq!(
        btree.view().get(key(42).0, &key(42).1, u64::MAX).unwrap().as_deref(),
        rows.get(&key(42)).map(|v| &v[..])
    );
    assert_eq!((btree.view().lsn(), all_rows(&btree.view()).unwrap()), (9, rows));
}

#[test]
fn a_scan_observes_its_bounds_and_limit() {
    let (_, btree) = create();
    let rows: RowMap = (b'a'..=b'f').map(|key| ((Table::EXPIRY, vec![key]), vec![])).collect();
    apply(&btree, 1, &puts(&rows)).unwrap();
    let view = btree.view();
    let scan = |from, to, limit| -> Vec<u8> {
        view.page(Table::EXPIRY, (from, to), (limit, usize::MAX), view.lsn())
            .unwrap()
            .0
            .into_iter()
            .map(|(key, _)| key[0])
            .collect()
    };
    assert_eq!(scan(Included(b"b".as_slice()), Excluded(b"e".as_slice()), 10), b"bcd");
    assert_eq!(scan(Excluded(b"b".as_slice()), Included(b"e".as_slice()), 10), b"cde");
    assert_eq!(scan(Unbounded, Unbounded, 2), b"ab");
    assert_eq!(scan(Included(b"e".as_slice()), Excluded(b"b".as_slice()), 10), b"");
}

#[test]
fn a_view_does_not_change() {
    let (_, btree) = create();
    let first = some_rows(200, 100, 1);
    apply(&btree, 1, &puts(&first)).unwrap();
    let view = btree.view();
    for lsn in 2..8 {
        apply(&btree, lsn, &puts(&some_rows(200, 100, lsn as u8))).unwrap();
    }
    assert_eq!((view.lsn(), all_rows(&view).unwrap()), (1, first));
}

#[test]
fn values_of_many_pages_can_be_read_and_free_pages_are_reused() {
    let (storage, btree) = create();
    let big = RowMap::from([(
        (Table::HANDOFF, b"big".to_vec()),
        (0..1 << 20).map(|i| (i / 7) as u8).collect(),
    )]);
    apply(&btree, 1, &puts(&big)).unwrap();
    assert_eq!(all_rows(&open(storage.bytes()).unwrap().view()).unwrap(), big);
    let mut lengths = Vec::new();
    for lsn in 2..12 {
        apply(&btree, lsn, &puts(&big)).unwrap();
        lengths.push(btree.stats().len);
    }
    let longest = |of: &[u64]| of.iter().copied().max();
    assert!(
        longest(&lengths[5..]) <= longest(&lengths[..5]),
        "the file grows with every overwrite: {lengths:?}"
    );
}

#[test]
fn the_window_grows_over_several_groups_and_shrinks_again() {
    let (storage, btree) = create();
    let rows = some_rows(60, 300_000, 3);
    apply(&btree, 1, &puts(&rows)).unwrap();
    let grown = btree.stats().len;
    assert!(grown > 4 * 1024 * BLOCK, "{grown} bytes are not enough groups");
    assert_eq!(all_rows(&open(storage.bytes()).unwrap().view()).unwrap(), rows);
    let nothing = rows.keys().map(|key| (key.clone(), None)).collect();
    for lsn in 2..30 {
        apply(&btree, lsn, if lsn == 2 { &nothing } else { const { &BTreeMap::new() } }).unwrap();
    }
    // The B-tree cuts off what is free at its end. How much that is depends on the positions of the
    // pages.
    assert!(btree.stats().len < grown / 2);
    assert_eq!(storage.len().unwrap(), OFFSET + physical_len(btree.stats().len));
    let fewer = some_rows(20, 300_000, 9);
    apply(&btree, 30, &puts(&fewer)).unwrap();
    assert_eq!(all_rows(&open(storage.bytes()).unwrap().view()).unwrap(), fewer);
}

#[test]
fn a_file_that_was_cut_is_refused() {
    let (storage, btree) = create();
    apply(&btree, 1, &puts(&some_rows(10, 10, 1))).unwrap();
    let mut bytes = storage.bytes();
    bytes.truncate(bytes.len() - 1);
    assert!(matches!(open(bytes), Err(Error::Corrupted { .. })));
    assert!(matches!(open(vec![0; OFFSET as usize]), Err(Error::Corrupted { .. })));
}

#[test]
fn a_row_that_fails_changes_nothing() {
    let (_, btree) = create();
    let rows = some_rows(10, 10, 1);
    apply(&btree, 1, &puts(&rows)).unwrap();
    let bad = [Ok((Table::HANDOFF, b"x".to_vec(), Some(Value::from(*b"y")))), Err(Error::Closed)];
    let refused = btree.apply(2, bad.into_iter()).unwrap_err();
    assert!(matches!(refused, ApplyError { error: Error::Closed, flush_failed: false }));
    assert_eq!((btree.view().lsn(), all_rows(&btree.view()).unwrap()), (1, rows));
    assert_eq!(apply(&btree, 2, &BTreeMap::new()).unwrap().lsn(), 2);
}

#[test]
fn a_panic_while_applying_changes_nothing() {
    let (storage, btree) = create();
    let rows = some_rows(100, 100, 1);
    apply(&btree, 1, &puts(&rows)).unwrap();
    let changes = puts(&some_rows(100, 100, 2));
    let rows_then_panic = changes.iter().enumerate().map(|(index, ((table, key), _))| {
        assert!(index < 70, "a panic on request");
        Ok((*table, key.clone(), None))
    });
    assert!(btree.apply(2, rows_then_panic).is_err());
    assert_eq!((btree.view().lsn(), all_rows(&btree.view()).unwrap()), (1, rows.clone()));
    apply(&btree, 3, &BTreeMap::new()).unwrap();
    assert_eq!(all_rows(&open(storage.bytes()).unwrap().view()).unwrap(), rows);
}

#[test]
fn a_full_disk_is_reported_changes_nothing_and_recovers() {
    let (storage, btree) = create();
    let rows = some_rows(100, 1000, 1);
    apply(&btree, 1, &puts(&rows)).unwrap();
    let view = btree.view();
    storage.limit(Some(storage.len().unwrap()));
    let more = puts(&some_rows(100, 100_000, 2));
    for _ in 0..3 {
        let refused = apply(&btree, 2, &more).unwrap_err();
        assert!(matches!(
            refused,
            ApplyError { error: Error::DiskFull { .. }, flush_failed: false }
        ));
        for view in [&view, &btree.view()] {
            assert_eq!((view.lsn(), all_rows(view).unwrap()), (1, rows.clone()));
        }
    }
    assert_eq!(all_rows(&open(storage.bytes()).unwrap().view()).unwrap(), rows);
    storage.limit(None);
    assert_eq!(apply(&btree, 2, &more).unwrap().lsn(), 2);
    assert_eq!(puts(&all_rows(&btree.view()).unwrap()), more);
    assert_eq!(all_rows(&open(storage.bytes()).unwrap().view()).unwrap().len(), more.len());
}

#[test]
fn after_a_failed_flush_nothing_is_written_and_reads_continue() {
    let (storage, btree) = create();
    let rows = some_rows(100, 1000, 1);
    apply(&btree, 1, &puts(&rows)).unwrap();
    let view = btree.view();
    storage.fail_syncs();
    let refused = apply(&btree, 2, &puts(&some_rows(100, 1000, 2))).unwrap_err();
    assert!(refused.flush_failed);
    storage.take_journal();
    assert!(apply(&btree, 3, &BTreeMap::new()).unwrap_err().flush_failed);
    for view in [&view, &btree.view()] {
        assert_eq!((view.lsn(), all_rows(view).unwrap()), (1, rows.clone()));
    }
    drop((view, btree));
    assert!(storage.take_journal().is_empty());
}

#[test]
fn a_failed_read_does_not_fail_other_reads() {
    let (storage, btree) = create();
    let rows = some_rows(3000, 100, 1);
    apply(&btree, 1, &puts(&rows)).unwrap();
    let btree = open_on(storage.clone()).unwrap();
    let view = btree.view();
    storage.take_journal();
    storage.fail_reads(1);
    assert!(matches!(all_rows(&view), Err(Error::Io { .. })));
    assert_eq!(all_rows(&view).unwrap(), rows);
    assert_eq!(all_rows(&btree.view()).unwrap(), rows);
    assert!(storage.take_journal().is_empty(), "a reader wrote");
    assert_eq!(apply(&btree, 2, &BTreeMap::new()).unwrap().lsn(), 2);
}

#[test]
fn closing_writes_nothing() {
    let (storage, btree) = create();
    apply(&btree, 1, &puts(&some_rows(100, 100, 1))).unwrap();
    storage.take_journal();
    let view = btree.view();
    drop(btree);
    drop(view);
    assert!(storage.take_journal().is_empty());
}

/// Reads each row of the model separately, and counts correct rows and `Corrupted` errors.
fn read_each(btree: &Btree, rows: &RowMap) -> (usize, usize) {
    let view = btree.view();
    let (mut right, mut corrupted) = (0, 0);
    for ((table, key), value) in rows {
        match view.get(*table, key, view.lsn()) {
            Ok(found) => {
                assert_eq!(found.as_deref(), Some(&value[..]), "{table:?} {key:?}");
                right += 1;
            }
            Err(Error::Corrupted { .. }) => corrupted += 1,
            Err(other) => panic!("{other}"),
        }
    }
    (right, corrupted)
}

#[test]
fn a_damaged_block_fails_only_its_rows_and_the_writer_continues_elsewhere() {
    let (storage, btree) = create();
    let mut rows = some_rows(3000, 100, 1);
    apply(&btree, 1, &puts(&rows)).unwrap();
    drop(btree);
    let needle = rows[&key(1234)].clone();
    let mut partly = 0;
    let bytes = storage.bytes();
    for position in
        (0..bytes.len() - needle.len()).filter(|&start| bytes[start..].starts_with(&needle))
    {
        let storage = TestStorage::with(bytes.clone());
        storage.flip(position);
        let btree = open_on(storage.clone()).unwrap();
        let (right, corrupted) = read_each(&btree, &rows);
        if corrupted == 0 {
            continue;
        }
        partly += 1;
        assert!(right > 2000 && corrupted < 100, "{right} right, {corrupted} corrupted");
        let error =
            rows.iter().find_map(|((table, key), _)| btree.view().get(*table, key, u64::MAX).err());
        let Some(Error::Corrupted { location, .. }) = &error else { panic!("{error:?}") };
        assert!(location.contains("B-tree block"), "{location}");
        // Another table can be written, also after another read. The damaged rows stay damaged.
        for lsn in 2..5 {
            let key = (Table::EXPIRY, b"zz".to_vec());
            rows.insert(key.clone(), vec![lsn as u8]);
            let applied = apply(&btree, lsn, &BTreeMap::from([(key, Some(vec![lsn as u8]))]));
            assert_eq!(applied.unwrap().lsn(), lsn);
            assert_eq!(read_each(&btree, &rows).1, corrupted);
        }
        rows.remove(&(Table::EXPIRY, b"zz".to_vec()));
    }
    assert!(partly > 0);
}

#[test]
fn a_writer_never_builds_on_a_damaged_block() {
    let (storage, btree) = create();
    let rows = some_rows(3000, 100, 1);
    apply(&btree, 1, &puts(&rows)).unwrap();
    drop(btree);
    let bytes = storage.bytes();
    for position in (OFFSET as usize + 3 * BLOCK as usize..bytes.len()).step_by(BLOCK as usize) {
        let storage = TestStorage::with(bytes.clone());
        storage.flip(position + 77);
        let Ok(btree) = open_on(storage.clone()) else { continue };
        let before = read_each(&btree, &rows).1;
        // Removing nearly everything makes redb merge the remaining pages.
        let removed: BtreeChanges = rows
            .keys()
            .enumerate()
            .filter(|(i, _)| i % 50 != 0)
            .map(|(_, key)| (key.clone(), None))
            .collect();
        let left: RowMap = rows
            .iter()
            .filter(|(key, _)| !removed.contains_key(*key))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        match apply(&btree, 2, &removed) {
            Ok(_) => {
                let (right, corrupted) = read_each(&btree, &left);
                assert_eq!(right + corrupted, left.len());
            }
            Err(refused) => {
                assert!(matches!(refused.error, Error::Corrupted { .. }), "{}", refused.error);
                assert_eq!(read_each(&btree, &rows).1, before);
            }
        }
    }
}

#[test]
fn any_flipped_byte_gives_the_right_rows_or_corrupted() {
    let (storage, btree) = create();
    let rows = some_rows(200, 100, 1);
    apply(&btree, 1, &puts(&some_rows(200, 100, 5))).unwrap();
    apply(&btree, 2, &puts(&rows)).unwrap();
    drop(btree);
    let bytes = storage.bytes();
    let window = OFFSET as usize;
    let first_data = window + (checksums_position(0) + BLOCK) as usize;
    let used = (first_data..bytes.len()).filter(|&position| bytes[position] != 0);
    let headers =
        (window..first_data).filter(|&position| bytes[position] != 0 || position % 61 == 0);
    let mut refused = 0;
    for position in headers.chain(used.step_by(131)) {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x04;
        match open(damaged) {
            Ok(btree) => {
                assert_eq!(btree.view().lsn(), 2, "byte {position}");
                read_each(&btree, &rows);
            }
            Err(Error::Corrupted { .. }) => refused += 1,
            Err(other) => panic!("byte {position}: {other}"),
        }
    }
    assert!(refused > 0);
}

#[test]
fn readers_and_the_writer_share_a_small_cache() {
    let (storage, btree) = create();
    drop(btree);
    let btree = Btree::open(storage, OFFSET, 64 << 10, catalogue()).unwrap();
    btree.begin_writing().unwrap();
    apply(&btree, 1, &puts(&some_rows(2000, 200, 1))).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let (done, btree) = (&done, &btree);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let view = btree.view();
                    let rows = all_rows(&view).unwrap();
                    assert_eq!(rows, some_rows(2000, 200, view.lsn() as u8));
                }
            });
        }
        for lsn in 2..20 {
            apply(btree, lsn, &puts(&some_rows(2000, 200, lsn as u8))).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn nothing_is_written_before_writing_begins() {
    let (storage, btree) = create();
    apply(&btree, 1, &puts(&some_rows(300, 100, 1))).unwrap();
    drop(btree);
    // As after a crash between the two copies of the header: the older one has the commit before.
    let mut bytes = storage.bytes();
    let other = OFFSET as usize + BLOCK as usize;
    bytes[other..other + 512].fill(0);
    let storage = TestStorage::with(bytes.clone());
    let btree = Btree::open(storage.clone(), OFFSET, CACHE, catalogue()).unwrap();
    all_rows(&btree.view()).unwrap();
    assert!(storage.take_journal().is_empty());
    assert!(storage.bytes() == bytes);
    btree.begin_writing().unwrap();
    assert!(!storage.take_journal().is_empty(), "the newest copy is made durable");
    apply(&btree, 2, &puts(&some_rows(300, 100, 2))).unwrap();
    assert_eq!(all_rows(&open(storage.bytes()).unwrap().view()).unwrap(), some_rows(300, 100, 2));
}

#[test]
fn on_a_full_disk_redb_is_opened_again_once_and_not_for_each_attempt() {
    let (storage, btree) = create();
    let rows = some_rows(300, 100, 1);
    apply(&btree, 1, &puts(&rows)).unwrap();
    storage.limit(Some(storage.bytes().len() as u64));
    let refused = || apply(&btree, 2, &puts(&some_rows(9_000, 900, 2))).unwrap_err();
    assert!(matches!(refused().error, Error::DiskFull { .. }));
    let database = btree.view().snapshot().generation.clone();
    storage.take_journal();
    for _ in 0..5 {
        let refused = refused();
        assert!(matches!(refused.error, Error::DiskFull { .. }), "{}", refused.error);
        assert!(!refused.flush_failed);
        assert!(Arc::ptr_eq(&database, &btree.view().snapshot().generation));
        assert_eq!(all_rows(&btree.view()).unwrap(), rows);
    }
    assert!(storage.take_journal().is_empty(), "an attempt wrote");
    storage.limit(None);
    let rows = some_rows(9_000, 900, 2);
    apply(&btree, 2, &puts(&rows)).unwrap();
    assert_eq!(all_rows(&btree.view()).unwrap(), rows);
    drop((btree, database));
    assert_eq!(all_rows(&open(storage.bytes()).unwrap().view()).unwrap(), rows);
}

/// A fault ends the database of every view. A reader of an older view goes on in the newest commit
/// if it has what is newer in memory.
#[test]
fn a_view_that_a_fault_ended_is_continued_by_a_later_commit_for_readers_that_know_what_is_newer() {
    // Without a cache, from which the view would go on.
    let storage = TestStorage::with(vec![0; OFFSET as usize]);
    let btree = Btree::create(storage.clone(), OFFSET, 0, catalogue(), 1 << 20).unwrap();
    apply(&btree, 1, &puts(&some_rows(300, 100, 1))).unwrap();
    let older = btree.view();
    let rows = some_rows(300, 100, 2);
    apply(&btree, 2, &puts(&rows)).unwrap();
    storage.limit(Some(storage.bytes().len() as u64));
    apply(&btree, 3, &puts(&some_rows(9_000, 900, 3))).unwrap_err();
    let ((table, key), value) = rows.first_key_value().unwrap();
    let found = older.get(*table, key, 2).unwrap();
    assert_eq!(found.as_deref(), Some(&value[..]));
    let error = older.get(*table, key, 1).unwrap_err();
    assert!(error.to_string().contains("make the call again"), "{error}");
    assert_eq!(older.get(*table, key, u64::MAX).unwrap().as_deref(), Some(&value[..]));
}

/// Writers fail again and again, and readers of the same rows never do.
#[test]
fn readers_go_on_while_applies_fail() {
    let (storage, btree) = create();
    let rows = some_rows(2_000, 100, 1);
    apply(&btree, 1, &puts(&rows)).unwrap();
    let len = storage.bytes().len() as u64;
    let done = std::sync::atomic::AtomicBool::new(false);
    let (done, btree, rows, storage) = (&done, &btree, &rows, &storage);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(move || {
                    let mut reads = 0;
                    while !done.load(Ordering::Relaxed) {
                        assert_eq!(all_rows(&btree.view()).unwrap(), *rows);
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        for attempt in 0..60 {
            // Each attempt has a little more space than the one before, so redb is opened anew for
            // each.
            storage.limit(Some(len + attempt * 40_000));
            let refused = apply(btree, 2, &puts(&some_rows(20_000, 900, 2))).unwrap_err();
            assert!(matches!(refused.error, Error::DiskFull { .. }), "{}", refused.error);
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
}
