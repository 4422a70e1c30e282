//! The buffer of the log: frames that were appended and are not in the file yet, and the position
//! of the next one.
//!
//! When neither segment has space, frames are *queued*: they have their LSN and their place in a
//! later use of a segment, and stay in memory until its header of that use is durable. The segments
//! take turns, so the uses follow each other. So the file gets every frame in the order of the
//! LSNs.

use super::frame;
use super::growth::SpaceBounds;
use super::plan::{RecoveryPlan, Spare};
use super::segment::{FRAMES_START, MARK_START, SEGMENTS};
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
    /// Whether its frames have their durable LSN and checksum.
    pub(super) stamped: bool,
}

impl Chunk {
    /// Whether its first frame is the first of the segment.
    pub(super) fn starts_segment(&self) -> bool {
        self.offset == FRAMES_START
    }
}

/// Whose frames are queued. Neither can take up what the other may queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueShare {
    /// Those of callers: as many bytes as may be queued.
    Callers,
    /// Those of maintenance: a quarter as much beside.
    Maintenance,
}

/// By how much less maintenance may queue than callers.
const MAINTENANCE_DIVISOR: u64 = 4;

/// A use of a segment that is not free yet, and what is queued for it.
#[derive(Debug)]
struct QueuedUse {
    segment: usize,
    generation: u64,
    /// The LSN of its first frame.
    from: u64,
    frames: Option<Chunk>,
    /// How many bytes of them are maintenance's.
    of_maintenance: u64,
    /// The time by which they must be flushed.
    flush_by: Option<Instant>,
}

impl QueuedUse {
    fn bytes_of(&self, share: QueueShare) -> u64 {
        match share {
            QueueShare::Maintenance => self.of_maintenance,
            QueueShare::Callers => {
                let all = self.frames.as_ref().map_or(0, |chunk| chunk.bytes.len() as u64);
                all - self.of_maintenance
            }
        }
    }
}

/// The space of a segment for its next use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlannedSpace {
    pub(super) segment: usize,
    /// What it had in the use before.
    pub(super) had: u64,
    pub(super) planned: u64,
}

/// The frames to be written, and the position of the next one.
#[derive(Debug)]
pub(super) struct Appender {
    bounds: SpaceBounds,
    /// How much of each segment frames may take.
    space: [u64; SEGMENTS],
    /// When the first frame could go into the active segment, in milliseconds of the elapsed time,
    /// unless that was before the opening.
    began_ms: Option<u64>,
    /// How many milliseconds each segment took to be filled when it was used last.
    filled_in_ms: [Option<u64>; SEGMENTS],
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
    /// The uses of segments that frames are queued for, the next one first. While there are any,
    /// the active segment is that of the last one.
    queue: VecDeque<QueuedUse>,
    /// How many bytes callers may queue, unless it is one frame.
    queue_limit: u64,
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
        let bounds = SpaceBounds::of(segment_size);
        let mut space = [bounds.least(); SEGMENTS];
        if let Some(of_active) = space.get_mut(plan.active.segment) {
            *of_active = bounds.with_frames(plan.active.position as u64);
        }
        Self {
            bounds,
            space,
            began_ms: None,
            filled_in_ms: [None; SEGMENTS],
            active: plan.active.segment,
            generations,
            position: plan.active.position as u64,
            next_lsn: plan.next_lsn,
            spare_is_free: matches!(plan.spare, Spare::Free { .. }),
            unwritten: VecDeque::new(),
            flush_by: None,
            queue: VecDeque::new(),
            queue_limit: 0,
            recycled: Vec::new(),
        }
    }

    /// Appends a frame and returns its LSN, or `None` when the active segment has no space for it.
    pub(super) fn append(
        &mut self,
        payload: &[u8],
        durability: Durability,
        share: QueueShare,
    ) -> Option<u64> {
        let frame_len = frame::frame_len(payload.len()) as u64;
        if !self.has_space(frame_len) || !self.may_queue(payload.len(), share) {
            return None;
        }
        let (lsn, generation) = (self.next_lsn, self.generation());
        let (segment, offset) = (self.active, self.position);
        let new_chunk = |bytes| Chunk { segment, offset, bytes, last_lsn: lsn, stamped: false };
        let chunk = match self.queue.back_mut() {
            Some(queue) => {
                if share == QueueShare::Maintenance {
                    queue.of_maintenance += frame_len;
                }
                queue.frames.get_or_insert_with(|| new_chunk(Vec::new()))
            }
            None => {
                if self.unwritten.back().is_none_or(|chunk| chunk.segment != segment) {
                    self.unwritten.push_back(new_chunk(std::mem::take(&mut self.recycled)));
                }
                self.unwritten.back_mut()?
            }
        };
        frame::begin_frame(&mut chunk.bytes, lsn, generation, payload);
        chunk.last_lsn = lsn;
        self.position += frame_len;
        self.next_lsn += 1;
        if self.position > self.active_space() {
            self.set_space(segment, self.bounds.with_frames(self.position));
        }
        if let Durability::Interval(at_most) = durability {
            // A time that the clock cannot represent never comes.
            let by = Instant::now().checked_add(at_most);
            let flush_by = match self.queue.back_mut() {
                Some(queue) => &mut queue.flush_by,
                None => &mut self.flush_by,
            };
            *flush_by = earliest(*flush_by, by);
        }
        Some(lsn)
    }

    /// Whether the active segment has space for a frame of so many bytes. An empty one has space
    /// for every frame that it can hold, whatever it was given.
    fn has_space(&self, frame_len: u64) -> bool {
        let space = if self.active_is_empty() { self.bounds.most() } else { self.active_space() };
        self.position + frame_len <= space
    }

    /// How much of the active segment frames may take.
    pub(super) fn active_space(&self) -> u64 {
        self.space_of(self.active)
    }

    /// How much of a segment frames may take.
    pub(super) fn space_of(&self, segment: usize) -> u64 {
        self.space.get(segment).copied().unwrap_or_default()
    }

    /// How much of a segment frames may take in a quiet room.
    pub(super) fn least_space(&self) -> u64 {
        self.bounds.least()
    }

    /// Decides how much space the segment of [`next_use`](Self::next_use) has in that use, beside a
    /// B-tree of so many bytes. What it is to lose is taken from it at once, so that no frame is
    /// queued there; what it is to get is [added](Self::add_space) when the file has it.
    pub(super) fn plan_space(&mut self, btree_len: u64) -> PlannedSpace {
        let (segment, _) = self.next_use();
        let filled_in_ms = self.filled_in_ms.get(segment).copied().flatten();
        let had = self.space_of(segment);
        let mut planned = self.bounds.next(had, filled_in_ms, btree_len);
        if !self.queue.is_empty() {
            // What is queued for it was placed in what it has.
            planned = planned.max(had);
        }
        if planned < had {
            self.set_space(segment, planned);
        }
        PlannedSpace { segment, had, planned }
    }

    /// The file has space for so many bytes of a segment now.
    pub(super) fn add_space(&mut self, segment: usize, bytes: u64) {
        self.set_space(segment, bytes.max(self.space_of(segment)));
    }

    fn set_space(&mut self, segment: usize, bytes: u64) {
        if let Some(space) = self.space.get_mut(segment) {
            *space = bytes;
        }
    }

    /// The active segment is left for the other one.
    fn leave(&mut self, now_ms: u64) {
        let was_used = self.position > self.active_space() / 2;
        let began_ms = self.began_ms.replace(now_ms).filter(|_| was_used);
        if let Some(filled_in_ms) = self.filled_in_ms.get_mut(self.active) {
            *filled_in_ms = began_ms.map(|began_ms| now_ms.saturating_sub(began_ms));
        }
    }

    /// The LSN of the last frame that may be written: the last one, unless frames are queued.
    pub(super) fn last_writable(&self) -> u64 {
        self.first_queued().unwrap_or(self.next_lsn) - 1
    }

    /// The LSN of the first frame that is queued, or will be.
    pub(super) fn first_queued(&self) -> Option<u64> {
        self.queue.front().map(|queue| queue.from)
    }

    /// How many bytes are queued of this share.
    pub(super) fn queued_bytes(&self, share: QueueShare) -> u64 {
        self.queue.iter().map(|queue| queue.bytes_of(share)).sum()
    }

    /// Whether a frame of so many bytes of payload fits into what may be queued, if it is queued.
    pub(super) fn may_queue(&self, payload_len: usize, share: QueueShare) -> bool {
        let limit = match share {
            QueueShare::Callers => self.queue_limit,
            QueueShare::Maintenance => self.queue_limit / MAINTENANCE_DIVISOR,
        };
        let queued = self.queued_bytes(share);
        queued == 0 || queued + frame::frame_len(payload_len) as u64 <= limit
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

    /// The mark of the active segment, unstamped, if the last frame appended is `durable`. It goes
    /// over the mark before it. Both fit one sector, so a crash leaves one of the two.
    pub(super) fn mark(&self, durable: u64) -> Option<Chunk> {
        if self.next_lsn != durable + 1 || !self.queue.is_empty() {
            return None;
        }
        let mut bytes = Vec::with_capacity(frame::frame_len(0));
        frame::begin_frame(&mut bytes, self.next_lsn, self.generation(), &[]);
        let (segment, offset) = (self.active, MARK_START as u64);
        Some(Chunk { segment, offset, bytes, last_lsn: durable, stamped: false })
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

    /// Makes the other segment, which must be free, the active one. It is `now_ms` of the elapsed
    /// time.
    pub(super) fn rotate(&mut self, now_ms: u64) {
        assert!(self.spare_is_free, "the other segment is not free");
        self.leave(now_ms);
        self.active = self.spare();
        self.position = FRAMES_START;
        self.spare_is_free = false;
    }

    /// Goes on in the next use of the other segment, which is not free: what is appended from now
    /// on is queued for it, up to `limit` bytes of callers, all that they have queued together.
    pub(super) fn begin_queue(&mut self, limit: u64, now_ms: u64) {
        assert!(!self.spare_is_free, "a segment has space");
        self.leave(now_ms);
        let (segment, generation) = (self.spare(), self.next_generation());
        let (from, frames, of_maintenance, flush_by) = (self.next_lsn, None, 0, None);
        let queue = QueuedUse { segment, generation, from, frames, of_maintenance, flush_by };
        self.queue.push_back(queue);
        self.queue_limit = limit;
        self.active = segment;
        self.set_generation(segment, generation);
        self.position = FRAMES_START;
    }

    /// The segment that is freed next, and the generation of its next use.
    pub(super) fn next_use(&self) -> (usize, u64) {
        match self.queue.front() {
            Some(queue) => (queue.segment, queue.generation),
            None => (self.spare(), self.next_generation()),
        }
    }

    /// The segment of [`next_use`](Self::next_use) has a durable header of this generation, and is
    /// free; what was queued for that use may be written.
    pub(super) fn segment_freed(&mut self, generation: u64) {
        match self.queue.pop_front() {
            Some(queue) => {
                self.unwritten.extend(queue.frames);
                self.flush_by = earliest(self.flush_by, queue.flush_by);
            }
            None => {
                self.set_generation(self.spare(), generation);
                self.spare_is_free = true;
            }
        }
    }

    fn next_generation(&self) -> u64 {
        self.generations.iter().copied().max().unwrap_or_default() + 1
    }

    fn set_generation(&mut self, segment: usize, generation: u64) {
        if let Some(of_segment) = self.generations.get_mut(segment) {
            *of_segment = generation;
        }
    }

    fn generation(&self) -> u64 {
        self.generations.get(self.active).copied().unwrap_or_default()
    }

    fn spare(&self) -> usize {
        (self.active + 1) % SEGMENTS
    }
}

/// The earlier of two times that may not be there.
fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::super::growth::with_least_log_space;
    use super::super::plan::ActiveSegment;
    use super::*;

    const CALLERS: QueueShare = QueueShare::Callers;
    use std::time::Duration;

    const SEGMENT: u64 = FRAMES_START + 256;

    /// An empty log whose other segment is free, for its use `spare_generation`.
    fn plan_of(spare_generation: u64) -> RecoveryPlan {
        let active = ActiveSegment {
            segment: 0,
            generation: 7,
            position: super::super::segment::DATA_START,
        };
        let spare = Spare::Free { generation: spare_generation };
        let (replay, erase, recycle) = (vec![], vec![], vec![]);
        RecoveryPlan { replay, next_lsn: 5, active, spare, erase, recycle, marked: 0 }
    }

    fn appender() -> Appender {
        Appender::new(&plan_of(8), SEGMENT)
    }

    #[test]
    fn frames_of_one_segment_are_one_chunk() {
        let mut log = appender();
        assert!(log.active_is_empty());
        assert_eq!(log.append(b"first", Durability::Sync, CALLERS), Some(5));
        assert_eq!(log.append(b"second", Durability::Os, CALLERS), Some(6));
        assert!(!log.active_is_empty());
        let mut chunks = log.take_unwritten();
        frame::stamp(&mut chunks[0].bytes, 4);
        let first = frame::parse(&chunks[0].bytes).unwrap();
        assert_eq!((first.lsn, first.generation, first.payload), (5, 7, &b"first"[..]));
        let second = frame::parse(&chunks[0].bytes[first.len_on_disk..]).unwrap();
        assert_eq!((second.lsn, second.payload), (6, &b"second"[..]));
        assert_eq!((chunks.len(), chunks[0].last_lsn, chunks[0].starts_segment()), (1, 6, true));
        log.append(b"third", Durability::Sync, CALLERS);
        let next = &log.take_unwritten()[0];
        assert_eq!(next.offset, FRAMES_START + chunks[0].bytes.len() as u64);
    }

    #[test]
    fn a_full_segment_refuses_and_the_other_one_continues() {
        let mut log = appender();
        assert_eq!(log.append(&[0; 256 - 32], Durability::Sync, CALLERS), Some(5));
        assert_eq!(log.append(b"", Durability::Sync, CALLERS), None);
        log.rotate(0);
        assert!(!log.spare_is_free());
        assert_eq!(log.append(b"next", Durability::Sync, CALLERS), Some(6));
        let segments: Vec<_> = log.take_unwritten().iter().map(|chunk| chunk.segment).collect();
        assert_eq!(segments, [0, 1]);
        assert_eq!(log.next_use(), (0, 9));
        log.segment_freed(9);
        assert!(log.spare_is_free());
        assert_eq!(log.next_use(), (0, 10));
    }

    #[test]
    fn what_no_segment_has_space_for_is_queued_for_the_uses_that_follow() {
        let mut log = appender();
        log.append(&[0; 256 - 32], Durability::Sync, CALLERS).unwrap();
        log.rotate(0);
        log.append(&[1; 256 - 32], Durability::Sync, CALLERS).unwrap();
        assert_eq!(log.append(b"", Durability::Sync, CALLERS), None);
        log.begin_queue(300, 0);
        assert_eq!(log.append(&[2; 90], Durability::Interval(Duration::ZERO), CALLERS), Some(7));
        assert_eq!(log.append(&[2; 200], Durability::Sync, CALLERS), None, "the segment has less");
        log.begin_queue(300, 0);
        assert_eq!(log.append(&[3; 90], Durability::Sync, CALLERS), Some(8));
        assert_eq!(log.append(&[3; 90], Durability::Sync, CALLERS), None, "no more may be queued");
        assert_eq!(log.queued_bytes(CALLERS), 2 * frame::frame_len(90) as u64);
        assert_eq!((log.last_writable(), log.first_queued(), log.flush_by()), (6, Some(7), None));
        assert!(log.mark(8).is_none(), "the segment has another generation yet");
        assert_eq!(log.take_unwritten().back().unwrap().last_lsn, 6);

        assert_eq!(log.next_use(), (0, 9));
        log.segment_freed(9);
        assert!(!log.spare_is_free() && log.flush_by().is_some());
        assert_eq!((log.last_writable(), log.next_use()), (7, (1, 10)));
        let chunks = log.take_unwritten();
        assert_eq!((chunks.len(), chunks[0].last_lsn, chunks[0].segment), (1, 7, 0));
        assert!(chunks[0].starts_segment());
        let mut bytes = chunks[0].bytes.clone();
        frame::stamp(&mut bytes, 6);
        let first = frame::parse(&bytes).unwrap();
        assert_eq!((first.lsn, first.generation, first.payload), (7, 9, &[2; 90][..]));

        log.segment_freed(10);
        // From now on the segment is an active one like any other, and the other one is next.
        assert_eq!(log.append(b"next", Durability::Sync, CALLERS), Some(9));
        let chunks = log.take_unwritten();
        assert_eq!((chunks.len(), chunks[0].last_lsn, chunks[0].segment), (1, 9, 1));
        assert_eq!(
            (log.first_queued(), log.queued_bytes(CALLERS), log.next_use()),
            (None, 0, (0, 11))
        );
    }

    #[test]
    fn callers_and_maintenance_cannot_take_up_what_the_other_may_queue() {
        for (first, second) in
            [(CALLERS, QueueShare::Maintenance), (QueueShare::Maintenance, CALLERS)]
        {
            let mut log = appender();
            log.append(&[0; 256 - 32], Durability::Sync, CALLERS).unwrap();
            log.rotate(0);
            log.append(&[1; 256 - 32], Durability::Sync, CALLERS).unwrap();
            log.begin_queue(64, 0);
            assert_eq!(log.append(b"", Durability::Os, first), Some(7));
            while log.append(b"", Durability::Os, first).is_some() {}
            let queued = log.queued_bytes(first);
            assert_eq!((queued == 64, log.queued_bytes(second)), (first == CALLERS, 0));
            assert!(log.append(b"", Durability::Os, second).is_some(), "{first:?}");
            assert_eq!((log.queued_bytes(first), log.queued_bytes(second)), (queued, 32));
            log.segment_freed(log.next_use().1);
            assert_eq!((log.queued_bytes(first), log.queued_bytes(second)), (0, 0));
        }
    }

    #[test]
    fn maintenance_may_queue_a_quarter_of_what_callers_may() {
        let mut log = appender();
        log.append(&[0; 256 - 32], Durability::Sync, CALLERS).unwrap();
        log.rotate(0);
        log.append(&[1; 256 - 32], Durability::Sync, CALLERS).unwrap();
        log.begin_queue(256, 0);
        while log.append(b"", Durability::Os, QueueShare::Maintenance).is_some() {}
        assert_eq!(log.queued_bytes(QueueShare::Maintenance), 64);
    }

    #[test]
    fn an_empty_segment_takes_a_frame_that_is_larger_than_the_space_it_was_given() {
        let least = 32 << 10;
        let mut log = with_least_log_space(least, || Appender::new(&plan_of(8), 4 * least));
        let large = vec![1; 40 << 10];
        assert_eq!(log.append(&[0; 100], Durability::Sync, CALLERS), Some(5));
        assert_eq!(log.append(&large, Durability::Sync, CALLERS), None, "there is one already");
        log.rotate(0);
        assert_eq!(log.append(&large, Durability::Sync, CALLERS), Some(6));
        assert_eq!((log.space_of(0), log.space_of(1)), (least, 56 << 10));
        assert_eq!(log.append(&large, Durability::Sync, CALLERS), None);
        assert_eq!(log.append(&[0; 100], Durability::Sync, CALLERS), Some(7), "the last block");
        // The first use was hardly filled, so it is not the load that asks for more.
        assert_eq!(planned_space(&mut log), least);
        log.begin_queue(1 << 20, 0);
        assert_eq!(log.append(&large, Durability::Sync, CALLERS), Some(8), "the next use");
        assert_eq!((log.space_of(0), planned_space(&mut log)), (56 << 10, 56 << 10));
        log.segment_freed(9);
        // The second one was filled.
        assert_eq!(planned_space(&mut log), 112 << 10);
        let most = usize::try_from(4 * least - FRAMES_START).unwrap() - frame::FRAME_HEADER_LEN;
        let most = vec![1; most];
        log.segment_freed(10);
        log.rotate(0);
        assert_eq!(log.append(&most, Durability::Sync, CALLERS), Some(9));
        assert_eq!(log.space_of(1), 4 * least);
    }

    fn planned_space(log: &mut Appender) -> u64 {
        log.plan_space(0).planned
    }

    #[test]
    fn space_is_taken_from_a_segment_at_once_and_never_from_what_is_queued_for_it() {
        let (least, late) = (32 << 10, 11 * 60 * 1_000);
        let mut log = with_least_log_space(least, || Appender::new(&plan_of(8), 4 * least));
        let frame = |bytes: u64| vec![1; usize::try_from(bytes).unwrap()];
        let fill =
            |log: &mut Appender| log.append(&frame(2 * least - 16_384), Durability::Sync, CALLERS);
        log.add_space(0, 2 * least);
        log.add_space(1, 2 * least);
        log.add_space(1, least);
        assert_eq!(log.space_of(1), 2 * least, "it has that already");
        log.rotate(0);
        fill(&mut log).unwrap();
        log.segment_freed(9);
        // Segment 1 took eleven minutes to be filled, so segment 0 is the next one to lose space.
        log.rotate(late);
        fill(&mut log).unwrap();
        log.begin_queue(1 << 20, 2 * late);
        fill(&mut log).unwrap();
        assert_eq!(
            log.plan_space(0),
            PlannedSpace { segment: 1, had: 2 * least, planned: 2 * least }
        );
        log.segment_freed(10);
        // Nothing is queued for segment 0, which took as long.
        assert_eq!(log.plan_space(0), PlannedSpace { segment: 0, had: 2 * least, planned: least });
        assert_eq!(log.space_of(0), least, "before the file loses it");
        log.begin_queue(1 << 20, 3 * late);
        assert_eq!(log.append(&frame(least - 16_000), Durability::Sync, CALLERS), Some(8));
        assert_eq!(log.append(&frame(least / 2), Durability::Sync, CALLERS), None);
    }

    #[test]
    fn one_frame_may_be_queued_however_long_it_is() {
        let mut log = appender();
        log.append(&[0; 256 - 32], Durability::Sync, CALLERS).unwrap();
        log.rotate(0);
        log.append(&[1; 256 - 32], Durability::Sync, CALLERS).unwrap();
        log.begin_queue(10, 0);
        assert_eq!(log.append(&[2; 90], Durability::Sync, CALLERS), Some(7));
        assert_eq!(log.append(b"", Durability::Sync, CALLERS), None);
    }

    #[test]
    fn a_buffer_that_was_written_is_used_again() {
        let mut log = appender();
        log.append(&[1; 100], Durability::Sync, CALLERS);
        let written = log.take_unwritten().remove(0).unwrap().bytes;
        let at = written.as_ptr();
        log.recycle(written);
        log.append(b"next", Durability::Sync, CALLERS);
        let next = &log.take_unwritten()[0];
        assert_eq!((next.bytes.as_ptr(), next.bytes.len()), (at, frame::frame_len(4)));
    }

    #[test]
    fn a_mark_takes_neither_space_nor_an_lsn() {
        let mut log = appender();
        log.append(b"frame", Durability::Sync, CALLERS);
        assert!(log.mark(4).is_none(), "the last frame is not durable");
        let mut mark = log.mark(5).unwrap();
        assert_eq!(log.append(b"with its LSN", Durability::Sync, CALLERS), Some(6));
        frame::stamp(&mut mark.bytes, 5);
        assert_eq!(frame::parse(&mark.bytes).unwrap().lsn, 6);
        assert_eq!(mark.offset, MARK_START as u64);
        assert!(log.mark(5).is_none(), "a newer frame will carry a durable LSN");
    }

    #[test]
    fn a_full_segment_has_space_for_its_mark() {
        let mut log = appender();
        assert_eq!(log.append(&[0; 256 - 32], Durability::Sync, CALLERS), Some(5));
        let mark = log.mark(5).unwrap();
        assert!(mark.offset + mark.bytes.len() as u64 <= FRAMES_START);
    }

    #[test]
    fn the_earliest_interval_decides() {
        let mut log = appender();
        log.append(b"", Durability::Sync, CALLERS);
        assert_eq!(log.flush_by(), None);
        log.append(b"", Durability::Interval(Duration::from_secs(60)), CALLERS);
        let late = log.flush_by().unwrap();
        log.append(b"", Durability::Interval(Duration::MAX), CALLERS);
        assert_eq!(log.flush_by(), Some(late));
        log.append(b"", Durability::Interval(Duration::from_secs(1)), CALLERS);
        assert!(log.flush_by().unwrap() < late);
        log.flush_begins();
        assert_eq!(log.flush_by(), None);
    }
}
