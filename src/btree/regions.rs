//! The regions that redb divides its storage into.

use crate::limits::BLOCK_SIZE;

/// The smallest region: redb begins with a little more than one MiB.
const MIN_REGION_BLOCKS: u64 = 512;

/// The largest region that redb can have.
const MAX_REGION_BLOCKS: u64 = 1 << 20;

/// The number of blocks of a region of redb's storage, so that a row of this size fits one. redb
/// takes free pages from the first region that has one of the size, but within a region not from
/// its beginning. So the smaller the regions, the closer pages move to the beginning of the file.
pub(super) fn region_blocks(max_row_bytes: u64) -> u32 {
    // A page has a power of two of blocks, and a few bytes more than its row.
    let blocks = (max_row_bytes.saturating_add(64)).div_ceil(BLOCK_SIZE as u64).next_power_of_two();
    u32::try_from(blocks.clamp(MIN_REGION_BLOCKS, MAX_REGION_BLOCKS)).unwrap_or(1 << 20)
}
