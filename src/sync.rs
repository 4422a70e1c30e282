//! Locks, atomics and threads, as the log and the engine use them.
//!
//! In every ordinary build these are those of the standard library. A build with
//! `--cfg cloakroom_model="shuttle"` or `="loom"` has those of a model checker, which runs the same
//! code in interleavings of its choice: see the modules called `models`. What is below the log (the
//! storage and the B-tree) uses `plain`, so each call into it is one step of a model.

#[cfg(test)]
#[cfg(cloakroom_model)]
pub(crate) mod explore;
#[cfg(cloakroom_model)]
mod modelled;
pub(crate) mod plain;

#[cfg(cloakroom_model)]
pub(crate) use modelled::{
    Condvar, Instant, ModelledWord as WaitWord, Mutex, MutexGuard, RwLock, RwLockReadGuard, atomic,
    thread, thread_local, yield_within,
};
#[cfg(not(cloakroom_model))]
pub(crate) use plain::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};
#[cfg(not(cloakroom_model))]
pub(crate) use std::{sync::atomic, thread, thread_local, time::Instant};

/// Lets others go on, in a loop that ends when `time` has passed since `_began` at the latest.
#[cfg(not(cloakroom_model))]
pub(crate) fn yield_within(_began: Instant, _time: std::time::Duration) {
    thread::yield_now();
}

/// A word that threads sleep on until it has changed (a futex).
#[cfg(not(cloakroom_model))]
#[derive(Debug, Default)]
pub(crate) struct WaitWord(atomic::AtomicU32);

#[cfg(not(cloakroom_model))]
impl WaitWord {
    pub(crate) fn value(&self) -> u32 {
        self.0.load(atomic::Ordering::Acquire)
    }

    /// Gives it another value. Wakes no one yet.
    pub(crate) fn change(&self) {
        self.0.fetch_add(1, atomic::Ordering::Release);
    }

    /// Blocks until the value is not `before`.
    pub(crate) fn sleep_while(&self, before: u32) {
        while self.value() == before {
            atomic_wait::wait(&self.0, before);
        }
    }

    /// Wakes every thread that sleeps on it.
    pub(crate) fn wake_all(&self) {
        atomic_wait::wake_all(&self.0);
    }
}
