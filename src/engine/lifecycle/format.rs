//! The content of a new room, from nothing to the superblock that makes it one.
//!
//! The log is prewritten with zeros, the rows go into the B-tree in batches of bounded size, and
//! the headers of the segments follow. Everything is durable before the superblock is written, so
//! an unfinished storage is no room, whatever a crash leaves of it.

use crate::btree::Btree;
use crate::error::{Error, Result};
use crate::limits::BLOCK_SIZE;
use crate::log::segment::SegmentHeader;
use crate::log::{LogLayout, SEGMENTS};
use crate::storage::{Storage, Superblock};
use crate::tables::{Catalogue, Table, Value};
use crate::unique;
use std::io;
use std::sync::Arc;

/// How much of a new log is zeroed with one write.
const ZERO_CHUNK: usize = 256 << 10;

/// How many bytes of rows are gathered before they are applied to the B-tree in one transaction.
const BATCH_BYTES: usize = 16 << 20;

/// Free pages are worth moving the others for when they are more than this part of those, and this
/// many bytes.
const FREE_DIVISOR: u64 = 8;
const MIN_FREE_BYTES: u64 = 256 << 10;

/// What a row that is gathered takes beside its key and value.
const ROW_OVERHEAD: usize = 80;

/// What a new room is like, its rows aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Tells the file from every other.
    pub(crate) file_id: [u8; 16],
    /// The size of each of the two log segments in bytes: whole blocks.
    pub(crate) segment_size: u64,
    /// When the room was created, in milliseconds since the Unix epoch.
    pub(crate) created_at_ms: u64,
    /// The position that the B-tree records. The first frame of the room gets the next one.
    pub(crate) lsn: u64,
}

impl Geometry {
    /// That of an empty room with a file id of its own, and a log of at least `log_capacity` bytes.
    pub(crate) fn new(log_capacity: u64, created_at_ms: u64) -> Self {
        let segment_size =
            log_capacity.div_ceil(SEGMENTS as u64).next_multiple_of(BLOCK_SIZE as u64);
        Self { file_id: unique::ulid().to_bytes(), segment_size, created_at_ms, lsn: 0 }
    }

    /// That of the room with this superblock, as of the position `lsn`.
    pub(crate) fn of(superblock: &Superblock, lsn: u64) -> Self {
        let Superblock { file_id, segment_size, created_at_ms, .. } = *superblock;
        Self { file_id, segment_size, created_at_ms, lsn }
    }
}

/// A room that is being written to an empty storage.
pub(super) struct Unfinished {
    storage: Arc<dyn Storage>,
    superblock: Superblock,
    btree: Btree,
    lsn: u64,
    rows: Vec<(Table, Box<[u8]>, Value)>,
    gathered: usize,
}

impl Unfinished {
    /// Prewrites the log and creates an empty B-tree.
    pub(super) fn begin(
        storage: Arc<dyn Storage>,
        like: Geometry,
        cache_size: usize,
        tables: Catalogue,
    ) -> Result<Self> {
        let superblock = Superblock::new(like.segment_size, like.created_at_ms, like.file_id);
        let failed = |error| Error::io("writing the log of a new file", error);
        storage.grow_unreserved(superblock.btree_offset).map_err(failed)?;
        let layout = layout_of(&superblock);
        for index in 0..SEGMENTS {
            let (offset, len) = (layout.segment_offset(index), layout.first_space(0));
            write_zeros(storage.as_ref(), offset, len).map_err(failed)?;
        }
        let max_row_bytes = layout.max_frame_len();
        let btree = Btree::create(
            Arc::clone(&storage),
            superblock.btree_offset,
            cache_size,
            tables,
            max_row_bytes,
        )?;
        Ok(Self { storage, superblock, btree, lsn: like.lsn, rows: Vec::new(), gathered: 0 })
    }

    /// Adds a row, or replaces the one with that key. After an error nothing more can be added.
    pub(super) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        self.gathered += key.len() + value.len() + ROW_OVERHEAD;
        self.rows.push((table, key.into(), value.into()));
        // What is unfinished records that it has reached nothing.
        if self.gathered < BATCH_BYTES { Ok(()) } else { self.apply(0) }
    }

    /// Moves what was gathered into the B-tree.
    fn apply(&mut self, lsn: u64) -> Result<()> {
        let mut rows = std::mem::take(&mut self.rows);
        self.gathered = 0;
        // Of rows with one key the one that came last stays last, and wins.
        rows.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let rows = rows.into_iter().map(|(table, key, value)| Ok((table, key, Some(value))));
        self.btree.apply(lsn, rows).map(drop).map_err(|failed| failed.error)
    }

    /// Gives back what the B-tree does not use. Batches leave pages behind that later ones
    /// replaced.
    fn trim(&self) -> Result<()> {
        let space = self.btree.space()?;
        if space.free_bytes() > space.used_bytes / FREE_DIVISOR + MIN_FREE_BYTES {
            self.btree.compact_whole().map_err(|failed| failed.error)?;
        }
        self.btree.trim().map(drop).map_err(|failed| failed.error)
    }

    /// Makes it a room: the last rows, the headers of the segments, a flush, and the superblock.
    pub(super) fn finish(mut self) -> Result<Superblock> {
        if self.lsn != 0 || !self.rows.is_empty() {
            self.apply(self.lsn)?;
            self.trim()?;
        }
        self.btree.close();
        let Self { storage, superblock, lsn, .. } = self;
        let layout = layout_of(&superblock);
        // Generations begin at a random number, so that no caller's value can be made to look like
        // a frame. They are drawn for each file, because a copy of a room goes on with frames of
        // its own.
        let random = unique::ulid().to_bytes().last_chunk::<4>().copied().unwrap_or_default();
        let first_generation = 1 + u64::from(u32::from_le_bytes(random));
        for index in 0..SEGMENTS {
            let generation = first_generation + index as u64;
            let header = SegmentHeader { generation, index: index as u64, btree_lsn: lsn };
            header.write(storage.as_ref(), layout.segment_offset(index), &layout.file_id)?;
        }
        storage.sync_data().map_err(|error| Error::io("flushing a new file", error))?;
        superblock.write(storage.as_ref())?;
        Ok(superblock)
    }
}

fn write_zeros(storage: &dyn Storage, from: u64, len: u64) -> io::Result<()> {
    let (mut offset, end) = (from, from + len);
    let zeros = vec![0; ZERO_CHUNK];
    while offset < end {
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let chunk = zeros.get(..left.min(ZERO_CHUNK)).unwrap_or(&zeros);
        storage.write_at(offset, chunk)?;
        offset += chunk.len() as u64;
    }
    Ok(())
}

/// Where the log of a file lies.
pub(super) fn layout_of(superblock: &Superblock) -> LogLayout {
    let Superblock { file_id, log_offset, segment_size, .. } = *superblock;
    LogLayout { file_id, offset: log_offset, segment_size }
}

/// Writes an empty room.
pub(in crate::engine) fn format(
    storage: Arc<dyn Storage>,
    like: Geometry,
    cache_size: usize,
    tables: Catalogue,
) -> Result<()> {
    Unfinished::begin(storage, like, cache_size, tables)?.finish().map(drop)
}

#[cfg(test)]
mod tests;
