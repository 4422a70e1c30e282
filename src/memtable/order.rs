//! The versions of the tables that are walked through, in order.
//!
//! A table is put in order when somebody walks through it, by that thread. From then on the writer
//! keeps it so for [`KEPT_FOR`] versions, unless a reader is at it just then: what is missing is
//! put in order by the next walk. So every walk sees all versions that were inserted before it
//! began, a table that is walked through all the time is always in order, and one that the sweeper
//! looks at twice a minute costs its writers nothing. While a walk sorts what is missing, only
//! other walks through the same table wait.
//!
//! The least and the greatest key of each table are known without that: where nothing has ended,
//! the sweeper only asks when the first row ends.

use super::arena::VersionArena;
use super::version::{Head, Version, VersionNumber};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering as Atomic};
use crate::tables::Table;
use crossbeam_skiplist::SkipMap;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

/// For how many versions after a walk through a table the writer keeps it in order.
pub(super) const KEPT_FOR: u32 = 1_024;

/// How many tables there can be.
const TABLES: usize = 1 << u8::BITS;

/// A version of a row, ordered by table and key, then the newest first.
pub(super) trait Versioned {
    fn parts(&self) -> (Head, &[u8], u64);
}

/// A version in the order.
pub(super) struct OrderedVersion {
    head: Head,
    lsn: u64,
    number: VersionNumber,
    versions: Arc<VersionArena>,
}

impl OrderedVersion {
    pub(super) fn version(&self) -> Option<&Version> {
        self.versions.get(self.number)
    }
}

/// A borrowed version, to look up without an allocation.
pub(super) struct Probe<'a> {
    head: Head,
    key: &'a [u8],
    lsn: u64,
}

impl<'a> Probe<'a> {
    pub(super) fn new(table: Table, key: &'a [u8], lsn: u64) -> Self {
        Self { head: Head::new(table, key), key, lsn }
    }
}

impl Versioned for OrderedVersion {
    fn parts(&self) -> (Head, &[u8], u64) {
        let key = self.version().map_or(&[][..], |version| &version.key);
        (self.head, key, self.lsn)
    }
}

impl Versioned for Probe<'_> {
    fn parts(&self) -> (Head, &[u8], u64) {
        (self.head, self.key, self.lsn)
    }
}

fn compare(a: &(impl Versioned + ?Sized), b: &(impl Versioned + ?Sized)) -> Ordering {
    let ((head, key, lsn), (other_head, other_key, other_lsn)) = (a.parts(), b.parts());
    head.cmp(&other_head).then_with(|| key.cmp(other_key)).then_with(|| other_lsn.cmp(&lsn))
}

impl<'a> Borrow<dyn Versioned + 'a> for OrderedVersion {
    fn borrow(&self) -> &(dyn Versioned + 'a) {
        self
    }
}

impl Ord for OrderedVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self, other)
    }
}

impl PartialOrd for OrderedVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OrderedVersion {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for OrderedVersion {}

impl Ord for dyn Versioned + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self, other)
    }
}

impl PartialOrd for dyn Versioned + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Versioned + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Versioned + '_ {}

/// See the module.
pub(super) struct OrderedTables {
    versions: SkipMap<OrderedVersion, ()>,
    tables: Box<[TableOrder]>,
}

/// How far one table is in order.
#[derive(Debug, Default)]
struct TableOrder {
    /// For how many versions more the writer keeps it in order.
    kept_for: AtomicU32,
    /// Whether somebody walked through it.
    was_walked: AtomicBool,
    /// The newest version of the table.
    newest: AtomicU32,
    /// The newest one that is in order, with all before it.
    ordered_to: AtomicU32,
    /// A version with the least key, and one with the greatest.
    least: AtomicU32,
    greatest: AtomicU32,
    /// Held by who puts versions of it in order.
    ordering: Mutex<()>,
}

impl OrderedTables {
    pub(super) fn new() -> Self {
        Self {
            versions: SkipMap::new(),
            tables: (0..TABLES).map(|_| TableOrder::default()).collect(),
        }
    }

    /// Keeps in order, at first, what was walked through in `before`.
    pub(super) fn expect_those_of(&self, before: &Self) {
        for (table, before) in self.tables.iter().zip(&before.tables) {
            if before.was_walked.load(Atomic::Relaxed) {
                table.kept_for.store(KEPT_FOR, Atomic::Relaxed);
            }
        }
    }

    /// How many versions are in order.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.versions.len()
    }

    /// The newest version of a table.
    pub(super) fn newest_of(&self, table: Table) -> VersionNumber {
        let newest = self.order_of(table).map(|order| order.newest.load(Atomic::Acquire));
        newest.map_or(VersionNumber::NONE, VersionNumber)
    }

    /// For the writer: the newest version of `table` is `number` now.
    pub(super) fn inserted(
        &self,
        versions: &Arc<VersionArena>,
        table: Table,
        number: VersionNumber,
    ) {
        let Some(order) = self.order_of(table) else { return };
        order.take_in(versions, number);
        order.newest.store(number.0, Atomic::Release);
        let kept_for = order.kept_for.load(Atomic::Relaxed);
        if kept_for == 0 {
            return;
        }
        // This may undo what a walk at the same moment has set; the next walk sets it again.
        order.kept_for.store(kept_for - 1, Atomic::Relaxed);
        if let Some(_ordering) = order.ordering.try_lock() {
            self.put_in_order(versions, order);
        }
    }

    /// The least and the greatest key of the versions of a table, of whatever LSN. `None` when it
    /// has none.
    pub(super) fn ends_of<'a>(
        &self,
        versions: &'a VersionArena,
        table: Table,
    ) -> Option<(&'a [u8], &'a [u8])> {
        let order = self.order_of(table)?;
        Some((key_of(versions, &order.least)?, key_of(versions, &order.greatest)?))
    }

    /// The order, in which every version of `table` is that was inserted before.
    pub(super) fn all_of(
        &self,
        versions: &Arc<VersionArena>,
        table: Table,
    ) -> &SkipMap<OrderedVersion, ()> {
        if let Some(order) = self.order_of(table) {
            order.was_walked.store(true, Atomic::Relaxed);
            order.kept_for.store(KEPT_FOR, Atomic::Relaxed);
            let newest = order.newest.load(Atomic::Acquire);
            if order.ordered_to.load(Atomic::Acquire) < newest {
                let _ordering = order.ordering.lock();
                self.put_in_order(versions, order);
            }
        }
        &self.versions
    }

    /// Puts in order what was inserted into a table since it was last. The caller holds the lock.
    fn put_in_order(&self, versions: &Arc<VersionArena>, order: &TableOrder) {
        let newest = order.newest.load(Atomic::Acquire);
        let ordered_to = order.ordered_to.load(Atomic::Relaxed);
        let mut number = VersionNumber(newest);
        let mut next_missing = || {
            let version = (number.0 > ordered_to).then(|| versions.get(number)).flatten()?;
            let (head, lsn) = (version.head(), version.lsn);
            let missing = OrderedVersion { head, lsn, number, versions: Arc::clone(versions) };
            number = version.before_in_table;
            Some(missing)
        };
        match (next_missing(), next_missing()) {
            (None, _) => {}
            // What the writer keeps in order misses one.
            (Some(missing), None) => _ = self.versions.insert(missing, ()),
            (Some(first), Some(second)) => {
                let mut missing = vec![first, second];
                missing.extend(std::iter::from_fn(next_missing));
                // Neighbours go the same way through the list, which the processor's cache then
                // has.
                missing.sort_unstable();
                for version in missing {
                    self.versions.insert(version, ());
                }
            }
        }
        order.ordered_to.fetch_max(newest, Atomic::Release);
    }

    fn order_of(&self, table: Table) -> Option<&TableOrder> {
        self.tables.get(usize::from(table.number()))
    }
}

impl TableOrder {
    /// For the writer: there is another version.
    fn take_in(&self, versions: &VersionArena, number: VersionNumber) {
        let Some(version) = versions.get(number) else { return };
        if key_of(versions, &self.least).is_none_or(|least| *version.key < *least) {
            self.least.store(number.0, Atomic::Release);
        }
        if key_of(versions, &self.greatest).is_none_or(|greatest| *version.key > *greatest) {
            self.greatest.store(number.0, Atomic::Release);
        }
    }
}

fn key_of<'a>(versions: &'a VersionArena, number: &AtomicU32) -> Option<&'a [u8]> {
    versions.get(VersionNumber(number.load(Atomic::Acquire))).map(|version| &*version.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_one_order_however_they_are_compared() {
        let versions = Arc::new(VersionArena::new());
        let version = |key: &[u8], lsn| {
            let (hash, table, key) = (0, Table::HANDOFF, Box::from(key));
            let (next_in_bucket, before_in_table) = (VersionNumber::NONE, VersionNumber::NONE);
            let value = None;
            let version = Version { hash, lsn, table, key, value, next_in_bucket, before_in_table };
            let (head, number) = (version.head(), versions.push(version));
            OrderedVersion { head, lsn, number, versions: Arc::clone(&versions) }
        };
        let rising = [
            version(b"", 1),
            version(b"1234567-a", 9),
            version(b"1234567-b", 7),
            version(b"1234567-b", 2),
            version(b"2", 3),
        ];
        for (at, a) in rising.iter().enumerate() {
            for (other_at, b) in rising.iter().enumerate() {
                let expected = at.cmp(&other_at);
                let (a_dyn, b_dyn): (&dyn Versioned, &dyn Versioned) = (a, b);
                assert_eq!((a.cmp(b), a.partial_cmp(b)), (expected, Some(expected)));
                assert_eq!(
                    (a_dyn.cmp(b_dyn), a_dyn.partial_cmp(b_dyn)),
                    (expected, Some(expected))
                );
                assert_eq!((a == b, *a_dyn == *b_dyn), (at == other_at, at == other_at));
                let key = &b.version().unwrap().key;
                let probe: &dyn Versioned = &Probe::new(Table::HANDOFF, key, b.lsn);
                assert_eq!(Borrow::<dyn Versioned>::borrow(a).cmp(probe), expected);
            }
        }
    }
}
