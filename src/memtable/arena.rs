//! The versions of a memtable, in the order in which they were inserted: a list that only grows,
//! which any number of threads read while one appends.
//!
//! It grows by blocks of [`BLOCK_LEN`] versions, so that no append takes long, and nothing that is
//! in it moves.

use super::version::{Version, VersionNumber};
use crate::limits::MAX_LOG_CAPACITY;
use crate::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;

/// How many versions a block holds.
const BLOCK_LEN: usize = 512;

/// How many blocks the first directory names. Each further one names twice as many as the one
/// before.
const FIRST_BLOCKS: usize = 32;

/// How many directories there are for as many blocks as a `u32` can number.
const DIRECTORIES: usize = 20;

/// The least that a row takes in a frame: its table, the lengths of its key and its value, and one
/// byte of key, because no table has more than one row with an empty key.
const MIN_ROW_BYTES: u64 = 4;

// Every version of a segment has a number.
const _: () = assert!(MAX_LOG_CAPACITY / 2 / MIN_ROW_BYTES < u32::MAX as u64);
const _: () =
    assert!((BLOCK_LEN * FIRST_BLOCKS * ((1 << DIRECTORIES) - 1)) as u64 > u32::MAX as u64);

type VersionBlock = Box<[OnceLock<Version>]>;

/// See the module.
#[derive(Debug)]
pub(super) struct VersionArena {
    directories: [OnceLock<Box<[OnceLock<VersionBlock>]>>; DIRECTORIES],
    len: AtomicU32,
}

impl VersionArena {
    pub(super) fn new() -> Self {
        Self { directories: [const { OnceLock::new() }; DIRECTORIES], len: AtomicU32::new(0) }
    }

    /// How many versions there are.
    pub(super) fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    /// Appends a version. One thread does at a time.
    pub(super) fn push(&self, version: Version) -> VersionNumber {
        let index = self.len.load(Ordering::Relaxed);
        let (directory, block, offset) = place_of(index);
        let blocks = self
            .directories
            .get(directory)
            .map(|blocks| blocks.get_or_init(|| empty(FIRST_BLOCKS << directory)));
        let slot = blocks
            .and_then(|blocks| blocks.get(block))
            .and_then(|block| block.get_or_init(|| empty(BLOCK_LEN)).get(offset));
        // There is a slot for every index, and it is empty.
        let _ = slot.map(|slot| slot.set(version));
        self.len.store(index + 1, Ordering::Release);
        VersionNumber(index + 1)
    }

    /// The version of a number; none at [`VersionNumber::NONE`].
    pub(super) fn get(&self, number: VersionNumber) -> Option<&Version> {
        let (directory, block, offset) = place_of(number.0.checked_sub(1)?);
        self.directories.get(directory)?.get()?.get(block)?.get()?.get(offset)?.get()
    }

    /// Every version, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (VersionNumber, &Version)> {
        (1..=self.len()).filter_map(|number| {
            let number = VersionNumber(number);
            Some((number, self.get(number)?))
        })
    }
}

/// The directory, the block in it and the slot in that of the version with so many before it.
fn place_of(index: u32) -> (usize, usize, usize) {
    let index = index as usize;
    let from_first = index / BLOCK_LEN + FIRST_BLOCKS;
    let directory = (from_first / FIRST_BLOCKS).ilog2() as usize;
    (directory, from_first - (FIRST_BLOCKS << directory), index % BLOCK_LEN)
}

fn empty<T>(len: usize) -> Box<[OnceLock<T>]> {
    (0..len).map(|_| OnceLock::new()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_place_of_its_own_behind_the_one_before() {
        let mut before = None;
        for index in (0..3_000_000).chain(u32::MAX - 3_000..u32::MAX) {
            let (directory, block, offset) = place_of(index);
            assert!(directory < DIRECTORIES && block < FIRST_BLOCKS << directory);
            assert!(offset < BLOCK_LEN);
            assert!(before < Some((directory, block, offset)), "{index}");
            before = Some((directory, block, offset));
        }
    }

    #[test]
    fn every_version_is_found_under_its_number_also_beyond_the_first_directory() {
        let versions = VersionArena::new();
        let count = u32::try_from(3 * BLOCK_LEN * FIRST_BLOCKS).unwrap();
        for lsn in 1..=u64::from(count) {
            let number = versions.push(Version {
                hash: lsn,
                lsn,
                table: crate::tables::Table::CACHE,
                key: Box::default(),
                value: None,
                next_in_bucket: VersionNumber::NONE,
                before_in_table: VersionNumber::NONE,
            });
            assert_eq!(versions.get(number).map(|version| version.lsn), Some(lsn));
        }
        assert_eq!(versions.iter().map(|(_, version)| version.lsn).max(), Some(count.into()));
        assert_eq!(versions.iter().count(), count as usize);
    }
}
