//! The engine: one serial order of transactions over a log, an in-memory table and a B-tree.
//!
//! # The way of a write
//! 1. [`Engine::transact`] reads what the decision will probably need from the B-tree, before any
//!    lock.
//! 2. Under the serial lock the operation reads, decides and stages rows ([`Tx`]); one frame with
//!    all of them is appended to the log's buffer, and the rows enter the in-memory table with the
//!    frame's position (LSN).
//! 3. The answer is a [`Pending`] on that position. Whoever waits for it first writes and flushes
//!    the buffer for everybody ([`Log`]).
//!
//! # The way of a read
//! [`Engine::read`] takes the newest position and the tables as they are, without a lock that a
//! writer holds. The newest position among the versions it touched is what its answer rests on.
//!
//! # The way of a wait
//! [`Engine::await_row`] reads a row that has no answer yet, and answers when a transaction has
//! changed it, a deadline has passed or the engine closes. See [`row_wait`] and [`timer`].
//!
//! # The way of a change to those who follow it
//! Each transaction is shown to the [observers](observer) under the serial lock: the row waits, the
//! change [`feed`], which gives it out when it is durable, and what stores keep in memory.
//!
//! # What nobody asked for
//! A thread does it in small steps, each of which takes the serial lock for a moment. See
//! [`maintenance`].
//!
//! # Invariants
//! 1. The order of frames is the order of decisions: both happen under the serial lock.
//! 2. A position is published after all rows of its frame are in the in-memory table, so a reader
//!    sees whole frames.
//! 3. The B-tree holds exactly the frames up to the position it records, and that position is
//!    durable in the log.
//! 4. Every row of a newer position is in the active in-memory table or in the frozen one.

pub(crate) mod access;
mod background;
mod backup;
mod checkpoint;
mod compaction;
pub(crate) mod cursor;
mod durable_snapshot;
#[cfg(test)]
mod faulty;
mod feed;
mod fingerprint;
mod format;
mod maintenance;
mod merge;
mod migration;
pub(crate) mod new_file;
mod observer;
mod open;
mod parts;
mod prefetch;
mod recovered_image;
mod row_wait;
mod stats;
mod timer;
mod tx;
mod view;

pub use backup::BackupReport;
pub use compaction::CompactReport;
pub(crate) use feed::{Feed, NoMore, Selected, Subscription};
pub(crate) use format::Geometry;
pub(crate) use maintenance::{MaintenanceHandle, MaintenanceJob, Tick};
pub(crate) use migration::Migration;
#[cfg(any(test, feature = "testing"))]
pub(crate) use migration::{Emit, write_older};
pub(crate) use observer::{
    CommitHook, CommitObserver, CommittedRows, HeldInterest, Interest, Wakeup,
};
pub(crate) use open::{EngineOptions, Threads};
pub(crate) use prefetch::{Cost, DryRun};
pub(crate) use row_wait::{Found, Judge};
pub use stats::EngineStats;
pub(crate) use tx::Tx;
pub(crate) use view::Snapshot;

use crate::btree::Btree;
use crate::clock::Clock;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::log::{AppendError, Log};
use crate::observe;
use crate::pending::Pending;
use crate::storage::{Storage, Superblock};
use crate::tables::Table;
use checkpoint::Checkpointer;
use compaction::Compaction;
use maintenance::Maintenance;
use parking_lot::{Mutex, RwLock};
use prefetch::Prefetched;
use row_wait::RowWaits;
use stats::EngineCounters;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use timer::Timer;
use view::View;

/// A handle of an open engine. The engine closes when the last handle is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    core: Arc<Core>,
    close_on_drop: Arc<CloseOnDrop>,
}

/// What the handles and the background threads share.
#[derive(Debug)]
pub(crate) struct Core {
    storage: Arc<dyn Storage>,
    superblock: Superblock,
    log: Arc<Log>,
    btree: Btree,
    clock: Arc<dyn Clock>,
    /// The serial lock, with buffers that every transaction uses again.
    serial: Mutex<Scratch>,
    /// The tables that readers look into; replaced as a whole, never changed.
    view: RwLock<Arc<View>>,
    /// The newest position whose rows are all in the view.
    published: AtomicU64,
    checkpointer: Checkpointer,
    compaction: Compaction,
    /// Held for reading while a read runs, so that closing waits for it.
    reads: RwLock<()>,
    closed: AtomicBool,
    /// Whether every write is refused.
    read_only: bool,
    counters: EngineCounters,
    /// Who waits for a row to change.
    row_waits: Arc<RowWaits>,
    /// What is told of every transaction.
    hook: CommitHook,
    /// What is due at a time.
    timer: Arc<Timer>,
    /// The thread that does what nobody asked for.
    maintenance: Maintenance,
    /// Tells this opening of the file from every other.
    opening_id: u64,
}

/// Buffers that live as long as the engine.
#[derive(Debug, Default)]
struct Scratch {
    payload: Vec<u8>,
}

/// Transactions of how many rooms one thread can run inside one another.
const MAX_NESTED_ROOMS: usize = 8;

thread_local! {
    /// The engines whose transactions this thread runs, to tell a nested transaction from a wait.
    /// An array, because it needs no destructor: a room may be dropped while a thread and its other
    /// locals end.
    static IN_TRANSACTION: Cell<[*const Core; MAX_NESTED_ROOMS]> =
        const { Cell::new([std::ptr::null(); MAX_NESTED_ROOMS]) };
}

impl Engine {
    /// Runs `operation` at the next place of the serial order; what it stages becomes durable or
    /// visible together or not at all. `prefetch` names rows it will probably read, which are
    /// looked up before the lock.
    pub(crate) fn transact<R, E: From<Error>>(
        &self,
        durability: Durability,
        prefetch: &[(Table, &[u8])],
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R, E>,
    ) -> Pending<R, E> {
        match self.core.transact(durability, prefetch, operation) {
            Ok(mut done) => {
                done.wake();
                self.core.after_call();
                self.pending(done.answer, done.lsn, durability)
            }
            Err(error) => {
                self.core.rouse_after_failure();
                Pending::ready(Err(error.into()))
            }
        }
    }

    /// Runs `operation` on the newest state, at one position, without waiting for writers.
    pub(crate) fn read<R, E: From<Error>>(
        &self,
        durability: Durability,
        operation: impl FnOnce(&mut Snapshot) -> Result<R, E>,
    ) -> Pending<R, E> {
        let core = &self.core;
        let (answer, lsn) = {
            let _open = core.reads.read();
            if core.closed.load(Ordering::Acquire) {
                return Pending::ready(Err(Error::Closed.into()));
            }
            let mut snapshot = core.snapshot();
            let answer = operation(&mut snapshot);
            (answer, snapshot.depends_on_lsn())
        };
        core.after_call();
        self.answer_of_read(answer, lsn, durability)
    }

    /// Whether the room was opened for reading only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.core.read_only
    }

    /// Runs `operation` like a transaction whose rows are thrown away: how a room that is read only
    /// answers a question that would store what it had to compute.
    pub(crate) fn dry_run<R, E: From<Error>>(
        &self,
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R, E>,
    ) -> Pending<R, E> {
        let core = &self.core;
        let _open = core.reads.read();
        if core.closed.load(Ordering::Acquire) {
            return Pending::ready(Err(Error::Closed.into()));
        }
        let view = core.view();
        let prefetched = Prefetched::load(&view, &[]);
        // Nothing is newer than what was recovered, so the answer rests on nothing that could be
        // lost.
        Pending::ready(operation(&mut Tx::new(view, &prefetched, core.clock.now_ms())))
    }

    /// The answer of a read that rests on `lsn`.
    fn answer_of_read<R, E: From<Error>>(
        &self,
        answer: Result<R, E>,
        lsn: u64,
        durability: Durability,
    ) -> Pending<R, E> {
        let core = &self.core;
        if durability.is_sync() && core.log.durable() < lsn {
            if let Some(source) = core.log.failure() {
                // What it saw can neither be confirmed nor be taken back any more.
                return Pending::ready(Err(Error::Poisoned { source: Arc::clone(source) }.into()));
            }
            return self.pending(answer, lsn, durability);
        }
        Pending::ready(answer)
    }

    /// The most bytes the value of one row may have, so that a frame with it and its keys fits a
    /// log segment.
    pub(crate) fn max_row_bytes(&self) -> usize {
        let payload = self.core.log.max_payload_len();
        // In a log smaller than the longest keys a quarter of a segment is for the value.
        payload - (8 * crate::limits::MAX_KEY_LEN).min(payload / 4 * 3)
    }

    /// The most bytes that all rows of a transaction may have.
    pub(crate) fn max_frame_bytes(&self) -> usize {
        self.core.log.max_payload_len()
    }

    /// The room's clock.
    #[cfg(feature = "codlet")]
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.core.clock)
    }

    /// A random number for each opening of the file.
    pub(crate) fn opening_id(&self) -> u64 {
        self.core.opening_id
    }

    /// Answers when everything that was appended so far is durable, whatever durability it was
    /// appended with.
    pub(crate) fn flush<E: From<Error>>(&self) -> Pending<(), E> {
        self.pending(Ok(()), self.core.log.appended(), Durability::Sync)
    }

    /// Moves everything that was written so far into the B-tree, and waits for it.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        self.core.checkpoint_now()
    }

    /// Gives what the B-tree does not use back to the file system.
    pub(crate) fn compact(&self) -> Result<CompactReport> {
        self.core.compact_now()
    }

    /// Makes durable what was called before, moves it into the B-tree, and ends the engine.
    pub(crate) fn close(&self) -> Result<()> {
        self.close_on_drop.close()
    }

    /// What the engine counted.
    pub(crate) fn stats(&self) -> Result<EngineStats> {
        let _open = self.core.reads.read();
        if self.core.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        stats::collect(&self.core)
    }

    /// Looks what the B-tree uses, for the figures of [`stats`](Self::stats). It reads the branches
    /// of the tree, and waits for a checkpoint under way.
    pub(crate) fn measure_space(&self) -> Result<()> {
        let _open = self.core.reads.read();
        if self.core.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        self.core.btree.space().map(drop)
    }

    /// The deliberate fault of the crash simulation: answers before the flush.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn acknowledge_before_flush(&self) {
        self.core.log.acknowledge_before_flush();
    }

    fn pending<R, E: From<Error>>(
        &self,
        answer: Result<R, E>,
        lsn: u64,
        durability: Durability,
    ) -> Pending<R, E> {
        if self.core.log.reached(lsn, durability) && self.core.log.failure().is_none() {
            return Pending::ready(answer);
        }
        Pending::on_log(answer, &self.core.log, lsn, durability)
    }
}

/// A transaction that was run.
struct Done<R, E> {
    answer: Result<R, E>,
    /// The position that the answer rests on.
    lsn: u64,
    /// Who is to be woken when no lock is held.
    wakeups: Vec<Wakeup>,
}

impl<R, E> Done<R, E> {
    /// Wakes who waited for what was written. The caller holds no lock, because a waker may run
    /// anything.
    fn wake(&mut self) {
        self.wakeups.drain(..).for_each(Wakeup::wake);
    }
}

impl Core {
    /// One transaction: the operation's answer and the position it rests on. An outer error means
    /// that the operation did not run, or that what it staged was not applied.
    fn transact<R, E: From<Error>>(
        &self,
        durability: Durability,
        prefetch: &[(Table, &[u8])],
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R, E>,
    ) -> Result<Done<R, E>> {
        let _turn = Turn::take(self)?;
        let prefetched = Prefetched::load(&self.view(), prefetch);
        self.run(&mut self.serial.lock(), durability, &prefetched, operation)
    }

    /// The part of a transaction that is under the serial lock, whose buffers are `scratch`.
    fn run<R, E: From<Error>>(
        &self,
        scratch: &mut Scratch,
        durability: Durability,
        prefetched: &Prefetched<'_>,
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R, E>,
    ) -> Result<Done<R, E>> {
        self.check_writable()?;
        let now_ms = self.clock.now_ms();
        let under_way = self.hook.transaction();
        let mut tx = Tx::new(self.view(), prefetched, now_ms);
        let answer = operation(&mut tx);
        let depends_on_lsn = tx.depends_on_lsn();
        let (staged, changes) = tx.into_parts();
        // An error leaves nothing, but it too rests on what the operation saw.
        if answer.is_err() || staged.is_empty() {
            if answer.is_ok() {
                under_way.unchanged();
            }
            return Ok(Done { answer, lsn: depends_on_lsn, wakeups: Vec::new() });
        }
        let lsn = self.append(&mut scratch.payload, &staged, durability)?;
        let view = self.view();
        if !self.hook.is_observed() {
            for ((table, key), value) in staged {
                view.active.insert(table, key.into(), lsn, value);
            }
            self.published.store(lsn, Ordering::Release);
            under_way.committed();
            return Ok(Done { answer, lsn, wakeups: Vec::new() });
        }
        for ((table, key), value) in &staged {
            view.active.insert(*table, key.as_slice().into(), lsn, value.clone());
        }
        self.published.store(lsn, Ordering::Release);
        under_way.committed();
        let wakeups = self.hook.committed(CommittedRows::new(&staged, &changes, lsn, now_ms));
        Ok(Done { answer, lsn, wakeups })
    }

    /// Appends one frame with everything that was staged, going on in the other segment when this
    /// one is full.
    fn append(
        &self,
        payload: &mut Vec<u8>,
        staged: &tx::Staged,
        durability: Durability,
    ) -> Result<u64> {
        tx::encode(staged, payload)?;
        let limit = self.log.max_payload_len();
        if payload.len() > limit {
            let (size, limit) = (payload.len() as u64, limit as u64);
            return Err(Error::TooLarge { what: "a transaction", size, limit });
        }
        loop {
            match self.log.append(payload, durability) {
                Ok(lsn) => {
                    background::wake_if_idle(self);
                    return Ok(lsn);
                }
                Err(AppendError::SegmentFull) => self.rotate()?,
                Err(AppendError::Poisoned(source)) => return Err(Error::Poisoned { source }),
            }
        }
    }

    /// Refuses a write that nothing can come of. The caller holds the serial lock.
    fn check_writable(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        match self.log.failure() {
            Some(source) => Err(Error::Poisoned { source: Arc::clone(source) }),
            None => Ok(()),
        }
    }

    /// Tells the observers that the log failed, if it did.
    fn rouse_after_failure(&self) {
        if self.log.failure().is_some() {
            self.hook.failed();
        }
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    fn snapshot(&self) -> Snapshot {
        // The position is read while the view cannot be replaced, so every row up to it is in this
        // view.
        let view = self.view.read();
        let lsn = self.published.load(Ordering::Acquire);
        Snapshot::new(Arc::clone(&view), lsn, self.clock.now_ms())
    }
}

/// The right of this thread to run a transaction of one engine; refused while it already runs one.
struct Turn {
    core: *const Core,
}

impl Turn {
    fn take(core: &Core) -> Result<Self> {
        let this = std::ptr::from_ref(core);
        let mut running = IN_TRANSACTION.get();
        if running.contains(&this) {
            return Err(Error::NestedTransaction);
        }
        let free =
            running.iter_mut().find(|running| running.is_null()).ok_or(Error::NestedTransaction)?;
        *free = this;
        IN_TRANSACTION.set(running);
        Ok(Self { core: this })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let keep = |running| if running == self.core { std::ptr::null() } else { running };
        IN_TRANSACTION.set(IN_TRANSACTION.get().map(keep));
    }
}

/// Ends the background threads and the engine with its last handle.
#[derive(Debug)]
struct CloseOnDrop {
    core: Arc<Core>,
    closing: Mutex<()>,
    threads: Mutex<background::Handles>,
}

impl CloseOnDrop {
    fn close(&self) -> Result<()> {
        // Inside a transaction of this engine it would wait for itself. The turn is given back at
        // once, because whatever closing wakes may call this engine.
        drop(Turn::take(&self.core)?);
        let result = {
            // Whoever closes at the same time finds it closed when its call returns.
            let _closing = self.closing.lock();
            self.core.close()
        };
        self.core.hook.closed();
        self.core.timer.close();
        self.threads.lock().join();
        result
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        // There is nobody left to tell; what was acknowledged is durable whatever happens here.
        let _ = self.close();
    }
}

impl Core {
    fn close(&self) -> Result<()> {
        {
            let _serial = self.serial.lock();
            if self.closed.swap(true, Ordering::AcqRel) {
                return Ok(());
            }
        }
        if self.read_only {
            self.close_storage();
            return Ok(());
        }
        let _span = observe::closing();
        // No transaction begins any more. What was appended becomes durable, and moves into the
        // B-tree so that the next opening has nothing to replay; when that fails, the log still has
        // it.
        let flushed = self.log.wait(self.log.appended(), Durability::Sync);
        if flushed.is_ok() {
            let _ = self.checkpoint_all();
        }
        self.checkpointer.stop();
        self.close_storage();
        observe::closed(self.log.durable(), flushed.as_ref().err());
        flushed
    }

    /// Waits for the reads under way and gives up the file.
    fn close_storage(&self) {
        let _no_reads = self.reads.write();
        self.btree.close();
        self.storage.close();
    }
}
