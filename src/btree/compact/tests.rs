//! Compaction returns free space, loses nothing, and never makes the file longer.

use super::super::layout::physical_len;
use super::super::regions::region_blocks;
use super::super::testing::{Survival, TestStorage, crash};
use super::super::tests::{BtreeChanges, CACHE, OFFSET, RowMap, all_rows, apply, create, open};
use super::*;
use crate::stores::registry::catalogue;

/// Rows with keys in random order, in several tables, some of them of many blocks.
fn scattered(count: usize, seed: u64) -> RowMap {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count)
        .map(|index| {
            let table = catalogue().all()[random.usize(..4)];
            let len = if index % 500 == 0 { random.usize(..60_000) } else { random.usize(20..200) };
            ((table, random.u64(..).to_be_bytes().to_vec()), vec![index as u8; len])
        })
        .collect()
}

/// Applies changes in parts and in random order, as checkpoints do.
fn apply_scattered(
    btree: &Btree,
    lsn: &mut u64,
    changes: &BtreeChanges,
    per_apply: usize,
    seed: u64,
) {
    let mut order: Vec<_> = changes.iter().collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    for part in order.chunks(per_apply) {
        *lsn += 1;
        let part = part.iter().map(|(key, value)| ((*key).clone(), (*value).clone())).collect();
        apply(btree, *lsn, &part).unwrap();
    }
}

/// Compacts to the end. The file never becomes longer meanwhile.
fn compact(btree: &Btree, storage: &TestStorage) -> Space {
    let mut space = btree.space().unwrap();
    let len = storage.bytes().len();
    loop {
        let mut plan = btree.plan_compaction().unwrap();
        while plan.len() > 0 {
            btree.compact_step(&mut plan).unwrap();
            assert!(storage.bytes().len() <= len, "the file grew");
        }
        let trimmed = btree.trim().unwrap();
        assert!(storage.bytes().len() <= len, "the file grew");
        if trimmed.present_bytes >= space.present_bytes {
            return trimmed;
        }
        space = trimmed;
    }
}

/// A B-tree that kept one of every `keep_each` of `count` rows, and the kept rows.
fn churned(count: usize, keep_each: usize, seed: u64) -> (Arc<TestStorage>, Btree, RowMap) {
    let (storage, btree) = create();
    let mut lsn = 0;
    let mut rows = scattered(count, seed);
    let puts = super::super::tests::puts(&rows);
    apply_scattered(&btree, &mut lsn, &puts, count / 7, seed);
    let mut gone = BtreeChanges::new();
    let mut index = 0;
    rows.retain(|key, _| {
        index += 1;
        if index % keep_each != 0 {
            gone.insert(key.clone(), None);
        }
        index % keep_each == 0
    });
    apply_scattered(&btree, &mut lsn, &gone, count / 7, seed + 10);
    (storage, btree, rows)
}

#[test]
fn free_space_is_returned_and_every_row_stays() {
    for (count, keep_each) in [(100_000, 20), (100_000, 7), (60_000, 2), (50_000, 400), (3_000, 3)]
    {
        let (storage, btree, rows) = churned(count, keep_each, count as u64 + keep_each as u64);
        let lsn = btree.view().lsn();
        let before = btree.space().unwrap();
        let after = compact(&btree, &storage);
        let used = after.used_bytes;
        // Up to a region, which has 2 MiB here, may stay free.
        let allowed = used + used / SLACK_DIVISOR + (2 << 20);
        assert!(after.present_bytes <= allowed, "1 of {keep_each}: {before:?} became {after:?}");
        assert!(used <= before.used_bytes + used / 20);
        assert_eq!(storage.bytes().len() as u64, OFFSET + physical_len(after.present_bytes));
        assert_eq!(all_rows(&btree.view()).unwrap(), rows);
        assert_eq!(btree.view().lsn(), lsn);
        drop(btree);
        let reopened = open(storage.bytes()).unwrap();
        assert_eq!(all_rows(&reopened.view()).unwrap(), rows);
        assert_eq!(reopened.view().lsn(), lsn);
    }
}

#[test]
fn rows_that_change_during_a_compaction_keep_their_changes() {
    let (storage, btree, mut rows) = churned(60_000, 5, 3);
    let mut random = fastrand::Rng::with_seed(9);
    let mut lsn = btree.view().lsn();
    loop {
        let mut plan = btree.plan_compaction().unwrap();
        if plan.len() == 0 {
            break;
        }
        while plan.len() > 0 {
            let mut changes = BtreeChanges::new();
            for key in rows.keys() {
                if random.u32(..200) == 0 {
                    changes
                        .insert(key.clone(), random.bool().then(|| vec![7; random.usize(..300)]));
                }
            }
            for (key, value) in &changes {
                match value {
                    Some(value) => rows.insert(key.clone(), value.clone()),
                    None => rows.remove(key),
                };
            }
            lsn += 1;
            apply(&btree, lsn, &changes).unwrap();
            btree.compact_step(&mut plan).unwrap();
            assert_eq!(btree.view().lsn(), lsn);
        }
        btree.trim().unwrap();
        if random.u8(..6) == 0 {
            break;
        }
    }
    assert_eq!(all_rows(&btree.view()).unwrap(), rows);
    drop(btree);
    assert_eq!(all_rows(&open(storage.bytes()).unwrap().view()).unwrap(), rows);
}

#[test]
fn a_view_does_not_change_while_pages_move_and_its_pages_are_not_cut_off() {
    let (storage, btree, rows) = churned(60_000, 6, 4);
    let view = btree.view();
    for _ in 0..4 {
        let mut plan = btree.plan_compaction().unwrap();
        while plan.len() > 0 {
            btree.compact_step(&mut plan).unwrap();
        }
        btree.trim().unwrap();
        assert_eq!(all_rows(&view).unwrap(), rows);
    }
    let len = storage.bytes().len();
    drop(view);
    let after = compact(&btree, &storage);
    assert!(after.free_bytes() < after.used_bytes / 4 + (2 << 20));
    assert!(storage.bytes().len() < len, "the pages of the view were in the part that was cut");
    assert_eq!(all_rows(&btree.view()).unwrap(), rows);
}

#[test]
fn a_crash_anywhere_in_a_step_or_a_cut_leaves_every_row() {
    let (storage, btree, rows) = churned(4_000, 4, 5);
    let lsn = btree.view().lsn();
    let mut crashes = 0;
    for round in 0..3 {
        let before = storage.bytes();
        storage.take_journal();
        let mut plan = btree.plan_compaction().unwrap();
        while plan.len() > 0 {
            btree.compact_step(&mut plan).unwrap();
        }
        btree.trim().unwrap();
        let journal = storage.take_journal();
        let stride = 1 + journal.len() / 150;
        for end in (0..=journal.len()).step_by(stride) {
            for survival in
                [Survival::Nothing, Survival::Everything, Survival::Sectors(end as u64 + round)]
            {
                let left = open(crash(&before, &journal[..end], survival))
                    .unwrap_or_else(|error| panic!("after step {end} with {survival:?}: {error}"));
                assert_eq!(left.view().lsn(), lsn);
                assert_eq!(
                    all_rows(&left.view()).unwrap(),
                    rows,
                    "after step {end} with {survival:?}"
                );
                crashes += 1;
            }
        }
    }
    assert!(crashes > 300, "{crashes}");
}

#[test]
fn a_failure_loses_nothing_and_a_failed_flush_is_reported() {
    let (storage, btree, rows) = churned(20_000, 5, 6);
    storage.limit(Some(0));
    // Compaction needs no more space than there is.
    let mut plan = btree.plan_compaction().unwrap();
    assert!(plan.len() > 0);
    btree.compact_step(&mut plan).unwrap();
    storage.limit(None);
    assert_eq!(all_rows(&btree.view()).unwrap(), rows);
    storage.fail_syncs();
    let mut plan = btree.plan_compaction().unwrap();
    assert!(plan.len() > 0);
    assert!(btree.compact_step(&mut plan).unwrap_err().flush_failed);
    assert_eq!(all_rows(&btree.view()).unwrap(), rows);
    assert!(btree.compact_step(&mut plan).unwrap_err().flush_failed);
    assert!(btree.trim().is_ok_and(|space| space.present_bytes > 0), "nothing is written after it");
    assert_eq!(all_rows(&btree.view()).unwrap(), rows);
}

#[test]
fn a_trim_whose_flush_fails_reports_it() {
    let (storage, btree, rows) = churned(20_000, 5, 8);
    let mut plan = btree.plan_compaction().unwrap();
    while plan.len() > 0 {
        btree.compact_step(&mut plan).unwrap();
    }
    storage.fail_syncs();
    assert!(btree.trim().unwrap_err().flush_failed);
    assert_eq!(all_rows(&btree.view()).unwrap(), rows);
    assert!(apply(&btree, 99_999, &BtreeChanges::new()).unwrap_err().flush_failed);
}

#[test]
fn a_region_holds_the_largest_row() {
    assert_eq!(region_blocks(0), 512);
    assert_eq!(region_blocks(2 << 20), 1024);
    assert_eq!(region_blocks((2 << 20) - 64), 512);
    assert_eq!(region_blocks(8 << 20), 4096);
    assert_eq!(region_blocks(u64::MAX), 1 << 20);
    // A row of the given size is stored. One that is larger than a region is refused, and does no
    // harm.
    let storage = TestStorage::with(vec![0; OFFSET as usize]);
    let btree = Btree::create(storage.clone(), OFFSET, CACHE, catalogue(), 4 << 20).unwrap();
    let largest = RowMap::from([((Table::HANDOFF, vec![1]), vec![7; (4 << 20) - 1])]);
    apply(&btree, 1, &super::super::tests::puts(&largest)).unwrap();
    assert_eq!(all_rows(&btree.view()).unwrap(), largest);
}

/// A B-tree with regions so large that moving pages between them returns little space.
fn churned_in_large_regions(count: usize, keep_each: usize) -> (Arc<TestStorage>, Btree, RowMap) {
    let storage = TestStorage::with(vec![0; OFFSET as usize]);
    let btree = Btree::create(storage.clone(), OFFSET, CACHE, catalogue(), 7 << 20).unwrap();
    let mut lsn = 0;
    let mut rows = scattered(count, 1);
    apply_scattered(&btree, &mut lsn, &super::super::tests::puts(&rows), count / 7, 1);
    let mut index = 0;
    let mut gone = BtreeChanges::new();
    rows.retain(|key, _| {
        index += 1;
        if index % keep_each != 0 {
            gone.insert(key.clone(), None);
        }
        index % keep_each == 0
    });
    apply_scattered(&btree, &mut lsn, &gone, count / 7, 11);
    (storage, btree, rows)
}

#[test]
fn redbs_own_compaction_moves_few_pages_and_readers_continue() {
    let (storage, btree, rows) = churned_in_large_regions(30_000, 20);
    let lsn = btree.view().lsn();
    // An older view prevents it, because its pages could be overwritten.
    let older = btree.view();
    btree.compact_step(&mut Plan::default()).unwrap();
    assert!(btree.compact_whole().unwrap().is_none());
    drop(older);
    let reader = btree.view();
    std::thread::scope(|scope| {
        let (reader, rows) = (&reader, &rows);
        let reads =
            scope.spawn(move || (0..20).for_each(|_| assert_eq!(all_rows(reader).unwrap(), *rows)));
        assert!(btree.compact_whole().unwrap().is_some());
        reads.join().unwrap();
    });
    assert_eq!(all_rows(&reader).unwrap(), rows);
    drop(reader);
    let space = btree.trim().unwrap();
    assert!(space.free_bytes() <= 32 * BLOCK_SIZE as u64, "{space:?}");
    assert_eq!(btree.view().lsn(), lsn);
    apply(&btree, lsn + 1, &BtreeChanges::new()).unwrap();
    drop(btree);
    assert_eq!(all_rows(&open(storage.bytes()).unwrap().view()).unwrap(), rows);
}

#[test]
fn a_crash_while_all_pages_move_leaves_every_row() {
    let (storage, btree, rows) = churned_in_large_regions(4_000, 4);
    let lsn = btree.view().lsn();
    let before = storage.bytes();
    storage.take_journal();
    btree.compact_whole().unwrap().unwrap();
    let journal = storage.take_journal();
    let stride = 1 + journal.len() / 200;
    for end in (0..=journal.len()).step_by(stride) {
        for survival in [Survival::Nothing, Survival::Everything, Survival::Sectors(end as u64)] {
            let left = open(crash(&before, &journal[..end], survival))
                .unwrap_or_else(|error| panic!("after step {end} with {survival:?}: {error}"));
            assert_eq!(left.view().lsn(), lsn);
            assert_eq!(all_rows(&left.view()).unwrap(), rows, "after step {end} with {survival:?}");
            apply(&left, lsn + 1, &BtreeChanges::new()).unwrap();
        }
    }
}

#[test]
fn a_flush_that_fails_while_all_pages_move_is_reported_and_reads_continue() {
    let mut succeed = 0;
    // The last flushes are those of redb as it closes, whose failure it does not report.
    loop {
        let (storage, btree, rows) = churned_in_large_regions(1_500, 4);
        let reader = btree.view();
        storage.fail_one_sync_after(succeed);
        let compacted = btree.compact_whole();
        if !storage.sync_failed() {
            compacted.unwrap().unwrap();
            break;
        }
        assert!(compacted.unwrap_err().flush_failed, "flush {succeed} failed and was not reported");
        assert_eq!(all_rows(&reader).unwrap(), rows);
        assert_eq!(all_rows(&btree.view()).unwrap(), rows);
        assert!(apply(&btree, 99_999, &BtreeChanges::new()).unwrap_err().flush_failed);
        succeed += 1;
    }
    assert!(succeed > 10, "{succeed}");
}
