//! The way of a transaction: decided, appended, visible, shown to the observers.

use super::core::{Kernel, Scratch};
use super::observer::{CommittedRows, Wakeup};
use super::prefetch::Prefetched;
use super::staged::{Staged, encode};
use super::tx::Tx;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::log::AppendError;
use crate::tables::Table;
use std::sync::atomic::Ordering;

/// A transaction that was run.
#[must_use = "who waited for it is still to be woken"]
pub(in crate::engine) struct Finished<R, E> {
    pub(in crate::engine) answer: Result<R, E>,
    /// The position that the answer depends on.
    pub(in crate::engine) lsn: u64,
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
        self.run(&mut self.serial.lock(), durability, &prefetched, operation)
    }

    /// The part of a transaction that is under the serial lock, whose buffers are `scratch`.
    pub(in crate::engine) fn run<R, E: From<Error>>(
        &self,
        scratch: &mut Scratch,
        durability: Durability,
        prefetched: &Prefetched<'_>,
        operation: impl FnOnce(&mut Tx<'_>) -> Result<R, E>,
    ) -> Result<Finished<R, E>> {
        self.check_writable()?;
        let now_ms = self.clock.now_ms();
        let under_way = self.hook.transaction();
        let mut tx = Tx::new(self.view(), prefetched, now_ms);
        let answer = operation(&mut tx);
        let depends_on_lsn = tx.depends_on_lsn();
        let (staged, changes) = tx.into_parts();
        // An error leaves nothing, but it too depends on what the operation saw.
        if answer.is_err() || staged.is_empty() {
            if answer.is_ok() {
                under_way.unchanged();
            }
            return Ok(Finished { answer, lsn: depends_on_lsn, wakeups: Vec::new() });
        }
        let lsn = self.append(&mut scratch.payload, &staged, durability)?;
        let view = self.view();
        if !self.hook.is_observed() {
            for ((table, key), value) in staged {
                view.active.insert(table, key.into(), lsn, value);
            }
            self.published.store(lsn, Ordering::Release);
            under_way.committed();
            return Ok(Finished { answer, lsn, wakeups: Vec::new() });
        }
        for ((table, key), value) in &staged {
            view.active.insert(*table, key.as_slice().into(), lsn, value.clone());
        }
        self.published.store(lsn, Ordering::Release);
        under_way.committed();
        let wakeups = self.hook.committed(CommittedRows::new(&staged, &changes, lsn, now_ms));
        Ok(Finished { answer, lsn, wakeups })
    }

    /// Appends one frame with everything that was staged, going on in the other segment when this
    /// one is full.
    fn append(
        &self,
        payload: &mut Vec<u8>,
        staged: &Staged,
        durability: Durability,
    ) -> Result<u64> {
        encode(staged, payload)?;
        let limit = self.log.max_payload_len();
        if payload.len() > limit {
            let (size, limit) = (payload.len() as u64, limit as u64);
            return Err(Error::TooLarge { what: "a transaction", size, limit });
        }
        loop {
            match self.log.append(payload, durability) {
                Ok(lsn) => {
                    self.signals.appended();
                    return Ok(lsn);
                }
                Err(AppendError::SegmentFull) => self.make_room()?,
                Err(AppendError::Poisoned(source)) => return Err(Error::Poisoned { source }),
            }
        }
    }
}
