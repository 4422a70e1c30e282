//! The way of a transaction: decided, appended, visible, shown to the observers.

use super::core::{Kernel, Scratch};
use super::observer::{CommittedRows, Wakeup};
use super::prefetch::Prefetched;
use super::staged::{Staged, encode};
use super::time_line::{LineRows, Moment, TIME_LINE};
use super::tx::Tx;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::fault::DeliberateFault;
use crate::log::{AppendError, QueueShare, no_space};
use crate::sync::atomic::Ordering;
use crate::tables::Table;

/// A transaction that was run.
#[must_use = "who waited for it is still to be woken"]
pub(in crate::engine) struct Finished<R, E> {
    pub(in crate::engine) answer: Result<R, E>,
    /// The position that the answer depends on.
    pub(in crate::engine) lsn: u64,
    /// How durable that has to be.
    pub(in crate::engine) durability: Durability,
    /// Who is to be woken when no lock is held.
    wakeups: Vec<Wakeup>,
}

impl<R, E> Finished<R, E> {
    /// Wakes who waited for what was written. The caller holds no lock, because a waker may run
    /// anything.
    pub(in crate::engine) fn wake(&mut self) {
        self.wakeups.drain(..).for_each(Wakeup::wake);
    }
}

impl Kernel {
    /// One transaction: the operation's answer and the position it depends on. An outer error
    /// means that the operation did not run, or that what it staged was not applied.
    pub(in crate::engine) fn transact<R, E: From<Error>>(
        &self,
        durability: Durability,
        prefetch: &[(Table, &[u8])],
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R, E>,
    ) -> Result<Finished<R, E>> {
        let _turn = self.take_turn()?;
        let prefetched = Prefetched::load(&self.view(), prefetch);
        let mut serial = self.serial.lock();
        let share = QueueShare::Callers;
        let finished = self.run(&mut serial, (durability, share), &prefetched, operation);
        if matches!(finished, Err(Error::Forked)) {
            // Unlocking would look for waiting threads, which a forked child does not have.
            std::mem::forget(serial);
        }
        finished
    }

    /// The part of a transaction that is under the serial lock, whose buffers are `scratch`.
    pub(in crate::engine) fn run<R, E: From<Error>>(
        &self,
        scratch: &mut Scratch,
        (durability, share): (Durability, QueueShare),
        prefetched: &Prefetched<'_>,
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R, E>,
    ) -> Result<Finished<R, E>> {
        self.check_writable()?;
        let moment = self.time.moment();
        let under_way = self.hook.transaction();
        let mut tx = Tx::new(self.view(), prefetched, moment.clone());
        let answer = operation(&mut tx);
        // The operation may have forked, and this may be the child.
        if let Err(forked) = self.check_process() {
            // The observers' locks may be held by threads that the child does not have.
            std::mem::forget(under_way);
            return Err(forked);
        }
        let depends_on_lsn = tx.depends_on_lsn();
        let durability = durability.and(tx.required());
        let (mut staged, changes, unseen) = tx.into_parts();
        // An error leaves nothing, but it too depends on what the operation saw.
        if answer.is_err() || staged.is_empty() {
            if answer.is_ok() {
                under_way.unchanged();
            }
            return Ok(Finished { answer, lsn: depends_on_lsn, durability, wakeups: Vec::new() });
        }
        let lsn =
            self.append_with_time(&mut scratch.payload, &mut staged, &moment, (durability, share))?;
        let view = self.view();
        if DeliberateFault::PublishBeforeInsert.is_on() {
            self.published.store(lsn, Ordering::Release);
        }
        if !self.hook.is_observed() {
            for ((table, key), value) in staged {
                view.active.insert(table, key.into(), lsn, value);
            }
            self.published.store(lsn, Ordering::Release);
            under_way.committed();
            return Ok(Finished { answer, lsn, durability, wakeups: Vec::new() });
        }
        for ((table, key), value) in &staged {
            view.active.insert(*table, key.as_slice().into(), lsn, value.clone());
        }
        self.published.store(lsn, Ordering::Release);
        under_way.committed();
        let rows = CommittedRows::new((&staged, &changes, &unseen), lsn, &moment);
        let wakeups = self.hook.committed(rows);
        Ok(Finished { answer, lsn, durability, wakeups })
    }

    /// Appends one frame with everything that was staged, and with the rows of the time line when
    /// those are due.
    fn append_with_time(
        &self,
        payload: &mut Vec<u8>,
        staged: &mut Staged,
        moment: &Moment,
        appended_as: (Durability, QueueShare),
    ) -> Result<u64> {
        let Some(rows) = self.time.due_rows(moment)? else {
            return self.append(payload, staged, appended_as);
        };
        let rows = stage_line(staged, rows);
        let lsn = self.append(payload, staged, appended_as)?;
        self.time.wrote(rows, moment);
        Ok(lsn)
    }

    /// Writes the time line, in a frame of its own, for those who open the room next. The caller
    /// holds the serial lock.
    pub(super) fn write_line(
        &self,
        payload: &mut Vec<u8>,
        rows: LineRows,
        moment: &Moment,
    ) -> Result<()> {
        let mut staged = Staged::new();
        let rows = stage_line(&mut staged, rows);
        let lsn = self.append(payload, &staged, (Durability::Os, QueueShare::Maintenance))?;
        let view = self.view();
        for ((table, key), value) in staged {
            view.active.insert(table, key.into(), lsn, value);
        }
        self.published.store(lsn, Ordering::Release);
        self.time.wrote(rows, moment);
        Ok(())
    }

    /// Appends one frame with everything that was staged, going on in the other segment when this
    /// one is full.
    fn append(
        &self,
        payload: &mut Vec<u8>,
        staged: &Staged,
        (durability, share): (Durability, QueueShare),
    ) -> Result<u64> {
        encode(staged, payload)?;
        let limit = self.log.max_payload_len();
        if payload.len() > limit {
            let (size, limit) = (payload.len() as u64, limit as u64);
            return Err(Error::TooLarge { what: "a transaction", size, limit });
        }
        loop {
            match self.log.append(payload, durability, share) {
                Ok(lsn) => {
                    self.signals.appended();
                    return Ok(lsn);
                }
                Err(AppendError::SegmentFull) => self.make_room(payload.len(), share)?,
                Err(AppendError::Poisoned(source)) => return Err(Error::poisoned(source)),
                Err(AppendError::DiskFull(source)) => {
                    if !self.log.try_again() {
                        return Err(no_space(&source));
                    }
                }
            }
        }
    }
}

/// Stages the rows, and answers what is left of them for when they are written.
fn stage_line(staged: &mut Staged, mut line: LineRows) -> LineRows {
    for (key, value) in line.rows.drain(..) {
        staged.insert((TIME_LINE, key), value.map(Into::into));
    }
    line
}
