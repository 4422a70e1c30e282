//! redb's storage: a window into the one file, from an offset to its end, with a checksum per
//! block.
//!
//! The layout is in [`super::layout`]; what a damaged block answers is in [`blocks`]. Data blocks
//! are written through as redb writes them; its block 0, the header with the two commit slots and
//! the byte that chooses between them, lives in memory and in two copies on disk.
//!
//! # Why a crash at any point leaves the last commit or the one in flight
//! 1. A flush writes, after the data blocks, the changed checksum blocks, then *one* copy of the
//!    header over the copy that is not the newest durable one, then flushes the storage once. A
//!    crash before that flush ends finds the other copy, whole, and with it the state before.
//! 2. redb commits in two phases here, always (but for its own compaction: see
//!    [`Mode::Compacting`]): the first flush carries the pages and the inactive commit slot while
//!    the active slot is still the old one, so that whichever copy survives it names the old
//!    commit; the second flips the active slot, when everything the new commit reaches is durable.
//! 3. The pages of the last durable commit are never overwritten, nor do their checksums change
//!    (see [`super::checksums`]).
//! 4. After the flush the same copy is written over the older one too, unflushed; the next flush of
//!    the file, of the log or the B-tree, takes it along, and the next header goes over that same
//!    copy, so that never both are in flight. It is there against damage: without it a flipped bit
//!    in the newest copy would bring back the state before the last commit, which looks right and
//!    is not.
//! 5. The length of redb's storage is part of the header copy. redb takes its layout from the
//!    length when it was not closed cleanly, and grows before, and shrinks after, the commit that
//!    needs it, so that either length is legal for it.
//! 6. redb doubles its storage when it needs more. The file has room only for the part up to the
//!    last block that was ever written, give or take [`MIN_GROWTH`]; the rest reads as never
//!    written. That part, too, is in the header copy. Growing extends the file first, and flushes
//!    that before a header copy says so; cutting makes the smaller part durable before it cuts the
//!    file. So the file is never shorter than the header says, and what is past it belongs to
//!    nobody: it is cut off before the next growth, so that new blocks are zero.

mod blocks;

use super::checksums::Checksums;
use super::fault::from_io;
use super::layout::{
    BLOCK, HEADER_LEN, HeaderCopy, REGION_BLOCKS, copy_position, physical_len, to_usize,
};
use crate::error::{Error, Result};
use crate::limits::BLOCK_SIZE;
use crate::storage::Storage;
use blocks::ReadFault;
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use redb::{BackendError, StorageBackend};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::ThreadId;

/// What may be done through a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Everything.
    Writable,
    /// Everything, and redb's storage gets regions of this many blocks. redb writes the size of a
    /// region into its header once, when it creates a database, and takes it from there ever after.
    /// It offers no way to choose it, so the window puts it there.
    Creating { region_blocks: u32 },
    /// Everything, and a header is written only when all that it may refer to is durable: redb's
    /// own compaction commits in one phase.
    Compacting,
    /// Only reads reach the storage. What redb writes to its header when it opens stays in memory.
    Frozen,
}

/// A handle to the window; redb owns one, the B-tree another.
#[derive(Debug, Clone)]
pub(super) struct Window {
    inner: Arc<Inner>,
}

/// What is known to be durable, from which another window on the same storage goes on.
#[derive(Debug, Clone)]
pub(super) struct Durable {
    copy: HeaderCopy,
    /// Which of the two copies on disk holds it.
    slot: u64,
}

#[derive(Debug)]
struct Inner {
    storage: Arc<dyn Storage>,
    offset: u64,
    mode: Mode,
    /// The length of redb's storage in bytes.
    len: AtomicU64,
    /// The part of it that the file has room for. What is past it was never written.
    present: AtomicU64,
    /// Where the last of the blocks ends that were written since the last flush.
    unflushed_end: AtomicU64,
    header: Mutex<Header>,
    checksums: Checksums,
    /// One of [`LIVE`], [`SEALED`] and [`DEAD`].
    life: AtomicU8,
    /// Held shared by whoever writes, so that sealing waits for writes under way.
    writes: RwLock<()>,
    /// Whom damage is reported to as an error instead of as a page that says so.
    strict: Mutex<Strict>,
    /// Held exclusively by the writer's turn; a reader that met damage waits for it.
    turn: RwLock<()>,
    tainted: AtomicBool,
    /// What was found damaged so far: block and detail.
    damage: Mutex<BTreeMap<u64, String>>,
    gauges: Arc<Gauges>,
}

/// What is counted over all windows of a base.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    /// Bytes written to the storage.
    pub(super) written: AtomicU64,
    /// Whether a flush of the storage failed. Nothing is known then about what it covered.
    pub(super) flush_failed: AtomicBool,
    /// What the last of the windows made durable.
    durable: Mutex<Option<Durable>>,
}

/// Reads and writes go through.
const LIVE: u8 = 0;
/// Only reads go through.
const SEALED: u8 = 1;
/// Nothing goes through: another window has taken over.
const DEAD: u8 = 2;

/// The file grows by this many bytes of the B-tree at least, so that it need not grow for every
/// block.
const MIN_GROWTH: u64 = 16 * BLOCK;

/// The file grows by this part of what the B-tree has.
const GROWTH_DIVISOR: u64 = 16;

/// The most damaged blocks that are remembered for error messages.
const MAX_DAMAGE_NOTED: usize = 8;

#[derive(Debug)]
struct Header {
    /// What redb wrote last.
    pending: [u8; HEADER_LEN],
    /// Whether `pending` or a length differ from what is durable.
    dirty: bool,
    durable: Durable,
    /// The length of the window in the file; at least what the part that is present asks for.
    physical: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strict {
    /// redb is being opened.
    Everyone,
    /// The first view is being made, which reads the roots of the tables. That does not taint: what
    /// makes the page for a damaged block dangerous is that the writer could merge it with a
    /// sibling, and a root has none. Reading on from it fails for the writer as it does for
    /// readers.
    Roots,
    /// This thread has the writer's turn.
    Thread(ThreadId),
    Nobody,
}

impl Window {
    /// An empty window at the end of the storage. redb will divide its storage into regions of
    /// `region_blocks`.
    pub(super) fn create(
        storage: Arc<dyn Storage>,
        offset: u64,
        gauges: Arc<Gauges>,
        region_blocks: u32,
    ) -> io::Result<Window> {
        storage
            .set_len(offset + physical_len(0))
            .map_err(|error| in_context("making room for the B-tree", error))?;
        let copy = HeaderCopy { sequence: 0, len: 0, present: 0, header: [0; HEADER_LEN] };
        let durable = Durable { copy, slot: 1 };
        let mode = Mode::Creating { region_blocks };
        Ok(Self::with(storage, offset, gauges, durable, physical_len(0), mode))
    }

    /// The window as the storage holds it. A frozen one writes nothing.
    pub(super) fn open(
        storage: Arc<dyn Storage>,
        offset: u64,
        gauges: Arc<Gauges>,
        mode: Mode,
    ) -> io::Result<Window> {
        let location = || format!("header of the B-tree (file offset {offset})");
        let available = storage.len()?.saturating_sub(offset);
        if available < physical_len(0) {
            return Err(corrupted(location(), "the file ends before it"));
        }
        let copies = read_copies(storage.as_ref(), offset)?;
        let equal = matches!(copies.as_slice(), [Some(a), Some(b)] if a.copy == b.copy);
        let Some(durable) =
            copies.into_iter().flatten().max_by_key(|durable| durable.copy.sequence)
        else {
            return Err(corrupted(location(), "neither of its two copies is intact"));
        };
        if available < physical_len(durable.copy.present) {
            let detail = format!(
                "the file has {available} bytes from there on, and {} are in use",
                physical_len(durable.copy.present)
            );
            return Err(corrupted(format!("B-tree (file offset {offset})"), &detail));
        }
        if !equal && mode == Mode::Writable {
            // The newest copy may be known to the operating system only. It must be durable before
            // the other one is overwritten. After a failed flush the system takes it for flushed,
            // so it is written again first.
            storage
                .write_at(offset + copy_position(durable.slot), &durable.copy.encode())
                .map_err(|error| in_context("writing the header of the B-tree", error))?;
            storage
                .sync_data()
                .map_err(|error| in_context("flushing the header of the B-tree", error))?;
        }
        Ok(Self::with(storage, offset, gauges, durable, available, mode))
    }

    /// The window as one of the two copies of the header has it, whether or not the file still has
    /// all of it. Nothing is written. `None` when that copy is damaged.
    pub(super) fn open_copy(
        storage: Arc<dyn Storage>,
        offset: u64,
        slot: usize,
    ) -> io::Result<Option<Window>> {
        let available = storage.len()?.saturating_sub(offset);
        let copies = read_copies(storage.as_ref(), offset)?;
        let Some(durable) = copies.into_iter().nth(slot).flatten() else { return Ok(None) };
        Ok(Some(Self::with(storage, offset, Arc::default(), durable, available, Mode::Frozen)))
    }

    /// Which state of the B-tree this is; greater is newer.
    pub(super) fn sequence(&self) -> u64 {
        self.inner.header.lock().durable.copy.sequence
    }

    /// A window on the same storage, from what was durable when this one ended. This one answers
    /// nothing any more.
    pub(super) fn succeed(&self, mode: Mode) -> io::Result<Window> {
        let durable = self.end();
        let inner = &self.inner;
        let available = inner.storage.len()?.saturating_sub(inner.offset);
        let gauges = inner.gauges.clone();
        Ok(Self::with(inner.storage.clone(), inner.offset, gauges, durable, available, mode))
    }

    fn with(
        storage: Arc<dyn Storage>,
        offset: u64,
        gauges: Arc<Gauges>,
        durable: Durable,
        physical: u64,
        mode: Mode,
    ) -> Window {
        let (len, present) = (durable.copy.len, durable.copy.present);
        let header = Header { pending: durable.copy.header, dirty: false, durable, physical };
        Window {
            inner: Arc::new(Inner {
                checksums: Checksums::new(storage.clone(), offset),
                storage,
                offset,
                mode,
                len: AtomicU64::new(len),
                present: AtomicU64::new(present),
                unflushed_end: AtomicU64::new(0),
                header: Mutex::new(header),
                life: AtomicU8::new(LIVE),
                writes: RwLock::new(()),
                strict: Mutex::new(Strict::Everyone),
                turn: RwLock::new(()),
                tainted: AtomicBool::new(false),
                damage: Mutex::default(),
                gauges,
            }),
        }
    }

    /// redb is open; the first view of it may be made.
    pub(super) fn admit_first_view(&self) {
        *self.inner.strict.lock() = Strict::Roots;
    }

    /// From now on readers may be here: a damaged block fails only those who read it.
    pub(super) fn admit_readers(&self) {
        *self.inner.strict.lock() = Strict::Nobody;
    }

    /// The writer's turn of this thread. Readers that meet damage wait until it ends.
    pub(super) fn take_turn(&self) -> HeaderTurn<'_> {
        let turn = self.inner.turn.write();
        *self.inner.strict.lock() = Strict::Thread(std::thread::current().id());
        HeaderTurn { window: self, _turn: turn }
    }

    /// Nothing is written through this window any more; reads go on.
    pub(super) fn seal(&self) {
        self.inner.life.fetch_max(SEALED, Ordering::SeqCst);
        drop(self.inner.writes.write());
    }

    /// Nothing goes through this window any more. Returns what is durable.
    fn end(&self) -> Durable {
        self.inner.life.store(DEAD, Ordering::SeqCst);
        drop(self.inner.writes.write());
        let newest = self.inner.gauges.durable.lock().clone();
        newest.unwrap_or_else(|| self.inner.header.lock().durable.clone())
    }

    /// Whether redb may go on writing through this window.
    pub(super) fn accepts_writes(&self) -> bool {
        self.inner.check_writable().is_ok() && !self.is_tainted()
    }

    /// Whether a reader was given a page that stands for a damaged block. Such a page may be in
    /// redb's cache.
    pub(super) fn is_tainted(&self) -> bool {
        self.inner.tainted.load(Ordering::SeqCst)
    }

    /// The length of redb's storage in bytes.
    pub(super) fn data_len(&self) -> u64 {
        self.inner.len.load(Ordering::Acquire)
    }

    /// How many of those bytes the file has room for.
    pub(super) fn present_len(&self) -> u64 {
        self.inner.present()
    }

    /// What redb wrote to its header last.
    pub(super) fn header(&self) -> [u8; HEADER_LEN] {
        self.inner.header.lock().pending
    }

    /// Reads whole blocks from logical block 1 on, past redb and its cache. A damaged block fails
    /// this read alone.
    pub(super) fn read_blocks(&self, first: u64, out: &mut [u8]) -> Result<()> {
        let inner = &self.inner;
        inner
            .check_readable()
            .and_then(|()| inner.check_range(first * BLOCK, out.len()))
            .map_err(as_error)?;
        match inner.read_blocks(first, out) {
            Ok(()) => inner.check_readable().map_err(as_error),
            Err(ReadFault::Io(error)) => Err(as_error(error)),
            Err(ReadFault::Damaged { block, detail }) => {
                Err(Error::corrupted(inner.location(block), detail))
            }
        }
    }

    /// What its blocks are checked with: the storage, where the window begins in it, and the
    /// checksums.
    pub(super) fn parts(&self) -> (&dyn Storage, u64, &Checksums) {
        let inner = &self.inner;
        (inner.storage.as_ref(), inner.offset, &inner.checksums)
    }

    /// Where a logical block lies, in words.
    pub(super) fn location(&self, block: u64) -> String {
        self.inner.location(block)
    }

    /// Gives the room past the first `to` bytes of redb's storage back to the file system, except
    /// what was written and not flushed yet. Nothing that a commit or a snapshot refers to may lie
    /// there. Returns how much is left.
    pub(super) fn trim(&self, to: u64) -> io::Result<u64> {
        let inner = &self.inner;
        let _writing = inner.writes.read();
        inner.check_writable()?;
        let mut state = inner.header.lock();
        let to =
            to.max(inner.unflushed_end.load(Ordering::Acquire)).max(BLOCK).next_multiple_of(BLOCK);
        if to < inner.present() {
            let len = self.data_len();
            inner.cut(&mut state, len, to)?;
        }
        Ok(inner.present())
    }

    /// The blocks found damaged so far, in words, or `None`.
    pub(super) fn damage(&self) -> Option<(String, String)> {
        let damage = self.inner.damage.lock();
        let places: Vec<_> = damage.keys().map(|&block| self.inner.location(block)).collect();
        let detail = damage.values().next()?.clone();
        Some((places.join(", "), detail))
    }
}

/// The two copies of the header, of which each may be damaged.
fn read_copies(storage: &dyn Storage, offset: u64) -> io::Result<Vec<Option<Durable>>> {
    let read = |slot| {
        let mut block = vec![0; BLOCK_SIZE];
        storage
            .read_at(offset + copy_position(slot), &mut block)
            .map_err(|error| in_context("reading the header of the B-tree", error))?;
        Ok(HeaderCopy::decode(&block).map(|copy| Durable { copy, slot }))
    };
    (0..2).map(read).collect()
}

/// The writer's turn; ends when dropped.
pub(super) struct HeaderTurn<'a> {
    window: &'a Window,
    _turn: RwLockWriteGuard<'a, ()>,
}

impl Drop for HeaderTurn<'_> {
    fn drop(&mut self) {
        self.window.admit_readers();
    }
}

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
        // A page that was read while another window took over may have been overwritten by it.
        result.and_then(|()| inner.check_readable())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let inner = &self.inner;
        let _writing = inner.writes.read();
        inner.check_writable()?;
        if !len.is_multiple_of(BLOCK) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a length that is not in whole blocks",
            ));
        }
        let mut state = inner.header.lock();
        let current = self.data_len();
        match len.cmp(&current) {
            std::cmp::Ordering::Greater => {
                // The file follows when something is written there.
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
        if inner.mode == Mode::Frozen {
            return inner.check_readable();
        }
        let _writing = inner.writes.read();
        inner.check_writable()?;
        if self.is_tainted() {
            return Err(io::Error::other(
                "the B-tree must be reopened after damage before it is written",
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
        if inner.mode != Mode::Frozen || !rest_data.is_empty() {
            inner.check_writable()?;
        }
        inner.check_range(offset, data.len())?;
        if !front_data.is_empty() {
            let skip = to_usize(offset);
            let (kept, lost) =
                front_data.split_at(front_data.len().min(HEADER_LEN.saturating_sub(skip)));
            if lost.iter().any(|&byte| byte != 0) {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("redb's header takes more than {HEADER_LEN} bytes"),
                ));
            }
            let mut header = inner.header.lock();
            for (to, from) in header.pending.iter_mut().skip(skip).zip(kept) {
                *to = *from;
            }
            if let Mode::Creating { region_blocks } = inner.mode
                && let Some(place) = header.pending.get_mut(REGION_BLOCKS)
            {
                place.copy_from_slice(&region_blocks.to_le_bytes());
            }
            header.dirty = true;
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

    // The room holds the lock on the whole file for as long as this window exists, so every lock is
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

/// Of `len` bytes at `offset`: how many lie in block 0, and where the rest begins.
fn split_block_zero(offset: u64, len: usize) -> (usize, u64) {
    if offset >= BLOCK {
        return (0, offset);
    }
    (len.min(to_usize(BLOCK - offset)), BLOCK)
}

/// A system error that carries this crate's own, so that it can be had back from redb's.
fn in_context(context: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Error::io(context, error))
}

/// The error of this crate that an error of the window stands for.
fn as_error(error: io::Error) -> Error {
    from_io(error).into_error()
}

fn corrupted(location: String, detail: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Error::corrupted(location, detail))
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestStorage;
    use super::*;

    fn create() -> (Arc<TestStorage>, Window) {
        let storage = TestStorage::with(vec![]);
        let window = Window::create(storage.clone(), 0, Arc::default(), 512).unwrap();
        window.set_len(1030 * BLOCK).unwrap();
        (storage, window)
    }

    fn read(window: &Window, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![1; len];
        window.read(offset, &mut out).unwrap();
        out
    }

    #[test]
    fn reads_and_writes_need_not_keep_to_blocks() {
        let (storage, window) = create();
        let data: Vec<u8> = (0..300).map(|i| (i % 251) as u8 + 1).collect();
        // Inside a block, over the edge of a group, inside the header, and from there into the
        // first data block.
        for offset in [5 * BLOCK + 10, 1025 * BLOCK - 100, 100] {
            window.write(offset, &data).unwrap();
        }
        window.write(BLOCK - 2, &[&[0; 2], &data[..]].concat()).unwrap();
        window.sync_data().unwrap();
        let reopened = Window::open(storage, 0, Arc::default(), Mode::Writable).unwrap();
        for window in [&window, &reopened] {
            assert_eq!(
                read(window, 5 * BLOCK, 320),
                [vec![0; 10], data.clone(), vec![0; 10]].concat()
            );
            assert_eq!(read(window, 1025 * BLOCK - 100, 300), data);
            assert_eq!(read(window, 90, 320), [vec![0; 10], data.clone(), vec![0; 10]].concat());
            assert_eq!(read(window, BLOCK - 2, 302), [vec![0; 2], data.clone()].concat());
        }
        assert!(window.read(1030 * BLOCK - 1, &mut [0; 2]).is_err());
        assert!(window.write(1030 * BLOCK, &[0]).is_err());
    }

    #[test]
    fn what_lies_past_the_durable_length_is_empty_when_the_window_grows_again() {
        let (storage, window) = create();
        window.sync_data().unwrap();
        window.set_len(1050 * BLOCK).unwrap();
        window.write(1040 * BLOCK, &[7; BLOCK_SIZE]).unwrap();
        // A crash that lost the header keeps the longer file, the block in it and its checksum.
        window.inner.checksums.write_dirty().unwrap();
        let reopened = Window::open(storage, 0, Arc::default(), Mode::Writable).unwrap();
        assert_eq!(StorageBackend::len(&reopened).unwrap(), 1030 * BLOCK);
        reopened.set_len(1050 * BLOCK).unwrap();
        assert_eq!(read(&reopened, 1030 * BLOCK, 20 * BLOCK_SIZE), vec![0; 20 * BLOCK_SIZE]);
    }

    #[test]
    fn what_was_cut_off_is_empty_when_the_window_grows_again() {
        let (_, window) = create();
        window.write(1028 * BLOCK, &[7; BLOCK_SIZE]).unwrap();
        window.sync_data().unwrap();
        window.set_len(1027 * BLOCK).unwrap();
        window.set_len(1030 * BLOCK).unwrap();
        assert_eq!(read(&window, 1028 * BLOCK, BLOCK_SIZE), vec![0; BLOCK_SIZE]);
    }

    #[test]
    fn a_header_that_does_not_fit_its_copy_is_refused() {
        let (_, window) = create();
        assert!(window.write(HEADER_LEN as u64, &[0, 1]).is_err());
        assert!(window.write(HEADER_LEN as u64, &[0; 9]).is_ok());
    }
}
