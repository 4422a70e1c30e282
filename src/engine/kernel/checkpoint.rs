//! Checkpoints: moving the rows of a full segment into the B-tree, so that the segment can be used
//! again.
//!
//! 1. Under the serial lock the segments change places: the in-memory table of the full one is
//!    frozen and a new one takes the rows of new frames. Writers go on.
//! 2. [`Kernel::run_checkpoint`] waits until every frozen frame is durable in the log, applies the
//!    newest version of each row to the B-tree, unless a newer one is in the active table and in
//!    the log for good by then, in one durable transaction that also records the
//!    position reached, and lets readers look into the new B-tree instead of the frozen table.
//! 3. The segment gets a new generation, durably; only then is it free.
//!
//! A checkpoint that fails changes nothing: the frozen table stays, and the next attempt applies it
//! again. What writers do while both segments are full is in [`log_space`](super::log_space).

use super::checkpoints::NextCheckpoint;
use super::core::Kernel;
use super::view::View;
use crate::btree::ApplyError;
use crate::error::{Error, Result};
use crate::fault::DeliberateFault;
use crate::memtable::{HashedKey, Memtable};
use crate::observe;
use crate::sync::atomic::Ordering;
use crate::sync::thread;
use crate::tables::{Table, Value};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after a failed checkpoint the next one is tried, when no writer asks for it sooner.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often, and how long apart, a checkpoint looks whether readers have let go of what it
/// replaced.
const RELEASE_ATTEMPTS: usize = 20;
const RELEASE_PAUSE: Duration = Duration::from_millis(1);

/// The least that a frame takes in the log: its header, one row and its key.
const MIN_FRAME_BYTES: u64 = 64;

/// How many rows a segment may hold at the most, if they are as small as rows are.
pub(in crate::engine) fn keys_per_segment(space: u64) -> usize {
    usize::try_from(space / MIN_FRAME_BYTES).unwrap_or(usize::MAX)
}

impl Kernel {
    /// Changes the places of the segments, of which the other one is free.
    pub(super) fn rotate(&self) {
        {
            let mut view = self.view.write();
            self.log.rotate(self.clock().elapsed_ms());
            *view = Arc::new(View {
                active: self.memtable_after(&view.active),
                full: Vec::new(),
                frozen: Some(Arc::clone(&view.active)),
                btree: Arc::clone(&view.btree),
            });
        }
        observe::rotated(self.log.appended());
    }

    /// The table that takes the rows behind those of `before`.
    pub(super) fn memtable_after(&self, before: &Memtable) -> Arc<Memtable> {
        Arc::new(Memtable::after(before, keys_per_segment(self.log.active_space())))
    }

    /// Asks for a checkpoint. Without threads the writer that needs one runs it.
    pub(super) fn request_checkpoint(&self) {
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

    /// Keeps checkpoints from ending while the answer is kept.
    #[cfg(test)]
    pub(in crate::engine) fn hold_checkpoints(&self) -> crate::sync::MutexGuard<'_, ()> {
        self.checkpoints.lock_running()
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
        let replaced = result?;
        // What was queued for the segment may be written now, and the other one is full.
        self.log.wake_queued();
        if self.view().frozen.is_some() && !self.is_closed() {
            self.request_checkpoint();
        }
        replaced.into_iter().for_each(release);
        Ok(())
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
            self.log.flush_up_to(lsn)?;
            if DeliberateFault::ReuseSegmentTooSoon.is_on() && !self.log.spare_is_free() {
                self.free_segment()?;
            }
            let mut count = 0;
            // What is queued cannot become durable before this is done.
            let newer = view.full.first().unwrap_or(&view.active);
            let rows = self.rows_to_apply(frozen, newer, &mut count);
            let btree = self.btree.apply(lsn, rows).map_err(|failed| self.btree_failed(failed))?;
            let mut current = self.view.write();
            let (active, full) = (Arc::clone(&current.active), current.full.clone());
            *current = Arc::new(View { active, full, frozen: None, btree });
            drop(current);
            let after = self.btree.stats();
            self.counters.checkpointed(started.elapsed());
            let bytes = after.bytes_written.saturating_sub(bytes_before);
            observe::checkpointed(lsn, count, bytes, after.len, started.elapsed());
        }
        if !self.log.spare_is_free() {
            self.free_segment()?;
        }
        Ok(view.frozen.is_some().then_some(view))
    }

    /// Frees the segment whose rows are all in the B-tree. If frames were queued for it, they may
    /// be written, and the other segment is next.
    fn free_segment(&self) -> Result<()> {
        let (lsn, btree_len) = (self.view().btree.lsn(), self.btree.stats().len);
        let generation = self.log.renew_segment(lsn, btree_len)?;
        // At once, so that no writer sees one without the other.
        let mut current = self.view.write();
        self.log.segment_freed(generation);
        let mut full = current.full.clone();
        if !full.is_empty() {
            let (active, btree) = (Arc::clone(&current.active), Arc::clone(&current.btree));
            let frozen = Some(full.remove(0));
            *current = Arc::new(View { active, full, frozen, btree });
        }
        Ok(())
    }

    /// The newest version of each frozen row, without those that have a newer one in `next`, the
    /// table of the segment behind: an entry that was written, and removed a moment later, never
    /// touches the B-tree. `count` counts the rows.
    ///
    /// What is left out must be in the log for good when the B-tree is committed without it, so the
    /// end of the rows waits until the newer versions are durable. Every reader of the new B-tree
    /// sees them, because only published versions count.
    fn rows_to_apply<'a>(
        &'a self,
        frozen: &'a Memtable,
        next: &'a Memtable,
        count: &'a mut u64,
    ) -> impl Iterator<Item = Result<(Table, &'a [u8], Option<Value>)>> + 'a {
        let (mut newest, mut newer_lsn) = (frozen.newest(), 0);
        std::iter::from_fn(move || {
            for (table, key, value) in newest.by_ref() {
                let published = self.published.load(Ordering::Acquire);
                match next.get(HashedKey::new(table, key), published) {
                    Some(newer) => newer_lsn = newer_lsn.max(newer.lsn),
                    None => {
                        *count += 1;
                        return Some(Ok((table, key, value)));
                    }
                }
            }
            self.log.flush_up_to(newer_lsn).err().map(Err)
        })
    }

    /// The error of a change to the B-tree that failed. A failed flush poisons, because it may have
    /// lost frames of the log.
    pub(super) fn btree_failed(&self, failed: ApplyError) -> Error {
        if failed.flush_failed {
            return self.log.poison(failed.error.into_cause());
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
        thread::sleep(RELEASE_PAUSE);
    }
}
