//! Checkpoints: moving the rows of a full segment into the B-tree, so that the segment can be used
//! again.
//!
//! 1. Under the serial lock the segments change places ([`Kernel::make_room`]): the in-memory table
//!    of the full one is frozen and a new one takes the rows of new frames. Writers go on.
//! 2. [`Kernel::run_checkpoint`] waits until every frozen frame is durable in the log, applies the
//!    newest version of each row to the B-tree in one durable transaction that also records the
//!    position reached, and lets readers look into the new B-tree instead of the frozen table.
//! 3. The segment gets a new generation, durably; only then is it free.
//!
//! A checkpoint that fails changes nothing: the frozen table stays, and the next attempt applies it
//! again. When both segments are full, writers wait for that attempt, at most [`MAX_LOG_STALL`],
//! and learn why it failed.

use super::checkpoints::NextCheckpoint;
use super::core::Kernel;
use super::view::View;
use crate::btree::ApplyError;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::limits::MAX_LOG_STALL;
use crate::memtable::Memtable;
use crate::observe;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after a failed checkpoint the next one is tried, when no writer asks for it sooner.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often, and how long apart, a checkpoint looks whether readers have let go of what it
/// replaced.
const RELEASE_ATTEMPTS: usize = 20;
const RELEASE_PAUSE: Duration = Duration::from_millis(1);

/// The least that a frame takes in the log: its header, one row and its key.
const MIN_FRAME_BYTES: u64 = 64;

/// How many rows a segment may hold at the most, if they are as small as rows are.
pub(in crate::engine) fn keys_per_segment(segment_size: u64) -> usize {
    usize::try_from(segment_size / MIN_FRAME_BYTES).unwrap_or(usize::MAX)
}

impl Kernel {
    /// Goes on in the other segment, and asks for a checkpoint of the full one. The caller holds
    /// the serial lock. When the other segment is still being moved into the B-tree this waits for
    /// it, bounded.
    pub(super) fn make_room(&self) -> Result<()> {
        if !self.log.spare_is_free() {
            self.wait_for_spare()?;
        }
        self.rotate();
        self.request_checkpoint();
        Ok(())
    }

    /// Changes the places of the segments, of which the other one is free.
    fn rotate(&self) {
        {
            let mut view = self.view.write();
            self.log.rotate();
            *view = Arc::new(View {
                active: Arc::new(Memtable::for_keys(keys_per_segment(self.log.segment_size()))),
                frozen: Some(Arc::clone(&view.active)),
                btree: Arc::clone(&view.btree),
            });
        }
        observe::rotated(self.log.appended());
    }

    /// Asks for a checkpoint. Without threads the writer that needs one runs it.
    fn request_checkpoint(&self) {
        self.checkpoints.state.lock().requested = true;
        self.signals.request_checkpoint();
    }

    /// Asks for a checkpoint if an opening has found a segment that is not in the B-tree.
    pub(in crate::engine) fn request_checkpoint_of_recovered(&self) {
        if !self.log.spare_is_free() {
            self.request_checkpoint();
        }
    }

    /// What the thread that runs checkpoints has to do. A request is given once.
    pub(in crate::engine) fn next_checkpoint(&self) -> NextCheckpoint {
        let mut state = self.checkpoints.state.lock();
        if self.is_closed() {
            return NextCheckpoint::None;
        }
        if std::mem::take(&mut state.requested) {
            return NextCheckpoint::Now;
        }
        // After a failure of the log no attempt succeeds any more.
        match state.last_failure {
            Some(_) if self.log.failure().is_none() => NextCheckpoint::After(RETRY_AFTER),
            _ => NextCheckpoint::None,
        }
    }

    /// Waits until the other segment is free, or until a whole attempt to free it has failed.
    fn wait_for_spare(&self) -> Result<()> {
        let started = Instant::now();
        self.counters.stalled();
        let result = self.wait_for_checkpoint(started, || self.log.spare_is_free());
        self.counters.stall_ended(started.elapsed());
        result
    }

    /// Waits until maintenance may write without taking the room that callers need. The caller
    /// holds no lock.
    pub(in crate::engine) fn wait_for_headroom(&self) -> Result<()> {
        if self.log.spare_is_free() {
            return Ok(());
        }
        self.wait_for_checkpoint(Instant::now(), || self.log.spare_is_free())
    }

    /// Waits until a checkpoint has brought about what is wanted, or until a whole attempt has
    /// failed. Where no thread runs checkpoints, this one does.
    fn wait_for_checkpoint(&self, started: Instant, is_done: impl Fn() -> bool) -> Result<()> {
        let deadline = started + MAX_LOG_STALL;
        let attempts = self.checkpoints.state.lock().attempts;
        loop {
            let seen = {
                let mut state = self.checkpoints.state.lock();
                if is_done() {
                    return Ok(());
                }
                self.check_log()?;
                if self.is_closed() {
                    return Err(Error::Closed);
                }
                if let (true, Some(failure)) = (state.attempts > attempts, &state.last_failure) {
                    return Err(full(failure.clone(), started));
                }
                state.requested = true;
                state.attempts
            };
            if !self.signals.call_checkpointer() {
                return self.run_checkpoint().map_err(|error| full(error, started));
            }
            let mut state = self.checkpoints.state.lock();
            // An attempt that has ended since then may have done it.
            if state.attempts == seen
                && self.checkpoints.ended.wait_until(&mut state, deadline).timed_out()
            {
                let cause = "the checkpoint is still running".to_owned();
                return Err(Error::LogFull { waited: started.elapsed(), cause });
            }
        }
    }

    /// Moves the frozen table, if there is one, into the B-tree and frees its segment.
    pub(in crate::engine) fn run_checkpoint(&self) -> Result<()> {
        let running = self.checkpoints.lock_running();
        // A panic in the B-tree is a failed attempt: the frozen table is still there.
        let result = catch_unwind(AssertUnwindSafe(|| self.move_frozen())).unwrap_or_else(|_| {
            Err(Error::corrupted("the B-tree", "a checkpoint into it panicked"))
        });
        if let Err(error) = &result {
            self.counters.checkpoint_failed(error);
        }
        self.checkpoints.attempt_ended(result.as_ref().err());
        drop(running);
        if result.is_err() {
            self.tell_of_failure();
            // Its thread tries again after a while, whichever thread ran this one.
            if !self.is_closed() {
                self.signals.call_checkpointer();
            }
        }
        result.map(|replaced| replaced.into_iter().for_each(release))
    }

    /// Answers the view that was replaced, if one was.
    fn move_frozen(&self) -> Result<Option<Arc<View>>> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        // Closing comes here too. Nothing may be flushed any more, not even what needs no more of
        // the log.
        self.check_log()?;
        let view = self.view();
        if let Some(frozen) = &view.frozen {
            let lsn = frozen.newest_lsn().max(view.btree.lsn());
            let _span = observe::checkpointing(lsn);
            let (started, bytes_before) = (Instant::now(), self.btree.stats().bytes_written);
            let mut count = 0;
            self.log.wait(lsn, Durability::Sync)?;
            let rows = frozen.newest().map(|((table, key), value)| {
                count += 1;
                Ok((table, key, value))
            });
            let btree = self.btree.apply(lsn, rows).map_err(|failed| self.btree_failed(failed))?;
            let mut current = self.view.write();
            *current = Arc::new(View { active: Arc::clone(&current.active), frozen: None, btree });
            drop(current);
            let after = self.btree.stats();
            self.counters.checkpointed(started.elapsed());
            let bytes = after.bytes_written.saturating_sub(bytes_before);
            observe::checkpointed(lsn, count, bytes, after.len, started.elapsed());
        }
        if !self.log.spare_is_free() {
            self.log.recycle_spare(self.view().btree.lsn())?;
        }
        Ok(view.frozen.is_some().then_some(view))
    }

    /// The error of a change to the B-tree that failed. A failed flush poisons, because it may have
    /// lost frames of the log.
    pub(super) fn btree_failed(&self, failed: ApplyError) -> Error {
        if failed.flush_failed {
            return self.log.poison(std::io::Error::other(failed.error));
        }
        failed.error
    }

    /// Moves everything that was written so far into the B-tree.
    pub(in crate::engine) fn checkpoint_now(&self) -> Result<()> {
        let _turn = self.take_turn()?;
        loop {
            {
                let _serial = self.serial.lock();
                self.check_writable()?;
                if self.freeze_active() {
                    break;
                }
            }
            // Writers go on while the other segment is freed.
            self.run_checkpoint()?;
        }
        self.run_checkpoint()
    }

    /// The same for an engine that is being closed, in which no transaction runs any more.
    pub(super) fn checkpoint_all(&self) -> Result<()> {
        while !self.freeze_active() {
            self.run_checkpoint()?;
        }
        self.run_checkpoint()
    }

    /// Freezes what the active segment holds; `false` when the other segment has to be freed first.
    /// The caller runs the checkpoint.
    fn freeze_active(&self) -> bool {
        if self.log.active_is_empty() {
            return true;
        }
        let is_free = self.log.spare_is_free();
        if is_free {
            self.rotate();
        }
        is_free
    }
}

/// Drops a view that was replaced, and with it the frozen table, here rather than in whichever
/// reader is the last to hold it: freeing all its rows takes a while. A reader that keeps it for
/// long is not waited for.
fn release(view: Arc<View>) {
    for _ in 0..RELEASE_ATTEMPTS {
        if Arc::strong_count(&view) == 1 {
            break;
        }
        std::thread::sleep(RELEASE_PAUSE);
    }
}

/// What a writer is told when the log is full because the checkpoint fails.
fn full(failure: Error, started: Instant) -> Error {
    match failure {
        Error::DiskFull { .. } | Error::Poisoned { .. } | Error::Corrupted { .. } => failure,
        other => Error::LogFull { waited: started.elapsed(), cause: other.to_string() },
    }
}
