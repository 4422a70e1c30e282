//! A new file is read back whole: every page that its B-tree reaches, redb's own too.

use super::*;
use crate::btree::pages::PageSpan;
use crate::engine::lifecycle::format::{Geometry, Unfinished};
use crate::limits::BLOCK_SIZE;
use crate::storage::MemoryStorage;
use crate::stores::registry::catalogue;
use crate::tables::Table;

/// The pages that the B-tree reaches, and how many of them are redb's own.
fn pages_of(storage: &Arc<dyn Storage>, superblock: &Superblock) -> (Vec<PageSpan>, usize) {
    let tree = Tree::open(storage, superblock.btree_offset).unwrap().remove(0);
    let (pages, mut found) = (tree.pages(), Vec::new());
    let numbers = [Tables::User, Tables::System].map(|of| {
        let before = found.len();
        let mut note = |visit: Visit<'_>| {
            if let Visit::Page { place, .. } = visit {
                found.push(place);
            }
            Ok(())
        };
        for table in pages.tables(of, &mut note).unwrap() {
            pages.visit(&table, Depth::Leaves, &mut note).unwrap();
        }
        found.len() - before
    });
    (found, numbers[1])
}

#[test]
fn a_flipped_bit_in_any_page_of_a_new_file_is_found() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let like = Geometry { lsn: 9, ..Geometry::new(4 << 20, 1_700_000_000_000) };
    let mut new = Unfinished::begin(Arc::clone(&storage), like, 1 << 20, catalogue()).unwrap();
    for key in 0..200_u32 {
        new.put(Table::CACHE, &key.to_be_bytes(), &[1; 200]).unwrap();
    }
    let superblock = new.finish().unwrap();
    check_pages(&storage, &superblock).unwrap();
    let (pages, of_redb) = pages_of(&storage, &superblock);
    assert!(of_redb > 3 && pages.len() > of_redb + 3, "{of_redb} of {pages:?}");
    for block in pages.iter().flat_map(|page| page.block..page.end()) {
        for at in [0, 1, 100, 2_048, BLOCK_SIZE as u64 - 1] {
            // Of the first group, whose checksums lie behind both copies of the header.
            let offset = superblock.btree_offset + (block + 2) * BLOCK_SIZE as u64 + at;
            let mut byte = [0];
            storage.read_at(offset, &mut byte).unwrap();
            storage.write_at(offset, &[byte[0] ^ 1]).unwrap();
            assert!(check_pages(&storage, &superblock).is_err(), "byte {at} of block {block}");
            storage.write_at(offset, &byte).unwrap();
        }
    }
    check_pages(&storage, &superblock).unwrap();
}
