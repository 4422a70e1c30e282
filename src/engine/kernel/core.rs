//! The kernel's state, and the guards of those who use it.

use super::checkpoints::Checkpoints;
use super::counters::EngineCounters;
use super::observer::CommitHook;
use super::signals::Signals;
use super::snapshot::Snapshot;
use super::time_line::{Moment, TimeLine};
use super::turn::TransactionTurn;
use super::view::View;
use crate::btree::Btree;
use crate::clock::Clock;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::limits::DEFAULT_LOG_STALL;
use crate::log::{Log, LogLayout};
use crate::observe;
use crate::pending::Pending;
use crate::process::HomeProcess;
use crate::storage::{Storage, Superblock};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use crate::unique;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The serial order of transactions, and what it is made of. See [`super`].
#[derive(Debug)]
pub(in crate::engine) struct Kernel {
    pub(super) storage: Arc<dyn Storage>,
    superblock: Superblock,
    pub(super) log: Arc<Log>,
    pub(super) btree: Btree,
    clock: Arc<dyn Clock>,
    /// The room's time line.
    pub(super) time: TimeLine,
    /// The serial lock, with buffers that every transaction uses again.
    pub(super) serial: Mutex<Scratch>,
    /// The tables that readers look into; replaced as a whole, never changed.
    pub(super) view: RwLock<Arc<View>>,
    /// The newest position whose rows are all in the view.
    pub(super) published: AtomicU64,
    pub(super) checkpoints: Checkpoints,
    /// Held for reading while a read runs, so that closing waits for it.
    reads: RwLock<()>,
    closed: AtomicBool,
    /// Whether every write is refused.
    pub(super) read_only: bool,
    /// How long a writer waits when both segments of the log are full.
    pub(super) log_stall: Duration,
    pub(super) counters: EngineCounters,
    /// What is told of every transaction.
    pub(super) hook: CommitHook,
    /// How threads are asked for what the kernel does not do.
    pub(super) signals: Signals,
    /// Tells this opening of the file from every other.
    opening_id: u64,
    /// The process that opened it. A fork of it may take none of the locks.
    home: HomeProcess,
}

/// Buffers that live as long as the kernel.
#[derive(Debug, Default)]
pub(in crate::engine) struct Scratch {
    pub(super) payload: Vec<u8>,
}

/// What a kernel is made of: a file that was recovered.
#[derive(Debug)]
pub(in crate::engine) struct KernelParts {
    pub(in crate::engine) storage: Arc<dyn Storage>,
    pub(in crate::engine) superblock: Superblock,
    pub(in crate::engine) log: Log,
    pub(in crate::engine) btree: Btree,
    /// The rows, and the position of the newest.
    pub(in crate::engine) view: Arc<View>,
    pub(in crate::engine) lsn: u64,
    pub(in crate::engine) clock: Arc<dyn Clock>,
    pub(in crate::engine) time: TimeLine,
    pub(in crate::engine) read_only: bool,
    pub(in crate::engine) hook: CommitHook,
}

impl Kernel {
    pub(in crate::engine) fn new(parts: KernelParts) -> Self {
        let KernelParts {
            storage,
            superblock,
            log,
            btree,
            view,
            lsn,
            clock,
            time,
            read_only,
            hook,
        } = parts;
        Self {
            storage,
            superblock,
            log: Arc::new(log),
            btree,
            clock,
            time,
            serial: Mutex::default(),
            view: RwLock::new(view),
            published: AtomicU64::new(lsn),
            checkpoints: Checkpoints::default(),
            reads: RwLock::new(()),
            closed: AtomicBool::new(false),
            log_stall: DEFAULT_LOG_STALL,
            read_only,
            counters: EngineCounters::default(),
            hook,
            signals: Signals::default(),
            opening_id: random_u64(),
            home: HomeProcess::current(),
        }
    }

    /// Says how long a writer waits when both segments of the log are full, and a caller for a disk
    /// that is too full for what was appended.
    pub(in crate::engine) fn set_log_stall(&mut self, at_most: Duration) {
        self.log_stall = at_most;
        self.log.set_disk_full_patience(at_most);
    }

    /// Refuses to go on in a fork of the process that opened the file. Everything that may take a
    /// lock begins with this.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub(in crate::engine) fn check_process(&self) -> Result<()> {
        if self.home.has_forked() {
            // The parent's file does not stay open in the child.
            self.storage.abandon();
            return Err(Error::Forked);
        }
        Ok(())
    }

    /// Keeps closing away for as long as the answer is kept. The one guard of everything that
    /// reads.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub(in crate::engine) fn hold_open(&self) -> Result<HeldOpen<'_>> {
        self.check_process()?;
        // Closing waits for the reads under way, and this must not wait for closing.
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let reads = self.reads.read();
        if self.is_closed() {
            return Err(Error::Closed);
        }
        Ok(HeldOpen { kernel: self, _reads: reads })
    }

    /// The right of this thread to run a transaction, for as long as the answer is kept.
    ///
    /// # Errors
    /// [`Error::NestedTransaction`] while it runs one already, [`Error::Forked`].
    pub(in crate::engine) fn take_turn(&self) -> Result<TransactionTurn> {
        self.check_process()?;
        TransactionTurn::take(std::ptr::from_ref(self).cast())
    }

    pub(in crate::engine) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(in crate::engine) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(in crate::engine) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    pub(in crate::engine) fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    pub(in crate::engine) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    pub(in crate::engine) fn btree(&self) -> &Btree {
        &self.btree
    }

    pub(in crate::engine) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The room's time now.
    pub(in crate::engine) fn moment(&self) -> Moment {
        self.time.moment()
    }

    pub(in crate::engine) fn signals(&self) -> &Signals {
        &self.signals
    }

    pub(in crate::engine) fn opening_id(&self) -> u64 {
        self.opening_id
    }

    /// The position that the B-tree has reached, as readers see it.
    pub(in crate::engine) fn checkpoint_lsn(&self) -> u64 {
        self.view().btree.lsn()
    }

    /// Takes the next place of the serial order without running a transaction.
    pub(in crate::engine) fn lock_serial(&self) -> MutexGuard<'_, Scratch> {
        self.serial.lock()
    }

    /// Refuses a write that nothing can come of. The caller holds the serial lock.
    pub(in crate::engine) fn check_writable(&self) -> Result<()> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        self.check_log()
    }

    /// Refuses to go on with a log that has failed.
    pub(in crate::engine) fn check_log(&self) -> Result<()> {
        match self.log.failure() {
            Some(source) => Err(Error::poisoned(Arc::clone(source))),
            None => Ok(()),
        }
    }

    /// Tells the observers that the log failed, if it did. The caller holds no lock.
    pub(in crate::engine) fn tell_of_failure(&self) {
        if self.log.failure().is_some() && !self.home.has_forked() {
            self.checkpoints.wake_stalled();
            self.hook.failed();
        }
    }

    /// Tells the observers that the kernel was closed. The caller holds no lock.
    pub(in crate::engine) fn tell_of_closing(&self) {
        self.hook.closed();
    }

    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// The tables, and the newest position all rows of which are in them.
    fn newest(&self) -> (Arc<View>, u64) {
        // The position is read while the view cannot be replaced, so every row up to it is in this
        // view.
        let view = self.view.read();
        (Arc::clone(&view), self.published.load(Ordering::Acquire))
    }

    /// An answer that depends on the frame at `lsn`.
    pub(in crate::engine) fn pending<R, E: From<Error>>(
        &self,
        answer: Result<R, E>,
        lsn: u64,
        durability: Durability,
    ) -> Pending<R, E> {
        if let Err(error) = self.check_process() {
            return Pending::ready(Err(error.into()));
        }
        if self.log.reached(lsn, durability) && self.log.failure().is_none() {
            return Pending::ready(answer);
        }
        Pending::on_log(answer, &self.log, lsn, durability)
    }

    /// The answer of a read that depends on `lsn`.
    pub(in crate::engine) fn answer_of_read<R, E: From<Error>>(
        &self,
        answer: Result<R, E>,
        lsn: u64,
        durability: Durability,
    ) -> Pending<R, E> {
        if self.answers_for_the_file(durability)
            && let Err(lost) = self.log.check_lost()
        {
            return Pending::ready(Err(lost.into()));
        }
        if durability.is_sync() && self.log.durable() < lsn {
            // What it saw can neither be confirmed nor be taken back after a failure.
            let refused = self.check_log().and(self.log.given_up(lsn).map_or(Ok(()), Err));
            return match refused {
                Ok(()) => self.pending(answer, lsn, durability),
                Err(error) => Pending::ready(Err(error.into())),
            };
        }
        Pending::ready(answer)
    }

    /// Whether a read with this durability says what is in the file, and not only what is in the
    /// room. What is read in a room that never writes comes from the file alone.
    pub(in crate::engine) fn answers_for_the_file(&self, durability: Durability) -> bool {
        durability.is_sync() || self.read_only
    }

    /// Looks at the name of the file, if that is due, when no call does.
    pub(in crate::engine) fn look_at_name(&self) {
        // Those who wait are told, and what is called later is told as well.
        if self.log.check_name().is_err() {
            self.tell_of_failure();
        }
    }

    /// Does what a thread should do and none does, because none could be started.
    #[cold]
    pub(in crate::engine) fn do_owed_work(&self) {
        let owed = self.signals.take_owed();
        if owed.commit {
            if self.log.flush_wanted() > self.log.durable() || self.log.flush_by().is_some() {
                self.log.drive();
            } else {
                // A failure poisons the log, and those who wait are told.
                let _ = self.log.write_appended();
            }
        }
        if owed.checkpoint {
            // A failure is counted, and told to the writer that needs the space.
            let _ = self.run_checkpoint();
        }
    }

    /// Ends all transactions, makes durable what was appended and gives up the file. A second call
    /// does nothing.
    pub(in crate::engine) fn close(&self) -> Result<()> {
        {
            let mut serial = self.serial.lock();
            if self.is_closed() {
                return Ok(());
            }
            self.write_last_line(&mut serial.payload);
            self.closed.store(true, Ordering::Release);
        }
        if self.read_only {
            self.close_storage();
            return Ok(());
        }
        let _span = observe::closing();
        // No transaction begins any more. What was appended becomes durable, and moves into the
        // B-tree so that the next opening has nothing to replay; when that fails, the log still has
        // it.
        self.log.closing();
        let unqueued = self.end_queue();
        let flushed = self.log.flush_up_to(self.log.last_writable()).and(unqueued);
        let flushed = flushed.and_then(|()| self.log.check_name_now());
        if flushed.is_ok() {
            if self.checkpoint_all().is_ok() {
                self.log.give_back_space();
            }
        } else {
            self.log.end_unwritten();
        }
        self.checkpoints.wake_stalled();
        self.close_storage();
        observe::closed(self.log.durable(), flushed.as_ref().err());
        flushed
    }

    /// Writes down when the room was closed. Without it the next opening takes the time for that of
    /// the last line that was written, and what happened in between for as late as can be.
    fn write_last_line(&self, payload: &mut Vec<u8>) {
        if self.read_only || self.log.failure().is_some() {
            return;
        }
        let now = self.time.moment();
        if let Ok(Some(rows)) = self.time.last_rows(&now) {
            let _ = self.write_line(payload, rows, &now);
        }
    }

    /// Reads the clock, and writes the line down if that is due although there is nothing else to
    /// write. Without headroom in the log it is left to the next time.
    pub(in crate::engine) fn keep_time(&self) -> Result<()> {
        let now = self.time.moment();
        if self.read_only || !self.time.wants_writing(&now) {
            return Ok(());
        }
        let _turn = self.take_turn()?;
        let mut scratch = self.serial.lock();
        if self.log.spare_is_free() && self.check_writable().is_ok() {
            let rows = self.time.rows_now(&now)?;
            self.write_line(&mut scratch.payload, rows, &now)?;
        }
        Ok(())
    }

    /// Waits for the reads under way and gives up the file.
    pub(in crate::engine) fn close_storage(&self) {
        let _no_reads = self.reads.write();
        self.btree.close();
        self.storage.close();
    }
}

/// A kernel that does not close meanwhile, for those who read it: its rows, and for verification
/// its parts.
#[derive(Debug)]
pub(crate) struct HeldOpen<'a> {
    pub(super) kernel: &'a Kernel,
    _reads: RwLockReadGuard<'a, ()>,
}

impl HeldOpen<'_> {
    /// The newest state.
    pub(in crate::engine) fn snapshot(&self) -> Snapshot {
        let (view, lsn) = self.kernel.newest();
        Snapshot::new(view, lsn, self.kernel.time.moment())
    }

    /// The tables, and the newest position all rows of which are in them.
    pub(in crate::engine) fn newest(&self) -> (Arc<View>, u64) {
        self.kernel.newest()
    }

    /// The file, to which writers write.
    pub(crate) fn storage(&self) -> &dyn Storage {
        self.kernel.storage.as_ref()
    }

    pub(crate) fn btree(&self) -> &Btree {
        &self.kernel.btree
    }

    /// The LSN that the B-tree has reached.
    pub(crate) fn btree_lsn(&self) -> u64 {
        self.kernel.btree.view().lsn()
    }

    pub(crate) fn log_layout(&self) -> LogLayout {
        self.kernel.log.layout()
    }

    /// Both segments of the log as they are now. Nothing is written to them meanwhile.
    pub(crate) fn read_log(&self) -> io::Result<Vec<Vec<u8>>> {
        self.kernel.log.read_segments()
    }
}

/// A random number: eight of the ten random bytes of a ULID.
fn random_u64() -> u64 {
    let bytes = unique::ulid().to_bytes();
    bytes.last_chunk::<8>().map_or(0, |random| u64::from_le_bytes(*random))
}
