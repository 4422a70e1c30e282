//! What a room keeps in memory about its adaptive limiters: the capacities that were computed, and
//! the longest windows that are used.
//!
//! A capacity is kept for the recalculation interval, whichever call computed it: one that records
//! or one that asks. It is not in the file, so a call that asks writes nothing, and a room that is
//! opened again computes it anew.
//!
//! # Invariants
//! 1. A call that asks looks here after it has taken its snapshot. What it computed is kept only if
//!    no resource was forgotten since before the snapshot, so no capacity from before a reset is
//!    found after it.
//! 2. What a transaction computes or forgets is held apart until it ends. It counts for that
//!    transaction at once, and for every other call when the transaction was kept.
//! 3. A capacity names how often its limiter was cleared. After a clear it is not found.
//! 4. The memory is bounded: see [`MAX_KEPT`] and [`MAX_KEPT_BYTES`]. What is dropped early is
//!    computed again by the next call.

use super::capacity::{AdaptiveConfig, Reason};
use super::span_ms;
use crate::engine::{HeldInterest, Interest};
use crate::stores::rate_limit::RateLimitConfig;
use crate::stores::rate_limit::longest_window::{LongestWindow, LongestWindows};
use crate::sync::plain::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// How many capacities one half of the memory holds.
const MAX_KEPT: usize = 8_192;

/// How many bytes of keys one half of the memory holds, before the other half is dropped.
const MAX_KEPT_BYTES: usize = 1 << 20;

/// A computed capacity of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// How often the limiter had been cleared.
    pub(super) clears: u64,
    pub(super) computed_at_ms: u64,
    pub(super) limit: u64,
    pub(super) user_reserved: u64,
    pub(super) background_max: u64,
    pub(super) reason: Reason,
}

impl Capacity {
    /// When it may be computed again.
    pub(super) fn recomputed_at_ms(&self, config: &AdaptiveConfig) -> u64 {
        self.computed_at_ms.saturating_add(span_ms(config.recalculation_interval))
    }
}

/// The capacities of all adaptive limiters of a room, by the key of the resource.
#[derive(Debug)]
pub(crate) struct Capacities {
    /// Held while a transaction has something here, so that the hook tells how it ends.
    interest: Interest,
    inner: Mutex<Inner>,
    longest: LongestWindows,
}

#[derive(Debug, Default)]
struct Inner {
    kept: Kept,
    /// How many transactions have forgotten something.
    forgets: u64,
    under_way: StagedCapacities,
}

/// What the transaction under way computed, and `None` for what it forgot.
#[derive(Debug, Default)]
struct StagedCapacities {
    changes: HashMap<Vec<u8>, Option<Capacity>>,
    interest: Option<HeldInterest>,
}

/// Two halves: the younger one is filled, and takes the place of the older one when it is full. So
/// what was stored last is kept, at the same cost for each.
#[derive(Debug, Default)]
struct Kept {
    young: HashMap<Vec<u8>, Capacity>,
    old: HashMap<Vec<u8>, Capacity>,
    young_bytes: usize,
}

impl Kept {
    fn get(&self, key: &[u8]) -> Option<Capacity> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    fn insert(&mut self, key: &[u8], capacity: Capacity) {
        if let Some(kept) = self.young.get_mut(key) {
            *kept = capacity;
            return;
        }
        if self.young.len() >= MAX_KEPT || self.young_bytes + key.len() > MAX_KEPT_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += key.len();
        self.young.insert(key.to_vec(), capacity);
    }

    fn remove(&mut self, key: &[u8]) {
        self.old.remove(key);
        if self.young.remove(key).is_some() {
            self.young_bytes = self.young_bytes.saturating_sub(key.len());
        }
    }
}

impl Capacities {
    /// Those of a room whose transactions are shown while `interest` is held.
    pub(crate) fn new(interest: Interest) -> Self {
        Self { interest, inner: Mutex::default(), longest: LongestWindows::default() }
    }

    /// The longest window that the handles of the limiter called `name` use, after one was made
    /// with these configurations.
    pub(super) fn longest(
        &self,
        name: &str,
        rate: RateLimitConfig,
        config: &AdaptiveConfig,
    ) -> Arc<LongestWindow> {
        self.longest.used(name, rate.window_ms().max(span_ms(config.monitoring_window)))
    }

    /// What a call sees that is about to take a snapshot.
    pub(super) fn asked(&self) -> CapacityView<'_> {
        CapacityView { all: self, forgets: Some(self.inner.lock().forgets) }
    }

    /// What the transaction under way sees.
    pub(crate) fn in_transaction(&self) -> CapacityView<'_> {
        CapacityView { all: self, forgets: None }
    }

    /// The transaction under way has ended.
    pub(crate) fn end(&self, is_kept: bool) {
        let mut inner = self.inner.lock();
        let StagedCapacities { changes, interest } = std::mem::take(&mut inner.under_way);
        if is_kept {
            inner.forgets += u64::from(changes.values().any(Option::is_none));
            for (key, capacity) in &changes {
                match capacity {
                    Some(capacity) => inner.kept.insert(key, *capacity),
                    None => inner.kept.remove(key),
                }
            }
        }
        drop(inner);
        drop(interest);
    }
}

/// The capacities as one call sees them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CapacityView<'a> {
    all: &'a Capacities,
    /// How many transactions had forgotten something before the snapshot was taken. `None` in a
    /// transaction.
    forgets: Option<u64>,
}

impl CapacityView<'_> {
    /// The capacity of the resource at `key`, if one is kept.
    pub(super) fn get(self, key: &[u8]) -> Option<Capacity> {
        let inner = self.all.inner.lock();
        let under_way = inner.under_way.changes.get(key);
        match (under_way, self.forgets) {
            (Some(capacity), None) => *capacity,
            // A reset is under way, and the snapshot may show it already.
            (Some(None), Some(_)) => None,
            _ => inner.kept.get(key),
        }
    }

    /// Keeps what was computed for the resource at `key`.
    pub(super) fn keep(self, key: &[u8], capacity: Capacity) {
        let mut inner = self.all.inner.lock();
        match self.forgets {
            None => self.stage(&mut inner, key, Some(capacity)),
            Some(forgets) => {
                let is_forgotten = inner.under_way.changes.get(key) == Some(&None);
                if forgets == inner.forgets && !is_forgotten {
                    inner.kept.insert(key, capacity);
                }
            }
        }
    }

    /// Forgets the capacity of the resource at `key` in the transaction under way.
    pub(super) fn forget(self, key: &[u8]) {
        self.stage(&mut self.all.inner.lock(), key, None);
    }

    fn stage(self, inner: &mut Inner, key: &[u8], capacity: Option<Capacity>) {
        inner.under_way.changes.insert(key.to_vec(), capacity);
        inner.under_way.interest.get_or_insert_with(|| self.all.interest.hold());
    }
}

#[cfg(test)]
impl Default for Capacities {
    fn default() -> Self {
        Self::new(Interest::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(user_reserved: u64) -> Capacity {
        Capacity {
            clears: 0,
            computed_at_ms: 7,
            limit: 100,
            user_reserved,
            background_max: 100 - user_reserved,
            reason: Reason::Low,
        }
    }

    #[test]
    fn what_a_transaction_computes_is_seen_by_others_when_it_was_kept() {
        let all = Capacities::default();
        for is_kept in [false, true] {
            all.in_transaction().keep(b"r", capacity(30));
            assert_eq!(all.in_transaction().get(b"r"), Some(capacity(30)));
            assert_eq!(all.asked().get(b"r"), None);
            all.end(is_kept);
            assert_eq!(all.asked().get(b"r").is_some(), is_kept);
        }
    }

    #[test]
    fn what_an_aborted_transaction_forgot_is_still_there() {
        let all = Capacities::default();
        all.asked().keep(b"r", capacity(30));
        all.in_transaction().forget(b"r");
        assert_eq!((all.in_transaction().get(b"r"), all.asked().get(b"r")), (None, None));
        all.end(false);
        assert_eq!(all.asked().get(b"r"), Some(capacity(30)));
        all.in_transaction().forget(b"r");
        all.end(true);
        assert_eq!(all.asked().get(b"r"), None);
    }

    #[test]
    fn what_was_computed_from_before_a_reset_is_not_kept() {
        let all = Capacities::default();
        let before = all.asked();
        all.in_transaction().forget(b"r");
        before.keep(b"r", capacity(90));
        all.end(true);
        before.keep(b"r", capacity(90));
        assert_eq!(all.asked().get(b"r"), None);
        all.asked().keep(b"r", capacity(30));
        assert_eq!(all.asked().get(b"r"), Some(capacity(30)));
    }

    #[test]
    fn the_memory_is_bounded_in_number_and_bytes_and_has_the_last() {
        let all = Capacities::default();
        for number in 0..5 * MAX_KEPT {
            all.asked().keep(&number.to_le_bytes(), capacity(1));
        }
        let held = |all: &Capacities| {
            let inner = all.inner.lock();
            inner.kept.young.len() + inner.kept.old.len()
        };
        assert!(held(&all) <= 2 * MAX_KEPT);
        assert!(all.asked().get(&(5 * MAX_KEPT - 1).to_le_bytes()).is_some());
        let all = Capacities::default();
        for number in 0..200_usize {
            let key = [&number.to_le_bytes()[..], &[0; 65_536]].concat();
            all.asked().keep(&key, capacity(1));
            assert!(all.asked().get(&key).is_some());
        }
        assert!(held(&all) <= 2 * (MAX_KEPT_BYTES / 65_536 + 1));
        all.in_transaction().forget(b"none");
        all.end(true);
    }
}
