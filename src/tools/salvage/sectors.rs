//! Reading from a disk of which some sectors cannot be read.

use crate::limits::BLOCK_SIZE;
use crate::storage::Storage;

/// As much of `len` bytes from `offset` on as the file has. What cannot be read is zero.
pub(super) fn read_what_is_there(storage: &dyn Storage, offset: u64, len: usize) -> Vec<u8> {
    let available = storage.len().unwrap_or_default().saturating_sub(offset);
    let len = len.min(usize::try_from(available).unwrap_or(usize::MAX));
    let mut bytes = vec![0; len];
    if storage.read_at(offset, &mut bytes).is_ok() {
        return bytes;
    }
    // One by one, so that a sector that the disk cannot read costs no other block.
    for (block, at) in bytes.chunks_mut(BLOCK_SIZE).zip((offset..).step_by(BLOCK_SIZE)) {
        if storage.read_at(at, block).is_err() {
            block.fill(0);
        }
    }
    bytes
}
