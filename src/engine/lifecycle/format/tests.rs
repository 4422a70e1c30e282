//! How a new file comes to its log, its rows and its position.

use super::*;
use crate::engine::lifecycle::recovered_image::RecoveredImage;
use crate::log::growth::with_least_log_space;
use crate::storage::MemoryStorage;
use crate::storage::recording::{Change, Recording};
use crate::storage::sim::SimStorage;
use crate::stores::registry::catalogue;

const CACHE: usize = 1 << 20;

fn like(lsn: u64) -> Geometry {
    Geometry { lsn, ..Geometry::new(4 << 20, 1_700_000_000_000) }
}

fn begin(lsn: u64) -> (Arc<dyn Storage>, Unfinished) {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let new = Unfinished::begin(Arc::clone(&storage), like(lsn), CACHE, catalogue()).unwrap();
    (storage, new)
}

#[test]
fn the_space_that_each_segment_begins_with_is_prewritten_in_chunks() {
    let (chunk, least) = (ZERO_CHUNK as u64, 600 << 10);
    let storage = Recording::new(SimStorage::new(1));
    let new = with_least_log_space(least, || {
        Unfinished::begin(Arc::clone(&storage) as _, like(0), CACHE, catalogue()).unwrap()
    });
    let layout = layout_of(&new.superblock);
    let expected = [0, 1].map(|index| layout.segment_offset(index)).map(|at| {
        let last = Change::Write(at + 2 * chunk, least - 2 * chunk);
        [Change::Write(at, chunk), Change::Write(at + chunk, chunk), last]
    });
    assert_eq!(storage.changes().get(..6), Some(&expected.concat()[..]));
    let log_end = layout.segment_offset(SEGMENTS);
    let in_log = |change: &&Change| matches!(change, Change::Write(at, _) if *at < log_end);
    assert_eq!(storage.changes().iter().filter(in_log).count(), 6);
}

#[test]
fn rows_are_applied_when_a_whole_batch_of_them_was_gathered() {
    let (_storage, mut new) = begin(7);
    let value = vec![1; BATCH_BYTES / 16 - ROW_OVERHEAD - 4];
    for batch in 0..2_u32 {
        for row in 0..16 {
            assert_eq!(new.rows.len(), row as usize);
            new.put(Table::CACHE, &(16 * batch + row).to_be_bytes(), &value).unwrap();
        }
    }
    assert!(new.rows.is_empty());
}

#[test]
fn a_room_has_its_rows_whatever_its_position_and_its_position_without_rows() {
    for (lsn, has_row) in [(0, false), (0, true), (9, false), (9, true)] {
        let (storage, mut new) = begin(lsn);
        if has_row {
            new.put(Table::CACHE, b"key", b"value").unwrap();
        }
        let superblock = new.finish().unwrap();
        let image = RecoveredImage::open(&storage, &superblock, CACHE, catalogue()).unwrap();
        let mut rows = 0;
        let counted = image.for_each(|_, _, _| {
            rows += 1;
            Ok(())
        });
        counted.unwrap();
        assert_eq!((image.lsn(), rows), (lsn, usize::from(has_row)));
        assert!(image.is_settled());
    }
}

#[test]
fn what_later_batches_replaced_is_given_back() {
    let (storage, mut new) = begin(7);
    // redb keeps a row that is larger than a page in a page of a power of two bytes.
    let value = vec![1; (1 << 20) - 8_192];
    for key in 0..32_u32 {
        new.put(Table::CACHE, &key.to_be_bytes(), &value).unwrap();
    }
    for key in (0..32_u32).step_by(2) {
        new.put(Table::CACHE, &key.to_be_bytes(), b"small").unwrap();
    }
    let superblock = new.finish().unwrap();
    let of_btree = storage.len().unwrap() - superblock.btree_offset;
    assert!((16 << 20..24 << 20).contains(&of_btree), "{of_btree}");
}
