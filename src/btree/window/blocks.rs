//! Reading, writing and resizing the blocks behind the window.
//!
//! # Damage
//! redb refuses everything after a read that failed. So that one damaged block does not take the
//! intact ones with it, a reader that meets it is given, instead of an error, a page that says of
//! itself to be damaged: an inner node whose only child cannot exist, at which redb answers
//! `Corrupted` without failing the storage. The writer must never build on such a page: it is given
//! the error, and the reader waits until the writer is done, and the window then accepts no flush
//! any more ([`Window::is_tainted`](super::Window::is_tainted)).

use super::super::layout::{
    BLOCK, HEADER_LEN, HeaderCopy, copy_position, data_position, physical_len, place, to_usize,
};
use super::{
    DEAD, Durable, GROWTH_DIVISOR, Header, Inner, LIVE, MAX_DAMAGE_NOTED, MIN_GROWTH, Mode, Strict,
    corrupted, in_context,
};
use crate::limits::BLOCK_SIZE;
use std::io;
use std::sync::atomic::Ordering;

/// Why blocks could not be read.
pub(super) enum ReadFault {
    Io(io::Error),
    Damaged { block: u64, detail: String },
}

impl From<io::Error> for ReadFault {
    fn from(error: io::Error) -> Self {
        ReadFault::Io(error)
    }
}

impl Inner {
    pub(super) fn location(&self, block: u64) -> String {
        format!("B-tree block {block} (file offset {})", self.offset + data_position(block))
    }

    /// The part of redb's storage that the file has room for.
    pub(super) fn present(&self) -> u64 {
        self.present.load(Ordering::Acquire)
    }

    pub(super) fn check_readable(&self) -> io::Result<()> {
        match self.life.load(Ordering::SeqCst) {
            DEAD => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the B-tree was reopened")),
            _ => Ok(()),
        }
    }

    pub(super) fn check_writable(&self) -> io::Result<()> {
        match (self.life.load(Ordering::SeqCst), self.mode) {
            (LIVE, Mode::Writable | Mode::Creating { .. } | Mode::Compacting) => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the B-tree takes no writes any more",
            )),
        }
    }

    pub(super) fn check_range(&self, offset: u64, len: usize) -> io::Result<()> {
        let end = offset.checked_add(len as u64);
        let limit = self.len.load(Ordering::Acquire);
        if end.is_none_or(|end| end > limit) {
            let detail = format!("{len} bytes at {offset} are past its end at {limit}");
            return Err(corrupted("B-tree".to_owned(), &detail));
        }
        Ok(())
    }

    /// Reads whole blocks, from logical block 1 on.
    pub(super) fn read_blocks(&self, first: u64, mut out: &mut [u8]) -> Result<(), ReadFault> {
        let mut block = first;
        while !out.is_empty() {
            let present = self.present();
            let in_file = (present / BLOCK).saturating_sub(block);
            if in_file == 0 {
                // What the file has no room for was never written.
                out.fill(0);
                break;
            }
            let (group, count) =
                run(block, out.len().min(to_usize(in_file).saturating_mul(BLOCK_SIZE)));
            let (part, rest) = out.split_at_mut(count * BLOCK_SIZE);
            out = rest;
            let position = self.offset + data_position(block);
            self.storage.read_at(position, part).map_err(|error| {
                in_context(&format!("reading the B-tree at file offset {position}"), error)
            })?;
            let checksums = self.checksums.group(group, present)?;
            for data in part.chunks_exact_mut(BLOCK_SIZE) {
                if checksums.verify(block, data).is_err() {
                    // Once more, in case the transfer was at fault and not the disk.
                    self.storage.read_at(self.offset + data_position(block), data)?;
                    if let Err(detail) = checksums.verify(block, data) {
                        return Err(ReadFault::Damaged { block, detail });
                    }
                }
                block += 1;
            }
        }
        Ok(())
    }

    /// Writes whole blocks, from logical block 1 on.
    pub(super) fn write_blocks(&self, first: u64, mut data: &[u8]) -> io::Result<()> {
        let mut block = first;
        let end = first * BLOCK + data.len() as u64;
        self.make_present(end)?;
        self.unflushed_end.fetch_max(end, Ordering::AcqRel);
        while !data.is_empty() {
            let (group, count) = run(block, data.len());
            let (part, rest) = data.split_at(count * BLOCK_SIZE);
            data = rest;
            let checksums = self.checksums.group(group, self.present())?;
            let position = self.offset + data_position(block);
            self.write_storage(position, part)?;
            for data in part.chunks_exact(BLOCK_SIZE) {
                checksums.record(block, data);
                block += 1;
            }
            self.checksums.mark_dirty(group);
        }
        Ok(())
    }

    pub(super) fn write_storage(&self, position: u64, data: &[u8]) -> io::Result<()> {
        self.storage.write_at(position, data).map_err(|error| {
            in_context(&format!("writing the B-tree at file offset {position}"), error)
        })?;
        self.gauges.written.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Reads what lies anywhere after block 0, whole blocks or not.
    pub(super) fn read_data(&self, offset: u64, out: &mut [u8]) -> Result<(), ReadFault> {
        if offset.is_multiple_of(BLOCK) && out.len().is_multiple_of(BLOCK_SIZE) {
            return self.read_blocks(offset / BLOCK, out);
        }
        let skip = to_usize(offset % BLOCK);
        let mut blocks = vec![0; (skip + out.len()).next_multiple_of(BLOCK_SIZE)];
        self.read_blocks(offset / BLOCK, &mut blocks)?;
        for (to, from) in out.iter_mut().zip(blocks.iter().skip(skip)) {
            *to = *from;
        }
        Ok(())
    }

    /// What a read of a damaged block answers. See "Damage" in the module's documentation.
    pub(super) fn answer_damage(
        &self,
        offset: u64,
        out: &mut [u8],
        block: u64,
        detail: String,
    ) -> io::Result<()> {
        {
            let mut damage = self.damage.lock();
            if damage.len() < MAX_DAMAGE_NOTED {
                damage.insert(block, detail.clone());
            }
        }
        let strict = *self.strict.lock();
        let whole_page = offset.is_multiple_of(BLOCK) && out.len().is_multiple_of(BLOCK_SIZE);
        let is_writer = strict == Strict::Thread(std::thread::current().id());
        if strict == Strict::Everyone || is_writer || !whole_page {
            return Err(corrupted(self.location(block), &detail));
        }
        if strict != Strict::Roots {
            let _no_writer = self.turn.read();
            self.check_readable()?;
            self.tainted.store(true, Ordering::SeqCst);
        }
        write_damaged_page(out);
        Ok(())
    }

    pub(super) fn flush_storage(&self) -> io::Result<()> {
        self.storage.sync_data().map_err(|error| {
            self.gauges.flush_failed.store(true, Ordering::SeqCst);
            in_context("flushing the B-tree", error)
        })
    }

    /// Makes `header` and the lengths durable, with everything that was written before.
    pub(super) fn write_header(
        &self,
        state: &mut Header,
        header: [u8; HEADER_LEN],
        len: u64,
        present: u64,
    ) -> io::Result<()> {
        if present > state.durable.copy.present {
            // A header that survives a crash must not speak of a length that did not.
            self.flush_storage()?;
        }
        let copy = HeaderCopy { sequence: state.durable.copy.sequence + 1, len, present, header };
        let slot = 1 - state.durable.slot;
        let bytes = copy.encode();
        self.write_storage(self.offset + copy_position(slot), &bytes)?;
        self.flush_storage()?;
        let older = state.durable.slot;
        state.durable = Durable { copy, slot };
        *self.gauges.durable.lock() = Some(state.durable.clone());
        // The twin is a precaution against damage. When it cannot be written the header is durable
        // all the same, and the next one goes over the twin.
        let _ = self.write_storage(self.offset + copy_position(older), &bytes);
        Ok(())
    }

    /// Sees to it that the file has room for the first `end` bytes of redb's storage.
    fn make_present(&self, end: u64) -> io::Result<()> {
        let present = self.present();
        if end <= present {
            return Ok(());
        }
        let mut state = self.header.lock();
        let ahead = MIN_GROWTH.max(present / GROWTH_DIVISOR).next_multiple_of(BLOCK);
        let generous = end.saturating_add(ahead).min(self.len.load(Ordering::Acquire)).max(end);
        match self.extend(&mut state, present, generous) {
            // The disk may still have what is needed now.
            Err(_) if generous > end => self.extend(&mut state, present, end),
            outcome => outcome,
        }
    }

    fn extend(&self, state: &mut Header, from: u64, to: u64) -> io::Result<()> {
        let context = |error| in_context("growing the B-tree", error);
        if state.physical > physical_len(from) {
            self.storage.set_len(self.offset + physical_len(from)).map_err(context)?;
            state.physical = physical_len(from);
        }
        self.checksums.grow_from(from)?;
        let result = self.storage.set_len(self.offset + physical_len(to)).map_err(context);
        // A growth that failed may have gone part of the way.
        state.physical = match result {
            Ok(()) => physical_len(to),
            Err(_) => u64::MAX,
        };
        result?;
        state.dirty = true;
        self.present.store(to, Ordering::Release);
        Ok(())
    }

    /// Leaves redb's storage with this length, and the file with room for this part of it, which is
    /// no larger than before. The header that goes with it is the durable one: redb may have begun
    /// to write another.
    pub(super) fn cut(&self, state: &mut Header, len: u64, present: u64) -> io::Result<()> {
        self.checksums.shrink_to(present)?;
        self.len.store(len, Ordering::Release);
        self.present.store(present, Ordering::Release);
        let header = state.durable.copy.header;
        self.write_header(state, header, len, present)?;
        // A file that stays longer is legal, and the next growth cuts it.
        if state.physical > physical_len(present)
            && self.storage.set_len(self.offset + physical_len(present)).is_ok()
        {
            state.physical = physical_len(present);
        }
        Ok(())
    }
}

/// The group of a block, and how many of the blocks in `len` bytes from it on lie in that group.
fn run(block: u64, len: usize) -> (u64, usize) {
    let (group, slot) = place(block);
    (group, (len / BLOCK_SIZE).min(BLOCK_SIZE / 4 - slot))
}

/// Writes redb's page for a damaged block: an inner node (type 2) with no keys and one child, whose
/// page number is of order 31, which redb refuses as corrupted.
fn write_damaged_page(out: &mut [u8]) {
    const INNER_NODE: u8 = 2;
    const CHILD_NUMBER: std::ops::Range<usize> = 24..32;
    out.fill(0);
    if let Some(first) = out.first_mut() {
        *first = INNER_NODE;
    }
    if let Some(child) = out.get_mut(CHILD_NUMBER) {
        child.fill(0xFF);
    }
}
