//! Looking up rows past redb answers what redb answers.

use super::tests::{BtreeChanges, RowMap, apply, create, open_on, puts};
use super::view::LEAF_CACHE_DIVISOR;
use super::*;
use crate::limits::BLOCK_SIZE;
use std::collections::BTreeMap;

const T: Table = Table::HANDOFF;

/// Keys that begin alike for longer or shorter, with their neighbours.
fn key(kind: usize, number: u64) -> Vec<u8> {
    match kind {
        0 => number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes().to_vec(),
        1 => [b"a name that all of them begin with \0\0", &number.to_be_bytes()[..]].concat(),
        2 => vec![b'k'; number as usize % 300],
        _ => number.to_string().into_bytes(),
    }
}

fn check(view: &BtreeView, rows: &RowMap) {
    let mut probes: Vec<(Table, Vec<u8>)> = rows.keys().cloned().collect();
    let beside: Vec<_> = probes
        .iter()
        .flat_map(|(table, key)| {
            let mut shorter = key.clone();
            shorter.pop();
            [(*table, [&key[..], b"\0"].concat()), (*table, shorter)]
        })
        .collect();
    probes.extend(beside);
    probes.extend([(T, vec![]), (T, vec![0xFF; 40])]);
    for (table, key) in probes {
        let expected = rows.get(&(table, key.clone())).map(|value| Value::from(value.as_slice()));
        assert_eq!(view.get_directly(table, &key), Some(expected), "{table:?} {key:?}");
    }
}

#[test]
fn every_row_of_every_commit_is_found_and_nothing_else() {
    let (_, btree) = create();
    let mut rng = fastrand::Rng::with_seed(3);
    let (mut rows, mut views, mut lsn) = (RowMap::new(), vec![], 0);
    for (round, count) in [0, 1, 1, 40, 400, 3_000, 50, 3_000].into_iter().enumerate() {
        let mut changes = BtreeChanges::new();
        for _ in 0..count {
            let row = (T, key(rng.usize(0..4), rng.u64(0..4_000)));
            let len = rng.usize(0..200);
            let value = (rng.usize(0..8) > round.min(3)).then(|| vec![rng.u8(..); len]);
            changes.insert(row, value);
        }
        lsn += 1;
        let view = apply(&btree, lsn, &changes).unwrap();
        for (row, value) in changes {
            match value {
                Some(value) => rows.insert(row, value),
                None => rows.remove(&row),
            };
        }
        views.push((view, rows.clone()));
        // Every commit so far, whose branches are in memory partly.
        for (view, rows) in &views {
            check(view, rows);
        }
    }
    assert!(rows.len() > 2_000, "{}", rows.len());
}

#[test]
fn long_values_are_found_or_left_to_redb() {
    let (_, btree) = create();
    let rows: BTreeMap<_, _> = (0..60_u64)
        .map(|number| ((T, key(3, number)), vec![number as u8; 3_000 * number as usize]))
        .collect();
    let view = apply(&btree, 1, &puts(&rows)).unwrap();
    let mut left = 0;
    for ((table, key), value) in &rows {
        match view.get_directly(*table, key) {
            Some(found) => assert_eq!(found.as_deref(), Some(value.as_slice())),
            None => left += 1,
        }
        assert_eq!(view.get(*table, key, 1).unwrap().as_deref(), Some(value.as_slice()));
    }
    assert!((1..45).contains(&left), "{left}");
}

#[test]
fn a_table_that_the_file_does_not_have_and_one_without_rows_are_empty() {
    let (storage, btree) = create();
    let row = (T, b"key".to_vec());
    apply(&btree, 1, &puts(&BTreeMap::from([(row.clone(), vec![1])]))).unwrap();
    let view = apply(&btree, 2, &BtreeChanges::from([(row, None)])).unwrap();
    assert_eq!(view.get_directly(T, b"key"), Some(None));
    assert_eq!(view.get(Table::CACHE, b"key", 2).unwrap(), None);
    drop((view, btree));
    let again = open_on(storage).unwrap();
    assert_eq!(again.view().get_directly(T, b"key"), Some(None));
}

#[test]
fn a_damaged_page_is_left_to_redb_which_says_so() {
    let (storage, btree) = create();
    let rows: RowMap = (0..2_000).map(|number| ((T, key(0, number)), vec![7; 100])).collect();
    apply(&btree, 1, &puts(&rows)).unwrap();
    drop(btree);
    let whole = storage.bytes();
    let (mut refused, mut damaged_blocks) = (0, 0);
    for block in (0..whole.len() / BLOCK_SIZE).skip(5).step_by(7) {
        let mut bytes = whole.clone();
        bytes[block * BLOCK_SIZE + 99] ^= 1;
        let Ok(btree) = super::tests::open(bytes) else { continue };
        damaged_blocks += 1;
        let view = btree.view();
        for ((table, key), value) in rows.iter().step_by(17) {
            let directly = view.get_directly(*table, key);
            match view.get(*table, key, 1) {
                Ok(found) => assert_eq!(found.as_deref(), Some(value.as_slice())),
                Err(Error::Corrupted { .. }) => {
                    refused += 1;
                    assert_eq!(directly, None);
                }
                Err(error) => panic!("{error}"),
            }
            assert!(directly.is_none_or(|found| found.as_deref() == Some(value.as_slice())));
        }
    }
    assert!(damaged_blocks > 5 && refused > 10, "{damaged_blocks}, {refused}");
}

#[test]
fn no_more_leaves_are_kept_than_the_budget_has_and_a_view_gives_its_leaves_back() {
    let (_, btree) = create();
    let rows: RowMap = (0..6_000).map(|number| ((T, key(0, number)), vec![7; 200])).collect();
    let view = apply(&btree, 1, &puts(&rows)).unwrap();
    let budget = super::tests::CACHE / LEAF_CACHE_DIVISOR / BLOCK_SIZE;
    assert_eq!(view.leaves_left(), budget);
    let mut left = vec![];
    for _ in 0..2 {
        check(&view, &rows);
        left.push(view.leaves_left());
    }
    assert_eq!(left, [0, 0], "of {budget}, for more than 300 leaves");
    let next = apply(&btree, 2, &BtreeChanges::new()).unwrap();
    check(&next, &rows);
    drop(view);
    assert_eq!(next.leaves_left(), budget);
    check(&next, &rows);
    assert_eq!(next.leaves_left(), 0);
}
