//! The check of the window: both copies of the header, every block against its checksum, and the
//! tree by redb's own check. Nothing is written, and damage is reported without ending the walk.

use super::checksums::Checksums;
use super::layout::{
    BLOCK, GROUP_BLOCKS, HeaderCopy, SECTOR, checksums_position, copy_position, data_position,
    physical_len, to_usize,
};
use super::pages::{Depth, Pages, Roots, Tables, Tree, Visit};
use super::redb_call::guarded;
use super::window::{Mode, Window};
use super::{Btree, opening};
use crate::error::{Error, Result};
use crate::limits::BLOCK_SIZE;
use crate::storage::Storage;
use crate::sync::plain::Mutex;
use redb::{BackendError, Database, StorageBackend};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most damaged blocks for which it is found out whether anything needs them.
const MAX_BLOCKS_TRACED: usize = 1 << 20;

/// A difference between the window and what was written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WindowFault {
    /// Its offset in the file.
    pub(crate) offset: u64,
    /// What it concerns.
    pub(crate) kind: FaultKind,
    /// What is wrong.
    pub(crate) detail: String,
}

/// What a [`WindowFault`] concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The window cannot be used: no header is intact, or the file ends inside it.
    Whole,
    /// One of the two copies of the header.
    HeaderCopy,
    /// No damage: a crash leaves this state, or nothing reads these bytes.
    Harmless,
    /// This block of redb.
    Block(u64),
}

/// What was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// The number of blocks compared with their checksums.
    pub(crate) blocks: u64,
    /// The parts of the file that nothing depends on.
    pub(crate) unused: Vec<Range<u64>>,
}

/// Checks the window that begins at `offset` of a storage. Nothing may write to it meanwhile.
pub(crate) fn check_window(
    storage: &Arc<dyn Storage>,
    offset: u64,
    report: &mut dyn FnMut(WindowFault),
) -> Result<Checked> {
    let available = length(storage.as_ref())?.saturating_sub(offset);
    let Some(present) = check_header(storage.as_ref(), offset, report) else {
        return Ok(Checked::default());
    };
    let mut checked = Checked::default();
    let needed = physical_len(present);
    if available < needed {
        let detail = format!("the file is {} bytes too short", needed - available);
        report(WindowFault { offset: offset + available, kind: FaultKind::Whole, detail });
    } else if available > needed {
        checked.unused.push(offset + needed..offset + available);
    }
    let checksums = Checksums::new(Arc::clone(storage), offset);
    for group in 0..groups(present) {
        checked.blocks += check_group(storage.as_ref(), offset, &checksums, group, present, report);
    }
    // Checksum entries of blocks that do not exist.
    let data_blocks = (present / BLOCK).saturating_sub(1);
    if let Some(last) = groups(present).checked_sub(1) {
        let from = checksums_position(last) + (data_blocks - last * GROUP_BLOCKS) * 4;
        let range = offset + from..offset + checksums_position(last) + BLOCK;
        if !range.is_empty() {
            checked.unused.push(range);
        }
    }
    Ok(checked)
}

fn length(storage: &dyn Storage) -> Result<u64> {
    storage.len().map_err(|error| Error::io("asking for the length of the file", error))
}

/// The number of groups in the first `present` bytes of redb's storage.
fn groups(present: u64) -> u64 {
    (present / BLOCK).saturating_sub(1).div_ceil(GROUP_BLOCKS)
}

/// Checks both copies of the header. Returns how much of redb's storage the file has space for,
/// from the newer one.
fn check_header(
    storage: &dyn Storage,
    offset: u64,
    report: &mut dyn FnMut(WindowFault),
) -> Option<u64> {
    let mut copies = Vec::new();
    for (slot, name) in [(0, "A"), (1, "B")] {
        let at = offset + copy_position(slot);
        let mut block = vec![0; BLOCK_SIZE];
        if let Err(error) = storage.read_at(at, &mut block) {
            let detail = format!("copy {name} of the header cannot be read: {error}");
            report(WindowFault { offset: at, kind: FaultKind::HeaderCopy, detail });
            continue;
        }
        let Some(copy) = HeaderCopy::decode(&block) else {
            let detail = format!("copy {name} of the header is damaged");
            report(WindowFault { offset: at, kind: FaultKind::HeaderCopy, detail });
            continue;
        };
        if let Some(place) = block.iter().skip(SECTOR).position(|&byte| byte != 0) {
            let offset = at + (SECTOR + place) as u64;
            let detail =
                "a byte after a copy of the header is not zero; nothing reads it".to_owned();
            report(WindowFault { offset, kind: FaultKind::Harmless, detail });
        }
        copies.push(copy);
    }
    if let [a, b] = copies.as_slice()
        && a != b
    {
        let detail = format!(
            "the two copies of the header are of different commits ({} and {}), as after a crash; the newer is valid",
            a.sequence, b.sequence
        );
        report(WindowFault { offset, kind: FaultKind::Harmless, detail });
    }
    let newest = copies.into_iter().max_by_key(|copy| copy.sequence).map(|copy| copy.present);
    if newest.is_none() {
        let detail = "neither copy of the header is intact".to_owned();
        report(WindowFault { offset, kind: FaultKind::Whole, detail });
    }
    newest
}

/// Checks the blocks of one group. Returns their number.
fn check_group(
    storage: &dyn Storage,
    offset: u64,
    checksums: &Checksums,
    group: u64,
    present: u64,
    report: &mut dyn FnMut(WindowFault),
) -> u64 {
    let first = 1 + group * GROUP_BLOCKS;
    let count = (present / BLOCK).saturating_sub(first).min(GROUP_BLOCKS);
    let entries = match checksums.group(group, present) {
        Ok(entries) => entries,
        Err(error) => {
            for block in first..first + count {
                let detail = format!("its checksum cannot be read: {error}");
                report(WindowFault {
                    offset: offset + data_position(block),
                    kind: FaultKind::Block(block),
                    detail,
                });
            }
            return count;
        }
    };
    let at = offset + data_position(first);
    let mut bytes = vec![0; to_usize(count) * BLOCK_SIZE];
    let whole = storage.read_at(at, &mut bytes).is_ok();
    for (block, data) in (first..).zip(bytes.chunks_exact_mut(BLOCK_SIZE)) {
        let at = offset + data_position(block);
        // One by one, so that a sector that the disk cannot read affects only its own block.
        let found = match if whole { Ok(()) } else { storage.read_at(at, data) } {
            Ok(()) => entries.verify(block, data),
            Err(error) => Err(format!("it cannot be read: {error}")),
        };
        if let Err(detail) = found {
            report(WindowFault { offset: at, kind: FaultKind::Block(block), detail });
        }
    }
    count
}

impl Btree {
    /// Compares every block with its checksum while the B-tree is in use, group by group. An apply
    /// waits for at most one group.
    pub(crate) fn check_blocks(&self, report: &mut dyn FnMut(WindowFault)) -> u64 {
        let mut blocks = 0;
        for group in 0.. {
            let _no_apply = self.shared.writer.lock();
            let window = self.shared.current_generation().window.clone();
            if group >= groups(window.present_len()) {
                break;
            }
            blocks += window.check_group(group, report);
        }
        blocks
    }
}

impl Window {
    /// Whether a block of the present part differs from its checksum, or cannot be read.
    fn is_damaged(&self, block: u64) -> bool {
        (block + 1) * BLOCK <= self.present_len()
            && self.read_blocks(block, &mut [0; BLOCK_SIZE]).is_err()
    }

    fn check_group(&self, group: u64, report: &mut dyn FnMut(WindowFault)) -> u64 {
        let (storage, offset, checksums) = self.parts();
        check_group(storage, offset, checksums, group, self.present_len(), report)
    }
}

/// Which of the damaged blocks the newest commit needs. All of them if that is unknown.
pub(crate) fn in_use(
    storage: &Arc<dyn Storage>,
    offset: u64,
    faults: &[WindowFault],
) -> BTreeSet<u64> {
    trace(faults, |blocks| match Tree::open(storage, offset)?.first() {
        Some(tree) => reached(&tree.pages(), blocks),
        None => Ok(blocks),
    })
}

/// Which of the damaged blocks are needed, as `in_use` says; all of them when there are too many to
/// ask, or the tree cannot be walked.
fn trace(
    faults: &[WindowFault],
    in_use: impl FnOnce(BTreeSet<u64>) -> Result<BTreeSet<u64>>,
) -> BTreeSet<u64> {
    let damaged = faults.iter().filter_map(|fault| match fault.kind {
        FaultKind::Block(block) => Some(block),
        _ => None,
    });
    let damaged: BTreeSet<u64> = damaged.collect();
    if damaged.is_empty() || damaged.len() > MAX_BLOCKS_TRACED {
        return damaged;
    }
    let all = damaged.clone();
    in_use(damaged).unwrap_or(all)
}

impl Btree {
    /// Looks at damaged blocks again, keeps those that still are, and returns which of them the
    /// newest commit needs. A block that no commit needed when it was found may have been written
    /// since, and is needed and sound now. Blocks applies while it runs.
    pub(crate) fn recheck(&self, faults: &mut Vec<WindowFault>) -> BTreeSet<u64> {
        let _no_apply = self.shared.writer.lock();
        let window = self.shared.current_generation().window.clone();
        faults.retain(|fault| match fault.kind {
            FaultKind::Block(block) => window.is_damaged(block),
            _ => true,
        });
        trace(faults, |blocks| reached(&Pages::new(&window, Roots::of(&window.header())?), blocks))
    }
}

/// Which of these blocks a walk over all pages reaches.
fn reached(pages: &Pages<'_>, blocks: BTreeSet<u64>) -> Result<BTreeSet<u64>> {
    let mut met = BTreeSet::new();
    let mut visitor = |visit: Visit<'_>| {
        let place = match visit {
            Visit::Page { place, .. } => Some(place),
            Visit::Lost { place, .. } => place,
            Visit::Row { .. } => None,
        };
        if let Some(place) = place {
            met.extend(blocks.range(place.block..place.end()));
        }
        Ok(())
    };
    for of in [Tables::User, Tables::System] {
        for table in pages.tables(of, &mut visitor)? {
            pages.visit(&table, Depth::LeafNumbers, &mut visitor)?;
        }
    }
    Ok(met)
}

/// Runs redb's check of the tree in the window at `offset` of a storage: every page against redb's
/// own checksums, and which pages are in use. Nothing may write to the storage meanwhile.
pub(crate) fn check_tree(storage: Arc<dyn Storage>, offset: u64, cache_size: usize) -> Result<()> {
    let window = Window::open(storage, offset, Arc::default(), Mode::Frozen).map_err(opening)?;
    let overlay = Overlay::new(window.clone());
    let sound = guarded(&window, || {
        let mut db = Database::builder().set_cache_size(cache_size).create_with_backend(overlay)?;
        let sound = db.check_integrity()?;
        Ok(sound)
    });
    match sound {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::corrupted("B-tree", "redb's own check found damage")),
        Err(failure) => Err(failure.into_error()),
    }
}

/// A window that keeps what redb writes in memory, where redb reads it again. Nothing is written to
/// the storage.
#[derive(Debug)]
struct Overlay {
    window: Window,
    len: AtomicU64,
    written: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl Overlay {
    fn new(window: Window) -> Self {
        Self { len: AtomicU64::new(window.data_len()), window, written: Mutex::default() }
    }

    /// The block with what redb wrote to it.
    fn block(&self, written: &BTreeMap<u64, Vec<u8>>, block: u64) -> io::Result<Vec<u8>> {
        if let Some(bytes) = written.get(&block) {
            return Ok(bytes.clone());
        }
        let mut bytes = vec![0; BLOCK_SIZE];
        if (block + 1) * BLOCK <= self.window.data_len() {
            self.window.read(block * BLOCK, &mut bytes)?;
        }
        Ok(bytes)
    }

    fn check(&self, offset: u64, len: usize) -> io::Result<()> {
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > self.len.load(Ordering::SeqCst)) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "beyond the end of the B-tree",
            ));
        }
        Ok(())
    }
}

/// The blocks that `len` bytes from `offset` on cover, each with the covered part.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let end = offset + len as u64;
    (offset / BLOCK..end.div_ceil(BLOCK)).map(move |block| {
        let from = offset.saturating_sub(block * BLOCK).min(BLOCK);
        let to = (end - block * BLOCK).min(BLOCK);
        (block, to_usize(from)..to_usize(to))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len.load(Ordering::SeqCst))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check(offset, out.len())?;
        let written = self.written.lock();
        if written.is_empty() && offset + out.len() as u64 <= self.window.data_len() {
            return self.window.read(offset, out);
        }
        let mut rest = out;
        for (block, part) in parts(offset, rest.len()) {
            let (now, later) = rest.split_at_mut(part.len());
            let bytes = self.block(&written, block)?;
            now.copy_from_slice(bytes.get(part).unwrap_or_default());
            rest = later;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written.lock().retain(|block, _| block * BLOCK < len);
        self.len.store(len, Ordering::SeqCst);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(offset, data.len())?;
        let mut written = self.written.lock();
        let mut rest = data;
        for (block, part) in parts(offset, rest.len()) {
            let (now, later) = rest.split_at(part.len());
            // A block that is overwritten completely need not be readable.
            let mut bytes = if part.len() == BLOCK_SIZE {
                vec![0; BLOCK_SIZE]
            } else {
                self.block(&written, block)?
            };
            if let Some(place) = bytes.get_mut(part) {
                place.copy_from_slice(now);
            }
            written.insert(block, bytes);
            rest = later;
        }
        Ok(())
    }

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
