//! The fault-injecting twin of a storage: a disk in memory that remembers what was flushed and what
//! was not.
//!
//! It keeps the contract of [`Storage`] and no more than that. What a real disk may lose in a
//! crash, [`SimStorage::crash_image`] loses for some seed; what it may do to a call,
//! [`SimStorage::fail_call`] does. All of it is deterministic: the same calls and the same seeds
//! give the same bytes.

mod disk;

use super::{Storage, StorageView};
use disk::Disk;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

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

/// How a call fails, and what that leaves behind.
///
/// | call | [`Eio`](Fault::Eio), [`Enospc`](Fault::Enospc) | [`ShortWrite`](Fault::ShortWrite) |
/// |---|---|---|
/// | read | nothing is read | like `Eio` |
/// | write | nothing is written | a prefix is written, and covered by the next flush |
/// | durable write | `Eio`: all is written, in limbo; `Enospc`: nothing is written | a prefix is written, in limbo |
/// | flush | every unflushed write is in limbo | like `Eio` |
/// | change of length | the length stays | like `Eio` |
///
/// A write in limbo is one whose flush failed: reads see it, a crash may or may not take it away,
/// and later flushes do not cover it, because the system took its pages for clean when it reported
/// the failure. A later write to the same place is a write like any other. Lengths are never in
/// limbo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The device reports an error.
    Eio,
    /// The disk is full.
    Enospc,
    /// The device writes a prefix, which may be empty but is never everything, and then reports an
    /// error.
    ShortWrite,
}

/// A storage in memory that can crash, fail and decay. Clones are the same storage.
#[derive(Debug, Clone)]
pub struct SimStorage {
    state: Arc<Mutex<SimState>>,
}

#[derive(Debug)]
struct SimState {
    disk: Disk,
    rng: fastrand::Rng,
    events: u64,
    stop_after: Option<u64>,
    crashed: bool,
    faults: Vec<ScheduledFault>,
    capacity: Option<u64>,
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

/// What becomes of a call.
enum Turn {
    Proceed,
    Fail(Fault),
    /// The power goes while the call is in flight.
    Crash,
}

impl SimStorage {
    /// An empty storage. The seed decides what is left to chance in calls that fail or are cut off.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::from_image(Vec::new(), seed)
    }

    /// A storage whose durable content is `image`, for example one that a crash left.
    #[must_use]
    pub fn from_image(image: Vec<u8>, seed: u64) -> Self {
        let state = SimState {
            disk: Disk::new(image),
            rng: fastrand::Rng::with_seed(seed),
            events: 0,
            stop_after: None,
            crashed: false,
            faults: Vec::new(),
            capacity: None,
            bytes_written: 0,
            syncs: 0,
            durable_writes: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// How many calls that change something have been made: writes, durable writes, flushes and
    /// changes of length, whether they succeeded or not.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.state.lock().events
    }

    /// Lets the power fail during event number `n + 1`, counted from the creation of this storage.
    /// That call fails, and may have happened in part: a write in flight is unflushed and may be
    /// torn, and of what a flush in flight covered, any part may be durable. Every call after it
    /// fails, reads too. If event `n` is already past, the power fails during the next one.
    pub fn stop_after(&self, n: u64) {
        self.state.lock().stop_after = Some(n);
    }

    /// Lets the power fail at once, between two calls.
    pub fn power_off(&self) {
        self.state.lock().crashed = true;
    }

    /// Whether the power has failed.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.state.lock().crashed
    }

    /// What is on the disk after a crash now, one of the legal possibilities: what is durable, and
    /// any part of what is not, torn at 512-byte sectors. Seed 0 keeps nothing that was not
    /// flushed, seed 1 keeps everything, and every other seed keeps its own selection. The length
    /// is the durable one or one that was set since.
    #[must_use]
    pub fn crash_image(&self, seed: u64) -> Vec<u8> {
        self.state.lock().disk.crash_image(seed)
    }

    /// What is in the file after the process was killed now. The system keeps everything that it
    /// was given; of a write that was in flight, that may be a prefix.
    #[must_use]
    pub fn process_crash_image(&self) -> Vec<u8> {
        self.state.lock().disk.current().to_vec()
    }

    /// Lets a call of that kind fail, once: the next one if `nth_from_now` is 0, the one after it
    /// if it is 1, and so on. Several failures may be due; each is for a call of its own.
    pub fn fail_call(&self, kind: CallKind, nth_from_now: u64, fault: Fault) {
        self.state.lock().faults.push(ScheduledFault { kind, calls_before: nth_from_now, fault });
    }

    /// Takes back every failure that is still due.
    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// Limits the length to which the storage can grow; more is `StorageFull`. `None` lifts the
    /// limit. What lies beyond a new limit already stays, and can be written.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Flips one bit (0 to 7) of the byte at `offset`, at rest: in what is durable and in what
    /// reads see.
    ///
    /// # Panics
    /// If the storage has no such byte, or a byte no such bit.
    pub fn flip_bit(&self, offset: u64, bit: u8) {
        assert!(bit < 8, "a byte has no bit {bit}");
        self.state.lock().disk.flip_bits(offset, 1 << bit);
    }

    /// How many bytes were written, flushed or not, by calls that succeeded.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.state.lock().bytes_written
    }

    /// How many flushes succeeded. Durable writes are counted [apart](SimStorage::durable_writes).
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// How many durable writes succeeded.
    #[must_use]
    pub fn durable_writes(&self) -> u64 {
        self.state.lock().durable_writes
    }
}

impl SimState {
    fn turn(&mut self, kind: CallKind) -> io::Result<Turn> {
        if self.crashed {
            return Err(power_is_off());
        }
        if kind != CallKind::Read {
            self.events += 1;
            if self.stop_after.is_some_and(|n| self.events > n) {
                self.crashed = true;
                return Ok(Turn::Crash);
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
        Ok(due.map_or(Turn::Proceed, Turn::Fail))
    }

    fn read_turn(&mut self) -> io::Result<()> {
        match self.turn(CallKind::Read)? {
            Turn::Proceed => Ok(()),
            Turn::Fail(fault) => Err(injected(fault)),
            Turn::Crash => Err(power_is_off()),
        }
    }

    /// How much of a write of `len` bytes was done when it was cut off; the ends are as likely as
    /// all between.
    fn cut(&mut self, len: usize) -> usize {
        match self.rng.u8(0..4) {
            0 => 0,
            1 => len,
            _ => self.rng.usize(0..=len),
        }
    }

    /// As much of `data` as a short write takes.
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
        state.read_turn()?;
        buf.copy_from_slice(super::memory::slice(state.disk.current(), offset, buf.len())?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let turn = state.turn(CallKind::Write)?;
        super::check_write(state.disk.current().len() as u64, offset, data.len())?;
        match turn {
            Turn::Proceed => {
                state.disk.write(offset, data);
                state.bytes_written += data.len() as u64;
                Ok(())
            }
            Turn::Fail(fault) => {
                if fault == Fault::ShortWrite {
                    let written = state.short(data);
                    state.disk.write(offset, written);
                }
                Err(injected(fault))
            }
            Turn::Crash => {
                let seen = state.cut(data.len());
                state.disk.write_in_flight(offset, data, seen);
                Err(power_is_off())
            }
        }
    }

    fn write_at_durable(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let turn = state.turn(CallKind::DurableWrite)?;
        super::check_write(state.disk.current().len() as u64, offset, data.len())?;
        match turn {
            Turn::Proceed => {
                state.disk.write_durable(offset, data);
                state.bytes_written += data.len() as u64;
                state.durable_writes += 1;
                Ok(())
            }
            Turn::Fail(fault) => {
                match fault {
                    Fault::Eio => state.disk.write_in_limbo(offset, data),
                    Fault::Enospc => {}
                    Fault::ShortWrite => {
                        let written = state.short(data);
                        state.disk.write_in_limbo(offset, written);
                    }
                }
                Err(injected(fault))
            }
            Turn::Crash => {
                let seen = state.cut(data.len());
                state.disk.write_in_flight(offset, data, seen);
                Err(power_is_off())
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        match state.turn(CallKind::Sync)? {
            Turn::Proceed => {
                state.disk.flush();
                state.syncs += 1;
                Ok(())
            }
            Turn::Fail(fault) => {
                state.disk.fail_flush();
                Err(injected(fault))
            }
            // What it covered is still unflushed, so a crash image takes any part of it.
            Turn::Crash => Err(power_is_off()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        match state.turn(CallKind::SetLen)? {
            Turn::Proceed => {
                let grows = len > state.disk.current().len() as u64;
                if grows && state.capacity.is_some_and(|capacity| len > capacity) {
                    return Err(injected(Fault::Enospc));
                }
                state.disk.set_len(len)
            }
            Turn::Fail(fault) => Err(injected(fault)),
            Turn::Crash => {
                let seen = state.rng.bool();
                state.disk.set_len_in_flight(len, seen)?;
                Err(power_is_off())
            }
        }
    }

    fn view(&self, offset: u64, len: usize) -> io::Result<StorageView> {
        let mut state = self.state.lock();
        state.read_turn()?;
        Ok(StorageView::Owned(super::memory::slice(state.disk.current(), offset, len)?.to_vec()))
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("simulated crash: the power is off")
}

fn injected(fault: Fault) -> io::Error {
    match fault {
        Fault::Eio => io::Error::other("injected: input/output error"),
        Fault::Enospc => {
            io::Error::new(io::ErrorKind::StorageFull, "injected: no space left on device")
        }
        Fault::ShortWrite => {
            io::Error::other("injected: input/output error after a part of the write")
        }
    }
}

#[cfg(test)]
mod tests;
