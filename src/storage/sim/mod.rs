//! A simulated storage that injects faults: a disk in memory that records what was flushed and what
//! was not.
//!
//! It satisfies the contract of [`Storage`] and no more. Whatever a real disk may lose in a crash,
//! [`SimStorage::crash_image`] loses for some seed; however a real disk may fail a call,
//! [`SimStorage::fail_call`] fails it. It is deterministic: the same calls and the same seeds give
//! the same bytes.

mod disk;

use super::memory::slice;
use super::{Storage, StorageView};
use crate::limits::BLOCK_SIZE;
use crate::sync::plain::Mutex;
use disk::SimDisk;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// The unit that cannot be read when it is bad.
const SECTOR: u64 = 512;

/// A kind of call that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// `read_at` and `view`.
    Read,
    /// `write_at`.
    Write,
    /// `write_at_durable`.
    DurableWrite,
    /// `sync_data`.
    Sync,
    /// `set_len`.
    SetLen,
}

/// How a call fails, and what state that leaves.
///
/// | call | [`Eio`](Fault::Eio), [`Enospc`](Fault::Enospc) | [`ShortWrite`](Fault::ShortWrite), [`EnospcDropped`](Fault::EnospcDropped) |
/// |---|---|---|
/// | read | nothing is read | like `Eio` |
/// | write | nothing is written | a prefix is written, and covered by the next flush |
/// | durable write | `Eio`: all is written, in limbo; `Enospc`: nothing is written | a prefix is written, in limbo |
/// | flush | every unflushed write is in limbo | like `Eio`; `EnospcDropped`: reads do not see it any more, either |
/// | change of length | the length stays | like `Eio` |
///
/// A write in limbo is one whose flush failed: reads see it, a crash may or may not lose it, and
/// later flushes do not cover it, because the system marked its pages clean when it reported the
/// failure. A later write to the same place is a write like any other. Lengths are never in limbo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The device reports an error.
    Eio,
    /// The disk is full.
    Enospc,
    /// The disk is full after a prefix was written, and the system drops what it could not flush.
    EnospcDropped,
    /// The device writes a prefix, which may be empty but is never everything, and then reports an
    /// error.
    ShortWrite,
}

/// A storage in memory that can crash, fail and be damaged. Clones are the same storage.
#[derive(Debug, Clone)]
pub struct SimStorage {
    state: Arc<Mutex<SimState>>,
}

#[derive(Debug)]
struct SimState {
    disk: SimDisk,
    rng: fastrand::Rng,
    events: u64,
    stop_after: Option<u64>,
    crashed: bool,
    faults: Vec<ScheduledFault>,
    capacity: Option<u64>,
    /// Sectors that cannot be read, by their offset.
    bad_sectors: BTreeSet<u64>,
    bytes_read: u64,
    bytes_written: u64,
    syncs: u64,
    durable_writes: u64,
}

#[derive(Debug)]
struct ScheduledFault {
    kind: CallKind,
    calls_before: u64,
    fault: Fault,
}

/// What happens to a call.
enum CallOutcome {
    Proceed,
    Fail(Fault),
    /// The power fails during the call.
    Crash,
}

impl SimStorage {
    /// An empty storage. The seed decides the random part of calls that fail or are interrupted.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::from_image(Vec::new(), seed)
    }

    /// A storage whose durable content is `image`, for example one that a crash left.
    #[must_use]
    pub fn from_image(image: Vec<u8>, seed: u64) -> Self {
        let state = SimState {
            disk: SimDisk::new(image),
            rng: fastrand::Rng::with_seed(seed),
            events: 0,
            stop_after: None,
            crashed: false,
            faults: Vec::new(),
            capacity: None,
            bad_sectors: BTreeSet::new(),
            bytes_read: 0,
            bytes_written: 0,
            syncs: 0,
            durable_writes: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The number of calls that change something: writes, durable writes, flushes and changes of
    /// length, whether they succeeded or not.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.state.lock().events
    }

    /// Makes the power fail during event number `n + 1`, counted from the creation of this storage.
    /// That call fails, and may have taken effect in part: a write in progress is unflushed and may
    /// be torn, and any part of what a flush in progress covered may be durable. Every later call
    /// fails, reads too. If event `n` is already past, the power fails during the next one.
    pub fn stop_after(&self, n: u64) {
        self.state.lock().stop_after = Some(n);
    }

    /// Makes the power fail now, between two calls.
    pub fn power_off(&self) {
        self.state.lock().crashed = true;
    }

    /// Whether the power has failed.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.state.lock().crashed
    }

    /// One legal content of the disk after a crash now: what is durable, and any part of what is
    /// not, torn at 512-byte sectors. Seed 0 keeps nothing that was not flushed, seed 1 keeps
    /// everything, and every other seed keeps its own selection. The length is the durable one or
    /// one that was set since.
    #[must_use]
    pub fn crash_image(&self, seed: u64) -> Vec<u8> {
        self.state.lock().disk.crash_image(seed)
    }

    /// The content of the file after the process is killed now. The system keeps everything that it
    /// was given; of a write in progress, that may be a prefix.
    #[must_use]
    pub fn process_crash_image(&self) -> Vec<u8> {
        self.state.lock().disk.current().to_vec()
    }

    /// Makes one call of that kind fail: the next one if `nth_from_now` is 0, the one after it if
    /// it is 1, and so on. Several failures may be scheduled; each one is for another call.
    pub fn fail_call(&self, kind: CallKind, nth_from_now: u64, fault: Fault) {
        self.state.lock().faults.push(ScheduledFault { kind, calls_before: nth_from_now, fault });
    }

    /// Cancels every scheduled failure.
    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// Limits the length to which the storage can grow; more is `StorageFull`. `None` removes the
    /// limit. Bytes that are already beyond a new limit stay, and can be written.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Makes every read of the sector at `offset` fail, until it is written as a whole.
    pub fn break_sector(&self, offset: u64) {
        self.state.lock().bad_sectors.insert(offset / SECTOR * SECTOR);
    }

    /// Flips one bit (0 to 7) of the byte at `offset`, in the durable content and in what reads
    /// see.
    ///
    /// # Panics
    /// If the storage has no such byte, or a byte has no such bit.
    pub fn flip_bit(&self, offset: u64, bit: u8) {
        assert!(bit < 8, "a byte has no bit {bit}");
        self.state.lock().disk.flip_bits(offset, 1 << bit);
    }

    /// The number of bytes read, through views too, by calls that succeeded.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.state.lock().bytes_read
    }

    /// The number of bytes written, flushed or not, by calls that succeeded.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.state.lock().bytes_written
    }

    /// The number of flushes that succeeded. Durable writes are counted
    /// [separately](SimStorage::durable_writes).
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// The number of durable writes that succeeded.
    #[must_use]
    pub fn durable_writes(&self) -> u64 {
        self.state.lock().durable_writes
    }
}

impl SimState {
    fn outcome(&mut self, kind: CallKind) -> io::Result<CallOutcome> {
        if self.crashed {
            return Err(power_is_off());
        }
        if kind != CallKind::Read {
            self.events += 1;
            if self.stop_after.is_some_and(|n| self.events > n) {
                self.crashed = true;
                return Ok(CallOutcome::Crash);
            }
        }
        let mut due = None;
        self.faults.retain_mut(|scheduled| {
            if scheduled.kind != kind {
                return true;
            }
            if scheduled.calls_before == 0 && due.is_none() {
                due = Some(scheduled.fault);
                return false;
            }
            // A second failure due at this call waits for the next one.
            scheduled.calls_before = scheduled.calls_before.saturating_sub(1);
            true
        });
        Ok(due.map_or(CallOutcome::Proceed, CallOutcome::Fail))
    }

    fn read_outcome(&mut self) -> io::Result<()> {
        match self.outcome(CallKind::Read)? {
            CallOutcome::Proceed => Ok(()),
            CallOutcome::Fail(fault) => Err(injected(fault)),
            CallOutcome::Crash => Err(power_is_off()),
        }
    }

    /// The bytes of a range, if all of its sectors can be read.
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        super::unreadable::read_or_name_the_block(offset, buf, |at, part| {
            let is_read = |&bad: &u64| bad < at + part.len() as u64 && at < bad + SECTOR;
            if self.bad_sectors.iter().any(is_read) {
                return Err(injected(Fault::Eio));
            }
            part.copy_from_slice(super::memory::slice(self.disk.current(), at, part.len())?);
            Ok(())
        })
    }

    /// Sectors that are written as a whole can be read again.
    fn mend(&mut self, offset: u64, len: usize) {
        self.bad_sectors.retain(|&bad| bad < offset || offset + (len as u64) < bad + SECTOR);
    }

    /// How many of the `len` bytes of an interrupted write were written. None and all are as likely
    /// as the rest together.
    fn cut(&mut self, len: usize) -> usize {
        match self.rng.u8(0..4) {
            0 => 0,
            1 => len,
            _ => self.rng.usize(0..=len),
        }
    }

    /// The part of `data` that a short write writes.
    fn short<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let len = self.cut(data.len().saturating_sub(1));
        data.get(..len).unwrap_or_default()
    }
}

impl Storage for SimStorage {
    fn len(&self) -> io::Result<u64> {
        let state = self.state.lock();
        if state.crashed {
            return Err(power_is_off());
        }
        Ok(state.disk.current().len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        state.read_outcome()?;
        state.read(offset, buf)?;
        state.bytes_read += buf.len() as u64;
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let outcome = state.outcome(CallKind::Write)?;
        super::check_write(state.disk.current().len() as u64, offset, data.len())?;
        match outcome {
            CallOutcome::Proceed => {
                state.mend(offset, data.len());
                state.disk.write(offset, data);
                state.bytes_written += data.len() as u64;
                Ok(())
            }
            CallOutcome::Fail(fault) => {
                if matches!(fault, Fault::ShortWrite | Fault::EnospcDropped) {
                    let written = state.short(data);
                    state.disk.write(offset, written);
                }
                Err(injected(fault))
            }
            CallOutcome::Crash => {
                let seen = state.cut(data.len());
                state.disk.write_in_flight(offset, data, seen);
                Err(power_is_off())
            }
        }
    }

    fn fill_holes(&self, offset: u64, len: u64) -> io::Result<u64> {
        // This disk has no holes. What is all zeros stands for one.
        let mut found = vec![0; usize::try_from(len).unwrap_or_default()];
        self.read_at(offset, &mut found)?;
        if found.iter().any(|&byte| byte != 0) {
            return Ok(0);
        }
        self.write_at(offset, &found).map(|()| len)
    }

    fn data_len(&self, offset: u64, len: usize) -> usize {
        // The zeros at the end stand for a hole.
        let state = self.state.lock();
        let found = slice(state.disk.current(), offset, len).unwrap_or_default();
        let data = found.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        data.next_multiple_of(BLOCK_SIZE).min(len)
    }

    fn release(&self, offset: u64, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap_or_default();
        let is_hole = {
            let state = self.state.lock();
            let found = slice(state.disk.current(), offset, len)?;
            found.chunks(BLOCK_SIZE).all(|block| [0; BLOCK_SIZE].starts_with(block))
        };
        if is_hole { Ok(()) } else { self.write_at(offset, &vec![0; len]) }
    }

    fn write_at_durable(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let outcome = state.outcome(CallKind::DurableWrite)?;
        super::check_write(state.disk.current().len() as u64, offset, data.len())?;
        match outcome {
            CallOutcome::Proceed => {
                state.mend(offset, data.len());
                state.disk.write_durable(offset, data);
                state.bytes_written += data.len() as u64;
                state.durable_writes += 1;
                Ok(())
            }
            CallOutcome::Fail(fault) => {
                match fault {
                    Fault::Eio => state.disk.write_in_limbo(offset, data),
                    Fault::Enospc => {}
                    Fault::ShortWrite | Fault::EnospcDropped => {
                        let written = state.short(data);
                        state.disk.write_in_limbo(offset, written);
                    }
                }
                Err(injected(fault))
            }
            CallOutcome::Crash => {
                let seen = state.cut(data.len());
                state.disk.write_in_flight(offset, data, seen);
                Err(power_is_off())
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        match state.outcome(CallKind::Sync)? {
            CallOutcome::Proceed => {
                state.disk.flush();
                state.syncs += 1;
                Ok(())
            }
            CallOutcome::Fail(fault) => {
                state.disk.fail_flush();
                if fault == Fault::EnospcDropped {
                    state.disk.drop_unflushed();
                }
                Err(injected(fault))
            }
            // What it covered is still unflushed, so a crash image has any part of it.
            CallOutcome::Crash => Err(power_is_off()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        match state.outcome(CallKind::SetLen)? {
            CallOutcome::Proceed => {
                let grows = len > state.disk.current().len() as u64;
                if grows && state.capacity.is_some_and(|capacity| len > capacity) {
                    return Err(injected(Fault::Enospc));
                }
                state.disk.set_len(len)
            }
            CallOutcome::Fail(fault) => Err(injected(fault)),
            CallOutcome::Crash => {
                let seen = state.rng.bool();
                state.disk.set_len_in_flight(len, seen)?;
                Err(power_is_off())
            }
        }
    }

    fn view(&self, offset: u64, len: usize) -> io::Result<StorageView> {
        let mut state = self.state.lock();
        state.read_outcome()?;
        super::check_read(state.disk.current().len() as u64, offset, len)?;
        let mut bytes = vec![0; len];
        state.read(offset, &mut bytes)?;
        state.bytes_read += len as u64;
        Ok(StorageView::Owned(bytes))
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("simulated crash: the power is off")
}

fn injected(fault: Fault) -> io::Error {
    match fault {
        Fault::Eio => io::Error::other("injected: input/output error"),
        Fault::Enospc | Fault::EnospcDropped => {
            io::Error::new(io::ErrorKind::StorageFull, "injected: no space left on device")
        }
        Fault::ShortWrite => {
            io::Error::other("injected: input/output error after a part of the write")
        }
    }
}

#[cfg(test)]
mod tests;
