//! Reading, writing and resizing the blocks of the window.
//!
//! # Damage
//! redb refuses every call after a read that failed. So that one damaged block does not make the
//! intact ones unreadable, a reader of it gets, instead of an error, a page that redb rejects: a
//! branch whose only child cannot exist. redb then returns `Corrupted` without failing the storage.
//! The writer must never build on such a page: it gets the error. A reader waits until the writer
//! is done, and then the window accepts no flush any more
//! ([`Window::is_tainted`](super::Window::is_tainted)).

use super::super::layout::{
    BLOCK, HEADER_LEN, HeaderCopy, copy_position, data_position, group_and_index, physical_len,
    to_usize,
};
use super::state::{
    DEAD, DamagePolicy, DurableHeader, GROWTH_DIVISOR, HeaderState, LIVE, MAX_DAMAGE_NOTED,
    MIN_GROWTH, SEALED, WindowState, corrupted, in_context, while_reading,
};
use crate::error::is_disk_full;
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

impl WindowState {
    pub(super) fn location(&self, block: u64) -> String {
        format!("B-tree block {block} (file offset {})", self.offset + data_position(block))
    }

    /// How many bytes of redb's storage the file has space for.
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
        if self.life.load(Ordering::SeqCst) == LIVE && !self.is_frozen() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::BrokenPipe, "the B-tree accepts no writes any more"))
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst)
    }

    pub(super) fn check_range(&self, offset: u64, len: usize) -> io::Result<()> {
        let end = offset.checked_add(len as u64);
        let limit = self.len.load(Ordering::Acquire);
        if end.is_none_or(|end| end > limit) {
            let detail = format!("{len} bytes at {offset} are beyond its end at {limit}");
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
                // Blocks that the file has no space for were never written.
                out.fill(0);
                break;
            }
            let (group, count) =
                run(block, out.len().min(to_usize(in_file).saturating_mul(BLOCK_SIZE)));
            let (part, rest) = out.split_at_mut(count * BLOCK_SIZE);
            out = rest;
            let position = self.offset + data_position(block);
            self.storage.read_at(position, part).map_err(|error| {
                while_reading(&format!("the B-tree at file offset {position}"), error)
            })?;
            let checksums = self.checksums.group(group, present)?;
            for data in part.chunks_exact_mut(BLOCK_SIZE) {
                if checksums.verify(block, data).is_err() {
                    // Read again, in case the transfer failed and not the disk.
                    let position = self.offset + data_position(block);
                    self.storage.read_at(position, data).map_err(|error| {
                        while_reading(&format!("the B-tree at file offset {position}"), error)
                    })?;
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

    /// Reads any bytes after block 0, aligned to blocks or not.
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

    /// What a read of a damaged block returns. See "Damage" in the module's documentation.
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
        let is_writer = strict == DamagePolicy::ThreadFails(std::thread::current().id());
        if strict == DamagePolicy::AllFail || is_writer || !whole_page {
            return Err(corrupted(self.location(block), &detail));
        }
        if strict != DamagePolicy::Roots {
            let _no_writer = self.turn.read();
            self.check_readable()?;
            self.tainted.store(true, Ordering::SeqCst);
        }
        write_damaged_page(out);
        Ok(())
    }

    pub(super) fn flush_storage(&self) -> io::Result<()> {
        self.storage.sync_data().map_err(|error| {
            // This window writes nothing more. After a full disk another one may.
            self.life.fetch_max(SEALED, Ordering::SeqCst);
            if !is_disk_full(&error) {
                self.gauges.flush_failed.store(true, Ordering::SeqCst);
            }
            in_context("flushing the B-tree", error)
        })
    }

    /// Makes `header` and the lengths durable, with everything written before.
    pub(super) fn write_header(
        &self,
        state: &mut HeaderState,
        header: [u8; HEADER_LEN],
        len: u64,
        present: u64,
    ) -> io::Result<()> {
        if present > state.durable.copy.present {
            // A header that survives a crash must not name a length that did not.
            self.flush_storage()?;
        }
        // A header in doubt, which has the place of this one, must not count as newer.
        let last = self.gauges.last_sequence.load(Ordering::SeqCst);
        let sequence = state.durable.copy.sequence.max(last) + 1;
        self.gauges.last_sequence.store(sequence, Ordering::SeqCst);
        let copy = HeaderCopy { sequence, len, present, header };
        let slot = 1 - state.durable.slot;
        let bytes = copy.encode();
        self.gauges.header_in_doubt.store(true, Ordering::SeqCst);
        self.write_storage(self.offset + copy_position(slot), &bytes)
            .and_then(|()| self.flush_storage())
            .inspect_err(|_| {
                self.life.fetch_max(SEALED, Ordering::SeqCst);
            })?;
        self.gauges.header_in_doubt.store(false, Ordering::SeqCst);
        let older = state.durable.slot;
        state.durable = DurableHeader { copy, slot };
        *self.gauges.durable.lock() = Some(state.durable.clone());
        // The second copy protects against damage. If it cannot be written, the header is durable
        // anyway, and the next one goes over this copy.
        let _ = self.write_storage(self.offset + copy_position(older), &bytes);
        Ok(())
    }

    /// Makes a header durable that says what the durable one says, in the place of one that is in
    /// doubt, if there is one.
    pub(super) fn replace_header_in_doubt(&self) -> io::Result<()> {
        if !self.gauges.header_in_doubt.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut state = self.header.lock();
        let HeaderCopy { len, present, header, .. } = state.durable.copy;
        self.write_header(&mut state, header, len, present)
    }

    /// Makes sure that the file has space for the first `end` bytes of redb's storage.
    fn make_present(&self, end: u64) -> io::Result<()> {
        let present = self.present();
        if end <= present {
            return Ok(());
        }
        let mut state = self.header.lock();
        let ahead = MIN_GROWTH.max(present / GROWTH_DIVISOR).next_multiple_of(BLOCK);
        let generous = end.saturating_add(ahead).min(self.len.load(Ordering::Acquire)).max(end);
        let extended = match self.extend(&mut state, present, generous) {
            // The disk may still have the space that is needed now.
            Err(_) if generous > end => self.extend(&mut state, present, end),
            outcome => outcome,
        };
        if extended.is_err() {
            self.gauges.wanted.fetch_max(end, Ordering::AcqRel);
        }
        extended
    }

    fn extend(&self, state: &mut HeaderState, from: u64, to: u64) -> io::Result<()> {
        let context = |error| in_context("growing the B-tree", error);
        if state.physical > physical_len(from) {
            self.storage.set_len(self.offset + physical_len(from)).map_err(context)?;
            state.physical = physical_len(from);
        }
        self.checksums.grow_from(from)?;
        let result = self.storage.set_len(self.offset + physical_len(to)).map_err(context);
        // A failed growth may have extended the file in part.
        state.physical = match result {
            Ok(()) => physical_len(to),
            Err(_) => u64::MAX,
        };
        result?;
        state.dirty = true;
        self.present.store(to, Ordering::Release);
        Ok(())
    }

    /// Shortens redb's storage to this length, and the file to space for `present` bytes of it,
    /// which is at most what it had. The header written with it is the durable one, because redb
    /// may have begun to write another.
    pub(super) fn cut(&self, state: &mut HeaderState, len: u64, present: u64) -> io::Result<()> {
        self.checksums.shrink_to(present)?;
        self.len.store(len, Ordering::Release);
        self.present.store(present, Ordering::Release);
        let header = state.durable.copy.header;
        self.write_header(state, header, len, present)?;
        // A longer file is legal, and the next growth cuts it.
        if state.physical > physical_len(present)
            && self.storage.set_len(self.offset + physical_len(present)).is_ok()
        {
            state.physical = physical_len(present);
        }
        Ok(())
    }
}

/// The group of a block, and how many of the blocks in `len` bytes from it on are in that group.
fn run(block: u64, len: usize) -> (u64, usize) {
    let (group, slot) = group_and_index(block);
    (group, (len / BLOCK_SIZE).min(BLOCK_SIZE / 4 - slot))
}

/// Writes the page that stands for a damaged block: a branch (type 2) with no keys and one child,
/// whose page number has order 31, which redb rejects as corrupted.
pub(in crate::btree) fn write_damaged_page(out: &mut [u8]) {
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
