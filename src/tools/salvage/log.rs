//! The rows that are in the log and not in the B-tree, whatever is damaged around them.
//!
//! When opening would find nothing wrong, this is what opening would replay. Otherwise every intact
//! frame counts, also behind a gap: what it says was said later than everything before it, and is
//! nearer to the truth than what it replaces. The gaps are reported, because what was said in them
//! is lost.

use super::report::SalvageReport;
use super::sectors::read_what_is_there;
use crate::error::Result;
use crate::log::batch::decode_batch;
use crate::log::frame::{FRAME_ALIGN, FRAME_HEADER_LEN, parse};
use crate::log::plan::plan;
use crate::log::scan::scan_segment;
use crate::log::segment::{MARK_START, SegmentHeader};
use crate::log::{LogLayout, SEGMENTS};
use crate::storage::Storage;
use crate::stores::registry::catalogue;
use crate::tables::Table;
use std::collections::BTreeMap;

/// The newest version of each row in the log; `None` is a row that was deleted.
pub(super) type LogRows = BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>;

/// Looking for frames computes checksums over at most this many times the length of a segment.
const CRC_FACTOR: usize = 64;

/// What the log holds above the B-tree.
pub(super) struct Replayed {
    pub(super) rows: LogRows,
    /// The greatest position of all that is known of.
    pub(super) lsn: u64,
}

/// A frame that was found.
#[derive(Clone, Copy)]
struct FoundFrames {
    lsn: u64,
    durable_lsn: u64,
    generation: u64,
    segment: usize,
    from: usize,
    to: usize,
}

/// Reads the log. `btree_lsn` is what the B-tree reached, if that is known.
pub(super) fn read(
    storage: &dyn Storage,
    layout: &LogLayout,
    btree_lsn: Option<u64>,
    report: &mut SalvageReport,
) -> Result<Replayed> {
    let len = usize::try_from(layout.segment_size).unwrap_or(usize::MAX);
    let segments: Vec<Vec<u8>> = (0..SEGMENTS)
        .map(|index| read_what_is_there(storage, layout.segment_offset(index), len))
        .collect();
    let headers: Vec<Option<SegmentHeader>> = (0_u64..)
        .zip(&segments)
        .map(|(index, segment)| SegmentHeader::read_newest(segment, &layout.file_id, index))
        .collect();
    // What the B-tree had reached when a segment was last recycled, if it cannot say so itself any
    // more.
    let reached = headers.iter().flatten().map(|header| header.btree_lsn).max();
    let (frames, promised) = match sound(&segments, &headers, btree_lsn.or(reached)) {
        Some(frames) => (frames, 0),
        None => {
            report.note("the log is damaged: every intact frame in it was used, also behind a gap");
            for (index, header) in headers.iter().enumerate() {
                if header.is_none() {
                    report.lose(
                        format!(
                            "log segment {index} (file offset {})",
                            layout.segment_offset(index)
                        ),
                        "both headers; its frames were told by what they say of themselves"
                            .to_owned(),
                    );
                }
            }
            every_frame(&segments, &headers, btree_lsn.or(reached))
        }
    };
    Ok(apply(&segments, frames, promised, btree_lsn, &headers, report))
}

/// The frames that opening would replay, if it would.
fn sound(
    segments: &[Vec<u8>],
    headers: &[Option<SegmentHeader>],
    btree_lsn: Option<u64>,
) -> Option<Vec<FoundFrames>> {
    let mut scans = [None, None];
    for ((scan, segment), header) in scans.iter_mut().zip(segments).zip(headers) {
        *scan = Some(scan_segment(segment, (*header)?));
    }
    let plan = plan(btree_lsn?, scans).ok()?;
    let frames = plan.replay.iter().map(|(segment, frame)| {
        let payload = frame.payload_range();
        let (lsn, durable_lsn) = (frame.lsn, frame.durable_lsn);
        FoundFrames {
            lsn,
            durable_lsn,
            generation: 0,
            segment: *segment,
            from: payload.start,
            to: payload.end,
        }
    });
    Some(frames.collect())
}

/// Every intact frame of the newest use of each segment above the B-tree, and the greatest position
/// that any of them says was durable.
fn every_frame(
    segments: &[Vec<u8>],
    headers: &[Option<SegmentHeader>],
    btree_lsn: Option<u64>,
) -> (Vec<FoundFrames>, u64) {
    let known = headers.iter().flatten().map(|header| header.generation).max();
    let (mut frames, mut promised) = (Vec::new(), 0);
    for ((index, segment), header) in segments.iter().enumerate().zip(headers) {
        let mut found = intact(segment, index);
        let newest = newest_generation(&found, header.as_ref(), known);
        found.retain(|frame| Some(frame.generation) == newest);
        promised = found.iter().map(|frame| frame.durable_lsn).fold(promised, u64::max);
        // A mark has no rows.
        found.retain(|frame| frame.to > frame.from && frame.lsn > btree_lsn.unwrap_or_default());
        frames.extend(found);
    }
    frames.sort_by_key(|frame| (frame.lsn, frame.generation));
    (frames, promised)
}

/// The generation of the newest use of a segment. Its header tells, unless frames are there of the
/// use after it. Without one, it is beside that of the other segment; without either, it is that of
/// most of the frames.
fn newest_generation(
    found: &[FoundFrames],
    header: Option<&SegmentHeader>,
    known: Option<u64>,
) -> Option<u64> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for frame in found {
        *counts.entry(frame.generation).or_default() += 1;
    }
    if let Some(header) = header {
        let next = header.generation.checked_add(SEGMENTS as u64);
        return next.filter(|next| counts.contains_key(next)).or(Some(header.generation));
    }
    if let Some(known) = known {
        let beside = [known.checked_add(1), known.checked_sub(1)];
        return beside.into_iter().flatten().find(|generation| counts.contains_key(generation));
    }
    counts
        .into_iter()
        .max_by_key(|(generation, count)| (*count, *generation))
        .map(|(generation, _)| generation)
}

/// Every frame whose checksum fits.
fn intact(segment: &[u8], index: usize) -> Vec<FoundFrames> {
    let mut found = Vec::new();
    let mut crc_bytes_left = segment.len().saturating_mul(CRC_FACTOR);
    let mut offset = MARK_START;
    while let Some(rest) = segment.get(offset..).filter(|rest| rest.len() >= FRAME_HEADER_LEN) {
        let length = rest.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
        let covered =
            usize::try_from(length).unwrap_or(usize::MAX).saturating_add(FRAME_HEADER_LEN);
        // Nothing but zeros begins with sixteen of them: no frame has the position 0.
        let is_empty = rest.get(..16).is_some_and(|start| start.iter().all(|&byte| byte == 0));
        let step = match crc_bytes_left.checked_sub(covered) {
            _ if is_empty || covered > rest.len() => FRAME_ALIGN,
            None => break,
            Some(left) => {
                crc_bytes_left = left;
                match parse(rest) {
                    Ok(frame) => {
                        let from = offset + FRAME_HEADER_LEN;
                        found.push(FoundFrames {
                            lsn: frame.lsn,
                            durable_lsn: frame.durable_lsn,
                            generation: frame.generation,
                            segment: index,
                            from,
                            to: from + frame.payload.len(),
                        });
                        frame.len_on_disk
                    }
                    Err(_) => FRAME_ALIGN,
                }
            }
        };
        offset += step;
    }
    found
}

/// Takes the newest version of each row, and finds the gaps.
fn apply(
    segments: &[Vec<u8>],
    frames: Vec<FoundFrames>,
    promised: u64,
    btree_lsn: Option<u64>,
    headers: &[Option<SegmentHeader>],
    report: &mut SalvageReport,
) -> Replayed {
    let mut rows = LogRows::new();
    let reached = headers.iter().flatten().map(|header| header.btree_lsn).max().unwrap_or_default();
    if let Some(btree_lsn) = btree_lsn
        && btree_lsn < reached
    {
        report.lose(
            "B-tree",
            format!(
                "it is at position {btree_lsn}, but had reached {reached}: it fell back to an earlier state"
            ),
        );
        report.lost_frames.push(btree_lsn + 1..=reached);
    }
    let mut last = btree_lsn.unwrap_or_default().max(reached);
    if btree_lsn.is_none() && reached == 0 {
        // Where the log began is not known.
        last = frames.first().map_or(0, |frame| frame.lsn.saturating_sub(1));
    }
    for frame in frames {
        let payload =
            segments.get(frame.segment).and_then(|segment| segment.get(frame.from..frame.to));
        let location =
            format!("log segment {}, offset {}", frame.segment, frame.from - FRAME_HEADER_LEN);
        let ops = match decode_batch(catalogue(), payload.unwrap_or_default()) {
            Ok(ops) => ops,
            Err(detail) => {
                report.lose(
                    location,
                    format!("the rows of operation {} do not decode: {detail}", frame.lsn),
                );
                continue;
            }
        };
        if frame.lsn > last.saturating_add(1) {
            report.lost_frames.push(last.saturating_add(1)..=frame.lsn - 1);
        }
        last = last.max(frame.lsn);
        for op in ops {
            rows.insert((op.table, op.key.to_vec()), op.value.map(<[u8]>::to_vec));
        }
    }
    if promised > last {
        report.lost_frames.push(last + 1..=promised);
        last = promised;
    }
    Replayed { rows, lsn: last }
}
