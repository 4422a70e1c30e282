//! The header of a log segment, which tells one use of the segment from another.
//!
//! A segment of S bytes begins with two header slots of 4 KiB, written alternately, so that a torn
//! write leaves the previous header. The block of the [mark](super::frame) follows, and frames from
//! [`DATA_START`] on:
//!
#![doc = include_str!("../../docs/tables/segment.md")]
//!
//! A header slot:
//!
#![doc = include_str!("../../docs/tables/segment-header.md")]
//!
//! Generations are global: recycling a segment gives it the greatest generation plus one. With two
//! segments, the uses of one segment have generations `g, g + 2, ...`, and `generation / 2 % 2`
//! alternates between its slots.
//!
//! A new file starts at a random generation. Otherwise a caller could store a value whose bytes
//! look like a frame of the segment, because small generations are easy to guess, and a torn write
//! could expose those bytes.

use super::frame::{le_u32, le_u64};
use crate::error::{Error, Result};
use crate::limits::BLOCK_SIZE;
use crate::storage::Storage;

/// Where the mark of a segment is. It has a block of its own: a mark proves that the last frames
/// were durable, so one bad sector or block must not take the frames and their mark.
pub(crate) const MARK_START: usize = 2 * BLOCK_SIZE;

/// Where the frames of a segment begin.
pub(crate) const DATA_START: usize = MARK_START + BLOCK_SIZE;

/// The same, as an offset.
pub(super) const FRAMES_START: u64 = DATA_START as u64;

/// The number of segments.
pub(crate) const SEGMENTS: usize = 2;

const MAGIC: [u8; 8] = *b"CLKSEG\0\0";
const FILE_ID: usize = 8;
const GENERATION: usize = 24;
const INDEX: usize = 32;
const BTREE_LSN: usize = 40;
const CRC: usize = 48;
/// The bytes of a slot that carry information; the rest is zero.
pub(crate) const HEADER_LEN: usize = 52;

/// The header of one use of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Numbers the uses of all segments.
    pub generation: u64,
    /// The index of the segment in the file, 0 or 1.
    pub index: u64,
    /// The LSN that the B-tree had durably reached when this use began.
    pub btree_lsn: u64,
}

impl SegmentHeader {
    /// The bytes of the whole slot.
    pub(crate) fn encode(&self, file_id: &[u8; 16]) -> [u8; BLOCK_SIZE] {
        let mut header = Vec::with_capacity(HEADER_LEN);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(file_id);
        header.extend_from_slice(&self.generation.to_le_bytes());
        header.extend_from_slice(&self.index.to_le_bytes());
        header.extend_from_slice(&self.btree_lsn.to_le_bytes());
        let crc = crc32fast::hash(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        let mut slot = [0; BLOCK_SIZE];
        for (to, from) in slot.iter_mut().zip(header) {
            *to = from;
        }
        slot
    }

    /// The offset in the segment of the slot for this generation.
    pub(crate) fn slot_offset(&self) -> usize {
        if (self.generation / 2).is_multiple_of(2) { 0 } else { BLOCK_SIZE }
    }

    /// Writes the header into its slot and returns when it is durable. Then frames of this
    /// generation may be written. The other slot keeps the previous header.
    pub(crate) fn write(
        &self,
        storage: &dyn Storage,
        segment_offset: u64,
        file_id: &[u8; 16],
    ) -> Result<()> {
        let offset = segment_offset + self.slot_offset() as u64;
        storage.write_at_durable(offset, &self.encode(file_id)).map_err(|error| {
            Error::io(format!("writing the header of log segment {}", self.index), error)
        })
    }

    /// The newest valid header in `segment` (its first [`MARK_START`] bytes suffice), or `None`
    /// when both slots are invalid.
    pub(crate) fn read_newest(
        segment: &[u8],
        file_id: &[u8; 16],
        index: u64,
    ) -> Option<SegmentHeader> {
        [0, BLOCK_SIZE]
            .into_iter()
            .filter_map(|offset| {
                let header = Self::parse(segment.get(offset..)?.get(..HEADER_LEN)?, file_id)?;
                (header.index == index && header.slot_offset() == offset).then_some(header)
            })
            .max_by_key(|header| header.generation)
    }

    /// The header in a block, of whatever file, and the id of that file.
    pub(crate) fn recognize(block: &[u8]) -> Option<(SegmentHeader, [u8; 16])> {
        let file_id: [u8; 16] = block.get(FILE_ID..GENERATION)?.try_into().ok()?;
        Some((Self::parse(block.get(..HEADER_LEN)?, &file_id)?, file_id))
    }

    /// The header in slot 0 or 1 of `segment`, or `None` when it is not intact.
    pub(crate) fn read_slot(
        segment: &[u8],
        file_id: &[u8; 16],
        slot: usize,
    ) -> Option<SegmentHeader> {
        let offset = slot * BLOCK_SIZE;
        Self::parse(segment.get(offset..)?.get(..HEADER_LEN)?, file_id)
            .filter(|header| header.slot_offset() == offset)
    }

    fn parse(slot: &[u8], file_id: &[u8; 16]) -> Option<SegmentHeader> {
        let covered = slot.get(..CRC)?;
        let valid = covered.starts_with(&MAGIC)
            && covered.get(FILE_ID..GENERATION)? == file_id
            && le_u32(slot, CRC)? == crc32fast::hash(covered);
        valid.then_some(SegmentHeader {
            generation: le_u64(slot, GENERATION)?,
            index: le_u64(slot, INDEX)?,
            btree_lsn: le_u64(slot, BTREE_LSN)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: [u8; 16] = *b"0123456789abcdef";

    fn segment(headers: &[SegmentHeader]) -> Vec<u8> {
        let mut bytes = vec![0; DATA_START];
        for header in headers {
            bytes[header.slot_offset()..][..BLOCK_SIZE].copy_from_slice(&header.encode(&FILE));
        }
        bytes
    }

    #[test]
    fn each_slot_is_read_by_itself() {
        let headers =
            [8, 10].map(|generation| SegmentHeader { generation, index: 0, btree_lsn: 1 });
        let slots = headers.map(|header| header.slot_offset() / BLOCK_SIZE);
        assert_eq!(slots, [0, 1]);
        let bytes = segment(&headers);
        for slot in slots {
            assert_eq!(SegmentHeader::read_slot(&bytes, &FILE, slot), Some(headers[slot]));
        }
        // One that lies in the slot of the other is none.
        let mut swapped = bytes.clone();
        swapped[..BLOCK_SIZE].copy_from_slice(&headers[1].encode(&FILE));
        assert_eq!(SegmentHeader::read_slot(&swapped, &FILE, 0), None);
    }

    #[test]
    fn a_header_has_these_bytes() {
        let header = SegmentHeader { generation: 0x0203, index: 1, btree_lsn: 0x0405 };
        let bytes = header.encode(&FILE);
        let mut expected = [&b"CLKSEG\0\0"[..], &FILE].concat();
        expected.extend_from_slice(&[3, 2, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[5, 4, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[0x99, 0x16, 0xD0, 0xBB]);
        assert_eq!(bytes[..HEADER_LEN], expected, "{:02x?}", &bytes[CRC..HEADER_LEN]);
        assert!(bytes[HEADER_LEN..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn successive_uses_of_a_segment_alternate_and_the_newest_wins() {
        let mut before = SegmentHeader { generation: 5, index: 1, btree_lsn: 0 };
        for generation in [7, 9, 11, 13] {
            let header = SegmentHeader { generation, index: 1, btree_lsn: generation * 10 };
            assert_ne!(header.slot_offset(), before.slot_offset());
            let newest = SegmentHeader::read_newest(&segment(&[before, header]), &FILE, 1);
            assert_eq!(newest, Some(header));
            before = header;
        }
    }

    #[test]
    fn any_flipped_byte_of_the_newest_header_gives_the_previous_one() {
        let before = SegmentHeader { generation: 5, index: 1, btree_lsn: 40 };
        let header = SegmentHeader { generation: 7, index: 1, btree_lsn: 50 };
        for offset in 0..HEADER_LEN {
            let mut bytes = segment(&[before, header]);
            bytes[header.slot_offset() + offset] ^= 0x10;
            assert_eq!(SegmentHeader::read_newest(&bytes, &FILE, 1), Some(before), "byte {offset}");
        }
    }

    #[test]
    fn foreign_misplaced_and_missing_headers_are_refused() {
        let header = SegmentHeader { generation: 7, index: 1, btree_lsn: 50 };
        let bytes = segment(&[header]);
        assert_eq!(SegmentHeader::read_newest(&bytes, &[0; 16], 1), None);
        assert_eq!(SegmentHeader::read_newest(&bytes, &FILE, 0), None);
        let mut swapped = bytes.clone();
        swapped[..MARK_START].rotate_left(BLOCK_SIZE);
        assert_eq!(SegmentHeader::read_newest(&swapped, &FILE, 1), None);
        assert_eq!(SegmentHeader::read_newest(&[0; DATA_START], &FILE, 1), None);
        assert_eq!(SegmentHeader::read_newest(&bytes[..HEADER_LEN - 1], &FILE, 1), None);
    }

    /// A storage that records what a header write does.
    #[derive(Debug)]
    struct HeaderWrites(crate::sync::plain::Mutex<Vec<(u64, Vec<u8>)>>);

    impl Storage for HeaderWrites {
        fn len(&self) -> std::io::Result<u64> {
            Err(std::io::Error::other("this test writes headers only"))
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
            Err(std::io::Error::other("this test writes headers only"))
        }
        fn write_at(&self, _: u64, _: &[u8]) -> std::io::Result<()> {
            Err(std::io::Error::other("this test writes headers only"))
        }
        fn write_at_durable(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.0.lock().push((offset, data.to_vec()));
            Ok(())
        }
        fn sync_data(&self) -> std::io::Result<()> {
            Err(std::io::Error::other("this test writes headers only"))
        }
        fn set_len(&self, _: u64) -> std::io::Result<()> {
            Err(std::io::Error::other("this test writes headers only"))
        }
        fn view(&self, _: u64, _: usize) -> std::io::Result<crate::storage::StorageView> {
            Err(std::io::Error::other("this test writes headers only"))
        }
    }

    #[test]
    fn writing_is_one_durable_write_of_one_slot() {
        let storage = HeaderWrites(crate::sync::plain::Mutex::default());
        let header = SegmentHeader { generation: 6, index: 0, btree_lsn: 9 };
        header.write(&storage, 8192, &FILE).unwrap();
        assert_eq!(*storage.0.lock(), [(8192 + 4096, header.encode(&FILE).to_vec())]);
    }
}
