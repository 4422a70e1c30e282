//! How the kernel asks for what it does not do itself, without knowing who does it.
//!
//! The kernel has no thread. Where a thread should do something, it gives a signal that the wiring
//! has set; without one, or when no thread could be started, the callers do the work.

use crate::fault::DeliberateFault;
use crate::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};
use std::fmt;
use std::sync::OnceLock;

/// Asks a worker to look for work, and answers whether a thread will do so.
pub(in crate::engine) type Signal = Box<dyn Fn() -> bool + Send + Sync>;

/// What callers do after a call, because no thread does: bits of [`Signals::owed`].
const DEADLINES: u8 = 1;
const COMMIT: u8 = 2;
const CHECKPOINT: u8 = 4;

/// The work of [`Signals::take_owed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) commit: bool,
    pub(super) checkpoint: bool,
}

/// The signals of one kernel.
#[derive(Default)]
pub(in crate::engine) struct Signals {
    committer: OnceLock<Signal>,
    checkpointer: OnceLock<Signal>,
    maintenance: OnceLock<Signal>,
    /// Whether the committer must be called for what is appended now: it sleeps, or its thread has
    /// ended.
    committer_sleeps: AtomicBool,
    /// Whether the maintenance must be called for what is appended now: it may be due before what
    /// the maintenance sleeps for.
    maintenance_sleeps: AtomicBool,
    /// What no thread does.
    owed: AtomicU8,
}

impl Signals {
    /// Sets who is called, before the first transaction.
    pub(in crate::engine) fn set(
        &self,
        committer: Signal,
        checkpointer: Signal,
        maintenance: Signal,
    ) {
        let _ = self.maintenance.set(maintenance);
        let _ = self.committer.set(committer);
        let _ = self.checkpointer.set(checkpointer);
        self.committer_sleeps.store(true, Ordering::Release);
    }

    /// Has callers look for deadlines, because there are no threads.
    pub(in crate::engine) fn leave_deadlines_to_callers(&self) {
        self.owed.fetch_or(DEADLINES, Ordering::Relaxed);
    }

    /// Whether a caller has something to do after its call.
    pub(in crate::engine) fn is_work_left_to_callers(&self) -> bool {
        self.owed.load(Ordering::Relaxed) != 0
    }

    /// What a caller has to do after its call, deadlines aside. It is given to one caller only.
    pub(super) fn take_owed(&self) -> Owed {
        let owed = self.owed.fetch_and(DEADLINES, Ordering::Relaxed);
        Owed { commit: owed & COMMIT != 0, checkpoint: owed & CHECKPOINT != 0 }
    }

    /// Something was appended: the committer is called if it sleeps, so that this does not wait for
    /// somebody to ask.
    pub(super) fn appended(&self) {
        // Either this sees that the committer sleeps, or the committer sees what was appended: see
        // `committer_falls_asleep`.
        if !DeliberateFault::ForgetFence.is_on() {
            fence(Ordering::SeqCst);
        }
        if self.committer_sleeps.load(Ordering::Relaxed)
            && self.committer_sleeps.swap(false, Ordering::AcqRel)
        {
            self.call_committer();
        }
        if self.maintenance_sleeps.load(Ordering::Relaxed)
            && self.maintenance_sleeps.swap(false, Ordering::AcqRel)
        {
            self.call_maintenance();
        }
    }

    #[cold]
    fn call_maintenance(&self) {
        // Where there is none, nothing is swept by itself.
        let _ = self.maintenance.get().is_some_and(|call| call());
    }

    /// The maintenance is about to sleep for long. What is appended after this calls it, once; what
    /// was appended before it sees if it looks after this.
    pub(in crate::engine) fn maintenance_falls_asleep(&self) {
        self.maintenance_sleeps.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// The maintenance looks by itself.
    pub(in crate::engine) fn maintenance_is_awake(&self) {
        self.maintenance_sleeps.store(false, Ordering::Release);
    }

    #[cold]
    fn call_committer(&self) {
        if self.committer.get().is_some_and(|call| call()) {
            return;
        }
        // No thread could be started. The next append tries again.
        self.committer_sleeps.store(true, Ordering::Release);
        self.owed.fetch_or(COMMIT, Ordering::Relaxed);
    }

    /// The committer is about to sleep or to end its thread. What is appended after this calls it;
    /// what was appended before it sees if it looks after this.
    pub(in crate::engine) fn committer_falls_asleep(&self) {
        self.committer_sleeps.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// The committer looks for work by itself.
    pub(in crate::engine) fn committer_is_awake(&self) {
        self.committer_sleeps.store(false, Ordering::Release);
    }

    /// Asks for a checkpoint, and answers whether a thread will run it.
    pub(super) fn call_checkpointer(&self) -> bool {
        self.checkpointer.get().is_some_and(|call| call())
    }

    /// As [`call_checkpointer`](Self::call_checkpointer); when no thread can be started, the caller
    /// runs the checkpoint after its call. Without threads the writer that needs one does.
    pub(super) fn request_checkpoint(&self) {
        if let Some(call) = self.checkpointer.get()
            && !call()
        {
            self.owed.fetch_or(CHECKPOINT, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("owed", &self.owed).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(cloakroom_model = "loom")]
mod models;
