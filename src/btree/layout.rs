//! The positions of the blocks in the window, and the bytes of the two copies of redb's header.
//!
//! Blocks are [`BLOCK_SIZE`] bytes. Physical blocks count from the start of the window:
//!
#![doc = include_str!("../../docs/tables/window.md")]
//!
//! redb aligns a page of 2^k blocks to 2^k blocks from its logical block 1 on, and 1,024 is a power
//! of two, so a page of up to 4 MiB is contiguous, within one group.
//!
//! A copy of the header is one 512-byte sector, so that a disk that writes sectors atomically
//! cannot tear it. The rest of its block is zero:
//!
#![doc = include_str!("../../docs/tables/window-header.md")]

use crate::limits::BLOCK_SIZE;
use crc32fast::Hasher;

/// [`BLOCK_SIZE`] for arithmetic on offsets.
pub(super) const BLOCK: u64 = BLOCK_SIZE as u64;

/// Data blocks of a group: as many as one block holds checksums.
pub(super) const GROUP_BLOCKS: u64 = BLOCK / 4;

/// Physical blocks before the first group.
const HEADER_BLOCKS: u64 = 2;

/// How many bytes of redb's block 0 are stored.
pub(super) const HEADER_LEN: usize = 476;

/// The field of redb's header with the number of blocks of a region, u32.
pub(super) const REGION_BLOCKS: std::ops::Range<usize> = 20..24;

const MAGIC: [u8; 8] = *b"cloakbt1";

pub(super) const SECTOR: usize = 512;

const _: () = assert!(MAGIC.len() + 8 + 8 + 8 + HEADER_LEN + 4 == SECTOR);

/// The byte position in the window of copy 0 or 1 of the header.
pub(super) fn copy_position(slot: u64) -> u64 {
    slot * BLOCK
}

/// The group of a logical block (from 1 on), and the block's index in it.
pub(super) fn group_and_index(block: u64) -> (u64, usize) {
    let index = block - 1;
    (index / GROUP_BLOCKS, to_usize(index % GROUP_BLOCKS))
}

/// The byte position in the window of a group's checksum block.
pub(super) fn checksums_position(group: u64) -> u64 {
    (HEADER_BLOCKS + group * (GROUP_BLOCKS + 1)) * BLOCK
}

/// The byte position in the window of a logical block (from 1 on).
pub(super) fn data_position(block: u64) -> u64 {
    let index = block - 1;
    checksums_position(index / GROUP_BLOCKS) + (1 + index % GROUP_BLOCKS) * BLOCK
}

/// The length in bytes of a window with space for the first `len` bytes of redb's storage.
pub(super) fn physical_len(len: u64) -> u64 {
    let data_blocks = (len / BLOCK).saturating_sub(1);
    (HEADER_BLOCKS + data_blocks + data_blocks.div_ceil(GROUP_BLOCKS)) * BLOCK
}

/// The checksum entry of a block. It covers the block's number, so that a misplaced block is
/// detected. Never 0, which stands for a block that was never written.
pub(super) fn block_checksum(block: u64, data: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(data);
    hasher.update(&block.to_le_bytes());
    hasher.finalize().max(1)
}

/// A number that is known to fit memory (an index in a group or in a buffer).
#[expect(
    clippy::cast_possible_truncation,
    reason = "callers pass positions inside a buffer that exists"
)]
pub(super) fn to_usize(number: u64) -> usize {
    number as usize
}

/// The content of one copy: redb's header and the length of its storage.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct HeaderCopy {
    pub(super) sequence: u64,
    /// The length of redb's storage.
    pub(super) len: u64,
    /// How many of its first bytes the file has space for. At most `len`.
    pub(super) present: u64,
    pub(super) header: [u8; HEADER_LEN],
}

impl std::fmt::Debug for HeaderCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeaderCopy")
            .field("sequence", &self.sequence)
            .field("len", &self.len)
            .field("present", &self.present)
            .finish_non_exhaustive()
    }
}

impl HeaderCopy {
    /// The block that holds this copy.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK_SIZE);
        block.extend_from_slice(&MAGIC);
        block.extend_from_slice(&self.sequence.to_le_bytes());
        block.extend_from_slice(&self.len.to_le_bytes());
        block.extend_from_slice(&self.present.to_le_bytes());
        block.extend_from_slice(&self.header);
        let checksum = crc32fast::hash(&block);
        block.extend_from_slice(&checksum.to_le_bytes());
        block.resize(BLOCK_SIZE, 0);
        block
    }

    /// Reads a block. `None` when it holds no intact copy.
    pub(super) fn decode(block: &[u8]) -> Option<HeaderCopy> {
        let (body, rest) = block.split_at_checked(SECTOR - 4)?;
        let checksum = u32::from_le_bytes(*rest.first_chunk()?);
        if crc32fast::hash(body) != checksum {
            return None;
        }
        let (magic, body) = body.split_first_chunk::<8>()?;
        let (sequence, body) = body.split_first_chunk::<8>()?;
        let (len, body) = body.split_first_chunk::<8>()?;
        let (present, header) = body.split_first_chunk::<8>()?;
        let (len, present) = (u64::from_le_bytes(*len), u64::from_le_bytes(*present));
        if *magic != MAGIC
            || !len.is_multiple_of(BLOCK)
            || !present.is_multiple_of(BLOCK)
            || present > len
        {
            return None;
        }
        let sequence = u64::from_le_bytes(*sequence);
        Some(HeaderCopy { sequence, len, present, header: header.try_into().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_the_positions_of_the_table() {
        assert_eq!(data_position(1), 3 * BLOCK);
        assert_eq!(data_position(1024), 1026 * BLOCK);
        assert_eq!(checksums_position(1), 1027 * BLOCK);
        assert_eq!(data_position(1025), 1028 * BLOCK);
        assert_eq!(group_and_index(1024), (0, 1023));
        assert_eq!(group_and_index(1025), (1, 0));
    }

    #[test]
    fn the_window_ends_after_its_last_block() {
        assert_eq!(physical_len(0), 2 * BLOCK);
        assert_eq!(physical_len(BLOCK), 2 * BLOCK);
        for blocks in [2, 3, 1024, 1025, 1026, 2049, 2050, 5000] {
            assert_eq!(
                physical_len(blocks * BLOCK),
                data_position(blocks - 1) + BLOCK,
                "{blocks} blocks"
            );
        }
    }

    #[test]
    fn a_header_copy_round_trips_in_frozen_bytes_and_no_flipped_byte_is_accepted() {
        let mut header = [0; HEADER_LEN];
        header[0] = 7;
        let copy = HeaderCopy { sequence: 3, len: 2 * BLOCK, present: BLOCK, header };
        let block = copy.encode();
        assert_eq!(block.len(), BLOCK_SIZE);
        assert_eq!(&block[..24], b"cloakbt1\x03\0\0\0\0\0\0\0\0\x20\0\0\0\0\0\0");
        assert_eq!(&block[24..34], b"\0\x10\0\0\0\0\0\0\x07\0");
        assert_eq!(&block[508..512], &[27, 1, 104, 217]);
        assert_eq!(HeaderCopy::decode(&block), Some(copy));
        for position in 0..SECTOR {
            let mut damaged = block.clone();
            damaged[position] ^= 0x10;
            assert_eq!(HeaderCopy::decode(&damaged), None, "byte {position}");
        }
    }

    #[test]
    fn a_checksum_depends_on_the_block_number_and_is_never_zero() {
        let data = vec![5; BLOCK_SIZE];
        assert_eq!(block_checksum(1, &data), 4_158_054_157);
        assert_ne!(block_checksum(1, &data), block_checksum(2, &data));
        assert_ne!(block_checksum(1, &vec![0; BLOCK_SIZE]), 0);
    }
}
