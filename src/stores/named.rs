//! What is kept in memory for the stores of one kind, by name.

use crate::process::HomeProcess;
use crate::sync::plain::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

/// How many states are kept although no handle uses them: those that were used last, because a
/// program may make a handle for each call.
const KEPT: usize = 64;

/// From so many entries on, those whose state is gone are removed.
const FIRST_PURGE: usize = 2 * KEPT;

/// The states of named stores. There is one for each name while a handle uses it. It is freed when
/// no handle does and [`KEPT`] other states were used since.
///
/// # Invariants
/// 1. All handles of one name that exist at the same time have the same state.
/// 2. There are at most twice as many entries as states in use, and a constant more.
#[derive(Debug)]
pub(crate) struct Named<S> {
    names: Mutex<Names<S>>,
    /// A fork of this process has states of its own, because the lock may be held by a thread that
    /// it does not have.
    home: HomeProcess,
}

#[derive(Debug)]
struct Names<S> {
    by_name: HashMap<Box<str>, Weak<S>>,
    /// The states that were used last, the latest at the end.
    kept: VecDeque<Arc<S>>,
    purge_at: usize,
}

impl<S> Default for Named<S> {
    fn default() -> Self {
        let names = Names { by_name: HashMap::new(), kept: VecDeque::new(), purge_at: FIRST_PURGE };
        Self { names: Mutex::new(names), home: HomeProcess::current() }
    }
}

impl<S: Default> Named<S> {
    /// The state of the store called `name`, made if there is none.
    pub(crate) fn get(&self, name: &str) -> Arc<S> {
        if self.home.has_forked() {
            return Arc::default();
        }
        let mut names = self.names.lock();
        let known = names.by_name.get(name).and_then(Weak::upgrade);
        let state = known.unwrap_or_else(|| {
            let state = Arc::new(S::default());
            names.by_name.insert(name.into(), Arc::downgrade(&state));
            state
        });
        let dropped = names.keep(&state);
        names.purge();
        drop(names);
        // Not under the lock, because freeing a large state takes a while.
        drop(dropped);
        state
    }

    /// The state of the store called `name`, if there is one.
    pub(crate) fn peek(&self, name: &str) -> Option<Arc<S>> {
        self.names.lock().by_name.get(name).and_then(Weak::upgrade)
    }
}

impl<S> Names<S> {
    /// Keeps `state` as the one that was used last, and answers the one that is kept no longer.
    fn keep(&mut self, state: &Arc<S>) -> Option<Arc<S>> {
        if self.kept.back().is_some_and(|last| Arc::ptr_eq(last, state)) {
            return None;
        }
        let at = self.kept.iter().rposition(|kept| Arc::ptr_eq(kept, state));
        let known = at.and_then(|at| self.kept.remove(at));
        self.kept.push_back(Arc::clone(state));
        if known.is_some() || self.kept.len() <= KEPT { known } else { self.kept.pop_front() }
    }

    /// Removes the entries whose state is gone, when enough entries have come for that to be worth
    /// a look at all of them.
    fn purge(&mut self) {
        if self.by_name.len() < self.purge_at {
            return;
        }
        self.by_name.retain(|_, state| state.strong_count() > 0);
        self.by_name.shrink_to(FIRST_PURGE);
        self.purge_at = FIRST_PURGE.max(2 * self.by_name.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug, Default)]
    struct State(AtomicUsize);

    fn len(named: &Named<State>) -> usize {
        named.names.lock().by_name.len()
    }

    #[test]
    fn one_name_is_one_state_for_as_long_as_it_is_used() {
        let named = Named::<State>::default();
        let held = named.get("held");
        held.0.store(7, Ordering::Relaxed);
        let last = Arc::downgrade(&named.get("last"));
        for number in 0..300_000 {
            let once = named.get(&number.to_string());
            assert_eq!(once.0.fetch_add(1, Ordering::Relaxed), 0);
        }
        assert!(len(&named) <= FIRST_PURGE, "{} entries are left", len(&named));
        assert!(named.names.lock().by_name.capacity() < 4 * FIRST_PURGE);
        assert!(last.upgrade().is_none(), "a state that no one uses is still there");
        assert!(named.peek("last").is_none() && named.peek("never").is_none());
        assert!(Arc::ptr_eq(&held, &named.get("held")));
        assert_eq!(named.peek("held").unwrap().0.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn a_state_outlives_its_handles_while_few_others_are_used() {
        let named = Named::<State>::default();
        for round in 0..3 {
            for number in 0..KEPT {
                let state = named.get(&number.to_string());
                assert_eq!(state.0.fetch_add(1, Ordering::Relaxed), round);
            }
        }
        assert_eq!(named.names.lock().kept.len(), KEPT);
    }

    #[test]
    fn many_states_in_use_are_all_there() {
        let named = Named::<State>::default();
        let all: Vec<_> = (0..1_000).map(|number| named.get(&number.to_string())).collect();
        for (number, state) in all.iter().enumerate() {
            assert!(Arc::ptr_eq(state, &named.get(&number.to_string())));
        }
        assert_eq!(len(&named), 1_000);
    }
}
