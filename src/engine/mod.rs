//! The engine: one serial order of transactions over a log, an in-memory table and a B-tree.
//!
//! This file only wires. Each part imports those above it in this list and none below:
//!
//! | folder | what it is |
//! |---|---|
//! | [`kernel`] | the serial order: transactions, snapshots, cursors; no thread, no list of waiters |
//! | [`workers`] | background work, each kind by a thread that is there while it has work |
//! | [`notify`] | who is told of changes: row waits and the change feed |
//! | [`lifecycle`] | files: created, opened and recovered, brought up to date, copied |
//!
//! # The way of a write
//! 1. [`Engine::transact`] reads what the decision will probably need from the B-tree, before any
//!    lock.
//! 2. Under the serial lock the operation reads, decides and stages rows ([`Tx`]); one frame with
//!    all of them is appended to the log's buffer, and the rows enter the in-memory table with the
//!    frame's position (LSN). The [observers](CommitObserver) are told.
//! 3. The answer is a [`Pending`] on that position. The first caller that waits for it writes and
//!    flushes the buffer for all ([`Log`](crate::log::Log)).
//!
//! # The way of a read
//! [`Engine::read`] takes the newest position and the tables as they are, without a lock that a
//! writer holds. The newest position among the versions it touched is what its answer depends on.
//!
//! # The way of a wait
//! [`Engine::await_row`] reads a row that has no answer yet, and answers when a transaction has
//! changed it, a deadline has passed or the engine closes. See [`notify`] and [`workers`].

#[cfg(test)]
mod checkpoint_tests;
#[cfg(test)]
mod compaction_tests;
mod kernel;
mod lifecycle;
#[cfg(test)]
#[cfg(cloakroom_model = "shuttle")]
mod models;
mod notify;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod testing;
#[cfg(test)]
mod thread_tests;
#[cfg(test)]
mod time_tests;
mod workers;

pub use kernel::EngineStats;
pub(crate) use kernel::time_line;
pub(crate) use kernel::{
    CommitHook, CommitObserver, CommittedRows, HeldInterest, Interest, Wakeup,
};
pub(crate) use kernel::{Cost, DryRun, Snapshot, Tx, access, cursor};
pub use lifecycle::BackupReport;
#[cfg(any(test, feature = "testing"))]
pub(crate) use lifecycle::Emit;
pub(crate) use lifecycle::{DurableSnapshot, Geometry, Migration, new_file};
pub(crate) use notify::{Feed, Found, Judge, NoMore, Selected, Subscription};
pub use workers::CompactReport;
pub(crate) use workers::{FollowUp, LogShare, MaintenanceHandle, MaintenanceJob, Threads, Tick};

use crate::clock::Clock;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::observe;
use crate::pending::Pending;
use crate::storage::{FileStorage, Storage};
use crate::sync::Mutex;
use crate::tables::{Catalogue, Table, Value};
use kernel::time_line::NewestEpoch;
use kernel::{HeldOpen, Kernel, SegmentsOf};
use lifecycle::{KernelOptions, back_up, bring_up_to_date, format, open_kernel};
use notify::{RowWaits, Select, WaitedRow, await_row, subscribe};
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use workers::Workers;

/// A handle of an open engine. The engine closes when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct Engine {
    kernel: Arc<Kernel>,
    wiring: Arc<Wiring>,
}

/// Shows nothing of the rows.
impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// What is around a kernel, closed with its last handle.
#[derive(Debug)]
struct Wiring {
    kernel: Arc<Kernel>,
    workers: Arc<Workers>,
    /// Who waits for a row to change.
    row_waits: Arc<RowWaits>,
    closing: Mutex<()>,
}

/// How to open an engine.
#[derive(Debug, Clone)]
pub(crate) struct EngineOptions {
    /// Every table of the stores.
    pub(crate) tables: Catalogue,
    pub(crate) log_capacity: u64,
    pub(crate) cache_size: usize,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long a leap of the wall clock must hold before what it ended is removed.
    pub(crate) leap_hold: Duration,
    /// The newest epoch of the time line that a row names, as far as that can be told, for a room
    /// that has lost its time line.
    pub(crate) newest_epoch: NewestEpoch,
    pub(crate) threads: Threads,
    /// Nothing is written to the file: what a crash left is recovered in memory alone, and every
    /// write is refused.
    pub(crate) read_only: bool,
    /// How long a caller waits for space in the log: when both segments are full, and when the disk
    /// is too full for what was appended.
    pub(crate) log_stall: Duration,
    /// How files of older versions become files of this one, oldest first.
    pub(crate) migrations: &'static [Migration],
    /// What the maintenance thread does, if there are background threads.
    pub(crate) maintenance: Option<MaintenanceJob>,
    /// What is told of every transaction, beside the row waits.
    pub(crate) hook: CommitHook,
}

impl EngineOptions {
    /// Writes an empty room.
    fn format(&self, storage: Arc<dyn Storage>) -> Result<()> {
        let like = Geometry::new(self.log_capacity, self.clock.now_ms());
        format(storage, like, self.cache_size, self.tables)
    }
}

// A panic of a caller leaves nothing half applied: a transaction that panics is undone, and locks
// do not poison.
impl UnwindSafe for Engine {}
impl RefUnwindSafe for Engine {}

impl Engine {
    /// Opens the file at `path`, creating it when it is missing unless it is to be read only.
    pub(crate) fn open_file(path: &Path, options: EngineOptions) -> Result<Self> {
        if options.read_only {
            return Self::open_on(Arc::new(FileStorage::open_read_only(path)?), path, options);
        }
        let (storage, _created) =
            FileStorage::open_or_create(path, |new| options.format(Arc::new(new.clone())))?;
        let storage = bring_up_to_date(storage, path, options.tables, options.migrations)?;
        Self::open_on(Arc::new(storage), path, options)
    }

    /// Formats an empty storage and opens it.
    pub(crate) fn create_on(storage: Arc<dyn Storage>, options: EngineOptions) -> Result<Self> {
        options.format(Arc::clone(&storage))?;
        Self::open_on(storage, Path::new("(in memory)"), options)
    }

    /// Opens a storage that holds a room; `path` names it in errors.
    pub(crate) fn open_on(
        storage: Arc<dyn Storage>,
        path: &Path,
        options: EngineOptions,
    ) -> Result<Self> {
        let _span = observe::opening(path);
        let started = Instant::now();
        let opened = Self::wire(storage, path, options);
        let (engine, mut found) = opened.inspect_err(observe::not_opened)?;
        found.took = started.elapsed();
        observe::opened(found);
        Ok(engine)
    }

    /// Opens the kernel and sets the workers and observers around it.
    fn wire(
        storage: Arc<dyn Storage>,
        path: &Path,
        options: EngineOptions,
    ) -> Result<(Self, observe::Opened)> {
        let EngineOptions {
            tables,
            cache_size,
            clock,
            leap_hold,
            newest_epoch,
            threads,
            read_only,
            log_stall,
            maintenance,
            mut hook,
            ..
        } = options;
        let row_waits = Arc::new(RowWaits::new(hook.interest()));
        hook.add(Arc::clone(&row_waits) as _);
        let options =
            KernelOptions { tables, cache_size, clock, leap_hold, newest_epoch, read_only, hook };
        let (mut kernel, found) = open_kernel(storage, path, options)?;
        kernel.set_log_stall(log_stall);
        let kernel = Arc::new(kernel);
        kernel.log().set_segment_call(Box::new(SegmentsOf(Arc::downgrade(&kernel))));
        let threads = if read_only { Threads::None } else { threads };
        let workers = Workers::new(&kernel, threads, maintenance);
        if let Err(error) = workers.start() {
            // Nothing runs, and the lock of the file is given up: it can be opened again at once.
            workers.stop();
            kernel.close_storage();
            return Err(error);
        }
        let wiring =
            Wiring { kernel: Arc::clone(&kernel), workers, row_waits, closing: Mutex::default() };
        Ok((Self { kernel, wiring: Arc::new(wiring) }, found))
    }

    /// Runs `operation` at the next place of the serial order; what it stages becomes durable or
    /// visible together or not at all. `prefetch` names rows it will probably read, which are
    /// looked up before the lock.
    pub(crate) fn transact<R, E: From<Error>>(
        &self,
        durability: Durability,
        prefetch: &[(Table, &[u8])],
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R, E>,
    ) -> Pending<R, E> {
        match self.kernel.transact(durability, prefetch, operation) {
            Ok(mut finished) => {
                finished.wake();
                self.wiring.workers.after_call();
                self.kernel.pending(finished.answer, finished.lsn, finished.durability)
            }
            Err(error) => {
                self.kernel.tell_of_failure();
                Pending::ready(Err(error.into()))
            }
        }
    }

    /// An answer that depends on everything that was written before.
    pub(crate) fn answer_after_all<R, E: From<Error>>(
        &self,
        answer: Result<R, E>,
        durability: Durability,
    ) -> Pending<R, E> {
        self.kernel.pending(answer, self.kernel.log().appended(), durability)
    }

    /// Runs `operation` on the newest state, at one position, without waiting for writers.
    pub(crate) fn read<R, E: From<Error>>(
        &self,
        durability: Durability,
        operation: impl FnOnce(&mut Snapshot) -> Result<R, E>,
    ) -> Pending<R, E> {
        self.look_at_name(durability);
        let (answer, lsn) = {
            let open = match self.kernel.hold_open() {
                Ok(open) => open,
                Err(error) => return Pending::ready(Err(error.into())),
            };
            let mut snapshot = open.snapshot();
            let answer = operation(&mut snapshot);
            (answer, snapshot.depends_on_lsn())
        };
        self.wiring.workers.after_call();
        self.kernel.answer_of_read(answer, lsn, durability)
    }

    /// Reads the row at `key` of `table` through `look`, and when it finds no answer yet, waits
    /// until there is one, which `finish` makes of what the judge leaves.
    pub(crate) fn await_row<R, E: From<Error>>(
        &self,
        durability: Durability,
        table: Table,
        key: &[u8],
        look: impl Fn(&mut Snapshot) -> Result<Found<R>, E>,
        finish: fn(Option<Value>) -> Result<R, E>,
    ) -> Pending<R, E> {
        self.look_at_name(durability);
        let Wiring { workers, row_waits, .. } = &*self.wiring;
        let row = WaitedRow { durability, table, key };
        await_row((&self.kernel, row_waits, workers.timer()), row, look, finish)
    }

    /// Looks whether the file still has its name and its length, from time to time, before an
    /// answer that says what is in the file.
    fn look_at_name(&self, durability: Durability) {
        if self.kernel.answers_for_the_file(durability) && self.kernel.check_process().is_ok() {
            // An answer that depends on it says so.
            let _ = self.kernel.log().check_name();
        }
    }

    /// Whether a change in many steps may take the next one, of so many bytes, now: it leaves half
    /// of what can be queued to others.
    pub(crate) fn has_space_for_step(&self, bytes: usize) -> bool {
        self.kernel.has_space_for_step(bytes as u64)
    }

    /// Waits until a checkpoint has made space for another step.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn wait_for_step_space(&self) -> Result<()> {
        self.kernel.wait_for_headroom()
    }

    /// Has a thread do the rest of a change, which may wait. Gives it back when too many wait.
    pub(crate) fn follow_up(&self, rest: FollowUp) -> std::result::Result<(), FollowUp> {
        self.wiring.workers.follow_up(rest)
    }

    /// The error of a change that the log has no space for.
    pub(crate) fn log_is_full(&self) -> Error {
        self.kernel.log_is_full()
    }

    /// How many wait for a row of `table` from `from` to `to`.
    pub(crate) fn waiters(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> usize {
        if self.kernel.check_process().is_err() {
            return 0;
        }
        self.wiring.row_waits.count(table, from, to)
    }

    /// Has `feed`, which observes this engine, keep what `select` wants of every transaction after
    /// this call: at most `capacity` items, unless one transaction has more.
    pub(crate) fn subscribe<T>(
        &self,
        feed: &Arc<Feed<T>>,
        select: Box<Select<T>>,
        capacity: usize,
    ) -> Result<Subscription<T>> {
        subscribe(&self.kernel, feed, select, capacity)
    }

    /// Answers when everything that was appended so far is durable, whatever durability it was
    /// appended with.
    pub(crate) fn flush<E: From<Error>>(&self) -> Pending<(), E> {
        self.kernel.pending(Ok(()), self.kernel.log().appended(), Durability::Sync)
    }

    /// Moves everything that was written so far into the B-tree, and waits for it.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        self.kernel.checkpoint_now()
    }

    /// Gives what the B-tree does not use back to the file system.
    pub(crate) fn compact(&self) -> Result<CompactReport> {
        self.wiring.workers.compactor().compact_now()
    }

    /// The engine as maintenance uses it, for maintenance that somebody asked for.
    ///
    /// # Errors
    /// [`Error::NestedTransaction`] inside a transaction, which maintenance would wait for.
    pub(crate) fn maintenance(&self) -> Result<MaintenanceHandle<'_>> {
        self.wiring.workers.maintenance()
    }

    /// Everything as of a durable position that is not before anything acknowledged so far.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub(crate) fn durable_snapshot(&self) -> Result<DurableSnapshot> {
        self.kernel.check_process()?;
        DurableSnapshot::take(&self.kernel)
    }

    /// Copies the room to `path`. `progress` is told how many rows are done and about how many
    /// there are.
    ///
    /// # Errors
    /// Those of [`Cloakroom::backup`](crate::Cloakroom::backup). Whatever they are, no temporary is
    /// left, and what has the name is as it was.
    pub(crate) fn backup(
        &self,
        path: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<BackupReport> {
        self.kernel.check_process()?;
        back_up(&self.kernel, path, progress)
    }

    /// Makes durable what was called before, moves it into the B-tree, and ends the engine.
    pub(crate) fn close(&self) -> Result<()> {
        self.wiring.close()
    }

    /// The engine, kept from closing, for verification.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub(crate) fn hold_open(&self) -> Result<HeldOpen<'_>> {
        self.kernel.hold_open()
    }

    /// What the engine counted.
    pub(crate) fn stats(&self) -> Result<EngineStats> {
        self.kernel.hold_open()?.stats()
    }

    /// Looks what the B-tree uses, for the figures of [`stats`](Self::stats). It reads the branches
    /// of the tree, and waits for a checkpoint under way.
    pub(crate) fn measure_space(&self) -> Result<()> {
        self.kernel.hold_open()?.btree().space().map(drop)
    }

    /// Whether the room was opened for reading only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.kernel.is_read_only()
    }

    /// The most bytes the value of one row may have, so that a frame with it and its keys fits a
    /// log segment.
    pub(crate) fn max_row_bytes(&self) -> usize {
        let payload = self.max_frame_bytes();
        // In a log smaller than the longest keys a quarter of a segment is for the value.
        payload - (8 * crate::limits::MAX_KEY_LEN).min(payload / 4 * 3)
    }

    /// Whether it is the engine of the same room.
    pub(crate) fn is(&self, other: &Engine) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel)
    }

    /// The most bytes that all rows of a transaction may have.
    pub(crate) fn max_frame_bytes(&self) -> usize {
        self.kernel.log().max_payload_len()
    }

    /// The room's clock.
    #[cfg(feature = "codlet")]
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(self.kernel.clock())
    }

    /// A random number for each opening of the file.
    pub(crate) fn opening_id(&self) -> u64 {
        self.kernel.opening_id()
    }

    /// Has the next call look at the name and the length of the file.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn look_at_name_next(&self) {
        self.kernel.log().look_at_name_next();
    }

    /// The deliberate fault of the crash simulation: answers before the flush.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn acknowledge_before_flush(&self) {
        self.kernel.log().acknowledge_before_flush();
    }

    /// Keeps checkpoints from ending while the answer is kept.
    #[cfg(test)]
    pub(crate) fn hold_checkpoints(&self) -> crate::sync::MutexGuard<'_, ()> {
        self.kernel.hold_checkpoints()
    }

    #[cfg(test)]
    fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }
}

impl Wiring {
    fn close(&self) -> Result<()> {
        // Inside a transaction of this engine it would wait for itself. The turn is given back at
        // once, because whatever closing wakes may call this engine.
        drop(self.kernel.take_turn()?);
        let result = {
            // A thread that closes at the same time finds it closed when its call returns.
            let _closing = self.closing.lock();
            self.workers.finish_follow_ups();
            self.workers.compactor().compact_before_closing();
            self.kernel.close()
        };
        self.kernel.tell_of_closing();
        self.workers.stop();
        result
    }
}

impl Drop for Wiring {
    fn drop(&mut self) {
        if self.kernel.check_process().is_err() {
            // What the room is made of is never dropped in a forked child: its locks may be held
            // by threads that the child does not have, and its threads cannot be joined.
            std::mem::forget(Arc::clone(&self.kernel));
            std::mem::forget(Arc::clone(&self.workers));
            std::mem::forget(Arc::clone(&self.row_waits));
            return;
        }
        // No one is left to tell; what was acknowledged is durable whatever happens here.
        let _ = self.close();
    }
}
