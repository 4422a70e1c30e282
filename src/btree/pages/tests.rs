//! What is read here is what redb reads, and what is lost is reported.

use super::super::tests::{OFFSET, RowMap, all_rows, apply, create, puts, some_rows};
use super::*;
use crate::btree::testing::TestStorage;
use crate::stores::registry::catalogue;
use crate::tables::Table;
use std::collections::BTreeSet;

fn tree(bytes: Vec<u8>) -> Tree {
    let storage: Arc<dyn Storage> = TestStorage::with(bytes);
    Tree::open(&storage, OFFSET).unwrap().remove(0)
}

fn must_be_whole(visit: &Visit<'_>) {
    if let Visit::Lost { error, .. } = visit {
        panic!("{error}");
    }
}

fn tables(pages: &Pages<'_>) -> Vec<(Table, TableRoot)> {
    let tables = pages.tables(Tables::User, &mut |visit| {
        must_be_whole(&visit);
        Ok(())
    });
    let named = |root: TableRoot| {
        let table = catalogue().all().iter().find(|table| table.name() == root.name)?;
        Some((*table, root))
    };
    tables.unwrap().into_iter().filter_map(named).collect()
}

fn rows_of(pages: &Pages<'_>) -> RowMap {
    let mut rows = RowMap::new();
    for (table, root) in tables(pages) {
        let before = rows.len();
        pages
            .visit(&root, Depth::Rows, &mut |visit| {
                must_be_whole(&visit);
                if let Visit::Row { key, value } = visit {
                    assert!(rows.insert((table, key.to_vec()), value.to_vec()).is_none());
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(root.rows, (rows.len() - before) as u64, "{}", root.name);
    }
    rows
}

#[test]
fn the_rows_are_those_that_redb_has() {
    let (storage, btree) = create();
    let mut random = fastrand::Rng::with_seed(7);
    let mut expected = RowMap::new();
    for lsn in 1..12 {
        let mut changes = puts(&some_rows(400, 1 + random.usize(..600), lsn as u8));
        changes.retain(|_, _| random.u8(..3) > 0);
        for value in changes.values_mut().filter(|_| random.u8(..3) == 0) {
            *value = None;
        }
        // Values of many pages, long keys, and an empty key.
        changes.insert(
            (Table::HANDOFF, vec![b'k'; random.usize(..70_000)]),
            Some(vec![3; random.usize(..300_000)]),
        );
        changes.insert((Table::CACHE, Vec::new()), Some(Vec::new()));
        for (key, value) in &changes {
            match value {
                Some(value) => expected.insert(key.clone(), value.clone()),
                None => expected.remove(key),
            };
        }
        apply(&btree, lsn, &changes).unwrap();
        assert_eq!(all_rows(&btree.view()).unwrap(), expected);
        let tree = tree(storage.bytes());
        assert_eq!(rows_of(&tree.pages()), expected);
        assert_eq!(tree.lsn().unwrap(), Some(lsn));
    }
}

/// Every page of every table, ours and redb's own.
fn places(pages: &Pages<'_>, depth: Depth) -> BTreeSet<PageSpan> {
    let mut places = BTreeSet::new();
    for of in [Tables::User, Tables::System] {
        let mut note = |visit: Visit<'_>| {
            must_be_whole(&visit);
            if let Visit::Page { place, .. } = visit {
                assert!(places.insert(place), "{place:?} is reached twice");
            }
            Ok(())
        };
        let tables = pages.tables(of, &mut note).unwrap();
        for table in tables {
            pages.visit(&table, depth, &mut note).unwrap();
        }
    }
    places
}

#[test]
fn the_numbers_of_the_leaves_are_known_without_reading_them() {
    let (storage, btree) = create();
    apply(&btree, 1, &puts(&some_rows(5000, 120, 1))).unwrap();
    let tree = tree(storage.bytes());
    let pages = tree.pages();
    let read = places(&pages, Depth::Leaves);
    assert!(read.len() > 150, "{}", read.len());
    assert_eq!(places(&pages, Depth::LeafNumbers), read);
    // No two pages overlap.
    for (a, b) in read.iter().zip(read.iter().skip(1)) {
        assert!(a.end() <= b.block, "{a:?} {b:?}");
    }
}

#[test]
fn only_what_is_below_a_damaged_block_is_lost() {
    let (storage, btree) = create();
    let expected = some_rows(3000, 100, 1);
    apply(&btree, 1, &puts(&expected)).unwrap();
    drop(btree);
    let bytes = storage.bytes();
    let whole = tree(bytes.clone());
    let (mut leaves, mut branches) = (0, 0);
    for (table, root) in tables(&whole.pages()) {
        let mut pages = Vec::new();
        let note = &mut |visit: Visit<'_>| {
            if let Visit::Page { place, is_leaf, .. } = visit {
                pages.push((place, is_leaf));
            }
            Ok(())
        };
        whole.pages().visit(&root, Depth::LeafNumbers, note).unwrap();
        for (place, is_leaf) in pages {
            *if is_leaf { &mut leaves } else { &mut branches } += 1;
            let mut damaged = bytes.clone();
            damaged[OFFSET as usize
                + super::super::layout::data_position(place.block) as usize
                + 99] ^= 4;
            let damaged = tree(damaged);
            let (mut found, mut lost) = (Vec::new(), Vec::new());
            damaged
                .pages()
                .visit(&root, Depth::Rows, &mut |visit| {
                    match visit {
                        Visit::Row { key, value } => found.push((key.to_vec(), value.to_vec())),
                        Visit::Lost {
                            place: Some(at),
                            error: Error::Corrupted { location, .. },
                            keys,
                        } => {
                            assert_eq!(at, place);
                            assert!(
                                location.contains(&format!("block {} ", place.block)),
                                "{location}"
                            );
                            lost.push(keys);
                        }
                        Visit::Lost { error, .. } => panic!("{error}"),
                        Visit::Page { .. } => {}
                    }
                    Ok(())
                })
                .unwrap();
            let [(after, to)] = &lost[..] else { panic!("{lost:?}") };
            let is_lost = |key: &Vec<u8>| {
                after.as_ref().is_none_or(|after| key > after)
                    && to.as_ref().is_none_or(|to| key <= to)
            };
            let rest: Vec<_> = expected
                .iter()
                .filter(|((of, key), _)| *of == table && !is_lost(key))
                .map(|((_, key), value)| (key.clone(), value.clone()))
                .collect();
            assert_eq!(found, rest);
            assert!(found.len() < expected.iter().filter(|((of, _), _)| *of == table).count());
        }
    }
    assert!(leaves > 50 && branches >= 5, "{leaves} {branches}");
}

#[test]
fn a_file_that_was_cut_off_still_shows_what_remains() {
    let (storage, btree) = create();
    let expected = some_rows(3000, 100, 1);
    apply(&btree, 1, &puts(&expected)).unwrap();
    for lsn in 2..8 {
        // Small changes, whose pages, and with them the roots, reuse freed ones.
        apply(&btree, lsn, &puts(&some_rows(40, 10, lsn as u8))).unwrap();
    }
    drop(btree);
    let bytes = storage.bytes();
    let mut some = false;
    for keep in (OFFSET as usize + 2 * BLOCK_SIZE..bytes.len()).step_by(BLOCK_SIZE + 17) {
        let cut = tree(bytes[..keep].to_vec());
        let pages = cut.pages();
        let (mut found, mut lost) = (0, 0);
        let tables = pages.tables(Tables::User, &mut |visit| {
            lost += usize::from(matches!(visit, Visit::Lost { .. }));
            Ok(())
        });
        for table in tables.unwrap() {
            pages
                .visit(&table, Depth::Rows, &mut |visit| {
                    match visit {
                        Visit::Row { .. } => found += 1,
                        Visit::Lost { .. } => lost += 1,
                        Visit::Page { .. } => {}
                    }
                    Ok(())
                })
                .unwrap();
        }
        some |= found > 100 && lost > 0;
    }
    assert!(some);
}

#[test]
fn any_bytes_are_a_page_or_no_page() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..20_000 {
        let len = random.usize(..400);
        let mut page: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
        if let Some(kind) = page.first_mut() {
            *kind = random.u8(1..3);
        }
        if len > 3 {
            page[2] = random.u8(..20);
            page[3] = 0;
        }
        let width = random.bool().then_some(8);
        let widths = Widths { key: width, value: random.bool().then_some(3) };
        match Node::of(&page, widths) {
            Some(Node::Leaf(leaf)) => {
                for (key, value) in leaf.rows().collect::<Vec<_>>() {
                    // Keys of bytes at random are in no order, so that it may not be found.
                    let _ = leaf.find(key);
                    assert!(key.len() + value.len() <= len);
                }
            }
            Some(Node::Branch(branch)) => assert!(branch.children().count() <= branch.keys + 1),
            None => {}
        }
        let definition: Vec<u8> = (0..random.usize(..80)).map(|_| random.u8(..4)).collect();
        let _ = table_root(b"t", &definition);
    }
}
