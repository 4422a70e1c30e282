//! The buffer of the log: frames that were appended and are not in the file yet, and the position
//! of the next one.

use super::frame;
use super::plan::{RecoveryPlan, Spare};
use super::segment::{FRAMES_START, SEGMENTS};
use crate::durability::Durability;
use std::collections::VecDeque;
use std::time::Instant;

/// Consecutive frames of one segment, to be written with one call.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) segment: usize,
    /// The offset in the segment of the first frame.
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) last_lsn: u64,
}

impl Chunk {
    /// Whether its first frame is the first of the segment.
    pub(super) fn starts_segment(&self) -> bool {
        self.offset == FRAMES_START
    }
}

/// The frames to be written, and the position of the next one.
#[derive(Debug)]
pub(super) struct Appender {
    segment_size: u64,
    active: usize,
    generations: [u64; SEGMENTS],
    /// The offset of the next frame in the active segment.
    position: u64,
    next_lsn: u64,
    /// Whether the other segment is free.
    spare_is_free: bool,
    unwritten: VecDeque<Chunk>,
    /// The time by which the appended frames must be flushed.
    flush_by: Option<Instant>,
    /// A buffer that was written and can be reused.
    recycled: Vec<u8>,
}

impl Appender {
    /// An appender that continues where recovery found the end.
    pub(super) fn new(plan: &RecoveryPlan, segment_size: u64) -> Self {
        let spare_generation = match plan.spare {
            Spare::Free { generation } => generation,
            // It is replaced before it is used. Until then the active segment has the greatest.
            Spare::Frozen { .. } => 0,
        };
        let mut generations = [spare_generation; SEGMENTS];
        if let Some(of_active) = generations.get_mut(plan.active.segment) {
            *of_active = plan.active.generation;
        }
        Self {
            segment_size,
            active: plan.active.segment,
            generations,
            position: plan.active.position as u64,
            next_lsn: plan.next_lsn,
            spare_is_free: matches!(plan.spare, Spare::Free { .. }),
            unwritten: VecDeque::new(),
            flush_by: None,
            recycled: Vec::new(),
        }
    }

    /// Appends a frame and returns its LSN, or `None` when the active segment has no space for it.
    pub(super) fn append(&mut self, payload: &[u8], durability: Durability) -> Option<u64> {
        let frame_len = frame::frame_len(payload.len()) as u64;
        if !self.has_space(frame_len) {
            return None;
        }
        let (lsn, generation) = (self.next_lsn, self.generation());
        if self.unwritten.back().is_none_or(|chunk| chunk.segment != self.active) {
            let bytes = std::mem::take(&mut self.recycled);
            let (segment, offset) = (self.active, self.position);
            self.unwritten.push_back(Chunk { segment, offset, bytes, last_lsn: lsn });
        }
        if let Some(chunk) = self.unwritten.back_mut() {
            frame::begin_frame(&mut chunk.bytes, lsn, generation, payload);
            chunk.last_lsn = lsn;
        }
        self.position += frame_len;
        self.next_lsn += 1;
        if let Durability::Interval(at_most) = durability {
            // A time that the clock cannot represent never comes.
            let flush_by = Instant::now().checked_add(at_most);
            self.flush_by = match (self.flush_by, flush_by) {
                (Some(earlier), Some(flush_by)) => Some(earlier.min(flush_by)),
                (earlier, flush_by) => earlier.or(flush_by),
            };
        }
        Some(lsn)
    }

    /// Takes the frames to be written, oldest first.
    pub(super) fn take_unwritten(&mut self) -> VecDeque<Chunk> {
        std::mem::take(&mut self.unwritten)
    }

    /// Returns a buffer that was written, for reuse.
    pub(super) fn recycle(&mut self, mut bytes: Vec<u8>) {
        bytes.clear();
        self.recycled = bytes;
    }

    /// A mark after the last frame, unstamped, if the last frame appended is `durable` and there is
    /// space for a mark. The position stays: the next frame overwrites the mark.
    pub(super) fn mark(&self, durable: u64) -> Option<Chunk> {
        if self.next_lsn != durable + 1 || !self.has_space(frame::frame_len(0) as u64) {
            return None;
        }
        let mut bytes = Vec::with_capacity(frame::frame_len(0));
        frame::begin_frame(&mut bytes, self.next_lsn, self.generation(), &[]);
        Some(Chunk { segment: self.active, offset: self.position, bytes, last_lsn: durable })
    }

    /// The time by which the appended frames must be flushed.
    pub(super) fn flush_by(&self) -> Option<Instant> {
        self.flush_by
    }

    /// A flush of all appended frames begins.
    pub(super) fn flush_begins(&mut self) {
        self.flush_by = None;
    }

    /// Whether the active segment has no frame yet.
    pub(super) fn active_is_empty(&self) -> bool {
        self.position == FRAMES_START
    }

    /// Whether the other segment is free.
    pub(super) fn spare_is_free(&self) -> bool {
        self.spare_is_free
    }

    /// Makes the other segment, which must be free, the active one.
    pub(super) fn rotate(&mut self) {
        assert!(self.spare_is_free, "the other segment is not free");
        self.active = self.spare();
        self.position = FRAMES_START;
        self.spare_is_free = false;
    }

    /// The segment that is not active, and the generation of its next use.
    pub(super) fn next_use(&self) -> (usize, u64) {
        (self.spare(), self.generations.iter().copied().max().unwrap_or_default() + 1)
    }

    /// The segment that is not active has a durable header of this generation, and is free.
    pub(super) fn spare_recycled(&mut self, generation: u64) {
        let spare = self.spare();
        if let Some(of_spare) = self.generations.get_mut(spare) {
            *of_spare = generation;
        }
        self.spare_is_free = true;
    }

    fn has_space(&self, frame_len: u64) -> bool {
        self.position + frame_len <= self.segment_size
    }

    fn generation(&self) -> u64 {
        self.generations.get(self.active).copied().unwrap_or_default()
    }

    fn spare(&self) -> usize {
        (self.active + 1) % SEGMENTS
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::ActiveSegment;
    use super::*;
    use std::time::Duration;

    const SEGMENT: u64 = FRAMES_START + 256;

    fn appender() -> Appender {
        let active = ActiveSegment {
            segment: 0,
            generation: 7,
            position: super::super::segment::DATA_START,
        };
        let (spare, replay, erase, recycle) =
            (Spare::Free { generation: 8 }, vec![], vec![], vec![]);
        Appender::new(&RecoveryPlan { replay, next_lsn: 5, active, spare, erase, recycle }, SEGMENT)
    }

    #[test]
    fn frames_of_one_segment_are_one_chunk() {
        let mut log = appender();
        assert!(log.active_is_empty());
        assert_eq!(log.append(b"first", Durability::Sync), Some(5));
        assert_eq!(log.append(b"second", Durability::Os), Some(6));
        assert!(!log.active_is_empty());
        let mut chunks = log.take_unwritten();
        frame::stamp(&mut chunks[0].bytes, 4);
        let first = frame::parse(&chunks[0].bytes).unwrap();
        assert_eq!((first.lsn, first.generation, first.payload), (5, 7, &b"first"[..]));
        let second = frame::parse(&chunks[0].bytes[first.len_on_disk..]).unwrap();
        assert_eq!((second.lsn, second.payload), (6, &b"second"[..]));
        assert_eq!((chunks.len(), chunks[0].last_lsn, chunks[0].starts_segment()), (1, 6, true));
        log.append(b"third", Durability::Sync);
        let next = &log.take_unwritten()[0];
        assert_eq!(next.offset, FRAMES_START + chunks[0].bytes.len() as u64);
    }

    #[test]
    fn a_full_segment_refuses_and_the_other_one_continues() {
        let mut log = appender();
        assert_eq!(log.append(&[0; 256 - 32], Durability::Sync), Some(5));
        assert_eq!(log.append(b"", Durability::Sync), None);
        log.rotate();
        assert!(!log.spare_is_free());
        assert_eq!(log.append(b"next", Durability::Sync), Some(6));
        let segments: Vec<_> = log.take_unwritten().iter().map(|chunk| chunk.segment).collect();
        assert_eq!(segments, [0, 1]);
        assert_eq!(log.next_use(), (0, 9));
        log.spare_recycled(9);
        assert!(log.spare_is_free());
        assert_eq!(log.next_use(), (0, 10));
    }

    #[test]
    fn a_mark_takes_neither_space_nor_an_lsn() {
        let mut log = appender();
        log.append(b"frame", Durability::Sync);
        assert!(log.mark(4).is_none(), "the last frame is not durable");
        let mark = log.mark(5).unwrap();
        assert_eq!(log.append(b"over it", Durability::Sync), Some(6));
        let chunks = log.take_unwritten();
        let first_len = frame::frame_len(b"frame".len()) as u64;
        assert_eq!(mark.offset, chunks[0].offset + first_len);
        assert!(log.mark(5).is_none(), "a newer frame will carry a durable LSN");
    }

    #[test]
    fn a_mark_that_does_not_fit_is_not_made() {
        let mut log = appender();
        log.append(&[0; 256 - 32 - 24], Durability::Sync);
        assert!(log.mark(5).is_none());
    }

    #[test]
    fn the_earliest_interval_decides() {
        let mut log = appender();
        log.append(b"", Durability::Sync);
        assert_eq!(log.flush_by(), None);
        log.append(b"", Durability::Interval(Duration::from_secs(60)));
        let late = log.flush_by().unwrap();
        log.append(b"", Durability::Interval(Duration::MAX));
        assert_eq!(log.flush_by(), Some(late));
        log.append(b"", Durability::Interval(Duration::from_secs(1)));
        assert!(log.flush_by().unwrap() < late);
        log.flush_begins();
        assert_eq!(log.flush_by(), None);
    }
}
