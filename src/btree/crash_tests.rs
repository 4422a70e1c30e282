//! A crash at every point of an apply, and what must be there afterwards.

use super::testing::{GateStep, Survival, TestStorage, crash};
use super::tests::{BtreeChanges, RowMap, all_rows, apply, create, puts, some_rows};
use super::*;
use std::collections::BTreeMap;

/// Crashes after every step of `journal` in several ways and opens the result.
fn crash_everywhere(disk: &[u8], journal: &[GateStep], allowed: &[(u64, &RowMap)], seed: u64) {
    // Between two boundaries only the unflushed writes differ, so the boundaries and a few points
    // between them are enough.
    let boundary = |step: Option<&GateStep>| !matches!(step, Some(GateStep::Write { .. }));
    let mut random = fastrand::Rng::with_seed(seed);
    for cut in 0..=journal.len() {
        let near = boundary(journal.get(cut)) || (cut > 0 && boundary(journal.get(cut - 1)));
        if !near && random.u8(..) > 20 {
            continue;
        }
        let steps = &journal[..cut];
        let ways = [Survival::Nothing, Survival::Everything];
        let torn: Vec<_> = (0..4).map(|_| Survival::Sectors(random.u64(..))).collect();
        for survival in ways.into_iter().chain(torn) {
            let image = crash(disk, steps, survival);
            let storage = TestStorage::with(image.clone());
            let btree = super::tests::open_on(storage.clone()).unwrap_or_else(|error| {
                panic!("cut {cut} of {}, {survival:?}: {error}", journal.len())
            });
            let view = btree.view();
            let rows =
                all_rows(&view).unwrap_or_else(|error| panic!("cut {cut}, {survival:?}: {error}"));
            assert!(
                allowed.iter().any(|(lsn, expected)| view.lsn() == *lsn && rows == **expected),
                "cut {cut} of {}, {survival:?}: LSN {}, {} rows",
                journal.len(),
                view.lsn(),
                rows.len()
            );
            // And the B-tree works, also after a crash while it is opened.
            let opening = storage.take_journal();
            let again = crash(
                &image,
                &opening[..random.usize(..=opening.len())],
                Survival::Sectors(random.u64(..)),
            );
            let btree = super::tests::open(again).unwrap();
            assert_eq!(btree.view().lsn(), view.lsn());
            apply(&btree, 99, &BTreeMap::from([((Table::EXPIRY, b"!".to_vec()), Some(vec![1]))]))
                .unwrap();
            assert_eq!(all_rows(&btree.view()).unwrap().len(), rows.len() + 1);
        }
    }
}

/// Applies batches of different shapes one after another and crashes everywhere in each.
fn crash_in_each(batches: &[BtreeChanges], seed: u64) {
    let (storage, btree) = create();
    let mut model = RowMap::new();
    storage.take_journal();
    let mut disk = storage.bytes();
    // What was written after the last flush is still unflushed when the next apply begins.
    let mut in_flight = Vec::new();
    for (index, batch) in batches.iter().enumerate() {
        let lsn = 1 + index as u64;
        let before = model.clone();
        for (key, value) in batch {
            match value {
                Some(value) => drop(model.insert(key.clone(), value.clone())),
                None => drop(model.remove(key)),
            }
        }
        apply(&btree, lsn, batch).unwrap();
        let mut journal = std::mem::take(&mut in_flight);
        journal.extend(storage.take_journal());
        crash_everywhere(&disk, &journal, &[(lsn - 1, &before), (lsn, &model)], seed + lsn);
        let flushed = 1 + journal.iter().rposition(|step| matches!(step, GateStep::Sync)).unwrap();
        in_flight = journal.split_off(flushed);
        disk = crash(&disk, &journal, Survival::Nothing);
        let btree = super::tests::open(disk.clone()).unwrap();
        assert_eq!(
            (btree.view().lsn(), &all_rows(&btree.view()).unwrap()),
            (lsn, &model),
            "an applied batch is lost"
        );
    }
}

#[test]
fn a_crash_leaves_the_rows_before_or_after_an_apply() {
    let batches: Vec<_> = (1..6).map(|lsn| puts(&some_rows(40 * lsn, 60, lsn as u8))).collect();
    crash_in_each(&batches, 1);
}

#[test]
fn a_crash_while_the_file_grows_or_shrinks_leaves_the_rows_before_or_after() {
    let rows = some_rows(6, 400_000, 1);
    let mut batches = vec![puts(&rows)];
    batches.push(rows.keys().map(|key| (key.clone(), None)).collect());
    batches.extend(vec![BTreeMap::new(); 5]);
    batches.push(puts(&some_rows(6, 400_000, 2)));
    crash_in_each(&batches, 2);
}
