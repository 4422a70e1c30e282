//! The log: both headers of each segment, every frame and its rows, and what opening would decide.

use super::report::VerifyReport;
use super::rows::find_damage;
use crate::error::Result;
use crate::limits::BLOCK_SIZE;
use crate::log::LogLayout;
use crate::log::batch::decode_batch;
use crate::log::frame::{FRAME_HEADER_LEN, FrameFault, parse};
use crate::log::plan::plan;
use crate::log::scan::{SegmentScan, mark_in, scan_segment};
use crate::log::segment::{DATA_START, HEADER_LEN, MARK_START, SegmentHeader};
use crate::stores::registry::catalogue;
use std::ops::Range;

const SALVAGE: &str =
    "restore a backup, or let `cloakroom salvage` copy what is intact into a new file";

/// Checks both segments. `btree_lsn` is what the B-tree reached, if that is known.
pub(super) fn verify(
    segments: &[impl AsRef<[u8]>],
    layout: &LogLayout,
    btree_lsn: Option<u64>,
    report: &mut VerifyReport,
) -> Result<()> {
    let mut scans = [None, None];
    let mut unused = Vec::new();
    for (index, (scan, segment)) in scans.iter_mut().zip(segments).enumerate() {
        let segment = segment.as_ref();
        let place = FramePlace { index, at: layout.segment_offset(index) };
        check_slots(segment, layout, &place, report);
        let Some(header) = SegmentHeader::read_newest(segment, &layout.file_id, index as u64)
        else {
            let problem = "neither of its two headers is valid, so nothing is known of its frames";
            report.find(place.name(0), problem, SALVAGE);
            continue;
        };
        let found = scan_segment(segment, header);
        check_mark(segment, &place, report);
        check_frames(segment, &found, &place, report);
        unused.push(place.file_range(MARK_START + FRAME_HEADER_LEN..DATA_START));
        unused.push(place.file_range(found.end..segment.len()));
        *scan = Some(found);
    }
    if scans.iter().any(Option::is_none) {
        return Ok(());
    }
    let Some(btree_lsn) = btree_lsn else {
        report.note("what of the log the B-tree has could not be told, so it was not looked at whether frames are missing");
        return Ok(());
    };
    match plan(btree_lsn, scans) {
        Ok(plan) => {
            if !plan.erase.is_empty() {
                report.note(
                    "the log has a torn tail, as a crash leaves it; the next opening for writing cuts it off",
                );
            }
            report.unused.extend(unused.into_iter().filter(|range| !range.is_empty()));
            Ok(())
        }
        Err(error) => find_damage(report, error),
    }
}

/// Where a segment lies.
struct FramePlace {
    index: usize,
    at: u64,
}

impl FramePlace {
    fn name(&self, offset: usize) -> String {
        format!(
            "log segment {}, offset {offset} (file offset {})",
            self.index,
            self.at + offset as u64
        )
    }

    /// Where a range of the segment is in the file.
    fn file_range(&self, of_segment: Range<usize>) -> Range<u64> {
        self.at + of_segment.start as u64..self.at + of_segment.end as u64
    }
}

/// A mark is in the segment whole, or none is: it is smaller than a sector. A damaged one makes no
/// difference, because no frame depends on it.
fn check_mark(segment: &[u8], place: &FramePlace, report: &mut VerifyReport) {
    let bytes = segment.get(MARK_START..MARK_START + FRAME_HEADER_LEN).unwrap_or_default();
    if mark_in(segment).is_none() && bytes.iter().any(|&byte| byte != 0) {
        report.note(format!(
            "{}: the mark is not intact, so only later frames can tell damage to the last ones from a crash; it is \
             written again when the log next falls idle",
            place.name(MARK_START)
        ));
    }
}

fn check_slots(segment: &[u8], layout: &LogLayout, place: &FramePlace, report: &mut VerifyReport) {
    for slot in 0..2 {
        let offset = slot * BLOCK_SIZE;
        let Some(bytes) = segment.get(offset..offset + BLOCK_SIZE) else { continue };
        match SegmentHeader::read_slot(segment, &layout.file_id, slot) {
            Some(header) if header.index != place.index as u64 => {
                let problem = format!("the header is that of log segment {}", header.index);
                report.find(place.name(offset), problem, SALVAGE);
            }
            Some(_) if bytes.iter().skip(HEADER_LEN).any(|&byte| byte != 0) => {
                report.note(format!("{}: bytes are set behind the header, where nothing is read", place.name(offset)));
            }
            Some(_) => {}
            None if bytes.iter().all(|&byte| byte == 0) => {}
            None => report.note(format!(
                "{}: the header is not intact, as a crash while it was written leaves it; the other one counts",
                place.name(offset)
            )),
        }
    }
}

fn check_frames(segment: &[u8], scan: &SegmentScan, place: &FramePlace, report: &mut VerifyReport) {
    report.frames += scan.frames.len() as u64;
    for frame in &scan.frames {
        if let Err(detail) =
            decode_batch(catalogue(), segment.get(frame.payload_range()).unwrap_or_default())
        {
            let problem =
                format!("the rows of the frame of LSN {} do not decode: {detail}", frame.lsn);
            report.find(place.name(frame.offset), problem, SALVAGE);
        }
    }
    for frame in &scan.frames {
        let padding = segment.get(frame.payload_range().end..frame.end()).unwrap_or_default();
        if padding.iter().any(|&byte| byte != 0) {
            let at = place.name(frame.payload_range().end);
            report.note(format!("{at}: bytes are set behind a frame, where nothing is read"));
        }
    }
    let (valid_end, rest) = (scan.end, segment.get(scan.end..).unwrap_or_default());
    if is_unfinished(rest, scan) {
        report.note(format!(
            "{}: the log ends in a frame that was not finished, as a crash leaves it; it was never acknowledged",
            place.name(valid_end)
        ));
    }
}

/// Whether the bytes behind the valid frames are a frame of this use of the segment that is not
/// whole.
fn is_unfinished(rest: &[u8], scan: &SegmentScan) -> bool {
    let whole =
        matches!(scan.fault, FrameFault::Checksum { .. } | FrameFault::LengthBeyondEnd { .. });
    whole
        && rest.len() >= FRAME_HEADER_LEN
        && parse(rest).is_err()
        && rest.get(16..24) == Some(&scan.header.generation.to_le_bytes()[..])
}
