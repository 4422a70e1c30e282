//! A test for each row of the decision table, and for what a plan does.

use super::*;
use crate::log::frame::{begin_frame, frame_len, stamp};
use crate::log::scan::scan_segment;
use crate::log::segment::{DATA_START, MARK_START, SegmentHeader};
use std::ops::RangeInclusive;

const PAYLOAD_LEN: usize = 8;
const FRAME_LEN: usize = frame_len(PAYLOAD_LEN);
const SEGMENT_LEN: usize = DATA_START + 32 * FRAME_LEN;

/// The bytes of a segment under construction.
#[derive(Clone)]
struct SegmentBuilder {
    header: SegmentHeader,
    bytes: Vec<u8>,
    end: usize,
}

impl SegmentBuilder {
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
        self.bytes[MARK_START..MARK_START + mark.len()].copy_from_slice(&mark);
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

fn planned(btree_lsn: u64, first: &SegmentBuilder, second: &SegmentBuilder) -> RecoveryPlan {
    plan(btree_lsn, [first.scan(), second.scan()]).unwrap()
}

fn refused(btree_lsn: u64, first: &SegmentBuilder, second: &SegmentBuilder) -> (String, String) {
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

fn at(index: usize) -> usize {
    DATA_START + index * FRAME_LEN
}

#[test]
fn a_log_without_any_header_is_corrupted() {
    let (location, _) = corruption(plan(0, [None, None]));
    assert_eq!(location, "log segments 0 and 1");
}

#[test]
fn a_segment_without_a_header_is_corrupted() {
    let other = SegmentBuilder::new(0, 4, 0).group(1..=3, 0);
    let (location, _) = corruption(plan(3, [other.scan(), None]));
    assert_eq!(location, "log segment 1, offset 0");
    let (location, _) = corruption(plan(3, [None, other.scan()]));
    assert_eq!(location, "log segment 0, offset 0");
}

#[test]
fn generations_that_do_not_differ_by_one_are_corrupted() {
    for (first, second) in [(4, 4), (4, 6), (4, 7), (7, 4)] {
        let (location, detail) =
            refused(0, &SegmentBuilder::new(0, first, 0), &SegmentBuilder::new(1, second, 0));
        let older = usize::from(second < first);
        assert_eq!(location, format!("log segment {older}, offset 0"));
        assert!(detail.contains("a newer header was lost"), "{detail}");
    }
}

#[test]
fn a_btree_below_a_headers_btree_lsn_is_corrupted() {
    let (location, detail) = refused(
        19,
        &SegmentBuilder::new(0, 4, 20),
        &SegmentBuilder::new(1, 3, 10).group(11..=25, 10),
    );
    assert_eq!(location, "B-tree");
    assert!(
        detail.contains("LSN 19") && detail.contains("LSN 20") && detail.contains("segment 0"),
        "{detail}"
    );
}

#[test]
fn frames_of_a_greater_generation_than_the_header_are_corrupted() {
    let mut lost = SegmentBuilder::new(1, 5, 10).group(11..=13, 10);
    lost.header = SegmentHeader { generation: 3, index: 1, btree_lsn: 0 };
    let (location, detail) = refused(10, &SegmentBuilder::new(0, 4, 0).group(5..=10, 4), &lost);
    assert_eq!(location, format!("log segment 1, offset {}", at(0)));
    assert!(detail.contains("LSN 11") && detail.contains("generation 5"), "{detail}");
}

#[test]
fn a_new_log_begins_in_the_older_segment() {
    let plan = planned(0, &SegmentBuilder::new(0, 2, 0), &SegmentBuilder::new(1, 3, 0));
    let expected = RecoveryPlan {
        replay: vec![],
        next_lsn: 1,
        active: ActiveSegment { segment: 0, generation: 2, position: DATA_START },
        spare: Spare::Free { generation: 3 },
        erase: vec![],
        recycle: vec![],
        marked: 0,
    };
    assert_eq!(plan, expected);
}

#[test]
fn a_clean_end_replays_all_frames_and_continues_there() {
    let plan = planned(
        0,
        &SegmentBuilder::new(0, 2, 0).group(1..=2, 0).group(3..=3, 2),
        &SegmentBuilder::new(1, 3, 0),
    );
    assert_eq!(replayed(&plan), [(0, 1), (0, 2), (0, 3)]);
    assert_eq!(plan.next_lsn, 4);
    assert_eq!(plan.active, ActiveSegment { segment: 0, generation: 2, position: at(3) });
    assert_eq!(
        (plan.spare, plan.erase, plan.recycle),
        (Spare::Free { generation: 3 }, vec![], vec![])
    );
}

#[test]
fn only_frames_above_the_btree_lsn_are_replayed() {
    let plan =
        planned(2, &SegmentBuilder::new(0, 2, 0).group(1..=4, 0), &SegmentBuilder::new(1, 3, 0));
    assert_eq!(replayed(&plan), [(0, 3), (0, 4)]);
}

#[test]
fn a_bad_frame_covered_by_a_later_durable_lsn_is_corrupted() {
    let log = SegmentBuilder::new(0, 2, 0).group(1..=3, 0).group(4..=5, 3).damage(1);
    let (location, detail) = refused(0, &log, &SegmentBuilder::new(1, 3, 0));
    assert_eq!(location, format!("log segment 0, offset {}", at(1)));
    assert!(detail.contains("checksum mismatch"), "{detail}");
    assert!(detail.contains("acknowledged at LSN 2"), "{detail}");
    assert!(
        detail.contains(&format!("segment 0, offset {}", at(3))) && detail.contains("LSN 3"),
        "{detail}"
    );
}

#[test]
fn a_bad_first_frame_covered_by_a_later_durable_lsn_is_corrupted() {
    let log = SegmentBuilder::new(0, 2, 0).group(1..=1, 0).group(2..=2, 1).damage(0);
    let (location, detail) = refused(0, &log, &SegmentBuilder::new(1, 3, 0));
    assert_eq!(location, format!("log segment 0, offset {}", at(0)));
    assert!(detail.contains("acknowledged at LSN 1"), "{detail}");
}

#[test]
fn a_bad_last_frame_covered_by_a_mark_is_corrupted() {
    let log = SegmentBuilder::new(0, 2, 0).group(1..=3, 0).mark(4, 3).damage(2);
    let (location, detail) = refused(0, &log, &SegmentBuilder::new(1, 3, 0));
    assert_eq!(location, format!("log segment 0, offset {}", at(2)));
    assert!(detail.contains("acknowledged at LSN 3"), "{detail}");
}

#[test]
fn a_bad_frame_not_covered_by_a_later_durable_lsn_is_a_torn_tail() {
    let log = SegmentBuilder::new(0, 2, 0).group(1..=2, 0).group(3..=6, 2).damage(3);
    let plan = planned(0, &log, &SegmentBuilder::new(1, 3, 0));
    assert_eq!(replayed(&plan), [(0, 1), (0, 2), (0, 3)]);
    assert_eq!((plan.next_lsn, plan.active.position), (4, at(3)));
    assert_eq!(plan.erase, [Erase { segment: 0, from: at(3), to: at(6) }]);
}

#[test]
fn a_bad_frame_with_nothing_after_it_is_a_torn_tail_with_nothing_to_erase() {
    let log = SegmentBuilder::new(0, 2, 0).group(1..=2, 0).group(3..=3, 2).damage(2);
    let plan = planned(0, &log, &SegmentBuilder::new(1, 3, 0));
    assert_eq!((replayed(&plan), plan.next_lsn), (vec![(0, 1), (0, 2)], 3));
    assert_eq!((plan.active.position, plan.erase), (at(2), vec![]));
}

#[test]
fn a_frame_whose_durable_lsn_is_not_below_its_own_is_corrupted() {
    for durable_lsn in [3, 4] {
        let log = SegmentBuilder::new(0, 2, 0).group(1..=2, 0).group(3..=3, durable_lsn);
        let (location, detail) = refused(0, &log, &SegmentBuilder::new(1, 3, 0));
        assert_eq!(location, format!("log segment 0, offset {}", at(2)));
        assert!(detail.contains("LSN 3"), "{detail}");
    }
}

#[test]
fn a_durable_lsn_above_everything_recovered_is_corrupted() {
    // The mark is in the older segment, and the frame that it covers is nowhere.
    let older = SegmentBuilder::new(0, 2, 0).group(1..=3, 0).mark(9, 8).damage(2);
    let (_, detail) = refused(0, &older, &SegmentBuilder::new(1, 3, 0));
    assert!(detail.contains("up to LSN 8"), "{detail}");
}

#[test]
fn an_older_segment_cut_short_is_corrupted() {
    let older = SegmentBuilder::new(0, 2, 0).group(1..=5, 0).damage(3);
    let newer = SegmentBuilder::new(1, 3, 0).group(6..=7, 5);
    for btree_lsn in [0, 2, 4] {
        let (location, detail) = refused(btree_lsn, &older, &newer);
        assert_eq!(location, format!("log segment 0, offset {}", at(3)));
        assert!(detail.contains(&format!("LSN {}", btree_lsn.max(3) + 1)), "{detail}");
    }
}

#[test]
fn an_older_segment_cut_short_below_the_btree_lsn_is_no_loss() {
    let older = SegmentBuilder::new(0, 2, 0).group(1..=5, 0).damage(3);
    let newer = SegmentBuilder::new(1, 3, 0).group(6..=7, 5);
    let plan = planned(5, &older, &newer);
    assert_eq!((replayed(&plan), plan.next_lsn), (vec![(1, 6), (1, 7)], 8));
    assert_eq!(plan.recycle, [Recycle { segment: 0, generation: 4 }]);
    assert_eq!((plan.active.position, plan.erase), (at(2), vec![]));
}

#[test]
fn an_older_segment_lost_as_a_whole_is_corrupted() {
    let (location, _) =
        refused(0, &SegmentBuilder::new(0, 2, 0), &SegmentBuilder::new(1, 3, 0).group(6..=7, 5));
    assert_eq!(location, format!("log segment 0, offset {}", at(0)));
}

#[test]
fn a_gap_between_the_btree_and_the_first_frame_is_corrupted() {
    let log = SegmentBuilder::new(0, 2, 0).group(7..=9, 6);
    let (location, detail) = refused(5, &log, &SegmentBuilder::new(1, 3, 0));
    assert_eq!(location, format!("log segment 0, offset {}", at(0)));
    assert!(detail.contains("LSN 7") && detail.contains("LSN 5"), "{detail}");
    assert_eq!(
        replayed(&planned(6, &log, &SegmentBuilder::new(1, 3, 0))),
        [(0, 7), (0, 8), (0, 9)]
    );
}

#[test]
fn segments_that_overlap_are_corrupted() {
    let older = SegmentBuilder::new(0, 2, 0).group(1..=5, 0);
    let (location, _) = refused(0, &older, &SegmentBuilder::new(1, 3, 0).group(5..=7, 4));
    assert_eq!(location, format!("log segment 1, offset {}", at(0)));
}

#[test]
fn a_log_that_the_btree_covers_replays_nothing_and_continues() {
    let plan =
        planned(5, &SegmentBuilder::new(0, 2, 0).group(1..=5, 0), &SegmentBuilder::new(1, 3, 0));
    assert_eq!((replayed(&plan), plan.next_lsn), (vec![], 6));
    assert_eq!(plan.active, ActiveSegment { segment: 0, generation: 2, position: at(5) });
    assert_eq!(plan.spare, Spare::Free { generation: 3 });
}

#[test]
fn an_older_segment_above_the_btree_lsn_is_frozen() {
    let older = SegmentBuilder::new(1, 2, 0).group(1..=5, 0);
    let plan = planned(3, &SegmentBuilder::new(0, 3, 0).group(6..=7, 5), &older);
    assert_eq!(replayed(&plan), [(1, 4), (1, 5), (0, 6), (0, 7)]);
    assert_eq!(plan.active, ActiveSegment { segment: 0, generation: 3, position: at(2) });
    assert_eq!((plan.spare, plan.recycle), (Spare::Frozen { last_lsn: 5 }, vec![]));
}

#[test]
fn a_crash_between_checkpoint_and_recycling_recycles_the_older_segment() {
    let older = SegmentBuilder::new(0, 2, 0).group(1..=5, 0);
    let plan = planned(5, &older, &SegmentBuilder::new(1, 3, 0).group(6..=7, 5));
    assert_eq!(replayed(&plan), [(1, 6), (1, 7)]);
    assert_eq!(plan.recycle, [Recycle { segment: 0, generation: 4 }]);
    assert_eq!(plan.spare, Spare::Free { generation: 4 });
    assert_eq!(plan.active, ActiveSegment { segment: 1, generation: 3, position: at(2) });
}

#[test]
fn a_recycled_segment_that_is_still_empty_is_the_free_one() {
    let recycled = SegmentBuilder::new(0, 4, 5);
    let plan = planned(5, &recycled, &SegmentBuilder::new(1, 3, 0).group(6..=7, 5));
    assert_eq!(plan.active, ActiveSegment { segment: 1, generation: 3, position: at(2) });
    assert_eq!((plan.spare, plan.recycle), (Spare::Free { generation: 4 }, vec![]));
}

#[test]
fn a_torn_first_group_of_the_newer_segment_is_erased_and_the_older_continues() {
    let older = SegmentBuilder::new(0, 2, 0).group(1..=5, 0);
    let newer = SegmentBuilder::new(1, 3, 0).group(6..=8, 5).damage(0);
    let plan = planned(0, &older, &newer);
    assert_eq!((plan.replay.len(), plan.next_lsn), (5, 6));
    assert_eq!(plan.active, ActiveSegment { segment: 0, generation: 2, position: at(5) });
    assert_eq!(plan.erase, [Erase { segment: 1, from: at(0), to: at(3) }]);
    assert_eq!(plan.spare, Spare::Free { generation: 3 });
}

#[test]
fn a_bad_first_frame_of_the_newer_segment_covered_by_a_later_durable_lsn_is_corrupted() {
    let older = SegmentBuilder::new(0, 2, 0).group(1..=5, 0);
    let newer = SegmentBuilder::new(1, 3, 0).group(6..=7, 5).group(8..=8, 7).damage(0);
    let (location, detail) = refused(0, &older, &newer);
    assert_eq!(location, format!("log segment 1, offset {}", at(0)));
    assert!(detail.contains("acknowledged at LSN 6"), "{detail}");
}

#[test]
fn a_torn_tail_of_the_newer_segment_is_erased_beside_a_frozen_one() {
    let older = SegmentBuilder::new(0, 2, 0).group(1..=5, 0);
    let newer = SegmentBuilder::new(1, 3, 0).group(6..=9, 5).damage(1);
    let plan = planned(0, &older, &newer);
    assert_eq!((plan.replay.len(), plan.next_lsn), (6, 7));
    assert_eq!(plan.erase, [Erase { segment: 1, from: at(1), to: at(4) }]);
    assert_eq!(plan.spare, Spare::Frozen { last_lsn: 5 });
}

#[test]
fn the_next_frame_takes_the_lsn_of_a_mark() {
    let plan = planned(
        0,
        &SegmentBuilder::new(0, 2, 0).group(1..=5, 0).mark(6, 5),
        &SegmentBuilder::new(1, 3, 0),
    );
    assert_eq!((plan.replay.len(), plan.next_lsn, plan.active.position), (5, 6, at(5)));
}

#[test]
fn a_mark_left_in_the_older_segment_is_not_part_of_the_sequence() {
    let older = SegmentBuilder::new(0, 2, 0).group(1..=5, 0).mark(6, 5);
    let plan = planned(0, &older, &SegmentBuilder::new(1, 3, 0).group(6..=7, 5));
    assert_eq!((plan.replay.len(), plan.next_lsn), (7, 8));
}

#[test]
fn a_newer_segment_with_only_a_mark_is_appended_to() {
    let older = SegmentBuilder::new(0, 2, 0).group(1..=5, 0);
    let plan = planned(0, &older, &SegmentBuilder::new(1, 3, 0).mark(6, 5));
    assert_eq!((plan.replay.len(), plan.next_lsn), (5, 6));
    assert_eq!(plan.active, ActiveSegment { segment: 1, generation: 3, position: at(0) });
    assert_eq!(plan.spare, Spare::Frozen { last_lsn: 5 });
}

#[test]
fn a_torn_tail_after_a_mark_is_erased_and_the_mark_stays() {
    let log = SegmentBuilder::new(0, 2, 0).group(1..=5, 0).mark(6, 5).group(6..=9, 5).damage(5);
    let plan = planned(0, &log, &SegmentBuilder::new(1, 3, 0));
    assert_eq!((plan.replay.len(), plan.next_lsn, plan.active.position), (5, 6, at(5)));
    assert_eq!(plan.erase, [Erase { segment: 0, from: at(5), to: at(9) }]);
    assert_eq!(plan.marked, 5);
}

#[test]
fn every_bad_frame_that_a_mark_covers_is_corrupted_and_frames_after_the_mark_are_not() {
    let log = SegmentBuilder::new(0, 2, 0).group(1..=5, 0).mark(6, 5).group(6..=9, 5);
    for place in 0..9 {
        let damaged = log.clone().damage(place);
        let recovered = plan(0, [damaged.scan(), SegmentBuilder::new(1, 3, 0).scan()]);
        if place < 5 {
            let (location, _) = corruption(recovered);
            assert_eq!(location, format!("log segment 0, offset {}", at(place)));
        } else {
            assert_eq!(recovered.unwrap().next_lsn, place as u64 + 1);
        }
    }
}

#[test]
fn frames_that_are_gone_without_a_trace_are_corrupted_when_a_mark_covers_them() {
    // The last frames and everything behind them are zero again, as if they had never been written.
    for kept in 0..5 {
        let mut log = SegmentBuilder::new(0, 2, 0).group(1..=5, 0).mark(6, 5);
        log.bytes[at(kept)..].fill(0);
        let (location, detail) = refused(0, &log, &SegmentBuilder::new(1, 3, 0));
        assert_eq!(location, format!("log segment 0, offset {}", at(kept)));
        assert!(detail.contains(&format!("acknowledged at LSN {}", kept + 1)), "{detail}");
    }
}

#[test]
fn a_mark_that_is_damaged_or_of_an_earlier_use_is_none() {
    let log = SegmentBuilder::new(0, 2, 0).group(1..=5, 0);
    let spare = SegmentBuilder::new(1, 3, 0);
    let expected = planned(0, &log, &spare);
    for byte in 0..32 {
        let mut damaged = log.clone().mark(6, 5);
        damaged.bytes[MARK_START + byte] ^= 4;
        assert_eq!(planned(0, &damaged, &spare), expected, "byte {byte}");
    }
    let mut earlier = SegmentBuilder::new(0, 0, 0).mark(900, 899);
    earlier.header.generation = 2;
    let earlier = earlier.group(1..=5, 0);
    assert_eq!(planned(0, &earlier, &spare), expected);
}

#[test]
fn a_mark_of_a_greater_generation_than_the_header_is_corrupted() {
    let mut lost = SegmentBuilder::new(1, 5, 10).mark(11, 10);
    lost.header = SegmentHeader { generation: 3, index: 1, btree_lsn: 0 };
    let (location, detail) = refused(10, &SegmentBuilder::new(0, 4, 0).group(5..=10, 4), &lost);
    assert_eq!(location, format!("log segment 1, offset {MARK_START}"));
    assert!(detail.contains("LSN 11") && detail.contains("generation 5"), "{detail}");
}

#[test]
fn a_mark_whose_durable_lsn_is_not_below_its_own_is_corrupted() {
    let log = SegmentBuilder::new(0, 2, 0).group(1..=5, 0).mark(5, 5);
    let (location, _) = refused(0, &log, &SegmentBuilder::new(1, 3, 0));
    assert_eq!(location, format!("log segment 0, offset {MARK_START}"));
}

#[test]
fn a_log_behind_the_btree_continues_in_the_empty_segment() {
    let plan =
        planned(9, &SegmentBuilder::new(0, 2, 0).group(1..=5, 0), &SegmentBuilder::new(1, 3, 0));
    assert_eq!((replayed(&plan), plan.next_lsn), (vec![], 10));
    assert_eq!(plan.active, ActiveSegment { segment: 1, generation: 3, position: DATA_START });
    assert_eq!(plan.recycle, [Recycle { segment: 0, generation: 4 }]);
    assert_eq!(plan.spare, Spare::Free { generation: 4 });
}

#[test]
fn a_log_behind_the_btree_without_an_empty_segment_recycles_both() {
    let older = SegmentBuilder::new(0, 2, 0).group(1..=5, 0);
    let plan = planned(9, &older, &SegmentBuilder::new(1, 3, 0).group(6..=7, 5));
    assert_eq!((replayed(&plan), plan.next_lsn), (vec![], 10));
    let recycle = [Recycle { segment: 0, generation: 4 }, Recycle { segment: 1, generation: 5 }];
    assert_eq!(plan.recycle, recycle);
    assert_eq!(plan.active, ActiveSegment { segment: 0, generation: 4, position: DATA_START });
    assert_eq!(plan.spare, Spare::Free { generation: 5 });
}

#[test]
fn an_inconclusive_search_is_corrupted() {
    let log = SegmentBuilder::new(0, 2, 0).group(1..=5, 0);
    let mut scan = log.scan().unwrap();
    scan.inconclusive = true;
    let (location, _) = corruption(plan(0, [Some(scan), SegmentBuilder::new(1, 3, 0).scan()]));
    assert_eq!(location, format!("log segment 0, offset {}", at(5)));
}

#[test]
fn the_greatest_lsn_and_the_greatest_generation_are_errors() {
    let log = SegmentBuilder::new(0, 2, u64::MAX - 1).group(u64::MAX..=u64::MAX, 5);
    let spare = SegmentBuilder::new(1, 3, 0);
    assert!(refused(u64::MAX - 1, &log, &spare).1.contains("LSN"));
    let older = SegmentBuilder::new(0, u64::MAX - 1, 0).group(1..=1, 0);
    let newer = SegmentBuilder::new(1, u64::MAX, 0).group(2..=2, 1);
    assert!(refused(1, &older, &newer).1.contains("generation"));
}
