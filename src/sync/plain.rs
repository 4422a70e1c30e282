//! The locks of the standard library, which do not poison here.
//!
//! They keep nothing outside themselves. A lock whose waiting threads stand in a table of the
//! process (as `parking_lot`'s do) would lose wake-ups in a forked child, where the table names
//! threads that are gone.

use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, TryLockError};
use std::thread;
use std::time::Instant;

pub(crate) use std::sync::{RwLockReadGuard, RwLockWriteGuard};
pub(crate) use {
    PlainCondvar as Condvar, PlainMutex as Mutex, PlainMutexGuard as MutexGuard,
    PlainRwLock as RwLock,
};

/// A lock that does not poison.
#[derive(Debug, Default)]
pub(crate) struct PlainMutex<T>(std::sync::Mutex<T>);

/// See [`PlainMutex`]. Empty only while a condition is waited for.
#[derive(Debug)]
pub(crate) struct PlainMutexGuard<'a, T>(Option<std::sync::MutexGuard<'a, T>>);

impl<T> PlainMutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> PlainMutexGuard<'_, T> {
        PlainMutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    pub(crate) fn try_lock(&self) -> Option<PlainMutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(PlainMutexGuard(Some(guard))),
            Err(TryLockError::Poisoned(poisoned)) => {
                Some(PlainMutexGuard(Some(poisoned.into_inner())))
            }
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<T> PlainMutex<T> {
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> PlainMutexGuard<'_, T> {
    /// Unlocks, and lets a thread that waits for the lock run.
    pub(crate) fn unlock_fair(guard: Self) {
        drop(guard);
        thread::yield_now();
    }
}

impl<T> Deref for PlainMutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("held while nothing is waited for")
    }
}

impl<T> DerefMut for PlainMutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("held while nothing is waited for")
    }
}

/// A condition of a [`PlainMutex`].
#[derive(Debug, Default)]
pub(crate) struct PlainCondvar(std::sync::Condvar);

impl PlainCondvar {
    pub(crate) const fn new() -> Self {
        Self(std::sync::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut PlainMutexGuard<'_, T>) {
        let held = guard.0.take().expect("one wait at a time");
        guard.0 = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn wait_until<T>(
        &self,
        guard: &mut PlainMutexGuard<'_, T>,
        until: Instant,
    ) -> PlainTimedWait {
        let held = guard.0.take().expect("one wait at a time");
        let left = until.saturating_duration_since(Instant::now());
        let (held, outcome) =
            self.0.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner);
        guard.0 = Some(held);
        PlainTimedWait { timed_out: outcome.timed_out() }
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// How [`PlainCondvar::wait_until`] ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlainTimedWait {
    timed_out: bool,
}

impl PlainTimedWait {
    pub(crate) fn timed_out(self) -> bool {
        self.timed_out
    }
}

/// A lock for many readers or one writer, which does not poison.
#[derive(Debug, Default)]
pub(crate) struct PlainRwLock<T>(std::sync::RwLock<T>);

impl<T> PlainRwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    #[test]
    fn after_a_panic_under_them_they_can_be_locked() {
        let (mutex, lock) = (PlainMutex::new(1), PlainRwLock::new(1));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _held = (mutex.lock(), lock.write());
            panic!("as planned");
        }));
        assert!(panicked.is_err());
        *mutex.lock() += 1;
        *mutex.try_lock().unwrap() += 1;
        *lock.write() += 1;
        assert_eq!((*mutex.lock(), *lock.read()), (3, 2));
    }

    #[test]
    fn a_wait_ends_with_a_call_or_with_its_time() {
        let (state, changed) = (PlainMutex::new(false), PlainCondvar::new());
        let mut held = state.lock();
        assert!(
            changed.wait_until(&mut held, Instant::now() + Duration::from_millis(2)).timed_out()
        );
        assert!(state.try_lock().is_none(), "it is held again");
        thread::scope(|scope| {
            scope.spawn(|| {
                *state.lock() = true;
                changed.notify_one();
            });
            while !*held {
                changed.wait(&mut held);
            }
        });
    }
}
