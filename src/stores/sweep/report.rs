//! What a sweep did.

use crate::stores::owner::StoreKind;
use std::collections::BTreeMap;

/// What a sweep removed, by store, and what else it did to the rows that were due.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SweepReport {
    removed: BTreeMap<StoreKind, u64>,
    /// Entries that go on and were moved to another time of the expiry index: consumed form tokens
    /// until the end of their grace, and windows that were used since.
    pub rescheduled: u64,
    /// Rows that were due and left alone, because they are damaged.
    pub stepped_over: u64,
}

impl SweepReport {
    /// How many entries of the stores of this kind were removed, each with every row that belongs
    /// to it. Those of a limiter are its windows and cooldowns.
    #[must_use]
    pub fn removed(&self, store: StoreKind) -> u64 {
        self.removed.get(&store).copied().unwrap_or_default()
    }

    /// How many entries were removed, over all stores.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.removed.values().sum()
    }

    /// Counts entries of `store` that were removed.
    pub(super) fn count(&mut self, store: StoreKind, entries: u64) {
        if entries > 0 {
            *self.removed.entry(store).or_default() += entries;
        }
    }

    /// Adds what another slice did.
    pub(super) fn add(&mut self, other: &Self) {
        for (store, removed) in &other.removed {
            *self.removed.entry(*store).or_default() += removed;
        }
        self.rescheduled += other.rescheduled;
        self.stepped_over += other.stepped_over;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_add_up_and_a_store_without_an_entry_is_not_in_them() {
        let mut one = SweepReport::default();
        one.count(StoreKind::CACHE, 0);
        assert_eq!(one, SweepReport::default());
        one.count(StoreKind::CACHE, 2);
        (one.rescheduled, one.stepped_over) = (3, 5);
        let mut both = one.clone();
        both.add(&one);
        assert_eq!((both.removed(StoreKind::CACHE), both.total()), (4, 4));
        assert_eq!((both.rescheduled, both.stepped_over), (6, 10));
    }
}
