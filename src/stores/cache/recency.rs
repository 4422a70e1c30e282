//! The order in which the live entries of a cache were last used.
//!
//! # Invariants
//! 1. `by_use` has each entry once, at its tick; `by_expiry` has each entry that expires once.
//! 2. `bytes` is the sum over all entries.

use crate::engine::time_line::{Deadline, Moment};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Entries in the order of their last use. Knows nothing of rows.
#[derive(Debug, Default)]
pub(crate) struct Recency {
    entries: HashMap<Arc<str>, RecencyEntry>,
    by_use: BTreeMap<u64, Arc<str>>,
    by_expiry: BTreeSet<(Deadline, Arc<str>)>,
    bytes: u64,
    next_tick: u64,
    /// Which corrections of the time line hold.
    generation: u64,
}

/// What an entry's row says of it; that of the next value under the same hash nearly always
/// differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) expires_at: Deadline,
    pub(crate) stored_at_ms: u64,
    pub(crate) bytes: u64,
}

/// An entry, and when it was last used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecencyEntry {
    tick: u64,
    stamp: Stamp,
}

impl Recency {
    /// How many entries there are.
    pub(crate) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The bytes of all entries.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The entry whose last use is the longest ago.
    pub(crate) fn least(&self) -> Option<Arc<str>> {
        self.by_use.values().next().cloned()
    }

    /// An entry, as [`restore`](Self::restore) takes it.
    pub(crate) fn get(&self, hash: &str) -> Option<RecencyEntry> {
        self.entries.get(hash).copied()
    }

    /// Stores an entry, used now.
    pub(crate) fn insert(&mut self, hash: Arc<str>, stamp: Stamp) {
        let tick = self.next_tick;
        self.next_tick += 1;
        self.insert_at(hash, RecencyEntry { tick, stamp });
    }

    /// Makes an entry what [`get`](Self::get) answered before it was changed, at its old place in
    /// the order.
    pub(crate) fn restore(&mut self, hash: Arc<str>, was: Option<RecencyEntry>) {
        match was {
            // No other entry has its tick: each is given once.
            Some(entry) => self.insert_at(hash, entry),
            None => self.remove(&hash),
        }
    }

    fn insert_at(&mut self, hash: Arc<str>, entry: RecencyEntry) {
        self.remove(&hash);
        self.bytes += entry.stamp.bytes;
        self.by_use.insert(entry.tick, Arc::clone(&hash));
        if entry.stamp.expires_at != Deadline::NEVER {
            self.by_expiry.insert((entry.stamp.expires_at, Arc::clone(&hash)));
        }
        self.entries.insert(hash, entry);
    }

    /// Forgets an entry.
    pub(crate) fn remove(&mut self, hash: &str) {
        let Some((hash, entry)) = self.entries.remove_entry(hash) else { return };
        self.bytes -= entry.stamp.bytes;
        self.by_use.remove(&entry.tick);
        self.by_expiry.remove(&(entry.stamp.expires_at, hash));
    }

    /// Notes that an entry is used now.
    pub(crate) fn touch(&mut self, hash: &str) {
        let Some(entry) = self.entries.get_mut(hash) else { return };
        let Some(hash) = self.by_use.remove(&entry.tick) else { return };
        entry.tick = self.next_tick;
        self.by_use.insert(self.next_tick, hash);
        self.next_tick += 1;
    }

    /// Forgets what has expired `now`. `false` when the time line was corrected, so that entries
    /// which were forgotten may be live again.
    #[must_use]
    pub(crate) fn advance(&mut self, now: &Moment) -> bool {
        let mut from = Deadline { epoch: 0, at_ms: 0 };
        // Each epoch has an order of its own.
        let first = |by_expiry: &BTreeSet<(Deadline, Arc<str>)>, from| {
            by_expiry.range((from, Arc::from(""))..).next().cloned()
        };
        while let Some((deadline, hash)) = first(&self.by_expiry, from) {
            if now.has_passed(deadline) {
                self.remove(&hash);
                continue;
            }
            let Some(epoch) = deadline.epoch.checked_add(1) else { break };
            from = Deadline { epoch, at_ms: 0 };
        }
        let is_same = now.generation() == self.generation;
        self.generation = now.generation();
        is_same
    }
}

#[cfg(test)]
impl Recency {
    /// The entries in the order of their last use.
    pub(super) fn in_order(&self) -> Vec<&str> {
        self.by_use.values().map(|hash| &**hash).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: u64 = u64::MAX;

    fn stamp(expires_at_ms: u64, bytes: u64) -> Stamp {
        let expires_at = match expires_at_ms {
            NEVER => Deadline::NEVER,
            _ => Deadline::at(expires_at_ms),
        };
        Stamp { expires_at, stored_at_ms: 1, bytes }
    }

    fn abc() -> Recency {
        let mut recency = Recency::default();
        for (hash, expires_at_ms) in [("a", 10), ("b", NEVER), ("c", 20)] {
            recency.insert(hash.into(), stamp(expires_at_ms, 5));
        }
        recency
    }

    #[test]
    fn use_moves_an_entry_to_the_end() {
        let mut recency = abc();
        recency.touch("a");
        recency.touch("unknown");
        assert_eq!(recency.in_order(), ["b", "c", "a"]);
        recency.insert("b".into(), stamp(10, 7));
        assert_eq!(recency.in_order(), ["c", "a", "b"]);
        assert_eq!((recency.len(), recency.bytes()), (3, 17));
        assert_eq!(recency.least().as_deref(), Some("c"));
    }

    #[test]
    fn expired_entries_are_forgotten() {
        let mut recency = abc();
        assert!(recency.advance(&Moment::manual(9)));
        assert_eq!(recency.len(), 3);
        assert!(recency.advance(&Moment::manual(20)));
        assert_eq!((recency.in_order(), recency.bytes()), (vec!["b"], 5));
    }

    #[test]
    fn an_undone_change_is_restored_at_its_old_place() {
        let mut recency = abc();
        let (a, d) = (recency.get("a"), recency.get("d"));
        assert!(d.is_none());
        recency.remove("a");
        recency.insert("d".into(), stamp(NEVER, 9));
        recency.restore("d".into(), d);
        recency.restore("a".into(), a);
        assert_eq!((recency.in_order(), recency.bytes()), (vec!["a", "b", "c"], 15));
        recency.insert("a".into(), stamp(30, 7));
        recency.restore("a".into(), a);
        assert_eq!((recency.in_order(), recency.bytes()), (vec!["a", "b", "c"], 15));
        assert!(recency.advance(&Moment::manual(10)));
        assert_eq!(recency.in_order(), ["b", "c"], "it has its old expiry");
    }
}
