//! Wait slots: where the callers of a group commit sleep, so that one system call wakes a whole
//! group.
//!
//! A slot has a word. Threads sleep on it and return when it has changed. The first thread of a
//! slot does not sleep on the word but parks on its own, because it is woken alone when it is to
//! lead the next commit. Tasks cannot sleep: a slot keeps their wakers.

use crate::fault::DeliberateFault;
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::thread::{self, Thread};
use crate::sync::{WaitWord, thread_local};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

/// The state of the first thread in a slot: it waits, its answer is there, or it is to lead.
const WAITING: u8 = 0;
pub(super) const ANSWERED: u8 = 1;
pub(super) const LEADING: u8 = 2;

/// A thread that parks on its own. Each thread has one, and uses it for every wait.
#[derive(Debug)]
pub(super) struct Parker {
    state: AtomicU8,
    thread: Thread,
}

impl Parker {
    /// The parker of this thread, set to wait.
    pub(super) fn of_this_thread() -> Arc<Self> {
        thread_local! {
            static PARKER: OnceCell<Arc<Parker>> = const { OnceCell::new() };
        }
        PARKER.with(|cell| {
            let new =
                || Arc::new(Parker { state: AtomicU8::new(WAITING), thread: thread::current() });
            let parker = cell.get_or_init(new);
            parker.state.store(WAITING, Ordering::Relaxed);
            Arc::clone(parker)
        })
    }

    /// Wakes the thread with [`ANSWERED`] or [`LEADING`].
    pub(super) fn wake(&self, state: u8) {
        self.state.store(state, Ordering::Release);
        self.thread.unpark();
    }

    /// Blocks until the thread is woken, and returns the state that it was woken with.
    pub(super) fn park(&self) -> u8 {
        loop {
            match self.state.load(Ordering::Acquire) {
                WAITING => thread::park(),
                state => return state,
            }
        }
    }
}

/// The wakers of tasks that wait, by ticket. There may be very many.
pub(super) type WaitingTasks = BTreeMap<u64, Waker>;

/// The threads and tasks that wait in a slot.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    pub(super) first: Option<Arc<Parker>>,
    /// Threads that sleep on the slot's word.
    pub(super) sleepers: usize,
    pub(super) tasks: WaitingTasks,
}

impl Waiters {
    pub(super) fn threads(&self) -> usize {
        self.sleepers + usize::from(self.first.is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.threads() == 0 && self.tasks.is_empty()
    }

    /// Wakes all of them. `word` is that of their slot, and has changed already.
    pub(super) fn wake(self, word: &WaitWord) {
        if self.sleepers > 0 && !DeliberateFault::LoseSleepers.is_on() {
            word.wake_all();
        }
        if let Some(first) = self.first {
            first.wake(ANSWERED);
        }
        if DeliberateFault::LoseWaker.is_on() {
            return;
        }
        self.tasks.into_values().for_each(Waker::wake);
    }
}

/// One of the two wait slots.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitSlot {
    #[default]
    A,
    B,
}

impl WaitSlot {
    pub(super) const BOTH: [WaitSlot; 2] = [WaitSlot::A, WaitSlot::B];

    pub(super) fn other(self) -> Self {
        match self {
            WaitSlot::A => WaitSlot::B,
            WaitSlot::B => WaitSlot::A,
        }
    }
}

/// One value for each slot.
#[derive(Debug, Default)]
pub(super) struct PerSlot<T> {
    a: T,
    b: T,
}

impl<T> PerSlot<T> {
    pub(super) fn at(&self, slot: WaitSlot) -> &T {
        match slot {
            WaitSlot::A => &self.a,
            WaitSlot::B => &self.b,
        }
    }

    pub(super) fn at_mut(&mut self, slot: WaitSlot) -> &mut T {
        match slot {
            WaitSlot::A => &mut self.a,
            WaitSlot::B => &mut self.b,
        }
    }

    pub(super) fn both_mut(&mut self) -> (&mut T, &mut T) {
        (&mut self.a, &mut self.b)
    }
}
