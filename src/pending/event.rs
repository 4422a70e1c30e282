//! Something that will happen once, and its waiter.
//!
//! An event becomes over in two steps, because the first is taken under the engine's lock and the
//! second runs code of others: [`Event::settle`] decides what happened, for ever;
//! [`Event::announce`] wakes the waiter. A waiter that looks in between sees that it is over.

use crate::fault::DeliberateFault;
use crate::sync::{Condvar, Mutex};
use crate::tables::Value;
use std::fmt;
use std::task::Waker;

/// What an event that is over leaves to its waiter.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventOutcome {
    /// The row that ended it, if it left one.
    pub(crate) row: Option<Value>,
    /// The position that this depends on.
    pub(crate) lsn: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Event {
    state: Mutex<EventState>,
    over: Condvar,
}

#[derive(Default)]
struct EventState {
    outcome: Option<EventOutcome>,
    waker: Option<Waker>,
}

impl Event {
    /// Makes `outcome` what happened, unless something has happened before. Wakes no one yet.
    pub(crate) fn settle(&self, outcome: EventOutcome) {
        self.state.lock().outcome.get_or_insert(outcome);
    }

    /// Wakes who waits. The caller holds no lock, because a waker may run anything.
    pub(crate) fn announce(&self) {
        if DeliberateFault::LoseEvent.is_on() {
            return;
        }
        let waker = self.state.lock().waker.take();
        self.over.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What happened, if it is over.
    pub(crate) fn outcome(&self) -> Option<EventOutcome> {
        self.state.lock().outcome.clone()
    }

    /// Blocks until it is over.
    pub(crate) fn wait(&self) -> EventOutcome {
        let mut state = self.state.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            self.over.wait(&mut state);
        }
    }

    /// What happened, or else `None`, and `waker` is called when it is over instead of the one
    /// given before.
    pub(crate) fn poll(&self, waker: &Waker) -> Option<EventOutcome> {
        let mut state = self.state.lock();
        if let Some(outcome) = &state.outcome {
            return Some(outcome.clone());
        }
        let old = match &state.waker {
            Some(old) if old.will_wake(waker) => None,
            _ => state.waker.replace(waker.clone()),
        };
        drop(state);
        // Dropping a waker may run code of others.
        drop(old);
        None
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("over", &self.outcome().is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(cloakroom_model = "loom")]
mod models;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_first_outcome_stays_and_the_last_waker_is_woken_once() {
        let (event, first, last) =
            (Event::default(), Arc::new(Count::default()), Arc::new(Count::default()));
        assert!(event.poll(&first.clone().into()).is_none());
        assert!(event.poll(&last.clone().into()).is_none());
        assert!(event.outcome().is_none());
        event.settle(EventOutcome { row: None, lsn: 7 });
        event.settle(EventOutcome { row: None, lsn: 9 });
        event.announce();
        event.announce();
        assert_eq!(event.wait().lsn, 7);
        assert_eq!(event.poll(&last.clone().into()).map(|outcome| outcome.lsn), Some(7));
        assert_eq!([first.0.load(Ordering::SeqCst), last.0.load(Ordering::SeqCst)], [0, 1]);
    }

    #[test]
    fn a_thread_that_blocks_is_woken() {
        let event = Arc::new(Event::default());
        let waiter = std::thread::spawn({
            let event = Arc::clone(&event);
            move || event.wait().lsn
        });
        event.settle(EventOutcome { row: None, lsn: 3 });
        event.announce();
        assert_eq!(waiter.join().unwrap(), 3);
    }
}
