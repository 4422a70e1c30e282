//! A storage in memory that keeps a journal, fails on request, and yields what a crash may leave.

use crate::storage::{Storage, StorageView};
use crate::sync::plain::Mutex;
use std::io;
use std::sync::Arc;

const SECTOR: usize = 512;

/// One call that changes the disk.
#[derive(Debug, Clone)]
pub(super) enum GateStep {
    Write { offset: u64, data: Vec<u8> },
    SetLen(u64),
    Sync,
}

#[derive(Debug, Default)]
struct GateState {
    bytes: Vec<u8>,
    journal: Vec<GateStep>,
    capacity: Option<u64>,
    /// How many flushes succeed before all fail.
    syncs_left: Option<u32>,
    sync_failed: bool,
    fails_once: bool,
    fail_reads: u32,
}

/// The storage.
#[derive(Debug, Default)]
pub(super) struct TestStorage {
    state: Mutex<GateState>,
}

impl TestStorage {
    pub(super) fn with(bytes: Vec<u8>) -> Arc<TestStorage> {
        Arc::new(TestStorage { state: Mutex::new(GateState { bytes, ..GateState::default() }) })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.state.lock().bytes.clone()
    }

    /// The steps since the last call of this.
    pub(super) fn take_journal(&self) -> Vec<GateStep> {
        std::mem::take(&mut self.state.lock().journal)
    }

    /// From now on the storage cannot grow beyond this length.
    pub(super) fn limit(&self, capacity: Option<u64>) {
        self.state.lock().capacity = capacity;
    }

    pub(super) fn fail_syncs(&self) {
        self.fail_syncs_after(0);
    }

    /// Fails every flush after the next `syncs`.
    fn fail_syncs_after(&self, syncs: u32) {
        self.state.lock().syncs_left = Some(syncs);
    }

    /// Fails only the flush after the next `syncs`.
    pub(super) fn fail_one_sync_after(&self, syncs: u32) {
        self.fail_syncs_after(syncs);
        self.state.lock().fails_once = true;
    }

    /// Whether a flush has failed.
    pub(super) fn sync_failed(&self) -> bool {
        self.state.lock().sync_failed
    }

    /// Fails the next reads.
    pub(super) fn fail_reads(&self, count: u32) {
        self.state.lock().fail_reads = count;
    }

    pub(super) fn flip(&self, position: usize) {
        self.state.lock().bytes[position] ^= 0x40;
    }
}

impl Storage for TestStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.fail_reads > 0 {
            state.fail_reads -= 1;
            return Err(io::Error::other("a read that fails on request"));
        }
        let start = offset as usize;
        let Some(bytes) = state.bytes.get(start..start + buf.len()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let start = offset as usize;
        state.bytes[start..start + data.len()].copy_from_slice(data);
        state.journal.push(GateStep::Write { offset, data: data.to_vec() });
        Ok(())
    }

    fn write_at_durable(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        unreachable!("the btree does not use it")
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.syncs_left == Some(0) {
            state.sync_failed = true;
            if state.fails_once {
                state.syncs_left = None;
            }
            return Err(io::Error::other("a flush that fails on request"));
        }
        state.syncs_left = state.syncs_left.map(|left| left - 1);
        state.journal.push(GateStep::Sync);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.capacity.is_some_and(|capacity| len > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.bytes.resize(len as usize, 0);
        state.journal.push(GateStep::SetLen(len));
        Ok(())
    }

    fn view(&self, _offset: u64, _len: usize) -> io::Result<StorageView> {
        unreachable!("the btree does not use it")
    }
}

/// What a crash leaves of the writes that were not flushed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Survival {
    Nothing,
    Everything,
    /// Each sector, and each change of the length, at random with this seed.
    Sectors(u64),
}

/// The disk after a crash that followed `steps`.
pub(super) fn crash(before: &[u8], steps: &[GateStep], survival: Survival) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(match survival {
        Survival::Sectors(seed) => seed,
        _ => 0,
    });
    let flushed =
        steps.iter().rposition(|step| matches!(step, GateStep::Sync)).map_or(0, |last| last + 1);
    let mut disk = before.to_vec();
    for (index, step) in steps.iter().enumerate() {
        let mut survives = || {
            index < flushed
                || match survival {
                    Survival::Nothing => false,
                    Survival::Everything => true,
                    Survival::Sectors(_) => random.bool(),
                }
        };
        match step {
            GateStep::Sync => {}
            GateStep::SetLen(len) => {
                if survives() {
                    disk.resize(*len as usize, 0);
                }
            }
            GateStep::Write { offset, data } => {
                for (index, sector) in data.chunks(SECTOR).enumerate() {
                    let start = *offset as usize + index * SECTOR;
                    if survives() {
                        // A sector can survive although the growth before it did not. Then there is
                        // no space for it.
                        if let Some(place) = disk.get_mut(start..start + sector.len()) {
                            place.copy_from_slice(sector);
                        }
                    }
                }
            }
        }
    }
    disk
}
