//! The scan of a log segment: the valid frames from its beginning on, and the valid frames beyond
//! the first bad position.
//!
//! A scan decides nothing. The [plan](super::plan), which has both segments and the B-tree, decides
//! whether the valid frames end in a clean end, in a torn tail or in damage.

use super::frame::{
    FRAME_ALIGN, FRAME_HEADER_LEN, Frame, FrameFault, frame_len, le_u32, le_u64, parse,
};
use super::segment::{DATA_START, MARK_START, SegmentHeader};
use std::ops::Range;

/// The search for frames beyond a bad position computes CRCs over at most this many times the
/// segment's length.
///
/// After a crash, a frame costs its own length once, and only a header torn between its length and
/// its generation can have a wrong length. So only a file made to be slow reaches this limit.
const RESYNC_CRC_FACTOR: usize = 64;

/// A valid frame and its position in the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameRef {
    /// Its log sequence number.
    pub lsn: u64,
    /// Every frame up to this LSN was durable when this one was written.
    pub durable_lsn: u64,
    /// Its offset in the segment.
    pub offset: usize,
    /// The length of its payload in bytes.
    pub payload_len: usize,
}

impl FrameRef {
    fn new(frame: &Frame<'_>, offset: usize) -> Self {
        Self {
            lsn: frame.lsn,
            durable_lsn: frame.durable_lsn,
            offset,
            payload_len: frame.payload.len(),
        }
    }

    /// The range of its payload in the segment.
    pub(crate) fn payload_range(&self) -> Range<usize> {
        let start = self.offset + FRAME_HEADER_LEN;
        start..start + self.payload_len
    }

    /// The offset in the segment of the next frame.
    pub(crate) fn end(&self) -> usize {
        self.offset + frame_len(self.payload_len)
    }
}

/// Valid frames of the segment's generation beyond the first bad position, all with an LSN above
/// those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FramesBeyond {
    /// The offset of the first of them.
    pub first_offset: usize,
    /// The end of the last of them.
    pub last_end: usize,
    /// The greatest LSN among them.
    pub max_lsn: u64,
    /// The one with the greatest durable LSN.
    pub max_durable: FrameRef,
}

/// A valid frame of a later generation than the segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewerFrame {
    /// Its offset in the segment.
    pub offset: usize,
    /// Its generation.
    pub generation: u64,
    /// Its log sequence number.
    pub lsn: u64,
}

/// The content of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentScan {
    /// The header that the scan used.
    pub header: SegmentHeader,
    /// The valid frames from the beginning on, in the order of LSNs without a gap.
    pub frames: Vec<FrameRef>,
    /// The mark of this use of the segment, if there is an intact one. Frames that were written
    /// after it may follow those that it covers.
    pub mark: Option<FrameRef>,
    /// The offset for the next frame: after the last of `frames`.
    pub end: usize,
    /// What follows the valid frames.
    pub fault: FrameFault,
    /// Valid frames beyond that position.
    pub beyond: Option<FramesBeyond>,
    /// A frame or mark of a later use of the segment: the header of that use was lost.
    pub newer: Option<NewerFrame>,
    /// Whether the search beyond the valid bytes was given up because of too many false candidates.
    pub inconclusive: bool,
    /// Whether a frame may end among the zeros that follow the bytes that were scanned.
    pub needs_zeros: bool,
}

impl SegmentScan {
    /// The LSN of the first frame.
    pub(crate) fn first_lsn(&self) -> Option<u64> {
        self.frames.first().map(|frame| frame.lsn)
    }

    /// The LSN of the last frame.
    pub(crate) fn last_lsn(&self) -> Option<u64> {
        self.frames.last().map(|frame| frame.lsn)
    }

    /// The frames and the mark.
    pub(crate) fn valid(&self) -> impl Iterator<Item = &FrameRef> {
        self.frames.iter().chain(&self.mark)
    }
}

/// Scans a whole segment, whose newest valid header is `header`.
///
/// The valid frames are those with a correct CRC, the header's generation, and the LSN after that
/// of the frame before (the first may have any). Beyond them, every aligned position is checked for
/// frames of this generation with a later LSN, and for frames of the next use of the segment.
pub(crate) fn scan_segment(segment: &[u8], header: SegmentHeader) -> SegmentScan {
    scan_written(segment, segment.len(), header)
}

/// The same for the first bytes of a segment of `len` bytes, when the rest are zeros. If it answers
/// `needs_zeros`, only a scan of all bytes tells what is there; otherwise both tell the same.
pub(crate) fn scan_written(written: &[u8], len: usize, header: SegmentHeader) -> SegmentScan {
    let mut scan = SegmentScan {
        header,
        frames: Vec::new(),
        mark: None,
        end: DATA_START,
        fault: FrameFault::Truncated,
        beyond: None,
        newer: None,
        inconclusive: false,
        needs_zeros: false,
    };
    scan.fault = loop {
        match next_frame(written, &scan) {
            Ok(frame) => {
                let frame = FrameRef::new(&frame, scan.end);
                scan.end = frame.end();
                scan.frames.push(frame);
            }
            Err(fault) => break fault,
        }
    };
    if written.len() < len {
        match scan.fault {
            FrameFault::Truncated if is_zero(written.get(scan.end..).unwrap_or_default()) => {
                scan.fault = FrameFault::Empty;
            }
            FrameFault::Truncated | FrameFault::LengthBeyondEnd { .. } => scan.needs_zeros = true,
            _ => {}
        }
        scan.needs_zeros |= written.len() < DATA_START;
    }
    read_mark(written, &mut scan);
    resync(written, len, &mut scan);
    scan
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// The intact mark in the block of the mark, of whatever use of the segment.
pub(crate) fn mark_in(segment: &[u8]) -> Option<Frame<'_>> {
    let block = segment.get(MARK_START..DATA_START)?;
    parse(block).ok().filter(Frame::is_mark)
}

/// Takes the mark if it is of this use of the segment. One of an earlier use says nothing, and one
/// of a later use says that the header of that use was lost.
fn read_mark(segment: &[u8], scan: &mut SegmentScan) {
    let Some(mark) = mark_in(segment) else { return };
    if mark.generation == scan.header.generation {
        scan.mark = Some(FrameRef::new(&mark, MARK_START));
    } else if later_uses(scan.header.generation).contains(&mark.generation) {
        let (generation, lsn) = (mark.generation, mark.lsn);
        scan.newer = Some(NewerFrame { offset: MARK_START, generation, lsn });
    }
}

/// The generations of up to two uses later: what the other segment and this one may have got since
/// the header of `generation` was written.
fn later_uses(generation: u64) -> Range<u64> {
    generation.saturating_add(1)..generation.saturating_add(3)
}

/// The frame that continues the scan.
fn next_frame<'a>(segment: &'a [u8], scan: &SegmentScan) -> Result<Frame<'a>, FrameFault> {
    let frame = parse(segment.get(scan.end..).unwrap_or_default())?;
    if frame.generation != scan.header.generation {
        return Err(FrameFault::Generation { found: frame.generation });
    }
    match scan.last_lsn() {
        Some(last_lsn) if last_lsn.checked_add(1) != Some(frame.lsn) => {
            Err(FrameFault::Sequence { found: frame.lsn })
        }
        _ => Ok(frame),
    }
}

/// Where a frame has its generation.
const GENERATION_AT: usize = 16;

/// How many zeros are looked at together.
const ZEROS_AT_ONCE: usize = 256;

/// The length of the positions behind this one of which it is known that their generation is zero,
/// too.
fn positions_among_zeros(candidate: &[u8]) -> usize {
    let (blocks, _) = candidate.get(GENERATION_AT..).unwrap_or_default().as_chunks();
    let is_zero = |block: &&[u8; ZEROS_AT_ONCE]| **block == [0; ZEROS_AT_ONCE];
    let zeros = blocks.iter().take_while(is_zero).count() * ZEROS_AT_ONCE;
    // The last of these positions is the one whose generation ends where the zeros end.
    zeros.saturating_sub(FRAME_ALIGN)
}

/// Searches for frames beyond the valid ones.
///
/// The eight bytes where a generation would be rule out most positions, and zeros all positions
/// among them at once. A CRC is computed only where the generation matches and the LSN is in the
/// range that two segments can hold, and over a bounded number of bytes in total, so that no
/// content of the segment makes this slow.
fn resync(written: &[u8], len: usize, scan: &mut SegmentScan) {
    let header = scan.header;
    let frames_max = (len / FRAME_HEADER_LEN) as u64;
    // When this use began, the other segment was at most full of frames above the B-tree.
    let expected = scan.last_lsn().unwrap_or(header.btree_lsn).saturating_add(1);
    let own_lsns = expected..=expected.saturating_add(frames_max.saturating_mul(2));
    // Up to two uses later: what both segments held when this use began, and may have held since.
    let newer_lsns =
        header.btree_lsn.saturating_add(1)..=header.btree_lsn.saturating_add(frames_max * 8);
    let newer_generations = later_uses(header.generation);

    let mut crc_bytes_left = len.saturating_mul(RESYNC_CRC_FACTOR);
    let mut offset = scan.end;
    while let Some(candidate) = written.get(offset..).filter(|rest| !rest.is_empty()) {
        if candidate.len() < FRAME_HEADER_LEN {
            scan.needs_zeros |= written.len() < len && !is_zero(candidate);
            return;
        }
        let Some(generation) = le_u64(candidate, GENERATION_AT) else { return };
        offset += FRAME_ALIGN;
        if generation != header.generation && !newer_generations.contains(&generation) {
            if generation == 0 {
                offset += positions_among_zeros(candidate);
            }
            continue;
        }
        let (Some(length), Some(lsn)) = (le_u32(candidate, 0), le_u64(candidate, 8)) else {
            return;
        };
        let own = generation == header.generation && own_lsns.contains(&lsn);
        let newer = newer_generations.contains(&generation) && newer_lsns.contains(&lsn);
        if !own && !newer {
            continue;
        }
        let covered = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_add(FRAME_HEADER_LEN))
            .and_then(|length| length.checked_next_multiple_of(FRAME_ALIGN))
            .unwrap_or(usize::MAX);
        if covered > candidate.len() {
            scan.needs_zeros |= covered <= candidate.len() + (len - written.len());
            continue;
        }
        let Some(left) = crc_bytes_left.checked_sub(covered) else {
            scan.inconclusive = true;
            return;
        };
        crc_bytes_left = left;
        let Ok(frame) = parse(candidate) else { continue };
        let found = FrameRef::new(&frame, offset - FRAME_ALIGN);
        offset = found.end();
        if newer {
            scan.newer.get_or_insert(NewerFrame { offset: found.offset, generation, lsn });
            continue;
        }
        let beyond = scan.beyond.get_or_insert(FramesBeyond {
            first_offset: found.offset,
            last_end: found.end(),
            max_lsn: found.lsn,
            max_durable: found,
        });
        beyond.last_end = found.end();
        beyond.max_lsn = beyond.max_lsn.max(found.lsn);
        if found.durable_lsn > beyond.max_durable.durable_lsn {
            beyond.max_durable = found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::frame::{begin_frame, stamp};

    const SEGMENT_LEN: usize = DATA_START + 8192;
    const HEADER: SegmentHeader = SegmentHeader { generation: 5, index: 1, btree_lsn: 100 };

    /// A segment with these frames (LSN, generation, durable LSN, payload length) one after
    /// another.
    fn segment(frames: &[(u64, u64, u64, usize)]) -> Vec<u8> {
        let mut bytes = vec![0; DATA_START];
        for &(lsn, generation, durable_lsn, payload_len) in frames {
            let mut frame = Vec::new();
            begin_frame(&mut frame, lsn, generation, &vec![0xAB; payload_len]);
            stamp(&mut frame, durable_lsn);
            bytes.extend(frame);
        }
        bytes.resize(SEGMENT_LEN, 0);
        bytes
    }

    fn lsns(scan: &SegmentScan) -> Vec<u64> {
        scan.frames.iter().map(|frame| frame.lsn).collect()
    }

    #[test]
    fn an_unused_segment_is_empty() {
        let scan = scan_segment(&segment(&[]), HEADER);
        assert_eq!((lsns(&scan), scan.end, scan.fault), (vec![], DATA_START, FrameFault::Empty));
        assert_eq!(
            (scan.mark, scan.beyond, scan.newer, scan.inconclusive),
            (None, None, None, false)
        );
    }

    #[test]
    fn frames_are_read_to_the_end() {
        let bytes = segment(&[(107, 5, 106, 8), (108, 5, 106, 9), (109, 5, 108, 1)]);
        let scan = scan_segment(&bytes, HEADER);
        assert_eq!(lsns(&scan), [107, 108, 109]);
        assert_eq!(scan.end, DATA_START + 40 + 48 + 40);
        assert_eq!(scan.frames[1].offset, DATA_START + 40);
        assert_eq!(scan.frames[1].durable_lsn, 106);
        assert_eq!(bytes[scan.frames[1].payload_range()], [0xAB; 9]);
        assert_eq!((scan.fault, scan.beyond), (FrameFault::Empty, None));
    }

    #[test]
    fn a_frame_behind_any_number_of_zeros_is_found() {
        for position in 0..SEGMENT_LEN / FRAME_ALIGN - 8 {
            let offset = DATA_START + 16 + position * FRAME_ALIGN;
            let mut bytes = segment(&[]);
            let mut frame = Vec::new();
            begin_frame(&mut frame, 102, 5, &[0; 8]);
            stamp(&mut frame, 100);
            let Some(slot) = bytes.get_mut(offset..offset + frame.len()) else { return };
            slot.copy_from_slice(&frame);
            let beyond = scan_segment(&bytes, HEADER).beyond.map(|beyond| beyond.first_offset);
            assert_eq!(beyond, Some(offset));
        }
        unreachable!("the last frame does not fit");
    }

    #[test]
    fn a_full_segment_ends_at_its_end() {
        let scan = scan_segment(&segment(&[(107, 5, 106, 8192 - FRAME_HEADER_LEN)]), HEADER);
        assert_eq!((lsns(&scan), scan.end), (vec![107], SEGMENT_LEN));
        assert_eq!((scan.fault, scan.beyond), (FrameFault::Truncated, None));
    }

    #[test]
    fn frames_of_an_earlier_use_are_ignored() {
        let bytes = segment(&[(107, 5, 106, 8), (101, 3, 100, 8), (108, 3, 107, 8)]);
        let scan = scan_segment(&bytes, HEADER);
        assert_eq!((lsns(&scan), scan.fault), (vec![107], FrameFault::Generation { found: 3 }));
        assert_eq!((scan.beyond, scan.newer), (None, None));
    }

    #[test]
    fn a_mark_is_read_from_its_block_and_frames_may_follow_it() {
        let mut bytes = segment(&[(107, 5, 106, 8), (108, 5, 107, 8)]);
        let mut mark = Vec::new();
        begin_frame(&mut mark, 108, 5, &[]);
        stamp(&mut mark, 107);
        bytes[MARK_START..MARK_START + mark.len()].copy_from_slice(&mark);
        let scan = scan_segment(&bytes, HEADER);
        assert_eq!((lsns(&scan), scan.end), (vec![107, 108], DATA_START + 80));
        let found = scan.mark.map(|mark| (mark.lsn, mark.durable_lsn, mark.offset));
        assert_eq!(found, Some((108, 107, MARK_START)));
        let later = scan_segment(&bytes, SegmentHeader { generation: 3, ..HEADER });
        let newer = NewerFrame { offset: MARK_START, generation: 5, lsn: 108 };
        assert_eq!((later.mark, later.newer), (None, Some(newer)));
        let earlier = scan_segment(&bytes, SegmentHeader { generation: 7, ..HEADER });
        assert_eq!((earlier.mark, earlier.newer), (None, None));
    }

    #[test]
    fn frames_beyond_a_bad_one_are_found() {
        let mut bytes = segment(&[
            (107, 5, 106, 8),
            (108, 5, 106, 8),
            (109, 5, 107, 8),
            (110, 5, 109, 8),
            (111, 5, 107, 8),
        ]);
        bytes[DATA_START + 40 + FRAME_HEADER_LEN] ^= 1;
        let scan = scan_segment(&bytes, HEADER);
        assert_eq!((lsns(&scan), scan.end), (vec![107], DATA_START + 40));
        assert!(matches!(scan.fault, FrameFault::Checksum { .. }));
        let beyond = scan.beyond.unwrap();
        assert_eq!((beyond.first_offset, beyond.last_end), (DATA_START + 80, DATA_START + 200));
        assert_eq!(
            (beyond.max_lsn, beyond.max_durable.durable_lsn, beyond.max_durable.lsn),
            (111, 109, 110)
        );
    }

    #[test]
    fn a_gap_in_the_lsns_ends_the_frames() {
        let scan = scan_segment(&segment(&[(107, 5, 106, 8), (109, 5, 106, 8)]), HEADER);
        assert_eq!((lsns(&scan), scan.fault), (vec![107], FrameFault::Sequence { found: 109 }));
        assert_eq!(scan.beyond.map(|beyond| beyond.first_offset), Some(DATA_START + 40));
    }

    #[test]
    fn a_frame_with_an_earlier_lsn_is_ignored() {
        let scan =
            scan_segment(&segment(&[(107, 5, 106, 8), (107, 5, 106, 8), (103, 5, 102, 8)]), HEADER);
        assert_eq!((lsns(&scan), scan.beyond), (vec![107], None));
    }

    #[test]
    fn frames_of_the_next_use_are_found() {
        let scan = scan_segment(&segment(&[(207, 7, 206, 8), (208, 7, 206, 8)]), HEADER);
        assert_eq!((lsns(&scan), scan.fault), (vec![], FrameFault::Generation { found: 7 }));
        assert_eq!(scan.newer, Some(NewerFrame { offset: DATA_START, generation: 7, lsn: 207 }));
        assert_eq!(scan.beyond, None);
    }

    #[test]
    fn a_bad_first_frame_does_not_hide_the_rest() {
        let mut bytes = segment(&[(107, 5, 106, 8), (108, 5, 107, 8)]);
        bytes[DATA_START] ^= 1;
        let scan = scan_segment(&bytes, HEADER);
        assert_eq!((lsns(&scan), scan.end), (vec![], DATA_START));
        assert_eq!(scan.beyond.map(|beyond| beyond.max_durable.durable_lsn), Some(107));
    }

    #[test]
    fn a_segment_without_its_zeros_tells_the_same_or_asks_for_them() {
        // The last frame ends in zeros, as its payload does, and one lies beyond a gap.
        let mut bytes = segment(&[(107, 5, 106, 8), (108, 5, 107, 30), (109, 5, 0, 600)]);
        let mut last = Vec::new();
        begin_frame(&mut last, 110, 5, &[0; 700]);
        stamp(&mut last, 0);
        let end = DATA_START + 40 + 64 + 632;
        bytes[end..end + last.len()].copy_from_slice(&last);
        bytes.copy_within(end..end + last.len(), end + 2048);
        let (mut answered, mut asked) = (0, 0);
        for torn in [None, Some(DATA_START + 44), Some(end), Some(end + 2048)] {
            let mut bytes = bytes.clone();
            if let Some(torn) = torn {
                bytes[torn] ^= 1;
            }
            let data = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
            let whole = scan_segment(&bytes, HEADER);
            for written in data..bytes.len() {
                let scan = scan_written(&bytes[..written], bytes.len(), HEADER);
                if scan.needs_zeros {
                    asked += 1;
                } else {
                    assert_eq!(scan, whole, "{written} bytes, torn at {torn:?}");
                    answered += 1;
                }
            }
        }
        assert!(answered > 10_000 && asked > 1_000, "{answered} answered, {asked} asked");
        assert!(scan_written(&[], SEGMENT_LEN, HEADER).needs_zeros);
    }

    #[test]
    fn zeros_are_asked_for_only_where_a_frame_may_end_among_them() {
        let bytes = segment(&[(107, 5, 106, 8), (108, 5, 107, 30)]);
        let end = DATA_START + 40 + 64;
        for written in [DATA_START, end, end + 7, end + 200] {
            let scan = scan_written(&bytes[..written], SEGMENT_LEN, HEADER);
            assert!(!scan.needs_zeros, "{written} bytes");
        }
        for written in [0, DATA_START - 1, DATA_START + 1, end - 8] {
            let scan = scan_written(&bytes[..written], SEGMENT_LEN, HEADER);
            assert!(scan.needs_zeros, "{written} bytes");
        }
        // A header beyond a bad frame, whose frame ends in the segment, at its end, or not in it.
        let left = SEGMENT_LEN - end - FRAME_HEADER_LEN;
        for (payload_len, asked) in [(left - 8, true), (left, true), (left + 8, false)] {
            let mut bytes = bytes.clone();
            bytes[DATA_START + 40] ^= 1;
            bytes[end..end + 4].copy_from_slice(&u32::try_from(payload_len).unwrap().to_le_bytes());
            bytes[end + 8..end + 16].copy_from_slice(&109_u64.to_le_bytes());
            bytes[end + 16..end + 24].copy_from_slice(&5_u64.to_le_bytes());
            let scan = scan_written(&bytes[..end + 512], SEGMENT_LEN, HEADER);
            assert_eq!(scan.needs_zeros, asked, "{payload_len} bytes of payload");
        }
        // A whole segment has none to ask for, whatever its last bytes are.
        let mut bytes = bytes.clone();
        bytes[SEGMENT_LEN - 4] = 1;
        bytes[SEGMENT_LEN - FRAME_ALIGN..].fill(1);
        assert!(!scan_segment(&bytes, HEADER).needs_zeros);
    }

    #[test]
    fn frames_count_beyond_a_bad_one_as_far_as_two_segments_can_hold_them() {
        let frames_max = (SEGMENT_LEN / FRAME_HEADER_LEN) as u64;
        let of = |lsn, generation| {
            let mut bytes = segment(&[(107, 5, 106, 8), (108, 3, 107, 8), (lsn, generation, 0, 0)]);
            // The last position that has space for a frame.
            bytes.copy_within(DATA_START + 80..DATA_START + 112, SEGMENT_LEN - FRAME_HEADER_LEN);
            bytes[DATA_START + 80..DATA_START + 112].fill(0);
            let scan = scan_segment(&bytes, HEADER);
            (scan.beyond.map(|beyond| beyond.max_lsn), scan.newer.map(|newer| newer.lsn))
        };
        let (own, newer) = (108 + 2 * frames_max, 100 + 8 * frames_max);
        assert_eq!(of(own, 5), (Some(own), None));
        assert_eq!(of(own + 1, 5), (None, None));
        assert_eq!(of(newer, 6), (None, Some(newer)));
        assert_eq!(of(newer + 1, 6), (None, None));
    }

    #[test]
    fn a_flipped_bit_never_yields_a_frame_that_was_not_written() {
        let frames = [(107, 5, 106, 8), (108, 5, 106, 30), (109, 5, 108, 8), (110, 5, 109, 0)];
        let bytes = segment(&frames);
        let whole = scan_segment(&bytes, HEADER);
        for index in DATA_START..DATA_START + 200 {
            let mut damaged = bytes.clone();
            damaged[index] ^= 0x40;
            let scan = scan_segment(&damaged, HEADER);
            assert_eq!(scan.frames, whole.frames[..scan.frames.len()], "byte {index}");
        }
    }

    #[test]
    fn the_search_gives_up_in_bounded_time_on_plausible_headers_with_huge_lengths() {
        let len: usize = 4 << 20;
        let mut bytes = vec![0; len];
        for offset in (DATA_START..len - FRAME_HEADER_LEN).step_by(FRAME_HEADER_LEN) {
            let length = u32::try_from(len - offset - FRAME_HEADER_LEN).unwrap();
            bytes[offset..offset + 4].copy_from_slice(&length.to_le_bytes());
            bytes[offset + 8..offset + 16].copy_from_slice(&108_u64.to_le_bytes());
            bytes[offset + 16..offset + 24].copy_from_slice(&5_u64.to_le_bytes());
        }
        // Every CRC together would cover 256 GiB.
        assert!(scan_segment(&bytes, HEADER).inconclusive);
    }

    #[test]
    fn random_and_short_segments_are_scanned_without_a_panic() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bytes = vec![0; random.usize(0..3 * DATA_START)];
            random.fill(&mut bytes);
            let scan = scan_segment(&bytes, HEADER);
            assert_eq!(
                (scan.frames.len(), scan.beyond, scan.newer),
                (0, None, None),
                "seed {seed}"
            );
        }
        for generation in [0, u64::MAX] {
            let header = SegmentHeader { generation, index: 0, btree_lsn: u64::MAX };
            let scan = scan_segment(
                &segment(&[(u64::MAX, generation, 1, 8), (0, generation, 0, 8)]),
                header,
            );
            assert_eq!(lsns(&scan), [u64::MAX]);
        }
    }
}
