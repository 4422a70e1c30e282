//! What the log keeps in memory until it is durable, so that a disk that was full can be given the
//! same bytes again.
//!
//! 1. A chunk that was taken from the appender stays first in line until it is in the file. So no
//!    later frame is written before it.
//! 2. What is in the file and not known to be durable is kept: after a failed flush the system may
//!    show it although the disk does not have it, or may have dropped it. It is consecutive and in
//!    one segment, because a segment gets its first frame only when the other one is durable.
//! 3. Bytes that are given again are the bytes that were given before, with the same durable LSN
//!    and checksum. So whichever mixture of both a crash leaves, it is those bytes or a torn tail.

use super::appender::Chunk;
use std::collections::VecDeque;

/// How much of a buffer is kept for its next use.
const KEPT_CAPACITY: usize = 1 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// Taken from the appender and not in the file, oldest first.
    pub(super) unwritten: VecDeque<Chunk>,
    /// In the file and not known to be durable.
    bytes: Vec<u8>,
    segment: usize,
    /// The offset in the segment of the first of these bytes.
    offset: u64,
    /// For each chunk in these bytes, how many of them there are up to its end, and its last LSN.
    ends: VecDeque<(usize, u64)>,
}

/// Consecutive bytes of one segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnflushedBytes<'a> {
    pub(super) segment: usize,
    pub(super) offset: u64,
    pub(super) bytes: &'a [u8],
}

impl Unsettled {
    /// The chunk is in the file, and not known to be durable.
    pub(super) fn keep(&mut self, chunk: &Chunk) {
        if self.ends.is_empty() {
            (self.segment, self.offset) = (chunk.segment, chunk.offset);
        }
        self.bytes.extend_from_slice(&chunk.bytes);
        self.ends.push_back((self.bytes.len(), chunk.last_lsn));
    }

    /// Everything up to `lsn` is durable.
    pub(super) fn settled(&mut self, lsn: u64) {
        let mut settled = 0;
        while let Some((end, _)) = self.ends.front().filter(|(_, last_lsn)| *last_lsn <= lsn) {
            settled = *end;
            self.ends.pop_front();
        }
        if settled == 0 {
            return;
        }
        self.bytes.drain(..settled);
        self.offset += settled as u64;
        self.ends.iter_mut().for_each(|(end, _)| *end -= settled);
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_CAPACITY {
            self.bytes = Vec::new();
        }
    }

    /// What is in the file and not known to be durable.
    pub(super) fn unflushed(&self) -> UnflushedBytes<'_> {
        UnflushedBytes { segment: self.segment, offset: self.offset, bytes: &self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64, bytes: &[u8], last_lsn: u64) -> Chunk {
        Chunk { segment: 1, offset, bytes: bytes.to_vec(), last_lsn, stamped: true }
    }

    #[test]
    fn what_is_not_durable_is_kept_in_order_and_dropped_from_the_front() {
        let mut unsettled = Unsettled::default();
        unsettled.keep(&chunk(100, b"first", 3));
        unsettled.keep(&chunk(105, b"second", 4));
        unsettled.keep(&chunk(111, b"third", 7));
        let all = UnflushedBytes { segment: 1, offset: 100, bytes: b"firstsecondthird" };
        assert_eq!(unsettled.unflushed(), all);
        unsettled.settled(2);
        assert_eq!(unsettled.unflushed(), all);
        unsettled.settled(6);
        let rest = UnflushedBytes { segment: 1, offset: 111, bytes: b"third" };
        assert_eq!(unsettled.unflushed(), rest);
        unsettled.settled(7);
        assert!(unsettled.unflushed().bytes.is_empty());
        unsettled.keep(&chunk(8_192, b"fourth", 8));
        let next = UnflushedBytes { segment: 1, offset: 8_192, bytes: b"fourth" };
        assert_eq!(unsettled.unflushed(), next);
    }
}
