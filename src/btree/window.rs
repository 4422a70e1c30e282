//! redb's storage: a window into the file, from an offset to its end, with a checksum per block.
//!
//! The layout is in [`super::layout`]. [`blocks`] says what a read of a damaged block returns. Data
//! blocks are written when redb writes them. redb's block 0, the header with the two commit slots
//! and the byte that selects one, is kept in memory and in two copies on disk.
//!
//! # Why a crash at any point leaves the last commit or the running one
//! 1. A flush writes, after the data blocks, the changed checksum blocks, then *one* copy of the
//!    header, over the copy that is not the newest durable one, and then flushes the storage once.
//!    After a crash before the end of that flush the other copy is intact, with the previous state.
//! 2. redb always commits in two phases here (except in its own compaction: see
//!    [`Mode::Compacting`]). The first flush covers the pages and the inactive commit slot while
//!    the active slot is still the old one, so that either copy that survives names the old commit.
//!    The second flush switches the active slot, when everything that the new commit reaches is
//!    durable.
//! 3. The pages of the last durable commit are never overwritten, and their checksums do not change
//!    (see [`super::checksums`]).
//! 4. After the flush the same copy is written over the older one too, unflushed. The next flush of
//!    the file, by the log or the B-tree, covers it. The next header goes over that same copy, so
//!    that never both copies are unflushed. It protects against damage: without it a flipped bit
//!    in the newest copy would bring back the state before the last commit, which looks valid and
//!    is outdated.
//! 5. The length of redb's storage is part of the header copy. redb derives its layout from the
//!    length when it was not closed cleanly. It grows before the commit that needs more space and
//!    shrinks after the commit that needs less, so both lengths are legal.
//! 6. redb doubles its storage when it needs more. The file has space only for the part up to the
//!    last block that was ever written, plus about [`state::MIN_GROWTH`]; the rest reads as never
//!    written. That part, too, is in the header copy. To grow, the file is extended, and flushed
//!    before a header copy records it. To shrink, the smaller part is made durable before the file
//!    is cut. So the file is never shorter than the header says. Bytes beyond belong to nothing,
//!    and are cut off before the next growth, so that new blocks are zero.
//!
//! # A header in doubt
//! A header that could not be written or flushed, because the disk is full, may be on the disk or
//! not, and may get there later. It names a commit whose pages are durable (2), but only for as
//! long as none of them is written again, and for the durable header they are free. So the window
//! writes nothing more, and the one that succeeds it first makes a header durable that says what
//! the durable one says, with a greater sequence number, over the one in doubt. Everything else
//! that the flush covered belongs to no commit, and is written anew by the next attempt.

mod backend;
mod blocks;
mod state;

use super::checksums::Checksums;
use super::fault::from_io;
use super::layout::{BLOCK, HEADER_LEN, HeaderCopy, copy_position, physical_len};
use crate::error::{Error, Result};
use crate::limits::BLOCK_SIZE;
use crate::storage::{Storage, UnreadableBlock};
use crate::sync::plain::{Mutex, RwLock, RwLockWriteGuard};
use blocks::ReadFault;
#[cfg(test)]
pub(super) use blocks::write_damaged_page;
use state::{
    DEAD, DamagePolicy, HeaderState, LIVE, SEALED, WindowState, corrupted, in_context,
    while_reading,
};
pub(super) use state::{DurableHeader, Mode, WindowGauges};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// A handle to the window. redb has one, the B-tree another.
#[derive(Debug, Clone)]
pub(super) struct Window {
    inner: Arc<WindowState>,
}

impl Window {
    /// An empty window at the end of the storage. redb will divide its storage into regions of
    /// `region_blocks`.
    pub(super) fn create(
        storage: Arc<dyn Storage>,
        offset: u64,
        gauges: Arc<WindowGauges>,
        region_blocks: u32,
    ) -> io::Result<Window> {
        storage
            .set_len(offset + physical_len(0))
            .map_err(|error| in_context("reserving space for the B-tree", error))?;
        let copy = HeaderCopy { sequence: 0, len: 0, present: 0, header: [0; HEADER_LEN] };
        let durable = DurableHeader { copy, slot: 1 };
        let mode = Mode::Creating { region_blocks };
        Ok(Self::with(storage, offset, gauges, durable, physical_len(0), mode))
    }

    /// The window that the storage holds. Nothing is written.
    pub(super) fn open(
        storage: Arc<dyn Storage>,
        offset: u64,
        gauges: Arc<WindowGauges>,
        mode: Mode,
    ) -> io::Result<Window> {
        let location = || format!("header of the B-tree (file offset {offset})");
        let available = storage.len()?.saturating_sub(offset);
        if available < physical_len(0) {
            return Err(corrupted(location(), "the file ends before it"));
        }
        let copies = read_copies(storage.as_ref(), offset)?;
        let Some(durable) =
            copies.into_iter().flatten().max_by_key(|durable| durable.copy.sequence)
        else {
            return Err(corrupted(location(), "neither of its two copies is intact"));
        };
        if available < physical_len(durable.copy.present) {
            let detail = format!(
                "the file has {available} bytes from there on, but {} are in use: the file was cut off",
                physical_len(durable.copy.present)
            );
            return Err(corrupted(format!("B-tree (file offset {offset})"), &detail));
        }
        Ok(Self::with(storage, offset, gauges, durable, available, mode))
    }

    /// Ends [`Mode::Frozen`]: from now on redb may write. What it wrote to its header until now is
    /// written with the next flush. The caller has decided that the file is sound.
    pub(super) fn admit_writes(&self) -> io::Result<()> {
        let inner = &self.inner;
        let copies = read_copies(inner.storage.as_ref(), inner.offset)?;
        if !matches!(copies.as_slice(), [Some(a), Some(b)] if a.copy == b.copy) {
            // The newest copy may not be durable yet, and must be before the other one is
            // overwritten. After a failed flush the system considers it flushed, so it is written
            // again first.
            let durable = inner.header.lock().durable.clone();
            let position = inner.offset + copy_position(durable.slot);
            inner
                .storage
                .write_at(position, &durable.copy.encode())
                .map_err(|error| in_context("writing the header of the B-tree", error))?;
            inner
                .storage
                .sync_data()
                .map_err(|error| in_context("flushing the header of the B-tree", error))?;
        }
        inner.frozen.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Reserves the space that the disk was too full for, if there was any. Until it is there, no
    /// other window need be tried. Bytes behind the B-tree belong to nothing.
    pub(super) fn reserve_wanted(&self) -> io::Result<()> {
        let inner = &self.inner;
        let wanted = inner.gauges.wanted.load(Ordering::Acquire);
        if wanted == 0 {
            return Ok(());
        }
        let end = inner.offset + physical_len(wanted);
        if inner.storage.len()? < end {
            inner.storage.set_len(end).map_err(|error| in_context("growing the B-tree", error))?;
        }
        inner.gauges.wanted.store(0, Ordering::Release);
        Ok(())
    }

    /// The window that one of the two copies of the header describes, whether or not the file still
    /// has all of it. Nothing is written. `None` when that copy is damaged.
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

    /// The sequence number of this state of the B-tree. Greater is newer.
    pub(super) fn sequence(&self) -> u64 {
        self.inner.header.lock().durable.copy.sequence
    }

    /// Ends this window, and returns another one on the same storage, which continues with what is
    /// durable. If it is to write, a header in doubt is replaced before.
    pub(super) fn succeed(&self, mode: Mode) -> io::Result<Window> {
        let durable = self.end();
        let inner = &self.inner;
        let available = inner.storage.len()?.saturating_sub(inner.offset);
        let gauges = inner.gauges.clone();
        let storage = inner.storage.clone();
        let window = Self::with(storage, inner.offset, gauges, durable, available, mode);
        if mode != Mode::Frozen {
            window.inner.replace_header_in_doubt()?;
        }
        Ok(window)
    }

    fn with(
        storage: Arc<dyn Storage>,
        offset: u64,
        gauges: Arc<WindowGauges>,
        durable: DurableHeader,
        physical: u64,
        mode: Mode,
    ) -> Window {
        let (len, present) = (durable.copy.len, durable.copy.present);
        let header = HeaderState { pending: durable.copy.header, dirty: false, durable, physical };
        Window {
            inner: Arc::new(WindowState {
                checksums: Checksums::new(storage.clone(), offset),
                storage,
                offset,
                mode,
                frozen: AtomicBool::new(mode == Mode::Frozen),
                len: AtomicU64::new(len),
                present: AtomicU64::new(present),
                unflushed_end: AtomicU64::new(0),
                header: Mutex::new(header),
                life: AtomicU8::new(LIVE),
                writes: RwLock::new(()),
                strict: Mutex::new(DamagePolicy::AllFail),
                turn: RwLock::new(()),
                tainted: AtomicBool::new(false),
                damage: Mutex::default(),
                gauges,
            }),
        }
    }

    /// redb is open. The first view of it may be made.
    pub(super) fn admit_first_view(&self) {
        *self.inner.strict.lock() = DamagePolicy::Roots;
    }

    /// From now on there may be readers: a damaged block fails only the reads that need it.
    pub(super) fn admit_readers(&self) {
        *self.inner.strict.lock() = DamagePolicy::NoneFails;
    }

    /// Begins the writer's turn of this thread. Readers that find damage wait until it ends.
    pub(super) fn take_turn(&self) -> WriterTurn<'_> {
        let turn = self.inner.turn.write();
        // Everything that a commit refers to is durable, or is written in this turn.
        self.inner.storage.begin_writing();
        *self.inner.strict.lock() = DamagePolicy::ThreadFails(std::thread::current().id());
        WriterTurn { window: self, _turn: turn }
    }

    /// Ends writing through this window. Reads continue.
    pub(super) fn seal(&self) {
        self.inner.life.fetch_max(SEALED, Ordering::SeqCst);
        drop(self.inner.writes.write());
    }

    /// Ends reading and writing through this window. Returns what is durable.
    fn end(&self) -> DurableHeader {
        self.inner.life.store(DEAD, Ordering::SeqCst);
        drop(self.inner.writes.write());
        let newest = self.inner.gauges.durable.lock().clone();
        newest.unwrap_or_else(|| self.inner.header.lock().durable.clone())
    }

    /// Whether redb may write through this window.
    pub(super) fn accepts_writes(&self) -> bool {
        self.inner.check_writable().is_ok() && !self.is_tainted()
    }

    /// Whether a reader got a page that stands for a damaged block. Such a page may be in redb's
    /// cache.
    pub(super) fn is_tainted(&self) -> bool {
        self.inner.tainted.load(Ordering::SeqCst)
    }

    /// The length of redb's storage in bytes.
    pub(super) fn data_len(&self) -> u64 {
        self.inner.len.load(Ordering::Acquire)
    }

    /// How many of those bytes the file has space for.
    pub(super) fn present_len(&self) -> u64 {
        self.inner.present()
    }

    /// What redb wrote to its header last.
    pub(super) fn header(&self) -> [u8; HEADER_LEN] {
        self.inner.header.lock().pending
    }

    /// Reads whole blocks from logical block 1 on, without redb and its cache. A damaged block
    /// fails only this read.
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

    /// What a check of its blocks needs: the storage, the offset of the window in it, and the
    /// checksums.
    pub(super) fn parts(&self) -> (&dyn Storage, u64, &Checksums) {
        let inner = &self.inner;
        (inner.storage.as_ref(), inner.offset, &inner.checksums)
    }

    /// The location of a logical block, for error messages.
    pub(super) fn location(&self, block: u64) -> String {
        self.inner.location(block)
    }

    /// Returns the space beyond the first `to` bytes of redb's storage to the file system, except
    /// blocks that are not flushed yet. No commit or snapshot may refer to it. Returns the length
    /// that remains.
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

    /// The blocks found damaged so far, for error messages, or `None`.
    pub(super) fn damage(&self) -> Option<(String, String)> {
        let damage = self.inner.damage.lock();
        let places: Vec<_> = damage.keys().map(|&block| self.inner.location(block)).collect();
        let detail = damage.values().next()?.clone();
        Some((places.join(", "), detail))
    }
}

/// The two copies of the header. `None` for one that is damaged or cannot be read.
fn read_copies(storage: &dyn Storage, offset: u64) -> io::Result<Vec<Option<DurableHeader>>> {
    let read = |slot| {
        let mut block = vec![0; BLOCK_SIZE];
        match storage.read_at(offset + copy_position(slot), &mut block) {
            Err(error) if UnreadableBlock::of(&error).is_some() => return Ok(None),
            read => {
                read.map_err(|error| while_reading("the header of the B-tree", error))?;
            }
        }
        Ok(HeaderCopy::decode(&block).map(|copy| DurableHeader { copy, slot }))
    };
    (0..2).map(read).collect()
}

/// The writer's turn. It ends when this is dropped.
pub(super) struct WriterTurn<'a> {
    window: &'a Window,
    _turn: RwLockWriteGuard<'a, ()>,
}

impl Drop for WriterTurn<'_> {
    fn drop(&mut self) {
        self.window.admit_readers();
    }
}

/// The error of this crate that an error of the window stands for.
fn as_error(error: io::Error) -> Error {
    from_io(error).into_error()
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestStorage;
    use super::*;
    use redb::StorageBackend;

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
    fn reads_and_writes_need_not_be_aligned_to_blocks() {
        let (storage, window) = create();
        let data: Vec<u8> = (0..300).map(|i| (i % 251) as u8 + 1).collect();
        // Inside a block, across the end of a group, inside the header, and from there into the
        // first data block.
        for offset in [5 * BLOCK + 10, 1025 * BLOCK - 100, 100] {
            window.write(offset, &data).unwrap();
        }
        window.write(BLOCK - 2, &[&[0; 2], &data[..]].concat()).unwrap();
        window.sync_data().unwrap();
        let reopened = Window::open(storage, 0, Arc::default(), Mode::Frozen).unwrap();
        reopened.admit_writes().unwrap();
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
    fn blocks_beyond_the_durable_length_are_zero_after_the_window_grows_again() {
        let (storage, window) = create();
        window.sync_data().unwrap();
        window.set_len(1050 * BLOCK).unwrap();
        window.write(1040 * BLOCK, &[7; BLOCK_SIZE]).unwrap();
        // A crash that loses the header keeps the longer file, the block in it and its checksum.
        window.inner.checksums.write_dirty().unwrap();
        let reopened = Window::open(storage, 0, Arc::default(), Mode::Frozen).unwrap();
        reopened.admit_writes().unwrap();
        assert_eq!(StorageBackend::len(&reopened).unwrap(), 1030 * BLOCK);
        reopened.set_len(1050 * BLOCK).unwrap();
        assert_eq!(read(&reopened, 1030 * BLOCK, 20 * BLOCK_SIZE), vec![0; 20 * BLOCK_SIZE]);
    }

    #[test]
    fn blocks_that_were_cut_off_are_zero_after_the_window_grows_again() {
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
