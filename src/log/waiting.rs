//! Waiting for the log: until a frame may be written, is written, or is durable, by a thread that
//! blocks or by a task that is polled. A poll never writes and never flushes where there are
//! background threads: both may wait for the disk.

use super::group_commit::GroupPoll;
use super::task_waits::WaitTicket;
use super::{Log, no_space};
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::fault::DeliberateFault;
#[cfg(any(test, feature = "testing"))]
use crate::sync::atomic::Ordering;
use std::sync::Arc;
use std::task::Waker;

impl Log {
    /// Blocks until the frame at `lsn` is as durable as asked.
    pub(crate) fn wait(&self, lsn: u64, durability: Durability) -> Result<()> {
        self.home.check()?;
        self.check_name()?;
        #[cfg(any(test, feature = "testing"))]
        if self.acknowledge_before_flush.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.wait_until_writable(lsn)?;
        if !durability.is_sync() {
            self.relaxed_caller();
        }
        if (!durability.is_sync() || DeliberateFault::AcknowledgeEarly.is_on())
            && let Some(answer) = self.write_up_to(lsn)
        {
            return answer;
        }
        self.group
            .wait(lsn, |covers: &dyn Fn(u64)| self.commit(covers), || self.call_leader())
            .map_err(Error::unknown_outcome)
    }

    /// Returns the result when the frame at `lsn` is as durable as asked. Otherwise registers
    /// `waker` to be called when it may be. `ticket` is the registration of the same wait.
    pub(crate) fn poll(
        &self,
        lsn: u64,
        durability: Durability,
        ticket: &mut Option<WaitTicket>,
        waker: &Waker,
    ) -> Option<Result<()>> {
        let polled = self.poll_first_steps(lsn, durability, ticket, waker);
        if let FirstSteps::Registered = polled {
            return None;
        }
        if let FirstSteps::Answer(answer) = polled {
            self.leave(ticket);
            return Some(answer);
        }
        let polled = self.group.poll(lsn, self.flush_ticket(ticket), waker);
        self.registered(polled, ticket)
    }

    /// As [`poll`](Log::poll) of a flush, for a caller that waits for space on a full disk however
    /// long that takes.
    pub(crate) fn poll_patiently(
        &self,
        lsn: u64,
        ticket: &mut Option<WaitTicket>,
        waker: &Waker,
    ) -> Option<Result<()>> {
        if let Err(gone) = self.home.check().and_then(|()| self.check_unlinked()) {
            return Some(Err(gone));
        }
        if self.is_queued(lsn) && self.failure().is_none() {
            let is_over = || !self.is_queued(lsn) || self.failure().is_some();
            if self.register_other(is_over, ticket, waker) {
                return None;
            }
        }
        let polled = self.group.poll_patiently(lsn, self.flush_ticket(ticket), waker);
        self.registered(polled, ticket)
    }

    /// What comes before the wait for a flush: the wait for space, and that for the write, after
    /// which a relaxed answer waits for nothing more.
    fn poll_first_steps(
        &self,
        lsn: u64,
        durability: Durability,
        ticket: &mut Option<WaitTicket>,
        waker: &Waker,
    ) -> FirstSteps {
        if let Err(gone) = self.home.check().and_then(|()| self.check_unlinked()) {
            return FirstSteps::Answer(Err(gone));
        }
        if self.is_queued(lsn) {
            if self.poll_queued(lsn, ticket, waker) {
                return FirstSteps::Registered;
            }
            if let Some(error) = self.end_of_queued(lsn) {
                return FirstSteps::Answer(Err(error));
            }
        }
        if durability.is_sync() {
            return FirstSteps::Over;
        }
        self.relaxed_caller();
        // On a full disk the answer is that of the next flush.
        let is_over = || self.written() >= lsn || self.failure().is_some() || self.is_disk_full();
        if self.register_other(is_over, ticket, waker) {
            if self.leader_call.call() {
                return FirstSteps::Registered;
            }
            // Without a background thread the caller writes.
            let _ = self.write_appended();
            if !is_over() {
                return FirstSteps::Registered;
            }
        }
        if self.written() >= lsn {
            return FirstSteps::Answer(Ok(()));
        }
        match self.failure() {
            Some(failure) => FirstSteps::Answer(Err(Error::unknown_outcome(Arc::clone(failure)))),
            None => FirstSteps::Over,
        }
    }

    /// Registers a task that waits for something else than a flush; `false` when `is_over`.
    pub(super) fn register_other(
        &self,
        is_over: impl Fn() -> bool,
        ticket: &mut Option<WaitTicket>,
        waker: &Waker,
    ) -> bool {
        let given = match *ticket {
            Some(WaitTicket::Other(given)) => Some(given),
            Some(WaitTicket::Flush(given)) => {
                self.group.forget(given);
                None
            }
            None => None,
        };
        let registered = self.group.others.register(is_over, given, waker);
        *ticket = registered.or(given).map(WaitTicket::Other);
        registered.is_some()
    }

    /// The ticket of a wait for a flush. One for something else is given back.
    fn flush_ticket(&self, ticket: &mut Option<WaitTicket>) -> Option<u64> {
        match *ticket {
            Some(WaitTicket::Flush(given)) => Some(given),
            Some(WaitTicket::Other(_)) | None => {
                self.leave(ticket);
                None
            }
        }
    }

    fn leave(&self, ticket: &mut Option<WaitTicket>) {
        if let Some(ticket) = ticket.take() {
            self.forget(ticket);
        }
    }

    fn registered(&self, polled: GroupPoll, ticket: &mut Option<WaitTicket>) -> Option<Result<()>> {
        match polled {
            GroupPoll::Ready(result) => {
                *ticket = None;
                Some(result.map_err(Error::unknown_outcome))
            }
            GroupPoll::Registered { ticket: given, call_leader } => {
                *ticket = Some(WaitTicket::Flush(given));
                if call_leader {
                    self.call_leader();
                }
                None
            }
        }
    }

    /// Whether [`wait`](Log::wait) would return at once.
    pub(crate) fn reached(&self, lsn: u64, durability: Durability) -> bool {
        let reached = if durability.is_sync() { self.durable() } else { self.written() };
        reached >= lsn || self.failure().is_some() || self.has_forked()
    }

    /// Removes the registration of a wait that will not be polled again.
    pub(crate) fn forget(&self, ticket: WaitTicket) {
        if self.has_forked() {
            return;
        }
        match ticket {
            WaitTicket::Flush(ticket) => self.group.forget(ticket),
            WaitTicket::Other(ticket) => self.group.others.forget(ticket),
        }
    }

    /// Writes what was appended, without a flush. On a full disk it stays to be written.
    pub(crate) fn write_appended(&self) -> Result<()> {
        self.write_up_to(self.last_writable()).unwrap_or(Ok(()))
    }

    /// Whether tasks wait for a write.
    pub(crate) fn tasks_wait_for_write(&self) -> bool {
        self.written() < self.last_writable() && !self.group.others.is_empty()
    }

    /// Blocks until the frame at `lsn` is durable, for a caller of whose work nothing is in the
    /// log: on a full disk it gets [`Error::DiskFull`].
    pub(crate) fn flush_up_to(&self, lsn: u64) -> Result<()> {
        match self.wait(lsn, Durability::Sync) {
            Err(Error::OutcomeUnknown { source }) if self.failure().is_none() => {
                Err(no_space(&source))
            }
            outcome => outcome,
        }
    }
}

/// How far a task has come before its wait for a flush.
enum FirstSteps {
    /// It waits.
    Registered,
    Answer(Result<()>),
    Over,
}
