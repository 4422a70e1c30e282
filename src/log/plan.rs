//! What a recovery is to do, decided from the scans of both segments and the LSN that the B-tree
//! has reached.
//!
//! # What the write path keeps, and the decisions rest on
//! 1. The header of a segment is durable before any frame of its generation is written.
//! 2. The first frame of a segment is written only when every frame of the other one is durable.
//! 3. A segment is recycled (gets a header of the greatest generation plus one, and the B-tree LSN)
//!    only after the B-tree durably covers all its frames, and the next checkpoint starts only when
//!    that header is durable.
//! 4. A frame's durable LSN is what was durable when its group was written, so it is below the
//!    frame's own LSN.
//! 5. Before anything is appended after a recovery, stale frames beyond a torn tail are erased,
//!    durably.
//!
//! # The table
//! The *newer* segment is the one with the greater generation. *Recovered* is the last LSN that the
//! B-tree and the unbroken run of frames above it reach. *Promised* is the greatest durable LSN in
//! any valid frame or mark, wherever it lies.
//!
#![doc = include_str!("../../docs/tables/recovery.md")]
//!
//! A mark is a witness and not an operation: it has no place in the run of LSNs, and the next frame
//! takes its LSN and, in the same segment, its place.

use super::scan::{FrameRef, SegmentScan};
use super::segment::DATA_START;
use crate::error::{Error, Result};

/// What to do to a log so that it can be appended to.
///
/// The steps, in this order: replay; [`erase`](Self::erase) with zeros; flush (always, also when
/// nothing is erased: after a crash of the process alone, recovered frames may not be on the disk
/// yet), from which on everything below [`next_lsn`](Self::next_lsn) is durable;
/// [`recycle`](Self::recycle), each header durably, with the B-tree's LSN as its base. A crash at
/// any point of this leads to the same recovered frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecoveryPlan {
    /// The frames that the B-tree does not have, in order, each with the index of its segment.
    pub replay: Vec<(usize, FrameRef)>,
    /// The LSN of the next frame.
    pub next_lsn: u64,
    /// Where the next frame goes, once the steps are done.
    pub active: Active,
    /// What the other segment is, once the steps are done.
    pub spare: Spare,
    /// Stale valid frames beyond a torn tail. Left where they are, they could continue the log
    /// again some day. Not empty means that the log was torn.
    pub erase: Vec<Erase>,
    /// Segments without frames that the B-tree needs, which get a new header.
    pub recycle: Vec<Recycle>,
}

/// The segment that is appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Active {
    /// Its index.
    pub segment: usize,
    /// The generation of its frames.
    pub generation: u64,
    /// Where the next frame begins, in bytes from the start of the segment. It may be too near the
    /// end for it.
    pub position: usize,
}

/// The segment that is not appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spare {
    /// Writing can go on here as soon as the active segment is full.
    Free {
        /// The generation of its header.
        generation: u64,
    },
    /// It holds frames above the B-tree's LSN, which a checkpoint must cover before it is recycled.
    Frozen {
        /// The last LSN in it.
        last_lsn: u64,
    },
}

/// A range of a segment to be filled with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Erase {
    /// The index of the segment.
    pub segment: usize,
    /// The first byte, from the start of the segment.
    pub from: usize,
    /// The byte after the last.
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

/// Decides. `btree_lsn` is what the B-tree has durably reached; a segment without a valid header
/// has no scan.
pub(crate) fn plan(btree_lsn: u64, segments: [Option<SegmentScan>; 2]) -> Result<RecoveryPlan> {
    let log = Log::new(btree_lsn, segments)?;
    log.check_headers()?;
    log.check_frames()?;
    log.check_order()?;
    log.check_promises()?;
    log.into_plan()
}

/// A scan and the index of its segment.
struct Part {
    index: usize,
    scan: SegmentScan,
}

impl Part {
    /// Whether anything was completely written here: then every frame of the segment before is
    /// durable.
    fn is_started(&self) -> bool {
        self.scan.valid().next().is_some()
    }

    fn erase(&self) -> Option<Erase> {
        let beyond = self.scan.beyond?;
        Some(Erase { segment: self.index, from: self.scan.valid_end(), to: beyond.last_end })
    }

    /// What stands where the next frame should be.
    fn found_at_end(&self) -> String {
        match self.scan.mark {
            Some(_) => "a mark".to_owned(),
            None => self.scan.fault.to_string(),
        }
    }

    fn damaged(&self, offset: usize, detail: impl Into<String>) -> Error {
        damaged(self.index, offset, detail)
    }
}

/// Both segments in the order of their generations.
struct Log {
    btree_lsn: u64,
    older: Part,
    newer: Part,
}

impl Log {
    fn new(btree_lsn: u64, [first, second]: [Option<SegmentScan>; 2]) -> Result<Log> {
        let (first, second) = match (first, second) {
            (Some(first), Some(second)) => {
                (Part { index: 0, scan: first }, Part { index: 1, scan: second })
            }
            (None, None) => {
                return Err(Error::corrupted(
                    "log segments 0 and 1",
                    "no header of either is valid",
                ));
            }
            (None, Some(_)) => return Err(damaged(0, 0, "neither of its two headers is valid")),
            (Some(_), None) => return Err(damaged(1, 0, "neither of its two headers is valid")),
        };
        let (older, newer) = if first.scan.header.generation <= second.scan.header.generation {
            (first, second)
        } else {
            (second, first)
        };
        Ok(Log { btree_lsn, older, newer })
    }

    fn parts(&self) -> [&Part; 2] {
        [&self.older, &self.newer]
    }

    /// The last LSN that the B-tree and the frames reach.
    fn recovered(&self) -> u64 {
        self.parts()
            .into_iter()
            .filter_map(|part| part.scan.last_lsn())
            .fold(self.btree_lsn, u64::max)
    }

    fn check_headers(&self) -> Result<()> {
        let [older, newer] = self.parts().map(|part| part.scan.header.generation);
        if older.checked_add(1) != Some(newer) {
            return Err(self.older.damaged(
                0,
                format!(
                    "its newest header has generation {older} beside {newer} in log segment {}, where neighbours \
                     are expected: a newer header was lost",
                    self.newer.index
                ),
            ));
        }
        for part in self.parts() {
            if let Some(frame) = part.scan.newer {
                return Err(part.damaged(
                    frame.offset,
                    format!(
                        "the frame of LSN {} has generation {}, above the {} of the newest valid header of the \
                         segment: a newer header was lost",
                        frame.lsn, frame.generation, part.scan.header.generation
                    ),
                ));
            }
            let promised_btree = part.scan.header.btree_lsn;
            if promised_btree > self.btree_lsn {
                return Err(Error::corrupted(
                    "B-tree",
                    format!(
                        "it is at LSN {}, but had durably reached LSN {promised_btree} when log segment {} was \
                         recycled: it fell back to an earlier commit",
                        self.btree_lsn, part.index
                    ),
                ));
            }
        }
        Ok(())
    }

    fn check_frames(&self) -> Result<()> {
        for part in self.parts() {
            if let Some(frame) = part.scan.valid().find(|frame| frame.durable_lsn >= frame.lsn) {
                return Err(part.damaged(
                    frame.offset,
                    format!(
                        "the frame of LSN {} says that LSN {} was durable before it was written",
                        frame.lsn, frame.durable_lsn
                    ),
                ));
            }
            if part.scan.inconclusive {
                return Err(part.damaged(
                    part.scan.valid_end(),
                    format!(
                        "{}, followed by so many bytes that look like frames and are none that it cannot be \
                         told whether acknowledged frames were lost",
                        part.scan.fault
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The run of LSNs must lead from the B-tree through both segments without a gap.
    fn check_order(&self) -> Result<()> {
        let next_of_base = self.btree_lsn.saturating_add(1);
        if let Some(first_lsn) = self.older.scan.first_lsn()
            && first_lsn > next_of_base
        {
            return Err(self.older.damaged(
                DATA_START,
                format!(
                    "the first frame of the log has LSN {first_lsn}, but the B-tree ends at LSN {}",
                    self.btree_lsn
                ),
            ));
        }
        let Some(first_lsn) = self.newer.scan.first_lsn() else { return Ok(()) };
        let older_last = self.older.scan.last_lsn().unwrap_or_default();
        if first_lsn <= older_last {
            return Err(self.newer.damaged(
                DATA_START,
                format!(
                    "the segment begins with LSN {first_lsn}, but log segment {}, written before it, goes up to \
                     LSN {older_last}",
                    self.older.index
                ),
            ));
        }
        let expected = older_last.max(self.btree_lsn).saturating_add(1);
        if first_lsn > expected {
            return Err(self.older.damaged(
                self.older.scan.end,
                format!(
                    "{} where the frame of LSN {expected} was; it was acknowledged, because log segment {} goes \
                     on at LSN {first_lsn}",
                    self.older.found_at_end(),
                    self.newer.index
                ),
            ));
        }
        Ok(())
    }

    /// No valid frame may testify to an LSN that was not recovered.
    fn check_promises(&self) -> Result<()> {
        let recovered = self.recovered();
        let witnesses = self.parts().into_iter().flat_map(|part| {
            let beyond = part.scan.beyond.map(|beyond| beyond.witness);
            part.scan.valid().copied().chain(beyond).map(|frame| (part.index, frame))
        });
        let Some((witness_index, witness)) = witnesses.max_by_key(|(_, frame)| frame.durable_lsn)
        else {
            return Ok(());
        };
        if witness.durable_lsn <= recovered {
            return Ok(());
        }
        // The first frame that is missing was the next one of the segment where the run of LSNs
        // ends, or the first of the newer one, if the older one shows no damage.
        let older_is_whole = self.older.scan.beyond.is_none() && self.newer.scan.beyond.is_some();
        let part =
            if self.newer.is_started() || older_is_whole { &self.newer } else { &self.older };
        let missing = recovered.saturating_add(1);
        Err(part.damaged(
            part.scan.end,
            format!(
                "{} in a frame acknowledged at LSN {missing}: the frame at log segment {witness_index}, offset {} \
                 was written when everything up to LSN {} was durable",
                part.found_at_end(),
                witness.offset,
                witness.durable_lsn
            ),
        ))
    }

    fn into_plan(self) -> Result<RecoveryPlan> {
        let Log { btree_lsn, older, newer } = &self;
        let recovered = self.recovered();
        let generation_after =
            |generation: u64| generation.checked_add(1).ok_or_else(|| self.exhausted("generation"));
        let next_lsn = recovered.checked_add(1).ok_or_else(|| self.exhausted("LSN"))?;
        let newest = newer.scan.header.generation;
        let append_to = |part: &Part| Active {
            segment: part.index,
            generation: part.scan.header.generation,
            position: part.scan.end,
        };
        // Frames follow each other LSN by LSN within a segment, so one whose last frame is behind
        // cannot go on.
        let can_go_on =
            |part: &Part| part.scan.last_lsn().is_none_or(|last_lsn| last_lsn == recovered);

        let mut recycle = Vec::new();
        let (active, spare) = if newer.is_started() && can_go_on(newer)
            || !newer.is_started() && !can_go_on(older)
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
            // was lost, and no frame is needed any more, so both segments begin anew, each after
            // the other so that there is a pair of neighbours at any moment.
            let [first, second] =
                [generation_after(newest)?, generation_after(generation_after(newest)?)?];
            recycle.push(Recycle { segment: older.index, generation: first });
            recycle.push(Recycle { segment: newer.index, generation: second });
            let active = Active { segment: older.index, generation: first, position: DATA_START };
            (active, Spare::Free { generation: second })
        };

        // A new generation makes stale frames invalid as well as zeros do, and a frozen segment is
        // not appended to before it gets one.
        let stays = |part: &Part| match spare {
            Spare::Frozen { .. } => part.index == active.segment,
            Spare::Free { .. } => recycle.iter().all(|recycle| recycle.segment != part.index),
        };
        let erase =
            self.parts().into_iter().filter(|part| stays(part)).filter_map(Part::erase).collect();
        let replay = self
            .parts()
            .into_iter()
            .flat_map(|part| part.scan.frames.iter().map(|frame| (part.index, *frame)))
            .filter(|(_, frame)| frame.lsn > *btree_lsn)
            .collect();
        Ok(RecoveryPlan { replay, next_lsn, active, spare, erase, recycle })
    }

    fn exhausted(&self, what: &str) -> Error {
        self.newer.damaged(
            0,
            format!("the greatest {what} there can be is in use, which no log ever reaches"),
        )
    }
}

fn damaged(segment: usize, offset: usize, detail: impl Into<String>) -> Error {
    Error::corrupted(format!("log segment {segment}, offset {offset}"), detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::frame::{begin_frame, frame_len, stamp};
    use crate::log::scan::scan_segment;
    use crate::log::segment::SegmentHeader;
    use std::ops::RangeInclusive;

    const PAYLOAD_LEN: usize = 8;
    const FRAME_LEN: usize = frame_len(PAYLOAD_LEN);
    const SEGMENT_LEN: usize = DATA_START + 32 * FRAME_LEN;

    /// The bytes of a segment under construction.
    #[derive(Clone)]
    struct Segment {
        header: SegmentHeader,
        bytes: Vec<u8>,
        end: usize,
    }

    impl Segment {
        fn new(index: u64, generation: u64, btree_lsn: u64) -> Self {
            let header = SegmentHeader { generation, index, btree_lsn };
            Self { header, bytes: vec![0; SEGMENT_LEN], end: DATA_START }
        }

        /// Appends a group written when `durable_lsn` was durable.
        fn group(mut self, lsns: RangeInclusive<u64>, durable_lsn: u64) -> Self {
            let mut group = Vec::new();
            for lsn in lsns {
                begin_frame(&mut group, lsn, self.header.generation, &[0xAB; PAYLOAD_LEN]);
            }
            stamp(&mut group, durable_lsn);
            self.bytes[self.end..self.end + group.len()].copy_from_slice(&group);
            self.end += group.len();
            self
        }

        fn mark(mut self, lsn: u64, durable_lsn: u64) -> Self {
            let mut mark = Vec::new();
            begin_frame(&mut mark, lsn, self.header.generation, &[]);
            stamp(&mut mark, durable_lsn);
            self.bytes[self.end..self.end + mark.len()].copy_from_slice(&mark);
            self
        }

        /// Damages the payload of the frame at this place, counted from 0.
        fn damage(mut self, place: usize) -> Self {
            self.bytes[DATA_START + place * FRAME_LEN + 33] ^= 4;
            self
        }

        fn scan(&self) -> Option<SegmentScan> {
            Some(scan_segment(&self.bytes, self.header))
        }
    }

    fn planned(btree_lsn: u64, first: &Segment, second: &Segment) -> RecoveryPlan {
        plan(btree_lsn, [first.scan(), second.scan()]).unwrap()
    }

    fn refused(btree_lsn: u64, first: &Segment, second: &Segment) -> (String, String) {
        corruption(plan(btree_lsn, [first.scan(), second.scan()]))
    }

    fn corruption(result: Result<RecoveryPlan>) -> (String, String) {
        match result {
            Err(Error::Corrupted { location, detail }) => (location, detail),
            other => panic!("expected corruption, got {other:?}"),
        }
    }

    fn replayed(plan: &RecoveryPlan) -> Vec<(usize, u64)> {
        plan.replay.iter().map(|(segment, frame)| (*segment, frame.lsn)).collect()
    }

    fn at(place: usize) -> usize {
        DATA_START + place * FRAME_LEN
    }

    #[test]
    fn a_log_without_any_header_is_corrupted() {
        let (location, _) = corruption(plan(0, [None, None]));
        assert_eq!(location, "log segments 0 and 1");
    }

    #[test]
    fn a_segment_without_a_header_is_corrupted() {
        let other = Segment::new(0, 4, 0).group(1..=3, 0);
        let (location, _) = corruption(plan(3, [other.scan(), None]));
        assert_eq!(location, "log segment 1, offset 0");
        let (location, _) = corruption(plan(3, [None, other.scan()]));
        assert_eq!(location, "log segment 0, offset 0");
    }

    #[test]
    fn generations_that_are_not_neighbours_are_corrupted() {
        for (first, second) in [(4, 4), (4, 6), (4, 7), (7, 4)] {
            let (location, detail) =
                refused(0, &Segment::new(0, first, 0), &Segment::new(1, second, 0));
            let older = usize::from(second < first);
            assert_eq!(location, format!("log segment {older}, offset 0"));
            assert!(detail.contains("a newer header was lost"), "{detail}");
        }
    }

    #[test]
    fn a_btree_behind_a_segments_base_fell_back() {
        let (location, detail) =
            refused(19, &Segment::new(0, 4, 20), &Segment::new(1, 3, 10).group(11..=25, 10));
        assert_eq!(location, "B-tree");
        assert!(
            detail.contains("LSN 19") && detail.contains("LSN 20") && detail.contains("segment 0"),
            "{detail}"
        );
    }

    #[test]
    fn frames_of_a_greater_generation_than_the_header_are_corrupted() {
        let mut lost = Segment::new(1, 5, 10).group(11..=13, 10);
        lost.header = SegmentHeader { generation: 3, index: 1, btree_lsn: 0 };
        let (location, detail) = refused(10, &Segment::new(0, 4, 0).group(5..=10, 4), &lost);
        assert_eq!(location, format!("log segment 1, offset {}", at(0)));
        assert!(detail.contains("LSN 11") && detail.contains("generation 5"), "{detail}");
    }

    #[test]
    fn a_new_log_begins_in_the_older_segment() {
        let plan = planned(0, &Segment::new(0, 2, 0), &Segment::new(1, 3, 0));
        let expected = RecoveryPlan {
            replay: vec![],
            next_lsn: 1,
            active: Active { segment: 0, generation: 2, position: DATA_START },
            spare: Spare::Free { generation: 3 },
            erase: vec![],
            recycle: vec![],
        };
        assert_eq!(plan, expected);
    }

    #[test]
    fn a_clean_end_replays_all_and_goes_on_there() {
        let plan = planned(
            0,
            &Segment::new(0, 2, 0).group(1..=2, 0).group(3..=3, 2),
            &Segment::new(1, 3, 0),
        );
        assert_eq!(replayed(&plan), [(0, 1), (0, 2), (0, 3)]);
        assert_eq!(plan.next_lsn, 4);
        assert_eq!(plan.active, Active { segment: 0, generation: 2, position: at(3) });
        assert_eq!(
            (plan.spare, plan.erase, plan.recycle),
            (Spare::Free { generation: 3 }, vec![], vec![])
        );
    }

    #[test]
    fn only_frames_above_the_base_are_replayed() {
        let plan = planned(2, &Segment::new(0, 2, 0).group(1..=4, 0), &Segment::new(1, 3, 0));
        assert_eq!(replayed(&plan), [(0, 3), (0, 4)]);
    }

    #[test]
    fn a_bad_frame_that_a_later_one_covers_is_corrupted() {
        let log = Segment::new(0, 2, 0).group(1..=3, 0).group(4..=5, 3).damage(1);
        let (location, detail) = refused(0, &log, &Segment::new(1, 3, 0));
        assert_eq!(location, format!("log segment 0, offset {}", at(1)));
        assert!(detail.contains("checksum mismatch"), "{detail}");
        assert!(detail.contains("acknowledged at LSN 2"), "{detail}");
        assert!(
            detail.contains(&format!("segment 0, offset {}", at(3))) && detail.contains("LSN 3"),
            "{detail}"
        );
    }

    #[test]
    fn a_bad_first_frame_that_a_later_one_covers_is_corrupted() {
        let log = Segment::new(0, 2, 0).group(1..=1, 0).group(2..=2, 1).damage(0);
        let (location, detail) = refused(0, &log, &Segment::new(1, 3, 0));
        assert_eq!(location, format!("log segment 0, offset {}", at(0)));
        assert!(detail.contains("acknowledged at LSN 1"), "{detail}");
    }

    #[test]
    fn a_bad_last_frame_that_a_mark_covers_is_corrupted() {
        let log = Segment::new(0, 2, 0).group(1..=3, 0).mark(4, 3).damage(2);
        let (location, detail) = refused(0, &log, &Segment::new(1, 3, 0));
        assert_eq!(location, format!("log segment 0, offset {}", at(2)));
        assert!(detail.contains("acknowledged at LSN 3"), "{detail}");
    }

    #[test]
    fn a_bad_frame_that_no_later_one_covers_is_a_torn_tail() {
        let log = Segment::new(0, 2, 0).group(1..=2, 0).group(3..=6, 2).damage(3);
        let plan = planned(0, &log, &Segment::new(1, 3, 0));
        assert_eq!(replayed(&plan), [(0, 1), (0, 2), (0, 3)]);
        assert_eq!((plan.next_lsn, plan.active.position), (4, at(3)));
        assert_eq!(plan.erase, [Erase { segment: 0, from: at(3), to: at(6) }]);
    }

    #[test]
    fn a_bad_frame_with_nothing_behind_it_is_a_torn_tail_without_anything_to_erase() {
        let log = Segment::new(0, 2, 0).group(1..=2, 0).group(3..=3, 2).damage(2);
        let plan = planned(0, &log, &Segment::new(1, 3, 0));
        assert_eq!((replayed(&plan), plan.next_lsn), (vec![(0, 1), (0, 2)], 3));
        assert_eq!((plan.active.position, plan.erase), (at(2), vec![]));
    }

    #[test]
    fn a_frame_that_calls_itself_durable_is_corrupted() {
        for durable_lsn in [3, 4] {
            let log = Segment::new(0, 2, 0).group(1..=2, 0).group(3..=3, durable_lsn);
            let (location, detail) = refused(0, &log, &Segment::new(1, 3, 0));
            assert_eq!(location, format!("log segment 0, offset {}", at(2)));
            assert!(detail.contains("LSN 3"), "{detail}");
        }
    }

    #[test]
    fn a_promise_above_everything_recovered_is_corrupted() {
        // The witness is in the older segment, and the frame it speaks of is nowhere.
        let older = Segment::new(0, 2, 0).group(1..=3, 0).mark(9, 8).damage(2);
        let (_, detail) = refused(0, &older, &Segment::new(1, 3, 0));
        assert!(detail.contains("up to LSN 8"), "{detail}");
    }

    #[test]
    fn an_older_segment_cut_short_is_corrupted() {
        let older = Segment::new(0, 2, 0).group(1..=5, 0).damage(3);
        let newer = Segment::new(1, 3, 0).group(6..=7, 5);
        for btree_lsn in [0, 2, 4] {
            let (location, detail) = refused(btree_lsn, &older, &newer);
            assert_eq!(location, format!("log segment 0, offset {}", at(3)));
            assert!(detail.contains(&format!("LSN {}", btree_lsn.max(3) + 1)), "{detail}");
        }
    }

    #[test]
    fn an_older_segment_cut_short_within_what_the_btree_has_is_no_loss() {
        let older = Segment::new(0, 2, 0).group(1..=5, 0).damage(3);
        let newer = Segment::new(1, 3, 0).group(6..=7, 5);
        let plan = planned(5, &older, &newer);
        assert_eq!((replayed(&plan), plan.next_lsn), (vec![(1, 6), (1, 7)], 8));
        assert_eq!(plan.recycle, [Recycle { segment: 0, generation: 4 }]);
        assert_eq!((plan.active.position, plan.erase), (at(2), vec![]));
    }

    #[test]
    fn a_wholly_lost_older_segment_is_corrupted() {
        let (location, _) =
            refused(0, &Segment::new(0, 2, 0), &Segment::new(1, 3, 0).group(6..=7, 5));
        assert_eq!(location, format!("log segment 0, offset {}", at(0)));
    }

    #[test]
    fn a_gap_between_the_btree_and_the_first_frame_is_corrupted() {
        let log = Segment::new(0, 2, 0).group(7..=9, 6);
        let (location, detail) = refused(5, &log, &Segment::new(1, 3, 0));
        assert_eq!(location, format!("log segment 0, offset {}", at(0)));
        assert!(detail.contains("LSN 7") && detail.contains("LSN 5"), "{detail}");
        assert_eq!(replayed(&planned(6, &log, &Segment::new(1, 3, 0))), [(0, 7), (0, 8), (0, 9)]);
    }

    #[test]
    fn segments_that_overlap_are_corrupted() {
        let older = Segment::new(0, 2, 0).group(1..=5, 0);
        let (location, _) = refused(0, &older, &Segment::new(1, 3, 0).group(5..=7, 4));
        assert_eq!(location, format!("log segment 1, offset {}", at(0)));
    }

    #[test]
    fn a_log_that_the_btree_has_completely_replays_nothing_and_goes_on() {
        let plan = planned(5, &Segment::new(0, 2, 0).group(1..=5, 0), &Segment::new(1, 3, 0));
        assert_eq!((replayed(&plan), plan.next_lsn), (vec![], 6));
        assert_eq!(plan.active, Active { segment: 0, generation: 2, position: at(5) });
        assert_eq!(plan.spare, Spare::Free { generation: 3 });
    }

    #[test]
    fn an_older_segment_above_the_base_is_frozen() {
        let older = Segment::new(1, 2, 0).group(1..=5, 0);
        let plan = planned(3, &Segment::new(0, 3, 0).group(6..=7, 5), &older);
        assert_eq!(replayed(&plan), [(1, 4), (1, 5), (0, 6), (0, 7)]);
        assert_eq!(plan.active, Active { segment: 0, generation: 3, position: at(2) });
        assert_eq!((plan.spare, plan.recycle), (Spare::Frozen { last_lsn: 5 }, vec![]));
    }

    #[test]
    fn a_crash_between_checkpoint_and_recycling_recycles_the_older_segment() {
        let older = Segment::new(0, 2, 0).group(1..=5, 0);
        let plan = planned(5, &older, &Segment::new(1, 3, 0).group(6..=7, 5));
        assert_eq!(replayed(&plan), [(1, 6), (1, 7)]);
        assert_eq!(plan.recycle, [Recycle { segment: 0, generation: 4 }]);
        assert_eq!(plan.spare, Spare::Free { generation: 4 });
        assert_eq!(plan.active, Active { segment: 1, generation: 3, position: at(2) });
    }

    #[test]
    fn a_recycled_segment_that_is_still_empty_is_the_free_one() {
        let recycled = Segment::new(0, 4, 5);
        let plan = planned(5, &recycled, &Segment::new(1, 3, 0).group(6..=7, 5));
        assert_eq!(plan.active, Active { segment: 1, generation: 3, position: at(2) });
        assert_eq!((plan.spare, plan.recycle), (Spare::Free { generation: 4 }, vec![]));
    }

    #[test]
    fn a_torn_first_group_of_the_newer_segment_is_erased_and_the_older_goes_on() {
        let older = Segment::new(0, 2, 0).group(1..=5, 0);
        let newer = Segment::new(1, 3, 0).group(6..=8, 5).damage(0);
        let plan = planned(0, &older, &newer);
        assert_eq!((plan.replay.len(), plan.next_lsn), (5, 6));
        assert_eq!(plan.active, Active { segment: 0, generation: 2, position: at(5) });
        assert_eq!(plan.erase, [Erase { segment: 1, from: at(0), to: at(3) }]);
        assert_eq!(plan.spare, Spare::Free { generation: 3 });
    }

    #[test]
    fn a_bad_first_frame_of_the_newer_segment_that_a_later_one_covers_is_corrupted() {
        let older = Segment::new(0, 2, 0).group(1..=5, 0);
        let newer = Segment::new(1, 3, 0).group(6..=7, 5).group(8..=8, 7).damage(0);
        let (location, detail) = refused(0, &older, &newer);
        assert_eq!(location, format!("log segment 1, offset {}", at(0)));
        assert!(detail.contains("acknowledged at LSN 6"), "{detail}");
    }

    #[test]
    fn a_torn_tail_of_the_newer_segment_is_erased_beside_a_frozen_one() {
        let older = Segment::new(0, 2, 0).group(1..=5, 0);
        let newer = Segment::new(1, 3, 0).group(6..=9, 5).damage(1);
        let plan = planned(0, &older, &newer);
        assert_eq!((plan.replay.len(), plan.next_lsn), (6, 7));
        assert_eq!(plan.erase, [Erase { segment: 1, from: at(1), to: at(4) }]);
        assert_eq!(plan.spare, Spare::Frozen { last_lsn: 5 });
    }

    #[test]
    fn the_next_frame_takes_the_lsn_and_the_place_of_a_mark() {
        let plan =
            planned(0, &Segment::new(0, 2, 0).group(1..=5, 0).mark(6, 5), &Segment::new(1, 3, 0));
        assert_eq!((plan.replay.len(), plan.next_lsn, plan.active.position), (5, 6, at(5)));
    }

    #[test]
    fn a_mark_left_behind_in_the_older_segment_has_no_place_in_the_run() {
        let older = Segment::new(0, 2, 0).group(1..=5, 0).mark(6, 5);
        let plan = planned(0, &older, &Segment::new(1, 3, 0).group(6..=7, 5));
        assert_eq!((plan.replay.len(), plan.next_lsn), (7, 8));
    }

    #[test]
    fn a_newer_segment_with_only_a_mark_is_begun() {
        let older = Segment::new(0, 2, 0).group(1..=5, 0);
        let plan = planned(0, &older, &Segment::new(1, 3, 0).mark(6, 5));
        assert_eq!((plan.replay.len(), plan.next_lsn), (5, 6));
        assert_eq!(plan.active, Active { segment: 1, generation: 3, position: at(0) });
        assert_eq!(plan.spare, Spare::Frozen { last_lsn: 5 });
    }

    #[test]
    fn frames_behind_a_mark_are_what_an_unfinished_write_left() {
        let mut log = Segment::new(0, 2, 0).group(1..=5, 0).group(6..=9, 5);
        log.end = at(5);
        let log = log.mark(6, 5);
        let plan = planned(0, &log, &Segment::new(1, 3, 0));
        assert_eq!((plan.replay.len(), plan.next_lsn, plan.active.position), (5, 6, at(5)));
        assert_eq!(plan.erase, [Erase { segment: 0, from: at(5) + 32, to: at(9) }]);
    }

    #[test]
    fn a_log_behind_the_btree_goes_on_in_the_empty_segment() {
        let plan = planned(9, &Segment::new(0, 2, 0).group(1..=5, 0), &Segment::new(1, 3, 0));
        assert_eq!((replayed(&plan), plan.next_lsn), (vec![], 10));
        assert_eq!(plan.active, Active { segment: 1, generation: 3, position: DATA_START });
        assert_eq!(plan.recycle, [Recycle { segment: 0, generation: 4 }]);
        assert_eq!(plan.spare, Spare::Free { generation: 4 });
    }

    #[test]
    fn a_log_behind_the_btree_without_an_empty_segment_begins_anew() {
        let older = Segment::new(0, 2, 0).group(1..=5, 0);
        let plan = planned(9, &older, &Segment::new(1, 3, 0).group(6..=7, 5));
        assert_eq!((replayed(&plan), plan.next_lsn), (vec![], 10));
        let recycle =
            [Recycle { segment: 0, generation: 4 }, Recycle { segment: 1, generation: 5 }];
        assert_eq!(plan.recycle, recycle);
        assert_eq!(plan.active, Active { segment: 0, generation: 4, position: DATA_START });
        assert_eq!(plan.spare, Spare::Free { generation: 5 });
    }

    #[test]
    fn an_inconclusive_search_is_corrupted() {
        let log = Segment::new(0, 2, 0).group(1..=5, 0);
        let mut scan = log.scan().unwrap();
        scan.inconclusive = true;
        let (location, _) = corruption(plan(0, [Some(scan), Segment::new(1, 3, 0).scan()]));
        assert_eq!(location, format!("log segment 0, offset {}", at(5)));
    }

    #[test]
    fn the_end_of_all_numbers_is_an_error() {
        let log = Segment::new(0, 2, u64::MAX - 1).group(u64::MAX..=u64::MAX, 5);
        let spare = Segment::new(1, 3, 0);
        assert!(refused(u64::MAX - 1, &log, &spare).1.contains("LSN"));
        let older = Segment::new(0, u64::MAX - 1, 0).group(1..=1, 0);
        let newer = Segment::new(1, u64::MAX, 0).group(2..=2, 1);
        assert!(refused(1, &older, &newer).1.contains("generation"));
    }
}
