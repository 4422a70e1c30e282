//! The checksums of the data blocks, by group: read when first needed, kept in memory, written back
//! by a flush.
//!
//! # Why a checksum block has no checksum of its own
//! It is overwritten in place, while the pages of the last commit, whose entries are in the same
//! block, must stay readable after a crash at any point. redb never overwrites a page that the last
//! durable commit reaches. So between two durable states the entries of those pages have the same
//! value in the old and the new block, and are correct whichever of its sectors a crash keeps. An
//! entry that differs belongs to a page that only the running commit reaches, or none, and that is
//! written completely before it is read again. A checksum over the block would report this legal
//! mix of sectors as damage. A flipped bit in an entry is detected anyway: it no longer matches its
//! block.

use super::layout::{
    BLOCK, GROUP_BLOCKS, block_checksum, checksums_position, group_and_index, to_usize,
};
use crate::fault::DeliberateFault;
use crate::limits::BLOCK_SIZE;
use crate::storage::Storage;
use crate::sync::plain::{Mutex, RwLock};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The checksums of one group.
#[derive(Debug)]
pub(super) struct ChecksumGroup {
    entries: Vec<AtomicU32>,
}

impl ChecksumGroup {
    fn empty() -> Self {
        Self { entries: (0..GROUP_BLOCKS).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Whether `data` is what was last written to this block.
    pub(super) fn verify(&self, block: u64, data: &[u8]) -> Result<(), String> {
        let (_, slot) = group_and_index(block);
        match self.entries.get(slot).map_or(0, |entry| entry.load(Ordering::Acquire)) {
            0 if data.iter().all(|&byte| byte == 0) => Ok(()),
            0 => Err("a block that was never written is not zero".to_owned()),
            expected => match block_checksum(block, data) {
                found if found == expected || DeliberateFault::IgnoreChecksum.is_on() => Ok(()),
                found => {
                    Err(format!("checksum mismatch: expected {expected:08x}, found {found:08x}"))
                }
            },
        }
    }

    /// Records the checksum of what was written to a block.
    pub(super) fn record(&self, block: u64, data: &[u8]) {
        let (_, slot) = group_and_index(block);
        if let Some(entry) = self.entries.get(slot) {
            entry.store(block_checksum(block, data), Ordering::Release);
        }
    }

    fn encode(&self) -> Vec<u8> {
        self.entries.iter().flat_map(|entry| entry.load(Ordering::Acquire).to_le_bytes()).collect()
    }
}

/// The checksums of every group that has been read or written.
#[derive(Debug)]
pub(super) struct Checksums {
    storage: Arc<dyn Storage>,
    /// The offset of the window in the storage.
    offset: u64,
    groups: RwLock<HashMap<u64, Arc<ChecksumGroup>>>,
    /// Groups with entries that are not written back yet.
    dirty: Mutex<BTreeSet<u64>>,
}

impl Checksums {
    pub(super) fn new(storage: Arc<dyn Storage>, offset: u64) -> Self {
        Self { storage, offset, groups: RwLock::default(), dirty: Mutex::default() }
    }

    /// The group, from memory or from the storage. `len` is the length of redb's storage: entries
    /// beyond it are left from a growth that is in no durable state, and count as never written.
    pub(super) fn group(&self, group: u64, len: u64) -> io::Result<Arc<ChecksumGroup>> {
        if let Some(found) = self.groups.read().get(&group) {
            return Ok(found.clone());
        }
        let mut bytes = vec![0; BLOCK_SIZE];
        self.storage.read_at(self.offset + checksums_position(group), &mut bytes)?;
        let loaded = ChecksumGroup::empty();
        let known = known_entries(group, len);
        for (entry, bytes) in loaded.entries.iter().zip(bytes.as_chunks::<4>().0).take(known) {
            entry.store(u32::from_le_bytes(*bytes), Ordering::Release);
        }
        // Another thread may have loaded the group in the meantime, and the writer changed it: the
        // first one stays.
        Ok(self.groups.write().entry(group).or_insert_with(|| Arc::new(loaded)).clone())
    }

    /// Marks the group as changed. Called after the change, so that a flush that misses the change
    /// leaves the mark for the next flush.
    pub(super) fn mark_dirty(&self, group: u64) {
        self.dirty.lock().insert(group);
    }

    /// Prepares for redb's storage to grow from `len` bytes on: blocks beyond count as never
    /// written.
    pub(super) fn grow_from(&self, len: u64) -> io::Result<()> {
        if let Some(last) = last_group(len) {
            self.group(last, len)?;
            self.mark_dirty(last);
        }
        Ok(())
    }

    /// Clears the entries beyond `len`, so that after a later growth they count as never written.
    pub(super) fn shrink_to(&self, len: u64) -> io::Result<()> {
        let last = last_group(len);
        if let Some(last) = last {
            let known = known_entries(last, len);
            for entry in self.group(last, len)?.entries.iter().skip(known) {
                entry.store(0, Ordering::Release);
            }
        }
        self.groups.write().retain(|&group, _| Some(group) <= last);
        let mut dirty = self.dirty.lock();
        dirty.retain(|&group| Some(group) <= last);
        dirty.extend(last);
        Ok(())
    }

    /// Writes back the changed groups and returns the number of bytes written. Not durable until
    /// the storage is flushed.
    pub(super) fn write_dirty(&self) -> io::Result<u64> {
        let mut written = 0;
        loop {
            let Some(group) = self.dirty.lock().pop_first() else { return Ok(written) };
            let Some(entries) = self.groups.read().get(&group).cloned() else { continue };
            if let Err(error) =
                self.storage.write_at(self.offset + checksums_position(group), &entries.encode())
            {
                self.mark_dirty(group);
                return Err(error);
            }
            written += BLOCK;
        }
    }
}

/// The last group of a storage of `len` bytes; `None` when it has no data blocks.
fn last_group(len: u64) -> Option<u64> {
    let blocks = len / BLOCK;
    (blocks > 1).then(|| group_and_index(blocks - 1).0)
}

/// How many entries of the group belong to blocks of a storage of `len` bytes.
fn known_entries(group: u64, len: u64) -> usize {
    let data_blocks = (len / BLOCK).saturating_sub(1);
    to_usize(data_blocks.saturating_sub(group * GROUP_BLOCKS).min(GROUP_BLOCKS))
}
