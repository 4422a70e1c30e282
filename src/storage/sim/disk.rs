//! A simulated disk: its durable content, what reads see, and the unflushed operations in between.
//!
//! Invariants:
//! 1. `durable` with every operation of `unflushed` applied in order is `current`, except after an
//!    operation that was interrupted, which is the last, and except for what was dropped after a
//!    failed flush.
//! 2. No operation of `unflushed` covers a byte that was made durable after it. So a crash image
//!    can apply any part of them over `durable` without undoing a flush.
//! 3. `durable` has the length of the last flush. Lengths become durable in the order in which they
//!    were set, as in a journal.

#![expect(clippy::indexing_slicing, reason = "a test double: an index out of range is its own bug")]

use crate::storage::memory::resize;
use std::io;

/// The unit that a device writes completely or not at all.
const SECTOR_SIZE: usize = 512;

#[derive(Debug)]
pub(super) struct SimDisk {
    durable: Vec<u8>,
    current: Vec<u8>,
    unflushed: Vec<UnflushedOp>,
}

#[derive(Debug)]
enum UnflushedOp {
    Write(UnflushedWrite),
    SetLen(usize),
}

#[derive(Debug)]
struct UnflushedWrite {
    offset: usize,
    data: Vec<u8>,
    /// Its flush failed, and no later one covers it.
    in_limbo: bool,
}

impl UnflushedWrite {
    fn end(&self) -> usize {
        self.offset + self.data.len()
    }

    /// Drops the part from `len` on.
    fn truncate(&mut self, len: usize) {
        self.data.truncate(len.saturating_sub(self.offset));
    }

    /// Drops the part in `from..to`, which may leave a part on either side.
    fn without(mut self, from: usize, to: usize) -> [Option<UnflushedWrite>; 2] {
        let tail = (self.end() > to).then(|| {
            let offset = to.max(self.offset);
            UnflushedWrite {
                offset,
                data: self.data[offset - self.offset..].to_vec(),
                in_limbo: self.in_limbo,
            }
        });
        self.truncate(from);
        [Some(self).filter(|head| !head.data.is_empty()), tail]
    }
}

impl SimDisk {
    pub(super) fn new(image: Vec<u8>) -> Self {
        Self { durable: image.clone(), current: image, unflushed: Vec::new() }
    }

    pub(super) fn current(&self) -> &[u8] {
        &self.current
    }

    /// Writes within the length. The caller has checked that, here and for the other kinds of
    /// write.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        self.push_write(position(offset), data, data.len(), false);
    }

    /// A write that a crash interrupted: reads would see `seen` bytes of it, and the disk may have
    /// any of its sectors.
    pub(super) fn write_in_flight(&mut self, offset: u64, data: &[u8], seen: usize) {
        self.push_write(position(offset), data, seen, false);
    }

    /// A write whose flush failed.
    pub(super) fn write_in_limbo(&mut self, offset: u64, data: &[u8]) {
        self.push_write(position(offset), data, data.len(), true);
    }

    fn push_write(&mut self, offset: usize, data: &[u8], seen: usize, in_limbo: bool) {
        overlay(&mut self.current, offset, &data[..seen]);
        if !data.is_empty() {
            self.unflushed.push(UnflushedOp::Write(UnflushedWrite {
                offset,
                data: data.to_vec(),
                in_limbo,
            }));
        }
    }

    /// Writes, and makes these bytes durable, and the length if they need it.
    pub(super) fn write_durable(&mut self, offset: u64, data: &[u8]) {
        let offset = position(offset);
        let end = offset + data.len();
        overlay(&mut self.current, offset, data);
        let needs_len = |len: usize| len < end;
        let is_below = |op: &UnflushedOp| matches!(op, UnflushedOp::SetLen(len) if needs_len(*len));
        if needs_len(self.durable.len()) || self.unflushed.iter().any(is_below) {
            self.make_durable(false);
        }
        self.forget(offset, end);
        overlay(&mut self.durable, offset, data);
    }

    /// Makes everything durable that is not in limbo.
    pub(super) fn flush(&mut self) {
        self.make_durable(true);
    }

    /// Makes the length durable and, with `writes`, the writes that are not in limbo.
    fn make_durable(&mut self, writes: bool) {
        for op in std::mem::take(&mut self.unflushed) {
            match op {
                UnflushedOp::SetLen(len) => {
                    self.durable.resize(len, 0);
                    for earlier in &mut self.unflushed {
                        if let UnflushedOp::Write(write) = earlier {
                            write.truncate(len);
                        }
                    }
                }
                UnflushedOp::Write(write) if writes && !write.in_limbo => {
                    self.forget(write.offset, write.end());
                    overlay(&mut self.durable, write.offset, &write.data);
                }
                UnflushedOp::Write(write) => self.unflushed.push(UnflushedOp::Write(write)),
            }
        }
        self.unflushed
            .retain(|op| !matches!(op, UnflushedOp::Write(write) if write.data.is_empty()));
    }

    /// Drops the part of the unflushed writes that newer, durable bytes at `from..to` have
    /// replaced.
    fn forget(&mut self, from: usize, to: usize) {
        let overlaps = |op: &UnflushedOp| matches!(op, UnflushedOp::Write(w) if w.offset < to && from < w.end());
        if !self.unflushed.iter().any(overlaps) {
            return;
        }
        for op in std::mem::take(&mut self.unflushed) {
            match op {
                UnflushedOp::Write(write) => {
                    self.unflushed.extend(
                        write.without(from, to).into_iter().flatten().map(UnflushedOp::Write),
                    );
                }
                UnflushedOp::SetLen(_) => self.unflushed.push(op),
            }
        }
    }

    /// Puts every unflushed write in limbo.
    pub(super) fn fail_flush(&mut self) {
        for op in &mut self.unflushed {
            if let UnflushedOp::Write(write) = op {
                write.in_limbo = true;
            }
        }
    }

    /// The system gives up the pages that it could not flush: reads see what the disk had.
    pub(super) fn drop_unflushed(&mut self) {
        let len = self.current.len();
        self.current.clone_from(&self.durable);
        self.current.resize(len, 0);
    }

    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.set_len_in_flight(len, true)
    }

    /// A change of length that a crash may have interrupted: reads would see it or not.
    pub(super) fn set_len_in_flight(&mut self, len: u64, seen: bool) -> io::Result<()> {
        if len == self.current.len() as u64 {
            return Ok(());
        }
        if seen {
            resize(&mut self.current, len)?;
        }
        self.unflushed.push(UnflushedOp::SetLen(position(len)));
        Ok(())
    }

    /// Flips bits of a byte in every copy of it, so that every crash image has them flipped.
    pub(super) fn flip_bits(&mut self, offset: u64, bits: u8) {
        let offset = position(offset);
        self.current[offset] ^= bits;
        if let Some(byte) = self.durable.get_mut(offset) {
            *byte ^= bits;
        }
        for op in &mut self.unflushed {
            if let UnflushedOp::Write(write) = op
                && (write.offset..write.end()).contains(&offset)
            {
                write.data[offset - write.offset] ^= bits;
            }
        }
    }

    pub(super) fn crash_image(&self, seed: u64) -> Vec<u8> {
        match seed {
            0 => self.durable.clone(),
            1 => self.image(&mut CrashFate::keeping_everything()),
            _ => self.image(&mut CrashFate::new(seed, self.set_lens())),
        }
    }

    fn set_lens(&self) -> usize {
        self.unflushed.iter().filter(|op| matches!(op, UnflushedOp::SetLen(_))).count()
    }

    fn image(&self, fate: &mut CrashFate) -> Vec<u8> {
        let mut image = self.durable.clone();
        for op in &self.unflushed {
            match op {
                UnflushedOp::SetLen(len) => {
                    if fate.keeps_len() {
                        image.resize(*len, 0);
                    }
                }
                UnflushedOp::Write(write) => {
                    let sectors = write.offset / SECTOR_SIZE..write.end().div_ceil(SECTOR_SIZE);
                    fate.begin_write(sectors.len());
                    for (index, sector) in sectors.enumerate() {
                        if fate.keeps_sector(index) {
                            let from = write.offset.max(sector * SECTOR_SIZE);
                            let to = write.end().min((sector + 1) * SECTOR_SIZE);
                            overlay(
                                &mut image,
                                from,
                                &write.data[from - write.offset..to - write.offset],
                            );
                        }
                    }
                }
            }
        }
        image
    }
}

/// What one crash keeps.
struct CrashFate {
    rng: fastrand::Rng,
    /// How many changes of length it still keeps, from the first on.
    lens: usize,
    /// Of 16 writes, how many are kept completely and how many are torn. The rest are lost.
    whole: u8,
    torn: u8,
    write: WriteFate,
}

/// What a crash keeps of one write.
enum WriteFate {
    All,
    Nothing,
    /// This many sectors from the first on.
    Prefix(usize),
    /// All but this many sectors from the first on.
    Suffix(usize),
    /// Each sector or not, at random.
    Scattered,
}

impl CrashFate {
    fn keeping_everything() -> Self {
        Self {
            rng: fastrand::Rng::with_seed(1),
            lens: usize::MAX,
            whole: 16,
            torn: 0,
            write: WriteFate::Nothing,
        }
    }

    fn new(seed: u64, set_lens: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let lens = match rng.u8(0..4) {
            0 => 0,
            1 => set_lens,
            _ => rng.usize(0..=set_lens),
        };
        // A crash that loses or keeps nearly everything finds other bugs than one with an even
        // mixture, and random choices for each write alone would almost never yield one.
        let (whole, torn) = match rng.u8(0..5) {
            0 => (1, 1),
            1 => (14, 1),
            2 => (0, 16),
            3 => (8, 0),
            _ => (6, 4),
        };
        Self { rng, lens, whole, torn, write: WriteFate::Nothing }
    }

    fn keeps_len(&mut self) -> bool {
        let keeps = self.lens > 0;
        self.lens = self.lens.saturating_sub(1);
        keeps
    }

    fn begin_write(&mut self, sectors: usize) {
        let lot = self.rng.u8(0..16);
        self.write = if lot < self.whole {
            WriteFate::All
        } else if lot < self.whole + self.torn {
            match self.rng.u8(0..3) {
                0 => WriteFate::Prefix(self.rng.usize(0..=sectors)),
                1 => WriteFate::Suffix(self.rng.usize(0..=sectors)),
                _ => WriteFate::Scattered,
            }
        } else {
            WriteFate::Nothing
        };
    }

    fn keeps_sector(&mut self, index: usize) -> bool {
        match self.write {
            WriteFate::All => true,
            WriteFate::Nothing => false,
            WriteFate::Prefix(sectors) => index < sectors,
            WriteFate::Suffix(sectors) => index >= sectors,
            WriteFate::Scattered => self.rng.bool(),
        }
    }
}

/// Copies the part of `data` at `offset` that is within the image.
fn overlay(image: &mut [u8], offset: usize, data: &[u8]) {
    if let Some(target) = image.get_mut(offset..) {
        let len = target.len().min(data.len());
        target[..len].copy_from_slice(&data[..len]);
    }
}

/// An offset or length that was checked against memory, so that it fits.
fn position(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
