//! The window as redb's storage: redb's header from memory, everything else from the blocks.

use super::super::layout::{BLOCK, HEADER_LEN, REGION_BLOCKS, to_usize};
use super::Window;
use super::blocks::ReadFault;
use super::state::{Mode, WindowState, corrupted, in_context};
use crate::limits::BLOCK_SIZE;
use redb::{BackendError, StorageBackend};
use std::io;
use std::ops::Bound;
use std::sync::atomic::Ordering;

impl StorageBackend for Window {
    fn len(&self) -> io::Result<u64> {
        self.inner.check_readable()?;
        Ok(self.data_len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = &self.inner;
        inner.check_readable()?;
        inner.check_range(offset, out.len())?;
        let (front, rest) = split_block_zero(offset, out.len());
        let (front_out, rest_out) = out.split_at_mut(front);
        if !front_out.is_empty() {
            let header = inner.header.lock();
            let kept = header.pending.iter().copied().chain(std::iter::repeat(0));
            for (to, from) in front_out.iter_mut().zip(kept.skip(to_usize(offset))) {
                *to = from;
            }
        }
        if rest_out.is_empty() {
            return Ok(());
        }
        let result = match inner.read_data(rest, rest_out) {
            Ok(()) => Ok(()),
            Err(ReadFault::Io(error)) => Err(error),
            Err(ReadFault::Damaged { block, detail }) => {
                inner.answer_damage(rest, rest_out, block, detail)
            }
        };
        // If another window replaced this one during the read, it may have overwritten the page.
        result.and_then(|()| inner.check_readable())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let inner = &self.inner;
        let _writing = inner.writes.read();
        inner.check_writable()?;
        if !len.is_multiple_of(BLOCK) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the length is not a multiple of the block size",
            ));
        }
        let mut state = inner.header.lock();
        let current = self.data_len();
        match len.cmp(&current) {
            std::cmp::Ordering::Greater => {
                // The file grows when something is written there.
                state.dirty = true;
                inner.len.store(len, Ordering::Release);
                Ok(())
            }
            std::cmp::Ordering::Less => inner.cut(&mut state, len, len.min(inner.present())),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let inner = &self.inner;
        if inner.is_frozen() {
            return inner.check_readable();
        }
        let _writing = inner.writes.read();
        inner.check_writable()?;
        if self.is_tainted() {
            return Err(io::Error::other(
                "damage was found in the B-tree, which must be reopened before it is written",
            ));
        }
        let mut state = inner.header.lock();
        let written = inner
            .checksums
            .write_dirty()
            .map_err(|error| in_context("writing the checksums of the B-tree", error))?;
        inner.gauges.written.fetch_add(written, Ordering::Relaxed);
        if state.dirty {
            if inner.mode == Mode::Compacting {
                inner.flush_storage()?;
            }
            let (header, len, present) = (state.pending, self.data_len(), inner.present());
            inner.write_header(&mut state, header, len, present)?;
            state.dirty = false;
        } else {
            inner.flush_storage()?;
        }
        inner.unflushed_end.store(0, Ordering::Release);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let inner = &self.inner;
        let _writing = inner.writes.read();
        let (front, rest) = split_block_zero(offset, data.len());
        let (front_data, rest_data) = data.split_at(front);
        if !inner.is_frozen() || !rest_data.is_empty() {
            inner.check_writable()?;
        }
        inner.check_range(offset, data.len())?;
        if !front_data.is_empty() {
            inner.stage_header(to_usize(offset), front_data)?;
        }
        if rest_data.is_empty() {
            return Ok(());
        }
        if rest.is_multiple_of(BLOCK) && rest_data.len().is_multiple_of(BLOCK_SIZE) {
            return inner.write_blocks(rest / BLOCK, rest_data);
        }
        let skip = to_usize(rest % BLOCK);
        let mut blocks = vec![0; (skip + rest_data.len()).next_multiple_of(BLOCK_SIZE)];
        match inner.read_blocks(rest / BLOCK, &mut blocks) {
            Ok(()) => {}
            Err(ReadFault::Io(error)) => return Err(error),
            Err(ReadFault::Damaged { block, detail }) => {
                return Err(corrupted(inner.location(block), &detail));
            }
        }
        for (to, from) in blocks.iter_mut().skip(skip).zip(rest_data) {
            *to = *from;
        }
        inner.write_blocks(rest / BLOCK, &blocks)
    }

    // The room has the lock on the whole file for as long as this window exists, so every lock is
    // granted.

    fn try_lock_range(
        &self,
        _start: Bound<u64>,
        _end: Bound<u64>,
    ) -> std::result::Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(
        &self,
        _start: Bound<u64>,
        _end: Bound<u64>,
    ) -> std::result::Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(
        &self,
        _start: Bound<u64>,
        _end: Bound<u64>,
    ) -> std::result::Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(
        &self,
        _start: Bound<u64>,
        _end: Bound<u64>,
    ) -> std::result::Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(
        &self,
        _start: Bound<u64>,
        _end: Bound<u64>,
    ) -> std::result::Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(
        &self,
        _start: Bound<u64>,
        _end: Bound<u64>,
    ) -> std::result::Result<bool, BackendError> {
        Ok(false)
    }
}

impl WindowState {
    /// Takes what redb writes to its header, from byte `skip` on. The next flush writes it.
    fn stage_header(&self, skip: usize, data: &[u8]) -> io::Result<()> {
        let (kept, lost) = data.split_at(data.len().min(HEADER_LEN.saturating_sub(skip)));
        if lost.iter().any(|&byte| byte != 0) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("redb's header has more than {HEADER_LEN} bytes"),
            ));
        }
        let mut header = self.header.lock();
        for (to, from) in header.pending.iter_mut().skip(skip).zip(kept) {
            *to = *from;
        }
        if let Mode::Creating { region_blocks } = self.mode
            && let Some(field) = header.pending.get_mut(REGION_BLOCKS)
        {
            field.copy_from_slice(&region_blocks.to_le_bytes());
        }
        header.dirty = true;
        Ok(())
    }
}

/// Of `len` bytes at `offset`: how many are in block 0, and the offset of the rest.
fn split_block_zero(offset: u64, len: usize) -> (usize, u64) {
    if offset >= BLOCK {
        return (0, offset);
    }
    (len.min(to_usize(BLOCK - offset)), BLOCK)
}
