//! Decides what a recovery does, from the scans of both segments and the LSN that the B-tree has
//! reached.
//!
//! # Invariants of the write path that the decisions depend on
//! 1. The header of a segment is durable before any frame of its generation is written.
//! 2. The first frame of a segment is written only when every frame of the other one is durable.
//! 3. A segment is recycled (gets a header with the greatest generation plus one, and the B-tree
//!    LSN) only after the B-tree durably covers all its frames. The next checkpoint starts only
//!    when that header is durable.
//! 4. A frame's durable LSN is the LSN that was durable when its group was written, so it is below
//!    the frame's own LSN.
//! 5. After a recovery, stale frames beyond a torn tail are durably erased before anything is
//!    appended.
//!
//! # The table
//! The *newer* segment is the one with the greater generation. *Recovered* is the last LSN that the
//! B-tree and the unbroken sequence of frames above it reach. *Known durable* is the greatest
//! durable LSN in any valid frame or mark, at any position.
//!
#![doc = include_str!("../../docs/tables/recovery.md")]
//!
//! A mark carries a durable LSN and no operation. It is not part of the sequence of LSNs: the next
//! frame takes its LSN. It has a block of its own, so damage to one sector or block takes a mark or
//! frames, and never both.

mod checks;
#[cfg(test)]
mod tests;

use super::scan::{FrameRef, SegmentScan};
use super::segment::DATA_START;
use crate::error::{Error, Result};

/// What to do to a log before it can be appended to.
///
/// The steps, in this order:
/// 1. Replay.
/// 2. [`erase`](Self::erase) with zeros.
/// 3. Flush, also when nothing is erased: after a crash of the process alone, recovered frames may
///    not be on the disk yet. From here on everything below [`next_lsn`](Self::next_lsn) is
///    durable.
/// 4. [`recycle`](Self::recycle): write each header durably, with the B-tree's LSN.
///
/// A crash at any point leads to the same recovered frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecoveryPlan {
    /// The frames that the B-tree does not have, in order, each with the index of its segment.
    pub replay: Vec<(usize, FrameRef)>,
    /// The LSN of the next frame.
    pub next_lsn: u64,
    /// Where the next frame goes when the steps are done.
    pub active: ActiveSegment,
    /// The state of the other segment when the steps are done.
    pub spare: Spare,
    /// Stale valid frames beyond a torn tail. If they stayed, a later log could continue into them.
    /// Not empty when the log has a torn tail.
    pub erase: Vec<Erase>,
    /// Segments without frames that the B-tree lacks, which get a new header.
    pub recycle: Vec<Recycle>,
    /// The greatest durable LSN of a mark, or 0. The frames above it are not covered by a mark,
    /// even when a frame covers them, which may be in the same block.
    pub marked: u64,
}

/// The segment to append to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActiveSegment {
    /// Its index.
    pub segment: usize,
    /// The generation of its frames.
    pub generation: u64,
    /// The offset of the next frame in the segment. It may be too near the end for that frame.
    pub position: usize,
}

/// The other segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spare {
    /// It can be appended to as soon as the active segment is full.
    Free {
        /// The generation of its header.
        generation: u64,
    },
    /// It has frames above the B-tree's LSN. A checkpoint must cover them before it is recycled.
    Frozen {
        /// The last LSN in it.
        last_lsn: u64,
    },
}

/// A range of a segment to fill with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Erase {
    /// The index of the segment.
    pub segment: usize,
    /// The offset in the segment of the first byte.
    pub from: usize,
    /// The offset in the segment after the last byte.
    pub to: usize,
}

/// A segment that gets a new header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recycle {
    /// The index of the segment.
    pub segment: usize,
    /// Its new generation.
    pub generation: u64,
}

/// Decides. `btree_lsn` is the LSN that the B-tree has durably reached. A segment without a valid
/// header has no scan.
pub(crate) fn plan(btree_lsn: u64, segments: [Option<SegmentScan>; 2]) -> Result<RecoveryPlan> {
    let log = ScannedLog::new(btree_lsn, segments)?;
    log.check_headers()?;
    log.check_frames()?;
    log.check_order()?;
    log.check_known_durable()?;
    log.into_plan()
}

/// A scan and the index of its segment.
struct SegmentPart {
    index: usize,
    scan: SegmentScan,
}

impl SegmentPart {
    /// Whether it has a valid frame or mark. Then every frame of the other, older segment is
    /// durable.
    fn is_started(&self) -> bool {
        self.scan.valid().next().is_some()
    }

    fn erase(&self) -> Option<Erase> {
        let beyond = self.scan.beyond?;
        Some(Erase { segment: self.index, from: self.scan.end, to: beyond.last_end })
    }

    fn damaged(&self, offset: usize, detail: impl Into<String>) -> Error {
        damaged(self.index, offset, detail)
    }
}

/// Both segments in the order of their generations.
struct ScannedLog {
    btree_lsn: u64,
    older: SegmentPart,
    newer: SegmentPart,
}

impl ScannedLog {
    fn new(btree_lsn: u64, [first, second]: [Option<SegmentScan>; 2]) -> Result<ScannedLog> {
        let (first, second) = match (first, second) {
            (Some(first), Some(second)) => {
                (SegmentPart { index: 0, scan: first }, SegmentPart { index: 1, scan: second })
            }
            (None, None) => {
                return Err(Error::corrupted(
                    "log segments 0 and 1",
                    "none of their headers is valid",
                ));
            }
            (None, Some(_)) => {
                return Err(damaged(0, 0, "neither of its two headers is valid"));
            }
            (Some(_), None) => {
                return Err(damaged(1, 0, "neither of its two headers is valid"));
            }
        };
        let (older, newer) = if first.scan.header.generation <= second.scan.header.generation {
            (first, second)
        } else {
            (second, first)
        };
        Ok(ScannedLog { btree_lsn, older, newer })
    }

    fn parts(&self) -> [&SegmentPart; 2] {
        [&self.older, &self.newer]
    }

    /// The last LSN that the B-tree and the frames reach.
    fn recovered(&self) -> u64 {
        self.parts()
            .into_iter()
            .filter_map(|part| part.scan.last_lsn())
            .fold(self.btree_lsn, u64::max)
    }

    fn into_plan(self) -> Result<RecoveryPlan> {
        let ScannedLog { btree_lsn, older, newer } = &self;
        let recovered = self.recovered();
        let generation_after =
            |generation: u64| generation.checked_add(1).ok_or_else(|| self.exhausted("generation"));
        let next_lsn = recovered.checked_add(1).ok_or_else(|| self.exhausted("LSN"))?;
        let newest = newer.scan.header.generation;
        let append_to = |part: &SegmentPart| ActiveSegment {
            segment: part.index,
            generation: part.scan.header.generation,
            position: part.scan.end,
        };
        // The LSNs of a segment have no gap, so a segment whose last frame is below `recovered`
        // cannot be continued.
        let can_continue =
            |part: &SegmentPart| part.scan.last_lsn().is_none_or(|last_lsn| last_lsn == recovered);

        let mut recycle = Vec::new();
        let (active, spare) = if newer.is_started() && can_continue(newer)
            || !newer.is_started() && !can_continue(older)
        {
            let spare = match older.scan.last_lsn() {
                Some(last_lsn) if last_lsn > *btree_lsn => Spare::Frozen { last_lsn },
                _ => {
                    let generation = generation_after(newest)?;
                    recycle.push(Recycle { segment: older.index, generation });
                    Spare::Free { generation }
                }
            };
            (append_to(newer), spare)
        } else if !newer.is_started() {
            (append_to(older), Spare::Free { generation: newest })
        } else {
            // Frames that the B-tree has were lost from the end of the newer segment. Nothing else
            // was lost, and no frame is needed any more, so both segments are recycled, one after
            // the other, so that their generations differ by one at any moment.
            let [first, second] =
                [generation_after(newest)?, generation_after(generation_after(newest)?)?];
            recycle.push(Recycle { segment: older.index, generation: first });
            recycle.push(Recycle { segment: newer.index, generation: second });
            let active =
                ActiveSegment { segment: older.index, generation: first, position: DATA_START };
            (active, Spare::Free { generation: second })
        };

        // Stale frames need no erasing in a segment that gets a new generation, which makes them
        // invalid. A frozen segment gets one before it is appended to.
        let stays = |part: &SegmentPart| match spare {
            Spare::Frozen { .. } => part.index == active.segment,
            Spare::Free { .. } => recycle.iter().all(|recycle| recycle.segment != part.index),
        };
        let erase = self
            .parts()
            .into_iter()
            .filter(|part| stays(part))
            .filter_map(SegmentPart::erase)
            .collect();
        let replay = self
            .parts()
            .into_iter()
            .flat_map(|part| part.scan.frames.iter().map(|frame| (part.index, *frame)))
            .filter(|(_, frame)| frame.lsn > *btree_lsn)
            .collect();
        let marks = self.parts().into_iter().filter_map(|part| part.scan.mark);
        let marked = marks.map(|mark| mark.durable_lsn).max().unwrap_or_default();
        Ok(RecoveryPlan { replay, next_lsn, active, spare, erase, recycle, marked })
    }

    fn exhausted(&self, what: &str) -> Error {
        self.newer.damaged(
            0,
            format!("the greatest possible {what} is in use, which no intact log reaches"),
        )
    }
}

fn damaged(segment: usize, offset: usize, detail: impl Into<String>) -> Error {
    Error::corrupted(format!("log segment {segment}, offset {offset}"), detail)
}
